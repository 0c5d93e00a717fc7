package buffer

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/packetboat/packetboat/pkg/stream"
)

// While messages are refused, entries go on: the whole map is put, replaced and
// removed many times over, with values of awkward sizes, in journals of any
// size, and stays what it should be, also after a reopen.
func TestEntriesWhileFull(t *testing.T) {
	for _, segments := range []int64{6, 7, 8, 12, 20, 64} {
		for _, size := range []int{1, 100, 4000, 8200, 12_000} {
			t.Run(fmt.Sprintf("%d segments, values of %d", segments, size), func(t *testing.T) {
				entriesWhileFull(t, refusing(tinyOptions(segments)), size)
			})
		}
	}
}

func entriesWhileFull(t *testing.T, o Options, size int) {
	dir := newMemDir()
	b := openMem(t, dir, o)
	stored := 0
	for ; stepLarge(b, stream.Normal, stored) == nil; stored++ {
	}
	if stored < 10 {
		t.Fatalf("%d messages fit", stored)
	}
	rng := rand.New(rand.NewPCG(uint64(size), 1))
	want := map[string]string{}
	keys := int(b.o.MaxState / charge("key/00", size))
	rounds := int(8*b.o.MaxBytes/int64(size+2000)) + 3*keys
	for i := range min(rounds, 3000) {
		e := entry(fmt.Sprintf("key/%d", rng.IntN(keys)), size)
		if e.Value[0] = byte(i); rng.IntN(8) == 0 {
			e.Value = nil
		}
		if err := tryEntries(b, e); err != nil {
			t.Fatalf("entry %d: %v, %+v", i, err, b.Stats())
		}
		if want[e.Key] = string(e.Value); e.Value == nil {
			delete(want, e.Key)
		}
		if b.available() < 1 {
			t.Fatalf("entry %d: nothing is kept back", i)
		}
	}
	if s := b.Stats(); s.Queued != uint64(stored) || !s.Full || s.DiskBytes > s.DiskLimit {
		t.Fatalf("%+v", s)
	}
	checkIndex(t, b)
	again := openMem(t, cutNow(dir), o)
	if got := stateOf(t, again); !maps.Equal(got, want) || again.Stats().StateDropped > 0 {
		t.Fatalf("%d entries, want %d", len(got), len(want))
	}
	if out, lost := drainAll(t, again); len(out) != stored || len(lost) > 0 {
		t.Fatalf("%d of %d messages", len(out), stored)
	}
}

