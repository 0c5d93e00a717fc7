package ingest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/commitlog/logtest"
	"github.com/packetboat/packetboat/pkg/stream"
)

var none stream.RangeSet

// opened is an edge with n records, connected.
func (w *world) opened(device string, fifo bool, n int) (*simEdge, stream.Epoch) {
	w.t.Helper()
	e := newSimEdge(device, fifo)
	fill(e, device, n)
	w.mustConnect(e)
	return e, e.mem.epochs[0].id
}

func wantRetry(t testing.TB, o Outcome, about time.Duration) {
	t.Helper()
	if o.RetryAfter < about/2 || o.RetryAfter > min(about*3/2, MaxRetryAfter) {
		t.Fatalf("retry after %s, want about %s", o.RetryAfter, about)
	}
}

func TestFifoRefusal(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		e, id := w.opened("a", true, 9)
		other := func(first, last uint64) *sent { return e.submit(id, rng(first, last), none) }
		w.shut()
		pending := other(1, 2)
		synctest.Wait() // the log has it
		queued := other(3, 4)
		w.let(logtest.Reject)
		wantRetry(t, wantOutcome(t, pending, Refused), retryRefused)
		wantOutcome(t, queued, Refused) // it was behind
		wantOutcome(t, other(5, 6), Refused)
		wantOutcome(t, e.submit(id, none, rng(7, 7)), Refused) // losses keep the order too
		// What comes again in another place of the lane does not count.
		e.mem.epochs = append(e.mem.epochs, simEpoch{id: stream.NewEpoch(), content: []string{"x"}})
		wantOutcome(t, e.submit(e.mem.epochs[1].id, rng(1, 1), none), Refused)
		w.open()
		wantOutcome(t, e.submit(id, none, rng(1, 2)), Settled) // as loss
		wantOutcome(t, other(3, 4), Settled)
		w.want("a3", "a4")
		if st := w.hub.Stats(); st.Refused["order"] != 4 || st.Refused["rejected"] != 1 || st.Losses["evicted"] != 2 {
			t.Fatalf("stats %+v", st)
		}
	})
}

// Of a rejected group the entries behind the rejected one of their lane are
// refused, other lanes and devices are not.
func TestFifoRefusalInsideAGroup(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		e, id := w.opened("a", true, 9)
		o, oid := w.opened("b", true, 2)
		w.shut()
		blocker := o.submit(oid, rng(1, 1), none)
		synctest.Wait()
		first, second, third := e.submit(id, rng(1, 2), none), e.submit(id, rng(3, 4), none), e.submit(id, rng(5, 6), none)
		beside := o.submit(oid, rng(2, 2), none)
		w.let(logtest.Commit)
		wantOutcome(t, blocker, Settled)
		w.let(logtest.Reject) // the whole group: a1-2, b2, a3-4, a5-6
		w.let(logtest.Reject) // its first half: a1-2, b2
		w.let(logtest.Reject) // a1-2
		wantOutcome(t, first, Refused)
		w.let(logtest.Commit) // b2
		wantOutcome(t, beside, Settled)
		wantOutcome(t, second, Refused)
		wantOutcome(t, third, Refused)
		if w.let(logtest.Commit) {
			t.Fatal("something behind the refused batch went to the log")
		}
		// The lane waits for 1. Earlier numbers than the refused one are taken.
		wantOutcome(t, e.submit(id, rng(3, 4), none), Refused)
		w.open()
		wantOutcome(t, e.submit(id, rng(1, 2), none), Settled)
		w.want("b1", "b2", "a1", "a2")
	})
}

func TestFifoTakesEarlierNumbers(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		e, id := w.opened("a", true, 9)
		w.shut()
		s := e.submit(id, rng(4, 5), none)
		w.let(logtest.NoSpace)
		wantRetry(t, wantOutcome(t, s, Refused), retryNoSpace)
		w.open()
		wantOutcome(t, e.submit(id, rng(6, 6), none), Refused)
		wantOutcome(t, e.submit(id, rng(1, 3), none), Settled)
		wantOutcome(t, e.submit(id, rng(6, 6), none), Refused)
		wantOutcome(t, e.submit(id, rng(4, 6), none), Settled)
		wantOutcome(t, e.submit(id, rng(7, 9), none), Settled)
		// A new session starts afresh.
		w.want("a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8", "a9")
	})
}

