package wire

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/packetboat/packetboat/pkg/codec"
	"github.com/packetboat/packetboat/pkg/stream"
)

// examples are the batches of docs/protocol.md, in the order of one connection.
func examples() []stream.Batch {
	id := stream.ID{Epoch: stream.Epoch{0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10}, Lane: stream.Normal}
	record := func(n uint64, topic string, ms int64, payload string) stream.Record {
		return stream.Record{Seq: n, Message: stream.Message{Topic: topic, Time: 1_700_000_000_000_000 + ms*1000, Payload: []byte(payload), QoS: 1, Quality: stream.TimeLocal}}
	}
	first := stream.Batch{ID: id, First: 1, Head: 2, Floor: 1, Flags: stream.FIFO, Records: []stream.Record{
		record(1, "car/rpm", 0, "770"), record(2, "car/speed", 1, "0"),
	}}
	first.Oldest = first.Records[0].Time
	second := stream.Batch{ID: id, First: 3, Head: 9, Floor: 1, Flags: stream.FIFO, Records: []stream.Record{
		record(3, "car/rpm", 76, "766"),
	}}
	second.Oldest = first.Oldest
	third := stream.Batch{ID: id, First: 4, Head: 9, Floor: 3, Flags: stream.FIFO, Oldest: second.Records[0].Time, Losses: []stream.Loss{{
		Range: stream.Range{First: 4, Last: 6}, Reason: stream.Evicted, From: 1_700_000_000_100_000, To: 1_700_000_000_300_000,
	}}}
	return []stream.Batch{first, second, third}
}

// The examples of docs/protocol.md are what the encoder writes, and read back.
func TestDocumentedExamples(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "protocol.md"))
	if err != nil {
		t.Fatal(err)
	}
	enc, dec := NewEncoder(EncoderOptions{}), NewDecoder(DecoderOptions{})
	for i, b := range examples() {
		packet := encode(t, enc, b)
		if want := hex.EncodeToString(packet); !strings.Contains(string(text), "`"+want+"`") {
			t.Errorf("example %d is not in docs/protocol.md:\n%s", i+1, want)
		}
		if _, err := dec.Decode(packet, device); err != nil {
			t.Error(err)
		}
	}
	held := FormatHeld([]stream.Held{
		{Epoch: epochs[0], Lane: stream.Normal, Ranges: stream.NewRangeSet(stream.Range{First: 1, Last: 9000}, stream.Range{First: 9005, Last: 9005}), Head: 9010, Answered: logs[1]},
		{Epoch: epochs[1], Lane: stream.Urgent, Head: 7, Current: true, Answered: logs[1]},
	})
	cov := FormatCoverage([]stream.EpochCoverage{{Epoch: epochs[0], Lanes: []stream.LaneCoverage{
		{Lane: stream.Normal, Settled: stream.NewRangeSet(stream.Range{First: 1, Last: 9000}), Lost: stream.NewRangeSet(stream.Range{First: 17, Last: 20})},
		{Lane: stream.Urgent, Settled: stream.NewRangeSet(stream.Range{First: 1, Last: 2}, stream.Range{First: 5, Last: 5})},
	}}, {Epoch: epochs[1]}})
	answer := FormatAnswer(stream.NewRangeSet(stream.Range{First: 17, Last: 20}), stream.NewRangeSet(stream.Range{First: 3, Last: 3}))
	for _, p := range append(append(held, cov...), answer...) {
		if want := "`" + p.Key + ": " + p.Value + "`"; !strings.Contains(string(text), want) {
			t.Errorf("not in docs/protocol.md: %s", want)
		}
	}
}

// The learned examples are what the encoder writes around bodies.
func TestDocumentedLearnedExamples(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "protocol.md"))
	if err != nil {
		t.Fatal(err)
	}
	all := examples()
	next := func(b stream.Batch, n uint64) stream.Batch {
		b.Records = append([]stream.Record(nil), b.Records...)
		for i := range b.Records {
			b.Records[i].Seq += n
		}
		b.First, b.Floor, b.Head, b.Oldest = b.First+n, b.First+n, b.Head+n, b.Records[0].Time
		return b
	}
	enc, dec := NewEncoder(learning), NewDecoder(DecoderOptions{State: learning.State})
	for i, want := range []string{"`0a n …`, then `18022210` `0123456789abcdeffedcba9876543210` `480258026001`", "`0a n …`, and nothing else.", "`0a n …`, then `18022210` `0123456789abcdeffedcba9876543210` `28054802`"} {
		if i == 2 { // the next connection
			o := learning
			o.Session = enc.Session()
			enc, dec = NewEncoder(o), NewDecoder(DecoderOptions{State: o.State, Session: dec.Session()})
		}
		packet := encode(t, enc, next(all[0], uint64(2*i)))
		if packet[0] != 0x0a || int(packet[1]) != enc.BodyBytes() {
			t.Fatalf("no body first: %x", packet)
		}
		rest := hex.EncodeToString(packet[2+enc.BodyBytes():])
		said := strings.NewReplacer("`0a n …`, then ", "", "`0a n …`, and nothing else.", "", "`", "", " ", "").Replace(want)
		if !strings.Contains(string(text), want) || rest != said {
			t.Errorf("learned example %d: %s, said %s", i+1, rest, said)
		}
		if _, err := dec.Decode(packet, device); err != nil {
			t.Error(err)
		}
	}
	offer := FormatCodecOffer(CodecOffer{Codec: codec.Learning, Resume: true, Oldest: 41, Last: 57})
	grant := FormatCodecGrant(CodecGrant{Codec: codec.Learning, State: codec.DefaultState, Resume: true, At: codec.Position{Bodies: 56, Digest: 0x00c0ffee12345678}})
	less := FormatCodecGrant(CodecGrant{Codec: codec.Learning})
	for _, p := range []stream.Property{offer, grant, less} {
		if want := "`" + p.Key + ": " + p.Value + "`"; !strings.Contains(string(text), want) {
			t.Errorf("not in docs/protocol.md: %s", want)
		}
	}
}
