package wire

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/packetboat/packetboat/pkg/codec"
	"github.com/packetboat/packetboat/pkg/stream"
	pb "github.com/packetboat/packetboat/proto/packetboat/v1"
)

const device = "truck-17"

var epochs = [...]stream.Epoch{{1}, {2}, {3}}

// anyBatch draws batches that often follow each other, as an uplink's do.
func anyBatch(next map[stream.ID]uint64) *rapid.Generator[stream.Batch] {
	return rapid.Custom(func(t *rapid.T) stream.Batch {
		id := stream.ID{Epoch: rapid.SampledFrom(epochs[:]).Draw(t, "epoch"), Lane: rapid.SampledFrom(stream.Lanes[:]).Draw(t, "lane")}
		b := stream.Batch{ID: id, First: max(next[id], 1), Flags: stream.Flags(rapid.Uint8Range(0, 3).Draw(t, "flags"))}
		if rapid.IntRange(0, 3).Draw(t, "elsewhere") == 0 {
			b.First = rapid.Uint64Range(1, 1<<62).Draw(t, "first")
		}
		for i := range rapid.IntRange(0, 4).Draw(t, "records") {
			b.Records = append(b.Records, stream.Record{Seq: b.First + uint64(i), Message: stream.Message{
				Topic: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "topic"), Time: int64(b.First+uint64(i)) * 1000, Payload: []byte{byte(i)},
			}})
		}
		b.Head = b.Last() + rapid.Uint64Range(0, 1000).Draw(t, "ahead")
		if len(b.Records) == 0 {
			b.First = rapid.Uint64Range(0, b.Head+1).Draw(t, "nowhere")
		}
		b.Floor = rapid.SampledFrom([]uint64{b.First, 1, b.Head + 1, max(b.First, 3) - 2}).Draw(t, "floor")
		b.Floor = min(b.Floor, b.Head+1)
		b.Oldest = rapid.SampledFrom([]int64{0, int64(b.Floor) * 1000, math.MinInt64, math.MaxInt64}).Draw(t, "oldest")
		if end := uint64(0); rapid.Bool().Draw(t, "losses") {
			for end+2 < b.First && len(b.Losses) < 3 {
				first := rapid.Uint64Range(end+1, b.First-1).Draw(t, "from")
				end = rapid.Uint64Range(first, b.First-1).Draw(t, "to")
				b.Losses = append(b.Losses, stream.Loss{
					Range: stream.Range{First: first, Last: end}, Reason: stream.Reason(rapid.Byte().Draw(t, "reason")),
					From: rapid.Int64().Draw(t, "oldest lost"), To: rapid.Int64().Draw(t, "newest lost"),
				})
			}
			if b.Head = max(b.Head, end); b.Floor > b.Head+1 {
				b.Floor = b.Head + 1
			}
		}
		if len(b.Records) > 0 {
			next[id] = b.Last() + 1
		}
		return b
	})
}

// What is decoded is what was encoded, also after resets and after batches that
// did not fit and were not sent.
func TestBatchesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := rapid.SampledFrom([]EncoderOptions{{}, {Codec: codec.Rows}, {Codec: codec.Learning}, {Codec: codec.Learning, State: 1 << 20}}).Draw(t, "encoder")
		o.MaxBytes = 200
		enc, dec := NewEncoder(o), NewDecoder(DecoderOptions{State: o.State})
		gen := anyBatch(make(map[stream.ID]uint64))
		for range rapid.IntRange(1, 12).Draw(t, "batches") {
			b := gen.Draw(t, "batch")
			if rapid.IntRange(0, 5).Draw(t, "reset") == 0 {
				enc.Reset()
			}
			packet, err := enc.Append([]byte{7}, &b)
			if errors.Is(err, ErrTooLarge) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if packet[0] != 7 || len(packet) > 201 {
				t.Fatalf("%d bytes, %d first", len(packet), packet[0])
			}
			got, err := dec.Decode(packet[1:], device)
			if err != nil {
				t.Fatal(err)
			}
			want := b
			want.ID.Device = device
			if !reflect.DeepEqual(want, got) {
				t.Fatalf("in  %+v\nout %+v", want, got)
			}
		}
	})
}

func simple(first uint64, n int) stream.Batch {
	b := stream.Batch{ID: stream.ID{Epoch: epochs[0], Lane: stream.Normal}, First: first, Head: first + uint64(n) - 1, Floor: first, Flags: stream.FIFO}
	for i := range n {
		b.Records = append(b.Records, stream.Record{Seq: first + uint64(i), Message: stream.Message{Topic: "a", Time: int64(first) * 1000, Payload: []byte("1")}})
	}
	b.Oldest = int64(first) * 1000
	return b
}

func encode(t testing.TB, e *Encoder, b stream.Batch) []byte {
	t.Helper()
	packet, err := e.Append(nil, &b)
	if err != nil {
		t.Fatal(err)
	}
	return packet
}

