package codec

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/packetboat/packetboat/pkg/stream"
)

// place is a session's decoder in front of a body.
type place struct {
	limit int
	at    Position
	state *state
	next  sent
	was   []byte // the body before
}

// places are some of a session, at its begin too.
func places(t *testing.T, seed uint64, bodies, size int) (all []place) {
	l := newLink(t, byRand(seed), MinState)
	was := []byte(nil)
	for range bodies {
		l.send(1 + l.chooser(size))
		x := l.way[0]
		x.body = bytes.Clone(x.body)
		p := place{limit: MinState, at: l.d.at, next: x, was: was}
		if l.d.s.state != nil {
			p.state = l.d.s.state.clone()
		}
		all = append(all, p)
		was = x.body
		l.deliver(1)
	}
	return all
}

func (p *place) decoder() *Decoder {
	d := &Decoder{limit: p.limit, at: p.at}
	if p.state != nil {
		d.s.begin(p.state.clone(), false)
	}
	return d
}

// refuses checks that a body gives an error or the right records; it reports an
// error.
func (p *place) refuses(t *testing.T, body []byte, seed uint32) bool {
	t.Helper()
	recs, err := p.decoder().Decode(body, 1, seed, Limits{})
	if err == nil {
		if d := unlike(recs, p.next.recs); d != "" {
			t.Fatalf("a damaged body was taken: %s", d)
		}
		return false
	}
	if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrTooLarge) && !errors.Is(err, ErrOutOfStep) {
		t.Fatalf("an error of no kind: %v", err)
	}
	return true
}

// No body that was changed on its way becomes records that nobody sent.
func TestDamage(t *testing.T) {
	tried, taken, seeds := 0, 0, 3
	if testing.Short() { // under an emulator
		seeds = 1
	}
	for seed := range uint64(seeds) {
		c := byRand(seed + 100)
		for _, p := range places(t, seed, 10, 8) {
			try := func(body []byte) {
				if bytes.Equal(body, p.next.body) {
					return
				}
				if tried++; !p.refuses(t, body, p.next.seed) {
					taken++
				}
			}
			right := p.next.body
			for range 60 {
				b := bytes.Clone(right)
				for range 1 + c(4) {
					b[c(len(b))] ^= 1 << c(8)
				}
				try(b)
			}
			for n := range min(len(right), 40) {
				try(right[:n])
				try(right[len(right)-n:])
			}
			for range 10 {
				at := c(len(right))
				try(slices.Insert(bytes.Clone(right), at, byte(c(256))))
				try(slices.Delete(bytes.Clone(right), at, at+1))
				b := bytes.Clone(right)
				other := c(len(b))
				b[at], b[other] = b[other], b[at]
				try(b)
			}
			try(append(bytes.Clone(right), 0))
			try(append(bytes.Clone(right), right...))
			if len(p.was) > 0 {
				try(p.was) // once more
				half := len(p.was) / 2
				try(append(bytes.Clone(p.was[:half]), right[min(half, len(right)):]...))
			}
			if !p.refuses(t, right, p.next.seed+1) {
				t.Fatal("the seed is not part of the check")
			}
			if p.refuses(t, right, p.next.seed) {
				t.Fatal("the right body is refused")
			}
		}
	}
	// The last bits of a body may be any of some; what it says is the same.
	if tried < 1000*seeds || taken*200 > tried {
		t.Errorf("%d of %d changed bodies were taken for the right ones", taken, tried)
	}
}

// Bodies that are all as foreseen look alike; none is taken for another.
func TestBodiesInOrder(t *testing.T) {
	e, d := NewEncoder(MinState), NewDecoder(MinState)
	var bodies [][]byte
	for i := range 12 {
		m := message("t", []byte("7"))
		m.Time = int64(i) * 1e6
		body, err := e.Append(nil, []stream.Record{m}, 0)
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, body)
	}
	for i := range 10 {
		p := place{limit: MinState, at: d.at}
		if i > 0 {
			p.state = d.s.state
		}
		for k, b := range bodies {
			if _, err := p.decoder().Decode(b, 1, 0, Limits{}); (err == nil) != (k == i) {
				t.Fatalf("body %d in the place of body %d: %v", k, i, err)
			}
		}
		if _, err := d.Decode(bodies[i], 1, 0, Limits{}); err != nil {
			t.Fatal(err)
		}
	}
}

// After an error a decoder refuses everything until it is reset.
func TestAfterAnError(t *testing.T) {
	p := places(t, 1, 2, 5)
	d := p[0].decoder()
	if _, err := d.Decode([]byte{version, 4, 1}, 1, 0, Limits{}); !errors.Is(err, ErrCorrupt) {
		t.Fatal(err)
	}
	if _, err := d.Decode(p[0].next.body, 1, p[0].next.seed, Limits{}); !errors.Is(err, ErrOutOfStep) {
		t.Fatalf("goes on: %v", err)
	}
	if d.Reset(); d.Position() != (Position{}) || d.StateBytes() != 0 {
		t.Fatalf("at %v, %d bytes", d.Position(), d.StateBytes())
	}
	for i := range p {
		if _, err := d.Decode(p[i].next.body, 1, p[i].next.seed, Limits{}); err != nil {
			t.Fatal(err)
		}
	}
}

// A session that wants more state than is granted, or another version, is refused.
func TestSessionHead(t *testing.T) {
	body, err := NewEncoder(4*MinState).Append(nil, []stream.Record{message("t", nil)}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewDecoder(2*MinState).Decode(body, 1, 0, Limits{}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too much state: %v", err)
	}
	if _, err := NewDecoder(8*MinState).Decode(body, 1, 0, Limits{}); err != nil {
		t.Errorf("less state than granted: %v", err)
	}
	for name, b := range map[string][]byte{"nothing": nil, "version": {version + 1, 4, 0, 0, 0, 0}, "no size": {version}, "too small": {version, 3, 0, 0, 0, 0}, "endless": bytes.Repeat([]byte{version, 0xff}, 9), "no check": {version, 4}} {
		if _, err := NewDecoder(MinState).Decode(b, 1, 0, Limits{}); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
