package buffer

import (
	"testing"

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
