package uplink

import (
	"errors"
	"fmt"
	"time"

	"github.com/packetboat/packetboat/internal/wire"
	"github.com/packetboat/packetboat/pkg/buffer"
	"github.com/packetboat/packetboat/pkg/codec"
	"github.com/packetboat/packetboat/pkg/stream"
)

// takeAcks deals with the PUBACKs that have come.
func (l *link) takeAcks() error {
	acks, bad := l.session.take()
	decoded := uint64(0) // bodies of the session in use
	for _, a := range acks {
		f := l.flights[a.id]
		delete(l.flights, a.id)
		la := &l.lanes[f.id.Lane]
		la.inFlight--
		l.bytes -= f.bytes
		l.progress, l.u.stalls = a.at, 0
		if err := l.answer(f, a); err != nil {
			return err
		}
		if a.code != codePayload && f.session == l.sessions {
			decoded = f.bodies
		}
		if la.inFlight == 0 {
			la.blocked = false
		}
		if len(l.flights) == 0 && l.drain {
			l.drain, decoded = false, 0
			l.encode(memory{})
		}
		l.u.count(func(s *Stats) {
			s.LastAck, s.LastRoundTrip = a.at, a.at.Sub(f.sent)
			if a.code >= 0x80 {
				s.MessagesResent += int64(f.records)
			}
		})
	}
	l.confirm(decoded)
	if bad != nil {
		return &ending{what: bad.Error(), err: bad}
	}
	return nil
}

// answer deals with the PUBACK of f.
func (l *link) answer(f *flight, a ack) error {
	switch a.code {
	case 0, codeNoSubscribers:
		return l.settle(f, a)
	case codePayload:
		return l.undecodable(f, a)
	}
	l.requeue(f.id, f.first)
	l.lanes[f.id.Lane].blocked = true
	pause, ok := wire.RetryAfter(a.user)
	if !ok {
		pause = refusePause
	}
	if until := time.Now().Add(asked(pause, chance())); until.After(l.pause) {
		l.pause = until
	}
	l.u.count(func(s *Stats) { s.BatchesRefused++ })
	what := "hub does not take batches at the moment"
	if a.code != codeQuota {
		what = fmt.Sprintf("hub refused a batch with reason code 0x%02x", a.code)
	}
	l.u.note(what)
	return nil
}

// settle tells the buffer what the hub says of f's numbers.
func (l *link) settle(f *flight, a ack) error {
	lost, in, err := wire.ParseAnswer(a.user)
	if err != nil {
		return &ending{what: fmt.Sprintf("hub's answer to a batch does not follow the link protocol: %v", err), err: err}
	}
	answer := buffer.Answer{By: l.welcome.log}
	if f.records > 0 {
		r := stream.Range{First: f.first, Last: f.first + uint64(f.records) - 1}
		answer.Settled.Add(r)
		answer.Lost = stream.Collect(lost.Within(r))
	}
	for _, r := range f.losses {
		answer.Settled.Add(r)
		for gone := range in.Missing(r) { // what the log has is not lost
			answer.Lost.Add(gone)
		}
	}
	if err := l.u.buf.Settle(f.id, answer); err != nil {
		return fmt.Errorf("settle a batch: %w", err)
	}
	la := &l.lanes[f.id.Lane]
	la.most = min(grow(la.most, la.tight), l.u.o.Lanes[f.id.Lane].Messages)
	l.settled, l.u.poison = true, backoff{min: time.Second, max: 5 * time.Minute}
	if f.learned {
		l.u.distrust.reset()
	}
	l.u.count(func(s *Stats) {
		s.BatchesSettled++
		s.MessagesSettled += int64(f.records)
	})
	return nil
}

// grow is how many messages to try after most of them went well.
func grow(most int, tight bool) int {
	if tight { // what does not fit was encoded in vain
		return most + most/8 + 1
	}
	return max(most, 1) * 2
}

// undecodable deals with a batch that the hub could not decode. All that was
// sent after it is refused too; when the last of it is answered, this lane
// begins anew, self-contained. What is refused although it was self-contained
// is sent as rows, which every hub reads alike; what is refused as rows is
// halved until one message is left, and this one is quarantined.
func (l *link) undecodable(f *flight, a ack) error {
	l.requeue(f.id, f.first)
	l.u.count(func(s *Stats) { s.BatchesBad++ })
	explained := l.regrant(a)
	if l.drain {
		return nil // out of step since an earlier one
	}
	l.drain, l.suspect = true, f.id.Lane
	if !f.fresh || explained {
		return nil
	}
	if f.learned {
		l.distrustCodec()
		return nil
	}
	if f.records > 1 {
		l.lanes[f.id.Lane].most = f.records / 2
		return nil
	}
	l.pause = time.Now().Add(l.u.poison.next(chance()))
	if f.records == 0 {
		l.u.note("hub cannot decode a declaration of losses")
		return nil
	}
	l.u.note(fmt.Sprintf("hub cannot decode message %d of %s lane: quarantined", f.first, f.id.Lane))
	l.u.count(func(s *Stats) { s.Quarantined++ })
	return l.lose(f.id, f.first, stream.Quarantined)
}

// unfit deals with a batch that was not sent because it cannot be encoded or
// does not fit the hub's packet limit. It is halved until one message is left,
// which then can never be sent.
func (l *link) unfit(b *stream.Batch, err error) error {
	l.requeue(b.ID, b.First)
	record := errors.Is(err, codec.ErrInvalid)
	if !record && !errors.Is(err, wire.ErrTooLarge) {
		return fmt.Errorf("encode a batch: %w", err)
	}
	n := len(b.Records)
	if n > 1 {
		la := &l.lanes[b.ID.Lane]
		la.most, la.tight = n/2, !record
		return nil
	}
	if n == 1 && len(b.Losses) > 0 && !record { // is it the message, or what goes with it?
		alone := *b
		alone.Losses = nil
		if l.encoder.Check(&alone) == nil {
			n = 0
		}
	}
	if n == 0 {
		return &ending{what: fmt.Sprintf("hub's packet limit of %d bytes is too small for a declaration of losses", l.welcome.packet), slow: true}
	}
	reason := stream.RefusedByLog
	if record {
		reason = stream.Unreadable
	}
	l.u.note(fmt.Sprintf("message %d of %s lane can never be sent: %v", b.First, b.ID.Lane, err))
	l.u.count(func(s *Stats) { s.TooLarge++ })
	return l.lose(b.ID, b.First, reason)
}

func (l *link) lose(id stream.ID, n uint64, reason stream.Reason) error {
	if err := l.u.buf.Lose(id, stream.Range{First: n, Last: n}, reason); err != nil {
		return fmt.Errorf("give up a message: %w", err)
	}
	l.lanes[id.Lane].probe = true
	return nil
}
