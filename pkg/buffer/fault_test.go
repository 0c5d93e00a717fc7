package buffer

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/packetboat/packetboat/pkg/stream"
)

func openMem(t *testing.T, dir *memDir, o Options) *Buffer {
	t.Helper()
	b, err := openOn(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A sync that fails once is not noticed by who appended, but the segment is
// not used again, and what was written there before still counts.
func TestSyncFailsOnce(t *testing.T) {
	dir := newMemDir()
	b := openMem(t, dir, testOptions())
	want := appendCommit(t, b, stream.Normal, 1)
	failed := ""
	dir.fault = func(op, name string) error {
		if op == "sync" && failed == "" {
			failed = name
			return errInjected
		}
		if op == "write" && name == failed {
			t.Errorf("write to %s after its sync failed", name)
		}
		return nil
	}
	want = append(want, appendCommit(t, b, stream.Normal, 2)...)
	dir.fault = nil
	want = append(want, appendCommit(t, b, stream.Normal, 3)...)
	if s := b.Stats(); s.DiskErrors != 1 || s.DiskError != "" || s.Epochs != 1 {
		t.Fatalf("%+v", s)
	}
	b = openMem(t, dir.crash(rand.New(rand.NewPCG(1, 1))), testOptions())
	out, _ := drainAll(t, b)
	for _, p := range want {
		if _, ok := out[p]; !ok {
			t.Fatalf("%v is missing", p)
		}
	}
}

func appendCommit(t *testing.T, b *Buffer, lane stream.Lane, i int) (at []stream.Position) {
	t.Helper()
	if err := b.Append(lane, []stream.Message{message(i)}, func(p stream.Position, err error) {
		if err != nil {
			t.Fatal(err)
		}
		at = append(at, p)
	}); err != nil {
		t.Fatal(err)
	}
	if err := b.commit(true); err != nil {
		t.Fatal(err)
	}
	return at
}

// A disk that refuses everything is a state: waiters and appenders get ErrDisk,
// Stats says so, and when it works again so does the buffer, in a new epoch,
// because the numbers that were refused may stand on the disk.
func TestDiskRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := newMemDir()
		b := openMem(t, dir, testOptions())
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error)
		go func() { ran <- b.Run(ctx) }()
		first := put(t, b, stream.Normal, message(1))
		dir.mu.Lock()
		dir.fault = func(op, _ string) error {
			if op == "write" || op == "sync" {
				return errInjected
			}
			return nil
		}
		dir.mu.Unlock()
		if _, err := tryPut(b, stream.Normal, message(2)); !errors.Is(err, ErrDisk) || !errors.Is(err, errInjected) {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := b.Append(stream.Normal, []stream.Message{message(3)}, nil); !errors.Is(err, ErrDisk) {
			t.Fatal(err)
		}
		if s := b.Stats(); s.DiskError == "" || s.Queued != 1 || s.Lost[stream.Evicted] != 0 || !s.ConservationOK {
			t.Fatalf("%+v", s)
		}
		dir.mu.Lock()
		dir.fault = nil
		dir.mu.Unlock()
		time.Sleep(3 * retryDisk) // the bubble's clock
		second := put(t, b, stream.Normal, message(4))
		if second.ID.Epoch == first.ID.Epoch || second.Seq != 1 {
			t.Fatalf("%v after %v", second, first)
		}
		cancel()
		if err := <-ran; err != nil {
			t.Fatal(err)
		}
		if err := b.Append(stream.Normal, []stream.Message{message(5)}, nil); !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
		_ = b.Close()
		again := openMem(t, dir, testOptions())
		out, lost := drainAll(t, again)
		if len(out) != 2 || len(lost) != 0 || out[first] == "" || out[second] == "" {
			t.Fatalf("%v, lost %v", out, lost)
		}
		_ = again.Close()
	})
}

