package codec

import "github.com/packetboat/packetboat/pkg/codec/entropy"

const heardMax = 64

// heard is a number that was coded.
type heard struct {
	x      int64
	format format
	moved  bool // it was not what it was before
	change uint8
	rank   int32
	part   uint32
}

const (
	changeNone = iota
	changeKnown
	changeNew
	changeOut
)

// back is the number that was coded k numbers before; 0: none.
func (s *state) back(k uint8) (h heard) {
	if k > 0 {
		h = s.heard[(s.heardAt-k)%heardMax]
	}
	return h
}

func (s *state) twin(col *column) heard { return s.back(col.twin) }

func (s *state) findTwin(col *column, rank int) {
	col.twin = 0
	if entropy.Abs(int64(rank)) < 3 {
		return
	}
	for k := uint8(1); k < heardMax; k++ {
		if h := &s.heard[(s.heardAt-k)%heardMax]; int(h.rank) == rank && h.change == changeKnown {
			col.twin, col.alike = k, 0xfe
			return
		}
	}
}

func (s *state) findCopy(col *column, x int64, f format) {
	for k := uint8(1); k < heardMax; k++ {
		if h := &s.heard[(s.heardAt-k)%heardMax]; h.x == x && h.format == f && h.moved {
			col.copied = k
			return
		}
	}
}
