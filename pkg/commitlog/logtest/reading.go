package logtest

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

// fill appends some groups to every shard and returns all records in the order
// of a plain read of one shard after the other.
func fill(t *testing.T, l commitlog.Log) {
	t.Helper()
	for shard := range shards {
		o := acquire(t, l, shard)
		for g := range uint64(6) {
			var group []commitlog.Entry
			for i := range 3 {
				id := stream.ID{Device: device(shard, i), Epoch: epoch(1), Lane: stream.Lanes[i]}
				group = append(group, entry(id, span(20*g+1, 20*g+20)))
			}
			mustAppend(t, o, group...)
		}
	}
}

const filled = shards * 6 * 3 * 20

func testCursor(t *testing.T, h *Harness) {
	fill(t, h.Log)
	all := read(t, h.Log, commitlog.Cursor{}, commitlog.Filter{})
	if len(all) != filled {
		t.Fatalf("%d records, want %d", len(all), filled)
	}
	extent, err := h.Log.Extent(t.Context())
	if err != nil || len(extent) != shards {
		t.Fatalf("extent: %v %v", extent, err)
	}
	next := map[int]int64{}
	for i := range all {
		s := &all[i]
		if want, ok := next[s.Shard]; ok && s.Offset < want || !ok && s.Offset < extent[s.Shard].Floor || s.Offset >= extent[s.Shard].Next {
			t.Fatalf("offset %d of shard %d is out of order", s.Offset, s.Shard)
		}
		next[s.Shard] = s.Offset + 1
	}
	// go on from any place, as text, as a client would
	for stop := 0; stop <= len(all); stop += 37 {
		var at commitlog.Cursor
		for i := range all[:stop] {
			at.Advance(&all[i])
		}
		at, err := commitlog.ParseCursor(at.String())
		if err != nil {
			t.Fatal(err)
		}
		rest := read(t, h.Log, at, commitlog.Filter{})
		if len(rest) != len(all)-stop {
			t.Fatalf("from %s: %d records, want %d", at, len(rest), len(all)-stop)
		}
		for i := range rest {
			if rest[i].Offset < at.Next(rest[i].Shard) {
				t.Fatalf("offset %d of shard %d lies before %s", rest[i].Offset, rest[i].Shard, at)
			}
		}
	}
}

func testFilters(t *testing.T, h *Harness) {
	fill(t, h.Log)
	all := read(t, h.Log, commitlog.Cursor{}, commitlog.Filter{})
	var mid commitlog.Cursor
	for i := range all[:len(all)/2] {
		mid.Advance(&all[i])
	}
	d := device(1, 2)
	for _, f := range []commitlog.Filter{
		{Device: d},
		{Device: "nobody"},
		{Topic: "sensor/3/value"},
		{Topic: "sensor/+/value"},
		{Topic: "#", Device: d},
		{Topic: "sensor/3"},
		{From: 30_000_000},
		{To: 30_000_000},
		{From: 30_000_000, To: 30_000_001},
		{From: 55_000_000, To: 90_000_000, Device: d, Topic: "sensor/1/#"},
		{From: 1, To: 2},
	} {
		for _, from := range []commitlog.Cursor{{}, mid} {
			want := 0
			for i := range all {
				if f.Match(&all[i]) && all[i].Offset >= from.Next(all[i].Shard) {
					want++
				}
			}
			got := read(t, h.Log, from, f)
			if len(got) != want {
				t.Fatalf("%+v from %q: %d records, want %d", f, from, len(got), want)
			}
			for i := range got {
				if !f.Match(&got[i]) {
					t.Fatalf("%+v gave %+v", f, got[i])
				}
			}
		}
	}
	for _, f := range []commitlog.Filter{{Topic: "a/#/b"}, {Device: "a/b"}, {From: 2, To: 1}} {
		var got error
		for _, err := range h.Log.Read(t.Context(), commitlog.Cursor{}, f) {
			got = err
		}
		if got == nil {
			t.Fatalf("%+v was taken", f)
		}
	}
	n := 0
	for range h.Log.Read(t.Context(), commitlog.Cursor{}, commitlog.Filter{}) { // to stop early is fine
		if n++; n == 5 {
			break
		}
	}
}