// No space for another segment: the buffer goes on with those it has, and
// evicts as at its byte limit.
func TestNoSpaceForSegments(t *testing.T) {
	dir := newMemDir()
	b := openMem(t, dir, testOptions())
	dir.fault = func(op, _ string) error {
		if op == "create" && len(dir.files) >= 8 {
			return syscall.ENOSPC
		}
		return nil
	}
	for i := range 400 {
		appendLarge(b, stream.Bulk, i)
		if err := b.commit(true); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		b.makeRoom()
	}
	s := b.Stats()
	if s.Lost[stream.Evicted] == 0 || s.Accepted != 400 || !s.ConservationOK || s.Segments > 8 {
		t.Fatalf("%+v", s)
	}
}

func appendLarge(b *Buffer, lane stream.Lane, i int) error {
	m := message(i)
	m.Payload = bytes.Repeat([]byte{byte(i)}, 3000)
	return b.Append(lane, []stream.Message{m}, nil)
}

// QoS 0 waits for LazySync, QoS 1 does not, and takes along what waits.
func TestLazySync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := openMem(t, newMemDir(), Options{Dir: "mem", SegmentBytes: minSegmentBytes, MaxBytes: 8 * minSegmentBytes, LazySync: 250 * time.Millisecond})
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error)
		go func() { ran <- b.Run(ctx) }()
		m := message(1)
		m.QoS = 0
		start := time.Now()
		put(t, b, stream.Bulk, m)
		if d := time.Since(start); d != 250*time.Millisecond {
			t.Fatalf("QoS 0 synced after %v", d)
		}
		var order []string
		note := func(s string) func(stream.Position, error) {
			return func(stream.Position, error) { order = append(order, s) }
		}
		start = time.Now()
		if err := b.Append(stream.Bulk, []stream.Message{m}, note("qos 0")); err != nil {
			t.Fatal(err)
		}
		if err := b.Append(stream.Bulk, []stream.Message{message(2)}, note("qos 1")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if d := time.Since(start); d != 0 || !slices.Equal(order, []string{"qos 0", "qos 1"}) {
			t.Fatalf("after %v: %v", d, order)
		}
		cancel()
		if err := <-ran; err != nil {
			t.Fatal(err)
		}
		_ = b.Close()
	})
}

func TestBusy(t *testing.T) {
	o := testOptions()
	o.MaxPending = 5000
	b := openMem(t, newMemDir(), o)
	if err := appendLarge(b, stream.Bulk, 1); err != nil {
		t.Fatal(err)
	}
	if err := appendLarge(b, stream.Bulk, 2); !errors.Is(err, ErrBusy) {
		t.Fatal(err)
	}
	if err := b.commit(true); err != nil {
		t.Fatal(err)
	}
	if err := appendLarge(b, stream.Bulk, 2); err != nil {
		t.Fatal(err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{MaxBytes: 1000}, "needs at least"},
		{Options{MaxBytes: 1 << 20, SegmentBytes: 1 << 20}, "needs at least 6"},
		{Options{SegmentBytes: 5000}, "multiple of 4096"},
		{Options{MaxBytes: 1 << 40, SegmentBytes: 1 << 20}, "use larger segments"},
		{Options{LazySync: -1}, "negative"},
		{Options{Lanes: map[stream.Lane]LaneOptions{9: {}}}, "unknown lane"},
	} {
		c.o.Dir = "mem"
		if _, err := openOn(newMemDir(), c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.o, err, c.want)
		}
	}
	for n := int64(minSegments * minSegmentBytes); n < 1<<40; n = n*3/2 + 12345 { // any limit has a fitting segment size
		o := Options{Dir: "mem", MaxBytes: n}
		if err := o.complete(); err != nil {
			t.Errorf("%d: %v", n, err)
		}
	}
	if _, err := Open(Options{}); err == nil {
		t.Error("no directory passes")
	}
}

// The proof can fail: on a disk that ignores syncs, what was acknowledged goes.
func TestDeafDiskLoses(t *testing.T) {
	lost := 0
	for seed := range uint64(20) {
		dir := newMemDir()
		b := openMem(t, dir, testOptions())
		dir.deaf = true
		want := appendCommit(t, b, stream.Normal, 1)
		again, err := openOn(dir.crash(rand.New(rand.NewPCG(seed, 0))), testOptions())
		if err != nil {
			lost++
			continue
		}
		out, _ := drainAll(t, again)
		if _, ok := out[want[0]]; !ok {
			lost++
		}
	}
	if lost == 0 {
		t.Fatal("crash images never lose unsynced writes: they prove nothing")
	}
}