func TestOneRejectedEntryHoldsUpNobody(t *testing.T) {
	inWorld(t, Options{WindowMessages: 40, MinWindow: 40, PacketBytes: 1000}, func(w *world) {
		poison := func(_ int, group []commitlog.Entry) logtest.Outcome {
			for i := range group {
				for _, r := range group[i].Records {
					if string(r.Payload) == "a20" {
						return logtest.Reject
					}
				}
			}
			return logtest.Commit
		}
		e, id := w.opened("a", false, 32)
		gate := make(chan struct{})
		w.mem.Inject(func(n int, group []commitlog.Entry) logtest.Outcome {
			<-gate
			return poison(n, group)
		})
		var all []*sent
		for n := range uint64(32) {
			all = append(all, e.submit(id, rng(n+1, n+1), none))
		}
		close(gate)
		for n, s := range all {
			if n+1 == 20 {
				wantOutcome(t, s, Refused)
			} else {
				wantOutcome(t, s, Settled)
			}
		}
		if st := w.hub.Stats(); st.Appends > 20 {
			t.Fatalf("%d appends", st.Appends)
		}
	})
}

// When the log takes nothing at all, a group is not tried piece by piece.
func TestALogThatRejectsEverything(t *testing.T) {
	inWorld(t, Options{WindowMessages: 100, MinWindow: 100, PacketBytes: 1000}, func(w *world) {
		e, id := w.opened("a", false, 100)
		gate := make(chan struct{})
		w.mem.Inject(func(int, []commitlog.Entry) logtest.Outcome { <-gate; return logtest.Reject })
		var all []*sent
		for n := range uint64(100) {
			all = append(all, e.submit(id, rng(n+1, n+1), none))
		}
		close(gate)
		for _, s := range all {
			wantOutcome(t, s, Refused)
		}
		if st := w.hub.Stats(); st.Appends > 40 {
			t.Fatalf("%d appends", st.Appends)
		}
	})
}

func TestUnknownOutcome(t *testing.T) {
	for _, in := range []bool{true, false} {
		t.Run(fmt.Sprintf("in=%v", in), func(t *testing.T) {
			inWorld(t, Options{}, func(w *world) {
				e, id := w.opened("a", false, 4)
				w.shut()
				s := e.submit(id, rng(1, 2), none)
				synctest.Wait()
				queued := e.submit(id, rng(3, 3), none)
				if in {
					w.let(logtest.UnknownIn)
				} else {
					w.let(logtest.UnknownOut)
				}
				wantNone(t, s) // not before the shard is acquired again
				wantOutcome(t, queued, Refused)
				if e.conn.reason() != RevokedShard.String() {
					t.Fatal("the session lives on")
				}
				if err := e.connect(w.hub.Ingest); err == nil {
					t.Fatal("served without the shard")
				}
				time.Sleep(time.Second)
				if in {
					wantOutcome(t, s, Settled)
				} else {
					wantOutcome(t, s, Refused)
				}
				w.open()
				w.drain(e)
				w.want("a1", "a2", "a3", "a4")
			})
		})
	}
}

func TestFenced(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		e, id := w.opened("a", false, 4)
		w.mem.Reopen()
		wantOutcome(t, e.submit(id, rng(1, 2), none), Refused)
		if e.conn.reason() != RevokedShard.String() {
			t.Fatal("the session lives on")
		}
		wantOutcome(t, e.submit(id, rng(1, 2), none), Refused)
		if w.hub.Ready() == nil {
			t.Fatal("ready without the shard")
		}
		time.Sleep(time.Second)
		if err := w.hub.Ready(); err != nil {
			t.Fatal(err)
		}
		// The same hub owns again: the old session is over all the same.
		wantOutcome(t, e.submit(id, rng(1, 2), none), Refused)
		w.drain(e)
		w.want("a1", "a2", "a3", "a4")
	})
}

func TestOverlapWaits(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		e, id := w.opened("a", false, 6)
		w.shut()
		first := e.submit(id, rng(1, 3), none)
		synctest.Wait()
		again := e.submit(id, rng(3, 4), none)
		after := e.submit(id, rng(5, 5), none)
		wantNone(t, again)
		w.let(logtest.Commit)
		wantOutcome(t, first, Settled)
		wantNone(t, after)
		w.let(logtest.Commit)
		wantOutcome(t, again, Settled)
		wantOutcome(t, after, Settled)
		w.want("a1", "a2", "a3", "a4", "a5")
		// And when the first is refused.
		first = e.submit(id, rng(6, 6), none)
		synctest.Wait()
		again = e.submit(id, rng(6, 6), none)
		w.let(logtest.Reject)
		wantOutcome(t, first, Refused)
		w.let(logtest.Commit)
		wantOutcome(t, again, Settled)
		w.want("a1", "a2", "a3", "a4", "a5", "a6")
	})
}

