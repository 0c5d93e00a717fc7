package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/commitlog/local"
	"github.com/packetboat/packetboat/pkg/commitlog/logtest"
	"github.com/packetboat/packetboat/pkg/stream"
)

// forged is a log whose records and coverage can be tampered with on the way.
type forged struct {
	commitlog.Reader
	records  func([]commitlog.Stored) []commitlog.Stored
	coverage func(device string, c *commitlog.DeviceCoverage)
	// during, if set, is called before each record is given.
	during func(n int)
}

func (f *forged) Read(ctx context.Context, from commitlog.Cursor, filter commitlog.Filter) iter.Seq2[commitlog.Stored, error] {
	return func(yield func(commitlog.Stored, error) bool) {
		var all []commitlog.Stored
		n := 0
		for s, err := range f.Reader.Read(ctx, from, filter) {
			if err != nil {
				yield(s, err)
				return
			}
			if f.records == nil {
				if f.during != nil {
					f.during(n)
				}
				if n++; !yield(s, nil) {
					return
				}
				continue
			}
			all = append(all, s)
		}
		if f.records != nil {
			all = f.records(all)
		}
		for _, s := range all {
			if !yield(s, nil) {
				return
			}
		}
	}
}

func (f *forged) Coverage(ctx context.Context, device string) (*commitlog.DeviceCoverage, error) {
	c, err := f.Reader.Coverage(ctx, device)
	if err == nil && c != nil && f.coverage != nil {
		// states are shared and never change, so take copies before tampering
		for i, e := range c.Epochs {
			copied := *e
			c.Epochs[i] = &copied
		}
		f.coverage(device, c)
	}
	return c, err
}

const device = "truck-1"

var (
	normal = stream.ID{Device: device, Epoch: stream.Epoch{1}, Lane: stream.Normal}
	strict = stream.ID{Device: device, Epoch: stream.Epoch{1}, Lane: stream.Urgent}
)

func entry(id stream.ID, flags stream.Flags, first, last uint64) commitlog.Entry {
	e := commitlog.Entry{ID: id, Current: id.Epoch, Received: 1000, Head: last, Flags: flags}
	for n := first; n <= last; n++ {
		e.Records = append(e.Records, stream.Record{Seq: n, Message: stream.Message{Topic: "t", Payload: fmt.Appendf(nil, "%d", n), Time: int64(n), Quality: stream.TimeLocal}})
	}
	return e
}

// clean is a log in which nothing is broken: two lanes, backfill, losses,
// something still out there.
func clean(t *testing.T) *logtest.Mem {
	t.Helper()
	m := logtest.NewMem(2)
	appendTo(t, m,
		entry(normal, 0, 1, 20),
		entry(normal, 0, 31, 50), // the newest goes first
		entry(strict, stream.FIFO, 1, 20),
		entry(normal, stream.Backfill, 21, 28),
		commitlog.Entry{ID: normal, Current: normal.Epoch, Received: 1, Head: 60, Losses: []stream.Loss{
			{Range: stream.Range{First: 29, Last: 29}, Reason: stream.Evicted}, {Range: stream.Range{First: 51, Last: 52}, Reason: stream.Unreadable},
		}},
		entry(stream.ID{Device: "ship-7", Epoch: stream.Epoch{2}, Lane: stream.Bulk}, 0, 1, 5),
	)
	return m
}

