package commitlog

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/packetboat/packetboat/pkg/stream"
)

// model is coverage without any cleverness: one word per number.
type model struct {
	order   []stream.Epoch
	lanes   map[stream.ID]map[uint64]string // "in", "lost <reason>"
	heads   map[stream.ID]uint64
	current stream.Epoch
}

func (m *model) apply(e *Entry) bool {
	key := stream.ID{Epoch: e.ID.Epoch, Lane: e.ID.Lane}
	settled := maps.Clone(m.lanes[key])
	if settled == nil {
		settled = map[uint64]string{}
	}
	last := uint64(0)
	head := max(m.heads[key], e.Head)
	for _, r := range e.Records {
		if r.Seq <= last || settled[r.Seq] != "" {
			return false
		}
		settled[r.Seq] = "in"
		last = r.Seq
		head = max(head, last)
	}
	for _, l := range e.Losses {
		if l.First == 0 || l.Last < l.First || !l.Reason.Valid() {
			return false
		}
		for n := l.First; n <= l.Last; n++ {
			if settled[n] != "" {
				return false
			}
			settled[n] = "lost " + l.Reason.String()
			head = max(head, n)
		}
	}
	m.lanes[key], m.heads[key] = settled, head
	if !slices.Contains(m.order, e.ID.Epoch) {
		m.order = append(m.order, e.ID.Epoch)
	}
	if !e.Current.IsZero() {
		m.current = e.Current
	}
	return true
}

// newest is the highest number of a record.
func (m *model) newest(id stream.ID) (n uint64) {
	for seq, what := range m.lanes[stream.ID{Epoch: id.Epoch, Lane: id.Lane}] {
		if what == "in" {
			n = max(n, seq)
		}
	}
	return n
}

func (m *model) closed(e stream.Epoch) bool { return !m.current.IsZero() && e != m.current }

func (m *model) complete(e stream.Epoch) bool {
	for _, lane := range stream.Lanes {
		key := stream.ID{Epoch: e, Lane: lane}
		for n := uint64(1); n <= m.heads[key]; n++ {
			if m.lanes[key][n] == "" {
				return false
			}
		}
	}
	return true
}

// diff says where d and m differ.
func (m *model) diff(d *DeviceCoverage) string {
	if len(d.Epochs) != len(m.order) || d.Current != m.current {
		return fmt.Sprintf("%d epochs, want %d; current %s, want %s", len(d.Epochs), len(m.order), d.Current, m.current)
	}
	for i, id := range m.order {
		e := d.Epochs[i]
		if e.ID != id || e.Closed != m.closed(id) || e.Complete() != m.complete(id) || e.Order != uint64(i+1) {
			return fmt.Sprintf("epoch %d: %s closed %v complete %v order %d", i, e.ID, e.Closed, e.Complete(), e.Order)
		}
		for _, lane := range stream.Lanes {
			key := stream.ID{Epoch: id, Lane: lane}
			l := &e.Lanes[lane]
			if s := m.diffLane(key, l); s != "" {
				return fmt.Sprintf("epoch %d %s: %s", i, lane, s)
			}
		}
	}
	return ""
}

func (m *model) diffLane(key stream.ID, l *LaneState) string {
	by := map[string]uint64{}
	for n := uint64(1); n <= m.heads[key]+5; n++ {
		want := m.lanes[key][n]
		switch {
		case l.In.Contains(n) != (want == "in"), l.Lost.Contains(n) != (want != "" && want != "in"):
			return fmt.Sprintf("number %d is %q, in %s, lost %s", n, want, &l.In, &l.Lost)
		case want != "" && want != "in":
			by[want]++
		}
	}
	if l.Head != m.heads[key] {
		return fmt.Sprintf("head %d, want %d", l.Head, m.heads[key])
	}
	var detailed stream.RangeSet
	for _, x := range l.Losses {
		for n := x.First; n <= x.Last; n++ {
			if m.lanes[key][n] != "lost "+x.Reason.String() {
				return fmt.Sprintf("loss %+v, but %d is %q", x, n, m.lanes[key][n])
			}
		}
		detailed.Add(x.Range)
	}
	if !detailed.Equal(&l.Lost) {
		return fmt.Sprintf("losses name %s of %s", &detailed, &l.Lost)
	}
	for _, r := range stream.Reasons {
		if l.LostBy[r] != by["lost "+r.String()] {
			return fmt.Sprintf("%d lost by %s, want %d", l.LostBy[r], r, by["lost "+r.String()])
		}
	}
	return ""
}

