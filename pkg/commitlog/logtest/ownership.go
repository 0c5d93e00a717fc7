package logtest

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

func testFencing(t *testing.T, h *Harness) {
	id := stream.ID{Device: device(0, 0), Epoch: epoch(1), Lane: stream.Normal}
	first := acquire(t, h.Log, 0)
	other := acquire(t, h.Log, 1)
	mustAppend(t, first, entry(id, span(1, 3)))
	second := acquire(t, h.Log, 0)
	wantErr(t, "append of the first owner", first.Append(t.Context(), []commitlog.Entry{entry(id, span(4, 4))}), commitlog.ErrFenced)
	wantErr(t, "barrier of the first owner", first.Append(t.Context(), nil), commitlog.ErrFenced)
	mustAppend(t, other) // of another shard: not concerned
	if c := second.Coverage(id.Device); c == nil || c.Lane(id).In.Count() != 3 {
		t.Fatalf("the second owner sees %v", c)
	}
	if first.Release() != nil {
		t.Fatal("release of a fenced owner")
	}
	mustAppend(t, second, entry(id, span(4, 6)))
	if err := second.Release(); err != nil {
		t.Fatalf("release: %v", err)
	}
	wantErr(t, "append after release", second.Append(t.Context(), []commitlog.Entry{entry(id, span(7, 7))}), commitlog.ErrFenced)
	if _, err := h.Log.Acquire(t.Context(), shards); err == nil {
		t.Fatal("a shard that is none was acquired")
	}
	if got := read(t, h.Log, commitlog.Cursor{}, commitlog.Filter{}); len(got) != 6 {
		t.Fatalf("%d records, want 6", len(got))
	}
	// a copy: what the caller applies to it is not the log's
	third := acquire(t, h.Log, 0)
	e := entry(id, span(7, 9))
	if _, err := third.Coverage(id.Device).Apply(&e); err != nil {
		t.Fatal(err)
	}
	if third.Coverage(id.Device).Lane(id).In.Count() != 6 {
		t.Fatal("the caller's copy changed the log's coverage")
	}
	if third.Coverage(device(1, 0)) != nil {
		t.Fatal("coverage of another shard's device")
	}
}

// testFencingRace: owners replace each other while they append. Whatever Append
// said nil to is in, the coverage of a new owner never changes under it, and no
// number is in twice.
func testFencingRace(t *testing.T, h *Harness) {
	id := stream.ID{Device: device(0, 0), Epoch: epoch(1), Lane: stream.Normal}
	const rounds, workers = 25, 3
	var mu sync.Mutex
	var acked stream.RangeSet
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range rounds {
				o, err := h.Log.Acquire(t.Context(), 0)
				if err != nil {
					t.Errorf("acquire: %v", err)
					return
				}
				c := o.Coverage(id.Device)
				next := uint64(1)
				if c != nil {
					s := c.Settled(id)
					next = s.Max() + 1
				}
				for range 3 {
					err := o.Append(context.WithoutCancel(t.Context()), []commitlog.Entry{entry(id, span(next, next+1))})
					if errors.Is(err, commitlog.ErrFenced) {
						break
					}
					if err != nil {
						t.Errorf("append of %d: %v", next, err)
						return
					}
					mu.Lock()
					if acked.Overlaps(span(next, next+1)) {
						t.Errorf("%d was acknowledged twice", next)
					}
					acked.Add(span(next, next+1))
					mu.Unlock()
					next += 2
				}
			}
		})
	}
	wg.Wait()
	var in stream.RangeSet
	for _, s := range read(t, h.Reopen(t), commitlog.Cursor{}, commitlog.Filter{}) {
		if in.Contains(s.Seq) {
			t.Fatalf("%d is in twice", s.Seq)
		}
		in.Add(span(s.Seq, s.Seq))
	}
	if !in.Equal(&acked) {
		t.Fatalf("in the log %s, acknowledged %s", &in, &acked)
	}
}