func appendTo(t *testing.T, l commitlog.Log, entries ...commitlog.Entry) {
	t.Helper()
	for _, e := range entries {
		o, err := l.Acquire(t.Context(), commitlog.ShardOf(e.ID.Device, l.Shards()))
		if err == nil {
			err = o.Append(t.Context(), []commitlog.Entry{e})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func run(t *testing.T, r commitlog.Reader) *Report {
	t.Helper()
	report, err := Run(t.Context(), r, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestClean(t *testing.T) {
	var seen int64
	r, err := Run(t.Context(), clean(t), Options{Progress: func(n int64) { seen = n }})
	if err != nil {
		t.Fatal(err)
	}
	c := r.Total
	if !r.OK || len(r.Findings) > 0 || c.Records != 73 || c.Streams != 3 || c.Lost != 3 || c.Out != 9 || len(r.Devices) != 2 || seen != 73 {
		t.Fatalf("%+v", r)
	}
	if !maps.Equal(c.LostBy, map[string]uint64{"evicted": 1, "unreadable": 2}) {
		t.Errorf("lost by %v", c.LostBy)
	}
	one, err := Run(t.Context(), clean(t), Options{Device: "ship-7"})
	if err != nil || one.Total.Records != 5 || len(one.Devices) != 1 || !one.OK {
		t.Errorf("one device: %+v %v", one, err)
	}
	var text bytes.Buffer
	if err := r.WriteTable(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"truck-1", "ship-7", "all 2", "OK:", "evicted 1, unreadable 2"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, &text)
		}
	}
}

// at finds the record of a number.
func at(all []commitlog.Stored, id stream.ID, seq uint64) int {
	return slices.IndexFunc(all, func(s commitlog.Stored) bool { return s.ID() == id && s.Seq == seq })
}

// Each way to tamper with a log turns it red, for its own reason and no other.
func TestTampered(t *testing.T) {
	swap := func(id stream.ID, a, b uint64) func([]commitlog.Stored) []commitlog.Stored {
		return func(all []commitlog.Stored) []commitlog.Stored {
			i, j := at(all, id, a), at(all, id, b)
			all[i], all[j] = all[j], all[i]
			all[i].Offset, all[j].Offset = all[j].Offset, all[i].Offset
			return all
		}
	}
	lane := func(id stream.ID, f func(*commitlog.LaneState)) func(string, *commitlog.DeviceCoverage) {
		return func(d string, c *commitlog.DeviceCoverage) {
			if d == id.Device {
				f(c.Lane(id))
			}
		}
	}
	with := func(s stream.RangeSet, r stream.Range) stream.RangeSet { s = s.Clone(); s.Add(r); return s }
	without := func(s stream.RangeSet, r stream.Range) stream.RangeSet { s = s.Clone(); s.Remove(r); return s }
	for name, c := range map[string]struct {
		records  func([]commitlog.Stored) []commitlog.Stored
		coverage func(string, *commitlog.DeviceCoverage)
		want     map[Kind]uint64
		numbers  string
	}{
		"removed": {
			records: func(all []commitlog.Stored) []commitlog.Stored {
				return slices.Delete(all, at(all, normal, 7), at(all, normal, 7)+1)
			},
			want: map[Kind]uint64{Missing: 1}, numbers: "7",
		},
		"the last removed": {
			records: func(all []commitlog.Stored) []commitlog.Stored {
				return slices.Delete(all, at(all, strict, 20), at(all, strict, 20)+1)
			},
			want: map[Kind]uint64{Missing: 1}, numbers: "20",
		},
		"doubled": {
			records: func(all []commitlog.Stored) []commitlog.Stored {
				i := at(all, normal, 7)
				all = slices.Insert(all, i+1, all[i])
				for j := range all { // places stay in order
					all[j].Offset = all[j].Offset * 2
				}
				all[i+1].Offset++
				return all
			},
			want: map[Kind]uint64{Double: 1}, numbers: "7",
		},
		"swapped":        {records: swap(normal, 7, 8), want: map[Kind]uint64{Disorder: 1}, numbers: "7"},
		"swapped, fifo":  {records: swap(strict, 7, 8), want: map[Kind]uint64{Disorder: 1}, numbers: "7"},
		"backfill unset": {records: func(all []commitlog.Stored) []commitlog.Stored { all[at(all, normal, 21)].Flags = 0; return all }, want: map[Kind]uint64{Disorder: 1}, numbers: "21"},
		"backfill in a fifo lane": {
			records: func(all []commitlog.Stored) []commitlog.Stored {
				for i := range all {
					if all[i].Flags == stream.Backfill {
						all[i].Flags |= stream.FIFO
					}
				}
				return all
			},
			want: map[Kind]uint64{Disorder: 8}, numbers: "21-28",
		},
		"number changed": {
			records: func(all []commitlog.Stored) []commitlog.Stored { all[at(all, strict, 20)].Seq = 99; return all },
			want:    map[Kind]uint64{Unknown: 1, Missing: 1}, numbers: "99",
		},
		"number changed to another's": {
			records: func(all []commitlog.Stored) []commitlog.Stored { all[at(all, normal, 8)].Seq = 7; return all },
			want:    map[Kind]uint64{Double: 1, Missing: 1}, numbers: "7",
		},
		"number changed to a lost one": {
			records: func(all []commitlog.Stored) []commitlog.Stored { all[at(all, normal, 50)].Seq = 51; return all },
			want:    map[Kind]uint64{LostButThere: 1, Missing: 1}, numbers: "51",
		},
		"epoch changed": {
			records: func(all []commitlog.Stored) []commitlog.Stored {
				all[at(all, strict, 20)].Epoch = stream.Epoch{9}
				return all
			},
			want: map[Kind]uint64{Unknown: 1, Missing: 1}, numbers: "20",
		},
		"other shard": {
			records: func(all []commitlog.Stored) []commitlog.Stored {
				i := at(all, strict, 20)
				s := all[i]
				s.Shard = 1 - s.Shard
				s.Offset = 0
				for _, o := range all {
					if o.Shard == s.Shard {
						s.Offset = max(s.Offset, o.Offset+1)
					}
				}
				return append(slices.Delete(all, i, i+1), s)
			},
			want: map[Kind]uint64{Misplaced: 1}, numbers: "20",
		},
		"coverage lacks": {
			coverage: lane(normal, func(l *commitlog.LaneState) { l.In = without(l.In, stream.Range{First: 50, Last: 50}) }),
			want:     map[Kind]uint64{Unknown: 1}, numbers: "50",
		},
		"coverage invents": {
			coverage: lane(normal, func(l *commitlog.LaneState) { l.In = with(l.In, stream.Range{First: 55, Last: 56}) }),
			want:     map[Kind]uint64{Missing: 2}, numbers: "55-56",
		},
		"coverage invents a loss": {
			coverage: lane(normal, func(l *commitlog.LaneState) { l.Lost = with(l.Lost, stream.Range{First: 3, Last: 4}) }),
			want:     map[Kind]uint64{LostButThere: 2, Contradiction: 4}, numbers: "3-4",
		},
		"coverage calls expired what is there": {
			coverage: lane(normal, func(l *commitlog.LaneState) { l.Expired = with(l.Expired, stream.Range{First: 1, Last: 2}) }),
			want:     map[Kind]uint64{ExpiredButThere: 2}, numbers: "1-2",
		},
		"head too low": {
			coverage: lane(strict, func(l *commitlog.LaneState) { l.Head = 19 }),
			want:     map[Kind]uint64{Contradiction: 1}, numbers: "20",
		},
		"epoch gone from coverage": {
			coverage: func(d string, c *commitlog.DeviceCoverage) {
				if d == "ship-7" {
					c.Epochs = nil
				}
			},
			want: map[Kind]uint64{Unknown: 5}, numbers: "1-5",
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := clean(t)
			f := &forged{Reader: m, records: c.records, coverage: c.coverage}
			if name == "doubled" || name == "other shard" {
				f.Reader = stretched{m} // room for one more
			}
			r := run(t, f)
			if r.OK || !maps.Equal(r.Total.Broken, c.want) {
				t.Fatalf("broken %v, want %v", r.Total.Broken, c.want)
			}
			if !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Numbers == c.numbers && c.want[f.Kind] == f.Count }) {
				t.Errorf("findings %+v, want one of %s", r.Findings, c.numbers)
			}
			var text bytes.Buffer
			if err := r.WriteTable(&text); err != nil || !strings.Contains(text.String(), "BROKEN: ") || strings.Contains(text.String(), "OK:") {
				t.Errorf("table: %v\n%s", err, &text)
			}
			b, err := json.Marshal(r)
			var back Report
			if err == nil {
				err = json.Unmarshal(b, &back)
			}
			if err != nil || back.OK || !maps.Equal(back.Total.Broken, c.want) {
				t.Errorf("as JSON: %v %s", err, b)
			}
		})
	}
}

