package uplink

import (
	"math/rand/v2"
	"time"
)

// backoff gives the pauses between tries: exponential between its bounds, half
// of each left to chance, so that edges that lost the same tower do not come
// back together.
type backoff struct {
	min, max time.Duration
	tries    int
}

// next is the pause before the next try. chance is in [0, 1).
func (b *backoff) next(chance float64) time.Duration {
	d := b.max
	if b.tries < 32 {
		d = min(b.min<<b.tries, b.max)
		if d < b.min { // shifted out
			d = b.max
		}
	}
	b.tries++
	return spread(d, chance)
}

// reset begins anew after progress.
func (b *backoff) reset() { b.tries = 0 }

// spread gives between half of d and d.
func spread(d time.Duration, chance float64) time.Duration {
	return d/2 + time.Duration(chance*float64(d/2))
}

// asked is the pause when a hub asked for d: at least d, at most a quarter more.
func asked(d time.Duration, chance float64) time.Duration {
	return d + time.Duration(chance*float64(d/4))
}

func chance() float64 { return rand.Float64() }
