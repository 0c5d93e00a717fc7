package codec

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	stdflag "flag" // flag is a column of booleans here
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/packetboat/packetboat/pkg/stream"
)

var update = stdflag.Bool("update", false, "write the golden vectors anew: after a change of the format, with its version")

// vectorLine is a line of a file of test vectors: a record, or the body of the
// records since the line before that had one. Bytes that are not UTF-8 stand in
// hex.
type vectorLine struct {
	Topic      string          `json:"topic,omitempty"`
	TopicHex   string          `json:"topic_hex,omitempty"`
	Payload    string          `json:"payload,omitempty"`
	PayloadHex string          `json:"payload_hex,omitempty"`
	Time       int64           `json:"time_us,omitempty"`
	QoS        uint8           `json:"qos,omitempty"`
	Retain     bool            `json:"retain,omitempty"`
	Quality    uint8           `json:"time_quality,omitempty"`
	Boot       string          `json:"boot,omitempty"`
	Mono       int64           `json:"mono_us,omitempty"`
	Properties *vectorProperty `json:"properties,omitempty"`

	Body   *string `json:"body,omitempty"` // hex
	Seed   uint32  `json:"seed,omitempty"`
	Bodies uint64  `json:"bodies,omitempty"` // the position behind it …
	Digest string  `json:"digest,omitempty"`
	State  int     `json:"state_bytes,omitempty"` // … and what the state counts
}

type vectorProperty struct {
	ContentType string      `json:"content_type,omitempty"`
	Response    string      `json:"response_topic,omitempty"`
	Correlation string      `json:"correlation_hex,omitempty"`
	UTF8        bool        `json:"utf8,omitempty"`
	User        [][2]string `json:"user,omitempty"`
}

func lineOf(r *stream.Record) (v vectorLine) {
	if v.Topic = r.Topic; !utf8.ValidString(r.Topic) {
		v.Topic, v.TopicHex = "", hex.EncodeToString([]byte(r.Topic))
	}
	if v.Payload = string(r.Payload); !utf8.Valid(r.Payload) {
		v.Payload, v.PayloadHex = "", hex.EncodeToString(r.Payload)
	}
	v.Time, v.QoS, v.Retain, v.Quality, v.Mono = r.Time, r.QoS, r.Retain, uint8(r.Quality), r.Mono
	if !r.Boot.IsZero() {
		v.Boot = hex.EncodeToString(r.Boot[:])
	}
	if p := r.Properties; !p.IsZero() {
		v.Properties = &vectorProperty{ContentType: p.ContentType, Response: p.ResponseTopic, Correlation: hex.EncodeToString(p.CorrelationData), UTF8: p.PayloadUTF8}
		for _, u := range p.User {
			v.Properties.User = append(v.Properties.User, [2]string{u.Key, u.Value})
		}
	}
	return v
}

func (v *vectorLine) record(t *testing.T) (r stream.Record) {
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	r.Topic, r.Payload = v.Topic+string(unhex(v.TopicHex)), append([]byte(v.Payload), unhex(v.PayloadHex)...)
	r.Time, r.QoS, r.Retain, r.Quality, r.Mono = v.Time, v.QoS, v.Retain, stream.TimeQuality(v.Quality), v.Mono
	copy(r.Boot[:], unhex(v.Boot))
	if p := v.Properties; p != nil {
		r.Properties = &stream.Properties{ContentType: p.ContentType, ResponseTopic: p.Response, CorrelationData: unhex(p.Correlation), PayloadUTF8: p.UTF8}
		for _, u := range p.User {
			r.Properties.User = append(r.Properties.User, stream.Property{Key: u[0], Value: u[1]})
		}
	}
	return r
}

