package stream

import (
	"testing"

	"pgregory.net/rapid"
)

// A RangeSet behaves as a set of numbers, whatever is done to it.
func TestRangeSetAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const top = 40
		var s RangeSet
		var model [top + 2]bool
		gen := rapid.Custom(func(t *rapid.T) Range {
			a := rapid.Uint64Range(1, top).Draw(t, "first")
			return Range{a, rapid.Uint64Range(a-1, top).Draw(t, "last")}
		})
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			r := gen.Draw(t, "range")
			add := rapid.Bool().Draw(t, "add")
			if add {
				s.Add(r)
			} else {
				s.Remove(r)
			}
			for n := r.First; n <= r.Last && r.Last >= r.First; n++ {
				model[n] = add
			}
			q := gen.Draw(t, "query")
			in, missing := Collect(s.Within(q)), Collect(s.Missing(q))
			all, some := true, false
			for n := uint64(1); n <= top; n++ {
				inQ := n >= q.First && n <= q.Last
				if s.Contains(n) != model[n] || in.Contains(n) != (inQ && model[n]) || missing.Contains(n) != (inQ && !model[n]) {
					t.Fatalf("number %d: set %s, query %s, within %s, missing %s", n, &s, q, &in, &missing)
				}
				all = all && (!inQ || model[n])
				some = some || inQ && model[n]
			}
			if s.ContainsRange(q) != all || s.Overlaps(q) != some {
				t.Fatalf("set %s, query %s: contains %v, overlaps %v", &s, q, s.ContainsRange(q), s.Overlaps(q))
			}
			for i, x := range s.Ranges() {
				if x.Count() == 0 || i > 0 && s.Ranges()[i-1].Last+1 >= x.First {
					t.Fatalf("not canonical: %s", &s)
				}
			}
			back, err := ParseRangeSet(s.String(), top)
			if err != nil || !back.Equal(&s) {
				t.Fatalf("%q read back as %q: %v", s.String(), back.String(), err)
			}
		}
	})
}

func FuzzParseRangeSet(f *testing.F) {
	f.Add("1-9000,9005")
	f.Add("0")
	f.Add("18446744073709551615")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseRangeSet(text, 100)
		if err != nil {
			return
		}
		if s.Len() > 100 {
			t.Fatalf("%d ranges", s.Len())
		}
		again, err := ParseRangeSet(s.String(), 100)
		if err != nil || !again.Equal(&s) {
			t.Fatalf("%q: %v", s.String(), err)
		}
	})
}

func TestNames(t *testing.T) {
	for _, l := range Lanes {
		if got, err := ParseLane(l.String()); err != nil || got != l {
			t.Errorf("lane %v: %v %v", l, got, err)
		}
	}
	id := LogID{NewEpoch(), NewEpoch()}
	if got, err := ParseLogID(id.String()); err != nil || got != id {
		t.Errorf("%v: %v %v", id, got, err)
	}
	for _, bad := range []string{"", ".", "..", "a/b", "ü", "x y", string(make([]byte, 65))} {
		if CheckDeviceID(bad) == nil {
			t.Errorf("%q passes as a device id", bad)
		}
	}
	for _, r := range Reasons {
		var back Reason
		if err := back.UnmarshalText([]byte(r.String())); err != nil || back != r {
			t.Errorf("reason %v reads back as %v", r, back)
		}
	}
}
