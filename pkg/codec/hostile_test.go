package codec

import (
	"encoding/binary"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/packetboat/packetboat/pkg/stream"
)

// decodeAnyway decodes a body as if its check were right, which a fuzzer cannot
// guess.
func (d *Decoder) decodeAnyway(coded []byte, limits Limits) ([]stream.Record, error) {
	if d.s.state == nil {
		d.s.begin(newState(d.limit), false)
	}
	most := min(freeBytes+ratio*min(len(coded), MaxBytes/ratio), limits.Bytes)
	s := &d.s
	s.StartDecoding(coded, 4*most+2*limits.Records) // as records does
	s.crc, s.out = 0, nil
	n := s.batch(0, 0)
	if s.Bad || n == 0 {
		return nil, ErrCorrupt
	}
	if n > limits.Records {
		return nil, ErrTooLarge
	}
	recs, err := s.records(n, 1, most)
	if err == nil && !s.Ended() {
		err = ErrCorrupt
	}
	d.at = d.at.after(s)
	return recs, err
}

// checked puts the head and the check that are right around what a body codes.
func (d *Decoder) checked(coded []byte, limits Limits) []byte {
	var body []byte
	x := Decoder{limit: d.limit, at: d.at}
	if d.s.state == nil {
		body = binary.AppendUvarint(append(body, version), uint64(d.limit/stateUnit))
	} else {
		x.s.begin(d.s.state.clone(), false)
	}
	x.decodeAnyway(coded, limits) // an error comes again
	return binary.LittleEndian.AppendUint32(append(body, coded...), uint32(x.at.Digest))
}

var hostileLimits = Limits{Records: 2000, Bytes: 200_000}

// accept gives a decoder a body with the right check. What it takes has to be
// within the limits, leave a sound state, and be what can be encoded.
func accept(t rapid.TB, d *Decoder, coded []byte) bool {
	t.Helper()
	recs, err := d.Decode(d.checked(coded, hostileLimits), 1, 0, hostileLimits)
	if err != nil {
		if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrTooLarge) {
			t.Fatalf("an error of no kind: %v", err)
		}
		if d.StateBytes() != 0 {
			t.Fatal("keeps a state after an error")
		}
		if _, err := d.Decode(nil, 1, 0, Limits{}); !errors.Is(err, ErrOutOfStep) {
			t.Fatalf("goes on after an error: %v", err)
		}
		return false
	}
	total := 0
	for i := range recs {
		total += contentSize(&recs[i])
	}
	if len(recs) == 0 || len(recs) > hostileLimits.Records || total > hostileLimits.Bytes {
		t.Fatalf("%d records, %d bytes", len(recs), total)
	}
	sound(t, d.s.state)
	if spare := d.s.used - d.limit; spare > 400<<10 { // a message of the limits can take so much
		t.Fatalf("%d bytes above the limit of the state", spare)
	}
	l := newLink(t, nil, d.limit)
	body, err := l.e.Append(nil, recs, 0)
	l.must(err)
	l.way = append(l.way, sent{body, recs, 0, l.e.Position()})
	l.deliver(1)
	return true
}

