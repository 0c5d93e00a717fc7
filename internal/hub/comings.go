package hub

import (
	"log/slog"
	"sync"
	"time"
)

// How much of the log devices get for coming and going.
const (
	comingsEvery   = time.Minute
	comingsLines   = 10     // of a device in that time
	comingsDevices = 10_000 // told apart in that time: where devices are anonymous, ids cost nothing
)

// comings sees to it that a device that connects in a loop does not fill the
// log: what is too much is written at debug level. Methods are safe for
// concurrent use.
type comings struct {
	mu     sync.Mutex
	since  time.Time      // guarded by mu; when lines began
	lines  map[string]int // guarded by mu; of each device since then, at either level
	before map[string]int // guarded by mu; what lines was until then
}

// level is that of a line about a device that comes or goes; leftOut says how
// many lines of it were too many in the stretch before, with its first one now.
func (c *comings) level(device string, now time.Time) (level slog.Level, leftOut int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lines == nil || now.Sub(c.since) >= comingsEvery {
		c.since, c.lines, c.before = now, make(map[string]int), c.lines
	}
	n, known := c.lines[device]
	if n >= comingsLines || !known && len(c.lines) >= comingsDevices {
		if known {
			c.lines[device]++
		}
		return slog.LevelDebug, 0
	}
	c.lines[device]++
	if n == 0 {
		leftOut = max(0, c.before[device]-comingsLines)
	}
	return slog.LevelInfo, leftOut
}
