package logtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

// Harness is one log under test.
type Harness struct {
	Log commitlog.Log
	// Reopen closes the log and opens it again over the same data.
	Reopen func(t *testing.T) commitlog.Log
	// Expire deletes the oldest records of a shard, at least all below offset
	// and not all of the shard. nil: the log deletes nothing.
	Expire func(t *testing.T, shard int, offset int64)
}

// Run runs the contract's tests. open makes an empty log with the given number
// of shards, and sees to it that it is closed at the end of the test.
func Run(t *testing.T, open func(t *testing.T, shards int) *Harness) {
	for name, test := range map[string]func(t *testing.T, h *Harness){
		"Lossless":       testLossless,
		"Coverage":       testCoverage,
		"Rejected":       testRejected,
		"MaxGroup":       testMaxGroup,
		"Fencing":        testFencing,
		"FencingRace":    testFencingRace,
		"Barrier":        testBarrier,
		"Cursor":         testCursor,
		"Filters":        testFilters,
		"Follow":         testFollow,
		"Losses":         testLosses,
		"Retention":      testRetention,
		"ReadersBeside":  testReadersBeside,
		"NewIncarnation": testNewIncarnation,
		"Closed":         testClosed,
		"Forgetting":     testForgetting,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t, shards)) })
	}
}

const shards = 3

// device gives the i-th device of a shard.
func device(shard, i int) string {
	for n := 0; ; n++ {
		d := fmt.Sprintf("truck-%d", n)
		if commitlog.ShardOf(d, shards) != shard {
			continue
		}
		if i == 0 {
			return d
		}
		i--
	}
}

// epoch gives a fixed epoch.
func epoch(n int) (e stream.Epoch) {
	e[0], e[14], e[15] = 0xee, byte(n>>8), byte(n)
	return e
}

// message is an ordinary message of the given number.
func message(n uint64) stream.Message {
	return stream.Message{
		Topic: fmt.Sprintf("sensor/%d/value", n%7), Payload: fmt.Appendf(nil, "%d.5", n),
		Time: int64(1_000_000 * n), Quality: stream.TimeLocal, QoS: 1,
	}
}

// entry is an entry of the given records.
func entry(id stream.ID, ranges ...stream.Range) commitlog.Entry {
	e := commitlog.Entry{ID: id, Current: id.Epoch, Received: 1_700_000_000_000_000}
	for _, r := range ranges {
		for n := r.First; n <= r.Last; n++ {
			e.Records = append(e.Records, stream.Record{Seq: n, Message: message(n)})
			e.Head = n
		}
	}
	e.Floor = e.Head + 1
	return e
}

func span(first, last uint64) stream.Range { return stream.Range{First: first, Last: last} }

func acquire(t *testing.T, l commitlog.Log, shard int) commitlog.Owner {
	t.Helper()
	o, err := l.Acquire(t.Context(), shard)
	if err != nil {
		t.Fatalf("acquire shard %d: %v", shard, err)
	}
	return o
}

func mustAppend(t *testing.T, o commitlog.Owner, group ...commitlog.Entry) {
	t.Helper()
	if err := o.Append(t.Context(), group); err != nil {
		t.Fatalf("append: %v", err)
	}
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: got %v, want %v", what, err, want)
	}
}

// read collects what a Read without Follow gives.
func read(t *testing.T, r commitlog.Reader, from commitlog.Cursor, f commitlog.Filter) (all []commitlog.Stored) {
	t.Helper()
	for s, err := range r.Read(t.Context(), from, f) {
		if err != nil {
			t.Fatalf("read: %v", err)
		}
		all = append(all, s)
	}
	return all
}

// sameMessage compares all that a record holds; nil and empty are the same.
func sameMessage(a, b *stream.Message) bool {
	x, y := *a, *b
	if !bytes.Equal(x.Payload, y.Payload) {
		return false
	}
	x.Payload, y.Payload = nil, nil
	if x.Properties.IsZero() || y.Properties.IsZero() {
		if x.Properties.IsZero() != y.Properties.IsZero() {
			return false
		}
	} else {
		p, q := *x.Properties, *y.Properties
		if !bytes.Equal(p.CorrelationData, q.CorrelationData) || !slices.Equal(p.User, q.User) {
			return false
		}
		p.CorrelationData, q.CorrelationData, p.User, q.User = nil, nil, nil, nil
		if !reflect.DeepEqual(p, q) {
			return false
		}
	}
	x.Properties, y.Properties = nil, nil
	return reflect.DeepEqual(x, y)
}

