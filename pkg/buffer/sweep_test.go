package buffer

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/packetboat/packetboat/pkg/stream"
)

// A backlog of many frames that has expired costs a few syncs, not one a frame.
func TestExpiredBacklogIsSyncedAtOnce(t *testing.T) {
	o := testOptions()
	o.MaxBytes = 64 * minSegmentBytes
	b := newExpiring(t, o)
	for i := range 500 {
		b.put(t, stream.Normal, i+1, 10)
	}
	b.put(t, stream.Normal, 501, 1000)
	b.pass(20)
	before := b.Stats().Syncs
	batch, ok := next(t, b.Buffer, stream.Normal, Limit{})
	if !ok || batch.First != 501 || len(batch.Losses) != 1 || batch.Losses[0].Range != (stream.Range{First: 1, Last: 500}) {
		t.Fatalf("%+v", batch)
	}
	if n := b.Stats().Syncs - before; n > 5 {
		t.Fatalf("%d syncs for 500 expired frames", n)
	}
	b.reopen(t)
	if s := b.Stats(); s.Lost[stream.Expired] != 500 {
		t.Fatalf("told, and not on the disk: %+v", s)
	}
}

// While nobody asks for batches, what has expired becomes a loss all the same:
// in the ledger and on the disk, from the segment in use and from older ones,
// also after a reopen.
func TestExpiredIsNoticedWithoutAHub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := newMemDir()
		b := openMem(t, dir, testOptions())
		stop := runUntil(t, b)
		for i := range 20 {
			m := message(i)
			m.Payload, m.Expiry = make([]byte, 4000), 10
			if i%5 == 4 {
				m.Expiry = 60
			}
			put(t, b, stream.Normal, m)
		}
		lost := func(what string, want uint64) {
			t.Helper()
			synctest.Wait()
			s := b.Stats()
			n := uint64(0)
			for _, l := range b.Losses() {
				if l.Reason == stream.Expired {
					n += l.Count()
				}
			}
			if s.Lost[stream.Expired] != want || n != want || s.Queued != 20-want || !s.ConservationOK {
				t.Fatalf("%s: %d in the ledger, %+v", what, n, s)
			}
		}
		time.Sleep(9 * time.Second)
		lost("before", 0)
		time.Sleep(4 * sweepEvery) // two segments, one a sweep
		lost("after", 16)
		disk, err := openOn(cutNow(dir), testOptions())
		if err != nil || disk.Stats().Lost[stream.Expired] != 16 {
			t.Fatalf("on the disk: %+v, %v", disk.Stats(), err)
		}
		stop()
		b = openMem(t, dir, testOptions())
		runUntil(t, b)
		lost("reopened", 16)
		time.Sleep(60 * time.Second)
		lost("the rest", 20)
	})
}

// A sweep is short: one segment, and a pause that grows with the time it took.
func TestSweepIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newExpiring(t, tinyOptions(20))
		for i := range 60 {
			m := message(i)
			m.Payload, m.Expiry = make([]byte, 4000), 10
			if err := b.Append(stream.Normal, []stream.Message{m}, nil); err != nil {
				t.Fatal(err)
			}
			if err := b.commit(true); err != nil {
				t.Fatal(err)
			}
		}
		if len(b.segs.live) < 4 {
			t.Fatalf("%d segments", len(b.segs.live))
		}
		if d := b.sweep(); d != sweepEvery || b.Stats().Expired != 0 {
			t.Fatalf("%v, %d expired", d, b.Stats().Expired)
		}
		b.pass(10)
		reads, took := map[string]bool{}, time.Duration(0)
		b.dir.faultAt = func(_, name string, off int64) error {
			if reads[name] = true; off == pageSize*5 {
				return errInjected // what stands there waits
			}
			took += 100 * time.Millisecond
			time.Sleep(100 * time.Millisecond) // the bubble's clock
			return nil
		}
		if d := b.sweep(); len(reads) != 1 || took < time.Second || d != sweepShare*took {
			t.Fatalf("%v after reading %v in %v", d, reads, took)
		}
		if s := b.Stats(); s.Expired == 0 || s.Lost[stream.Unreadable] != 0 {
			t.Fatalf("%+v", s)
		}
		for i := 0; b.Stats().Expired < 50; i++ { // each segment has a bad page
			if b.sweep(); i > 10 {
				t.Fatalf("%d expired after %d sweeps", b.Stats().Expired, i)
			}
		}
		if d := b.sweep(); d != sweepEvery {
			t.Fatalf("%v with nothing left to do", d)
		}
	})
}

