package wire

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
