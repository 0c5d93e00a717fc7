package sensors

import (
	"sync"
	"time"
)

// throttle bounds lines of the log that sensors can provoke.
type throttle struct {
	begin sync.Once
	start time.Time

	mu     sync.Mutex
	tokens float64 // guarded by mu; lines that may be written
	at     int64   // guarded by mu; ns since start when tokens was right
}

// Lines a second, and how many at once.
const (
	linesPerSecond = 1
	linesAtOnce    = 20
)

// elapsed is the time since the first call, in ns, by a clock nobody sets.
func (t *throttle) elapsed() int64 {
	t.begin.Do(func() { t.start = time.Now() })
	return int64(time.Since(t.start))
}

// allow takes a token, if there is one.
func (t *throttle) allow(now int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.at == 0 {
		t.tokens = linesAtOnce
	}
	now = max(now, 1)
	t.tokens = min(linesAtOnce, t.tokens+max(0, time.Duration(now-t.at).Seconds())*linesPerSecond)
	t.at = now
	if t.tokens < 1 {
		return false
	}
	t.tokens--
	return true
}