// FuzzDecodeSession: whatever comes, a decoder ends, keeps to its limits, and
// what it takes is sound. The input is bodies, each after its length.
func FuzzDecodeSession(f *testing.F) {
	for seed := range uint64(6) {
		f.Add(codedBodies(f, seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		d := NewDecoder(MinState)
		for len(in) > 2 {
			n := min(int(binary.LittleEndian.Uint16(in)), len(in)-2)
			if !accept(t, d, in[2:2+n]) {
				return
			}
			in = in[2+n:]
		}
	})
}

// codedBodies are the bodies of a session without heads and checks, each after its length.
func codedBodies(t rapid.TB, seed uint64) (all []byte) {
	l := newLink(t, byRand(seed), MinState)
	for range 4 {
		l.send(6)
		body := l.way[len(l.way)-1].body
		if len(all) == 0 {
			body = body[2:]
		}
		all = binary.LittleEndian.AppendUint16(all, uint16(len(body)-checkSize))
		all = append(all, body[:len(body)-checkSize]...)
	}
	return all
}

// liar is an encoder that does what none does: it walks with decisions that
// contradict each other, which a decoder has to follow as far as they go.
type liar struct {
	chooser
	s  session
	at Position
	w  *world
}

func newLiar(c chooser, limit int) *liar {
	l := &liar{chooser: c, w: newWorld(c)}
	l.s.begin(newState(stateLimit(limit)), true)
	return l
}

func (l *liar) body() []byte {
	s := &l.s
	s.StartEncoding(nil)
	s.crc = 0
	n := 1 + l.chooser(12)
	s.batch(n, pick(l.chooser, units[:]))
	for range n {
		if s.Bad {
			break
		}
		l.record()
	}
	coded := s.Finish(0)
	l.at = l.at.after(s)
	return coded
}

func (l *liar) record() {
	s := &l.s
	var r stream.Record
	l.w.message(&r.Message)
	if l.chooser(4) > 0 {
		s.record(&r)
		return
	}
	s.settle()
	t := s.topic("liar/" + r.Topic) // honest messages do not meet these shapes
	if s.Bad {
		return
	}
	s.current = t
	s.time(t, int64(l.bits()))
	switch l.chooser(8) {
	case 0:
		t.meta ^= 1 << l.chooser(8)
	case 1:
		r.QoS = 3
	}
	s.about(t, &r)
	if s.Bad {
		return
	}
	l.payload(t, &r)
	s.crc ^= uint32(l.chooser(2))
}

// payload walks a template that no text has, with tokens that go with another.
func (l *liar) payload(t *topic, r *stream.Record) {
	s := &l.s
	for i := range len(t.refs) { // none of the known shapes
		p := &s.rank[min(i, 15)]
		if i == 0 {
			p = &t.same
		}
		s.Bit(p, 1)
	}
	s.text = s.text[:0]
	for range l.chooser(12) {
		s.text = append(s.text, byte(pick(l.chooser, []int{1, 2, 3, 4, 5, 6, hexNone, 'a', 'A', ':', '$', '*', 0x80, 0xff, 1 + l.chooser(255)})))
	}
	if _, ok := parseTemplate(s.text); !ok {
		s.text = append(s.text[:0], tokenNumber, tokenHex, byte(l.chooser(256)), byte(l.chooser(256)), tokenWord, tokenFlag, tokenSum)
	}
	s.tokens = s.tokens[:0]
	for range l.chooser(12) {
		x := token{text: []byte(l.text("0a:\xffg-.", 12)), x: int64(l.bits()) >> l.chooser(64)}
		if l.chooser(3) > 0 {
			x.format = format{decimals: uint8(l.chooser(25)), width: uint8(l.chooser(32)), strip: uint8(l.chooser(3))}
			x.format.zeros = uint8(l.chooser(int(x.format.decimals) + 1))
		} else if l.chooser(8) == 0 {
			x.format = format{uint8(l.chooser(32)), uint8(l.chooser(32)), uint8(l.chooser(32)), uint8(l.chooser(4))}
		}
		s.tokens = append(s.tokens, x)
	}
	if s.newShape(t, shapeTemplate); s.Bad {
		return
	}
	s.fields(&t.refs[0], r)
}

// A decoder that is lied to neither panics nor leaves its limits.
func TestLiar(t *testing.T) {
	taken, told := 0, 0
	rapid.Check(t, func(r *rapid.T) {
		l, d := newLiar(byRapid(r), MinState), NewDecoder(MinState)
		for range 1 + l.chooser(6) {
			told++
			if !accept(r, d, l.body()) {
				return
			}
			taken++
		}
	})
	if taken*4 < told {
		t.Fatalf("of %d bodies only %d were taken: the lies do not get far", told, taken)
	}
}

// The same with all that a codec of bits can be given: noise.
func TestNoise(t *testing.T) {
	c := byRand(9)
	for range 400 {
		d := NewDecoder(MinState)
		for accept(t, d, []byte(c.text("\x00\x00\x01\x40\x7f\x80\xff\x55\xc3", 1+c(200)))) {
		}
	}
}