// A disk that cannot read for a moment is an error that passes; one that never
// reads a segment again costs what stood there, by range, and Next goes on.
func TestReadFails(t *testing.T) {
	dir := newMemDir()
	b := openMem(t, dir, testOptions())
	first := appendCommit(t, b, stream.Normal, 1)[0]
	broken := segmentName(b.segs.head.id)
	for i := range 30 {
		appendLarge(b, stream.Normal, i)
		if err := b.commit(true); err != nil {
			t.Fatal(err)
		}
	}
	times := 0
	dir.fault = func(op, name string) error {
		if op == "read" && name == broken && times > 0 {
			times--
			return errInjected
		}
		return nil
	}
	times = 1
	if _, _, err := b.Next(stream.Normal, Limit{Messages: 1}); !errors.Is(err, errInjected) {
		t.Fatal(err)
	}
	if batch, ok := next(t, b, stream.Normal, Limit{Messages: 1}); !ok || batch.First != 1 {
		t.Fatalf("%+v", batch)
	}
	b.RequeueAll()
	b.cursors = [4]cursor{} // what was read before is not asked for again
	times = 1 << 30
	var batch stream.Batch
	for range 10 {
		var err error
		var ok bool
		if batch, ok, err = b.Next(stream.Normal, Limit{}); err == nil && ok {
			break
		}
	}
	if len(batch.Records) == 0 || len(batch.Losses) != 1 || batch.Losses[0].First != first.Seq || batch.Losses[0].Last+1 != batch.First || batch.Losses[0].Reason != stream.Unreadable {
		t.Fatalf("from %d, losses %+v", batch.First, batch.Losses)
	}
	if s := b.Stats(); !s.ConservationOK {
		t.Fatalf("%+v", s)
	}
}

// What cannot be opened is refused with what to do, and left as it is.
func TestNotAJournal(t *testing.T) {
	whole := newMemDir()
	_ = openMem(t, whole, testOptions()).Close()
	for name, spoil := range map[string]func(d *memDir){
		"rubbish": func(d *memDir) { plant(d, "00000000.seg", bytes.Repeat([]byte("rubbish "), 2*pageSize)) },
		"zeros":   func(d *memDir) { plant(d, "00000000.seg", make([]byte, minSegmentBytes)) },
		"empty":   func(d *memDir) { plant(d, "00000000.seg", nil) },
		"a copy of a segment": func(d *memDir) {
			for name, f := range whole.files {
				plant(d, name, f.data)
			}
			plant(d, "000000ff.seg", whole.files["00000000.seg"].data)
		},
		"two journals": func(d *memDir) {
			plant(d, "00000000.seg", whole.files["00000000.seg"].data)
			other := newMemDir()
			_ = openMem(t, other, testOptions()).Close()
			plant(d, "00000001.seg", other.files["00000000.seg"].data)
		},
	} {
		d := newMemDir()
		spoil(d)
		before := d.image()
		_, err := openOn(d, testOptions())
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "move the directory away") {
			t.Errorf("%s: %v", name, err)
		}
		if d.locked {
			t.Errorf("%s: still locked", name)
		}
		for file, f := range before.files {
			if d.files[file] == nil || !bytes.Equal(d.files[file].data, f.data) {
				t.Errorf("%s: %s was changed", name, file)
			}
		}
	}
}

func plant(d *memDir, name string, data []byte) {
	d.files[name] = &memFile{dir: d, name: name, data: slices.Clone(data), durable: slices.Clone(data)}
}

// Close without Run tells those who wait.
func TestCloseTellsWaiters(t *testing.T) {
	b := openMem(t, newMemDir(), testOptions())
	var got error
	if err := b.Append(stream.Normal, []stream.Message{message(1)}, func(_ stream.Position, err error) { got = err }); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil || !errors.Is(got, ErrClosed) {
		t.Fatalf("%v, waiter got %v", err, got)
	}
	if err := b.Append(stream.Normal, []stream.Message{message(1)}, nil); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}
