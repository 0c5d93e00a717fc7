package uplink

import (
	"github.com/packetboat/packetboat/pkg/buffer"
	"github.com/packetboat/packetboat/pkg/stream"
)

// losing adds Lose to a buffer that has none: a number that was given up leaves
// as a loss in a batch of its own.
type losing struct {
	*buffer.Buffer
	gone map[stream.ID]map[uint64]stream.Reason
}

func withLose(b *buffer.Buffer) Buffer {
	if _, ok := any(b).(loser); ok {
		return b
	}
	return &losing{b, make(map[stream.ID]map[uint64]stream.Reason)}
}

func (l *losing) Lose(id stream.ID, r stream.Range, reason stream.Reason) error {
	if l.gone[id] == nil {
		l.gone[id] = make(map[uint64]stream.Reason)
	}
	l.gone[id][r.First] = reason
	return nil
}

func (l *losing) Next(lane stream.Lane, limit buffer.Limit) (stream.Batch, bool, error) {
	b, ok, err := l.Buffer.Next(lane, limit)
	for i := range b.Records {
		reason, lost := l.gone[b.ID][b.Records[i].Seq]
		switch {
		case !lost:
		case i > 0:
			l.Requeue(b.ID, b.First)
			limit.Messages = i
			return l.Buffer.Next(lane, limit)
		case len(b.Records) > 1:
			l.Requeue(b.ID, b.First)
			limit.Messages = 1
			return l.Next(lane, limit)
		default:
			b.Losses = append(b.Losses, stream.Loss{Range: stream.Range{First: b.First, Last: b.First}, Reason: reason})
			b.Records = nil
			return b, ok, err
		}
	}
	return b, ok, err
}
