package buffer

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/packetboat/packetboat/pkg/stream"
)

var update = flag.Bool("update", false, "write the golden files anew")

const goldenJournal = "testdata/journal-v2.zip" // what -update writes

// fixedState is a state in which every field of a snapshot has a value.
func fixedState() (*state, []*segment) {
	a, b := stream.Epoch{0xaa}, stream.Epoch{0xbb}
	s := &state{ordinal: 7, accepted: 400, acceptedBytes: 50_000, settled: 100, ledgerMax: 10}
	s.lost[stream.Evicted], s.lost[stream.RefusedByLog] = 5, 2
	old := &epoch{id: a, ordinal: 6, answered: testLog}
	old.lanes[stream.Normal] = laneState{head: 300, done: stream.NewRangeSet(stream.Range{First: 1, Last: 100}, stream.Range{First: 150, Last: 154}),
		losses: []stream.Loss{{Range: stream.Range{First: 150, Last: 154}, Reason: stream.Evicted, From: -1, To: 99}}}
	s.epochs = []*epoch{old, {id: b, ordinal: 7}}
	s.ledger = []LedgerEntry{{ID: stream.ID{Epoch: a, Lane: stream.Normal}, Loss: stream.Loss{Range: stream.Range{First: 3, Last: 4}, Reason: stream.RefusedByLog}, Declared: true}}
	seg := &segment{due: neverDue, id: 2, generation: 3, salt: 0x1122334455667788, end: 40960}
	seg.store(&group{epoch: a, lane: stream.Normal, first: 101, count: 200, from: 5, to: 6, bytes: 7000})
	return s, []*segment{seg}
}

// keep gives a segment of fixedState entries of the map.
func keep(seg *segment) {
	for _, slot := range []uint32{1, 2, 70} {
		seg.kept.set(slot, 0)
	}
	seg.kept.slots, seg.due = 90, 0
	seg.kept.note(2*pageSize, 4*pageSize)
	seg.kept.note(6*pageSize, 7*pageSize)
}

// A snapshot of format 1 has no map; it reads as it always did.
func TestGoldenSnapshotV1(t *testing.T) {
	text, err := os.ReadFile("testdata/frames-v1.txt")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ = bytes.Cut(text, []byte("snapshot frame\n"))
	text, _, _ = bytes.Cut(text, []byte("data frame\n"))
	var frame []byte
	for line := range strings.Lines(string(text)) {
		for _, octet := range strings.Fields(line[10:58]) {
			p, err := hex.DecodeString(octet)
			if err != nil {
				t.Fatal(err)
			}
			frame = append(frame, p...)
		}
	}
	want, wantLive := fixedState()
	if _, ok := parseFrame(frame); !ok {
		t.Fatal("the frame does not validate")
	}
	got, live, ok := decodeSnapshot(frame[frameHeader:], want.ledgerMax)
	if !ok || !reflect.DeepEqual(got, want) || !reflect.DeepEqual(live, wantLive) {
		t.Fatalf("reads as %+v %+v", got, live)
	}
}

// The bytes that are written stay as they are.
func TestGoldenBytes(t *testing.T) {
	var out strings.Builder
	dump := func(name string, p []byte) { fmt.Fprintf(&out, "%s\n%s", name, hex.Dump(p)) }
	seg := &segment{size: minSegmentBytes, generation: 5, salt: 0x0102030405060708}
	head := make([]byte, headerBytes)
	(&segmentHeader{journal: stream.Epoch{1, 2, 3}, size: seg.size, generation: seg.generation, salt: seg.salt}).encode(head)
	dump("segment header", head)

	s, live := fixedState()
	keep(live[0])
	snapshot := appendSnapshot(make([]byte, frameHeader), s, live)
	n := len(snapshot)
	dump("snapshot frame", sealFrame(snapshot, seg, frameInfo{kind: kindSnapshot})[:n])
	back, backLive, ok := decodeSnapshot(snapshot[frameHeader:n], s.ledgerMax)
	if !ok || !reflect.DeepEqual(back, s) || !reflect.DeepEqual(backLive, live) {
		t.Errorf("snapshot reads back as %+v %+v", back, backLive)
	}

	c := &chunk{}
	c.reset()
	c.base = 1_700_000_000_000_000
	for i, lane := range []stream.Lane{stream.Bulk, stream.Normal, stream.Bulk} {
		m := message(i)
		if i == 2 {
			m.Quality, m.Boot, m.Mono, m.Retain = stream.TimeUnknown, stream.Epoch{7}, 1234, true
			m.Properties = &stream.Properties{ContentType: "c", ResponseTopic: "r", CorrelationData: []byte("d"), User: []stream.Property{{Key: "k", Value: "v"}}, PayloadUTF8: true}
		}
		if i == 1 {
			m.Expiry = 300
		}
		c.add(lane, &m, &stream.Moment{Time: m.Time + 999, Quality: stream.TimeFixed, Boot: stream.Epoch{8}, Mono: 5678})
	}
	c.epoch, c.lanes[stream.Normal].first, c.lanes[stream.Bulk].first = stream.Epoch{0xbb}, 1, 10
	records := len(c.buf) - frameHeader
	var ops operations
	settledSet, lostSet := stream.NewRangeSet(stream.Range{First: 1, Last: 9}, stream.Range{First: 20, Last: 20}), stream.NewRangeSet(stream.Range{First: 4, Last: 5})
	ops.begin(8, stream.Epoch{0xcc})
	ops.settle(stream.Epoch{0xaa}, stream.Normal, testLog, &settledSet, &lostSet)
	ops.lose(stream.Epoch{0xaa}, stream.Bulk, stream.Loss{Range: stream.Range{First: 2, Last: 300}, Reason: stream.Unreadable, From: 1, To: 2})
	ops.giveUp(stream.Epoch{0xaa}, stream.Stale)
	p := appendHeads(appendGroups(c.buf, c.groups()), s.epochs[1])
	c.changed(&Entry{Key: "put", Value: []byte("value")})
	c.changed(&Entry{Key: "removed"})
	c.changed(&Entry{Key: "empty", Value: []byte{}})
	tail := mapTail{slots: 9, changes: 12, synced: 11, echo: []echoed{{hash: keyHash("one")}, {hash: keyHash("two")}}}
	p = tail.append(p, c.state, 1<<20)
	p, _ = ops.take(p, 0, 1<<20)
	n = len(p)
	dump("data frame", sealFrame(p, seg, frameInfo{index: 3, kind: kindData, records: records, base: c.base, synced: 3})[:n])
	golden(t, "testdata/frames-v2.txt", []byte(out.String()))
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (go test -update writes it anew); now:\n%s", path, got)
	}
}