// stretched says that its shards go further than they do.
type stretched struct{ *logtest.Mem }

func (s stretched) Extent(ctx context.Context) ([]commitlog.ShardExtent, error) {
	all, err := s.Mem.Extent(ctx)
	for i := range all {
		all[i].Next *= 3
	}
	return all, err
}

// A log that is appended to, and that retention deletes from, while it is read
// is judged by what was there when the reading began.
func TestMovingLog(t *testing.T) {
	open := map[string]func(t *testing.T) commitlog.Log{
		"mem": func(*testing.T) commitlog.Log { return logtest.NewMem(2) },
		"local": func(t *testing.T) commitlog.Log {
			l, err := local.Open(local.Options{Dir: t.TempDir(), Shards: 2, MinFree: -1})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
			return l
		},
	}
	for name, open := range open {
		t.Run(name, func(t *testing.T) {
			l := open(t)
			next := uint64(1)
			more := func() {
				appendTo(t, l, entry(normal, 0, next, next+9), entry(strict, stream.FIFO, next, next+9))
				next += 10
			}
			for range 5 {
				more()
			}
			r := run(t, &forged{Reader: l, during: func(int) { more() }})
			if !r.OK || r.Total.Records != 100 {
				t.Fatalf("%+v", r)
			}
			// and what is broken below the snapshot shows all the same
			r = run(t, &forged{Reader: l, records: func(all []commitlog.Stored) []commitlog.Stored {
				more()
				i := at(all, normal, next-11) // the last but one group: before the snapshot
				return slices.Delete(all, i, i+1)
			}})
			if !maps.Equal(r.Total.Broken, map[Kind]uint64{Missing: 1}) {
				t.Fatalf("%+v", r.Total)
			}
			if m, ok := l.(*logtest.Mem); ok {
				shard := commitlog.ShardOf(device, 2)
				r := run(t, &forged{Reader: l, during: func(n int) { m.Expire(shard, int64(n)/2+30); more() }})
				if !r.OK || r.Total.Expired == 0 {
					t.Fatalf("with retention: %+v", r)
				}
			}
		})
	}
}

