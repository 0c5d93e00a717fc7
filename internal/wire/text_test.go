package wire

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/packetboat/packetboat/pkg/stream"
)

// anyRanges draws up to most ranges; many of them make texts that must be cut.
func anyRanges(most int) *rapid.Generator[stream.RangeSet] {
	return rapid.Custom(func(t *rapid.T) (s stream.RangeSet) {
		n := rapid.OneOf(rapid.IntRange(0, 4), rapid.IntRange(0, most)).Draw(t, "ranges")
		step := rapid.SampledFrom([]uint64{3, 1 << 20, 1 << 50}).Draw(t, "step")
		for i := range uint64(n) {
			s.Add(stream.Range{First: 1 + i*step, Last: 1 + i*step + i%2})
		}
		return s
	})
}

func epoch(i int) stream.Epoch { return stream.Epoch{byte(i >> 8), byte(i), 1} }

var logs = [...]stream.LogID{{}, {Name: epochs[0], Incarnation: epochs[1]}, {Name: epochs[0], Incarnation: epochs[2]}}

func anyHeld() *rapid.Generator[[]stream.Held] {
	return rapid.Custom(func(t *rapid.T) (held []stream.Held) {
		n := rapid.OneOf(rapid.IntRange(0, 3), rapid.IntRange(0, 1500)).Draw(t, "epochs")
		shape := rapid.IntRange(1, 7).Draw(t, "shape")
		sets := []stream.RangeSet{anyRanges(700).Draw(t, "ranges"), anyRanges(5).Draw(t, "ranges")}
		log := rapid.IntRange(0, 2).Draw(t, "log")
		for i := range n {
			for j, lane := range stream.Lanes {
				if shape>>j&1 == 0 {
					continue
				}
				h := stream.Held{Epoch: epoch(i), Lane: lane, Current: i == n-1, Ranges: sets[(i+j)%2], Answered: logs[log*(i%3)%3]}
				h.Head = h.Ranges.Max() + uint64(i)
				held = append(held, h)
			}
		}
		return held
	})
}

func textSize(props []stream.Property) (n int) {
	for _, p := range props {
		n += len(p.Key) + len(p.Value) + propertyCost
	}
	return n
}

// pb-held round-trips where it fits, and over-states where it does not: every
// number that is held is named, or its epoch is left out and that is said.
func TestHeld(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		held := anyHeld().Draw(t, "held")
		props := FormatHeld(held)
		if n := textSize(props); n > MaxText {
			t.Fatalf("%d bytes", n)
		}
		got, err := ParseHeld(append([]stream.Property{FormatVersion()}, props...))
		if err != nil {
			t.Fatal(err)
		}
		type key struct {
			stream.Epoch
			stream.Lane
		}
		back := make(map[key]stream.Held)
		for _, h := range got {
			back[key{h.Epoch, h.Lane}] = h
		}
		missing := 0
		for _, h := range held {
			b, ok := back[key{h.Epoch, h.Lane}]
			if !ok {
				missing++
				if h.Current {
					t.Fatal("the current epoch is not named")
				}
				continue
			}
			if b.Head != h.Head || b.Current != h.Current || b.Answered != h.Answered {
				t.Fatalf("in  %+v\nout %+v", h, b)
			}
			for _, r := range h.Ranges.Ranges() {
				if !b.Ranges.ContainsRange(r) {
					t.Fatalf("%s is held and not named", r)
				}
			}
			if b.Ranges.Max() > h.Ranges.Max() || b.Ranges.Len() > MaxRanges {
				t.Fatalf("%d ranges up to %d", b.Ranges.Len(), b.Ranges.Max())
			}
		}
		if (missing > 0) != HeldIsPartial(props) || len(got) > len(held) {
			t.Fatalf("%d missing, partial %v", missing, HeldIsPartial(props))
		}
		exact := len(held) <= 6
		for _, h := range held {
			exact = exact && h.Ranges.Len() <= 20
		}
		if exact && !reflect.DeepEqual(held, got) {
			t.Fatalf("in  %+v\nout %+v", held, got)
		}
	})
}