// Encode gives all of a coverage as text for comparing.
func Encode(c *commitlog.DeviceCoverage) string {
	if c == nil {
		return "nil"
	}
	s := fmt.Sprintf("%x", commitlog.AppendDevice(nil, c))
	for _, e := range c.Epochs {
		s += fmt.Sprintf("\n%x closed=%v", commitlog.AppendEpoch(nil, e), e.Closed)
	}
	return s
}

// sameCoverage checks what the log says of a device, to owner and to readers.
func sameCoverage(t *testing.T, l commitlog.Log, o commitlog.Owner, device string, want *commitlog.DeviceCoverage) {
	t.Helper()
	got, err := l.Coverage(t.Context(), device)
	if err != nil {
		t.Fatalf("coverage of %s: %v", device, err)
	}
	if Encode(got) != Encode(want) {
		t.Fatalf("coverage of %s:\n%s\nwant:\n%s", device, Encode(got), Encode(want))
	}
	if o != nil {
		if got := o.Coverage(device); Encode(got) != Encode(want) {
			t.Fatalf("owner's coverage of %s:\n%s\nwant:\n%s", device, Encode(got), Encode(want))
		}
	}
}

func testLossless(t *testing.T, h *Harness) {
	d := device(1, 0)
	id := stream.ID{Device: d, Epoch: epoch(1), Lane: stream.Urgent}
	messages := []stream.Message{
		message(1),
		{Topic: "a"},
		{Topic: "über/ein/δ", Payload: []byte{0, 255, 10, 0}, Time: -5, Quality: stream.TimeFixed, QoS: 2, Retain: true},
		{Topic: "x/y", Payload: bytes.Repeat([]byte("0123456789"), 30_000), Time: 1<<62 + 7, Quality: stream.TimeLocal},
		{Topic: "clockless", Payload: []byte("{}"), Quality: stream.TimeUnknown, Boot: epoch(9), Mono: 123_456_789},
		{Topic: "props", Payload: []byte("1"), Time: 77, Quality: stream.TimeLocal, QoS: 1, Properties: &stream.Properties{
			ContentType: "text/plain", ResponseTopic: "answer/here", CorrelationData: []byte{1, 0, 2}, PayloadUTF8: true,
			User: []stream.Property{{Key: "a", Value: "1"}, {Key: "a", Value: "2"}, {Key: "", Value: ""}},
		}},
		{Topic: "props", Time: 78, Quality: stream.TimeLocal, Properties: &stream.Properties{PayloadUTF8: true}},
	}
	e := commitlog.Entry{ID: id, Head: 40, Floor: 2, Oldest: 99, Current: id.Epoch, Flags: stream.Backfill | stream.FIFO, Received: 1234}
	for i, m := range messages {
		e.Records = append(e.Records, stream.Record{Seq: uint64(3*i + 2), Message: m})
	}
	scratch := []commitlog.Entry{e}
	scratch[0].Records = slices.Clone(e.Records)
	for i := range scratch[0].Records {
		scratch[0].Records[i].Payload = slices.Clone(e.Records[i].Payload)
	}
	mustAppend(t, acquire(t, h.Log, 1), scratch...)
	for i := range scratch[0].Records { // the caller may use its memory again
		clear(scratch[0].Records[i].Payload)
		scratch[0].Records[i] = stream.Record{}
	}
	for _, l := range []commitlog.Log{h.Log, nil} {
		if l == nil {
			l = h.Reopen(t)
		}
		got := read(t, l, commitlog.Cursor{}, commitlog.Filter{})
		if len(got) != len(messages) {
			t.Fatalf("%d records, want %d", len(got), len(messages))
		}
		for i := range got {
			s := &got[i]
			if s.ID() != id || s.Seq != e.Records[i].Seq || s.Flags != e.Flags || s.Received != e.Received || s.Shard != 1 || s.Offset != got[0].Offset+int64(i) {
				t.Fatalf("record %d has another place: %+v", i, s)
			}
			if !sameMessage(&s.Message, &messages[i]) {
				t.Fatalf("record %d: %+v, want %+v", i, s.Message, messages[i])
			}
		}
	}
}

