package buffer

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/packetboat/packetboat/pkg/stream"
)

func cutNow(dir *memDir) *memDir { return dir.crash(rand.New(rand.NewPCG(1, 2))) }

// A frame of this generation that has another salt is stale: a disk that was
// copied and went on twice has used its generations twice.
func TestSaltTellsStaleFrames(t *testing.T) {
	dir := newMemDir()
	b := openMem(t, dir, testOptions())
	appendCommit(t, b, stream.Normal, 1)
	stale := *b.segs.head
	stale.salt++
	c := &chunk{}
	c.reset()
	m := message(2)
	c.base = m.Time
	c.add(stream.Normal, &m, nil)
	c.numbered, c.records, c.epoch = true, len(c.buf), b.state.current().id
	c.lanes[stream.Normal].first = 2
	p := b.appendTrailer(c.buf, c.groups())
	p = sealFrame(p, &stale, frameInfo{kind: kindData, index: b.headIndex, records: c.records - frameHeader, base: c.base})
	if _, err := b.segs.head.file.WriteAt(p, b.headAt); err != nil {
		t.Fatal(err)
	}
	if s := openMem(t, dir.image(), testOptions()).Stats(); s.Accepted != 1 {
		t.Fatalf("%d accepted", s.Accepted)
	}
}

// What is in flight was read already: damage found later does not take it away.
func TestDamageSparesWhatIsInFlight(t *testing.T) {
	b := openMem(t, newMemDir(), testOptions())
	for i := range 4 {
		appendCommit(t, b, stream.Normal, i)
	}
	flying, _ := next(t, b, stream.Normal, Limit{Messages: 2})
	seg := b.segs.head
	if _, err := seg.file.WriteAt(make([]byte, seg.end-pageSize), pageSize); err != nil {
		t.Fatal(err)
	}
	b.cursors = [4]cursor{}
	if batch, ok := next(t, b, stream.Normal, Limit{}); !ok || len(batch.Records) > 0 || len(batch.Losses) != 1 || batch.Losses[0].Range != (stream.Range{First: 3, Last: 4}) {
		t.Fatalf("%+v", batch)
	}
	if s := b.Stats(); s.InFlight != 2 || s.Lost[stream.Unreadable] != 2 {
		t.Fatalf("%+v", s)
	}
	if err := b.Settle(flying.ID, settled(&flying)); err != nil {
		t.Fatal(err)
	}
	if s := b.Stats(); s.Settled != 2 || s.Lost[stream.Unreadable] != 2 || !s.ConservationOK {
		t.Fatalf("%+v", s)
	}
}

// Evicted, given up: both are on the disk before the room is used again.
func TestLossesSurviveACut(t *testing.T) {
	dir := newMemDir()
	b := openMem(t, dir, testOptions())
	for i := 0; len(b.Losses()) == 0; i++ {
		if err := appendLarge(b, stream.Bulk, i); err != nil {
			t.Fatal(err)
		}
		if err := b.commit(true); err != nil {
			t.Fatal(err)
		}
		b.makeRoom()
	}
	want := b.Losses()
	b = openMem(t, cutNow(dir), testOptions())
	if got := b.Losses(); !slices.Equal(got, want) {
		t.Fatalf("%+v, want %+v", got, want)
	}
	dir = b.fs.(*memDir)
	given := b.Held()[0].Epoch
	if err := b.GiveUp(given, stream.Stale); err != nil {
		t.Fatal(err)
	}
	for _, h := range openMem(t, cutNow(dir), testOptions()).Held() {
		if h.Epoch == given {
			t.Fatalf("%+v is back", h)
		}
	}
}

