package ingest

import (
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

// A batch from before the refused one that is refused too becomes the one that
// the lane waits for.
func TestFifoRefusedBefore(t *testing.T) {
	inWorld(t, Options{PendingBytes: 450}, func(w *world) {
		o, oid := w.opened("b", false, 9)
		e, id := w.opened("a", true, 9)
		w.shut()
		full := o.submit(oid, rng(1, 2), none)
		wantOutcome(t, e.submit(id, rng(5, 6), none), Refused)
		wantOutcome(t, e.submit(id, rng(1, 2), none), Refused)
		w.open()
		wantOutcome(t, full, Settled)
		wantOutcome(t, e.submit(id, rng(3, 4), none), Refused)
		wantOutcome(t, e.submit(id, rng(1, 2), none), Settled)
		wantOutcome(t, e.submit(id, rng(3, 4), none), Settled)
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

// The losses of a batch of unknown outcome count as much as its records: what
// coverage does not show is refused.
func TestUnknownOutcomeOfLosses(t *testing.T) {
	for outcome, want := range map[logtest.Outcome]OutcomeCode{logtest.UnknownIn: Settled, logtest.UnknownOut: Refused} {
		inWorld(t, Options{}, func(w *world) {
			e, id := w.opened("a", false, 4)
			wantOutcome(t, e.submit(id, rng(3, 3), none), Settled)
			w.shut()
			s := e.submit(id, none, rng(1, 2))
			w.let(outcome)
			time.Sleep(time.Second)
			wantOutcome(t, s, want)
			if n := w.lane(e, 0).Lost.Count(); (n == 2) != (want == Settled) {
				t.Fatalf("%d lost in the log, the batch is %v", n, want)
			}
		})
	}
}

// What was queued under one ownership never goes into the log under another,
// also when the same hub acquires again.
func TestOwnershipsDoNotMix(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		e, id := w.opened("a", false, 4)
		old := e.conn.session.own
		w.mem.Reopen()
		wantOutcome(t, e.submit(id, rng(1, 1), none), Refused)
		time.Sleep(time.Second)
		sh := w.hub.shards[0]
		if sh.ownership() == nil || sh.ownership() == old {
			t.Fatal("the shard is not acquired again")
		}
		b := e.batch(&e.mem.epochs[0], rng(1, 1), none)
		it, err := batchItem(e.conn.session, &b, 1, 0, func(Outcome) { t.Error("answered") })
		if err != nil {
			t.Fatal(err)
		}
		if sh.push(old, it) {
			t.Fatal("a batch of the old ownership is queued")
		}
	})
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
