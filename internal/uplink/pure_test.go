package uplink

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/packetboat/packetboat/internal/wire"
	"github.com/packetboat/packetboat/pkg/buffer"
	"github.com/packetboat/packetboat/pkg/stream"
)

// Pauses grow to the bound, stay within half of it, and begin anew.
func TestBackoff(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lo := time.Duration(rapid.Int64Range(1, int64(time.Second)).Draw(t, "min"))
		b := backoff{min: lo, max: lo * time.Duration(rapid.Int64Range(1, 1000).Draw(t, "factor"))}
		want := b.min
		for i := range 80 {
			d := b.next(rapid.Float64Range(0, 0.999).Draw(t, "chance"))
			if d < want/2 || d > want {
				t.Fatalf("pause %d is %v, want %v to %v", i, d, want/2, want)
			}
			want = min(want*2, b.max)
		}
		b.reset()
		if d := b.next(0.999); d > b.min {
			t.Fatalf("%v after a reset", d)
		}
	})
	for _, c := range []float64{0, 0.5, 0.999} {
		if d := asked(time.Second, c); d < time.Second || d > 1250*time.Millisecond {
			t.Errorf("asked for 1 s: %v", d)
		}
	}
}

func TestTargets(t *testing.T) {
	for text, want := range map[string]target{
		"tcp://hub":            {host: "hub", addr: "hub:1884"},
		"mqtt://hub:1":         {host: "hub", addr: "hub:1"},
		"tls://hub":            {host: "hub", addr: "hub:8884", tls: true},
		"mqtts://[fe80::1]:99": {host: "fe80::1", addr: "[fe80::1]:99", tls: true},
	} {
		want.url = text
		if got, err := parseTarget(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "hub", "hub:1884", "http://hub", "tcp://", "tcp://hub/path", "tcp://u:p@hub", "tcp://hub?x", "tcp://%zz"} {
		if got, err := parseTarget(bad); err == nil {
			t.Errorf("%q passes: %+v", bad, got)
		}
	}
}

func TestRedirectedNeverLeavesTLS(t *testing.T) {
	plain, secure := target{url: "tcp://a"}, target{url: "tls://a", tls: true}
	for _, c := range []struct {
		from      target
		reference string
		want      string
	}{
		{plain, "b", "b:1884"}, {plain, "b:7", "b:7"}, {plain, "tls://b", "b:8884"}, {secure, "b", "b:8884"},
		{secure, "tcp://b c:9", "c:9"}, {secure, "tcp://b", ""}, {plain, "", ""}, {plain, "http://b", ""}, {plain, "[::1]:5 b", "[::1]:5"},
	} {
		to, err := c.from.redirected(c.reference)
		if to.addr != c.want || (err == nil) != (c.want != "") || c.from.tls && err == nil && !to.tls {
			t.Errorf("%s refers to %q: %+v, %v", c.from.url, c.reference, to, err)
		}
	}
}

// The highest lane goes first, and each lane that has batches gets its share.
func TestShares(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s shares
		always := rapid.SampledFrom(stream.Lanes[:]).Draw(t, "always due")
		passed := 0
		for range 200 {
			var due [len(stream.Lanes) + 1]bool
			for _, l := range stream.Lanes {
				due[l] = l == always || rapid.Bool().Draw(t, "due")
			}
			got, ok := s.pick(func(l stream.Lane) bool { return due[l] })
			if !ok || !due[got] {
				t.Fatalf("picked %v", got)
			}
			if passed++; got == always {
				passed = 0
			}
			if passed > patience[stream.Bulk]+3 {
				t.Fatalf("%s was passed over %d times", always, passed)
			}
		}
	})
	var s shares
	all := func(stream.Lane) bool { return true }
	var n [len(stream.Lanes) + 1]int
	for range 1000 {
		l, _ := s.pick(all)
		n[l]++
	}
	if n[stream.Urgent] < 800 || n[stream.Normal] < 90 || n[stream.Bulk] < 45 {
		t.Errorf("of 1000 batches %v", n)
	}
	if l, ok := s.pick(func(stream.Lane) bool { return false }); ok {
		t.Errorf("picked %v of none", l)
	}
}

func TestBatchPolicy(t *testing.T) {
	now := time.Now()
	p := BatchPolicy{Messages: 10, Bytes: 100, Age: time.Second}
	old := now.Add(-300 * time.Millisecond)
	for _, c := range []struct {
		name string
		p    BatchPolicy
		b    buffer.Backlog
		want time.Duration
	}{
		{"nothing", p, buffer.Backlog{}, -1},
		{"some", p, buffer.Backlog{Messages: 1, Bytes: 1, OldestAppend: old}, 700 * time.Millisecond},
		{"count", p, buffer.Backlog{Messages: 10, OldestAppend: now}, 0},
		{"bytes", p, buffer.Backlog{Messages: 1, Bytes: 100, OldestAppend: now}, 0},
		{"age", p, buffer.Backlog{Messages: 1, OldestAppend: now.Add(-time.Hour)}, 0},
		{"at once", BatchPolicy{Messages: 10, Bytes: 100, Age: -1}, buffer.Backlog{Messages: 1, OldestAppend: now}, 0},
	} {
		if got := c.p.wait(c.b, now, &rhythm{}); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	o := Options{Lanes: map[stream.Lane]BatchPolicy{stream.Bulk: {Messages: 1 << 30, Bytes: 1 << 30}}}.withDefaults()
	if b := o.Lanes[stream.Bulk]; b.Messages != MaxBatchMessages || b.Bytes != maxBatchBytes || b.Age != defaults[stream.Bulk].Age {
		t.Errorf("%+v", b)
	}
	if o.Lanes[stream.Urgent] != defaults[stream.Urgent] {
		t.Errorf("%+v", o.Lanes[stream.Urgent])
	}
}

func TestEndings(t *testing.T) {
	e := refused(codePassword, "nope", "ignored", []stream.Property{wire.FormatRetryAfter(time.Second)}, "truck-17")
	if !e.slow || e.reference != "" || e.retryAfter != time.Second || !strings.Contains(e.Error(), "truck-17") || !strings.Contains(e.Error(), "device add") {
		t.Errorf("%+v", e)
	}
	if e := refused(codeUseAnother, "", "b:1", nil, "d"); e.slow || e.reference != "b:1" {
		t.Errorf("%+v", e)
	}
	if e := endingOf(fmt.Errorf("x: %w", x509.UnknownAuthorityError{})); !e.slow || e.hint == "" {
		t.Errorf("%+v", e)
	}
	if e := endingOf(fmt.Errorf("x: %w", x509.CertificateInvalidError{Reason: x509.Expired})); e.slow || !strings.Contains(e.hint, "clock") {
		t.Errorf("%+v", e)
	}
	if inner := errors.New("inner"); !errors.Is(endingOf(fmt.Errorf("x: %w", inner)), inner) {
		t.Error("an ending hides its error")
	}
}

func TestOptionsThatCannotWork(t *testing.T) {
	for _, o := range []Options{
		{Device: "a/b", URLs: []string{"tcp://hub"}},
		{Device: "a"},
		{Device: "a", URLs: []string{"tcp://hub", "http://hub"}},
	} {
		if err := New(nil, o).Run(t.Context()); err == nil {
			t.Errorf("%+v runs", o)
		}
	}
}
