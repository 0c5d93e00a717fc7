package ingest

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/packetboat/packetboat/pkg/codec"
)

func (w *world) wantExact() CodecStats {
	w.t.Helper()
	synctest.Wait()
	if err := exact(w.hub.Ingest); err != nil {
		w.t.Fatal(err)
	}
	return w.hub.Stats().Codec
}

// wantAnswer wants an outcome and has the edge act on it.
func wantAnswer(t testing.TB, e *simEdge, s *sent, code OutcomeCode) Outcome {
	t.Helper()
	o := wantOutcome(t, s, code)
	e.answer(s, o)
	return o
}

// wantDrops wants so many sessions dropped, for these reasons and no other.
func wantDrops(t testing.TB, s CodecStats, want map[CodecDrop]int64) {
	t.Helper()
	for why := range codecDrops {
		if n := s.Dropped[why.String()]; n != want[why] {
			t.Errorf("%d sessions dropped for %s, want %d", n, why, want[why])
		}
	}
}

func TestResume(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		e, id := w.opened("truck", false, 9)
		wantOutcome(t, e.submit(id, rng(1, 2), none), Settled)
		w.shut()
		pending := e.submit(id, rng(3, 4), none) // decoded, and nobody hears what came of it
		synctest.Wait()
		at := e.codec.plain.at
		lost := e.batch(&e.mem.epochs[0], rng(5, 6), none) // encoded, and never arrives
		if _, err := e.conn.enc.Append(nil, &lost); err != nil {
			t.Fatal(err)
		}
		e.conn.session.Close()
		w.open()
		wantOutcome(t, pending, Settled)
		e.hangUp()
		if s := w.wantExact(); s.Kept != 1 || s.KeptBytes != plainStart+4*plainGrowth || s.Sessions != 0 || s.StateBytes != 0 {
			t.Fatalf("while it is away: %+v", s)
		}
		w.mustConnect(e)
		if g := e.conn.welcome.Codec; g != (CodecGrant{Codec: codec.Learning, State: codec.DefaultState, Resume: true, At: at}) {
			t.Fatalf("granted %+v, stood at %+v", g, at)
		}
		wantOutcome(t, e.submit(id, rng(5, 6), none), Settled)
		s := w.wantExact()
		if s.Kept != 0 || s.KeptBytes != 0 || s.Sessions != 1 || s.StateBytes != plainStart+6*plainGrowth || s.Fresh != 1 || s.Resumed != 1 || s.SelfContained != 0 {
			t.Fatalf("when it is back: %+v", s)
		}
		wantDrops(t, s, nil)
		if d := w.hub.Devices()[0]; !d.Learns || d.CodecGranted != codec.DefaultState || d.CodecBytes != s.StateBytes {
			t.Fatalf("device %+v", d)
		}
	})
}

// What is refused was decoded all the same, so it does not come between the two.
func TestResumeAfterRefusals(t *testing.T) {
	inWorld(t, Options{PendingBytes: 500}, func(w *world) {
		e, id := w.opened("truck", false, 9)
		w.shut()
		first, second := e.submit(id, rng(1, 1), none), e.submit(id, rng(2, 5), none)
		wantOutcome(t, second, Refused)
		w.open()
		wantOutcome(t, first, Settled)
		e.hangUp()
		w.mustConnect(e)
		if g := e.conn.welcome.Codec; !g.Resume || g.At.Bodies != 2 {
			t.Fatalf("granted %+v", g)
		}
		w.drain(e)
		if e.bads != 0 {
			t.Fatalf("%d batches were bad", e.bads)
		}
	})
}

