package ingest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/packetboat/packetboat/pkg/commitlog/logtest"
	"github.com/packetboat/packetboat/pkg/stream"
)

// wait sleeps, in fake time, as long as a busy hub asks for.
func wait(err error) {
	var busy *BusyError
	if errors.As(err, &busy) {
		time.Sleep(busy.RetryAfter)
	}
}

func (w *world) want(names ...string) {
	w.t.Helper()
	if got := w.contents(); !slices.Equal(got, names) {
		w.t.Fatalf("the log holds %q, want %q", got, names)
	}
}

func (w *world) wantSet(names ...string) {
	w.t.Helper()
	got := w.contents()
	slices.Sort(got)
	slices.Sort(names)
	if !slices.Equal(got, names) {
		w.t.Fatalf("the log holds %q, want %q", got, names)
	}
}

func wantOutcome(t testing.TB, s *sent, code OutcomeCode) Outcome {
	t.Helper()
	synctest.Wait()
	select {
	case o := <-s.out:
		if o.Code != code {
			t.Fatalf("outcome %v, want %v", o.Code, code)
		}
		return o
	default:
		t.Fatalf("no outcome, want %v", code)
		return Outcome{}
	}
}

func wantNone(t testing.TB, s *sent) {
	t.Helper()
	synctest.Wait()
	if len(s.out) != 0 {
		t.Fatalf("answered %v, want nothing yet", (<-s.out).Code)
	}
}

func TestLostAcknowledgement(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		e := newSimEdge("truck", false)
		fill(e, "m", 3)
		w.mustConnect(e)
		s := e.submit(e.mem.epochs[0].id, rng(1, 3), stream.RangeSet{})
		wantOutcome(t, s, Settled)
		e.hangUp() // the edge never heard of it
		fill(e, "n", 1)
		w.mustConnect(e)
		if open := e.mem.epochs[0].open(); open.String() != "4" {
			t.Fatalf("after the welcome the edge still holds %s", open.String())
		}
		// Even an edge that does not listen changes nothing.
		s = e.submit(e.mem.epochs[0].id, rng(2, 4), stream.RangeSet{})
		wantOutcome(t, s, Settled)
		w.want("m1", "m2", "m3", "n1")
		if st := w.hub.Stats(); st.Duplicates != 2 || st.Records != 4 || st.Batches != 2 {
			t.Fatalf("stats %+v", st)
		}
	})
}

func TestRestoredImage(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		e := newSimEdge("truck", false)
		fill(e, "m", 5)
		w.mustConnect(e)
		e.send(0, false, 1, 3)
		pump(e)
		e.flush()
		image := e.image()
		fill(e, "gone", 2) // only on the disk that vanishes
		w.drain(e)
		fill(e, "never", 1)
		e.hangUp()
		fill(image, "new", 2)
		w.drain(image)
		w.wantSet("m1", "m2", "m3", "m4", "m5", "gone1", "gone2", "new1", "new2")
	})
}

func TestClonedDiskAlternates(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		a := newSimEdge("truck", false)
		fill(a, "m", 4)
		w.mustConnect(a)
		a.send(0, false, 1, 2)
		pump(a)
		a.flush()
		b := a.image()
		want := []string{"m1", "m2", "m3", "m4"}
		for i := range 4 {
			for _, e := range []*simEdge{a, b} {
				name := string(rune('a'+i)) + map[bool]string{true: "-first", false: "-second"}[e == a]
				e.append(name)
				want = append(want, name)
				w.mustConnect(e) // the other one's connection is revoked
				for i := range e.mem.epochs {
					e.send(i, false, 1, 1+i)
				}
				pump(e)
			}
			if r := a.conn.reason(); r != RevokedTakeover.String() {
				t.Fatalf("the first connection was revoked for %q", r)
			}
		}
		w.drain(a)
		w.drain(b)
		w.wantSet(want...)
		if st := w.hub.Stats(); st.Takeovers < 8 {
			t.Fatalf("%d takeovers", st.Takeovers)
		}
	})
}

func TestSecondConnectionWithBatchesPending(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		e := newSimEdge("truck", false)
		fill(e, "m", 4)
		w.mustConnect(e)
		w.shut()
		first := e.conn
		s := e.submit(e.mem.epochs[0].id, rng(1, 3), stream.RangeSet{})
		synctest.Wait()
		second := make(chan *simConn, 1)
		go func() {
			c, err := e.dial(w.hub.Ingest, e.hello())
			if err != nil {
				t.Error(err)
			}
			second <- c
		}()
		synctest.Wait()
		if first.reason() != RevokedTakeover.String() {
			t.Fatal("the first connection lives on")
		}
		if len(second) != 0 {
			t.Fatal("the second is served while batches of the first are pending")
		}
		late := e.submit(e.mem.epochs[0].id, rng(4, 4), stream.RangeSet{})
		wantOutcome(t, late, Refused)
		w.let(logtest.Commit)
		wantOutcome(t, s, Settled)
		c := <-second
		if got := c.welcome.Coverage[0].Lanes[0].Settled; got.String() != "1-3" {
			t.Fatalf("the welcome says %s", got.String())
		}
		w.open()
		e.adopt(c)
		w.drain(e)
		w.want("m1", "m2", "m3", "m4")
	})
}

