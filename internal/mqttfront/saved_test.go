package mqttfront

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/packetboat/packetboat/pkg/stream"
)

func drawPublish(t *rapid.T) *Publish {
	text := rapid.StringN(0, 10, 40)
	p := &Publish{
		Topic: rapid.StringMatching(`[a-z/]{1,20}`).Draw(t, "topic"), Payload: rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "payload"),
		QoS: byte(rapid.IntRange(1, 2).Draw(t, "qos")), Retain: rapid.Bool().Draw(t, "retain"),
		Expiry: uint32(rapid.SampledFrom([]int{0, 0, 1, 100, math.MaxUint32 >> 1}).Draw(t, "expiry")),
	}
	if rapid.Bool().Draw(t, "properties") {
		clean := func(s string) string { return strings.ReplaceAll(s, "\x00", "") }
		p.Properties = &stream.Properties{
			ContentType: clean(text.Draw(t, "type")), ResponseTopic: rapid.StringMatching(`[a-zü/]{0,9}`).Draw(t, "response"), CorrelationData: []byte(text.Draw(t, "data")),
			PayloadUTF8: rapid.Bool().Draw(t, "utf8"), User: []stream.Property{{Key: clean(text.Draw(t, "key")), Value: clean(text.Draw(t, "value"))}},
		}
	}
	return p
}

func sameLetter(a, b *letter) bool {
	return a.topic == b.topic && bytes.Equal(a.payload, b.payload) && bytes.Equal(a.props, b.props) && a.qos == b.qos && a.retain == b.retain &&
		a.until.IsZero() == b.until.IsZero() && a.until.Sub(b.until).Abs() <= time.Second
}

// What is saved is read back as it was.
func TestSavedRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		clock, now := stream.Moment{Time: 5e15, Quality: stream.TimeLocal, Mono: 77, Boot: stream.Epoch{1}}, time.Now()
		p := drawPublish(t)
		l := newLetter(rapid.StringN(0, 10, -1).Draw(t, "origin"), p, now)
		s := slot{m: &outMessage{letter: l, qos: byte(rapid.IntRange(1, int(l.qos)).Draw(t, "granted")), retain: l.retain}, n: 9, id: uint16(rapid.IntRange(1, 65535).Draw(t, "id"))}
		s.m.ids = rapid.SliceOfN(rapid.Uint32Range(1, maxSubID), 0, 3).Draw(t, "identifiers")
		got, ok := decodeOutbound(appendOutbound(&s, clock, now), clock, now)
		want := newLetter("", p, now)
		want.qos = s.m.qos
		if !ok || got.id != s.id || got.qos != s.m.qos || !sameLetter(got.m.letter, want) || len(got.m.ids) != len(s.m.ids) || got.m.retain != s.m.retain || !got.saved {
			t.Fatalf("outbound: %+v, %v", got, ok)
		}
		s.released, s.m = true, nil
		if got, ok = decodeOutbound(appendOutbound(&s, clock, now), clock, now); !ok || !got.released || got.id != s.id || got.qos != 2 {
			t.Fatalf("released: %+v, %v", got, ok)
		}
		l.retain = true
		kept, ok := decodeRetained(appendRetained(l, clock, l.remaining(now)), clock, now)
		if !ok || !sameLetter(kept, l) || kept.origin != l.origin {
			t.Fatalf("retained: %+v, %v", kept, ok)
		}
		sub := &subscription{filter: "$share/g/" + l.topic, qos: s.qos, asPublished: l.retain, handling: 2, identifier: 7}
		back, ok := decodeSubscription(sub.filter, appendSubscription(sub))
		if !ok || *back != *sub {
			t.Fatalf("subscription: %+v, %v", back, ok)
		}
	})
}

// Whatever stands in the Store: it is read, or refused, and what is read can be
// written again and is the same then.
func FuzzSaved(f *testing.F) {
	clock, now := stream.Moment{Time: 5e15, Quality: stream.TimeLocal}, time.Now()
	p := &Publish{Topic: "a/b", Payload: []byte("x"), QoS: 2, Expiry: 60, Properties: &stream.Properties{ContentType: "t", User: []stream.Property{{Key: "k", Value: "v"}}}}
	l := newLetter("origin", p, now)
	f.Add(appendRetained(l, clock, 60))
	f.Add(appendOutbound(&slot{m: &outMessage{letter: l, qos: 2, ids: []uint32{1, 2}}, id: 3}, clock, now))
	f.Add(appendOutbound(&slot{released: true, id: 3}, clock, now))
	f.Add(appendSubscription(&subscription{filter: "a", qos: 1, identifier: 5}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, ok := decodeRetained(b, clock, now); ok {
			again, ok := decodeRetained(appendRetained(l, clock, l.remaining(now)), clock, now)
			if !ok || !sameLetter(l, again) && l.until.IsZero() {
				t.Errorf("retained: %+v, again %+v", l, again)
			}
		}
		if s, ok := decodeOutbound(b, clock, now); ok {
			again, ok := decodeOutbound(appendOutbound(&s, clock, now), clock, now)
			if !ok || again.id != s.id || again.released != s.released {
				t.Errorf("outbound: %+v, again %+v", s, again)
			}
		}
		if s, ok := decodeSubscription("a/b", b); ok {
			if again, ok := decodeSubscription("a/b", appendSubscription(s)); !ok || *again != *s {
				t.Errorf("subscription: %+v, again %+v", s, again)
			}
		}
	})
}

// Time passes by the monotonic clock within a boot, by the wall clock over boots
// if it was believed both times, and else not at all.
func TestElapsed(t *testing.T) {
	a, b := stream.Epoch{1}, stream.Epoch{2}
	at := func(boot stream.Epoch, mono, wall int64, q stream.TimeQuality) stream.Moment {
		return stream.Moment{Boot: boot, Mono: mono, Time: wall, Quality: q}
	}
	for name, tc := range map[string]struct {
		from, to stream.Moment
		want     time.Duration
	}{
		"one boot, wall clock jumps":   {at(a, 1e6, 0, stream.TimeLocal), at(a, 4e6, 9e15, stream.TimeLocal), 3 * time.Second},
		"one boot, clock not known":    {at(a, 1e6, 0, stream.TimeUnknown), at(a, 4e6, 0, stream.TimeUnknown), 3 * time.Second},
		"other boot":                   {at(a, 9e6, 1e6, stream.TimeLocal), at(b, 1e6, 6e6, stream.TimeFixed), 5 * time.Second},
		"boots not known":              {at(stream.Epoch{}, 9e6, 1e6, stream.TimeLocal), at(stream.Epoch{}, 1e6, 6e6, stream.TimeLocal), 5 * time.Second},
		"other boot, clock not known":  {at(a, 1e6, 1e6, stream.TimeUnknown), at(b, 4e6, 6e6, stream.TimeLocal), 0},
		"other boot, not known now":    {at(a, 1e6, 1e6, stream.TimeLocal), at(b, 4e6, 6e6, stream.TimeUnknown), 0},
		"other boot, clock went back":  {at(a, 1e6, 6e6, stream.TimeLocal), at(b, 4e6, 1e6, stream.TimeLocal), 0},
		"rubbish that would overflow":  {at(a, math.MinInt64/2, 0, stream.TimeLocal), at(a, math.MaxInt64/2, 0, stream.TimeLocal), math.MaxInt64 / 1000 * 1000},
		"rubbish that overflows twice": {at(a, math.MinInt64, 0, stream.TimeLocal), at(a, math.MaxInt64, 0, stream.TimeLocal), 0},
	} {
		if got := elapsed(tc.from, tc.to); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}
