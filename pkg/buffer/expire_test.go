package buffer

import (
	"math"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/packetboat/packetboat/pkg/stream"
)

const (
	day   = int64(86_400) * microseconds
	today = 20_000 * day // 2024
)

var bootA, bootB = stream.Epoch{0xa}, stream.Epoch{0xb}

// Whether a message has expired is a matter of the boot's own clock; of the wall
// clock only after another boot, and only if it was known both times.
func TestRemaining(t *testing.T) {
	local, fixed, unknown := stream.TimeLocal, stream.TimeFixed, stream.TimeUnknown
	for _, c := range []struct {
		what    string
		at, now stream.Moment
		left    int64 // of 10 seconds
		known   bool
	}{
		{"fresh", stream.Moment{Time: today, Quality: local, Boot: bootA, Mono: 5}, stream.Moment{Time: today, Quality: local, Boot: bootA, Mono: 5}, 10 * microseconds, true},
		{"the clock jumps from 1970 to today", stream.Moment{Time: 5, Quality: local, Boot: bootA, Mono: 5}, stream.Moment{Time: today, Quality: local, Boot: bootA, Mono: 6}, 10*microseconds - 1, true},
		{"the clock jumps back to 1970", stream.Moment{Time: today, Quality: local, Boot: bootA, Mono: 5}, stream.Moment{Time: 0, Quality: local, Boot: bootA, Mono: 5 + 10*microseconds}, 0, true},
		{"another boot, 1970 was not believed", stream.Moment{Time: 5, Quality: unknown, Boot: bootA, Mono: 5}, stream.Moment{Time: today, Quality: local, Boot: bootB, Mono: 99 * day}, 0, false},
		{"another boot, not yet known", stream.Moment{Time: today, Quality: local, Boot: bootA, Mono: 5}, stream.Moment{Time: 99, Quality: unknown, Boot: bootB, Mono: 99 * day}, 0, false},
		{"another boot, known", stream.Moment{Time: today, Quality: fixed, Boot: bootA, Mono: 5}, stream.Moment{Time: today + 9*microseconds, Quality: local, Boot: bootB}, microseconds, true},
		{"another boot, back in time", stream.Moment{Time: today, Quality: local, Boot: bootA, Mono: 5}, stream.Moment{Time: 7, Quality: local, Boot: bootB}, 10 * microseconds, true},
		{"no boots", stream.Moment{Time: today, Quality: local, Mono: 5}, stream.Moment{Time: today + 11*microseconds, Quality: local, Mono: 5}, -microseconds, true},
		{"beyond reason", stream.Moment{Time: math.MinInt64, Quality: local}, stream.Moment{Time: math.MaxInt64, Quality: local}, 0, false},
	} {
		if left, known := remaining(c.at, c.now, 10); known != c.known || known && left != c.left {
			t.Errorf("%s: %d %v", c.what, left, known)
		}
	}
}

// A record tells its expiry and the moment it was accepted at, and one without
// has not a byte more than in format 1.
func TestExpiryInRecords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := stream.Message{Topic: rapid.StringN(0, 5, -1).Draw(t, "topic"), Payload: []byte("p"), Time: rapid.Int64().Draw(t, "time") / 4, Quality: stream.TimeQuality(rapid.IntRange(0, 2).Draw(t, "quality")), Expiry: rapid.Uint32().Draw(t, "expiry")}
		if rapid.Bool().Draw(t, "boot") {
			m.Boot, m.Mono = bootA, 7
		}
		if rapid.Bool().Draw(t, "properties") {
			m.Properties = &stream.Properties{ContentType: "c", CorrelationData: []byte("d"), User: []stream.Property{{Key: "k", Value: "v"}}, PayloadUTF8: rapid.Bool().Draw(t, "utf8")}
		}
		at := stream.Moment{Time: rapid.Int64().Draw(t, "accepted") / 4, Quality: stream.TimeFixed, Boot: bootB, Mono: rapid.Int64().Draw(t, "mono")}
		base := rapid.Int64().Draw(t, "base") / 4
		p := appendRecord(nil, stream.Normal, &m, base, recordRest(&m, base, &at), &at)
		raw, ok := nextRecord(p)
		if !ok || raw.size != len(p) {
			t.Fatalf("%d of %d bytes", raw.size, len(p))
		}
		var back stream.Message
		if _, ok := raw.decode(&back, base, make([]byte, 0, 10), func(p []byte) string { return string(p) }); !ok || !reflect.DeepEqual(back, m) {
			t.Fatalf("%+v reads back as %+v", m, back)
		}
		seconds, when := raw.expiry(base)
		if seconds != m.Expiry || seconds > 0 && when != at {
			t.Fatalf("%d s from %+v, want %d from %+v", seconds, when, m.Expiry, at)
		}
		if m.Expiry = 0; m.Properties == nil && raw.flags&^recProperties != appendRecord(nil, stream.Normal, &m, base, recordRest(&m, base, nil), nil)[0] {
			t.Fatal("a record without expiry is marked")
		}
	})
}

