package codec

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/packetboat/packetboat/pkg/stream"
)

// odd are payloads that are nearly numbers, templates or sentences.
var odd = []string{
	"", "0", "-0", "-0.00", "00", "007", "1e5", "-1", "--1", "1.", ".5", "1.50", "1.5", "27.0", "0.004532068199369834",
	"999999999999999999", "9999999999999999999", "-9223372036854775808", "12345678901234567890.123456789012345678901234567890",
	"0.0000000000000000000000001", "000000000000000000000000000000000000001", "$GPZDA,095603,,,,00,*41", "$GPZDA,095603,,,,00,*42",
	"$*00", "!*", "$GPZDA,095603,,,,00,*41\r\n", "$A*B*03", "$A*B*69", "true", "false", "[true,false,true]", "truefalse", "\x01\x02", "\x00", "a\x00b", "\xff\xfe",
	"é", "a1b2c3d4", "5e:44:3b:f3:79:c8", "5e:44:3b:f3:79:C8", "00,11,22,33,44", "00FF11EE", "00112233", "00ff11ee", "deadbeef", "00ff11e",
	"2014-08-15T19:00:00.042Z", "1 2 3 4 5", "NaN", "-Inf", "1-2-3", "1.2.3.4", "{\"a\":1,\"b\":-0.10}", "0x1F", "1_000", "\n", "$A\x80*00",
	strings.Repeat("7", 3000), strings.Repeat("1,", 600), strings.Repeat("text ", 3500), strings.Repeat("\x00\x01", 2100),
}

func oddRecords(r *rand.Rand, n int) []stream.Record {
	recs := make([]stream.Record, n)
	now := int64(1_700_000_000_000_000)
	for i := range recs {
		p := odd[r.IntN(len(odd))]
		if r.IntN(4) == 0 {
			p += odd[r.IntN(len(odd))]
		}
		now += r.Int64N(1 << 20)
		m := &recs[i].Message
		*m = stream.Message{Topic: "t/" + odd[r.IntN(8)], Payload: []byte(p), Time: now / 1000 * 1000, Quality: 1, QoS: uint8(r.IntN(3))}
		switch r.IntN(20) {
		case 0:
			m.Time = int64(r.Uint64())
		case 1:
			m.Quality, m.Boot, m.Mono = 0, stream.Epoch{byte(r.IntN(2))}, r.Int64()
		case 2:
			m.Properties = &stream.Properties{ContentType: "x", CorrelationData: []byte("c" + p), User: []stream.Property{{Key: "k", Value: "v"}}}
		case 3:
			m.Retain = true
		}
	}
	return recs
}

func equal(t *testing.T, got, want []stream.Record) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d records, want %d", len(got), len(want))
	}
	for i := range want {
		g, w := got[i].Message, want[i].Message
		if !bytes.Equal(g.Payload, w.Payload) {
			t.Fatalf("record %d: payload %q, want %q", i, g.Payload, w.Payload)
		}
		g.Payload, w.Payload = nil, nil
		if !reflect.DeepEqual(g, w) {
			t.Fatalf("record %d: %+v, want %+v", i, g, w)
		}
	}
}

func TestOddPayloads(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	e, d := NewEncoder(MinState), NewDecoder(MinState)
	for range 60 {
		recs := oddRecords(r, 1+r.IntN(60))
		body, err := e.Append(nil, recs, 5)
		if err != nil {
			t.Fatal(err)
		}
		got, err := d.Decode(body, 1, 5, Limits{})
		if err != nil {
			t.Fatal(err)
		}
		equal(t, got, recs)
		if e.Position() != d.Position() || e.s.used != d.s.used {
			t.Fatalf("positions %v %v, state %d %d", e.Position(), d.Position(), e.s.used, d.s.used)
		}
	}
}

// An encoder that goes back goes on as one that never went further.
func TestGoBack(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	e, d := NewEncoder(DefaultState), NewDecoder(DefaultState)
	for range 40 {
		for range 1 + r.IntN(20) {
			recs := oddRecords(r, 1+r.IntN(40))
			body, err := e.Append(nil, recs, 5)
			if err != nil {
				t.Fatal(err)
			}
			if r.IntN(5) == 0 {
				break // not delivered, nor what follows
			}
			got, err := d.Decode(body, 1, 5, Limits{})
			if err != nil {
				t.Fatal(err)
			}
			equal(t, got, recs)
			if r.IntN(2) == 0 {
				e.Confirm(d.Position().Bodies)
			}
		}
		if err := e.GoBack(d.Position()); err != nil {
			t.Fatal(err)
		}
		if e.s.used != max(d.StateBytes(), sizeState) {
			t.Fatalf("state %d, the decoder's %d", e.s.used, d.StateBytes())
		}
	}
}