func TestTakeoverIsBounded(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		e := newSimEdge("truck", false)
		fill(e, "m", 2)
		w.mustConnect(e)
		w.shut()
		s := e.submit(e.mem.epochs[0].id, rng(1, 2), stream.RangeSet{})
		began := time.Now()
		_, err := e.dial(w.hub.Ingest, e.hello())
		var busy *BusyError
		if !errors.As(err, &busy) || busy.Reason != BusyTakeover || busy.RetryAfter <= 0 || busy.RetryAfter > MaxRetryAfter {
			t.Fatalf("connect: %v", err)
		}
		if d := time.Since(began); d != 5*time.Second {
			t.Fatalf("waited %s", d)
		}
		w.let(logtest.Commit)
		wantOutcome(t, s, Settled)
		w.open()
		e.hangUp()
		w.drain(e)
		w.want("m1", "m2")
	})
}

func TestWipedLog(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		e := newSimEdge("truck", false)
		fill(e, "m", 6)
		w.mustConnect(e)
		e.send(0, false, 1, 2)
		pump(e)
		e.send(0, false, 5, 1)
		pump(e)
		e.flush()
		w.crash(w.mem.Wipe)
		e.hangUp()
		w.mustConnect(e)
		if l := w.lane(e, 0); l.Lost.String() != "1-2,5" || l.LostBy[stream.OtherLog] != 3 {
			t.Fatalf("lost %s %v", l.Lost.String(), l.LostBy)
		}
		w.drain(e)
		w.want("m3", "m4", "m6")
		if l := w.lane(e, 0); !l.Complete() {
			t.Fatalf("%s is out there for ever", l.In.String())
		}
		if len(e.mem.ledger) != 0 {
			t.Fatalf("the edge calls lost: %v", e.mem.ledger)
		}
	})
}

func TestRestoredLog(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		e := newSimEdge("truck", false)
		fill(e, "m", 3)
		w.mustConnect(e)
		e.send(0, false, 1, 2)
		pump(e)
		backup := w.mem.Backup()
		w.drain(e) // m3: settled, then cut off
		first := e.mem.epochs[0].id
		e.reopen()
		fill(e, "n", 3)
		w.mustConnect(e)
		e.send(len(e.mem.epochs)-1, false, 1, 2)
		pump(e)
		e.flush()
		w.crash(func() { w.mem.Restore(backup) })
		e.hangUp()
		w.mustConnect(e)
		// n1 and n2 are not held; m3 is of an epoch that is not named any more.
		if l := w.lane(e, 0); l.Lost.String() != "1-2" || l.LostBy[stream.LogRestored] != 2 {
			t.Fatalf("of the epoch in use %s are lost, %v", l.Lost.String(), l.LostBy)
		}
		if l := w.coverage("truck").Lane(stream.ID{Epoch: first, Lane: e.lane}); l.Lost.String() != "3" {
			t.Fatalf("of the old epoch %s are lost", l.Lost.String())
		}
		w.drain(e)
		w.want("m1", "m2", "n3")
	})
}

func TestLogWentBackUnnoticed(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		e, other := newSimEdge("truck", false), newSimEdge("ship", false)
		fill(e, "m", 4)
		fill(other, "s", 2)
		backup := w.mem.Backup()
		w.mustConnect(other)
		w.mustConnect(e)
		e.send(0, false, 1, 2)
		pump(e)
		e.flush()
		w.log.quiet()
		w.crash(func() { w.mem.Restore(backup) })
		before := w.log.ID()
		other.hangUp()
		w.mustConnect(other)
		e.hangUp()
		err := e.connect(w.hub.Ingest)
		var busy *BusyError
		if !errors.As(err, &busy) || busy.Reason != BusyRestored {
			t.Fatalf("connect: %v", err)
		}
		if w.log.ID() == before || w.log.ID().Name != before.Name {
			t.Fatalf("log id %v, was %v", w.log.ID(), before)
		}
		synctest.Wait()
		if r := other.conn.reason(); r != RevokedRestored.String() {
			t.Fatalf("the other session: %q", r)
		}
		wait(err)
		w.drain(e)
		w.drain(other)
		w.wantSet("m3", "m4", "s1", "s2")
		if l := w.lane(e, 0); l.LostBy[stream.LogRestored] != 2 || len(e.mem.stale) != 0 {
			t.Fatalf("lost %v, stale %v", l.LostBy, e.mem.stale)
		}
		// The word of a device does that once in a while only; then it is
		// served all the same, and nothing that it holds is stale.
		fill(e, "n", 2)
		e.mem.epochs[0].answered = w.log.ID()
		e.mem.epochs[0].id = stream.NewEpoch()
		fill(e, "n", 1)
		id := w.log.ID()
		e.hangUp()
		w.mustConnect(e)
		if w.log.ID() != id || len(e.mem.stale) != 0 || len(e.conn.welcome.Coverage) != 1 {
			t.Fatalf("log id %v, welcome %+v, stale %v", w.log.ID(), e.conn.welcome, e.mem.stale)
		}
		if st := w.hub.Stats(); st.WentBack != 2 || st.Incarnations != 1 {
			t.Fatalf("stats %+v", st)
		}
	})
}