func drawEntry(t *rapid.T) *Entry {
	epochs := []stream.Epoch{{1}, {2}, {3}}
	e := &Entry{
		ID:       stream.ID{Device: "truck-1", Epoch: rapid.SampledFrom(epochs).Draw(t, "epoch"), Lane: rapid.SampledFrom(stream.Lanes[:]).Draw(t, "lane")},
		Head:     rapid.Uint64Range(0, 30).Draw(t, "head"),
		Floor:    rapid.Uint64Range(0, 2).Draw(t, "floor"),
		Oldest:   rapid.Int64Range(0, 9).Draw(t, "oldest"),
		Received: rapid.Int64Range(0, 99).Draw(t, "received"),
	}
	if rapid.Bool().Draw(t, "says current") {
		e.Current = rapid.SampledFrom(epochs).Draw(t, "current")
	}
	seqs := rapid.SliceOfN(rapid.Uint64Range(1, 25), 0, 6).Draw(t, "records")
	if rapid.IntRange(0, 9).Draw(t, "tidy") > 0 {
		slices.Sort(seqs)
		seqs = slices.Compact(seqs)
	}
	for _, n := range seqs {
		e.Records = append(e.Records, stream.Record{Seq: n, Message: stream.Message{Time: int64(n), Quality: stream.TimeLocal}})
	}
	for range rapid.IntRange(0, 2).Draw(t, "losses") {
		first := rapid.Uint64Range(1, 25).Draw(t, "loss")
		e.Losses = append(e.Losses, stream.Loss{
			Range:  stream.Range{First: first, Last: first + rapid.Uint64Range(0, 4).Draw(t, "more")},
			Reason: stream.Reason(rapid.IntRange(0, 4).Draw(t, "reason")),
			From:   rapid.Int64Range(0, 1).Draw(t, "from"), To: 2,
		})
	}
	return e
}

// The fold does what a map of numbers does; what is refused changes nothing;
// states once given out never change; what is encoded reads back.
func TestApplyAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := &DeviceCoverage{}
		m := &model{lanes: map[stream.ID]map[uint64]string{}, heads: map[stream.ID]uint64{}}
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			e := drawEntry(t)
			before, kept := dump(d), d.Clone()
			if want := len(e.Records) > 0 && e.Records[0].Seq < m.newest(e.ID); d.Late(e) != want {
				t.Fatalf("late %v, want %v", d.Late(e), want)
			}
			ch, err := d.Apply(e)
			if want := m.apply(e); (err == nil) != want {
				t.Fatalf("apply %+v: %v, the model says %v", e, err, want)
			}
			if err != nil {
				if !errors.Is(err, ErrInvalid) || dump(d) != before {
					t.Fatalf("refused with %v, and it changed: %v", err, dump(d) != before)
				}
				continue
			}
			if dump(kept) != before {
				t.Fatal("a state that was given out has changed")
			}
			if ch.Epoch != d.Epoch(e.ID.Epoch) || ch.Device != (kept.Current != d.Current) || ch.New != (kept.Epoch(e.ID.Epoch) == nil) {
				t.Fatalf("change %+v", ch)
			}
			if s := m.diff(d); s != "" {
				t.Fatal(s)
			}
			if d.Check(e) == nil && (len(e.Records) > 0 || len(e.Losses) > 0) {
				t.Fatalf("%+v would be taken twice", e)
			}
		}
		back, err := reload(d)
		if err != nil || dump(back) != dump(d) {
			t.Fatalf("encoded and read back: %v\n%s\n%s", err, dump(d), dump(back))
		}
	})
}

func reload(d *DeviceCoverage) (*DeviceCoverage, error) {
	var epochs []*EpochState
	for _, e := range d.Epochs {
		x, err := DecodeEpoch(AppendEpoch(nil, e))
		if err != nil {
			return &DeviceCoverage{}, err
		}
		epochs = append([]*EpochState{x}, epochs...) // any order
	}
	return LoadDevice(AppendDevice(nil, d), epochs)
}

