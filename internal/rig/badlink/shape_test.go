package badlink

import (
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// However the bytes are cut into chunks, they leave at the rate.
func TestRateIsKept(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.Int64Range(100, 1e9).Draw(t, "rate")
		d := newDirection(1, new(atomic.Int64))
		d.configure(rate, Conditions{}.filled())
		start := time.Unix(1e9, 0)
		now, total := start, int64(0)
		for _, n := range rapid.SliceOfN(rapid.IntRange(1, chunkSize), 1, 100).Draw(t, "chunks") {
			now = now.Add(d.reserve(now, n)) // who calls sleeps that long
			total += int64(n)
		}
		want := float64(total) / float64(rate)
		if got := now.Sub(start).Seconds(); got < want-0.001 || got > want+0.001 {
			t.Fatalf("%d bytes at %d/s took %v s, not %v", total, rate, got, want)
		}
	})
}

// Idle time is not saved up, and a new rate owes nothing to the old one.
func TestRateHasNoMemory(t *testing.T) {
	d := newDirection(1, new(atomic.Int64))
	d.configure(1000, Conditions{})
	now := time.Unix(1e9, 0)
	d.reserve(now, 10)
	if w := d.reserve(now.Add(time.Hour), 1000); w != time.Second {
		t.Errorf("after an idle hour 1000 bytes wait %v", w)
	}
	d.reserve(now.Add(time.Hour), 1<<20)
	d.configure(2000, Conditions{})
	if w := d.reserve(now.Add(time.Hour), 1000); w != time.Second/2 {
		t.Errorf("at the new rate 1000 bytes wait %v", w)
	}
}

func TestDelayJitterStallNeverReorder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var stalls atomic.Int64
		d := newDirection(rapid.Uint64().Draw(t, "seed"), &stalls)
		c := Conditions{
			Delay: time.Duration(rapid.IntRange(0, 500).Draw(t, "delay")) * time.Millisecond, Jitter: time.Duration(rapid.IntRange(0, 500).Draw(t, "jitter")) * time.Millisecond,
			Loss: rapid.Float64Range(0, 1).Draw(t, "loss"), Stall: 300 * time.Millisecond,
		}
		d.configure(0, c)
		now := time.Unix(1e9, 0)
		last := now
		for range 50 {
			before := stalls.Load()
			at := d.due(now, 1000)
			if at.Before(last) || at.Before(now.Add(c.Delay)) {
				t.Fatalf("due %v, the one before %v, now %v", at, last, now)
			}
			if stalls.Load() > before && at.Before(now.Add(c.Delay+c.Stall)) {
				t.Fatalf("a lost packet waited only %v", at.Sub(now))
			}
			last = at
			now = now.Add(10 * time.Millisecond)
		}
		if c.Loss == 1 && stalls.Load() != 50 || c.Loss == 0 && stalls.Load() != 0 {
			t.Fatalf("loss %v: %d stalls", c.Loss, stalls.Load())
		}
	})
}

func TestParse(t *testing.T) {
	for _, bad := range []string{"x", "1s", "1s:", "1s:cut=x", "-1s:up", "1s:rate=-1", "1s:loss=2", "1s:loss=NaN", "1s:delay=2h", "1s:speed=1", "1s:up,,"} {
		if s, err := ParseSchedule(bad); err == nil {
			t.Errorf("%q passes: %v", bad, s)
		}
	}
	s, err := ParseSchedule("15s:up,10s:cut=blackhole,10s:jitter=3ms")
	if err != nil || len(s) != 3 || s[0].At != 10*time.Second || s[1].Text != "10s:jitter=3ms" || s[2].At != 15*time.Second {
		t.Errorf("%v %v", s, err)
	}
	if s, err := ParseSchedule(" "); err != nil || s != nil {
		t.Errorf("%v %v", s, err)
	}
	for _, bad := range []Conditions{{RateUp: -1}, {Loss: -1}, {Delay: time.Hour}, {Cut: "x"}} {
		if l, err := New(Options{Listen: "127.0.0.1:0", Conditions: bad}); err == nil {
			l.Close()
			t.Errorf("%+v passes", bad)
		}
	}
}

func FuzzParseSchedule(f *testing.F) {
	f.Add("10s:cut=blackhole,15s:up")
	f.Add("0s:rate=2000,1ms:loss=0.5")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSchedule(text)
		if err != nil {
			return
		}
		c := Conditions{}
		for i, step := range s {
			step.Apply(&c)
			if i > 0 && s[i-1].At > step.At {
				t.Fatal("out of order")
			}
		}
		if err := c.check(); err != nil {
			t.Fatalf("%q leads to %v", text, err)
		}
	})
}