func TestAnswerNamesLostAndIn(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		e, id := w.opened("a", false, 8)
		wantOutcome(t, e.submit(id, rng(1, 2), none), Settled)
		wantOutcome(t, e.submit(id, none, rng(3, 4)), Settled)
		o := wantOutcome(t, e.submit(id, rng(2, 5), none), Settled)
		if o.Lost.String() != "3-4" || !o.In.IsEmpty() {
			t.Fatalf("lost %s, in %s", o.Lost.String(), o.In.String())
		}
		o = wantOutcome(t, e.submit(id, none, rng(2, 6)), Settled)
		if o.In.String() != "2,5" || !o.Lost.IsEmpty() {
			t.Fatalf("lost %s, in %s", o.Lost.String(), o.In.String())
		}
		o = wantOutcome(t, e.submit(id, rng(1, 6), none), Settled)
		if o.Lost.String() != "3-4,6" {
			t.Fatalf("lost %s", o.Lost.String())
		}
		if l := w.lane(e, 0); l.In.String() != "1-2,5" || l.Lost.String() != "3-4,6" {
			t.Fatalf("in %s, lost %s", l.In.String(), l.Lost.String())
		}
	})
}

func TestHeartbeat(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		e, id := w.opened("a", false, 3)
		wantOutcome(t, e.submit(id, none, none), Settled)
		if l := w.lane(e, 0); l.Head != 3 || l.Floor != 1 {
			t.Fatalf("head %d, floor %d", l.Head, l.Floor)
		}
		groups := w.mem.Groups(0)
		wantOutcome(t, e.submit(id, none, none), Settled)
		if w.mem.Groups(0) != groups {
			t.Fatal("what brings no news was appended")
		}
		// Settled says that the log knows the epoch.
		w.shut()
		e.mem.epochs = append(e.mem.epochs, simEpoch{id: stream.NewEpoch()})
		s := e.submit(e.mem.epochs[1].id, none, none)
		wantNone(t, s)
		w.open()
		wantOutcome(t, s, Settled)
		if w.coverage("a").Epoch(e.mem.epochs[1].id) == nil {
			t.Fatal("the epoch is not known")
		}
	})
}

func TestBounds(t *testing.T) {
	t.Run("window", func(t *testing.T) {
		inWorld(t, Options{WindowMessages: 2, MinWindow: 2}, func(w *world) {
			e, id := w.opened("a", false, 5)
			w.shut()
			a, b := e.submit(id, rng(1, 1), none), e.submit(id, rng(2, 2), none)
			wantOutcome(t, e.submit(id, rng(3, 3), none), Refused)
			if e.conn.reason() != RevokedWindow.String() {
				t.Fatal("the session lives on")
			}
			w.open()
			wantOutcome(t, a, Settled)
			wantOutcome(t, b, Settled)
		})
	})
	t.Run("packet", func(t *testing.T) {
		inWorld(t, Options{PacketBytes: 100}, func(w *world) {
			e, _ := w.opened("a", false, 1)
			out := make(chan Outcome, 1)
			e.conn.session.Submit(make([]byte, 101), func(o Outcome) { out <- o })
			if o := <-out; o.Code != Refused || e.conn.reason() != RevokedWindow.String() {
				t.Fatalf("%v %q", o.Code, e.conn.reason())
			}
		})
	})
	t.Run("pending bytes", func(t *testing.T) {
		inWorld(t, Options{PendingBytes: 500}, func(w *world) {
			e, id := w.opened("a", false, 9)
			w.shut()
			a := e.submit(id, rng(1, 2), none)
			synctest.Wait()
			wantRetry(t, wantOutcome(t, e.submit(id, rng(3, 4), none), Refused), retryRefused)
			w.open()
			wantOutcome(t, a, Settled)
			wantOutcome(t, e.submit(id, rng(3, 4), none), Settled)
			if st := w.hub.Stats(); st.Refused["memory"] != 1 || st.PendingBytes != 0 {
				t.Fatalf("stats %+v", st)
			}
		})
	})
	t.Run("windows of all", func(t *testing.T) {
		inWorld(t, Options{WindowMessages: 8, MinWindow: 2, PacketBytes: 100, WindowBytes: 1000}, func(w *world) {
			var edges []*simEdge
			for i := range 5 {
				e, _ := w.opened(fmt.Sprint("d", i), false, 1)
				edges = append(edges, e)
				if e.conn.welcome.WindowMessages != 2 {
					t.Fatalf("window %d", e.conn.welcome.WindowMessages)
				}
			}
			late := newSimEdge("late", false)
			var busy *BusyError
			if err := late.connect(w.hub.Ingest); !errors.As(err, &busy) || busy.Reason != BusyBudget {
				t.Fatalf("connect: %v", err)
			}
			w.mustConnect(edges[0]) // its own window is free again
			edges[1].hangUp()
			w.mustConnect(late)
			if st := w.hub.Stats(); st.WindowBytes != 1000 || st.Sessions != 5 || st.Busy["budget"] != 1 {
				t.Fatalf("stats %+v", st)
			}
		})
	})
	t.Run("idle devices", func(t *testing.T) {
		inWorld(t, Options{MaxIdle: 3}, func(w *world) {
			for i := range 8 {
				e, id := w.opened(fmt.Sprint("d", i), false, 1)
				wantOutcome(t, e.submit(id, rng(1, 1), none), Settled)
				e.hangUp()
			}
			st := w.hub.Devices()
			if len(st) != 3 || st[0].Device != "d5" || st[2].Device != "d7" || st[0].Connected || st[0].Records != 1 {
				t.Fatalf("remembered: %+v", st)
			}
		})
	})
	t.Run("gaps", func(t *testing.T) {
		l := &commitlog.LaneState{}
		for n := range uint64(commitlog.MaxRanges) {
			l.In.Add(stream.Range{First: 3 * n, Last: 3 * n})
		}
		cov := &commitlog.DeviceCoverage{}
		gap := &item{numbers: rng(3*commitlog.MaxRanges+5, 3*commitlog.MaxRanges+6)}
		closes := &item{numbers: rng(10, 11)}
		if fits(cov, l, gap) || !fits(cov, l, closes) {
			t.Fatal("at the bound, what makes a gap is refused, and what closes one is not")
		}
	})
}