func dump(d *DeviceCoverage) string {
	s := fmt.Sprintf("%s %d\n", d.Current, d.Forgotten)
	for _, e := range d.Epochs {
		s += fmt.Sprintf("%s %d closed %v\n", e.ID, e.Order, e.Closed)
		for _, lane := range stream.Lanes {
			l := &e.Lanes[lane]
			s += fmt.Sprintf(" in %s lost %s expired %s %v %v head %d floor %d old %d new %d got %d fifo %v\n",
				&l.In, &l.Lost, &l.Expired, l.Losses, l.LostBy, l.Head, l.Floor, l.Oldest, l.Newest, l.Received, l.FIFO)
		}
	}
	return s
}

func records(r stream.Range) (recs []stream.Record) {
	for n := r.First; n <= r.Last; n++ {
		recs = append(recs, stream.Record{Seq: n})
	}
	return recs
}

func testEpoch(n int) (e stream.Epoch) {
	e[0], e[1], e[2] = 1, byte(n>>8), byte(n)
	return e
}

// Forgotten are the first seen that are closed and complete, in all lanes; the
// one in use and the incomplete ones stay, and are forgotten once they qualify.
func TestForgetting(t *testing.T) {
	d := &DeviceCoverage{}
	apply := func(n int, lane stream.Lane, r stream.Range, head uint64, current int) Change {
		t.Helper()
		ch, err := d.Apply(&Entry{ID: stream.ID{Device: "a", Epoch: testEpoch(n), Lane: lane}, Records: records(r), Head: head, Current: testEpoch(current)})
		if err != nil {
			t.Fatal(err)
		}
		return ch
	}
	apply(1, stream.Urgent, stream.Range{First: 1, Last: 2}, 2, 1)
	apply(1, stream.Bulk, stream.Range{First: 1, Last: 1}, 2, 1) // one is still out there
	for n := 2; n <= MaxEpochs; n++ {
		if ch := apply(n, stream.Normal, stream.Range{First: 1, Last: 3}, 3, n); ch.Forgotten != nil {
			t.Fatalf("epoch %d: forgotten %v", n, ch.Forgotten)
		}
	}
	ch := apply(MaxEpochs+1, stream.Normal, stream.Range{First: 1, Last: 3}, 3, MaxEpochs+1)
	if !slices.Equal(ch.Forgotten, []stream.Epoch{testEpoch(2)}) || !ch.Device || d.Forgotten != 1 {
		t.Fatalf("forgotten %v, %d in all", ch.Forgotten, d.Forgotten)
	}
	if ch := apply(1, stream.Bulk, stream.Range{First: 2, Last: 2}, 2, MaxEpochs+1); ch.Forgotten != nil {
		t.Fatalf("at the limit, nothing is too many, but %v is forgotten", ch.Forgotten)
	}
	ch = apply(MaxEpochs+2, stream.Normal, stream.Range{First: 1}, 0, MaxEpochs+1)
	if !slices.Equal(ch.Forgotten, []stream.Epoch{testEpoch(1)}) {
		t.Fatalf("forgotten %v, want the first, which is complete now", ch.Forgotten)
	}
	back, err := reload(d)
	if err != nil || dump(back) != dump(d) {
		t.Fatalf("read back: %v", err)
	}
	// what was forgotten and comes again is a new one
	apply(1, stream.Urgent, stream.Range{First: 1, Last: 2}, 2, MaxEpochs+1)
	if e := d.Epoch(testEpoch(1)); e == nil || e.Order != MaxEpochs+3 {
		t.Fatalf("it came back as %+v", e)
	}
}

// The epoch in use is complete most of the time; it is never forgotten.
func TestEpochInUseStays(t *testing.T) {
	d := &DeviceCoverage{}
	for n := 1; n <= MaxEpochs+1; n++ { // the first one stays in use
		e := Entry{ID: stream.ID{Device: "a", Epoch: testEpoch(n), Lane: stream.Normal}, Records: records(stream.Range{First: 1, Last: 1}), Head: 1, Current: testEpoch(1)}
		if _, err := d.Apply(&e); err != nil {
			t.Fatal(err)
		}
	}
	if d.Forgotten != 1 || d.Epoch(testEpoch(1)) == nil || d.Epoch(testEpoch(2)) != nil {
		t.Fatalf("%d forgotten, the first is known: %v", d.Forgotten, d.Epoch(testEpoch(1)) != nil)
	}
}

