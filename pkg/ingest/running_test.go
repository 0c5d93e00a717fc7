package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/commitlog/logtest"
	"github.com/packetboat/packetboat/pkg/stream"
)

// A device that has queued a lot does not hold up another one.
func TestFairness(t *testing.T) {
	inWorld(t, Options{GroupRecords: 4, WindowMessages: 50, MinWindow: 50, PacketBytes: 100}, func(w *world) {
		flood, fid := w.opened("flood", false, 50)
		small, sid := w.opened("small", false, 1)
		w.shut()
		for n := range uint64(50) {
			flood.submit(fid, rng(n+1, n+1), none)
		}
		s := small.submit(sid, rng(1, 1), none)
		w.let(logtest.Commit) // the first group was taken before
		w.let(logtest.Commit)
		wantOutcome(t, s, Settled)
		w.open()
		synctest.Wait()
		if n := w.mem.Groups(0); n < 51/4 || n > 2+51/4+1 {
			t.Fatalf("%d groups", n)
		}
	})
}

// What comes after newer records of its stream is marked, unless the lane is
// strict.
func TestBackfillIsMarked(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		e, id := w.opened("a", false, 12)
		wantOutcome(t, e.submit(id, rng(5, 6), none), Settled)
		w.shut()
		e.submit(id, rng(1, 2), none)
		synctest.Wait() // that is a group; the others make the next
		e.submit(id, rng(9, 10), none)
		e.submit(id, none, rng(12, 12))
		e.submit(id, rng(11, 11), none)
		e.submit(id, rng(7, 8), none)
		w.open()
		synctest.Wait()
		var late []uint64
		for s, err := range w.mem.Read(context.Background(), commitlog.Cursor{}, commitlog.Filter{}) {
			if err != nil {
				t.Fatal(err)
			}
			if s.Flags&stream.Backfill != 0 {
				late = append(late, s.Seq)
			}
		}
		if !slices.Equal(late, []uint64{1, 2, 7, 8}) {
			t.Fatalf("marked: %v", late)
		}
	})
}

func TestLoneBatchDoesNotWait(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		e, id := w.opened("a", false, 1)
		began := time.Now()
		wantOutcome(t, e.submit(id, rng(1, 1), none), Settled)
		if d := time.Since(began); d != 0 {
			t.Fatalf("settled after %s", d)
		}
	})
}

func TestStop(t *testing.T) {
	// Many times: what a shard does when its batches and its end come together
	// is for chance to say.
	for range 20 {
		synctest.Test(t, stopOnce)
	}
}

func stopOnce(t *testing.T) {
	w := newWorld(t, 3, Options{})
	if err := w.hub.Ready(); err != nil {
		t.Fatal(err)
	}
	e, id := w.opened("a", false, 3)
	w.shut()
	a := e.submit(id, rng(1, 1), none)
	synctest.Wait()
	b := e.submit(id, rng(2, 2), none)
	w.hub.cancel()
	synctest.Wait()
	wantOutcome(t, e.submit(id, rng(3, 3), none), Refused)
	if w.hub.Ready() == nil {
		t.Fatal("ready while it stops")
	}
	w.open()
	if err := w.hub.stop(); err != nil {
		t.Fatal(err)
	}
	wantOutcome(t, a, Settled)
	wantOutcome(t, b, Settled)
	if e.conn.reason() != RevokedStopped.String() {
		t.Fatalf("revoked for %q", e.conn.reason())
	}
	var busy *BusyError
	if err := e.connect(w.hub.Ingest); !errors.As(err, &busy) {
		t.Fatalf("connect: %v", err)
	}
	w.want("a1", "a2")
}

// hangs is a log whose appends end only with their context.
type hangs struct{ commitlog.Log }

type hangingOwner struct{ commitlog.Owner }

func (h hangs) Acquire(ctx context.Context, shard int) (commitlog.Owner, error) {
	o, err := h.Log.Acquire(ctx, shard)
	return hangingOwner{o}, err
}

func (o hangingOwner) Append(ctx context.Context, _ []commitlog.Entry) error {
	<-ctx.Done()
	return fmt.Errorf("%w: %w", commitlog.ErrUnknown, ctx.Err())
}

func TestStopIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHub(hangs{logtest.NewMem(1)}, Options{}, true)
		synctest.Wait()
		e := newSimEdge("a", false)
		fill(e, "m", 1)
		if err := e.connect(h.Ingest); err != nil {
			t.Fatal(err)
		}
		s := e.submit(e.mem.epochs[0].id, rng(1, 1), none)
		synctest.Wait()
		began := time.Now()
		if err := h.stop(); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d != 5*time.Second {
			t.Fatalf("stopped after %s", d)
		}
		wantOutcome(t, s, Refused)
	})
}

func TestClosedLogEndsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := logtest.NewMem(2)
		h := startHub(m, Options{}, true)
		synctest.Wait()
		e := newSimEdge("a", false)
		fill(e, "m", 1)
		if err := e.connect(h.Ingest); err != nil {
			t.Fatal(err)
		}
		_ = m.Close()
		s := e.submit(e.mem.epochs[0].id, rng(1, 1), none)
		if err := <-h.done; !errors.Is(err, commitlog.ErrClosed) {
			t.Fatalf("run: %v", err)
		}
		wantOutcome(t, s, Refused)
	})
}

// fails cannot be acquired for a while.
type fails struct {
	commitlog.Log
	until time.Time
	tries int
}

func (f *fails) Acquire(ctx context.Context, shard int) (commitlog.Owner, error) {
	if f.tries++; time.Now().Before(f.until) {
		return nil, errors.New("no broker")
	}
	return f.Log.Acquire(ctx, shard)
}

func TestAcquireBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &fails{Log: logtest.NewMem(1), until: time.Now().Add(time.Minute)}
		h := startHub(log, Options{}, true)
		defer h.cancel()
		time.Sleep(59 * time.Second)
		if h.Ready() == nil {
			t.Fatal("ready")
		}
		if _, _, err := h.Connect(context.Background(), Hello{Device: "a", Version: 1}); err == nil {
			t.Fatal("served")
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if err := h.Ready(); err != nil {
			t.Fatal(err)
		}
		if log.tries < 10 || log.tries > 40 {
			t.Fatalf("%d tries in a minute", log.tries)
		}
		_ = h.stop()
	})
}

func TestDevicesComeBackOneByOne(t *testing.T) {
	s := spreader{gap: 5 * time.Millisecond}
	now := time.Now()
	slots := map[time.Duration]int{}
	for range 10_000 {
		d := s.after(now)
		if d < retryRefused || d > MaxRetryAfter {
			t.Fatalf("come again in %s", d)
		}
		slots[d.Truncate(time.Second)]++
	}
	for at, n := range slots {
		if n > 450 { // 200 a second, jittered into the next
			t.Fatalf("%d devices come back in the same second, %s", n, at)
		}
	}
	if d := s.after(now.Add(2 * time.Minute)); d > 2*retryRefused {
		t.Fatalf("long after the storm: %s", d)
	}
}
