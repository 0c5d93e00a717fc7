package entropy

import "math/bits"

// Prob is an adaptive estimate that a bit is 1: 13 bits of probability, 3 bits
// that say how much it has seen. Two bytes instead of four halve the state of a
// device and cost under one percent of what it sends.
type Prob uint16

const (
	probBits = 13
	probOne  = 1 << probBits
	// ProbNew has seen nothing.
	ProbNew = Prob(probOne / 2 << 3)
)

// rates is how far, of 65,536, an estimate moves towards what came, by what it
// has seen: the mean of all at first, then of about the last 36.
var rates = [8]uint32{43690, 26214, 18724, 13107, 9362, 5957, 3449, 1400}

// coins: an estimate gets on to the next rate when these bits of the range,
// which is as good as chance and the same on both sides, are zero.
var coins = [7]uint32{0, 0, 0, 1, 3, 7, 15}

// Bit codes b with the estimate p, and lets it learn.
func (c *Coder) Bit(p *Prob, b int) int {
	b = c.code((c.rng>>probBits)*(uint32(*p)>>3), b)
	c.Learn(p, b)
	return b
}

// Learn moves the estimate p towards b, which was coded otherwise. It always
// moves, and is never quite sure.
func (c *Coder) Learn(p *Prob, b int) {
	q, n := uint32(*p)>>3, uint32(*p)&7
	if b == 1 {
		q = min(q+((probOne-q)*rates[n]+65535)>>16, probOne-1)
	} else {
		q = max(q-(q*rates[n]+65535)>>16, 1)
	}
	if n < 7 && c.rng>>11&coins[n] == 0 {
		n++
	}
	*p = Prob(q<<3 | n)
}

// soften makes a copied estimate ready to move on.
func (p Prob) soften(seen Prob) Prob {
	if p&7 > seen {
		return p&^7 | seen
	}
	return p
}

// Fill makes ps estimates that have seen nothing.
func Fill(ps []Prob) {
	for i := range ps {
		ps[i] = ProbNew
	}
}

// Soften makes copied estimates ready to move on.
func Soften(ps []Prob, seen Prob) {
	for i := range ps {
		ps[i] = ps[i].soften(seen)
	}
}

// Tree codes the n low bits of v, each with those before as context; ps has
// 1<<n estimates.
func (c *Coder) Tree(ps []Prob, v, n int) int {
	m := 1
	for i := n - 1; i >= 0; i-- {
		m = m<<1 | c.Bit(&ps[m], v>>i&1)
	}
	return m - 1<<n
}

// Magnitude learns positive numbers: the length in bits in unary, by the length
// that is expected; then three bits below the leading one; the rest is noise.
type Magnitude struct {
	length [magRows][magLengths]Prob
	high   [magHigh][8]Prob
}

const (
	magRows    = 8
	magLengths = 14 // longer ones share the last
	magHigh    = 8
	magAfter   = 16
)

type After struct {
	after   [magAfter][magLengths]Prob
	weights [magRows]Weights
}

func (m *After) Init() {
	for i := range m.after {
		Fill(m.after[i][:])
	}
	for i := range m.weights {
		m.weights[i] = NewWeights
	}
}

// Init makes m one that has seen nothing.
func (m *Magnitude) Init() {
	for i := range m.length {
		Fill(m.length[i][:])
	}
	for i := range m.high {
		Fill(m.high[i][:])
	}
}

// Magnitude codes v >= 1 where a length of about row is expected.
func (c *Coder) Magnitude(m *Magnitude, a *After, row, after int, v uint64) uint64 {
	n := bits.Len64(v)
	k := 1
	for k < 64 && c.Blend(&a.weights[row], &m.length[row][min(k, magLengths)-1], &a.after[after][min(k, magLengths)-1], Int(n > k)) == 1 {
		k++
	}
	left := k - 1
	r, t := uint64(1), 1
	high := &m.high[min(k, magHigh)-1]
	for i := 0; i < 3 && left > 0; i++ {
		left--
		b := c.Bit(&high[t], int(v>>left&1))
		t = t<<1 | b
		r = r<<1 | uint64(b)
	}
	if left > 0 {
		r = r<<left | c.Direct(v, left)
	}
	return r
}

// Expected is a running mean of lengths in bits, with four fraction bits.
type Expected struct{ mean, last uint8 }

// row is the row of a magnitude for it.
func (e Expected) row() int {
	switch b := int(e.mean+12) >> 4; {
	case b <= 4:
		return b
	case b <= 6:
		return 5
	case b <= 10:
		return 6
	}
	return 7
}

func (e *Expected) see(v uint64) {
	n := min(bits.Len64(v), 15) << 4
	e.mean = uint8((int(e.mean)*3 + n + 2) >> 2)
	e.last = uint8(n >> 4)
}

// Signed codes a difference that is not zero.
func (c *Coder) Signed(sign *Prob, m *Magnitude, a *After, e *Expected, d int64) int64 {
	negative := c.Bit(sign, Int(d < 0)) == 1
	v := c.Magnitude(m, a, e.row(), int(e.last), Abs(d))
	e.see(v)
	if negative {
		return -int64(v)
	}
	return int64(v)
}

// Abs is |x|.
func Abs(x int64) uint64 {
	if x < 0 {
		return -uint64(x)
	}
	return uint64(x)
}

// Int is 1 for true.
func Int(b bool) int {
	if b {
		return 1
	}
	return 0
}

// BitLength is the length in bits of |x|.
func BitLength(x int64) uint32 { return uint32(bits.Len64(Abs(x))) }

// Weights are how much a blend of two estimates believes each: 16 fraction bits.
type Weights [2]int32

// NewWeights believe both alike.
var NewWeights = Weights{weightHalf, weightHalf}

const weightHalf = 32000

// Blend codes b with two estimates that saw it in different contexts, mixed in
// the logistic domain; all learn.
func (c *Coder) Blend(w *Weights, p, q *Prob, b int) int {
	sp, sq := stretches[*p>>4], stretches[*q>>4]
	dot := int64(sp)*int64(w[0]) + int64(sq)*int64(w[1])
	x := squash(int32(min(max(dot>>16, -2047), 2047)))
	b = c.code(uint32(uint64(c.rng)*uint64(x<<4|8)>>16), b)
	miss := (int32(b)<<12 - x) * blendRate
	w[0] += (sp*miss + 1<<15) >> 16
	w[1] += (sq*miss + 1<<15) >> 16
	c.Learn(p, b)
	c.Learn(q, b)
	return b
}

const blendRate = 4
