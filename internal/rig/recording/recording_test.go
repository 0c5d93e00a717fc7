package recording

import (
	"bytes"
	"errors"

	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func collect(text, name string, o Options) (all []Message, err error) {
	format, err := Recognise(name, []byte(text[:min(len(text), headSize)]))
	if err != nil {
		return nil, err
	}
	for m, err := range Read(strings.NewReader(text), name, format, o) {
		if err != nil {
			return all, err
		}
		all = append(all, m)
	}
	return all, nil
}

func TestFormats(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name, text string
		o          Options
		want       []Message
	}{
		{"a.csv", "Date,Time,Soc,Mode\n03/29/2021,16:49:29,97.700000,D\n03/29/2021,16:49:31,,E\r\n", Options{}, []Message{
			{0, "vehicle/Soc", []byte(`{"ts":1617036569000,"value":97.700000}`)}, {0, "vehicle/Mode", []byte(`{"ts":1617036569000,"value":"D"}`)},
			{2 * time.Second, "vehicle/Mode", []byte(`{"ts":1617036571000,"value":"E"}`)}}},
		{"b.csv", "Time (sec),Boost (kPa),A+B #2,Note: long\n0.014,-56.05,1\n0.5,007,2,x\n", Options{}, []Message{
			{0, "vehicle/Boost (kPa)", []byte(`{"ts":14,"value":-56.05}`)}, {0, "vehicle/A_B _2", []byte(`{"ts":14,"value":1}`)},
			{486 * ms, "vehicle/Boost (kPa)", []byte(`{"ts":500,"value":"007"}`)}, {486 * ms, "vehicle/A_B _2", []byte(`{"ts":500,"value":2}`)},
			{486 * ms, "vehicle/Note: long", []byte(`{"ts":500,"value":"x"}`)}}},
		{"bare.CSV", "ts,v\n1594598735772,1.50\n1594598735773,2\n", Options{Layout: Bare}, []Message{{0, "vehicle/v", []byte("1.50")}, {1 * ms, "vehicle/v", []byte("2")}}},
		{"notime.csv", "v,w\n1,2\n3,4\n", Options{Layout: Bare}, []Message{{0, "vehicle/v", []byte("1")}, {0, "vehicle/w", []byte("2")}, {time.Second, "vehicle/v", []byte("3")}, {time.Second, "vehicle/w", []byte("4")}}},
		{"rows.csv", "Date,Time,Soc,\"a\"\"b\"\n03/29/2021,16:49:29,97.700000,D\n03/29/2021,16:49:31,,007\n", Options{Layout: Rows}, []Message{
			{0, "vehicle/row", []byte(`{"ts":1617036569000,"Soc":97.700000,"a\"b":"D"}`)}, {2 * time.Second, "vehicle/row", []byte(`{"ts":1617036571000,"a\"b":"007"}`)}}},
		{"clocks.csv", "Date,Time,Soc\n03/29/2021,16:49:29,97.7\n03/29/2021,16:49:31,9\n", Options{Clocks: true, Start: time.UnixMilli(1700000000000)}, []Message{
			{0, "vehicle/Date", []byte(`{"ts":1700000000000,"value":"03/29/2021"}`)}, {0, "vehicle/Time", []byte(`{"ts":1700000000000,"value":"16:49:29"}`)}, {0, "vehicle/Soc", []byte(`{"ts":1700000000000,"value":97.7}`)},
			{2 * time.Second, "vehicle/Date", []byte(`{"ts":1700000002000,"value":"03/29/2021"}`)}, {2 * time.Second, "vehicle/Time", []byte(`{"ts":1700000002000,"value":"16:49:31"}`)}, {2 * time.Second, "vehicle/Soc", []byte(`{"ts":1700000002000,"value":9}`)}}},
		{"seconds.csv", "Time,v\n3.014,1\n3.5,2\n", Options{Clocks: true, Start: time.UnixMilli(1700000000000)}, []Message{
			{0, "vehicle/v", []byte(`{"ts":1700000000000,"value":1}`)}, {486 * ms, "vehicle/v", []byte(`{"ts":1700000000486,"value":2}`)}}},
		{"clock.csv", "Time,v\n10,1\nnever,2\n999999999,3\n12,4\n13.5,5\n13,6\n14,7\n", Options{Layout: Bare}, []Message{
			{0, "vehicle/v", []byte("1")}, {0, "vehicle/v", []byte("2")}, {0, "vehicle/v", []byte("3")}, {0, "vehicle/v", []byte("4")},
			{1500 * ms, "vehicle/v", []byte("5")}, {1500 * ms, "vehicle/v", []byte("6")}, {2 * time.Second, "vehicle/v", []byte("7")}}},
		{"x.log", "(10.5) can0 0D2#00FF\n(10.75) vcan1 18FEF100##1AABB\n(10.6) can0 123#R\n", Options{}, []Message{
			{0, "can/can0/0D2", []byte{0, 255}}, {250 * ms, "can/vcan1/18FEF100", []byte{0xaa, 0xbb}}, {250 * ms, "can/can0/123", []byte{}}}},
		{"n", "$IIVHW,,T*51\r\n\n\\s:r1*00\\!AIVDM,1*02\n", Options{}, []Message{
			{0, "nmea/IIVHW", []byte("$IIVHW,,T*51")}, {128205128, "nmea/AIVDM", []byte("\\s:r1*00\\!AIVDM,1*02")}}},
		{"n2k.csv", "2014-08-15T19:00:00.042Z,3,129029,160,255,2,a9,3f\n2014-08-15T19:00:00.292Z,2,128259,115,255,0\n", Options{}, []Message{
			{0, "n2k/129029/160", []byte("2014-08-15T19:00:00.042Z,3,129029,160,255,2,a9,3f")}, {250 * ms, "n2k/128259/115", []byte("2014-08-15T19:00:00.292Z,2,128259,115,255,0")}}},
		{"i.json", "[{\"device\":\"d/1\",\"ts\":100.5,\"x\":1},\n {\"device_id\":2, \"ts\":\"101\"}]\n", Options{}, []Message{
			{0, "iot/d_1", []byte(`{"device":"d/1","ts":100.5,"x":1}`)}, {500 * ms, "iot/2", []byte(`{"device_id":2, "ts":"101"}`)}}},
		{"r.ndjson", "{\"t\":1,\"topic\":\"a/b\",\"payload\":\"hi\"}\n{\"t\":3,\"topic\":\"c\",\"payload_base64\":\"AP8=\"}", Options{}, []Message{{0, "a/b", []byte("hi")}, {2 * time.Second, "c", []byte{0, 255}}}},
	} {
		got, err := collect(c.text, c.name, c.o)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		for i := range got { // a microsecond is what a float of seconds carries
			if i < len(c.want) && (got[i].T-c.want[i].T).Abs() < time.Microsecond {
				got[i].T = c.want[i].T
			}
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\n got %q\nwant %q", c.name, got, c.want)
		}
	}
}