// expiring is a buffer whose clocks the test sets.
type expiring struct {
	*Buffer
	dir *memDir
	now stream.Moment
	o   Options
}

func newExpiring(t *testing.T, o Options) *expiring {
	e := &expiring{dir: newMemDir(), now: stream.Moment{Time: today, Quality: stream.TimeLocal, Boot: bootA, Mono: 1000}}
	o.Now = func() stream.Moment { return e.now }
	e.o, e.Buffer = o, nil
	e.Buffer = openMem(t, e.dir, o)
	return e
}

func (e *expiring) pass(seconds int64) {
	e.now.Mono += seconds * microseconds
	e.now.Time += seconds * microseconds
}

func (e *expiring) put(t *testing.T, lane stream.Lane, i int, seconds uint32) {
	t.Helper()
	m := message(i)
	m.Expiry = seconds
	if err := e.Append(lane, []stream.Message{m}, nil); err != nil {
		t.Fatal(err)
	}
	if err := e.commit(true); err != nil {
		t.Fatal(err)
	}
}

func (e *expiring) reopen(t *testing.T) {
	t.Helper()
	e.dir = cutNow(e.dir)
	e.Buffer = openMem(t, e.dir, e.o)
}

// What has expired does not leave: it is a loss, on flash before it is told,
// in its place among the others.
func TestExpiredIsALoss(t *testing.T) {
	b := newExpiring(t, testOptions())
	for i, seconds := range []uint32{10, 0, 10, 10, 100, 0} {
		b.put(t, stream.Normal, i+1, seconds)
	}
	b.pass(10)
	first, _ := next(t, b.Buffer, stream.Normal, Limit{})
	if len(first.Records) != 1 || first.First != 2 || len(first.Losses) != 1 || first.Losses[0].Range != (stream.Range{First: 1, Last: 1}) || first.Losses[0].Reason != stream.Expired || first.Losses[0].From != message(1).Time {
		t.Fatalf("%+v", first)
	}
	if s := b.Stats(); s.Lost[stream.Expired] != 2 || s.Expired != 2 || s.InFlight != 1 || s.Queued != 3 || !s.ConservationOK {
		t.Fatalf("%+v", s)
	}
	b.reopen(t) // the loss that was told was synced before, and with it the others
	if s := b.Stats(); s.Lost[stream.Expired] != 2 || s.Queued != 4 {
		t.Fatalf("%+v", s)
	}
	batch, _ := next(t, b.Buffer, stream.Normal, Limit{})
	rest, _ := next(t, b.Buffer, stream.Normal, Limit{})
	if batch.First != 2 || len(batch.Losses) != 1 || rest.First != 5 || len(rest.Records) != 2 || len(rest.Losses) != 1 || rest.Losses[0].Range != (stream.Range{First: 3, Last: 4}) {
		t.Fatalf("%+v, then %+v", batch, rest)
	}
}

