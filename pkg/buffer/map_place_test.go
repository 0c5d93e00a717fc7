package buffer

import (
	"fmt"
	"strings"
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

// Segments too small for the frames of a journal would lose what is moved there:
// they are refused while anything stands in it, and nothing is changed.
func TestSmallerSegments(t *testing.T) {
	large := Options{Dir: "mem", SegmentBytes: 1 << 20, MaxBytes: 16 << 20}
	small := tinyOptions(40)
	b := openMem(t, newMemDir(), large)
	commitEntries(t, b, entry("k", 100<<10))
	dir := cutNow(b.fs.(*memDir))
	if _, err := openOn(dir, small); err == nil || !strings.Contains(err.Error(), "use at least 1048576") {
		t.Fatal(err)
	}
	b = openMem(t, dir, large)
	if got := stateOf(t, b); len(got["k"]) != 100<<10 {
		t.Fatal(shown(got))
	}
	commitEntries(t, b, Entry{Key: "k"})
	b = openMem(t, cutNow(dir), small)
	if n := b.segs.head.size; n != minSegmentBytes {
		t.Fatalf("a head of %d bytes", n)
	}
}
