package buffer

import (
	"math/rand/v2"
	"testing"

	"github.com/packetboat/packetboat/pkg/stream"
)

// A message that is given up leaves as a loss, also after a crash that follows
// the commit, and what is around it stays.
func TestLose(t *testing.T) {
	dir := newMemDir()
	b := openMem(t, dir, testOptions())
	at := appendCommit(t, b, stream.Normal, 1)[0]
	for i := range 4 {
		appendCommit(t, b, stream.Normal, i+2)
	}
	batch, ok := next(t, b, stream.Normal, Limit{Messages: 3})
	if !ok || batch.Last() != 3 {
		t.Fatalf("%+v", batch)
	}
	for range 2 { // twice is as once
		if err := b.Lose(at.ID, stream.Range{First: 2, Last: 2}, stream.Quarantined); err != nil {
			t.Fatal(err)
		}
	}
	if s := b.Stats(); s.Lost[stream.Quarantined] != 1 || s.InFlight != 2 || s.Queued != 2 || !s.ConservationOK {
		t.Fatalf("%+v", s)
	}
	b.RequeueAll()
	check := func(b *Buffer) {
		t.Helper()
		batch, ok := next(t, b, stream.Normal, Limit{})
		if !ok || batch.First != 1 || len(batch.Records) != 1 {
			t.Fatalf("%+v", batch)
		}
		batch, ok = next(t, b, stream.Normal, Limit{})
		if !ok || batch.First != 3 || len(batch.Records) != 3 || len(batch.Losses) != 1 || batch.Losses[0].Range != (stream.Range{First: 2, Last: 2}) || batch.Losses[0].Reason != stream.Quarantined {
			t.Fatalf("%+v", batch)
		}
	}
	check(b)
	if err := b.commit(true); err != nil {
		t.Fatal(err)
	}
	check(openMem(t, dir.crash(rand.New(rand.NewPCG(1, 2))), testOptions()))

	for _, bad := range []error{
		b.Lose(at.ID, stream.Range{First: 1, Last: 1}, 0),
		b.Lose(stream.ID{Epoch: at.ID.Epoch}, stream.Range{First: 1, Last: 1}, stream.Evicted),
	} {
		if bad == nil {
			t.Error("taken without a reason or a lane")
		}
	}
	for _, id := range []stream.ID{{Epoch: stream.Epoch{1}, Lane: stream.Bulk}, {Epoch: at.ID.Epoch, Lane: stream.Bulk}} {
		if err := b.Lose(id, stream.Range{First: 1, Last: 9}, stream.Evicted); err != nil {
			t.Error(err)
		}
	}
	if s := b.Stats(); s.Lost[stream.Evicted] != 0 || !s.ConservationOK {
		t.Fatalf("%+v", s)
	}
}
