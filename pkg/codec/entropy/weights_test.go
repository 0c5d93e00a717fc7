package entropy

import (
	"math/rand/v2"
	"testing"
)

// What rested for a day has not to be unlearned for as long: bits that were all
// the same, then random, soon cost little more than a bit each.
func TestLongCalm(t *testing.T) {
	for bit := range 2 {
		var c Coder
		c.StartEncoding(make([]byte, 0, 1<<20))
		m := NewMixer(64, 64, 4)
		m.Grow()
		var p, q Prob
		var w Weights
		walk := func(b int) {
			m.Bit(&c, []uint32{1, 2, 3}, 1, b)
			c.Blend(&w, &p, &q, b)
		}
		for i := range 1_000_000 {
			if walk(bit); i%10_000 == 0 {
				c.out = c.out[:0]
			}
		}
		r := rand.New(rand.NewPCG(1, 1))
		const n = 1000
		for range 2 {
			before := c.Spent()
			for range n {
				walk(r.IntN(2))
			}
			if cost := (c.Spent() - before) / 16; cost > 2*n*11/10 {
				t.Errorf("after a long time of %d, %d random bits cost %d", bit, 2*n, cost)
			}
		}
	}
}
