package badlink

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

const (
	packetSize   = 1400
	defaultStall = 200 * time.Millisecond
)

// check bounds the conditions, so that no arithmetic on them overflows.
func (c Conditions) check() error {
	if c.Cut != "" {
		if _, err := ParseCut(string(c.Cut)); err != nil {
			return err
		}
	}
	switch {
	case c.RateUp < 0 || c.RateDown < 0:
		return fmt.Errorf("a rate of %d bytes/s: use 0 for no limit, or more", min(c.RateUp, c.RateDown))
	case c.Delay < 0 || c.Delay > time.Minute || c.Jitter < 0 || c.Jitter > time.Minute || c.Stall < 0 || c.Stall > time.Minute:
		return fmt.Errorf("delay %s, jitter %s, stall %s: each is between 0 and 1m", c.Delay, c.Jitter, c.Stall)
	case !(c.Loss >= 0 && c.Loss <= 1):
		return fmt.Errorf("a loss of %v: use a share between 0 and 1", c.Loss)
	}
	return nil
}

func (c Conditions) filled() Conditions {
	if c.Cut == "" {
		c.Cut = Up
	}
	if c.Stall == 0 {
		c.Stall = defaultStall
	}
	return c
}

// direction shapes all traffic of one way. It only computes: who calls it
// sleeps. Safe for concurrent use.
type direction struct {
	stalls *atomic.Int64

	mu    sync.Mutex
	rng   *rand.Rand // guarded by mu, as all below
	rate  int64      // bytes/s; 0: no limit
	c     Conditions
	free  time.Time // when the link has sent what was given to it
	stuck time.Time // nothing is delivered before: the last stall's end
	last  time.Time // due of the last chunk: nothing overtakes
}

func newDirection(seed uint64, stalls *atomic.Int64) *direction {
	return &direction{rng: rand.New(rand.NewPCG(seed, 1)), stalls: stalls}
}

func (d *direction) configure(rate int64, c Conditions) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if rate != d.rate {
		d.free = time.Time{} // what was promised at the old rate is not owed at the new one
	}
	d.rate, d.c = rate, c
}

// chunk is how much to read at once: about 50 ms of a slow link, so that the
// rate is smooth.
func (d *direction) chunk() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.rate == 0 {
		return chunkSize
	}
	return int(min(max(d.rate/20, 64), chunkSize))
}

// due gives the moment before which n bytes read at now do not arrive.
func (d *direction) due(now time.Time, n int) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	at := now.Add(d.c.Delay)
	if d.c.Jitter > 0 {
		at = at.Add(time.Duration(d.rng.Int64N(int64(d.c.Jitter) + 1)))
	}
	if d.c.Loss > 0 && n > 0 {
		packets := float64((n + packetSize - 1) / packetSize)
		if d.rng.Float64() < 1-math.Pow(1-d.c.Loss, packets) {
			d.stalls.Add(1)
			d.stuck = at.Add(d.c.Stall)
		}
	}
	for _, floor := range []time.Time{d.stuck, d.last} {
		if at.Before(floor) {
			at = floor
		}
	}
	d.last = at
	return at
}

// reserve takes the link for n bytes and says how long to wait before they are
// through.
func (d *direction) reserve(now time.Time, n int) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.rate == 0 {
		return 0
	}
	if d.free.Before(now) {
		d.free = now
	}
	d.free = d.free.Add(time.Duration(float64(n) / float64(d.rate) * float64(time.Second)))
	return d.free.Sub(now)
}