// A page that the disk never reads again costs what stands there; the segment is
// emptied all the same, and the journal does not stay full for it.
func TestBadPageHoldsNoSegment(t *testing.T) {
	for _, seconds := range []uint32{0, 10} {
		t.Run(fmt.Sprint(seconds), func(t *testing.T) {
			b := newExpiring(t, tinyOptions(8))
			put := func(i int) bool {
				m := message(i)
				m.Payload, m.Expiry = make([]byte, 3000), seconds
				ok := b.Append(stream.Normal, []stream.Message{m}, nil) == nil && b.commit(true) == nil
				b.makeRoom()
				return ok
			}
			for i := range 20 {
				put(i)
			}
			bad := b.segs.live[0]
			b.dir.faultAt = func(op, name string, off int64) error {
				if op == "read" && name == segmentName(bad.id) && (off/pageSize == 5 || off/pageSize == 8) {
					return errInjected
				}
				return nil
			}
			generation := bad.generation
			b.pass(5)
			for i := range 400 {
				if !put(i) {
					t.Fatalf("message %d is refused: %+v", i, b.Stats())
				}
			}
			if bad.generation == generation {
				t.Fatalf("the segment is still held: %+v", b.Stats())
			}
			b.pass(10)
			for i := range 400 {
				if !put(i) {
					t.Fatalf("message %d is refused: %+v", i, b.Stats())
				}
			}
		})
	}
}

// A loss is on the disk before it is told, also of an epoch that was handed out
// before, and also where it comes about between reading a batch and its leaving.
func TestExpiredIsSyncedBeforeItIsTold(t *testing.T) {
	b := newExpiring(t, testOptions())
	onDisk := func(batch stream.Batch, want int) {
		t.Helper()
		told := uint64(0)
		for _, l := range batch.Losses {
			told += l.Count()
		}
		if told == 0 || len(batch.Records) != want {
			t.Fatalf("%+v", batch)
		}
		if s := openMem(t, cutNow(b.dir), b.o).Stats(); s.Lost[stream.Expired] < told {
			t.Fatalf("%d told, %d on the disk", told, s.Lost[stream.Expired])
		}
	}
	for i := range 2 { // the second one leaves after the log has answered
		b.put(t, stream.Normal, i+1, 0)
		batch, _ := next(t, b.Buffer, stream.Normal, Limit{})
		if err := b.Settle(batch.ID, settled(&batch)); err != nil {
			t.Fatal(err)
		}
	}
	b.put(t, stream.Normal, 3, 10)
	b.pass(10)
	batch, _ := next(t, b.Buffer, stream.Normal, Limit{})
	onDisk(batch, 0)
	if err := b.Settle(batch.ID, settled(&batch)); err != nil {
		t.Fatal(err)
	}
	b.put(t, stream.Normal, 4, 10)
	flying, _ := next(t, b.Buffer, stream.Normal, Limit{})
	b.put(t, stream.Normal, 5, 0)
	p, _ := b.plan(stream.Normal, Limit{Messages: 10, Bytes: 1000})
	recs, size, err := b.gather(p, stream.Normal, Limit{Messages: 10, Bytes: 1000})
	if err != nil || len(recs) != 1 || recs[0].Seq != 5 {
		t.Fatalf("%+v, %v", recs, err)
	}
	b.Requeue(flying.ID, flying.First)
	b.pass(10)
	b.sweep()
	if batch, ok := b.handOut(p, stream.Normal, recs, size); ok {
		t.Fatalf("told before it is synced: %+v", batch.Losses)
	}
	batch, _ = next(t, b.Buffer, stream.Normal, Limit{})
	onDisk(batch, 1)
}

// What lies behind pages that are never read again is moved like the rest.
func TestMovingPassesBadPages(t *testing.T) {
	b := newExpiring(t, refusing(tinyOptions(8)))
	for i := 0; len(b.segs.live) == 0; i++ {
		if err := stepLarge(b.Buffer, stream.Normal, i); err != nil {
			t.Fatal(err)
		}
	}
	bad := b.segs.live[0]
	b.dir.faultAt = func(op, name string, off int64) error {
		if op == "read" && name == segmentName(bad.id) && (off/pageSize == 5 || off/pageSize == 8) {
			return errInjected
		}
		return nil
	}
	id := stream.ID{Epoch: b.state.current().id, Lane: stream.Normal}
	var done stream.RangeSet // of fourteen, page after page from 2 on, numbers 3 to 7 and 11 stay
	done.Add(stream.Range{First: 1, Last: 2})
	done.Add(stream.Range{First: 8, Last: 10})
	done.Add(stream.Range{First: 12, Last: 14})
	if err := b.Settle(id, Answer{By: testLog, Settled: done}); err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		_ = stepLarge(b.Buffer, stream.Normal, i)
	}
	if s := b.Stats(); slices.Contains(b.segs.live, bad) || s.Lost[stream.Unreadable] != 2 {
		t.Fatalf("still held: %v, %+v", slices.Contains(b.segs.live, bad), s)
	}
	b.dir.faultAt = nil
	out, _ := drainAll(t, b.Buffer)
	for _, n := range []uint64{3, 5, 6, 11} {
		if out[stream.Position{ID: id, Seq: n}] == "" {
			t.Errorf("%d is gone", n)
		}
	}
}