func testFollow(t *testing.T, h *Harness) {
	id := stream.ID{Device: device(2, 0), Epoch: epoch(1), Lane: stream.Normal}
	o := acquire(t, h.Log, 2)
	mustAppend(t, o, entry(id, span(1, 10)))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := make(chan uint64)
	ended := make(chan error, 1)
	go func() {
		defer close(got)
		for s, err := range h.Log.Read(ctx, commitlog.Cursor{}, commitlog.Filter{Device: id.Device, Follow: true}) {
			if err != nil {
				ended <- err
				return
			}
			got <- s.Seq
		}
	}()
	next := uint64(1)
	for last := uint64(10); last <= 60; last += 10 {
		for ; next <= last; next++ {
			if seq := <-got; seq != next {
				t.Fatalf("got %d, want %d", seq, next)
			}
		}
		mustAppend(t, o, entry(id, span(last+1, last+10)))
	}
	cancel()
	for range got { // what was on its way
	}
	wantErr(t, "the end of following", <-ended, context.Canceled)
}

func testLosses(t *testing.T, h *Harness) {
	id := stream.ID{Device: device(0, 0), Epoch: epoch(1), Lane: stream.Bulk}
	o := acquire(t, h.Log, 0)
	mustAppend(t, o, entry(id, span(1, 10)))
	e := entry(id)
	e.Losses = []stream.Loss{
		{Range: span(11, 20), Reason: stream.Evicted, From: 5, To: 9},
		{Range: span(21, 30), Reason: stream.Evicted, From: 7, To: 19},
		{Range: span(31, 31), Reason: stream.Unreadable},
	}
	mustAppend(t, o, e)
	wantErr(t, "records that were declared lost", o.Append(t.Context(), []commitlog.Entry{entry(id, span(30, 33))}), commitlog.ErrRejected)
	c, err := h.Reopen(t).Coverage(t.Context(), id.Device)
	if err != nil {
		t.Fatal(err)
	}
	l := c.Lane(id)
	if l.In.String() != "1-10" || l.Lost.String() != "11-31" || l.Head != 31 || !l.Complete() {
		t.Fatalf("in %s, lost %s, head %d", &l.In, &l.Lost, l.Head)
	}
	want := []stream.Loss{{Range: span(11, 30), Reason: stream.Evicted, From: 5, To: 19}, {Range: span(31, 31), Reason: stream.Unreadable}}
	if !slices.Equal(l.Losses, want) || l.LostBy[stream.Evicted] != 20 || l.LostBy[stream.Unreadable] != 1 {
		t.Fatalf("losses %+v %v", l.Losses, l.LostBy)
	}
}

