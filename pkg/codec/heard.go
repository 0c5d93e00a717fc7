package codec

import "github.com/packetboat/packetboat/pkg/codec/entropy"

// Numbers that go together, in one message or in several that come together: a
// column looks among the numbers coded last for one that had the same value, and
// for its twin: one that moved as far among its own values as this among its own.
// Of things that are computed from one another all moves are alike, whatever the
// formula is: 17 % of IoT.

// heard is a number that was coded.
type heard struct {
	x      int64
	format format
	moved  bool   // it was not the one before
	change uint8  // how it was coded …
	rank   int32  // … and how many places from the one before; with changeNew that it stands below
	part   uint32 // changeNew: how far between its neighbours, of partOne
}

const (
	changeNone  = iota // as foreseen, or without a dictionary
	changeKnown        // in the dictionary
	changeNew          // not there, but between two that are
	changeOut          // beyond all

	heardMax = 32
	partOne  = 1 << 31
	minMove  = 3 // places; shorter ones are alike by chance
)

// news is the number at hand.
func (s *state) news() *heard { return &s.heard[s.heardAt%heardMax] }

// hear goes on to the next number.
func (s *state) hear() {
	s.heardAt++
	*s.news() = heard{}
}

// back is the number that was coded k numbers back; 0: none.
func (s *state) back(k uint8) *heard {
	if k == 0 {
		return &heard{}
	}
	return &s.heard[(s.heardAt-k)%heardMax]
}

// findCopy looks for a number that has just become x.
func (s *state) findCopy(col *column, x int64) {
	for k := uint8(1); k < heardMax; k++ {
		if h := s.back(k); h.x == x && h.format == col.format && h.moved {
			col.copied = k
			return
		}
	}
}

// findTwin looks for a number that has moved by rank, if the twin did not three
// times.
func (s *state) findTwin(col *column, rank int32) {
	if col.alike&7 != 0 {
		return
	}
	col.twin = 0
	for k := uint8(1); k < heardMax && entropy.Abs(int64(rank)) >= minMove; k++ {
		if h := s.back(k); h.rank == rank && h.change == changeKnown {
			col.twin, col.alike = k, 1
			return
		}
	}
}
