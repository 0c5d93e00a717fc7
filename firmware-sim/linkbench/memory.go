package linkbench

import (
	"runtime"

	"github.com/packetboat/packetboat/pkg/stream"
)

func mallocs() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}

// scales measure the memory of both sides while records are sent.
type scales struct {
	base  int // of the heap before
	every int // messages between two looks
	due   int
}

// samples is how often a run is looked at.
const samples = 8

// weigh sends the records once more, and measures what memory edge and hub hold:
// both together at the most, and each at the end, by letting go of it.
func (t *tally) weigh(m mode, size int, recs []stream.Record) error {
	l := &link{mode: m, size: size, scales: &scales{base: live(), every: len(recs)/samples + 1}}
	if err := l.run(recs); err != nil {
		return err
	}
	l.drop()
	both := live()
	t.peakMemory = max(l.sum.peakMemory, both-l.scales.base)
	l.dec = nil
	one := live()
	l.enc = nil
	t.decoderMemory, t.encoderMemory = both-one, one-live()
	runtime.KeepAlive(l) // or both sides would be gone with the first
	return nil
}

// sample looks at the heap when it is time.
func (l *link) sample() {
	if s := l.scales; s != nil && l.sum.messages >= s.due {
		s.due = l.sum.messages + s.every
		l.drop()
		l.sum.peakMemory = max(l.sum.peakMemory, live()-s.base)
	}
}

// drop lets go of what is neither the encoder's nor the decoder's.
func (l *link) drop() { l.arena, l.packets, l.bodies, l.batches, l.decoded = nil, nil, nil, nil, nil }

// live is how many bytes of the heap are in use.
func live() int {
	runtime.GC()
	runtime.GC() // pools let go at the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
