package codec

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/packetboat/packetboat/pkg/stream"
)

// What goes back goes back over copies of the state, too: noise is what makes an
// encoder copy it soonest.
func TestGoBack(t *testing.T) {
	c := byRand(4)
	r := rand.New(rand.NewPCG(3, 4))
	l := newLink(t, c, MinState)
	copies := uint64(0)
	for range 60 {
		for range 1 + c(5) {
			l.send(1 + c(6))
			l.noise(message("noise", noise(r, 8<<10)))
		}
		l.deliver(c(len(l.way) + 1))
		l.confirm()
		if c(3) == 0 {
			l.lose(c(len(l.way) + 1))
		}
		if c(4) == 0 {
			l.wrongWayBack()
		}
		if n := l.e.Oldest(); n > copies {
			copies = n
		}
		if n := l.e.trail; n.base != nil && (n.size() != n.base.used+len(n.bodies)+16*len(n.steps)+stateBytes(n.next) || l.e.StateBytes() != l.e.s.used+n.size()) {
			t.Fatal("what the trail takes is not counted")
		}
	}
	if copies < 50 {
		t.Fatalf("copies were made up to body %d only: nothing was tried", copies)
	}
}

func stateBytes(s *state) int {
	if s == nil {
		return 0
	}
	return s.used
}

func (l *link) noise(m stream.Record) {
	recs := []stream.Record{m}
	body, err := l.e.Append(nil, recs, 9)
	l.must(err)
	l.way = append(l.way, sent{body, recs, 9, l.e.Position()})
}

// Every place that an encoder has not given up can be gone back to, many times.
func TestGoBackAnywhere(t *testing.T) {
	l := newLink(t, byRand(5), MinState)
	for range 20 {
		l.send(5)
		l.deliver(1)
	}
	for range 30 {
		n := l.chooser(len(l.positions))
		at := l.e.Position()
		if err := l.e.GoBack(l.positions[n]); err != nil || l.e.Position() != l.positions[n] {
			t.Fatalf("from %v to %v: %v", at, l.positions[n], err)
		}
		l.positions = l.positions[:n+1]
		p := place{limit: MinState, at: l.e.at}
		if n > 0 {
			p.state = l.e.s.state
		}
		l.d = p.decoder() // one that was there
		for range 3 {
			l.send(4)
			l.deliver(1)
		}
	}
	l.must(l.e.GoBack(Position{}))
	l.d.Reset()
	l.positions = l.positions[:1]
	l.send(3)
	l.deliver(1)
}

// Confirmations may come twice, late, or for bodies that were never sent.
func TestOddConfirmations(t *testing.T) {
	l := newLink(t, byRand(6), MinState)
	r := rand.New(rand.NewPCG(3, 4))
	for i := range uint64(30) {
		l.noise(message("noise", noise(r, 12<<10)))
		l.deliver(1)
		l.e.Confirm(0)
		l.e.Confirm(i / 2)
		if i%7 == 0 {
			l.e.Confirm(1 << 40)
		}
		l.lose(0)
	}
	if err := l.e.GoBack(l.positions[1]); !errors.Is(err, ErrOutOfStep) {
		t.Fatalf("back to what was confirmed: %v", err)
	}
	l.e.Reset()
	if l.e.Oldest() != 0 || l.e.Position() != (Position{}) {
		t.Fatal("a fresh session remembers")
	}
	if err := l.e.GoBack(Position{}); err != nil {
		t.Fatal(err)
	}
}

// A copy is its original, shares nothing with it that changes, and stays as it is.
func TestClone(t *testing.T) {
	for seed := range uint64(12) {
		l := newLink(t, byRand(seed), MinState)
		for range 30 {
			l.send(8)
		}
		a := l.e.s.state
		b, c := a.clone(), a.clone()
		if d := differs(a, b); d != "" {
			t.Fatal(d)
		}
		if d := shares(a, b); d != "" {
			t.Fatal(d)
		}
		for range 20 {
			l.send(8)
		}
		if d := differs(b, c); d != "" {
			t.Fatal("changed with the original: ", d)
		}
		if differs(a, b) == "" {
			t.Fatal("the original did not change")
		}
	}
}
