package signals

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math"
	"testing"
	"time"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func device(t testing.TB, o Options) *Device {
	t.Helper()
	o.Start = start
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestProfiles(t *testing.T) {
	for profile, sensors := range map[string]int{"car": 850, "ship": 124, "steady": 10} {
		d := device(t, Options{Profile: profile, Name: "x", Seed: 1})
		if d.Sensors() != sensors {
			t.Errorf("%s has %d sensors", profile, d.Sensors())
		}
		const span = 30 * time.Second
		n := map[string]uint64{}
		var last time.Duration
		total := 0
		for s := d.Next(); s.T < span; s = d.Next() {
			var p struct {
				TS    int64
				N     uint64
				Value any
			}
			if err := json.Unmarshal(s.Payload, &p); err != nil || p.Value == nil {
				t.Fatalf("%s: %v", s.Payload, err)
			}
			n[s.Topic]++
			if p.N != n[s.Topic] || p.TS != start.UnixMilli()+s.T.Milliseconds() || s.T < last {
				t.Fatalf("%s at %v after %v: %s is number %d", s.Topic, s.T, last, s.Payload, n[s.Topic])
			}
			last = s.T
			total++
		}
		if len(n) != sensors { // the slowest speak every 10 s
			t.Errorf("%s: %d topics", profile, len(n))
		}
		if rate := float64(total) / span.Seconds(); math.Abs(rate/d.Rate()-1) > 0.02 {
			t.Errorf("%s: %v messages/s, says %v", profile, rate, d.Rate())
		}
	}
}

func TestCarRatesAreMixed(t *testing.T) {
	slow, fast := math.Inf(1), 0.0
	for _, s := range car() {
		slow, fast = min(slow, s.hertz), max(fast, s.hertz)
	}
	if slow != 0.1 || fast != 100 {
		t.Errorf("rates from %v to %v", slow, fast)
	}
}

// The samples are the same on every machine: the checksum was taken on
// linux/amd64 and holds wherever the test runs.
func TestSameSeedSameSamples(t *testing.T) {
	sum := func(o Options) string {
		h := fnv.New64a()
		d := device(t, o)
		for range 20_000 {
			s := d.Next()
			fmt.Fprintf(h, "%d %s %s\n", s.T, s.Topic, s.Payload)
		}
		return fmt.Sprintf("%016x", h.Sum64())
	}
	o := Options{Profile: "car", Name: "car-1", Seed: 42}
	if got := sum(o); got != golden {
		t.Errorf("checksum %s, want %s", got, golden)
	}
	for _, other := range []Options{{Profile: "car", Name: "car-1", Seed: 43}, {Profile: "car", Name: "car-2", Seed: 42}} {
		if sum(other) == golden {
			t.Errorf("%+v gives the same samples", other)
		}
	}
}

const golden = "2636e6f3b8cfd55c"

func TestRateIsScaled(t *testing.T) {
	d := device(t, Options{Profile: "steady", Name: "x", Rate: 5000})
	n := 0
	for d.Next().T < time.Second {
		n++
	}
	if n < 4990 || n > 5010 || d.Rate() != 5000 {
		t.Errorf("%d samples in a second, says %v", n, d.Rate())
	}
	for _, bad := range []Options{{Profile: "train"}, {Profile: "car", Rate: -1}, {Profile: "car", Rate: math.Inf(1)}, {Profile: "car", Rate: math.NaN()}} {
		if _, err := New(bad); err == nil {
			t.Errorf("%+v passes", bad)
		}
	}
}

func BenchmarkNext(b *testing.B) {
	d := device(b, Options{Profile: "car", Name: "car-1"})
	for b.Loop() {
		d.Next()
	}
}