// What is in flight does not expire; taken back, it does.
func TestInFlightDoesNotExpire(t *testing.T) {
	b := newExpiring(t, testOptions())
	b.put(t, stream.Normal, 1, 10)
	batch, _ := next(t, b.Buffer, stream.Normal, Limit{})
	b.pass(20)
	if _, ok := next(t, b.Buffer, stream.Normal, Limit{}); ok || b.Stats().InFlight != 1 || b.Stats().Lost[stream.Expired] != 0 {
		t.Fatalf("%+v", b.Stats())
	}
	b.Requeue(batch.ID, batch.First)
	again, ok := next(t, b.Buffer, stream.Normal, Limit{})
	if !ok || len(again.Records) != 0 || len(again.Losses) != 1 || again.First != 1 {
		t.Fatalf("%+v", again)
	}
	if err := b.Settle(again.ID, settled(&again)); err != nil {
		t.Fatal(err)
	}
	if s := b.Stats(); s.Lost[stream.Expired] != 1 || s.Queued+s.InFlight != 0 || !s.ConservationOK {
		t.Fatalf("%+v", s)
	}
}

// The wall clock jumps by decades, in both directions, over reopens: nothing
// expires by that.
func TestClockJumpsExpireNothing(t *testing.T) {
	b := newExpiring(t, testOptions())
	b.now = stream.Moment{Time: 5 * microseconds, Quality: stream.TimeUnknown, Boot: bootA, Mono: 1000}
	b.put(t, stream.Normal, 1, 60) // before the clock was set
	b.now.Time, b.now.Quality = today, stream.TimeLocal
	b.put(t, stream.Normal, 2, 60)
	b.now.Time = 0
	b.put(t, stream.Normal, 3, 60)
	b.now.Time = today
	alive := func(what string, n int) {
		t.Helper()
		batch, _ := next(t, b.Buffer, stream.Normal, Limit{})
		if len(batch.Records) != n || b.Stats().Lost[stream.Expired] != uint64(3-n) {
			t.Fatalf("%s: %d records, %+v", what, len(batch.Records), b.Stats())
		}
		b.RequeueAll()
	}
	alive("same boot", 3)
	b.reopen(t)
	alive("same boot, opened anew", 3)
	b.now = stream.Moment{Time: 7, Quality: stream.TimeUnknown, Boot: bootB, Mono: 1}
	b.reopen(t)
	alive("another boot, clock not set", 3)
	b.now.Time, b.now.Quality = 7, stream.TimeLocal
	alive("another boot, believes in 1970", 3)
}

// At the byte limit what has expired goes first, and gives its room.
func TestExpiredGivesRoom(t *testing.T) {
	for name, reopened := range map[string]bool{"as appended": false, "as recovered": true} {
		t.Run(name, func(t *testing.T) {
			o := testOptions()
			o.Lanes = map[stream.Lane]LaneOptions{stream.Urgent: {RefuseNew}, stream.Normal: {RefuseNew}, stream.Bulk: {RefuseNew}}
			b := newExpiring(t, o)
			fill := func() (n int) {
				for ; ; n++ {
					m := message(n)
					m.Payload, m.Expiry = make([]byte, 3000), 10
					if n%4 == 0 {
						m.Expiry = 0
					}
					if b.Append(stream.Normal, []stream.Message{m}, nil) != nil || b.commit(true) != nil {
						return n
					}
					b.makeRoom()
				}
			}
			before := fill()
			if reopened {
				b.reopen(t)
			}
			if more := fill(); more > 0 {
				t.Fatalf("%d messages after the journal was full", more)
			}
			flying, _ := next(t, b.Buffer, stream.Normal, Limit{Messages: 5})
			b.pass(10)
			b.makeRoom()
			if s := b.Stats(); len(flying.Records) != 5 || s.InFlight != 5 || s.Expired == 0 {
				t.Fatalf("%d were in flight: %+v", len(flying.Records), s)
			}
			if after := fill(); after < before/2 {
				t.Fatalf("room for %d, before for %d", after, before)
			}
			if s := b.Stats(); s.Expired < uint64(before)/2 || s.Lost[stream.Evicted] != 0 || !s.ConservationOK {
				t.Fatalf("%+v", s)
			}
		})
	}
}