// pb-coverage under-states, names every epoch, and never lets a lost number
// pass as one that is in the log.
func TestCoverage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.OneOf(rapid.IntRange(0, 3), rapid.IntRange(0, MaxEpochs)).Draw(t, "epochs")
		settled := []stream.RangeSet{anyRanges(700).Draw(t, "settled"), anyRanges(5).Draw(t, "settled"), stream.NewRangeSet(stream.Range{First: 1, Last: 1 << 40})}
		drop := []stream.RangeSet{anyRanges(700).Draw(t, "in"), {}}
		var cov []stream.EpochCoverage
		for i := range n {
			c := stream.EpochCoverage{Epoch: epoch(i)}
			for j, lane := range stream.Lanes {
				l := stream.LaneCoverage{Lane: lane, Settled: settled[(i+j)%3].Clone()}
				if j != 1 {
					l.Lost = l.Settled.Clone()
					l.Lost.RemoveSet(&drop[i%2])
				}
				if !l.Settled.IsEmpty() {
					c.Lanes = append(c.Lanes, l)
				}
			}
			cov = append(cov, c)
		}
		props := FormatCoverage(cov)
		if size := textSize(props); size > MaxText {
			t.Fatalf("%d bytes", size)
		}
		got, err := ParseCoverage(append([]stream.Property{FormatLogID(logs[1])}, props...))
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != n {
			t.Fatalf("%d of %d epochs are named", len(got), n)
		}
		size := 0 // of the whole truth
		for i := range cov {
			for _, l := range cov[i].Lanes {
				size += len(l.Settled.String()) + len(l.Lost.String())
			}
		}
		for i := range got {
			checkCoverage(t, &cov[i], &got[i], n <= 3 && size < MaxText-1000)
		}
	})
}

func checkCoverage(t *rapid.T, in, out *stream.EpochCoverage, few bool) {
	if in.Epoch != out.Epoch {
		t.Fatalf("epoch %s as %s", in.Epoch, out.Epoch)
	}
	for _, o := range out.Lanes {
		for _, l := range in.Lanes {
			if l.Lane != o.Lane {
				continue
			}
			if o.Settled.Len() > MaxRanges || o.Lost.Len() > MaxRanges {
				t.Fatalf("%d and %d ranges", o.Settled.Len(), o.Lost.Len())
			}
			for _, r := range o.Settled.Ranges() {
				if !l.Settled.ContainsRange(r) {
					t.Fatalf("%s is not settled", r)
				}
				want, said := stream.Collect(l.Lost.Within(r)), stream.Collect(o.Lost.Within(r))
				if !want.Equal(&said) {
					t.Fatalf("of %s lost %.200s, said %.200s", r, want.String(), said.String())
				}
			}
			if few && l.Settled.Len() < 20 && l.Lost.Len() < 20 && !o.Settled.Equal(&l.Settled) {
				t.Fatalf("%s became %s", l.Settled.String(), o.Settled.String())
			}
		}
	}
	if few && len(in.Lanes) != len(out.Lanes) {
		t.Fatalf("of %d lanes %d are named", len(in.Lanes), len(out.Lanes))
	}
}

func TestAnswer(t *testing.T) {
	if props := FormatAnswer(stream.RangeSet{}, stream.RangeSet{}); len(props) != 0 {
		t.Errorf("the usual answer takes properties: %v", props)
	}
	rapid.Check(t, func(t *rapid.T) {
		lost, in := anyRanges(MaxRecords/2).Draw(t, "lost"), anyRanges(MaxLosses).Draw(t, "in")
		props := FormatAnswer(lost, in)
		for _, p := range props {
			if len(p.Value) > 65535 {
				t.Fatalf("a property of %d bytes", len(p.Value))
			}
		}
		gotLost, gotIn, err := ParseAnswer(append(props, FormatVersion()))
		if err != nil || !gotLost.Equal(&lost) || !gotIn.Equal(&in) {
			t.Fatalf("%v: %d of %d, %d of %d", err, gotLost.Len(), lost.Len(), gotIn.Len(), in.Len())
		}
	})
	if _, _, err := ParseAnswer([]stream.Property{{Key: PropLost, Value: "x"}}); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
}

func TestRetryAfter(t *testing.T) {
	for in, want := range map[time.Duration]string{
		0: "0", -1: "0", 1: "1", time.Millisecond: "1", 1500 * time.Microsecond: "2", time.Minute: "60000", time.Hour: "60000",
	} {
		p := FormatRetryAfter(in)
		if p.Value != want {
			t.Errorf("%v: %s, want %s", in, p.Value, want)
		}
		if d, ok := RetryAfter([]stream.Property{p}); !ok || d < min(in, time.Minute) || d > MaxRetryAfter {
			t.Errorf("%v comes back as %v", in, d)
		}
	}
	for text, want := range map[string]time.Duration{"9999999999": time.Minute, "-1": -1, "": -1, "1s": -1} {
		d, ok := RetryAfter([]stream.Property{{Key: PropRetryAfter, Value: text}})
		if ok != (want >= 0) || ok && d != want {
			t.Errorf("%q: %v %v", text, d, ok)
		}
	}
	if _, ok := RetryAfter(nil); ok {
		t.Error("none passes as some")
	}
}

