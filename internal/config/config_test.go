package config

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

type color string

func (c color) Validate() error {
	if c != "" && c != "red" && c != "blue" {
		return fmt.Errorf("%s is no color", string(c))
	}
	return nil
}

type lane struct {
	Name    string   `yaml:"name" doc:"a name"`
	Filters []string `yaml:"filters"`
	Wait    Duration `yaml:"wait"`
}

func (l lane) Check(r *Report) {
	if l.Name == "" {
		r.Add("name", "is missing", "give the lane a name")
	}
}

type sample struct {
	Device string `yaml:"device" doc:"who we are"`
	On     bool   `yaml:"on"`
	Port   uint16 `yaml:"port"`
	Offset int    `yaml:"offset"`
	Ratio  float64
	Buffer struct {
		MaxBytes Bytes    `yaml:"max_bytes" doc:"size on disk"`
		MaxAge   Duration `yaml:"max_age"`
		Share    float32  `yaml:"share"`
	} `yaml:"buffer"`
	Lanes []lane   `yaml:"lanes"`
	URLs  []string `yaml:"urls"`
	Paint color    `yaml:"paint"`
}

func (s *sample) Check(r *Report) {
	if s.Buffer.MaxBytes > 1<<40 {
		r.Add("buffer.max_bytes", "is more than 1TiB", "")
	}
	for i, u := range s.URLs {
		if u == "bad" {
			r.Add(fmt.Sprintf("urls[%d]", i), "is bad", "")
		}
	}
}

func defaults() sample {
	s := sample{Port: 1883, URLs: []string{"a"}}
	s.Buffer.MaxBytes = 1 << 30
	return s
}