// What was kept and is of no use is let go of, and the device is served.
func TestOffersThatDoNotFit(t *testing.T) {
	learning := CodecGrant{Codec: codec.Learning, State: codec.DefaultState}
	for name, c := range map[string]struct {
		offer CodecOffer
		why   CodecDrop
		want  CodecGrant
	}{
		"beyond":  {CodecOffer{codec.Learning, true, 1, 2}, DropRange, learning},
		"before":  {CodecOffer{codec.Learning, true, 4, 9}, DropRange, learning},
		"none":    {CodecOffer{codec.Learning, false, 0, 0}, DropUnwanted, learning},
		"newer":   {CodecOffer{codec.Learning + 1, false, 3, 3}, DropUnwanted, learning},
		"rows":    {CodecOffer{codec.Rows, true, 3, 3}, DropUnwanted, CodecGrant{}},
		"nothing": {CodecOffer{}, DropUnwanted, CodecGrant{}},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, Options{}, func(w *world) {
				e, id := w.opened("truck", false, 9)
				for n := range uint64(3) {
					wantOutcome(t, e.submit(id, rng(n+1, n+1), none), Settled)
				}
				e.hangUp()
				h := e.hello()
				h.Codec = c.offer
				conn, err := e.dial(w.hub.Ingest, h)
				if err != nil || conn.welcome.Codec != c.want {
					t.Fatalf("granted %+v %v, want %+v", conn.welcome.Codec, err, c.want)
				}
				s := w.wantExact()
				if s.Kept != 0 || s.Resumed != 0 {
					t.Fatalf("%+v", s)
				}
				wantDrops(t, s, map[CodecDrop]int64{c.why: 1})
				if e.adopt(conn); !c.offer.learns() { // an older edge, now and ever
					e.codec = simCodec{}
					conn.enc = e.codec.goOn(CodecGrant{})
				}
				wantOutcome(t, e.submit(id, rng(4, 9), none), Settled)
				if s := w.wantExact(); !c.offer.learns() && (s.Sessions != 0 || s.StateBytes != 0 || s.SelfContained != 0) {
					t.Fatalf("of an edge that does not learn: %+v", s)
				}
			})
		})
	}
}

// Either end of what the edge can go back to is as good as the middle.
func TestOffersThatFit(t *testing.T) {
	for _, x := range [][2]uint64{{3, 3}, {3, 9}, {1, 3}} {
		at := codec.Position{Bodies: 3}
		if why, ok := fitsOffer(at, &CodecOffer{codec.Learning + 7, true, x[0], x[1]}); !ok {
			t.Errorf("%d-%d: %s", x[0], x[1], why)
		}
	}
}

func TestHubLostTheSession(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		e, id := w.opened("truck", false, 4)
		wantOutcome(t, e.submit(id, rng(1, 2), none), Settled)
		w.crash(nil)
		w.mustConnect(e)
		if g := e.conn.welcome.Codec; g.Resume || g.State != codec.DefaultState || e.codec.resumed != 0 {
			t.Fatalf("granted %+v", g)
		}
		wantOutcome(t, e.submit(id, rng(3, 4), none), Settled)
		if s := w.wantExact(); s.Fresh != 1 || s.Resumed != 0 {
			t.Fatalf("%+v", s)
		}
	})
}

// A device that could not be served keeps what it has learned.
func TestBusyKeepsTheSession(t *testing.T) {
	inWorld(t, Options{WindowMessages: 4, MinWindow: 4, PacketBytes: 1000, WindowBytes: 7999}, func(w *world) {
		e, id := w.opened("truck", false, 2)
		wantOutcome(t, e.submit(id, rng(1, 1), none), Settled)
		e.hangUp()
		other, _ := w.opened("ship", false, 1)
		if err := e.connect(w.hub.Ingest); err == nil {
			t.Fatal("let in")
		}
		if s := w.wantExact(); s.Kept != 1 {
			t.Fatalf("%+v", s)
		}
		other.hangUp()
		w.mustConnect(e)
		if !e.conn.welcome.Codec.Resume {
			t.Fatal("what was learned is gone")
		}
	})
}

// away has devices learn, one record each, and go away, a second apart.
func (w *world) away(n int) (edges []*simEdge) {
	w.t.Helper()
	for i := range n {
		e, id := w.opened(fmt.Sprint("d", i), false, 3)
		e.submit(id, rng(1, 1), none)
		pump(e)
		e.hangUp()
		edges = append(edges, e)
		time.Sleep(time.Second)
	}
	return edges
}

// resumes reports whether what a device has learned is kept, by coming back.
func (w *world) resumes(e *simEdge) bool {
	w.t.Helper()
	w.mustConnect(e)
	return e.conn.welcome.Codec.Resume
}

