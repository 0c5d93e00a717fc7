package codec

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/packetboat/packetboat/pkg/codec/entropy"
	"github.com/packetboat/packetboat/pkg/stream"
)

// link is a session over a link that loses what is under way whenever it likes.
type link struct {
	rapid.TB
	*world
	e         *Encoder
	d         *Decoder
	way       []sent     // under way: encoded, not decoded
	positions []Position // of the decoder, by bodies
	confirmed uint64
	seed      uint32
}

type sent struct {
	body []byte
	recs []stream.Record
	seed uint32
	at   Position
}

func newLink(t rapid.TB, c chooser, limit int) *link {
	l := &link{TB: t, world: newWorld(c), e: NewEncoder(limit), d: NewDecoder(limit)}
	l.positions = []Position{{}}
	return l
}

func (l *link) must(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

// step does one thing that may happen to a session.
func (l *link) step() {
	l.Helper()
	switch l.chooser(16) {
	case 0:
		l.lose(l.chooser(len(l.way) + 1))
	case 1:
		l.confirm()
	case 2:
		l.refused()
	case 3:
		l.wrongWayBack()
	case 4, 5, 6, 7:
		l.deliver(1 + l.chooser(4))
	case 8:
		if l.chooser(8) == 0 {
			l.fresh()
		}
	default:
		l.send(1 + l.chooser(20))
	}
}

func (l *link) send(n int) {
	l.Helper()
	l.seed++
	recs := l.records(n)
	body, err := l.e.Append([]byte("before"), recs, l.seed)
	l.must(err)
	if string(body[:6]) != "before" {
		l.Fatal("the encoder has written over what was there")
	}
	l.way = append(l.way, sent{body[6:], recs, l.seed, l.e.Position()})
}

func (l *link) deliver(n int) {
	l.Helper()
	for ; n > 0 && len(l.way) > 0; n-- {
		x := l.way[0]
		got, err := l.d.Decode(x.body, 1, x.seed, Limits{})
		l.must(err)
		clear(x.body) // the records must not alias it
		if d := unlike(got, x.recs); d != "" {
			l.Fatal(d)
		}
		if l.d.Position() != x.at {
			l.Fatalf("the decoder is at %v, the encoder was at %v", l.d.Position(), x.at)
		}
		l.way = l.way[1:]
		l.positions = append(l.positions, x.at)
	}
	l.inStep()
}

// inStep compares the two sides where nothing is under way.
func (l *link) inStep() {
	l.Helper()
	if len(l.way) > 0 || l.d.s.state == nil {
		return
	}
	if d := differs(l.e.s.state, l.d.s.state); d != "" {
		l.Fatal("encoder and decoder: ", d)
	}
	sound(l, l.d.s.state)
}

// lose ends the connection after some of what is under way has arrived.
func (l *link) lose(arrived int) {
	l.Helper()
	l.deliver(arrived)
	l.way = nil
	l.must(l.e.GoBack(l.d.Position()))
	l.inStep()
}

func (l *link) confirm() {
	if n := uint64(len(l.positions)) - 1; n > l.confirmed {
		l.confirmed += 1 + uint64(l.chooser(int(n-l.confirmed)))
	}
	l.e.Confirm(l.confirmed)
	if l.e.Oldest() > l.confirmed {
		l.Fatalf("oldest %d, confirmed %d", l.e.Oldest(), l.confirmed)
	}
}

// refused is an Append that must change nothing.
func (l *link) refused() {
	l.Helper()
	at, used := l.e.Position(), l.e.s.used
	recs := l.records(2)
	recs[1].QoS = 3
	if b, err := l.e.Append([]byte("x"), recs, 0); !errors.Is(err, ErrInvalid) || string(b) != "x" || l.e.Position() != at || l.e.s.used != used {
		l.Fatalf("%v, %d bytes", err, len(b))
	}
}

// wrongWayBack asks for places where the session never was, or that are given up.
func (l *link) wrongWayBack() {
	l.Helper()
	at, used := l.e.Position(), l.e.s.used
	n := uint64(l.chooser(len(l.positions)))
	p := l.positions[n]
	switch l.chooser(3) {
	case 0:
		p.Bodies = at.Bodies + 1 + uint64(l.chooser(3))
	case 1:
		p.Digest ^= 1 << l.chooser(64)
	default:
		if n >= l.e.Oldest() {
			return
		}
	}
	if err := l.e.GoBack(p); !errors.Is(err, ErrOutOfStep) || l.e.Position() != at || l.e.s.used != used {
		l.Fatalf("back to %v from %v, oldest %d: %v", p, at, l.e.Oldest(), err)
	}
}

func (l *link) fresh() {
	l.e.Reset()
	l.d.Reset()
	l.way, l.positions, l.confirmed = nil, []Position{{}}, 0
}

// unlike says how records differ; Seq and Expiry do not cross.
func unlike(got, want []stream.Record) string {
	if len(got) != len(want) {
		return fmt.Sprintf("%d records, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i].Seq != uint64(i+1) {
			return fmt.Sprintf("record %d has number %d", i, got[i].Seq)
		}
		if !same([]stream.Record{{Message: got[i].Message}}, []stream.Record{{Message: want[i].Message}}) {
			return fmt.Sprintf("record %d: %q at %d %q %+v\nwant %q at %d %q %+v", i, got[i].Topic, got[i].Time, got[i].Payload, got[i], want[i].Topic, want[i].Time, want[i].Payload, want[i])
		}
	}
	return ""
}

// A session gives back what went in, and both sides come to the same state,
// whatever is sent and whenever the link breaks.
func TestSession(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		c := byRapid(r)
		l := newLink(r, c, pick(c, []int{MinState, DefaultState}))
		for range c(40) {
			l.step()
		}
		l.lose(len(l.way))
	})
}