// What retention deleted is counted and said, and no excuse for the rest.
func TestExpired(t *testing.T) {
	m := clean(t)
	shard := commitlog.ShardOf(device, 2)
	m.Expire(shard, 10)
	r := run(t, m)
	if !r.OK || r.Total.Expired != 10 || r.Total.Records != 63 {
		t.Fatalf("%+v", r)
	}
	var text bytes.Buffer
	if err := r.WriteTable(&text); err != nil || !strings.Contains(text.String(), "not checkable: 10 records were deleted by retention") {
		t.Errorf("%v\n%s", err, &text)
	}
	r = run(t, &forged{Reader: m, records: func(all []commitlog.Stored) []commitlog.Stored {
		i := at(all, normal, 11)
		return slices.Delete(all, i, i+1)
	}})
	if !maps.Equal(r.Total.Broken, map[Kind]uint64{Missing: 1}) {
		t.Fatalf("%+v", r.Total)
	}
}

// Epochs that coverage has let go of are not checkable, as many as it says.
func TestForgotten(t *testing.T) {
	m := clean(t)
	forget := func(n uint64) func(string, *commitlog.DeviceCoverage) {
		return func(d string, c *commitlog.DeviceCoverage) {
			if d == "ship-7" {
				c.Epochs, c.Forgotten = nil, n
			}
		}
	}
	r := run(t, &forged{Reader: m, coverage: forget(1)})
	if !r.OK || r.Total.Forgotten != 5 {
		t.Fatalf("%+v", r)
	}
	appendTo(t, m, entry(stream.ID{Device: "ship-7", Epoch: stream.Epoch{3}, Lane: stream.Bulk}, 0, 1, 2))
	r = run(t, &forged{Reader: m, coverage: forget(1)})
	if r.OK || r.Total.Broken[Unknown] == 0 {
		t.Fatalf("two epochs are gone, one was forgotten: %+v", r)
	}
}

func TestErrors(t *testing.T) {
	m := clean(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, m, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	back := &forged{Reader: m, records: func(all []commitlog.Stored) []commitlog.Stored {
		return append(all, all[len(all)-1])
	}}
	if _, err := Run(t.Context(), back, Options{}); err == nil || !strings.Contains(err.Error(), "gave offset") {
		t.Errorf("a reader that goes back: %v", err)
	}
	_ = m.Close()
	if _, err := Run(t.Context(), m, Options{}); !errors.Is(err, commitlog.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// Devices may tell of as many losses as they like; sums end at the highest
// number.
func TestSumsDoNotTurn(t *testing.T) {
	m := logtest.NewMem(1)
	for n := range byte(3) {
		id := stream.ID{Device: device, Epoch: stream.Epoch{1 + n}, Lane: stream.Bulk}
		appendTo(t, m, commitlog.Entry{ID: id, Head: math.MaxUint64 - 1, Losses: []stream.Loss{
			{Range: stream.Range{First: 1, Last: math.MaxUint64 / 2}, Reason: stream.OtherLog}}})
	}
	r := run(t, m)
	if !r.OK || r.Total.Lost != math.MaxUint64 || r.Total.LostBy["other_log"] != math.MaxUint64 || r.Total.Out != math.MaxUint64 {
		t.Errorf("%+v", r.Total)
	}
}