// A journal that any format wrote opens, whatever the program has become.
func TestGoldenJournal(t *testing.T) {
	for _, version := range []int{1, 2} {
		t.Run(fmt.Sprintf("format %d", version), func(t *testing.T) { testGoldenJournal(t, version) })
	}
}

func testGoldenJournal(t *testing.T, version int) {
	o := Options{SegmentBytes: minSegmentBytes, MaxBytes: 6 * minSegmentBytes}
	if *update && version == formatVersion {
		o.Dir = t.TempDir()
		writeGoldenJournal(t, o)
	}
	o.Dir = t.TempDir()
	unzip(t, fmt.Sprintf("testdata/journal-v%d.zip", version), o.Dir)
	b, _ := started(t, o)
	s := b.Stats()
	extra := uint64(version - 1) // one that expires
	if s.Accepted != 110+extra || s.Settled != 20 || s.Lost[stream.RefusedByLog] != 2 || !s.ConservationOK || s.Recovery.Damaged != 0 || s.Recovery.Unreadable != 0 {
		t.Fatalf("%+v", s)
	}
	want := map[string]string{}
	if version >= 2 {
		want = map[string]string{"kept": "1", "moved": "to the second life", "empty": ""}
	}
	if got := stateOf(t, b); !maps.Equal(got, want) || s.StateDropped != 0 {
		t.Fatalf("the map is %v, %d dropped", got, s.StateDropped)
	}
	if held := b.Held(); held[0].Ranges.String() != "23-100" || held[0].Answered != testLog || held[1].Ranges.String() != fmt.Sprintf("1-%d", 10+extra) || held[0].Epoch == held[1].Epoch {
		t.Fatalf("%+v", held)
	}
	first, _ := next(t, b, stream.Normal, Limit{})
	second, _ := next(t, b, stream.Normal, Limit{})
	if len(first.Records) != 78 || len(second.Records) != int(10+extra) || extra > 0 && second.Records[10].Expiry != math.MaxUint32 {
		t.Fatalf("%d and %d records", len(first.Records), len(second.Records))
	}
	for _, r := range first.Records {
		if !reflect.DeepEqual(r.Message, message(int(r.Seq))) {
			t.Fatalf("%+v", r)
		}
	}
}

func writeGoldenJournal(t *testing.T, o Options) {
	for life, n := range []int{100, 10} {
		b, stop := started(t, o)
		for i := range n {
			put(t, b, stream.Normal, message(i+1))
		}
		commitEntries(t, b, Entry{Key: "kept", Value: []byte("1")}, Entry{Key: "empty", Value: []byte{}}, Entry{Key: "removed", Value: []byte("x")})
		if life == 1 {
			m := message(11)
			m.Expiry = math.MaxUint32
			put(t, b, stream.Normal, m)
		}
		commitEntries(t, b, Entry{Key: "moved", Value: []byte([]string{"from the first life", "to the second life"}[life])}, Entry{Key: "removed"})
		if life == 0 {
			batch, _ := next(t, b, stream.Normal, Limit{Messages: 22})
			a := settled(&batch)
			a.Lost.Add(stream.Range{First: 7, Last: 8})
			if err := b.Settle(batch.ID, a); err != nil {
				t.Fatal(err)
			}
		}
		stop()
	}
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	if err := z.AddFS(os.DirFS(o.Dir)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(goldenJournal, buf.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func unzip(t *testing.T, path, dir string) {
	t.Helper()
	z, err := zip.OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	for _, f := range z.File {
		in, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		p, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(f.Name)), p, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A journal of a newer format is refused and left as it is.
func TestNewerVersion(t *testing.T) {
	dir := newMemDir()
	b := openMem(t, dir, testOptions())
	_ = b.Close()
	for _, f := range dir.files {
		h, ok, err := decodeSegmentHeader(f.data[:pageSize])
		if err != nil || !ok {
			continue
		}
		h.encode(f.data)
		f.data[8] = formatVersion + 1
		putCRC(f.data)
	}
	before := dir.image()
	_, err := openOn(dir, testOptions())
	if err == nil || !strings.Contains(err.Error(), "newer program") {
		t.Fatal(err)
	}
	for name, f := range dir.files {
		if !bytes.Equal(f.data, before.files[name].data) {
			t.Fatalf("%s was changed", name)
		}
	}
}

func putCRC(p []byte) {
	binary.LittleEndian.PutUint32(p[60:], crc32.Checksum(p[:60], castagnoli))
}
