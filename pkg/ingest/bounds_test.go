package ingest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

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
			"no topic":  func(b *stream.Batch) { b.Records[1].Topic = "" },
			"wildcard":  func(b *stream.Batch) { b.Records[1].Topic = "a/#" },
			"NUL":       func(b *stream.Batch) { b.Records[1].Topic = "a\x00" },
			"not UTF-8": func(b *stream.Batch) { b.Records[1].Topic = "a\xff" },
			"too long":  func(b *stream.Batch) { b.Records[1].Topic = strings.Repeat("a", 1<<16) },
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

// slowDecoder decodes nothing, and waits before it says so.
type slowDecoder struct {
	busy *atomic.Int64
	gate chan struct{}
}

func (d slowDecoder) Decode([]byte, string) (stream.Batch, error) {
	d.busy.Add(1)
	defer d.busy.Add(-1)
	<-d.gate
	return stream.Batch{}, errors.New("nothing")
}

func (d slowDecoder) Session() learned { return nil }
func (d slowDecoder) StateBytes() int  { return 0 }

// What is decoded counts against no bound before it is, so no more batches are
// decoded at once than there are processors, however many connections send.
func TestDecodingIsBounded(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		d := slowDecoder{busy: &atomic.Int64{}, gate: make(chan struct{})}
		w.hub.newDecoder = func(int, learned) decoder { return d }
		n := runtime.GOMAXPROCS(0)
		var all sync.WaitGroup
		for i := range 3 * n {
			s, _, err := w.hub.Connect(context.Background(), Hello{Device: fmt.Sprint("d", i), Version: 1})
			if err != nil {
				t.Fatal(err)
			}
			all.Go(func() { s.Submit(nil, func(Outcome) {}) })
		}
		synctest.Wait()
		if busy := d.busy.Load(); busy != int64(n) {
			t.Errorf("%d at once, want %d", busy, n)
		}
		close(d.gate)
		all.Wait()
		if st := w.hub.Stats(); st.Bad != int64(3*n) {
			t.Errorf("%d answered", st.Bad)
		}
	})
}

// A device may say that it lost as much as it likes: a counter does not turn.
func TestCountersDoNotTurn(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		other := stream.LogID{Name: stream.NewEpoch(), Incarnation: stream.NewEpoch()}
		var held []stream.Held
		for range 3 {
			held = append(held, stream.Held{Epoch: stream.NewEpoch(), Lane: stream.Normal, Head: 1 << 62, Answered: other})
		}
		if _, _, err := w.hub.Connect(context.Background(), Hello{Device: "a", Version: 1, Held: held}); err != nil {
			t.Fatal(err)
		}
		if n := w.hub.Stats().Losses["other_log"]; n != math.MaxInt64 {
			t.Fatalf("%d lost", n)
		}
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
			"head":    {Device: "a", Version: 1, Held: []stream.Held{{Epoch: id, Lane: 1, Head: ^uint64(0)}}},
		} {
			if _, _, err := w.hub.Connect(context.Background(), h); !errors.Is(err, ErrHello) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}