// The second half of TestLogWentBackUnnoticed changes the edge's memory by hand:
// see that the first half alone leaves no gap.
func TestNothingIsDeclaredWhereNoLogAnswered(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		held := []stream.Held{{Epoch: stream.NewEpoch(), Lane: stream.Normal, Ranges: rng(3, 4), Head: 4, Current: true}}
		s, _, err := w.hub.Connect(context.Background(), Hello{Device: "truck", Version: 1, Held: held})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if n := w.mem.Groups(0); n != 0 {
			t.Fatalf("%d groups were appended", n)
		}
	})
}

func TestStaleEpoch(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		e := newSimEdge("truck", false)
		fill(e, "old", 2)
		w.mustConnect(e)
		e.send(0, false, 1, 2)
		synctest.Wait() // settled, but a copy of the disk does not know
		image := e.image()
		image.mem.epochs[0].answered = w.log.ID()
		image.flush()
		pump(e)
		for len(w.coverage("truck").Epochs) < 1000 || w.coverage("truck").Forgotten < 2 {
			e.reopen()
			e.append("x")
			w.mustConnect(e)
			e.send(len(e.mem.epochs)-1, false, 1, 1)
			pump(e)
			e.flush()
		}
		barriers := w.log.barriers
		w.mustConnect(image)
		if len(image.mem.stale) != 2 || w.log.barriers != barriers+1 {
			t.Fatalf("stale %v, %d barriers", image.mem.stale, w.log.barriers-barriers)
		}
		if n := strings.Count(strings.Join(w.contents(), " "), "old"); n != 2 {
			t.Fatalf("%d old records in the log", n)
		}
		// A hub that has lost the shard calls nothing stale.
		image = e.image()
		image.mem.epochs = append([]simEpoch{{id: stream.NewEpoch(), content: []string{"a"}, answered: w.log.ID()}}, image.mem.epochs...)
		w.mem.Reopen()
		err := image.connect(w.hub.Ingest)
		var busy *BusyError
		if !errors.As(err, &busy) || busy.Reason != BusyCommit {
			t.Fatalf("connect: %v", err)
		}
	})
}

func TestHeadsAndAbsent(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		e := newSimEdge("truck", false)
		fill(e, "m", 5)
		w.mustConnect(e)
		e.send(0, false, 1, 2)
		pump(e)
		e.flush()
		image := e.image()
		fill(e, "n", 4)
		e.hangUp()
		w.mustConnect(e) // tells of head 9
		if l := w.lane(e, 0); l.Head != 9 || l.In.String() != "1-2" {
			t.Fatalf("head %d, in %s", l.Head, l.In.String())
		}
		groups := w.mem.Groups(0)
		w.mustConnect(e)
		if w.mem.Groups(0) != groups {
			t.Fatal("a head that is known was appended again")
		}
		e.hangUp() // and its disk vanishes
		w.mustConnect(image)
		st := w.hub.Devices()
		if len(st) != 1 || st[0].Out != 7 || st[0].Absent != 4 || !st[0].Connected {
			t.Fatalf("status %+v", st)
		}
		w.drain(image)
		st = w.hub.Devices()
		if st[0].Out != 4 || st[0].Absent != 4 || st[0].CompleteTo != 5 {
			t.Fatalf("status %+v", st)
		}
	})
}

// An epoch that the log knows and has nothing of is named all the same: an edge
// that was answered for it would take it for stale.
func TestKnownEpochIsNamed(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		e, id := w.opened("truck", false, 3)
		wantOutcome(t, e.submit(id, none, none), Settled) // a heartbeat
		conn, err := e.dial(w.hub.Ingest, e.hello())
		if err != nil {
			t.Fatal(err)
		}
		c := conn.welcome.Coverage
		if len(c) != 1 || c[0].Epoch != id || len(c[0].Lanes) != 0 {
			t.Fatalf("coverage %+v", c)
		}
		e.adopt(conn)
		if len(e.mem.stale) != 0 {
			t.Fatal("the edge gave the epoch up")
		}
	})
}

func TestAnEpochThatBeginsLaterIsInUse(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		e := newSimEdge("truck", false)
		fill(e, "m", 1)
		w.mustConnect(e)
		e.send(0, false, 1, 1)
		pump(e)
		next := simEpoch{id: stream.NewEpoch(), content: []string{"n"}}
		e.mem.epochs = append(e.mem.epochs, next)
		e.submit(next.id, rng(1, 1), stream.RangeSet{})
		synctest.Wait()
		if c := w.coverage("truck"); c.Current != next.id || !c.Epochs[0].Closed || c.Epochs[1].Closed {
			t.Fatalf("current %v", c.Current)
		}
	})
}
