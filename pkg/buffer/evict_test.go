package buffer

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/packetboat/packetboat/pkg/stream"
)

// evicted is a journal of which bulk and normal were given up: five messages of
// bulk are in flight, urgent has refused.
func evicted(t *testing.T) *Buffer {
	o := testOptions()
	o.Lanes = map[stream.Lane]LaneOptions{stream.Urgent: {RefuseNew}}
	b := openMem(t, newMemDir(), o)
	for i := range 30 {
		for _, lane := range stream.Lanes {
			if err := stepLarge(b, lane, i); err != nil {
				t.Fatal(err)
			}
		}
	}
	if flying, ok := next(t, b, stream.Bulk, Limit{Messages: 5}); !ok || flying.First != 1 {
		t.Fatalf("%+v", flying)
	}
	sawBulkFirst := false
	for i := range 400 {
		if err := stepLarge(b, stream.Urgent, i); err != nil {
			if !errors.Is(err, ErrFull) {
				t.Fatal(err)
			}
			break
		}
		byLane := lostByLane(b)
		if byLane[stream.Bulk] > 0 && byLane[stream.Normal] == 0 {
			sawBulkFirst = true
		}
		if byLane[stream.Normal] > 0 && byLane[stream.Bulk] != 25 {
			t.Fatalf("normal is evicted while bulk remains: %v", byLane)
		}
	}
	if !sawBulkFirst {
		t.Fatalf("bulk did not go first: %v", lostByLane(b))
	}
	return b
}

// stepLarge appends and commits, as Run does.
func stepLarge(b *Buffer, lane stream.Lane, i int) error {
	err := appendLarge(b, lane, i)
	if err == nil {
		err = b.commit(true)
	}
	b.makeRoom()
	return err
}

// At the limit bulk goes first, then normal; urgent refuses and loses nothing;
// what is in flight stays.
func TestEviction(t *testing.T) {
	b := evicted(t)
	byLane := lostByLane(b)
	s := b.Stats()
	if byLane[stream.Bulk] != 25 || byLane[stream.Normal] != 30 || byLane[stream.Urgent] != 0 || !s.Full || !s.ConservationOK || s.InFlight != 5 {
		t.Fatalf("%v %+v", byLane, s)
	}
	if s.DiskBytes > s.DiskLimit {
		t.Fatalf("%d bytes of %d", s.DiskBytes, s.DiskLimit)
	}
	for _, l := range b.Losses() {
		if l.Reason != stream.Evicted || l.From == 0 || l.To < l.From || l.Declared {
			t.Fatalf("%+v", l)
		}
	}
}

// A full journal takes messages again once what it held is settled.
func TestRoomAfterFull(t *testing.T) {
	b := evicted(t)
	for {
		batch, ok := next(t, b, stream.Urgent, Limit{})
		if !ok {
			break
		}
		if err := b.Settle(batch.ID, settled(&batch)); err != nil {
			t.Fatal(err)
		}
	}
	if !b.makeRoom() {
		t.Fatal("no room after everything was settled")
	}
	if err := stepLarge(b, stream.Urgent, 1); err != nil {
		t.Fatal(err)
	}
}

// A lane that has filled the journal over many epochs and much moving, so that
// old and new numbers stand in the same segments, gives up its oldest: a step
// never costs most of what is kept.
func TestEvictionTakesTheOldest(t *testing.T) {
	o := Options{Dir: "mem", SegmentBytes: 2 * minSegmentBytes, MaxBytes: 16 * minSegmentBytes}
	b := openMem(t, newMemDir(), o)
	rng := rand.New(rand.NewPCG(3, 4))
	queued, evictions := int64(0), 0
	for i := range 3200 {
		for range 20 {
			m := message(i)
			m.Payload = make([]byte, 80)
			lane := stream.Normal
			if rng.IntN(100) < 15 {
				lane = stream.Urgent
			}
			if err := b.Append(lane, []stream.Message{m}, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.commit(true); err != nil {
			t.Fatal(err)
		}
		b.makeRoom()
		if i%400 == 399 {
			b = openMem(t, b.fs.(*memDir).image(), o)
		}
		now := b.Stats().Lanes[stream.Urgent].Messages
		if now < queued {
			evictions++
		}
		if now < queued/2 {
			t.Fatalf("step %d: of %d urgent messages %d are left", i, queued, now)
		}
		queued = now
	}
	if s := b.Stats(); evictions == 0 || !s.ConservationOK {
		t.Fatalf("%d evictions, %+v", evictions, s)
	}
}

func lostByLane(b *Buffer) (n [4]uint64) {
	for _, l := range b.Losses() {
		n[l.Lane] += l.Count()
	}
	return n
}