// Each session is kept for as long as it should, to the moment, also when nobody
// connects.
func TestKeptForATime(t *testing.T) {
	inWorld(t, Options{CodecKeep: time.Hour}, func(w *world) {
		edges := w.away(3)
		time.Sleep(time.Hour - 3*time.Second - 1) // a nanosecond before the first one's time
		if s := w.wantExact(); s.Kept != 3 || s.Dropped["expired"] != 0 {
			t.Fatalf("%+v", s)
		}
		time.Sleep(time.Nanosecond)
		if s := w.wantExact(); s.Kept != 2 || s.Dropped["expired"] != 1 || s.KeptBytes != 2*(plainStart+plainGrowth) {
			t.Fatalf("%+v", s)
		}
		time.Sleep(time.Second - 1)
		if w.resumes(edges[0]) || !w.resumes(edges[1]) {
			t.Fatal("the wrong one is kept")
		}
		edges[1].hangUp() // from now on it is away again
		time.Sleep(time.Hour - 1)
		if s := w.wantExact(); s.Kept != 1 || s.Dropped["expired"] != 2 {
			t.Fatalf("%+v", s)
		}
		time.Sleep(time.Nanosecond)
		if s := w.wantExact(); s.Kept != 0 || s.KeptBytes != 0 || s.Dropped["expired"] != 3 {
			t.Fatalf("%+v", s)
		}
	})
}

func TestKeptForANumber(t *testing.T) {
	inWorld(t, Options{CodecKept: 2}, func(w *world) {
		edges := w.away(3)
		s := w.wantExact()
		if s.Kept != 2 {
			t.Fatalf("%+v", s)
		}
		wantDrops(t, s, map[CodecDrop]int64{DropNumber: 1})
		if w.resumes(edges[0]) || !w.resumes(edges[1]) || !w.resumes(edges[2]) {
			t.Fatal("the wrong ones are kept")
		}
	})
}

func TestNothingIsKept(t *testing.T) {
	for name, o := range map[string]Options{"keep": {CodecKeep: -1}, "kept": {CodecKept: -1}} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, o, func(w *world) {
				e := w.away(1)[0]
				if s := w.wantExact(); s.Kept != 0 || w.resumes(e) {
					t.Fatalf("%+v", s)
				}
			})
		})
	}
}

// A hub that keeps no state serves those who could learn with batches that stand
// for themselves.
func TestNobodyLearns(t *testing.T) {
	inWorld(t, Options{CodecState: -1}, func(w *world) {
		e, id := w.opened("truck", false, 4)
		if g := e.conn.welcome.Codec; g != (CodecGrant{Codec: codec.Learning}) {
			t.Fatalf("granted %+v", g)
		}
		wantOutcome(t, e.submit(id, rng(1, 2), none), Settled)
		wantOutcome(t, e.submit(id, rng(3, 4), none), Settled)
		e.hangUp()
		if s := w.wantExact(); s.SelfContained != 2 || s.Kept != 0 || s.Fresh != 0 {
			t.Fatalf("%+v", s)
		}
	})
}