func TestErrorsNameTheLine(t *testing.T) {
	for text, want := range map[string]string{
		"(1.0) can0 1#00\n\n(2.0) can0 1#0":                                  "f:3: ",
		"(1.0) can0 1#00\nhello":                                             "f:2: ",
		"$IIVHW,1\n?\n":                                                      "f:2: ",
		"2014-08-15T19:00:00Z,3,129029,160,255,2,a9\n1,2\n":                  "f:2: ",
		"2014-08-15T19:00:00Z,3,129029,160,255,2,a9\nx,3,1,1,255,0\n":        "f:2: ",
		"[{\"device\":\"a\"},\n{\"device\":\"b\"},\n{\"nothing\":1}]":        "f:3: ",
		"[{\"device\":\"a\"},\n{\"device\":\"b\"":                            "f:",
		"[{\"device\":\"a\"},\n7]":                                           "f:2: ",
		"{\"t\":1,\"topic\":\"a\",\"payload\":\"\"}\n{\"t\":1}":              "f:2: ",
		"{\"t\":1,\"topic\":\"a/+\",\"payload\":\"\"}\n":                     "f:1: ",
		"{\"topic\":\"a\",\"payload\":\"\"}\n":                               "f:1: ",
		"{\"t\":1,\"topic\":\"a\",\"payload\":\"\",\"payload_base64\":\"\"}": "f:1: ",
	} {
		_, err := collect(text, "f", Options{})
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for text, want := range map[string]string{
		"a,b\n1,2\n1,2,3\n": "f.csv:3: ", "time,b\nx,2\n": "f.csv:2: ", "a,b\n1,\"2\n": "f.csv:2: ", "time,b\n1,1\n1,2\nx\",2\n": "f.csv:4: ",
	} {
		_, err := collect(text, "f.csv", Options{})
		var e *Error
		if err == nil || !strings.HasPrefix(err.Error(), want) || !errors.As(err, &e) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, name := range []string{"a.txt", "a.csv", "a.json"} {
		if _, err := Recognise(name, []byte("# Notes\n")); !errors.Is(err, ErrUnknown) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, err := range ReadFile(filepath.Join(t.TempDir(), "none"), Options{}) {
		if !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	}
}

// endless is a file in which an item never ends.
type endless struct {
	head string
	read int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.head)
	e.head = e.head[n:]
	for i := n; i < len(p); i++ {
		p[i] = 'x'
	}
	e.read += len(p)
	return len(p), nil
}

func TestMemoryIsBounded(t *testing.T) {
	for format, head := range map[Format]string{
		CSV: "a,b\n1,\"", JSON: `[{"device":"`, Candump: "(1.0) can0 1#", NMEA0183: "$II", N2K: "2014-", NDJSON: `{"t":`,
	} {
		r := &endless{head: head}
		var last error
		for _, err := range Read(r, "f", format, Options{}) {
			last = err
		}
		if last == nil || r.read > 4*maxItem {
			t.Errorf("%s: %v after %d bytes", format, last, r.read)
		}
	}
}

func TestStopsWhenAsked(t *testing.T) {
	for format, text := range map[Format]string{CSV: "a,b\n1,2\n3,4\n", JSON: `[{"device":1},{"device":2}]`, Candump: "(1.0) can0 1#00\n(1.0) can0 1#00\n"} {
		n := 0
		for _, err := range Read(strings.NewReader(text), "f", format, Options{}) {
			if err != nil {
				t.Error(err)
			}
			n++
			break
		}
		if n != 1 {
			t.Errorf("%s: %d messages", format, n)
		}
	}
}

// The recordings beside the project: as many messages and topics as their
// README says.
func TestRealRecordings(t *testing.T) {
	dir := filepath.Join("..", "..", "..", "..", "shared", "data")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("SKIPPED, the recordings are not on this machine: %v", err)
	}
	for name, want := range map[string]struct {
		messages, topics int
		span             time.Duration
	}{
		"can.candump.log": {82558, 35, 90 * time.Second}, "ship.nmea0183.log": {116000, 15, 4 * time.Hour}, "ship.n2k.csv": {21595, 0, 10 * time.Minute},
		"iot-payloads.json": {9995, 3, 24 * time.Hour}, "ev-gps.csv": {8521 * 13, 13, 8521 * time.Second}, "obd.csv": {18033 * 16, 16, 1352 * time.Second},
	} {
		topics, n, last := map[string]bool{}, 0, time.Duration(0)
		for m, err := range ReadFile(filepath.Join(dir, name), Options{}) {
			if err != nil {
				t.Error(err)
				break
			}
			if m.T < last {
				t.Fatalf("%s: time goes back at message %d", name, n)
			}
			topics[m.Topic], last = true, m.T
			n++
		}
		if n != want.messages || want.topics != 0 && len(topics) != want.topics {
			t.Errorf("%s: %d messages to %d topics, want %+v", name, n, len(topics), want)
		}
		if f := last.Seconds() / want.span.Seconds(); f < 0.8 || f > 1.3 {
			t.Errorf("%s: spans %v, want about %v", name, last, want.span)
		}
	}
}

// Whatever the bytes: the reader ends, times never go back, topics are topics,
// and what it could not read is said once, with the line.
func FuzzRead(f *testing.F) {
	for _, seed := range []string{
		"a,time\n1,2\n", "(1.0) can0 1#00\n", "$IIVHW,1\n", "2014-08-15T19:00:00Z,3,1,1,255,2,a9\n", `[{"device":1,"ts":3}]`, `{"t":1,"topic":"a","payload":"b"}`,
	} {
		f.Add([]byte(seed), "x.csv")
		f.Add([]byte(seed), "x.ndjson")
	}
	f.Fuzz(func(t *testing.T, b []byte, name string) {
		for _, format := range []Format{CSV, Candump, NMEA0183, N2K, JSON, NDJSON} {
			var last time.Duration
			failed := false
			for m, err := range Read(bytes.NewReader(b), name, format, Options{}) {
				var e *Error
				switch {
				case failed:
					t.Fatalf("%s: goes on after an error", format)
				case err != nil:
					if failed = true; !errors.As(err, &e) || e.Line < 1 || e.Line > bytes.Count(b, []byte("\n"))+1 {
						t.Fatalf("%s: %v", format, err)
					}
				case m.T < last || m.Topic == "" || strings.ContainsAny(m.Topic, "+#\x00") || len(m.Payload) > maxItem+64:
					t.Fatalf("%s: %+v", format, m)
				}
				last = m.T
			}
		}
		if _, err := Recognise(name, b); err != nil && !errors.Is(err, ErrUnknown) {
			t.Fatal(err)
		}
	})
}
