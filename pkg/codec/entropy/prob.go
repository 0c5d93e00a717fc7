package entropy

// Prob is an adaptive estimate that a bit is 1: 13 bits of probability, 3 bits
// that say how much it has seen. Two bytes instead of four halve the state of a
// device and cost under one percent of what it sends. The top bit is stored
// inverted: the zero value has seen nothing, and says one half.
type Prob uint16

const (
	probBits = 13
	probOne  = 1 << probBits
	probFlip = 1 << 15
)

// rates is how far, of 65,536, an estimate moves towards what came, by what it
// has seen: the mean of all at first, then of about the last 50.
var rates = [8]uint32{43690, 26214, 18724, 13107, 9362, 5957, 3449, 1400}

// coins: an estimate gets on to the next rate when these bits of the range,
// which is as good as chance and the same on both sides, are zero. From the last
// rate it never does: the range is at least 1<<24.
var coins = [8]uint32{0, 0, 0, 1, 3, 7, 15, 1<<21 - 1}

// Bit codes b with the estimate p, and lets it learn.
func (c *Coder) Bit(p *Prob, b int) int {
	b = c.code((c.rng>>probBits)*(uint32(*p^probFlip)>>3), b)
	c.Learn(p, b)
	return b
}

// Flag codes whether something is so.
func (c *Coder) Flag(p *Prob, is bool) bool { return c.Bit(p, Int(is)) == 1 }

// Learn moves the estimate p towards b, which was coded otherwise. It always
// moves, and is never quite sure. It has to stay small enough to be inlined.
func (c *Coder) Learn(p *Prob, b int) {
	q, n := uint32(*p^probFlip)>>3, *p&7
	if b == 1 {
		q = min(q+((probOne-q)*rates[n]+65535)>>16, probOne-1)
	} else {
		q = max(q-(q*rates[n]+65535)>>16, 1)
	}
	if c.rng>>11&coins[n] == 0 {
		n++
	}
	*p = (Prob(q<<3) | n) ^ probFlip
}

// Soften makes copied estimates ready to move on.
func Soften(ps []Prob, seen Prob) {
	for i, p := range ps {
		ps[i] = p&^7 | min(p&7, seen)
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
