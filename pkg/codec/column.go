package codec

import (
	"math/bits"

	"github.com/packetboat/packetboat/pkg/codec/entropy"
)

// A column is one number of the payloads of a topic. It is foreseen by the
// cheapest of a few predictors; what differs is coded as a rank among the values
// that the column has had, or as a difference.

// The predictors.
const (
	predSame  = iota // the value before: most sensors stand still
	predLine         // as far again as the last time: counters, ramps
	predClock        // with the message's time: time stamps of any unit (11 % of N2K and IoT)
	predShape        // as in the last message of the same template (a third of OBD as JSON)
	predRatio        // in proportion to the number before it: one thing in two units (a quarter of NMEA)
	predCopy         // as a number that was coded lately: a position in several sentences (5 % of NMEA)
	predictors
)

// column is what is known of it.
type column struct {
	format       format
	v1, v2       int64 // the last values
	at           int64 // µs, time of the message of v1
	cost         [predictors]uint32
	changed      [64]entropy.Prob
	copied       uint8 // how many numbers back the one stands that it copies; 0: none
	twin         uint8 // likewise the one whose changes its own go with
	alike        uint8 // bits: whether they did, the last times
	hist         uint8 // bits: whether the last values were other than foreseen
	seen         uint8
	busy         uint8 // how often it was other than foreseen
	tick         int8  // as a time stamp: its unit is 10^-tick µs …
	ticks        bool  // … if it is one
	avg, avgRank entropy.Expected
	signs        uint8
	own          *model  // nil: the shared one
	values       []int64 // the dictionary, ascending
	plain        bool    // a dictionary did not pay
	hit          bool    // the last change was found in it
	gain         int32   // bits that it won
}

// model learns by how far numbers miss.
type model struct {
	sign, rankSign [4]entropy.Prob
	known          [8]entropy.Prob
	by, rank       entropy.Magnitude
}

// A busy column gets estimates of its own: 5 % of OBD.
const ownModelAfter = 60

// neighbours is what a number may look at beside its own past.
type neighbours struct {
	at           int64 // µs, time of the message
	before       bool  // a number stands before it in the message …
	value, older int64 // … which is this, and was that
	shape        int64 // the number in the last message of this template
	shapeFormat  format
	shapeSeen    bool
}

// number codes x, printed as f.
func (s *session) number(col *column, n *neighbours, x int64, f format) (int64, format) {
	if s.Flag(&s.sameFormat, f != col.format) {
		if f = s.format(f); s.Bad {
			return 0, f
		}
		col.reformat(f, s)
	}
	f = col.format
	p := col.predict(n)
	if h := s.back(col.copied); h.format == f {
		p[predCopy] = h.x
	}
	best := col.best(n)
	// Columns rest and move together: what the last two did is context. 5 % of EV.
	i := int(col.hist&7) | entropy.Int(p[best] != col.v1)<<3 | int(s.recent&3)<<4
	zero := &col.changed[i]
	if col.seen == 0 {
		zero = &s.firstValue
	}
	changed := s.Bit(zero, entropy.Int(x != p[best]))
	if col.seen > 0 {
		s.Learn(&s.changed[i], changed) // what columns to come begin with
	}
	col.hist = col.hist<<1 | uint8(changed)
	if changed == 0 {
		x = p[best]
	} else {
		x = s.change(col, p[best], x)
	}
	if col.busy > 0 {
		push(&s.recent, x != col.v1)
	}
	if x != col.v1 && x != p[predCopy] && best != predCopy {
		s.findCopy(col, x)
	}
	news := s.news()
	news.x, news.format, news.moved = x, f, x != col.v1
	s.hear()
	col.see(x, n, &p)
	return x, f
}

func (col *column) predict(n *neighbours) (p [predictors]int64) {
	for i := range p {
		p[i] = col.v1
	}
	if n.shapeSeen && n.shapeFormat == col.format {
		p[predShape] = n.shape
	}
	if col.seen == 0 {
		return p
	}
	p[predLine] = 2*col.v1 - col.v2
	if col.ticks {
		p[predClock] += ticks(n.at, col.tick) - ticks(col.at, col.tick)
	}
	if n.before && n.older != 0 && n.value != n.older {
		p[predRatio] = mulDiv(col.v1, n.value, n.older)
	}
	return p
}

func (col *column) best(n *neighbours) int {
	if col.seen == 0 {
		return predShape
	}
	best := predSame
	for i := 1; i < predictors; i++ {
		if col.cost[i] < col.cost[best] {
			best = i
		}
	}
	return best
}

func (col *column) see(x int64, n *neighbours, p *[predictors]int64) {
	for i := range p {
		col.cost[i] += missCost(x-p[i]) - col.cost[i]>>6
	}
	if col.seen > 0 && x != col.v1 && (!col.ticks || col.cost[predClock] > 4<<14) {
		col.findTick(x-col.v1, n.at)
	}
	col.v2, col.v1 = col.v1, x
	if col.seen == 0 {
		col.v2 = x
	}
	col.at = n.at
	col.seen = min(col.seen, saturated-1) + 1
}

// findTick looks for the power of ten with which a number that grew by d follows
// the time: seconds to nanoseconds, with decimals or without.
func (col *column) findTick(d, at int64) {
	if d <= 0 {
		return
	}
	for tick := int8(-6); tick <= 6; tick++ {
		t := ticks(at, tick) - ticks(col.at, tick)
		if off := t - d; off > d>>3 {
			return
		} else if off >= -(d >> 3) {
			col.tick, col.ticks = tick, true
			return
		}
	}
}

// ticks is a time in units of 10^-tick µs; what does not fit wraps, so that
// differences are right.
func ticks(at int64, tick int8) int64 {
	if tick < 0 {
		return at / powers[-tick]
	}
	return at * powers[tick]
}

// mulDiv is a*b/d, rounded; a where it does not fit.
func mulDiv(a, b, d int64) int64 {
	negative := (a < 0) != (b < 0) != (d < 0)
	hi, lo := bits.Mul64(entropy.Abs(a), entropy.Abs(b))
	lo, carry := bits.Add64(lo, entropy.Abs(d)/2, 0)
	if hi += carry; hi >= entropy.Abs(d) {
		return a
	}
	q, _ := bits.Div64(hi, lo, entropy.Abs(d))
	switch {
	case q > 1<<62:
		return a
	case negative:
		return -int64(q)
	}
	return int64(q)
}

// reformat moves what is known to a new unit, where it fits.
func (col *column) reformat(f format, s *session) {
	k := f.unit() - col.format.unit()
	col.format = f
	if k == 0 || col.seen == 0 {
		return
	}
	col.v1, col.v2 = rescaled(col.v1, k), rescaled(col.v2, k)
	for i, v := range col.values {
		x, ok := scale(v, k)
		if !ok {
			s.forgetValues(col)
			break
		}
		col.values[i] = x
	}
	col.ticks = false
}

// rescaled is x * 10^k as near as it can be had.
func rescaled(x int64, k int) int64 {
	if y, ok := scale(x, k); ok {
		return y
	}
	if k < 0 && k >= -maxDigits {
		return x / powers[-k]
	}
	return 0
}