// One commit brings messages that find no room and entries that do.
func TestEntriesGoOnWhereMessagesFail(t *testing.T) {
	o := refusing(tinyOptions(8))
	dir := newMemDir()
	b := openMem(t, dir, o)
	for i := 0; stepLarge(b, stream.Normal, i) == nil; i++ {
	}
	b.mu.Lock()
	b.full = false // as just before the limit is noticed
	b.mu.Unlock()
	var told []string
	note := func(what string) func(stream.Position, error) {
		return func(_ stream.Position, err error) {
			if err != nil && !errors.Is(err, ErrFull) {
				t.Errorf("%s: %v", what, err)
			}
			told = append(told, fmt.Sprint(what, err == nil))
		}
	}
	m := message(1)
	m.Payload = make([]byte, 4000)
	refused := 0
	for i := range 12 {
		mixed := Write{Lane: stream.Normal, Msgs: []stream.Message{m}, State: []Entry{entry(fmt.Sprintf("mixed/%d", i), 1)}}
		alone := Write{State: []Entry{entry(fmt.Sprintf("alone/%d", i), 1), {Key: "last", Value: fmt.Append(nil, i)}}}
		for _, err := range []error{b.Commit(mixed, note("mixed ")), b.Append(stream.Normal, []stream.Message{m}, nil), b.Commit(alone, note("alone "))} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := b.commit(true); err != nil {
		t.Fatal(err)
	}
	for _, s := range told {
		if s == "alone false" {
			t.Fatalf("%v", told)
		}
		if s == "mixed false" {
			refused++
		}
	}
	if refused == 0 || len(told) != 24 {
		t.Fatalf("%d of 24 told, %d refused", len(told), refused)
	}
	checkIndex(t, b)
	for what, b := range map[string]*Buffer{"running": b, "after a cut": openMem(t, cutNow(dir), o)} {
		if got := stateOf(t, b); len(got) != 12+1+12-refused || got["last"] != "11" || got["alone/0"] == "" {
			t.Errorf("%s: %d entries, last %q, %d were refused", what, len(got), got["last"], refused)
		}
	}
}

// Many dead slots beside a few live ones do not make snapshots grow.
func TestSlotsAreBounded(t *testing.T) {
	b := openMem(t, newMemDir(), tinyOptions(64))
	peak := int64(0)
	for i := range 100 {
		commitEntries(t, b, entry(fmt.Sprintf("large/%d", i), 4000))
		for range 20 {
			w := Write{}
			for range 200 {
				w.State = append(w.State, entry("x", 1))
			}
			if err := b.Commit(w, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.commit(true); err != nil {
			t.Fatal(err)
		}
		b.makeRoom()
		peak = max(peak, b.slots())
	}
	if limit := b.o.SegmentBytes/2 + 1000; peak > limit || peak < limit/4 {
		t.Fatalf("%d slots, %d may be", peak, limit)
	}
	// All at once, in one commit over many segments.
	for i := range 20 {
		for j := range 40 {
			w := Write{State: []Entry{entry(fmt.Sprintf("once/%d/%d", i, j), 1)}}
			for range 200 {
				w.State = append(w.State, entry("x", 1))
			}
			if err := b.Commit(w, func(_ stream.Position, err error) {
				if err != nil {
					t.Error(err)
				}
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := b.commit(true); err != nil {
		t.Fatal(err)
	}
	if n := b.slots(); n > b.o.SegmentBytes*5/4 {
		t.Fatalf("%d slots after one commit", n)
	}
	checkIndex(t, b)
}

// A disk that cannot read some of the map's pages costs what stands there, at
// open and later, and no more.
func TestEntriesCannotBeRead(t *testing.T) {
	for name, running := range map[string]bool{"at open": false, "later": true} {
		t.Run(name, func(t *testing.T) {
			dir := newMemDir()
			b := openMem(t, dir, testOptions())
			for i := range 6 {
				commitEntries(t, b, entry(fmt.Sprintf("key/%d", i), 5000)) // two pages each
			}
			old := b.segs.head
			b = openMem(t, cutNow(dir), testOptions()) // the map stands in an older segment now
			if b = openMem(t, cutNow(b.fs.(*memDir)), testOptions()); b.Stats().Entries != 6 {
				t.Fatalf("%+v", b.Stats())
			}
			dir = b.fs.(*memDir)
			at := int64(0)
			for p := range old.kept.pages.Ranges() {
				at = int64(old.kept.pages.Ranges()[p].First)*pageSize + 4*pageSize
			}
			fault := func(d *memDir) {
				d.faultAt = func(op, name string, off int64) error {
					if op == "read" && name == segmentName(old.id) && off == at {
						return errInjected
					}
					return nil
				}
			}
			if running {
				fault(dir)
			} else {
				dir = cutNow(dir)
				fault(dir)
				b = openMem(t, dir, testOptions())
			}
			got := stateOf(t, b)
			if s := b.Stats(); len(got) != 5 || s.Entries != 5 || s.StateDropped != 1 {
				t.Fatalf("%d entries, %+v", len(got), s)
			}
			checkIndex(t, b)
		})
	}
}

// Entries never take the last segment: with nothing to evict they are refused,
// and what comes from the log then still finds a place to be written.
func TestUpkeepKeepsASegment(t *testing.T) {
	for size := 1000; size < 15_000; size += 250 {
		t.Run(fmt.Sprint(size), func(t *testing.T) { upkeepKeepsASegment(t, size) })
	}
}

func upkeepKeepsASegment(t *testing.T, size int) {
	b := openMem(t, newMemDir(), tinyOptions(8))
	for i := 0; b.available() > reserveSegments; i++ {
		if err := appendLarge(b, stream.Normal, i); err != nil {
			t.Fatal(err)
		}
		if err := b.commit(true); err != nil {
			t.Fatal(err)
		}
	}
	flying, ok := next(t, b, stream.Normal, Limit{})
	if !ok || b.Unsent(stream.Normal).Messages != 0 {
		t.Fatal("not all is in flight")
	}
	refused := 0
	for i := range 100 { // all in one commit; no segment is without a live one
		if err := b.Commit(Write{State: []Entry{entry("x", size), entry(fmt.Sprintf("once/%d", i), 1)}}, func(_ stream.Position, err error) {
			if errors.Is(err, ErrFull) {
				refused++
			} else if err != nil {
				t.Error(err)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	_ = b.commit(true)
	b.makeRoom()
	if b.available() < 1 {
		t.Fatalf("no segment is left, %d were refused", refused)
	}
	if err := b.Settle(flying.ID, settled(&flying)); err != nil {
		t.Fatal(err)
	}
	if err := b.commit(true); err != nil {
		t.Fatal(err)
	}
	if !b.makeRoom() {
		t.Fatal("no room after everything was settled")
	}
	commitEntries(t, b, entry("key/9", 10))
	checkIndex(t, b)
}

// Condensing ends: values of half a frame leave segments half empty, and are not
// written again and again for that.
func TestCondensingEnds(t *testing.T) {
	for _, size := range []int{8140, 8200, 4100, 5400, 100} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			b := openMem(t, newMemDir(), refusing(tinyOptions(16)))
			for i := range int(b.o.MaxState / charge("key/0000", size)) {
				commitEntries(t, b, entry(fmt.Sprintf("key/%04d", i), size))
			}
			for i := 0; stepLarge(b, stream.Normal, i) == nil; i++ {
			}
			before, calm := b.Stats().StateMoved, 0
			for i := 0; calm < 40; i++ {
				b.makeRoom()
				now := b.Stats().StateMoved
				if calm++; now != before {
					before, calm = now, 0
				}
				if i > 400 {
					t.Fatalf("%d entries were moved, and it goes on", now)
				}
			}
			checkIndex(t, b)
		})
	}
}

// MaxState says what Open takes, so that a configuration can be checked before.
func TestMaxStateIsWhatOpenTakes(t *testing.T) {
	for _, limit := range []int64{minSegments * minSegmentBytes, 1 << 20, 16 << 20, 100 << 20, 1 << 30, 1 << 40} {
		most := MaxState(limit)
		good, bad := Options{Dir: "d", MaxBytes: limit, MaxState: most}, Options{Dir: "d", MaxBytes: limit, MaxState: most + 1}
		if err := good.complete(); err != nil || most <= 0 || most > MaxStateBytes {
			t.Errorf("%d of %d: %v", most, limit, err)
		}
		if bad.complete() == nil {
			t.Errorf("%d of %d is taken", most+1, limit)
		}
	}
	if n := MaxState(minSegments*minSegmentBytes - 1); n > MaxState(minSegments*minSegmentBytes) {
		t.Errorf("%d of a journal that is too small", n)
	}
}
