package gate

import "time"

// bucket is a token bucket. It has no lock and no clock of its own.
type bucket struct {
	rate, burst float64 // rate 0: no bound
	tokens      float64
	at          time.Time // when tokens was right
}

func newBucket(rate float64, burst int, now time.Time) bucket {
	return bucket{rate: rate, burst: float64(burst), tokens: float64(burst), at: now}
}

// take takes a token, or says how long it is until there is one.
func (b *bucket) take(now time.Time) (wait time.Duration) {
	if b.rate <= 0 {
		return 0
	}
	if passed := now.Sub(b.at); passed > 0 {
		b.tokens = min(b.burst, b.tokens+passed.Seconds()*b.rate)
		b.at = now
	}
	if b.tokens >= 1 {
		b.tokens--
		return 0
	}
	// At least a microsecond: what rounds to nothing would be asked in a circle.
	return max(time.Microsecond, time.Duration((1-b.tokens)/b.rate*float64(time.Second)))
}

// giveBack returns a token that was not needed.
func (b *bucket) giveBack() {
	if b.rate > 0 {
		b.tokens = min(b.burst, b.tokens+1)
	}
}