// After a batch that cannot be decoded, only a reset one can be.
func TestOutOfStep(t *testing.T) {
	enc, dec := NewEncoder(EncoderOptions{}), NewDecoder(DecoderOptions{})
	first, second, third := encode(t, enc, simple(1, 2)), encode(t, enc, simple(3, 2)), encode(t, enc, simple(5, 2))
	if _, err := dec.Decode(second, device); err == nil {
		t.Fatal("a connection that does not begin with a reset is accepted")
	}
	if _, err := dec.Decode(first, device); err != nil {
		t.Fatal(err)
	}
	broken := bytes.Clone(second)
	broken[len(broken)/2] ^= 1
	if _, err := dec.Decode(broken, device); err == nil || errors.Is(err, ErrOutOfStep) {
		t.Fatalf("a broken batch: %v", err)
	}
	for _, packet := range [][]byte{second, third} {
		if _, err := dec.Decode(packet, device); !errors.Is(err, ErrOutOfStep) {
			t.Fatalf("after a broken batch: %v", err)
		}
	}
	enc.Reset()
	if b, err := dec.Decode(encode(t, enc, simple(3, 2)), device); err != nil || b.First != 3 || !enc.WasFresh() {
		t.Fatalf("after a reset: %v", err)
	}
	if b, err := dec.Decode(encode(t, enc, simple(5, 1)), device); err != nil || b.First != 5 {
		t.Fatalf("after that: %v", err)
	}
}

// The envelope of a batch that follows the one before is a handful of bytes.
func TestEnvelopeIsSmall(t *testing.T) {
	enc := NewEncoder(EncoderOptions{})
	encode(t, enc, simple(1, 200))
	for _, c := range []struct {
		name  string
		batch func() stream.Batch
		most  int
	}{
		{"follows", func() stream.Batch { return simple(201, 200) }, 5},
		{"one more in flight", func() stream.Batch {
			b := simple(401, 200)
			b.Floor, b.Oldest = 201, 201_000
			return b
		}, 8},
		{"with a backlog", func() stream.Batch {
			b := simple(601, 200)
			b.Floor, b.Oldest, b.Head = 401, 401_000, 100_000
			return b
		}, 12},
	} {
		b := c.batch()
		packet := encode(t, enc, b)
		var m pb.Batch
		if err := proto.Unmarshal(packet, &m); err != nil {
			t.Fatal(err)
		}
		if n := len(packet) - len(m.GetBody()); n > c.most {
			t.Errorf("%s: an envelope of %d bytes, %d at most: %v", c.name, n, c.most, &m)
		}
	}
}

func TestEncoderRefuses(t *testing.T) {
	for name, change := range map[string]func(*stream.Batch){
		"no lane":          func(b *stream.Batch) { b.ID.Lane = 0 },
		"no epoch":         func(b *stream.Batch) { b.ID.Epoch = stream.Epoch{} },
		"number 0":         func(b *stream.Batch) { b.First = 0 },
		"overflow":         func(b *stream.Batch) { b.First = math.MaxUint64 - 1 },
		"above the head":   func(b *stream.Batch) { b.Head = 10 },
		"floor":            func(b *stream.Batch) { b.Floor = 13 },
		"a wrong number":   func(b *stream.Batch) { b.Records[1].Seq = 13 },
		"loss of a record": func(b *stream.Batch) { b.Losses = []stream.Loss{{Range: stream.Range{First: 9, Last: 10}}} },
		"loss of 0":        func(b *stream.Batch) { b.Losses = []stream.Loss{{Range: stream.Range{Last: 1}}} },
		"loss above head":  func(b *stream.Batch) { b.Losses = []stream.Loss{{Range: stream.Range{First: 12, Last: 13}}} },
		"losses unordered": func(b *stream.Batch) {
			b.Losses = []stream.Loss{{Range: stream.Range{First: 2, Last: 3}}, {Range: stream.Range{First: 3, Last: 3}}}
		},
		"too many losses":   func(b *stream.Batch) { b.Losses = make([]stream.Loss, MaxLosses+1) },
		"an invalid record": func(b *stream.Batch) { b.Records[0].QoS = 3 },
	} {
		b := simple(10, 2)
		change(&b)
		if out, err := NewEncoder(EncoderOptions{}).Append(nil, &b); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %x, %v", name, out, err)
		}
	}
}

