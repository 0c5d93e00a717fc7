package buffer

import (
	"encoding/binary"

	"github.com/packetboat/packetboat/pkg/stream"
)

// The operations on state; the numbers stand on disk.
const (
	opBegin  = 1
	opSettle = 2
	opLose   = 3
	opGiveUp = 4
	opMap    = 5 // changes of the map; recovery does them
	opEcho   = 6 // hashes of the keys changed before

	// maxOpRanges keeps one operation far below a frame's size.
	maxOpRanges = 64
)

// operations are encoded operations that wait to be journalled. Guarded by
// Buffer.mu until they are taken by a commit.
type operations struct {
	buf  []byte
	ends []int // where each operation ends in buf
}

func (o *operations) empty() bool { return len(o.ends) == 0 }

func (o *operations) reset() { o.buf, o.ends = o.buf[:0], o.ends[:0] }

// take moves up to room bytes of whole operations, counted from the one with
// index from, to dst. It returns the index of the next one.
func (o *operations) take(dst []byte, from, room int) ([]byte, int) {
	start := 0
	if from > 0 {
		start = o.ends[from-1]
	}
	end := start
	for from < len(o.ends) && o.ends[from]-start <= room {
		end = o.ends[from]
		from++
	}
	return append(dst, o.buf[start:end]...), from
}

func (o *operations) add(code byte, body []byte) {
	o.buf = append(o.buf, code)
	o.buf = binary.AppendUvarint(o.buf, uint64(len(body)))
	o.buf = append(o.buf, body...)
	o.ends = append(o.ends, len(o.buf))
}

func (o *operations) begin(ordinal uint64, id stream.Epoch) {
	o.add(opBegin, append(binary.AppendUvarint(nil, ordinal), id[:]...))
}

func (o *operations) settle(id stream.Epoch, lane stream.Lane, by stream.LogID, settled, lost *stream.RangeSet) {
	ranges := settled.Ranges()
	for first := true; first || len(ranges) > 0; first = false {
		n := min(len(ranges), maxOpRanges)
		part := stream.NewRangeSet(ranges[:n]...)
		ranges = ranges[n:]
		var gone stream.RangeSet
		for _, r := range part.Ranges() {
			for x := range lost.Within(r) {
				if gone.Len() == maxOpRanges { // the rest goes into an operation of its own
					o.settlePart(id, lane, by, gone, gone)
					gone = stream.RangeSet{}
				}
				gone.Add(x)
			}
		}
		o.settlePart(id, lane, by, part, gone)
	}
}

func (o *operations) settlePart(id stream.Epoch, lane stream.Lane, by stream.LogID, settled, lost stream.RangeSet) {
	body := append(make([]byte, 0, 64), id[:]...)
	body = append(body, byte(lane))
	body = appendLog(body, by)
	body = appendRanges(body, &settled)
	o.add(opSettle, appendRanges(body, &lost))
}

func (o *operations) lose(id stream.Epoch, lane stream.Lane, loss stream.Loss) {
	body := append(make([]byte, 0, 64), id[:]...)
	o.add(opLose, appendLoss(append(body, byte(lane)), loss))
}

func (o *operations) giveUp(id stream.Epoch, reason stream.Reason) {
	o.add(opGiveUp, append(append(make([]byte, 0, 17), id[:]...), byte(reason)))
}

// replay does the operations in p. It reports whether all could be read.
func (s *state) replay(p []byte) bool {
	r := reader{p: p}
	for len(r.p) > 0 {
		code := r.byte()
		body := reader{p: r.bytes()}
		if r.bad || !s.replayOne(code, &body) {
			return false
		}
	}
	return true
}

func (s *state) replayOne(code byte, r *reader) bool {
	switch code {
	case opBegin:
		ordinal, id := r.uvarint(), r.epoch()
		if !r.bad && s.find(id) == nil {
			s.begin(ordinal, id)
		}
	case opSettle:
		id, lane := r.epoch(), stream.Lane(r.byte())
		by := r.log()
		settled, lost := r.ranges(), r.ranges()
		if !r.bad {
			s.settle(id, lane, by, &settled, &lost)
			s.dropComplete()
		}
	case opLose:
		id, lane := r.epoch(), r.lane()
		if loss := r.loss(); !r.bad {
			s.lose(id, lane, loss)
		}
	case opGiveUp:
		id, reason := r.epoch(), stream.Reason(r.byte())
		if !r.bad && reason.Valid() {
			s.giveUp(id, reason)
		}
	case opMap, opEcho:
	default:
		return false
	}
	return !r.bad
}