// testRetention: what was deleted stays settled and is named as expired.
func testRetention(t *testing.T, h *Harness) {
	if h.Expire == nil {
		t.Log("this log deletes nothing: the tests of retention do not run")
		return
	}
	fill(t, h.Log)
	all := read(t, h.Log, commitlog.Cursor{}, commitlog.Filter{})
	before := map[string]string{}
	for d, err := range h.Log.Devices(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		c, _ := h.Log.Coverage(t.Context(), d)
		for _, e := range c.Epochs {
			for _, lane := range stream.Lanes {
				before[d] += e.Lanes[lane].In.String() + ";"
			}
		}
	}
	h.Expire(t, 1, 130)
	for _, l := range []commitlog.Log{h.Log, nil} {
		if l == nil {
			l = h.Reopen(t)
		}
		extent, err := l.Extent(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		floor := extent[1].Floor
		if floor < 130 || floor >= extent[1].Next || extent[0].Floor != 0 {
			t.Fatalf("extent %+v", extent)
		}
		left := read(t, l, commitlog.Cursor{}, commitlog.Filter{})
		if len(left) != len(all)-int(floor) {
			t.Fatalf("%d records left of %d, floor %d", len(left), len(all), floor)
		}
		expired := map[stream.ID]*stream.RangeSet{}
		for i := range all {
			if s := &all[i]; s.Shard == 1 && s.Offset < floor {
				if expired[s.ID()] == nil {
					expired[s.ID()] = &stream.RangeSet{}
				}
				expired[s.ID()].Add(span(s.Seq, s.Seq))
			}
		}
		for d := range before {
			c, err := l.Coverage(t.Context(), d)
			if err != nil {
				t.Fatal(err)
			}
			in := ""
			for _, e := range c.Epochs {
				for _, lane := range stream.Lanes {
					in += e.Lanes[lane].In.String() + ";"
					want := expired[stream.ID{Device: d, Epoch: e.ID, Lane: lane}]
					if want == nil {
						want = &stream.RangeSet{}
					}
					if !e.Lanes[lane].Expired.Equal(want) {
						t.Fatalf("%s %s: expired %s, want %s", d, lane, &e.Lanes[lane].Expired, want)
					}
				}
			}
			if in != before[d] {
				t.Fatalf("%s: in %s, was %s", d, in, before[d])
			}
		}
		if got := read(t, l, commitlog.Cursor{}, commitlog.Filter{Device: device(1, 0)}); len(got) == 0 || got[0].Offset < floor {
			t.Fatalf("by device: %d records", len(got))
		}
	}
	l := h.Reopen(t)
	o := acquire(t, l, 1)
	id := stream.ID{Device: device(1, 0), Epoch: epoch(1), Lane: stream.Lanes[0]}
	wantErr(t, "a number that expired", o.Append(t.Context(), []commitlog.Entry{entry(id, span(1, 1))}), commitlog.ErrRejected)
	mustAppend(t, o, entry(id, span(121, 122)))
}

// testReadersBeside: readers beside an appender see whole groups, in order,
// nothing twice.
func testReadersBeside(t *testing.T, h *Harness) {
	id := stream.ID{Device: device(0, 0), Epoch: epoch(1), Lane: stream.Normal}
	const groups, size = 60, 7
	o := acquire(t, h.Log, 0)
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for last := false; !last; {
				select {
				case <-done:
					last = true
				default:
				}
				next := uint64(1)
				for s, err := range h.Log.Read(t.Context(), commitlog.Cursor{}, commitlog.Filter{}) {
					if err != nil {
						t.Errorf("read: %v", err)
						return
					}
					if s.Seq != next {
						t.Errorf("got %d, want %d", s.Seq, next)
						return
					}
					next++
				}
				if (next-1)%size != 0 || last && next-1 != groups*size {
					t.Errorf("%d records: not whole groups, or not all at the end", next-1)
					return
				}
				if c, err := h.Log.Coverage(t.Context(), id.Device); err != nil || c != nil && c.Lane(id).In.Max() < next-1 {
					t.Errorf("coverage lags behind what was read: %v", err)
					return
				}
			}
		})
	}
	wg.Go(func() { // a follower gets each once
		next := uint64(1)
		for s, err := range h.Log.Read(t.Context(), commitlog.Cursor{}, commitlog.Filter{Follow: true}) {
			if err != nil || s.Seq != next {
				t.Errorf("follower got %d %v, want %d", s.Seq, err, next)
				return
			}
			if next++; next > groups*size {
				return
			}
		}
	})
	for g := range uint64(groups) {
		if err := o.Append(t.Context(), []commitlog.Entry{entry(id, span(g*size+1, g*size+size))}); err != nil {
			t.Errorf("append: %v", err)
			break
		}
	}
	close(done)
	wg.Wait()
}