// busy are numbers that change all the time, as a column needs before it gets a
// model of its own, and before its dictionary is full or given up.
func (w *world) busy(n int) (recs []stream.Record) {
	if w.rest == nil {
		w.rest = make([]int64, 5)
	}
	for i := range n {
		k := i % 5
		w.rest[k] += int64(w.chooser(9)) - 4
		v := fmt.Sprint(w.rest[k])
		switch k {
		case 1: // from a few hundred values that are far apart
			v = fmt.Sprint(w.rest[k] * w.rest[k] * 7919 % 100_003)
		case 2: // its twin
			v = fmt.Sprint(w.rest[1] * w.rest[1] * 7919 % 100_003 * 3)
		case 3: // never the same
			v = fmt.Sprintf("%d.%d", w.bits()>>40, w.chooser(1000))
		case 4: // mostly new: the dictionary fills
			v = fmt.Sprint(w.chooser(9000))
		}
		w.now += 20_000
		m := message(fmt.Sprint(k), []byte(v))
		m.Seq, m.Time = uint64(i+1), w.now
		recs = append(recs, m)
	}
	return recs
}

// Columns that were busy for long have more to go wrong.
func TestBusyColumns(t *testing.T) {
	l := newLink(t, byRand(1), DefaultState)
	for range 80 {
		recs := l.busy(80)
		body, err := l.e.Append(nil, recs, 7)
		l.must(err)
		l.way = append(l.way, sent{body, recs, 7, l.e.Position()})
		if l.chooser(5) == 0 {
			l.lose(l.chooser(len(l.way) + 1))
		} else {
			l.deliver(l.chooser(3))
		}
	}
	l.lose(len(l.way))
	own, full, plain := 0, 0, 0
	for _, x := range l.d.s.topics {
		for i := range x.refs {
			for k := range x.refs[i].cols.numbers {
				c := &x.refs[i].cols.numbers[k]
				own, plain, full = own+entropy.Int(c.own != nil), plain+entropy.Int(c.plain), full+entropy.Int(len(c.values) >= 256)
			}
		}
	}
	if own < 3 || full+plain == 0 {
		t.Fatalf("%d models, %d large dictionaries, %d given up: nothing was tried", own, full, plain)
	}
	a := l.d.s.state
	b := a.clone()
	if d := differs(a, b) + shares(a, b); d != "" {
		t.Fatal(d)
	}
}

// FuzzSession does what TestSession does, with the input for chance.
func FuzzSession(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(noise(rand.New(rand.NewPCG(seed, 5)), 600))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 4<<10 {
			return // longer ones find nothing new, slowly
		}
		l := newLink(t, byBytes(&in), MinState)
		for len(in) > 0 {
			l.step()
		}
		l.lose(len(l.way))
	})
}
