package local

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/packetboat/packetboat/pkg/codec"
	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

var update = flag.Bool("update", false, "write the golden files anew")

// goldenGroup has two devices, three streams, holes, a record without a clock.
func goldenGroup() []commitlog.Entry {
	all := group(2, 4, 5)
	all[1].Records[3].Seq = 90
	all[1].Flags = stream.Backfill
	all = append(all, commitlog.Entry{
		ID: stream.ID{Device: "ship-7", Epoch: stream.Epoch{7}, Lane: stream.Urgent}, Received: 1_700_000_000_000_009, Flags: stream.FIFO,
		Records: []stream.Record{{Seq: 1 << 40, Message: stream.Message{Topic: "nmea", Payload: []byte{0, 1, 2}, Boot: stream.Epoch{5}, Mono: 77, QoS: 1, Retain: true,
			Properties: &stream.Properties{ContentType: "x", User: []stream.Property{{Key: "k", Value: "v"}}}}}},
	})
	return all
}

// describe gives all that a block holds as text.
func describe(b []byte) (string, error) {
	h, err := decodeHead(b)
	if err != nil {
		return "", err
	}
	var s strings.Builder
	err = h.records(func(i int, x *runHead, rec stream.Record) bool {
		p := rec.Properties
		rec.Properties = nil
		fmt.Fprintf(&s, "%d %s %d %d %+v %+v\n", i, x.id, x.flags, x.received, rec, p)
		return true
	})
	return s.String(), err
}

// largeGroup has a block that is worth learning.
func largeGroup() []commitlog.Entry {
	recs := make([]stream.Record, 200)
	for i := range recs {
		recs[i] = stream.Record{Seq: uint64(i + 1), Message: stream.Message{
			Topic: fmt.Sprintf("truck/%d", i%7), Payload: fmt.Appendf(nil, `{"ts":%d,"value":%d.5}`, 1_700_000_000_000+int64(i)*10, i%7*i%13),
			Time: 1_700_000_000_000_000 + int64(i)*10_000, Quality: stream.TimeLocal, QoS: 1,
		}}
	}
	return []commitlog.Entry{{ID: stream.ID{Device: "truck-1", Epoch: stream.Epoch{3}, Lane: stream.Normal}, Received: 1_700_000_003_000_000, Flags: stream.FIFO, Records: recs}}
}

// What a format version wrote must read for ever.
func TestGolden(t *testing.T) {
	t.Run("1", func(t *testing.T) { golden(t, "block-1.golden", goldenGroup(), "ship-7", codec.Rows) })
	t.Run("2", func(t *testing.T) { golden(t, "block-2.golden", largeGroup(), "truck-1", codec.Learning) })
}

func golden(t *testing.T, file string, group []commitlog.Entry, device string, id codec.ID) {
	blocks := cut(group)
	if len(blocks) != 1 {
		t.Fatalf("%d blocks", len(blocks))
	}
	x, err := encodeBlock(blocks[0])
	if err != nil {
		t.Fatal(err)
	}
	state := shardState{floor: 300, next: 70_000, bytes: 1 << 33, acquired: 9, expired: 300}
	path := filepath.Join("testdata", file)
	if *update {
		text := fmt.Sprintf("%x\n%x\n%x\n%x\n", x.body, x.index.encode(), encodeTimes(x.devices[device]), state.encode())
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var golden [4][]byte
	for i, line := range strings.Fields(string(text)) {
		if golden[i], err = hex.DecodeString(line); err != nil {
			t.Fatal(err)
		}
	}
	// the coder may come to write the body otherwise; what it reads as may not change
	got, err1 := describe(golden[0])
	want, err2 := describe(x.body)
	if err1 != nil || err2 != nil || got != want {
		t.Errorf("block: %v %v\n%s\nwant:\n%s", err1, err2, got, want)
	}
	if h, err := decodeHead(golden[0]); err != nil || codec.ID(h.body[0]) != id {
		t.Errorf("the block is not by %s: %v", id, err)
	}
	index, err := decodeIndex(golden[1])
	x.index.bytes, index.bytes = 0, 0
	if err != nil || index != x.index {
		t.Errorf("index: %+v %v, want %+v", index, err, x.index)
	}
	if times, err := decodeTimes(golden[2]); err != nil || times != x.devices[device] {
		t.Errorf("times: %+v %v, want %+v", times, err, x.devices[device])
	}
	if s, err := decodeShardState(golden[3]); err != nil || s != state || !bytes.Equal(s.encode(), golden[3]) {
		t.Errorf("state: %+v %v", s, err)
	}
}

// Invariants: never a panic; a block that is taken has as many records as its
// head says, at most maxBlockRecords, each with a number and a lane.
func FuzzBlock(f *testing.F) {
	x, err := encodeBlock(cut(goldenGroup())[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(x.body)
	f.Fuzz(func(t *testing.T, b []byte) {
		sealed := seal(append([]byte{}, b[:max(0, len(b)-4)]...)) // a wrong check would hide the rest
		h, err := decodeHead(sealed)
		if err != nil {
			return
		}
		want, n := 0, 0
		for i := range h.runs {
			want += h.runs[i].count
		}
		err = h.records(func(_ int, x *runHead, rec stream.Record) bool {
			if n++; rec.Seq == 0 || !x.id.Lane.Valid() {
				t.Fatalf("record %+v of %s", rec, x.id)
			}
			return true
		})
		if want > maxBlockRecords || err == nil && n != want {
			t.Fatalf("%d records, the head says %d", n, want)
		}
	})
}

// Invariants: never a panic; what is taken is within bounds.
func FuzzValues(f *testing.F) {
	f.Add((&blockIndex{count: 3, at: span{-5, 9}, received: 7, bytes: 100, parts: 1}).encode())
	f.Add((&shardState{floor: 1, next: 5, bytes: 9}).encode())
	f.Add(encodeTimes(span{-1 << 62, 1 << 62}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if x, err := decodeIndex(b); err == nil && (x.count < 1 || x.count > maxBlockRecords || x.parts < 1 || x.bytes < 0 || x.at.last < x.at.first) {
			t.Fatalf("index %+v", x)
		}
		if s, err := decodeShardState(b); err == nil && (s.floor < 0 || s.next < s.floor || s.bytes < 0) {
			t.Fatalf("state %+v", s)
		}
		if s, err := decodeTimes(b); err == nil && s.last < s.first {
			t.Fatalf("times %+v", s)
		}
	})
}