// testCoverage appends at random, keeps the fold beside it, and compares, also
// with what the records say, before and after opening again.
func testCoverage(t *testing.T, h *Harness) {
	rnd := rand.New(rand.NewPCG(1, 2))
	l := h.Log
	want := map[string]*commitlog.DeviceCoverage{}
	check := func(owners map[int]commitlog.Owner) {
		t.Helper()
		in := map[stream.ID]*stream.RangeSet{}
		for _, s := range read(t, l, commitlog.Cursor{}, commitlog.Filter{}) {
			if in[s.ID()] == nil {
				in[s.ID()] = &stream.RangeSet{}
			}
			if in[s.ID()].Contains(s.Seq) {
				t.Fatalf("%s %d is there twice", s.ID(), s.Seq)
			}
			in[s.ID()].Add(span(s.Seq, s.Seq))
		}
		for d, c := range want {
			sameCoverage(t, l, owners[commitlog.ShardOf(d, shards)], d, c)
			for _, e := range c.Epochs {
				for _, lane := range stream.Lanes {
					id := stream.ID{Device: d, Epoch: e.ID, Lane: lane}
					got := in[id]
					if got == nil {
						got = &stream.RangeSet{}
					}
					if !got.Equal(&e.Lanes[lane].In) {
						t.Fatalf("records of %s: %s, coverage says %s", id, got, &e.Lanes[lane].In)
					}
				}
			}
		}
	}
	for range 3 {
		owners := map[int]commitlog.Owner{}
		for i := range shards {
			owners[i] = acquire(t, l, i)
		}
		for range 40 {
			shard := rnd.IntN(shards)
			var group []commitlog.Entry
			for range 1 + rnd.IntN(4) {
				d := device(shard, rnd.IntN(2))
				if want[d] == nil {
					want[d] = &commitlog.DeviceCoverage{}
				}
				if e, ok := randomEntry(rnd, d, want[d]); ok {
					if _, err := want[d].Apply(&e); err != nil {
						t.Fatalf("the test made a bad entry: %v", err)
					}
					group = append(group, e)
				}
			}
			mustAppend(t, owners[shard], group...)
		}
		check(owners)
		l = h.Reopen(t)
		maps.DeleteFunc(want, func(_ string, c *commitlog.DeviceCoverage) bool { return len(c.Epochs) == 0 })
		check(nil)
		names := map[string]bool{}
		for d, err := range l.Devices(t.Context()) {
			if err != nil || names[d] || want[d] == nil {
				t.Fatalf("devices: %q %v", d, err)
			}
			names[d] = true
		}
		if len(names) != len(want) {
			t.Fatalf("%d devices, want %d", len(names), len(want))
		}
	}
}

// randomEntry makes an entry that settles nothing twice; false: by chance none.
func randomEntry(rnd *rand.Rand, d string, c *commitlog.DeviceCoverage) (commitlog.Entry, bool) {
	e := commitlog.Entry{
		ID:       stream.ID{Device: d, Epoch: epoch(rnd.IntN(3)), Lane: stream.Lanes[rnd.IntN(3)]},
		Head:     rnd.Uint64N(60),
		Floor:    rnd.Uint64N(3),
		Oldest:   rnd.Int64N(1000),
		Received: 1 + rnd.Int64N(1_000_000),
		Flags:    stream.Flags(rnd.IntN(4)),
	}
	if rnd.IntN(3) > 0 {
		e.Current = epoch(rnd.IntN(3))
	}
	settled := c.Settled(e.ID)
	at := 1 + rnd.Uint64N(50)
	for r := range settled.Missing(span(at, at+rnd.Uint64N(10))) {
		switch rnd.IntN(4) {
		case 0:
			e.Losses = append(e.Losses, stream.Loss{Range: r, Reason: stream.Reasons[rnd.IntN(3)], From: int64(at), To: int64(at) + 5})
		case 1:
		default:
			for n := r.First; n <= r.Last; n++ {
				e.Records = append(e.Records, stream.Record{Seq: n, Message: message(n)})
			}
		}
	}
	return e, rnd.IntN(5) > 0
}

