package codec

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/packetboat/packetboat/pkg/stream"
)

// anyMessage draws a message with every field in play.
func anyMessage() *rapid.Generator[stream.Message] {
	text := rapid.StringN(0, 12, 40)
	times := rapid.OneOf(rapid.Int64(), rapid.Just(int64(0)),
		rapid.Map(rapid.Int64Range(0, 5000), func(n int64) int64 { return 1700000000_000000 + n*1000 }),
		rapid.Map(rapid.Int64Range(0, 50), func(n int64) int64 { return 1700000000_000000 + n*1000000 }))
	return rapid.Custom(func(t *rapid.T) stream.Message {
		m := stream.Message{
			Topic:   rapid.OneOf(rapid.SampledFrom([]string{"", "a", "a/b", "a/bc", "vehicle/speed", "vehicle/spin"}), text).Draw(t, "topic"),
			Payload: rapid.OneOf(rapid.SliceOfN(rapid.Byte(), 0, 40), rapid.Just([]byte(`{"value":1}`))).Draw(t, "payload"),
			Time:    times.Draw(t, "time"),
			Quality: stream.TimeQuality(rapid.Uint8Range(0, 3).Draw(t, "quality")),
			QoS:     rapid.Uint8Range(0, 2).Draw(t, "qos"),
			Retain:  rapid.Bool().Draw(t, "retain"),
		}
		if rapid.Bool().Draw(t, "unknown clock") {
			m.Boot = stream.Epoch{rapid.Byte().Draw(t, "boot")}
			m.Mono = rapid.Int64().Draw(t, "mono")
		}
		if rapid.Bool().Draw(t, "properties") {
			p := &stream.Properties{
				ContentType: text.Draw(t, "type"), ResponseTopic: text.Draw(t, "response"),
				CorrelationData: rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(t, "correlation"),
				PayloadUTF8:     rapid.Bool().Draw(t, "utf8"),
			}
			for range rapid.IntRange(0, 4).Draw(t, "user properties") {
				p.User = append(p.User, stream.Property{Key: text.Draw(t, "key"), Value: text.Draw(t, "value")})
			}
			m.Properties = p
		}
		return m
	})
}

func anyRecords(t *rapid.T, first uint64, holes bool) []stream.Record {
	msgs := rapid.SliceOfN(anyMessage(), 1, 60).Draw(t, "messages")
	recs := make([]stream.Record, len(msgs))
	for i, m := range msgs {
		recs[i] = stream.Record{Seq: first, Message: m}
		first++
		if holes && rapid.Bool().Draw(t, "hole") {
			first += rapid.Uint64Range(1, 1<<40).Draw(t, "skipped")
		}
	}
	return recs
}

// same compares records, an empty slice or Properties without content being
// the same as none.
func same(a, b []stream.Record) bool {
	if len(a) != len(b) {
		return false
	}
	plain := func(r stream.Record) stream.Record {
		if len(r.Payload) == 0 {
			r.Payload = nil
		}
		if r.Properties.IsZero() {
			r.Properties = nil
		} else {
			p := *r.Properties
			if len(p.CorrelationData) == 0 {
				p.CorrelationData = nil
			}
			r.Properties = &p
		}
		return r
	}
	for i := range a {
		if !reflect.DeepEqual(plain(a[i]), plain(b[i])) {
			return false
		}
	}
	return true
}

// What comes back is what went in.
func TestRowsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		first := rapid.Uint64Range(1, math.MaxUint64-100).Draw(t, "first")
		seed := rapid.Uint32().Draw(t, "seed")
		recs := anyRecords(t, first, false)
		body, err := AppendRows([]byte("before"), recs, seed)
		if err != nil {
			t.Fatal(err)
		}
		if string(body[:6]) != "before" {
			t.Fatal("what was in dst has changed")
		}
		got, err := DecodeRows(body[6:], first, len(recs), seed, Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if !same(recs, got) {
			t.Fatalf("in  %+v\nout %+v", recs, got)
		}
		for i := range body {
			body[i] = 0xff // the records must not alias it
		}
		if !same(recs, got) {
			t.Fatal("the records alias the body")
		}
	})
}

func TestBlockRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		recs := anyRecords(t, rapid.Uint64Range(1, 1<<63).Draw(t, "first"), true)
		block, err := AppendBlock(nil, recs)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeBlock(block, Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if !same(recs, got) {
			t.Fatalf("in  %+v\nout %+v", recs, got)
		}
	})
}

// A body that was changed anywhere is refused: the check covers all of it, the
// seed included.
func TestChangedBodyIsRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		recs := anyRecords(t, 1, true)
		block, err := AppendBlock(nil, recs)
		if err != nil {
			t.Fatal(err)
		}
		bit := rapid.IntRange(0, len(block)*8-1).Draw(t, "bit")
		block[bit/8] ^= 1 << (bit % 8)
		if got, err := DecodeBlock(block, Limits{}); err == nil && !same(recs, got) {
			t.Fatal("decodes to something else")
		} else if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrTooLarge) {
			t.Fatalf("an error of no kind: %v", err)
		}
	})
	body, err := AppendRows(nil, []stream.Record{{Seq: 1}}, 7)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := DecodeRows(body, 1, 1, 8, Limits{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("another seed: %v", err)
	}
}

func message(topic string, payload []byte) stream.Record {
	return stream.Record{Seq: 1, Message: stream.Message{Topic: topic, Payload: payload, QoS: 1}}
}