func TestBadBatches(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		e, id := w.opened("a", false, 4)
		s := e.conn.session
		good := func() stream.Batch { return e.batch(&e.mem.epochs[0], rng(1, 2), none) }
		for name, spoil := range map[string]func(b *stream.Batch){
			"no epoch":       func(b *stream.Batch) { b.ID.Epoch = stream.Epoch{} },
			"no lane":        func(b *stream.Batch) { b.ID.Lane = 7 },
			"other device":   func(b *stream.Batch) { b.ID.Device = "b" },
			"number 0":       func(b *stream.Batch) { b.First = 0 },
			"other numbers":  func(b *stream.Batch) { b.Records[1].Seq = 9 },
			"beyond the end": func(b *stream.Batch) { b.First = maxSeq },
			"loss of nothing": func(b *stream.Batch) {
				b.Losses = []stream.Loss{{Range: stream.Range{First: 4, Last: 3}, Reason: stream.Evicted}}
			},
			"loss and record": func(b *stream.Batch) {
				b.Losses = []stream.Loss{{Range: stream.Range{First: 2, Last: 3}, Reason: stream.Evicted}}
			},
			"no reason": func(b *stream.Batch) { b.Losses = []stream.Loss{{Range: stream.Range{First: 3, Last: 3}}} },
			"head":      func(b *stream.Batch) { b.Head = ^uint64(0) },
		} {
			b := good()
			spoil(&b)
			if _, err := batchItem(s, &b, 1, 0, nil); !errors.Is(err, errBatch) {
				t.Errorf("%s: %v", name, err)
			}
		}
		out := make(chan Outcome, 1)
		s.Submit([]byte("rubbish"), func(o Outcome) { out <- o })
		if o := <-out; o.Code != Bad {
			t.Fatalf("rubbish is %v", o.Code)
		}
		wantOutcome(t, e.submit(id, rng(1, 2), none), Settled)
	})
}

func TestHello(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		id := stream.NewEpoch()
		for name, h := range map[string]Hello{
			"device":  {Device: "a/b", Version: 1},
			"version": {Device: "a", Version: 2},
			"none":    {Device: "a"},
			"lane":    {Device: "a", Version: 1, Held: []stream.Held{{Epoch: id, Lane: 4}}},
			"epoch":   {Device: "a", Version: 1, Held: []stream.Held{{Lane: stream.Bulk}}},
			"twice":   {Device: "a", Version: 1, Held: []stream.Held{{Epoch: id, Lane: 1}, {Epoch: id, Lane: 1}}},
			"head":    {Device: "a", Version: 1, Held: []stream.Held{{Epoch: id, Lane: 1, Ranges: rng(1, 5), Head: 4}}},
		} {
			if _, _, err := w.hub.Connect(context.Background(), h); !errors.Is(err, ErrHello) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

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
	synctest.Test(t, func(t *testing.T) {
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
	})
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