func testRejected(t *testing.T, h *Harness) {
	o := acquire(t, h.Log, 0)
	a := stream.ID{Device: device(0, 0), Epoch: epoch(1), Lane: stream.Normal}
	b := stream.ID{Device: device(0, 1), Epoch: epoch(1), Lane: stream.Normal}
	mustAppend(t, o, entry(a, span(1, 10)))
	before, _ := h.Log.Coverage(t.Context(), a.Device)
	lost := func(e commitlog.Entry, losses ...stream.Loss) commitlog.Entry { e.Losses = losses; return e }
	bad := map[string][]commitlog.Entry{
		"settled number":       {entry(b, span(1, 5)), entry(a, span(10, 12))},
		"twice in the group":   {entry(a, span(11, 12)), entry(a, span(12, 13))},
		"loss of what is in":   {entry(b, span(1, 1)), lost(entry(a), stream.Loss{Range: span(9, 11), Reason: stream.Evicted})},
		"loss without reason":  {lost(entry(a), stream.Loss{Range: span(11, 11)})},
		"loss of its own":      {lost(entry(a, span(11, 13)), stream.Loss{Range: span(13, 14), Reason: stream.Evicted})},
		"out of order":         {entry(a, span(12, 12), span(11, 11))},
		"number 0":             {entry(a, span(0, 1))},
		"other shard's device": {entry(b, span(1, 1)), entry(stream.ID{Device: device(1, 0), Epoch: epoch(1), Lane: stream.Normal}, span(1, 1))},
		"bad device":           {entry(stream.ID{Device: "a/b", Epoch: epoch(1), Lane: stream.Normal}, span(1, 1))},
		"no lane":              {entry(stream.ID{Device: a.Device, Epoch: epoch(1)}, span(11, 11))},
		"no epoch":             {entry(stream.ID{Device: a.Device, Lane: stream.Normal}, span(11, 11))},
	}
	for name, group := range bad {
		wantErr(t, name, o.Append(t.Context(), group), commitlog.ErrRejected)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := o.Append(canceled, []commitlog.Entry{entry(b, span(1, 1))}); !errors.Is(err, commitlog.ErrRejected) && !errors.Is(err, commitlog.ErrUnknown) {
		t.Fatalf("canceled: %v", err)
	} else if errors.Is(err, commitlog.ErrUnknown) {
		o = acquire(t, h.Log, 0)
	}
	for _, l := range []commitlog.Log{h.Log, nil} {
		if l == nil {
			mustAppend(t, o) // it still owns
			l = h.Reopen(t)
		}
		if got := read(t, l, commitlog.Cursor{}, commitlog.Filter{}); len(got) != 10 {
			t.Fatalf("%d records, want the first 10", len(got))
		}
		sameCoverage(t, l, nil, a.Device, before)
		sameCoverage(t, l, nil, b.Device, nil)
	}
}

// testMaxGroup: every log takes a group at the limits.
func testMaxGroup(t *testing.T, h *Harness) {
	o := acquire(t, h.Log, 2)
	var group []commitlog.Entry
	rnd := rand.NewChaCha8([32]byte{1}) // does not compress
	per := commitlog.MaxGroupRecords / commitlog.MaxGroupEntries
	size := commitlog.MaxGroupBytes / commitlog.MaxGroupRecords
	for n, i := 0, 0; i < commitlog.MaxGroupEntries; n++ {
		d := fmt.Sprintf("a-very-long-name-as-some-fleets-have-it-for-historic-reasons-%04d", n%10000)[:stream.MaxDeviceID]
		d = fmt.Sprintf("%s%04d", d[:stream.MaxDeviceID-4], n%10000)
		if commitlog.ShardOf(d, shards) != 2 && n < 10000 {
			continue
		}
		if n >= 10000 { // more epochs of the same devices
			d = group[i%1000].ID.Device
		}
		e := commitlog.Entry{ID: stream.ID{Device: d, Epoch: epoch(n), Lane: stream.Bulk}, Current: epoch(n), Received: int64(n)}
		for k := range per {
			p := make([]byte, size-1)
			_, _ = rnd.Read(p)
			e.Records = append(e.Records, stream.Record{Seq: uint64(k + 1), Message: stream.Message{Topic: "t", Payload: p, Time: int64(n * k)}})
		}
		group = append(group, e)
		i++
	}
	mustAppend(t, o, group...)
	if got := read(t, h.Reopen(t), commitlog.Cursor{}, commitlog.Filter{}); len(got) != commitlog.MaxGroupRecords {
		t.Fatalf("%d records, want %d", len(got), commitlog.MaxGroupRecords)
	}
}
