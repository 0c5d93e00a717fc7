package demo

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/packetboat/packetboat/firmware-sim/fleet"
	"github.com/packetboat/packetboat/firmware-sim/prove"
	"github.com/packetboat/packetboat/internal/rig/receipts"
	"github.com/packetboat/packetboat/internal/rig/recording"
	"github.com/packetboat/packetboat/pkg/stream"
)

// stage is a demo after its acts, with the given payloads acknowledged.
func stage(t *testing.T, sent [][]uint32, payloads ...string) (*demo, []prove.Record) {
	t.Helper()
	d := &demo{o: Options{Dir: t.TempDir(), Out: io.Discard}, began: time.Now(), what: "a <car>"}
	w, err := receipts.Append(d.path("receipts"))
	if err != nil {
		t.Fatal(err)
	}
	var log []prove.Record
	for i, p := range payloads {
		r := receipts.Receipt{Client: "c", Topic: "t", N: uint64(i + 1), Hash: receipts.HashOf([]byte(p)), QoS: 1, Tries: 1, Acked: true, Sent: []uint32{1}}
		if sent != nil {
			r.Sent, r.Tries = sent[i], len(sent[i])
		}
		if err := w.Add(&r); err != nil {
			t.Fatal(err)
		}
		log = append(log, prove.Record{ID: stream.ID{Device: "demo-car", Lane: stream.Normal}, Seq: uint64(i + 1), Topic: "t", Hash: r.Hash})
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if d.fleet, err = fleet.New(nil, fleet.Options{}); err != nil {
		t.Fatal(err)
	}
	return d, log
}

func TestRemovedRecordIsNoticed(t *testing.T) {
	for name, c := range map[string]struct {
		sent     [][]uint32
		payloads []string
		noticed  bool
	}{
		"different payloads":                          {nil, []string{"a", "b", "c"}, true},
		"equal payloads":                              {nil, []string{"a", "a", "a"}, true},
		"the middle one is hidden by equal payloads":  {[][]uint32{{1}, {1, 2}, {2}, {2}}, []string{"a", "x", "x", "b"}, true},
		"an empty log shows nothing either":           {nil, nil, false},
		"one message that was sent twice is no proof": {[][]uint32{{1, 2}}, []string{"x"}, true},
	} {
		d, log := stage(t, c.sent, c.payloads...)
		report, err := d.compare(prove.Each(log))
		if err != nil || !report.OK() {
			t.Fatalf("%s: %+v %v", name, report, err)
		}
		v := &verdict{report: report}
		if err := d.tamper(v, log); (err == nil) != c.noticed || strings.HasPrefix(v.tampered, "noticed") != c.noticed {
			t.Errorf("%s: %q, %v", name, v.tampered, err)
		}
	}
}

func TestKeepCopiesAndPassesErrors(t *testing.T) {
	bad := errors.New("cut")
	var copied []prove.Record
	var got error
	for _, err := range keep(func(yield func(prove.Record, error) bool) {
		_ = yield(prove.Record{Seq: 1}, nil) && yield(prove.Record{}, bad)
	}, &copied) {
		got = err
	}
	if len(copied) != 1 || !errors.Is(got, bad) {
		t.Errorf("%v %v", copied, got)
	}
}

// The page needs nothing from elsewhere, says the numbers, and its plots are
// well-formed.
func TestReport(t *testing.T) {
	d, log := stage(t, nil, "a", "b")
	for i := range 40 {
		d.points = append(d.points, point{at: float64(i) / 4, sent: int64(100 * i), acknowledged: int64(99 * i), inLog: int64(80 * i), linkUp: int64(1000 * i), linkDown: int64(i)})
	}
	d.marks = []mark{{2, "link cut"}, {4, "edge <killed>"}}
	report, err := d.compare(prove.Each(log))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.writeReport(&verdict{report: report, hubVerify: "OK", tampered: "noticed", perUp: 11.2, plain: 71.31}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(d.path("report.html"))
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	for _, want := range []string{"2 messages were acknowledged", "a &lt;car&gt;", "11.20", "71.31", "link cut", "edge &lt;killed&gt;", "prefers-color-scheme: dark", "noticed"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if m := regexp.MustCompile(`(?i)(src|href)=|https?://|@import|url\(`).FindString(page); m != "" {
		t.Errorf("the page fetches something: %s", m)
	}
	svgs := regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(page, -1)
	if len(svgs) != len(plots) {
		t.Fatalf("%d plots", len(svgs))
	}
	for _, svg := range svgs {
		if strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
			t.Error("a plot holds what is no number")
		}
		for x := xml.NewDecoder(bytes.NewReader([]byte(svg))); ; {
			if _, err := x.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	d.points = nil
	if err := d.writeReport(&verdict{report: report}); err != nil {
		t.Errorf("without points: %v", err)
	}
}

func TestRecordingsFitTheActs(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a.csv": "Time,v\n0,1\n1000,2\n", "can.log": "(1.0) can0 1#00\n(1.5) can0 1#01\n", "README.md": "# notes\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	clients, what, err := sensors(Options{Data: dir, Pace: 2 * time.Second}, doors{})
	if err != nil || len(clients) != 2 || !strings.Contains(what, "2 recordings, 4 messages") {
		t.Fatalf("%v %q %v", clients, what, err)
	}
	for _, c := range clients {
		var last time.Duration
		for m, err := range c.Source {
			if err != nil {
				t.Fatal(err)
			}
			last = m.T
		}
		if (last - 8*time.Second).Abs() > time.Millisecond {
			t.Errorf("%s lasts %v", c.ID, last)
		}
	}
	for _, bad := range []string{t.TempDir(), filepath.Join(dir, "nowhere")} {
		if _, _, err := sensors(Options{Data: bad, Pace: time.Second}, doors{}); err == nil {
			t.Errorf("%s passes", bad)
		}
	}
	if clients, what, err := sensors(Options{}, doors{"a:1", "b:2", "c:3"}); err != nil || len(clients) != 4 || clients[3].Broker != "ws://c:3" || !strings.HasPrefix(what, "a car with 850 sensors") {
		t.Errorf("%v %q %v", clients, what, err)
	}
}

// What plain MQTT would have cost is counted of what the sensors say.
func TestPlainIsCounted(t *testing.T) {
	var p plain
	if p.perMessage() != 0 {
		t.Error("something of nothing")
	}
	source := func(yield func(recording.Message, error) bool) {
		_ = yield(recording.Message{Topic: "abc", Payload: make([]byte, 10)}, nil) && yield(recording.Message{Topic: "abc", Payload: make([]byte, 20)}, nil) && yield(recording.Message{}, io.EOF)
	}
	n := 0
	for range p.count(source) {
		n++
	}
	for range p.count(source) {
		break
	}
	// fixed header 2, topic 2 + 3, packet id 2, properties 1
	if want := float64(10+10+10+20+10+10) / 3; n != 3 || p.messages.Load() != 3 || p.perMessage() != want {
		t.Errorf("%d passed, %d messages of %v bytes, want %v", n, p.messages.Load(), p.perMessage(), want)
	}
}

func TestNice(t *testing.T) {
	for v, want := range map[float64]float64{1: 1, 1.1: 2, 2.2: 2.5, 4: 5, 29815: 50000, 0.3: 0.5, 7: 10} {
		if got := nice(v); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("nice(%v) = %v", v, got)
		}
	}
}