func TestEncoderRefuses(t *testing.T) {
	tall := message("t", nil)
	tall.QoS = 3
	odd := message("t", nil)
	odd.Quality = 4
	for name, recs := range map[string][]stream.Record{
		"none":      {},
		"too many":  make([]stream.Record, MaxRecords+1),
		"qos":       {tall},
		"quality":   {odd},
		"topic":     {message(strings.Repeat("t", 65536), nil)},
		"too large": {message("t", make([]byte, MaxBytes))},
	} {
		if got, err := AppendRows([]byte("x"), recs, 0); !errors.Is(err, ErrInvalid) || string(got) != "x" {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	two := []stream.Record{{Seq: 5}, {Seq: 5}}
	if _, err := AppendBlock(nil, two); !errors.Is(err, ErrInvalid) {
		t.Errorf("the same number twice: %v", err)
	}
	if _, err := AppendBlock(nil, []stream.Record{{}}); !errors.Is(err, ErrInvalid) {
		t.Errorf("number 0: %v", err)
	}
}

func TestDecoderKeepsLimits(t *testing.T) {
	recs := make([]stream.Record, 10)
	for i := range recs {
		recs[i] = message("0123456789", make([]byte, 90))
		recs[i].Seq = uint64(i + 1)
		recs[i].Properties = &stream.Properties{User: []stream.Property{{}}}
	}
	body, err := AppendRows(nil, recs, 0)
	if err != nil {
		t.Fatal(err)
	}
	block, err := AppendBlock(nil, recs)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		Limits
		fits bool
	}{
		{Limits{10, 1320}, true}, {Limits{9, 1320}, false}, {Limits{10, 1319}, false}, {Limits{}, true}, {Limits{1 << 30, 1 << 40 >> 20}, true},
	} {
		_, err1 := DecodeRows(body, 1, 10, 0, c.Limits)
		_, err2 := DecodeBlock(block, c.Limits)
		for _, err := range []error{err1, err2} {
			if c.fits && err != nil || !c.fits && !errors.Is(err, ErrTooLarge) {
				t.Errorf("%+v: %v", c.Limits, err)
			}
		}
	}
}

// What zstd would shrink beyond the ratio that decoders accept goes plain.
func TestExtremeRatioGoesPlain(t *testing.T) {
	recs := []stream.Record{message("t", make([]byte, 1<<20))}
	body, err := AppendRows(nil, recs, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeRows(body, 1, 1, 0, Limits{}); err != nil || !same(recs, got) {
		t.Fatalf("%d bytes of body: %v", len(body), err)
	}
	p := packers.Get().(*packer)
	defer packers.Put(p)
	bomb := append(body[:4:4], formZstd)
	bomb = append(bomb, p.zstd.EncodeAll(make([]byte, 32<<20), nil)[len(magic):]...)
	if _, err := DecodeRows(bomb, 1, 1, 0, Limits{}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("%d bytes that claim 32 MB: %v", len(bomb), err)
	}
}

// A decoder keeps the limits and never panics, and what it accepts encodes again.
func FuzzDecodeRows(f *testing.F) {
	add := func(recs ...stream.Record) {
		body, err := AppendRows(nil, recs, 0)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body[bodyHead-1:], uint16(len(recs)))
		c := newRowColumns()
		plain, err := c.append([]byte{formPlain}, recs)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(plain, uint16(len(recs)))
	}
	add(message("a/b", []byte("1")))
	odd := message("a/c", []byte("22"))
	odd.Boot, odd.Mono, odd.Time = stream.Epoch{1}, 5, 1700000000_123456
	odd.Properties = &stream.Properties{ContentType: "x", CorrelationData: []byte{1}, User: []stream.Property{{Key: "k", Value: "v"}}}
	add(odd, message("a/b", []byte("1")), odd, message("a/b", []byte("12")), odd)
	f.Fuzz(func(t *testing.T, body []byte, count uint16) {
		limits := Limits{Records: 1000, Bytes: 100_000}
		recs, err := decodeUnchecked(body, int(count), limits)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrTooLarge) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		total := 0
		for i := range recs {
			total += contentSize(&recs[i])
		}
		if len(recs) != int(count) || len(recs) > limits.Records || total > limits.Bytes {
			t.Fatalf("%d records, %d bytes", len(recs), total)
		}
		again, err := AppendRows(nil, recs, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := DecodeRows(again, 1, len(recs), 0, limits); err != nil || !same(recs, got) {
			t.Fatalf("decoded again: %v", err)
		}
	})
}

// decodeUnchecked decodes a body without its check, which a fuzzer cannot guess.
func decodeUnchecked(body []byte, count int, limits Limits) ([]stream.Record, error) {
	if len(body) == 0 || count == 0 || count > limits.Records {
		return nil, ErrCorrupt
	}
	plain, err := unpack(body[0], body[1:], plainLimit(limits, count))
	if err != nil {
		return nil, err
	}
	d := rowDecoder{cursor: cursor{b: plain}, left: limits.Bytes}
	return d.decode(1, count)
}

func FuzzDecodeBlock(f *testing.F) {
	block, err := AppendBlock(nil, []stream.Record{{Seq: 3}, {Seq: 4}, {Seq: 9}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(block)
	f.Fuzz(func(t *testing.T, block []byte) {
		recs, err := DecodeBlock(block, Limits{Records: 1000, Bytes: 100_000})
		if err != nil {
			return
		}
		if _, err := AppendBlock(nil, recs); err != nil {
			t.Fatalf("accepted what cannot be encoded: %v", err)
		}
	})
}

// FuzzNumbers does the same for the head of a block, without its check.
func FuzzNumbers(f *testing.F) {
	f.Add(uint8(3), uint64(1), uint8(1), []byte{2, 5})
	f.Add(uint8(9), uint64(math.MaxUint64-9), uint8(0), []byte{})
	f.Fuzz(func(t *testing.T, count uint8, first uint64, holes uint8, runs []byte) {
		recs := make([]stream.Record, count)
		if count == 0 || first == 0 || number(recs, first, uint64(holes), cursor{b: runs}) != nil {
			return
		}
		for i := range recs {
			if recs[i].Seq < first || recs[i].Seq == math.MaxUint64 || i > 0 && recs[i].Seq <= recs[i-1].Seq {
				t.Fatalf("record %d has number %d", i, recs[i].Seq)
			}
		}
	})
}
