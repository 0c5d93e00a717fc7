package commitlog

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/packetboat/packetboat/pkg/stream"
)

// The vectors are those of Kafka's own tests of its murmur2.
func TestMurmur2(t *testing.T) {
	for key, want := range map[string]int32{
		"21":                         -973932308,
		"foobar":                     -790332482,
		"a-little-bit-long-string":   -985981536,
		"a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		if got := int32(murmur2(key)); got != want {
			t.Errorf("%q: %d, want %d", key, got, want)
		}
	}
	if got := ShardOf("foobar", 12); got != int(uint32(0x7fffffff&-790332482)%12) {
		t.Errorf("foobar of 12: %d", got)
	}
	if ShardOf("", 1) != 0 {
		t.Error("one shard has one number")
	}
}

func TestCursor(t *testing.T) {
	var c Cursor
	c.Advance(&Stored{Shard: 3, Offset: 41})
	old := c
	c.Set(0, 7)
	c.Advance(&Stored{Shard: 3, Offset: 44})
	if c.String() != "0:7,3:45" || old.String() != "3:42" || c.Next(3) != 45 || c.Next(1) != 0 {
		t.Errorf("%s, %s", c, old)
	}
	back, err := ParseCursor(c.String())
	if err != nil || back.String() != c.String() {
		t.Errorf("%s: %v", back, err)
	}
	for _, bad := range []string{"x", "1", "1:", ":1", "1:2,", "1:2,1:3", "2:1,1:1", "4096:1", "1:-1", "1:9223372036854775808", "-1:1"} {
		if c, err := ParseCursor(bad); err == nil && c.String() != bad {
			t.Errorf("%q was read as %s", bad, c)
		} else if err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestMatchTopic(t *testing.T) {
	for _, c := range []struct {
		filter, topic string
		want          bool
	}{
		{"a/b", "a/b", true}, {"a/b", "a", false}, {"a", "a/b", false}, {"a/+", "a/b", true}, {"a/+", "a/", true}, {"a/+", "a", false},
		{"+/+", "/x", true}, {"+", "/x", false}, {"/+", "/x", true}, {"#", "a/b/c", true}, {"a/#", "a", true}, {"a/#", "a/b/c", true},
		{"a/#", "ab", false}, {"a/+/c", "a/b/c", true}, {"a/+/c", "a/b/d", false}, {"#", "$SYS/x", false}, {"+/x", "$SYS/x", false},
		{"$SYS/#", "$SYS/x", true}, {"a/b/#", "a", false}, {"", "", true}, {"+/b/#", "a/b", true}, {"a//b", "a//b", true}, {"a/+/b", "a//b", true},
	} {
		if got := MatchTopic(c.filter, c.topic); got != c.want {
			t.Errorf("%q against %q: %v", c.filter, c.topic, got)
		}
	}
	for _, bad := range []string{"a/#/b", "a#", "#/", "a/b+", "++", "+a/b", "a\x00"} {
		if CheckTopicFilter(bad) == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	for _, good := range []string{"", "#", "+", "a/+/#", "/", "a//b", "$SYS/#"} {
		if err := CheckTopicFilter(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
}

// A record whose time nobody knows is filtered by when it was received.
func TestFilterTime(t *testing.T) {
	f := Filter{From: 100, To: 200}
	for _, c := range []struct {
		quality        stream.TimeQuality
		time, received int64
		want           bool
	}{
		{stream.TimeLocal, 100, 500, true}, {stream.TimeLocal, 200, 150, false}, {stream.TimeFixed, 99, 150, false},
		{stream.TimeUnknown, 0, 150, true}, {stream.TimeUnknown, 150, 500, false},
	} {
		s := Stored{Record: stream.Record{Message: stream.Message{Time: c.time, Quality: c.quality}}, Received: c.received}
		if f.Match(&s) != c.want {
			t.Errorf("%+v", c)
		}
	}
}

var update = flag.Bool("update", false, "write the golden files anew")

// goldenCoverage uses every field.
func goldenCoverage(t testing.TB) *DeviceCoverage {
	d := &DeviceCoverage{Forgotten: 3}
	one, two := testEpoch(1), testEpoch(2)
	for _, e := range []Entry{
		{ID: stream.ID{Device: "a", Epoch: one, Lane: stream.Urgent}, Records: []stream.Record{{Seq: 1}, {Seq: 2}, {Seq: 700, Message: stream.Message{Time: 1_700_000_000_000_000, Quality: stream.TimeLocal}}}, Head: 1000, Floor: 3, Oldest: -7, Received: 1_700_000_000_000_001, Current: one, Flags: stream.FIFO},
		{ID: stream.ID{Device: "a", Epoch: one, Lane: stream.Bulk}, Losses: []stream.Loss{
			{Range: stream.Range{First: 1, Last: 9}, Reason: stream.Evicted, From: 1_600_000_000_000_000, To: 1_700_000_000_000_000},
			{Range: stream.Range{First: 20, Last: 20}, Reason: stream.Abandoned},
		}, Received: 5},
		{ID: stream.ID{Device: "a", Epoch: two, Lane: stream.Normal}, Head: 5, Floor: 1, Received: 6, Current: two},
	} {
		if _, err := d.Apply(&e); err != nil {
			t.Fatal(err)
		}
	}
	d.Expire(stream.ID{Device: "a", Epoch: one, Lane: stream.Urgent}, stream.Range{First: 1, Last: 2})
	return d
}

func goldenText(t testing.TB) string {
	d := goldenCoverage(t)
	s := hex.EncodeToString(AppendDevice(nil, d)) + "\n"
	for _, e := range d.Epochs {
		s += hex.EncodeToString(AppendEpoch(nil, e)) + "\n"
	}
	return s
}

// What version 1 wrote must read for ever.
func TestGolden(t *testing.T) {
	path := filepath.Join("testdata", "coverage-1.golden")
	if *update {
		if err := os.WriteFile(path, []byte(goldenText(t)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != goldenText(t) {
		t.Errorf("the encoding has changed:\n%swant:\n%s", goldenText(t), text)
	}
	lines := strings.Fields(string(text))
	var epochs []*EpochState
	head, _ := hex.DecodeString(lines[0])
	for _, line := range lines[1:] {
		b, _ := hex.DecodeString(line)
		e, err := DecodeEpoch(b)
		if err != nil {
			t.Fatal(err)
		}
		epochs = append(epochs, e)
		for n := range b { // cut short it is damaged, never a panic
			if _, err := DecodeEpoch(b[:n]); err == nil {
				t.Errorf("the first %d of %d bytes were taken", n, len(b))
			}
		}
	}
	d, err := LoadDevice(head, epochs)
	if err != nil || dump(d) != dump(goldenCoverage(t)) {
		t.Errorf("read back: %v\n%s", err, dump(d))
	}
	if _, err := LoadDevice(append([]byte{2}, head[1:]...), nil); err == nil {
		t.Error("a newer version was taken")
	}
	if _, err := LoadDevice(head, []*EpochState{epochs[0], epochs[0]}); err == nil {
		t.Error("two epochs of one order were taken")
	}
}

// Invariants: never a panic; what is taken is a state that a fold can reach, and
// encodes to something that reads as the same.
func FuzzDecodeEpoch(f *testing.F) {
	for _, e := range goldenCoverage(f).Epochs {
		f.Add(AppendEpoch(nil, e))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := DecodeEpoch(b)
		if err != nil {
			return
		}
		for i := range e.Lanes {
			l := &e.Lanes[i]
			sum := uint64(0)
			for _, n := range l.LostBy {
				sum += n
			}
			if overlap(&l.In, &l.Lost) || !contains(&l.In, &l.Expired) || l.Head < max(l.In.Max(), l.Lost.Max()) || sum != l.Lost.Count() {
				t.Fatalf("lane %+v", l)
			}
		}
		again := AppendEpoch(nil, e)
		back, err := DecodeEpoch(again)
		if err != nil || !bytes.Equal(AppendEpoch(nil, back), again) {
			t.Fatalf("%x reads back as %+v: %v", again, back, err)
		}
	})
}

func FuzzParseCursor(f *testing.F) {
	f.Add("0:123,1:5")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCursor(text)
		if err != nil {
			return
		}
		back, err := ParseCursor(c.String())
		if err != nil || back.String() != c.String() {
			t.Fatalf("%q: %q, %v", text, back, err)
		}
	})
}

func TestWelcome(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := &DeviceCoverage{}
		for range 10 {
			_, _ = d.Apply(drawEntry(t))
		}
		all := d.Welcome()
		if len(all) != len(d.Epochs) {
			t.Fatalf("%d of %d epochs", len(all), len(d.Epochs))
		}
		for i, c := range all {
			n := 0
			for _, l := range c.Lanes {
				id := stream.ID{Epoch: c.Epoch, Lane: l.Lane}
				settled := d.Settled(id)
				if c.Epoch != d.Epochs[i].ID || !l.Settled.Equal(&settled) || !l.Lost.Equal(&d.Lane(id).Lost) || settled.IsEmpty() {
					t.Fatalf("%+v", l)
				}
				n++
			}
			for _, lane := range stream.Lanes {
				s := d.Settled(stream.ID{Epoch: c.Epoch, Lane: lane})
				if !s.IsEmpty() {
					n--
				}
			}
			if n != 0 {
				t.Fatal("a lane is missing")
			}
			out := d.Epochs[i].Lanes[stream.Bulk].Out()
			if (out.Count() == 0) != d.Epochs[i].Lanes[stream.Bulk].Complete() {
				t.Fatalf("out there: %s", &out)
			}
		}
	})
}