// What a decoder refuses, and that losses always name their stream.
func TestDecoderRefuses(t *testing.T) {
	zero := uint64(0)
	for name, c := range map[string]func(*pb.Batch){
		"lane":               func(m *pb.Batch) { m.Lane = 4 },
		"no lane":            func(m *pb.Batch) { m.Lane = 0 },
		"short epoch":        func(m *pb.Batch) { m.Epoch = m.Epoch[:15] },
		"epoch of zeros":     func(m *pb.Batch) { m.Epoch = make([]byte, 16) },
		"no epoch":           func(m *pb.Batch) { m.Epoch = nil },
		"not reset":          func(m *pb.Batch) { m.Reset_ = false },
		"first 0":            func(m *pb.Batch) { m.First = &zero },
		"another first":      func(m *pb.Batch) { *m.First = 6; m.FloorBelow = 0 },
		"another count":      func(m *pb.Batch) { m.Count = 3; m.HeadAhead = 0 },
		"count without body": func(m *pb.Batch) { m.Body = nil },
		"body without count": func(m *pb.Batch) { m.Count = 0 },
		"huge count":         func(m *pb.Batch) { m.Count = math.MaxUint32; m.HeadAhead = 0 },
		"codec":              func(m *pb.Batch) { m.Codec = 2 },
		"no codec":           func(m *pb.Batch) { m.Codec = 0 },
		"head below":         func(m *pb.Batch) { m.HeadAhead = -1 },
		"floor above":        func(m *pb.Batch) { m.FloorBelow = -3 },
		"flags":              func(m *pb.Batch) { f := uint32(256); m.Flags = &f },
		"loss overflow":      func(m *pb.Batch) { m.Losses = []*pb.Loss{{Skip: math.MaxUint64}} },
		"long loss":          func(m *pb.Batch) { m.Losses = []*pb.Loss{{More: math.MaxUint64}} },
		"loss of a record":   func(m *pb.Batch) { m.Losses = []*pb.Loss{{More: 4}} },
		"loss reason":        func(m *pb.Batch) { m.Losses = []*pb.Loss{{Reason: 256}} },
		"too many losses": func(m *pb.Batch) {
			for range MaxLosses + 1 {
				m.Losses = append(m.Losses, &pb.Loss{})
			}
		},
	} {
		var m pb.Batch
		if err := proto.Unmarshal(encode(t, NewEncoder(EncoderOptions{}), simple(5, 2)), &m); err != nil {
			t.Fatal(err)
		}
		c(&m)
		packet, err := proto.Marshal(&m)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := NewDecoder(DecoderOptions{}).Decode(packet, device); err == nil {
			t.Errorf("%s: accepted as %+v", name, got)
		}
	}
	enc, dec := NewEncoder(EncoderOptions{}), NewDecoder(DecoderOptions{})
	if _, err := dec.Decode(encode(t, enc, simple(5, 2)), device); err != nil {
		t.Fatal(err)
	}
	packet, err := proto.Marshal(&pb.Batch{Losses: []*pb.Loss{{}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dec.Decode(packet, device); !errors.Is(err, ErrMalformed) {
		t.Errorf("losses without an epoch: %v", err)
	}
}

// A field that is not known here comes from a newer edge and is passed over.
func TestUnknownFieldsArePassedOver(t *testing.T) {
	packet := append(encode(t, NewEncoder(EncoderOptions{}), simple(1, 1)), 0xf8, 0x07, 1)
	if _, err := NewDecoder(DecoderOptions{}).Decode(packet, device); err != nil {
		t.Error(err)
	}
}

func TestDecoderKeepsLimits(t *testing.T) {
	packet := encode(t, NewEncoder(EncoderOptions{}), simple(1, 10))
	for _, o := range []DecoderOptions{{MaxRecords: 9}, {MaxBytes: 19}} {
		if _, err := NewDecoder(o).Decode(packet, device); err == nil {
			t.Errorf("%+v: accepted", o)
		}
	}
	if _, err := NewDecoder(DecoderOptions{MaxRecords: 10, MaxBytes: 20}).Decode(packet, device); err != nil {
		t.Error(err)
	}
}

// Whatever arrives, the decoder does not panic, and what it accepts keeps the
// rules and encodes again.
func FuzzDecode(f *testing.F) {
	enc := NewEncoder(EncoderOptions{})
	f.Add(encode(f, enc, simple(1, 3)), encode(f, enc, simple(4, 3)))
	loss := simple(9, 0)
	loss.Losses = []stream.Loss{{Range: stream.Range{First: 7, Last: 8}, Reason: stream.Evicted, From: 5, To: 6}}
	f.Add(encode(f, enc, loss), []byte{})
	enc = NewEncoder(EncoderOptions{Codec: codec.Learning, State: codec.MinState})
	f.Add(encode(f, enc, simple(1, 3)), encode(f, enc, simple(4, 3)))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		dec, again := NewDecoder(DecoderOptions{MaxRecords: 100, MaxBytes: 1000, State: codec.MinState}), NewEncoder(EncoderOptions{Codec: codec.Learning, State: codec.MinState})
		for _, packet := range [][]byte{one, two} {
			b, err := dec.Decode(packet, device)
			if err != nil {
				if _, err := dec.Decode(nil, device); err == nil {
					t.Fatal("in step after an error")
				}
				return
			}
			if bad := checkBatch(&b, len(b.Records)); bad != "" {
				t.Fatalf("accepted with %s", bad)
			}
			if _, err := again.Append(nil, &b); err != nil {
				t.Fatal(err)
			}
		}
	})
}
