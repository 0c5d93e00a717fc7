package buffer

import (
	"fmt"
	"testing"

	"github.com/packetboat/packetboat/pkg/stream"
)

// Entries in more places of a segment than a snapshot names are all found again.
func TestEntriesInManyPlaces(t *testing.T) {
	o := Options{Dir: "mem", SegmentBytes: 1 << 20, MaxBytes: 8 << 20}
	b := openMem(t, newMemDir(), o)
	head := b.segs.head
	for i := range maxPageRuns + 30 {
		commitEntries(t, b, entry(fmt.Sprintf("key/%d", i), 10))
		appendCommit(t, b, stream.Normal, i)
	}
	if n := head.kept.pages.Len(); b.segs.head != head || n > maxPageRuns {
		t.Fatalf("%d runs of pages", n)
	}
	for range 3 { // replayed, then named by the snapshot, and that read again
		b = openMem(t, cutNow(b.fs.(*memDir)), o)
		if n := len(stateOf(t, b)); n != maxPageRuns+30 || b.Stats().StateDropped > 0 {
			t.Fatalf("%d entries, %+v", n, b.Stats())
		}
		checkIndex(t, b)
	}
}

// A segment that is held for one entry is free once that is replaced, or gone,
// and needs nothing else to happen for it.
func TestLastEntryFreesItsSegment(t *testing.T) {
	for name, e := range map[string]Entry{"replaced": entry("k", 5), "removed": {Key: "k"}} {
		t.Run(name, func(t *testing.T) {
			b := openMem(t, newMemDir(), tinyOptions(8))
			commitEntries(t, b, entry("k", 10))
			b = openMem(t, cutNow(b.fs.(*memDir)), tinyOptions(8))
			if err := b.commit(true); err != nil || len(b.segs.live) != 1 {
				t.Fatalf("%d segments are held, %v", len(b.segs.live), err)
			}
			commitEntries(t, b, e)
			if err := b.commit(true); err != nil || len(b.segs.live) != 0 {
				t.Fatalf("%d segments are held, %v", len(b.segs.live), err)
			}
		})
	}
}
