package buffer

import (
	"encoding/binary"

	"github.com/packetboat/packetboat/pkg/stream"
)

func uvarintLen(v uint64) int {
	n := 1
	for v >= 0x80 {
		v >>= 7
		n++
	}
	return n
}

func varintLen(v int64) int { return uvarintLen(uint64(v)<<1 ^ uint64(v>>63)) }

func appendRanges(p []byte, s *stream.RangeSet) []byte {
	p = binary.AppendUvarint(p, uint64(s.Len()))
	last := uint64(0)
	for _, r := range s.Ranges() {
		p = binary.AppendUvarint(p, r.First-last)
		p = binary.AppendUvarint(p, r.Last-r.First)
		last = r.Last
	}
	return p
}

func appendLoss(p []byte, l stream.Loss) []byte {
	p = binary.AppendUvarint(p, l.First)
	p = binary.AppendUvarint(p, l.Last)
	p = append(p, byte(l.Reason))
	p = binary.AppendVarint(p, l.From)
	return binary.AppendVarint(p, l.To)
}

func appendLog(p []byte, l stream.LogID) []byte {
	p = append(p, l.Name[:]...)
	return append(p, l.Incarnation[:]...)
}

// reader takes values off the front of p. After the first one that is not
// there, or not possible, bad stays true and all values are zero.
type reader struct {
	p   []byte
	bad bool
}

func (r *reader) fail() {
	r.bad, r.p = true, nil
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.p)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.p = r.p[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.p)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.p = r.p[n:]
	return v
}

// take gives the next n bytes, not copied.
func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.p)) {
		r.fail()
		return nil
	}
	v := r.p[:n:n]
	r.p = r.p[n:]
	return v
}

func (r *reader) bytes() []byte { return r.take(r.uvarint()) }

func (r *reader) byte() byte {
	if v := r.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *reader) u64() uint64 {
	if v := r.take(8); v != nil {
		return binary.LittleEndian.Uint64(v)
	}
	return 0
}

func (r *reader) epoch() (e stream.Epoch) {
	copy(e[:], r.take(uint64(len(e))))
	return e
}

func (r *reader) log() stream.LogID { return stream.LogID{Name: r.epoch(), Incarnation: r.epoch()} }

func (r *reader) lane() stream.Lane {
	l := stream.Lane(r.byte())
	if !l.Valid() {
		r.fail()
		return 0
	}
	return l
}

// count reads how many things of at least size bytes follow.
func (r *reader) count(size int) int {
	n := r.uvarint()
	if n > uint64(len(r.p)/size) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *reader) ranges() (s stream.RangeSet) {
	last := uint64(0)
	for range r.count(2) {
		gap, more := r.uvarint(), r.uvarint()
		first := last + gap
		if gap == 0 || first < last || first+more < first || first+more == ^uint64(0) {
			r.fail()
			return s
		}
		last = first + more
		s.Add(stream.Range{First: first, Last: last})
	}
	return s
}

func (r *reader) loss() (l stream.Loss) {
	l.First, l.Last, l.Reason = r.uvarint(), r.uvarint(), stream.Reason(r.byte())
	l.From, l.To = r.varint(), r.varint()
	if l.First == 0 || l.Last < l.First || l.Last == ^uint64(0) || !l.Reason.Valid() {
		r.fail()
	}
	return l
}
