package linkbench

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/packetboat/packetboat/pkg/stream"
)

// files are one recording of each format.
var files = map[string]string{
	"a.csv":    "Date,Time,Soc," + strings.Repeat("a remark ", 8) + "\n03/29/2021,16:49:29,97.7,1\n03/29/2021,16:49:30,98,1\n",
	"can.log":  "(10.000100) can0 0D2#00FF\n(10.750200) vcan1 18FEF100#1AABB0\n",
	"turns":    "$IIVHW,1*51\n$GPZDA,2*4D\n$IIVHW,3*51\n$IIVHW,4*51\n$GPZDA,5*4D\n$IIVHW,6*51\n",
	"noturns":  "$IIVHW,1*51\n$IIVHW,2*51\n",
	"n2k.csv":  "2014-08-15T19:00:00.042Z,3,129029,160,255,2,a9,3f\n2014-08-15T19:00:00.292Z,2,128259,115,255,0\n",
	"i.json":   `[{"device":"d1","ts":100.5,"x":1},{"device":"d2","ts":101}]`,
	"r.ndjson": "{\"t\":1,\"topic\":\"a/b\",\"payload\":\"hi\"}\n{\"t\":3.000007,\"topic\":\"c\",\"payload_base64\":\"AP8=\"}\n",
	"notes.md": "# not a recording\n",
}

func write(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "folder.csv"), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Every format becomes records, a CSV in each layout, at times that fit it.
func TestRecordings(t *testing.T) {
	sets, passed, err := recorded(write(t))
	if err != nil || !slices.Equal(passed, []string{"folder.csv", "notes.md"}) {
		t.Fatalf("%v, passed over %q", err, passed)
	}
	got := map[string][]stream.Record{}
	for i := range sets {
		if got[sets[i].name], err = sets[i].records(t.Context(), 100, time.Microsecond); err != nil {
			t.Fatal(err)
		}
	}
	begin, second := start.UnixMicro(), time.Second.Microseconds()
	for name, want := range map[string]struct {
		topics, payloads string
		times            []int64 // each is at most 10 ms before the record's
	}{
		"a.csv, JSON per signal": {"vehicle/Date vehicle/Time vehicle/Soc vehicle/Date vehicle/Time vehicle/Soc",
			`{"ts":1700000000000,"value":"03/29/2021"} {"ts":1700000000000,"value":"16:49:29"} {"ts":1700000000000,"value":97.7} {"ts":1700000001000,"value":"03/29/2021"} {"ts":1700000001000,"value":"16:49:30"} {"ts":1700000001000,"value":98}`,
			[]int64{0, 0, 0, second, second, second}},
		"a.csv, bare values":            {"vehicle/Date vehicle/Time vehicle/Soc vehicle/Date vehicle/Time vehicle/Soc", "03/29/2021 16:49:29 97.7 03/29/2021 16:49:30 98", []int64{0, 0, 0, second, second, second}},
		"can.log, CAN frames":           {"can/can0/0D2 can/vcan1/18FEF100", "\x00\xff \x1a\xab\xb0", []int64{0, 750_100}},
		"turns, NMEA 0183 sentences":    {"nmea/IIVHW nmea/GPZDA nmea/IIVHW nmea/IIVHW nmea/GPZDA nmea/IIVHW", "$IIVHW,1*51 $GPZDA,2*4D $IIVHW,3*51 $IIVHW,4*51 $GPZDA,5*4D $IIVHW,6*51", []int64{0, 0, 2 * second, 2 * second, 2 * second, 4 * second}},
		"noturns, NMEA 0183 sentences":  {"nmea/IIVHW nmea/IIVHW", "$IIVHW,1*51 $IIVHW,2*51", []int64{0, 128_205}},
		"n2k.csv, NMEA 2000 text lines": {"n2k/129029/160 n2k/128259/115", "2014-08-15T19:00:00.042Z,3,129029,160,255,2,a9,3f 2014-08-15T19:00:00.292Z,2,128259,115,255,0", []int64{0, 250_000}},
		"i.json, JSON objects":          {"iot/d1 iot/d2", `{"device":"d1","ts":100.5,"x":1} {"device":"d2","ts":101}`, []int64{0, 500_000}},
		"r.ndjson, as recorded":         {"a/b c", "hi \x00\xff", []int64{0, 2_000_007}},
	} {
		recs := got[name]
		var topics, payloads []string
		for i := range recs {
			topics, payloads = append(topics, recs[i].Topic), append(payloads, string(recs[i].Payload))
			late := recs[i].Time - begin - want.times[min(i, len(want.times)-1)]
			exact := name == "can.log, CAN frames" || name == "r.ndjson, as recorded"
			if late < 0 || late > 10_000 || exact != (late == 0) || recs[i].Seq != uint64(i+1) || recs[i].QoS != 1 {
				t.Errorf("%s: record %d is %d µs late: %+v", name, i, late, recs[i])
			}
		}
		if a, b := strings.Join(topics, " "), strings.Join(payloads, " "); a != want.topics || b != want.payloads {
			t.Errorf("%s:\n got %q %q\nwant %q %q", name, a, b, want.topics, want.payloads)
		}
		delete(got, name)
	}
	if rows := got["a.csv, JSON per row"]; len(rows) != 2 || !strings.HasPrefix(string(rows[0].Payload), `{"ts":1700000000000,"Date":"03/29/2021",`) {
		t.Errorf("rows: %+v", rows)
	}
	for i, r := range got["a.csv, JSON per signal, stamped when sent"] {
		if !strings.HasPrefix(string(r.Payload), fmt.Sprintf(`{"ts":%d,"value":`, (r.Time-100)/1000)) {
			t.Errorf("record %d at %d is stamped %s", i, r.Time, r.Payload)
		}
	}
	if len(got) != 2 {
		t.Errorf("%d sets beside", len(got)-2)
	}
}

// The lane's resolution cuts times, and never more than it says.
func TestResolution(t *testing.T) {
	s := made()[0]
	fine, err := s.records(t.Context(), 300, time.Microsecond)
	if err != nil {
		t.Fatal(err)
	}
	coarse, err := s.records(t.Context(), 300, time.Millisecond)
	if err != nil || len(coarse) != 300 {
		t.Fatal(err)
	}
	for i := range fine {
		if coarse[i].Time != fine[i].Time/1000*1000 || i > 0 && fine[i].Time <= fine[i-1].Time {
			t.Fatalf("record %d: %d µs, cut %d", i, fine[i].Time, coarse[i].Time)
		}
	}
}

// The public recordings are known by what is in them.
func TestSourcesAreKnown(t *testing.T) {
	dir := filepath.Join("..", "..", "..", "shared", "data")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("SKIPPED, the recordings are not on this machine: %v", err)
	}
	sets, _, err := recorded(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(sets) != 9 {
		t.Errorf("%d sets", len(sets))
	}
	for _, s := range sets {
		if s.source == "" || !strings.Contains(s.source, ", commit ") {
			t.Errorf("%s: source %q", s.name, s.source)
		}
	}
}

func TestBrokenRecordingNamesItsLine(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "x.ndjson"), []byte("{\"t\":1,\"topic\":\"a\",\"payload\":\"\"}\nnonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := options(os.Stderr)
	o.Data = dir
	if err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "x.ndjson:2:") {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "x.ndjson"), []byte("{\"topic\":1}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), o); err == nil {
		t.Error("a recording that cannot be read is measured")
	}
}
