package linkbench

import (
	"math/rand/v2"
	"strings"
	"time"

	"github.com/packetboat/packetboat/internal/rig/recording"
)

// start is when the first message of every recording was sampled.
var start = time.Date(2023, 11, 14, 22, 13, 20, 0, time.UTC)

// A ship's instruments speak every two seconds; a recording without times says
// only that this sentence ends their turn.
const (
	turn    = 2_000_000 // µs
	turnEnd = "ZDA"
)

// arrivals gives recorded messages the times at which an edge would have
// accepted them, µs since 1970: what was sampled together comes as a burst that
// begins 0.5 ms late on average, with 20 to 200 µs between its messages.
type arrivals struct {
	format recording.Format
	turns  bool // the sentences come in turns
	chance *rand.Rand
	last   int64

	begun   bool
	sampled time.Duration // of the burst
	first   string        // its first topic
	turn    int64         // turns so far
}

// newArrivals is for the messages of one recording. The seeds
// are fixed, so that figures of different days can be held against each other.
func newArrivals(format recording.Format, turns bool) *arrivals {
	seed := map[recording.Format]uint64{recording.CSV: 1, recording.NMEA0183: 2, recording.N2K: 3, recording.JSON: 4}[format]
	return &arrivals{format: format, turns: turns, chance: rand.New(rand.NewPCG(seed, 7))}
}

// at is when m is accepted.
func (a *arrivals) at(m *recording.Message) int64 {
	sampled := start.UnixMicro() + m.T.Round(time.Microsecond).Microseconds()
	switch a.format {
	case recording.Candump, recording.NDJSON: // they say when each message came
		a.last = max(a.last, sampled)
		return a.last
	case recording.NMEA0183:
		if a.turns {
			return a.inTurn(m)
		}
		a.begin(sampled)
	case recording.CSV: // a row is a burst
		if !a.begun || m.T != a.sampled || m.Topic == a.first {
			a.begun, a.sampled, a.first = true, m.T, m.Topic
			a.begin(sampled)
		}
	default:
		a.begin(sampled)
	}
	return a.next()
}

func (a *arrivals) inTurn(m *recording.Message) int64 {
	if !a.begun {
		a.begun = true
		a.begin(start.UnixMicro())
	}
	at := a.next()
	if strings.HasSuffix(m.Topic, turnEnd) {
		a.turn++
		a.begin(start.UnixMicro() + a.turn*turn)
	}
	return at
}

// begin begins a burst of what was sampled at t, never before the one before ended.
func (a *arrivals) begin(t int64) {
	a.last = max(a.last, t+int64(a.chance.ExpFloat64()*500))
}

func (a *arrivals) next() int64 {
	a.last += min(20+int64(a.chance.ExpFloat64()*60), 200)
	return a.last
}
