package sensors

import (
	"time"

	"github.com/packetboat/packetboat/pkg/stream"
)

// clockSet is the earliest time that a clock shows which somebody has set:
// boards without a battery begin in 1970 or when their firmware was built.
var clockSet = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()

// clock stamps messages. Nothing but a message's time depends on it.
type clock struct {
	now  func() time.Time
	boot stream.Epoch
	mono func() int64 // µs since boot
}

func newClock() clock {
	boot, mono := bootClock()
	return clock{now: time.Now, boot: boot, mono: mono}
}

// stamp sets the time of m. While the clock is clearly not set, the time since
// boot goes with it, so that it can be corrected once the time is known.
func (c *clock) stamp(m *stream.Message, resolution int64) {
	t := c.now().UnixMicro()
	if t < clockSet {
		m.Quality, m.Boot, m.Mono = stream.TimeUnknown, c.boot, c.mono()
	} else {
		m.Quality = stream.TimeLocal
	}
	if r := t % resolution; r < 0 {
		t -= r + resolution
	} else {
		t -= r
	}
	m.Time = t
}

// processClock counts from the start of the process, under a random name.
func processClock() (stream.Epoch, func() int64) {
	begin := time.Now()
	return stream.NewEpoch(), func() int64 { return time.Since(begin).Microseconds() }
}