func testBarrier(t *testing.T, h *Harness) {
	id := stream.ID{Device: device(0, 0), Epoch: epoch(1), Lane: stream.Normal}
	o := acquire(t, h.Log, 0)
	mustAppend(t, o)
	mustAppend(t, o, entry(id, span(1, 2)))
	mustAppend(t, o, []commitlog.Entry{}...)
	if got := read(t, h.Reopen(t), commitlog.Cursor{}, commitlog.Filter{}); len(got) != 2 {
		t.Fatalf("%d records, want 2", len(got))
	}
}

func testNewIncarnation(t *testing.T, h *Harness) {
	before := h.Log.ID()
	if before.Name.IsZero() || before.Incarnation.IsZero() {
		t.Fatalf("log id %s", before)
	}
	o := acquire(t, h.Log, 0)
	id, err := h.Log.NewIncarnation(t.Context())
	if err != nil || id.Name != before.Name || id.Incarnation == before.Incarnation || id.Incarnation.IsZero() || h.Log.ID() != id {
		t.Fatalf("new incarnation of %s: %s %v", before, id, err)
	}
	wantErr(t, "append after a new incarnation", o.Append(t.Context(), nil), commitlog.ErrFenced)
	if l := h.Reopen(t); l.ID() != id || l.Shards() != shards {
		t.Fatalf("opened again it is %s with %d shards, want %s", l.ID(), l.Shards(), id)
	}
}

func testClosed(t *testing.T, h *Harness) {
	id := stream.ID{Device: device(0, 0), Epoch: epoch(1), Lane: stream.Normal}
	o := acquire(t, h.Log, 0)
	mustAppend(t, o, entry(id, span(1, 2)))
	ended := make(chan error, 1)
	atEnd := make(chan struct{})
	go func() {
		n := 0
		for _, err := range h.Log.Read(context.WithoutCancel(t.Context()), commitlog.Cursor{}, commitlog.Filter{Follow: true}) {
			if err != nil {
				ended <- err
				return
			}
			if n++; n == 2 {
				close(atEnd)
			}
		}
		ended <- nil
	}()
	<-atEnd
	if err := h.Log.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	wantErr(t, "follower", <-ended, commitlog.ErrClosed)
	wantErr(t, "append", o.Append(t.Context(), nil), commitlog.ErrClosed)
	_, err := h.Log.Acquire(t.Context(), 0)
	wantErr(t, "acquire", err, commitlog.ErrClosed)
	_, err = h.Log.Extent(t.Context())
	wantErr(t, "extent", err, commitlog.ErrClosed)
	_, err = h.Log.Coverage(t.Context(), id.Device)
	wantErr(t, "coverage", err, commitlog.ErrClosed)
	if err := h.Log.Close(); err != nil {
		t.Fatalf("second close: %v", err)
	}
}

// testForgetting: the newest MaxEpochs are remembered, also after opening again,
// and an incomplete one always.
func testForgetting(t *testing.T, h *Harness) {
	d := device(0, 0)
	o := acquire(t, h.Log, 0)
	want := &commitlog.DeviceCoverage{}
	var group []commitlog.Entry
	for n := range commitlog.MaxEpochs + 20 {
		id := stream.ID{Device: d, Epoch: epoch(n + 1), Lane: stream.Normal}
		e := entry(id, span(1, 2))
		if n == 5 {
			e.Head = 3
		}
		if _, err := want.Apply(&e); err != nil {
			t.Fatal(err)
		}
		if group = append(group, e); len(group) == 100 {
			mustAppend(t, o, group...)
			group = nil
		}
	}
	mustAppend(t, o, group...)
	if want.Forgotten != 20 || want.Epoch(epoch(6)) == nil || want.Epoch(epoch(1)) != nil {
		t.Fatalf("forgotten %d", want.Forgotten)
	}
	sameCoverage(t, h.Log, o, d, want)
	sameCoverage(t, h.Reopen(t), nil, d, want)
}
