package buffer

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/packetboat/packetboat/pkg/stream"
)

func tinyOptions(segments int64) Options {
	return Options{Dir: "mem", SegmentBytes: minSegmentBytes, MaxBytes: segments * minSegmentBytes}
}

func refusing(o Options) Options {
	o.Lanes = map[stream.Lane]LaneOptions{stream.Urgent: {RefuseNew}, stream.Normal: {RefuseNew}, stream.Bulk: {RefuseNew}}
	return o
}

func entry(key string, size int) Entry {
	return Entry{Key: key, Value: bytes.Repeat([]byte{key[len(key)-1]}, size)}
}

// Entries are put, replaced and removed in their order, within a Write and from
// one to the next, and so they are after a reopen.
func TestEntriesInOrder(t *testing.T) {
	dir := newMemDir()
	b := openMem(t, dir, testOptions())
	key := []byte("a")
	value := []byte("1")
	if err := b.Commit(Write{State: []Entry{{Key: "a", Value: value}, {Key: "b", Value: []byte("2")}, {Key: "a", Value: []byte("3")}, {Key: "c", Value: []byte{}}, {Key: "d"}}}, func(at stream.Position, err error) {
		if err != nil || at != (stream.Position{}) {
			t.Errorf("%v %v", at, err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	value[0], key[0] = 'x', 'x' // it was copied
	if got := stateOf(t, b); len(got) != 0 {
		t.Fatalf("%v before the sync", got)
	}
	if err := b.Commit(Write{State: []Entry{{Key: "b"}, {Key: "d", Value: []byte("4")}}}, nil); err != nil {
		t.Fatal(err)
	}
	if err := b.commit(true); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"a": "3", "c": "", "d": "4"}
	for what, b := range map[string]*Buffer{"running": b, "after a cut": openMem(t, cutNow(dir), testOptions())} {
		if got := stateOf(t, b); !maps.Equal(got, want) {
			t.Errorf("%s: %v", what, got)
		}
		checkIndex(t, b)
	}
	n := 0
	if err := b.State(func(string, []byte) bool { n++; return n < 2 }); err != nil || n != 2 {
		t.Fatalf("%d entries after saying stop: %v", n, err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.State(func(string, []byte) bool { return true }); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

func TestWritesAreChecked(t *testing.T) {
	b := openMem(t, newMemDir(), testOptions())
	for _, c := range []struct {
		w    Write
		want error
	}{
		{Write{}, nil},
		{Write{Lane: 9, Msgs: []stream.Message{message(1)}}, nil},
		{Write{State: []Entry{entry("k", b.frameMax)}}, ErrTooLarge},
		{Write{Lane: stream.Normal, Msgs: []stream.Message{{Payload: make([]byte, 8000)}}, State: []Entry{entry("k", 9000)}}, ErrTooLarge},
	} {
		err := b.Commit(c.w, func(stream.Position, error) { t.Error("done was called") })
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%v, want %v", err, c.want)
		}
	}
	if err := tryEntries(b, entry("k", b.frameMax-groupReserve-frameHeader-entryOverhead-2)); err != nil {
		t.Fatalf("the largest entry: %v", err)
	}
	if got := stateOf(t, openMem(t, cutNow(b.fs.(*memDir)), testOptions())); len(got) != 1 {
		t.Fatal("the largest entry is not there")
	}
	for _, max := range []int64{-1, maxState(16, minSegmentBytes) + 1} {
		o := testOptions()
		o.MaxState = max
		if _, err := openOn(newMemDir(), o); err == nil || !strings.Contains(err.Error(), "the journal's map") {
			t.Errorf("%d: %v", max, err)
		}
	}
}

// The bound counts what waits for the disk; at it, what makes the map no larger
// goes on.
func TestStateFull(t *testing.T) {
	o := testOptions()
	o.MaxState = 10 * (3 + 100 + entryCharge)
	b := openMem(t, newMemDir(), o)
	for i := range 10 {
		if err := b.Commit(Write{State: []Entry{entry(fmt.Sprintf("k/%d", i), 100)}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Commit(Write{State: []Entry{entry("k/x", 0)}}, nil); !errors.Is(err, ErrStateFull) {
		t.Fatal(err)
	}
	if err := b.Commit(Write{State: []Entry{entry("k/1", 101)}}, nil); !errors.Is(err, ErrStateFull) {
		t.Fatal(err)
	}
	if err := b.Commit(Write{State: []Entry{entry("k/1", 100), {Key: "k/2"}, entry("k/y", 100)}}, nil); err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(Write{State: []Entry{entry("k/z", 100), entry("k/1", 10)}}, nil); !errors.Is(err, ErrStateFull) {
		t.Fatal(err)
	}
	if err := b.commit(true); err != nil {
		t.Fatal(err)
	}
	s := b.Stats()
	if s.Entries != 10 || s.StateBytes != o.MaxState || s.StateLimit != o.MaxState {
		t.Fatalf("%+v", s)
	}
	checkIndex(t, b)
	o.MaxState /= 2
	b = openMem(t, cutNow(b.fs.(*memDir)), o)
	if err := b.Commit(Write{State: []Entry{entry("k/z", 1)}}, nil); !errors.Is(err, ErrStateFull) {
		t.Fatal(err)
	}
	commitEntries(t, b, Entry{Key: "k/1"})
	commitEntries(t, b, entry("k/3", 99))
	if n := b.Stats().Entries; n != 9 {
		t.Fatalf("%d entries", n)
	}
}

// A removal that stood in a recycled segment keeps its force.
func TestRemovalOutlivesItsSegment(t *testing.T) {
	dir := newMemDir()
	b := openMem(t, dir, tinyOptions(8))
	commitEntries(t, b, entry("stays", 10), entry("gone", 10))
	first := b.segs.head
	for b.segs.head == first {
		stepLarge(b, stream.Bulk, 1)
	}
	commitEntries(t, b, Entry{Key: "gone"})
	removal, generation := b.segs.head, b.segs.head.generation
	for i := range 4000 {
		stepLarge(b, stream.Bulk, i)
		batch, ok := next(t, b, stream.Bulk, Limit{})
		if ok {
			if err := b.Settle(batch.ID, settled(&batch)); err != nil {
				t.Fatal(err)
			}
		}
		if removal.generation != generation && b.segs.head != removal {
			break
		}
	}
	if removal.generation == generation || first.kept.live != 1 {
		t.Fatalf("the segment was not recycled, or the first one was: %d live", first.kept.live)
	}
	if got := stateOf(t, openMem(t, cutNow(dir), tinyOptions(8))); !maps.Equal(got, map[string]string{"stays": "ssssssssss"}) {
		t.Fatalf("%v", got)
	}
}

// Few entries among much traffic do not hold many segments, and do not cost much.
func TestEntriesAreKeptTogether(t *testing.T) {
	dir := newMemDir()
	b := openMem(t, dir, tinyOptions(40))
	for i := range 2000 {
		commitEntries(t, b, entry(fmt.Sprintf("key/%03d", i/20), 10)) // each in another segment
		if stepLarge(b, stream.Bulk, i) != nil {
			t.Fatal("refused")
		}
		if batch, ok := next(t, b, stream.Bulk, Limit{}); ok {
			_ = b.Settle(batch.ID, settled(&batch))
		}
	}
	if n := mapSegments(b); n > scattered+1 {
		t.Fatalf("100 entries hold %d segments", n)
	}
	if s := b.Stats(); s.Entries != 100 || s.StateMoved == 0 || s.StateMoved > 50*100 {
		t.Fatalf("%+v", s)
	}
	checkIndex(t, b)
}

// Who does not use the map writes nothing for it but two bytes in a snapshot.
func TestMapCostsNothingUnused(t *testing.T) {
	b := openMem(t, newMemDir(), testOptions())
	before := b.Stats().BytesWritten
	for i := range 5 {
		appendCommit(t, b, stream.Normal, i)
	}
	if n := b.Stats().BytesWritten - before; n != 5*pageSize || b.tail.changes+uint64(len(b.tail.echo)) != 0 {
		t.Fatalf("%d bytes for 5 commits", n)
	}
}

// Lazy entries wait for LazySync, others do not; what is lazy is written when
// the buffer stops.
func TestLazyEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := tinyOptions(8)
		o.LazySync = 250 * time.Millisecond
		dir := newMemDir()
		b := openMem(t, dir, o)
		stop := runUntil(t, b)
		took := func(w Write) time.Duration {
			start, done := time.Now(), make(chan error)
			if err := b.Commit(w, func(_ stream.Position, err error) { done <- err }); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			return time.Since(start)
		}
		state, m := []Entry{entry("k", 1)}, message(1)
		if d := took(Write{State: state}); d != 0 {
			t.Errorf("entries took %v", d)
		}
		if d := took(Write{State: state, Lazy: true}); d != o.LazySync {
			t.Errorf("lazy entries took %v", d)
		}
		if d := took(Write{Lane: stream.Normal, Msgs: []stream.Message{m}, State: state, Lazy: true}); d != 0 {
			t.Errorf("a message of QoS 1 took %v", d)
		}
		m.QoS = 0
		if d := took(Write{Lane: stream.Normal, Msgs: []stream.Message{m}, State: state, Lazy: true}); d != o.LazySync {
			t.Errorf("a message of QoS 0 took %v", d)
		}
		if err := b.Commit(Write{State: []Entry{entry("lazy", 1)}, Lazy: true}, nil); err != nil {
			t.Fatal(err)
		}
		stop()
		if got := stateOf(t, openMem(t, cutNow(dir), o)); len(got) != 2 {
			t.Errorf("after the stop: %v", got)
		}
	})
}

// A full disk, then one that refuses: entries are refused with the reason, the
// map is what was acknowledged, and goes on afterwards.
func TestEntriesOnABadDisk(t *testing.T) {
	dir := newMemDir()
	b := openMem(t, dir, tinyOptions(8))
	commitEntries(t, b, entry("a", 10))
	dir.fault = func(op, _ string) error {
		if op == "create" {
			return syscall.ENOSPC
		}
		return nil
	}
	for i := range 300 { // in the segments that are there
		commitEntries(t, b, entry("b", 10+i))
	}
	dir.fault = func(op, _ string) error {
		if op == "sync" {
			return errInjected
		}
		return nil
	}
	if err := tryEntries(b, entry("c", 1), Entry{Key: "a"}); !errors.Is(err, ErrDisk) {
		t.Fatal(err)
	}
	if got := stateOf(t, b); len(got) != 2 || len(got["b"]) != 309 {
		t.Fatalf("%v", shown(got))
	}
	checkIndex(t, b)
	dir.fault = nil
	b.mu.Lock()
	b.retryAt = b.opened
	b.mu.Unlock()
	commitEntries(t, b, entry("d", 1))
	got := stateOf(t, openMem(t, cutNow(dir), tinyOptions(8)))
	if len(got["b"]) != 309 || got["d"] != "d" {
		t.Fatalf("%v", shown(got))
	}
}

// Where a lane evicts, a map that grows takes the room of its messages.
func TestMapDisplacesMessages(t *testing.T) {
	b := openMem(t, newMemDir(), tinyOptions(20))
	for i := range 600 {
		if err := stepLarge(b, stream.Bulk, i); err != nil {
			t.Fatal(err)
		}
	}
	for n := 0; ; n++ {
		err := tryEntries(b, entry(fmt.Sprintf("key/%d", n), 1000))
		if errors.Is(err, ErrStateFull) {
			break
		}
		if err != nil {
			t.Fatalf("entry %d: %v", n, err)
		}
	}
	if s := b.Stats(); s.StateBytes < s.StateLimit*9/10 || s.Lost[stream.Evicted] == 0 || !s.ConservationOK || s.DiskBytes > s.DiskLimit {
		t.Fatalf("%+v", s)
	}
	checkIndex(t, b)
}

// A cut leaves of the Writes of a commit the first ones, each of them whole:
// entries with their message, also where the commit has many frames and goes on
// in another segment.
func TestCutLeavesWholeWrites(t *testing.T) {
	torn, partial := 0, 0
	for seed := range uint64(400) {
		rng := rand.New(rand.NewPCG(seed, 7))
		dir := newMemDir()
		b := openMem(t, dir, testOptions())
		acked, serial := 0, 0
		write := func() {
			m := message(serial)
			m.Payload = append(fmt.Appendf(nil, "%d ", serial), make([]byte, rng.IntN(7000))...)
			w := Write{State: []Entry{{Key: fmt.Sprintf("w/%d", serial), Value: []byte("here")}, {Key: "last", Value: fmt.Append(nil, serial)}}}
			if rng.IntN(3) > 0 {
				w.Lane, w.Msgs = stream.Normal, []stream.Message{m}
				w.State[0].Value = []byte("message")
			}
			if err := b.Commit(w, func(_ stream.Position, err error) {
				if err == nil {
					acked++
				}
			}); err != nil {
				t.Fatal(err)
			}
			serial++
		}
		for range rng.IntN(4) {
			write()
			_ = b.commit(true)
		}
		for range 1 + rng.IntN(30) {
			write()
		}
		var image *memDir
		sure, left := 0, rng.IntN(12)
		dir.before = func() {
			if left--; left < 0 && image == nil {
				image, sure = dir.crashLocked(rng), acked
			}
		}
		_ = b.commit(true)
		if dir.before = nil; image == nil {
			image, sure = dir.crash(rng), acked
		}
		b = openMem(t, image, testOptions())
		got := stateOf(t, b)
		out, lost := drainAll(t, b)
		there := map[string]bool{}
		for _, text := range out {
			n, _, _ := strings.Cut(text, " ")
			there[n] = true
		}
		n := 0
		for ; got[fmt.Sprintf("w/%d", n)] != ""; n++ {
			if message := got[fmt.Sprintf("w/%d", n)] == "message"; message != there[fmt.Sprint(n)] {
				t.Fatalf("seed %d: write %d: its entries are there, its message: %v", seed, n, !message)
			}
			delete(there, fmt.Sprint(n))
			delete(got, fmt.Sprintf("w/%d", n))
		}
		if last := got["last"]; len(there) > 0 || n < sure || n > 0 && (last != fmt.Sprint(n-1) || len(got) != 1) || b.Stats().StateDropped > 0 {
			t.Fatalf("seed %d: %d of %d writes, %d acknowledged, last is %q; beyond them %v and messages %v", seed, n, serial, sure, last, shown(got), there)
		}
		if len(lost) > 0 {
			t.Fatalf("seed %d: %d lost", seed, len(lost))
		}
		torn += b.Stats().Recovery.Torn
		if n > sure && n < serial {
			partial++
		}
	}
	if torn == 0 || partial == 0 {
		t.Fatalf("%d torn commits, %d partial ones: this proves nothing", torn, partial)
	}
}

// The index costs at most a hundred bytes beside a key.
func TestIndexMemory(t *testing.T) {
	const n = 100_000
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("key/%d", i)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	k := keyMap{index: map[string]keyPlace{}}
	seg := &segment{}
	for i, key := range all {
		k.put(seg, uint32(i), key, 10)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := float64(int64(after.HeapAlloc)-int64(before.HeapAlloc)) / n
	runtime.KeepAlive(all)
	if len(k.index) != n || each > 100 {
		t.Fatalf("%.0f bytes for each of %d keys", each, len(k.index))
	}
}