// vectors are the sessions of the golden files, all with the smallest state.
var vectors = map[string]func(w *world, i int) []stream.Record{
	// A car: rounds of sensors, one value each.
	"car": func(w *world, i int) (recs []stream.Record) {
		for k, name := range []string{"speed", "engine/rpm", "engine/coolant", "battery/voltage", "gps"} {
			w.values[k] += int64(w.chooser(7)) - 3
			m := message("car/"+name, fmt.Appendf(nil, `{"ts":%d,"value":%d.%d}`, (w.now+int64(i)*100_000)/1000, 100+w.values[k]/10, (w.values[k]%10+10)%10))
			m.Time, m.Quality = w.now+int64(i)*100_000+int64(k*1000), stream.TimeLocal
			recs = append(recs, m)
		}
		return append(recs, recs...)[:5+5*(i%2)]
	},
	// Frames of a bus, NMEA sentences, words, hex, flags.
	"formats": func(w *world, i int) (recs []stream.Record) {
		for k, kind := range []int{6, 3, 5, 4, 10, 2} {
			m := message(fmt.Sprint("bus/", kind), []byte(w.payload(kind, w.values[k])))
			w.values[k] += int64(w.chooser(5))
			m.Time = w.now + int64(i*50_000+k)
			recs = append(recs, m)
		}
		return recs
	},
	// Numbers that change all the time.
	"busy": func(w *world, i int) []stream.Record { return w.busy(36) },
	// Everything that a record can hold.
	"odd": func(w *world, i int) []stream.Record {
		recs := w.records(8)
		for k := range recs {
			r := &recs[k]
			r.Payload = r.Payload[:min(len(r.Payload), 300)]
			if r.Properties != nil {
				for u := range r.Properties.User {
					r.Properties.User[u].Value = strings.ToValidUTF8(r.Properties.User[u].Value, "é")
				}
			}
			switch 8*i + k { // longer than what is split, or remembered
			case 60, 62, 70:
				r.Payload = []byte(strings.Repeat("a long text, ", 1300))
			case 80, 81, 85:
				r.Payload = bytes.Repeat([]byte{0, 1, byte(i)}, 1500)
			}
		}
		return recs
	},
	// More than the state holds: topics are forgotten, and come back.
	"forgetting": func(w *world, i int) (recs []stream.Record) {
		for range 6 {
			k := w.chooser(90)
			m := message(fmt.Sprintf("fleet/%d/%s", k, "a long name of a topic, so that few of them fill the state"[k%9:]), nil)
			m.Payload = fmt.Appendf(nil, `{"n":%d,"v":"%x"}`, w.chooser(1000), make([]byte, 4+k))
			recs = append(recs, m)
		}
		return recs
	},
}

// The bytes on the link are the same on every machine, and those of the vectors
// that docs/format/link-codec.md points to.
func TestGolden(t *testing.T) {
	for name, batch := range vectors {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join("testdata", "golden", name+".ndjson")
			if *update {
				writeVectors(t, file, batch)
			}
			e, d := NewEncoder(MinState), NewDecoder(MinState)
			var recs []stream.Record
			bodies := 0
			for _, v := range readVectors(t, file) {
				if v.Body == nil {
					r := v.record(t)
					r.Seq = uint64(len(recs) + 1)
					recs = append(recs, r)
					continue
				}
				body, err := e.Append(nil, recs, v.Seed)
				if err != nil {
					t.Fatal(err)
				}
				if got := hex.EncodeToString(body); got != *v.Body || v.ofPosition(e.Position()) != v.Digest || e.s.used != v.State {
					t.Fatalf("body %d is %s,\nwant %s; digest %s, want %s; state %d, want %d", v.Bodies, got, *v.Body, v.ofPosition(e.Position()), v.Digest, e.s.used, v.State)
				}
				got, err := d.Decode(body, 1, v.Seed, Limits{})
				if err != nil {
					t.Fatal(err)
				}
				if diff := unlike(got, recs); diff != "" || d.Position() != e.Position() {
					t.Fatal(diff)
				}
				recs = recs[:0]
				bodies++
			}
			if bodies < 20 || len(recs) > 0 {
				t.Fatalf("%d bodies, and %d records without one", bodies, len(recs))
			}
			if forgot := len(d.s.free) > 0 || int(d.s.binaries) > 150; name == "forgetting" && !forgot {
				t.Fatal("nothing was forgotten")
			}
		})
	}
}

func (v *vectorLine) ofPosition(p Position) string {
	if p.Bodies != v.Bodies {
		return fmt.Sprintf("of body %d", p.Bodies)
	}
	return fmt.Sprintf("%016x", p.Digest)
}

func readVectors(t *testing.T, file string) (all []vectorLine) {
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		v := vectorLine{}
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		all = append(all, v)
	}
	return all
}

func writeVectors(t *testing.T, file string, batch func(w *world, i int) []stream.Record) {
	w := newWorld(byRand(1))
	w.values = make([]int64, 8)
	if strings.HasPrefix(filepath.Base(file), "odd") {
		w.values = nil // by topic
	}
	var out bytes.Buffer
	lines := json.NewEncoder(&out)
	lines.SetEscapeHTML(false)
	e := NewEncoder(MinState)
	for i := range 40 {
		recs := batch(w, i)
		for k := range recs {
			if err := lines.Encode(lineOf(&recs[k])); err != nil {
				t.Fatal(err)
			}
		}
		seed := uint32(i) * 0x01010101
		b, err := e.Append(nil, recs, seed)
		if err != nil {
			t.Fatal(err)
		}
		body := hex.EncodeToString(b)
		v := vectorLine{Body: &body, Seed: seed, Bodies: e.Position().Bodies, Digest: fmt.Sprintf("%016x", e.Position().Digest), State: e.s.used}
		if err := lines.Encode(v); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}