func TestVersionAndLogID(t *testing.T) {
	if v, err := ParseVersion([]stream.Property{FormatVersion()}); err != nil || v != Version {
		t.Errorf("%d, %v", v, err)
	}
	if v, err := ParseVersion([]stream.Property{{Key: PropVersion, Value: "2"}}); err != nil || v != 2 {
		t.Errorf("a newer version: %d, %v", v, err)
	}
	if l, err := ParseLogID([]stream.Property{FormatLogID(logs[1])}); err != nil || l != logs[1] {
		t.Errorf("%v, %v", l, err)
	}
	for _, bad := range []string{"", "0", "-1", "x", "99999999"} {
		if _, err := ParseVersion([]stream.Property{{Key: PropVersion, Value: bad}}); !errors.Is(err, ErrMalformed) {
			t.Errorf("version %q: %v", bad, err)
		}
		if _, err := ParseLogID([]stream.Property{{Key: PropLog, Value: bad}}); !errors.Is(err, ErrMalformed) {
			t.Errorf("log id %q: %v", bad, err)
		}
	}
	if _, err := ParseLogID([]stream.Property{FormatLogID(stream.LogID{})}); err == nil {
		t.Error("a log without a name passes")
	}
	if _, err := ParseLogID(nil); err == nil {
		t.Error("no log passes")
	}
}

func TestBadText(t *testing.T) {
	e := epochs[0].String()
	for _, bad := range []string{"", "x", e[1:], e + ":n=x", e + ":n=5", e + ":n=5/6", e + ":n=9/1-3;n=9/1-3", e + ":a=1", strings.Repeat("0", 32), e + ":n=18446744073709551615/1"} {
		if got, err := ParseHeld([]stream.Property{{Key: PropHeld, Value: bad}}); bad != e+":n=5" && !errors.Is(err, ErrMalformed) {
			t.Errorf("pb-held %q: %+v, %v", bad, got, err)
		}
	}
	for _, bad := range []string{"", "x", e + ":n=x", e + ":nl=1", e + ":n=1;ul=1", e + ":n=1-4;nl=5", e + ":n=1;n=1", e + ":n=1;nl=1;nl=1"} {
		if got, err := ParseCoverage([]stream.Property{{Key: PropCoverage, Value: bad}}); !errors.Is(err, ErrMalformed) {
			t.Errorf("pb-coverage %q: %+v, %v", bad, got, err)
		}
	}
	twice := []stream.Property{{Key: PropHeld, Value: e}, {Key: PropHeld, Value: e}, {Key: PropCoverage, Value: e}, {Key: PropCoverage, Value: e}}
	if _, err := ParseHeld(twice); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
	if _, err := ParseCoverage(twice); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
	// A field of a newer peer is passed over.
	if h, err := ParseHeld([]stream.Property{{Key: PropHeld, Value: e + ":z=1;c;n=7/2-3;x"}}); err != nil || len(h) != 1 || !h[0].Current || h[0].Head != 7 {
		t.Errorf("%+v, %v", h, err)
	}
	if c, err := ParseCoverage([]stream.Property{{Key: PropCoverage, Value: e + ":z;n=1;y=2"}}); err != nil || len(c) != 1 || len(c[0].Lanes) != 1 {
		t.Errorf("%+v, %v", c, err)
	}
}

func FuzzText(f *testing.F) {
	e := epochs[0].String()
	f.Add(e + ":c;a=" + logs[1].String() + ";n=7/1-3,5")
	f.Add(e + ":n=1-9;nl=3-4;u=2")
	f.Add("60000")
	f.Add("2;s=3-9")
	f.Add("2;m=2097152;s=7/0123456789abcdef")
	f.Fuzz(func(t *testing.T, text string) {
		props := make([]stream.Property, 0, 8)
		for _, k := range []string{PropVersion, PropHeld, PropLog, PropCoverage, PropRetryAfter, PropLost, PropIn, PropCodec} {
			props = append(props, stream.Property{Key: k, Value: text})
		}
		if held, err := ParseHeld(props); err == nil {
			again, err := ParseHeld(FormatHeld(held))
			if err != nil || !reflect.DeepEqual(held, again) {
				t.Fatalf("%+v\n%+v\n%v", held, again, err)
			}
		}
		if cov, err := ParseCoverage(props); err == nil {
			if again, err := ParseCoverage(FormatCoverage(cov)); err != nil || len(again) != len(cov) {
				t.Fatalf("%+v\n%+v\n%v", cov, again, err)
			}
		}
		if d, ok := RetryAfter(props); ok && (d < 0 || d > MaxRetryAfter) {
			t.Fatal(d)
		}
		if o, ok := ParseCodecOffer(props); ok {
			if again, ok := ParseCodecOffer([]stream.Property{FormatCodecOffer(o)}); !ok || again != o {
				t.Fatalf("%+v\n%+v", o, again)
			}
		}
		if g, ok := ParseCodecGrant(props); ok {
			if again, ok := ParseCodecGrant([]stream.Property{FormatCodecGrant(g)}); !ok || again != g {
				t.Fatalf("%+v\n%+v", g, again)
			}
		}
		_, _ = ParseVersion(props)
		_, _ = ParseLogID(props)
		_, _, _ = ParseAnswer(props)
	})
}