func write(t testing.TB, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "edge.yaml")
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSourcesWinInOrder(t *testing.T) {
	path := write(t, "device: 0017\non: true\nport: 1\noffset: -3\nbuffer:\n  max_bytes: 2 GB\n  max_age: 1d12h\n  share: 0.5\nlanes:\n- {name: x, filters: [a/#], wait: 5ms}\nurls: [a, b]\n")
	s := defaults()
	err := Source{Path: path, EnvPrefix: "P", Environ: []string{"P_PORT=2", "P_BUFFER_SHARE=0.25", "P_URLS=c, d", "P_PORT_1883_TCP=tcp://10.0.0.1", "OTHER=1",
		"P_LANES=[{name: y}, {name: z, filters: [q]}]"},
		Set: []Override{{"port", "3", "--port"}, {"urls", "e", "--url"}}}.Load(&s)
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%+v", s)
	want := "{Device:0017 On:true Port:3 Offset:-3 Ratio:0 Buffer:{MaxBytes:2GB MaxAge:1d12h Share:0.25} Lanes:[{Name:y Filters:[] Wait:0s} {Name:z Filters:[q] Wait:0s}] URLs:[e] Paint:}"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestEmptyFilesKeepDefaults(t *testing.T) {
	for _, text := range []string{"", "\n# only a comment\n", "---\n", "~\n", "buffer:\n  # max_bytes: 1GB\n"} {
		s := defaults()
		if err := (Source{Path: write(t, text)}).Load(&s); err != nil {
			t.Errorf("%q: %v", text, err)
		} else if s.Buffer.MaxBytes != 1<<30 || s.Port != 1883 {
			t.Errorf("%q changed a default: %+v", text, s)
		}
	}
}

// Everything that is wrong is told at once, in the order of the file.
func TestAllViolations(t *testing.T) {
	path := write(t, `devise: x
on: yes
port: 70000
offset: 1.5
buffer:
  max_byte: 1GB
  max_age: soon
  share: [1]
lanes:
- filters: [a]
  wait: -5s
- name: x
  name: y
urls: one
paint: green
`)
	s := defaults()
	err := Source{Path: path, EnvPrefix: "P", Environ: []string{"P_BUFFER_MAX_BYTE=3", "P_OFFSET=x"}, Set: []Override{{"urls", "ok,bad", "--url"}}}.Load(&s)
	var errs *Errors
	if !errors.As(err, &errs) {
		t.Fatalf("got %v", err)
	}
	want := []string{
		"F:1:1: devise: unknown key (did you mean device?)",
		`F:2:5: on: "yes" is neither true nor false (write true)`,
		"F:3:7: port: 70000 is out of range",
		`F:4:9: offset: "1.5" is not a whole number`,
		"F:6:3: buffer.max_byte: unknown key (did you mean max_bytes?)",
		`F:7:12: buffer.max_age: "soon" is not a duration: write 90s, 5m, 1h30m or 7d`,
		"F:8:10: buffer.share: is a list, want a number",
		"F:10:3: lanes[0].name: is missing (give the lane a name)",
		`F:11:9: lanes[0].wait: "-5s" is negative`,
		"F:13:3: lanes[1].name: is given twice, first in line 12 (remove one of them)",
		"F:14:7: urls: is a single value, want a list (write [one])",
		"F:15:8: paint: green is no color",
		"P_BUFFER_MAX_BYTE: no key has this environment variable (did you mean P_BUFFER_MAX_BYTES?)",
		`P_OFFSET: offset: "x" is not a whole number`,
	}
	got := strings.ReplaceAll(errs.Error(), path, "F")
	if got != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
	if errs.ExitCode() != 2 {
		t.Error("exit code", errs.ExitCode())
	}
}

// A rule's violation points at what set the value last.
func TestChecksPointAtTheSource(t *testing.T) {
	path := write(t, "device: x\nbuffer: {max_bytes: 2TiB}\nurls:\n- a\n- bad\n")
	for _, c := range []struct {
		src  Source
		want string
	}{
		{Source{Path: path}, "F:2:21: buffer.max_bytes: is more than 1TiB\nF:5:3: urls[1]: is bad"},
		{Source{Path: path, EnvPrefix: "P", Environ: []string{"P_BUFFER_MAX_BYTES=3TiB"}, Set: []Override{{"urls", "bad", "--url"}}},
			"P_BUFFER_MAX_BYTES: buffer.max_bytes: is more than 1TiB\n--url: urls[0]: is bad"},
	} {
		s := defaults()
		err := c.src.Load(&s)
		if err == nil || strings.ReplaceAll(err.Error(), path, "F") != c.want {
			t.Errorf("got\n%v\nwant\n%s", err, c.want)
		}
	}
}

func TestNotAConfiguration(t *testing.T) {
	cases := map[string]string{
		"a: [":                     "not YAML",
		"a: b: c\n":                ":1:1: not YAML",
		"device: x\na: b: c\n":     ":2:1: not YAML",
		"device: \x00\n":           "yaml: not YAML: control char",
		"\tdevice: x\n":            "spaces, not tabs",
		"just text\n":              "not a configuration",
		"- 1\n":                    "not a configuration",
		"device: a\n---\non: true": "second document",
		"device: &a x\n":           "anchors",
		"urls: &a [b]\nlanes: *a":  "anchors",
		"device: !!str x\n":        "tag",
		"device:\n":                "has no value",
		"device: [a]\n":            "is a list, want text",
		"on: {a: b}\n":             "is a group of keys, want true or false",
		"lanes: [x]\n":             "want a group of keys",
		"? [a, b]\n: c\n":          "unknown key",
		"<<: {device: x}\n":        "unknown key",
		"\"a\\nb\": 1\n":           `"a\nb": unknown key`,
	}
	for text, want := range cases {
		s := defaults()
		err := Source{Path: write(t, text)}.Load(&s)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
	for _, path := range []string{filepath.Join(t.TempDir(), "none.yaml"), t.TempDir()} {
		s := defaults()
		if err := (Source{Path: path}).Load(&s); err == nil || !strings.HasPrefix(err.Error(), path+": ") {
			t.Errorf("%s: got %v", path, err)
		}
	}
}

func TestReportIsBounded(t *testing.T) {
	var b strings.Builder
	for i := range 10 * maxViolations {
		fmt.Fprintf(&b, "k%d: 1\n", i)
	}
	s := defaults()
	var errs *Errors
	if err := (Source{Path: write(t, b.String())}).Load(&s); !errors.As(err, &errs) || len(errs.All) != maxViolations {
		t.Errorf("got %d violations", len(errs.All))
	}
	if err := (Source{Path: write(t, "device: "+strings.Repeat("x", maxFileBytes))}).Load(&s); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("a huge file: %v", err)
	}
}

func TestDescribe(t *testing.T) {
	s := defaults()
	var got []string
	for _, k := range Describe(&s, "P") {
		got = append(got, fmt.Sprintf("%s|%s|%s|%s|%s", k.Name, k.Env, k.Type, k.Default, k.Doc))
	}
	want := []string{
		"device|P_DEVICE|text||who we are", "on|P_ON|true or false|false|", "port|P_PORT|number|1883|", "offset|P_OFFSET|number|0|",
		"buffer.max_bytes|P_BUFFER_MAX_BYTES|size|1GiB|size on disk", "buffer.max_age|P_BUFFER_MAX_AGE|duration|0s|", "buffer.share|P_BUFFER_SHARE|number|0|",
		"lanes|P_LANES|list|[]|", "lanes[].name||text||a name", "lanes[].filters||list|[]|", "lanes[].wait||duration|0s|",
		"urls|P_URLS|list|[a]|", "paint|P_PAINT|text||",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestBytes(t *testing.T) {
	for text, want := range map[string]Bytes{"0": 0, "1B": 1, "512MiB": 512 << 20, "2 gb": 2e9, "1.5KiB": 1536, "8TiB": 8 << 40, "10kB": 10_000} {
		if got, err := ParseBytes(text); err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "12", "-1B", "1e3MB", "1XB", "MiB", "9999999999GiB", "99999999999999999999B", "NaNB", "0x10B", "1_0B", "InfB"} {
		if got, err := ParseBytes(text); err == nil {
			t.Errorf("%q is read as %d", text, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		b := Bytes(rapid.Int64Range(0, math.MaxInt64).Draw(t, "b"))
		if back, err := ParseBytes(b.String()); err != nil || back != b {
			t.Fatalf("%d -> %s -> %d, %v", int64(b), b, int64(back), err)
		}
	})
}

func TestDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{"0": 0, "90s": 90 * time.Second, "7d": 7 * day, "1d12h": 36 * time.Hour, "1h30m": 90 * time.Minute, "100ms": 100 * time.Millisecond} {
		if got, err := ParseDuration(text); err != nil || time.Duration(got) != want {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "12", "d", "-1d", "-1s", "1d-1h", "1.5d", "200000d", "106751d23h59m59s", "1w"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q is read as %s", text, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		d := Duration(rapid.Int64Range(0, math.MaxInt64).Draw(t, "d"))
		if back, err := ParseDuration(d.String()); err != nil || back != d {
			t.Fatalf("%d -> %s -> %d, %v", int64(d), d, int64(back), err)
		}
	})
}

func TestSuggestions(t *testing.T) {
	known := []string{"device", "data_dir", "listen", "buffer"}
	for name, want := range map[string]string{"devcie": "device", "data-dir": "data_dir", "Listen": "listen", "datadir": "data_dir", "zzz": "", "x": ""} {
		got := strings.TrimSuffix(strings.TrimPrefix(didYouMean(name, known), "did you mean "), "?")
		if got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

// Whatever a file holds, Load neither panics nor accepts a value that breaks a
// rule, says something for every refusal, and places it inside the file.
func FuzzLoad(f *testing.F) {
	f.Add([]byte("device: x\nbuffer: {max_bytes: 1GB}\nlanes:\n- name: a\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("{on: true, port: 0x10, ? : }"))
	f.Add([]byte("--- !!map\n\"device\": |\n x\n...\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "f.yaml")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		s := defaults()
		err := Source{Path: path}.Load(&s)
		if err == nil {
			if s.Buffer.MaxBytes < 0 || s.Buffer.MaxBytes > 1<<40 || s.Buffer.MaxAge < 0 || s.Paint.Validate() != nil {
				t.Fatalf("accepted %+v", s)
			}
			for _, l := range s.Lanes {
				if l.Name == "" {
					t.Fatal("accepted a lane without a name")
				}
			}
			return
		}
		var errs *Errors
		if !errors.As(err, &errs) || len(errs.All) == 0 || len(errs.All) > maxViolations {
			t.Fatalf("got %v", err)
		}
		lines := strings.Count(string(data), "\n") + strings.Count(string(data), "\r") + 2
		for _, v := range errs.All {
			if v.Message == "" || v.File != path || v.Line > lines || strings.ContainsAny(v.Key, "\n\r") {
				t.Fatalf("violation %+v of a file of %d lines", v, lines)
			}
		}
	})
}