// What is kept makes room for what is in use, what is away longest first; then
// the session that grows goes. Its batch is taken, and the next is told so.
func TestRoom(t *testing.T) {
	const each = plainStart + plainGrowth
	inWorld(t, Options{CodecState: codec.MinState, CodecTotal: codec.MinState + 2*each}, func(w *world) {
		edges := w.away(3)
		a, ida := w.opened("a", false, 40)
		b, idb := w.opened("b", false, 9)
		wantOutcome(t, a.submit(ida, rng(1, 18), none), Settled) // 3 x 67 KiB are kept, this takes 186, all may 390
		if s := w.wantExact(); s.Kept != 3 || s.StateBytes != plainStart+18*plainGrowth {
			t.Fatalf("%+v", s)
		}
		wantAnswer(t, b, b.submit(idb, rng(1, 1), none), Settled)
		if s := w.wantExact(); s.Kept != 2 || s.Dropped["kept_bytes"] != 1 || w.resumes(edges[0]) || !w.resumes(edges[1]) {
			t.Fatalf("%+v", s)
		}
		wantOutcome(t, a.submit(ida, rng(19, 22), none), Settled)
		s := w.wantExact()
		wantDrops(t, s, map[CodecDrop]int64{DropKeptBytes: 2})
		wantAnswer(t, b, b.submit(idb, rng(2, 8), none), Settled)
		s = w.wantExact()
		wantDrops(t, s, map[CodecDrop]int64{DropKeptBytes: 2, DropNoRoom: 1})
		if s.Sessions != 2 || s.Kept != 0 || s.StateBytes != plainStart+22*plainGrowth+each {
			t.Fatalf("%+v", s)
		}
		one, two := b.submit(idb, rng(9, 9), none), b.submit(idb, rng(9, 9), none)
		for _, x := range []*sent{one, two} {
			if o := wantAnswer(t, b, x, Bad); o.Codec != (CodecGrant{Codec: codec.Learning}) {
				t.Fatalf("told %+v", o.Codec)
			}
		}
		wantAnswer(t, b, b.submit(idb, rng(9, 9), none), Settled)
		if s = w.wantExact(); s.SelfContained != 1 || b.bads != 0 {
			t.Fatalf("%+v", s)
		}
		// It is granted again when there is room, and not before.
		if w.mustConnect(b); b.conn.welcome.Codec.State != 0 {
			t.Fatalf("granted %+v", b.conn.welcome.Codec)
		}
		a.hangUp() // what it has learned is kept, and may go
		if w.mustConnect(b); b.conn.welcome.Codec.State != codec.MinState {
			t.Fatalf("granted %+v", b.conn.welcome.Codec)
		}
	})
}

// New sessions are granted less before they are granted nothing.
func TestGrantsShrink(t *testing.T) {
	const state = 1 << 20
	k := &keeper{}
	k.init(codecLimits{state: state, total: 200 * state, keep: time.Hour, kept: 1})
	for _, x := range []struct{ used, want int64 }{
		{0, state}, {136 * state, state}, {136*state + 64, state - 1}, {168 * state, state / 2}, {184 * state, state / 4}, {200*state - codec.MinState, codec.MinState}, {200*state - codec.MinState + 1, 0}, {200 * state, 0},
	} {
		if k.stats.StateBytes = x.used; int64(k.grantLocked()) != x.want {
			t.Errorf("with %d used %d are granted, want %d", x.used, k.grantLocked(), x.want)
		}
	}
}

// Whatever a fleet does, what is counted is what there is, and within the total.
func TestManyDevicesInATotal(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	inWorld(t, Options{CodecState: codec.MinState, CodecTotal: 4 * codec.MinState, CodecKept: 2, CodecKeep: 4 * time.Second}, func(w *world) {
		var edges []*simEdge
		for i := range 24 {
			e := newSimEdge(fmt.Sprint("d", i), i%2 == 0)
			e.codec.learns = i%8 != 7
			edges = append(edges, e)
		}
		for range 4000 {
			switch e := edges[r.IntN(len(edges))]; r.IntN(8) {
			case 0:
				w.mustConnect(e)
			case 1:
				e.hangUp()
			case 2:
				time.Sleep(time.Duration(r.IntN(3000)) * time.Millisecond)
			default:
				if e.conn == nil {
					w.mustConnect(e)
				}
				fill(e, e.device, 1+r.IntN(4))
				e.send(len(e.mem.epochs)-1, false, 1, 4)
				pump(e)
			}
			w.wantExact()
		}
		s := w.wantExact()
		t.Logf("%+v", s)
		for _, why := range []CodecDrop{DropExpired, DropKeptBytes, DropNoRoom} {
			if s.Dropped[why.String()] == 0 {
				t.Errorf("none was dropped for %s", why)
			}
		}
		if s.Resumed == 0 || s.Fresh == 0 || s.SelfContained == 0 {
			t.Errorf("%+v", s)
		}
		for _, e := range edges {
			if w.drain(e); e.bads > 0 {
				t.Errorf("%d batches of %s were bad", e.bads, e.device)
			}
		}
	})
}