func TestBounds(t *testing.T) {
	id := stream.ID{Device: "a", Epoch: testEpoch(1), Lane: stream.Normal}
	d := &DeviceCoverage{}
	var odd []stream.Record
	for n := range uint64(MaxRanges) {
		odd = append(odd, stream.Record{Seq: 2*n + 1})
	}
	apply := func(e Entry) error {
		e.ID = id
		_, err := d.Apply(&e)
		return err
	}
	if err := apply(Entry{Records: odd}); err != nil {
		t.Fatal(err)
	}
	if err := apply(Entry{Records: []stream.Record{{Seq: 2*MaxRanges + 2}}}); !errors.Is(err, ErrInvalid) {
		t.Fatalf("a range too many: %v", err)
	}
	if err := apply(Entry{Records: []stream.Record{{Seq: 2}}}); err != nil {
		t.Fatalf("closing a gap at the limit: %v", err)
	}
	if n := len(AppendEpoch(nil, d.Epoch(id.Epoch))); n >= 1<<20 {
		t.Fatalf("an epoch takes %d bytes", n)
	}

	id.Lane = stream.Bulk
	for n := range uint64(MaxLosses + 10) {
		if err := apply(Entry{Losses: []stream.Loss{{Range: stream.Range{First: 3*n + 1, Last: 3*n + 2}, Reason: stream.Expired}}}); err != nil {
			t.Fatal(err)
		}
	}
	l := d.Lane(id)
	if len(l.Losses) != MaxLosses || l.Losses[0].First != 31 || l.LostBy[stream.Expired] != 2*(MaxLosses+10) || l.Lost.Count() != 2*(MaxLosses+10) {
		t.Fatalf("%d losses from %d, %d in all", len(l.Losses), l.Losses[0].First, l.LostBy[stream.Expired])
	}

	full := &DeviceCoverage{}
	for n := range MaxIncomplete + 1 {
		e := Entry{ID: stream.ID{Device: "a", Epoch: stream.Epoch{2, byte(n >> 8), byte(n)}, Lane: stream.Normal}, Head: 1}
		if _, err := full.Apply(&e); (err == nil) != (n < MaxIncomplete) {
			t.Fatalf("incomplete epoch %d: %v", n, err)
		}
	}
}

// Times of loss are not widened to what nobody knows.
func TestMergeLosses(t *testing.T) {
	loss := func(first, last uint64, r stream.Reason, from, to int64) stream.Loss {
		return stream.Loss{Range: stream.Range{First: first, Last: last}, Reason: r, From: from, To: to}
	}
	got := mergeLosses(
		[]stream.Loss{loss(5, 6, stream.Evicted, 10, 20), loss(9, 9, stream.Evicted, 1, 2)},
		[]stream.Loss{loss(7, 8, stream.Evicted, 0, 0), loss(10, 10, stream.Expired, 1, 2), loss(1, 4, stream.Evicted, 3, 12)})
	want := []stream.Loss{loss(1, 6, stream.Evicted, 3, 20), loss(7, 8, stream.Evicted, 0, 0), loss(9, 9, stream.Evicted, 1, 2), loss(10, 10, stream.Expired, 1, 2)}
	if !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func TestExpire(t *testing.T) {
	id := stream.ID{Device: "a", Epoch: testEpoch(1), Lane: stream.Normal}
	d := &DeviceCoverage{}
	e := Entry{ID: id, Records: records(stream.Range{First: 3, Last: 9})}
	if _, err := d.Apply(&e); err != nil {
		t.Fatal(err)
	}
	kept := d.Clone()
	if d.Expire(id, stream.Range{First: 1, Last: 2}) != nil {
		t.Error("what never was in has expired")
	}
	if ch := d.Expire(id, stream.Range{First: 1, Last: 5}, stream.Range{First: 9, Last: 20}); ch == nil || ch.Lanes[id.Lane].Expired.String() != "3-5,9" {
		t.Errorf("expired: %+v", ch)
	}
	if d.Lane(id).In.String() != "3-9" || !kept.Lane(id).Expired.IsEmpty() {
		t.Error("expiry changed what is settled, or an older copy")
	}
}