// The newest snapshot is not written over, even if nothing else in its segment
// counts and no other segment is to be had.
func TestNewestSnapshotStays(t *testing.T) {
	dir := newMemDir()
	b := openMem(t, dir, testOptions())
	appendCommit(t, b, stream.Normal, 1)
	batch, _ := next(t, b, stream.Normal, Limit{})
	if err := b.Settle(batch.ID, settled(&batch)); err != nil {
		t.Fatal(err)
	}
	if err := b.commit(true); err != nil {
		t.Fatal(err)
	}
	name := segmentName(b.segs.head.id)
	dir = dir.image()
	for other := range dir.files {
		if other != name {
			delete(dir.files, other)
		}
	}
	before := slices.Clone(dir.files[name].data)
	dir.fault = func(op, _ string) error {
		if op == "create" {
			return syscall.ENOSPC
		}
		return nil
	}
	if _, err := openOn(dir, testOptions()); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if !slices.Equal(before, dir.files[name].data) {
		t.Fatal("the newest snapshot was written over")
	}
	dir.fault = nil
	if s := openMem(t, dir, testOptions()).Stats(); s.Settled != 1 || !s.ConservationOK {
		t.Fatalf("%+v", s)
	}
}

// Before the first batch of an epoch leaves, what was settled so far is on the
// disk: a copy of it must not offer these numbers again as if no log knew them.
func TestFirstBatchCarriesSettleState(t *testing.T) {
	dir := newMemDir()
	b := openMem(t, dir, testOptions())
	appendCommit(t, b, stream.Normal, 1)
	b = openMem(t, cutNow(dir), testOptions())
	dir = b.fs.(*memDir)
	appendCommit(t, b, stream.Normal, 2)
	old, _ := next(t, b, stream.Normal, Limit{})
	if err := b.Settle(old.ID, settled(&old)); err != nil {
		t.Fatal(err)
	}
	if batch, ok := next(t, b, stream.Normal, Limit{}); !ok || batch.ID.Epoch == old.ID.Epoch {
		t.Fatalf("%+v", batch)
	}
	for _, h := range openMem(t, cutNow(dir), testOptions()).Held() {
		if h.Epoch == old.ID.Epoch {
			t.Fatalf("%+v was settled", h)
		}
	}
}

// A segment whose sync failed is removed once nothing in it counts; one that was
// cut short at rest as well.
func TestSuspectSegmentsAreRemoved(t *testing.T) {
	dir := newMemDir()
	b := openMem(t, dir, testOptions())
	appendCommit(t, b, stream.Normal, 1)
	suspect := segmentName(b.segs.head.id)
	failed := false
	dir.fault = func(op, _ string) error {
		if op == "sync" && !failed {
			failed = true
			return errInjected
		}
		return nil
	}
	appendCommit(t, b, stream.Normal, 2)
	batch, _ := next(t, b, stream.Normal, Limit{})
	if err := b.Settle(batch.ID, settled(&batch)); err != nil {
		t.Fatal(err)
	}
	appendCommit(t, b, stream.Normal, 3)
	appendCommit(t, b, stream.Normal, 4)
	if dir.files[suspect] != nil {
		t.Fatalf("%s is kept", suspect)
	}
	dir = dir.image()
	short := segmentName(b.segs.free[0].id)
	dir.files[short].data = dir.files[short].data[:pageSize]
	b = openMem(t, dir, testOptions())
	if s := b.Stats(); dir.files[short] != nil || s.Queued != 2 || s.DiskBytes%minSegmentBytes != 0 {
		t.Fatalf("%s is kept, or %+v", short, s)
	}
}

// A stop in order commits what nobody waited for, and vouches for the last
// commit: damage to it is declared.
func TestStopCommitsAndVouches(t *testing.T) {
	dir := t.TempDir()
	b, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	m := message(1)
	m.QoS = 0
	var told []error
	if err := b.Append(stream.Bulk, []stream.Message{m}, func(_ stream.Position, err error) { told = append(told, err) }); err != nil {
		t.Fatal(err)
	}
	if err := b.Run(ctx); err != nil {
		t.Fatal(err)
	}
	head, at := segmentName(b.segs.head.id), b.segs.head.end-2*pageSize
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if len(told) != 1 || told[0] != nil {
		t.Fatalf("told %v", told)
	}
	f, err := os.OpenFile(filepath.Join(dir, head), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, pageSize), at); err != nil {
		t.Fatal(err)
	}
	b, _ = started(t, Options{Dir: dir})
	if s := b.Stats(); s.Accepted != 1 || s.Lost[stream.Unreadable] != 1 || !s.ConservationOK {
		t.Fatalf("%+v", s)
	}
}
