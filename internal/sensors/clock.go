package sensors

import (
	"time"

	"github.com/packetboat/packetboat/pkg/stream"
)

// clockSet is the earliest time that a clock shows which somebody has set:
// boards without a battery begin in 1970 or when their firmware was built.
var clockSet = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()

// Clock reads the machine's clocks for all parts of an edge, so that they agree
// on what is known of the time. Its methods may be called from any goroutine.
type Clock struct {
	now  func() time.Time
	boot stream.Epoch
	mono func() int64 // µs since boot
}

// NewClock finds the clocks.
func NewClock() *Clock {
	boot, mono := bootClock()
	return &Clock{now: time.Now, boot: boot, mono: mono}
}

// Now reads all clocks. The quality is unknown while the wall clock is clearly
// not set, else local.
func (c *Clock) Now() stream.Moment {
	m := stream.Moment{Time: c.now().UnixMicro(), Boot: c.boot, Mono: c.mono()}
	m.Quality = quality(m.Time)
	return m
}

func quality(t int64) stream.TimeQuality {
	if t < clockSet {
		return stream.TimeUnknown
	}
	return stream.TimeLocal
}

// stamp sets the time of m. While the clock is clearly not set, the time since
// boot goes with it, so that it can be corrected once the time is known. Nothing
// but a message's time depends on it.
func (c *Clock) stamp(m *stream.Message, resolution int64) {
	t := c.now().UnixMicro()
	if m.Quality = quality(t); m.Quality == stream.TimeUnknown {
		m.Boot, m.Mono = c.boot, c.mono()
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
