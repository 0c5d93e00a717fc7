package ingest

import (
	"math/rand/v2"
	"sync"
	"time"
)

// jitter gives a time between half of d and one and a half of it.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d+1)
}

// retryTime is what a refused device is told: jittered, bounded.
func retryTime(d time.Duration) time.Duration { return min(jitter(d), MaxRetryAfter) }

// spreader hands out times to come again, so that the devices of a lost cell
// tower come back one after the other and not all at once.
type spreader struct {
	gap time.Duration // between two devices

	mu   sync.Mutex
	next time.Time // guarded by mu
}

func (s *spreader) after(now time.Time) time.Duration {
	s.mu.Lock()
	if earliest := now.Add(retryRefused); s.next.Before(earliest) {
		s.next = earliest
	}
	s.next = s.next.Add(s.gap)
	// Beyond the longest time the slots are used again, from the start.
	if s.next.Sub(now) > MaxRetryAfter {
		s.next = now.Add(retryRefused)
	}
	d := s.next.Sub(now)
	s.mu.Unlock()
	return min(d+rand.N(s.gap+1), MaxRetryAfter)
}

// backoff is the wait before acquiring again.
type backoff struct{ d time.Duration }

func (b *backoff) next() time.Duration {
	d := max(b.d, firstBackoff)
	b.d = min(2*d, maxBackoff)
	return jitter(d)
}

func (b *backoff) reset() { b.d = 0 }
