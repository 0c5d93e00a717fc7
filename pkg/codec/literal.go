package codec

import "github.com/packetboat/packetboat/pkg/codec/entropy"

// literal codes text that is new, byte by byte: contexts of the three bytes
// before, and what followed the last time that these came.
type literal struct {
	mix  entropy.Mixer
	past []byte       // up to maxPast
	at   [1024]uint16 // where the three bytes before were last, by hash

	// Of the text at hand.
	out  []byte
	n    int
	last uint32 // the four bytes before
	from int    // what is repeated: its place in past, 0: nothing …
	held uint32 // … and how long that has held
}

const (
	maxPast  = 8 << 10
	keptPast = 2 << 10
)

// text codes any v after its length. What it gives is valid until the next call.
func (l *literal) text(s *session, v []byte, limit int) []byte {
	n := s.Magnitude(&s.length, uint64(len(v))+1) - 1
	if n > uint64(limit) {
		s.Fail()
		return nil
	}
	return l.bytes(s, v, int(n), false)
}

// word codes v, which has no zero bytes, and a zero byte behind it. What it
// gives is valid until the next call.
func (l *literal) word(s *session, v []byte, limit int) []byte { return l.bytes(s, v, limit+1, true) }

// bytes codes n bytes, or up to a zero byte within n.
func (l *literal) bytes(s *session, v []byte, n int, word bool) []byte {
	s.used += l.mix.Grow()
	l.out, l.last, l.from, l.held, l.n = l.out[:0], 0, 0, 0, 0
	for i := 0; i < n && !s.Bad; i++ {
		b := l.byte(s, at(v, i))
		if b == 0 && word {
			return l.out
		}
		l.out = append(l.out, b)
		s.Spend(1)
	}
	if word {
		s.Fail()
	}
	return l.out
}

// byte codes one byte.
func (l *literal) byte(s *session, b byte) byte {
	if s.spelled++; s.spelled > maxSpelled {
		return byte(s.Direct(uint64(b), 8))
	}
	if len(l.past) == maxPast {
		l.past = append(l.past[:0], l.past[maxPast-keptPast:]...)
		l.from, l.held = 0, 0
		clear(l.at[:])
	}
	expected := uint32(256)
	if l.from > 0 {
		expected = uint32(l.past[l.from])
	}
	last := l.last
	contexts := [5]uint32{entropy.Hash(1, last&0xff), entropy.Hash(2, last&0xffff), entropy.Hash(3, last&0xffffff), entropy.Hash(4, expected<<4|min(l.held, 15)), entropy.Hash(5, 0)}
	b = l.mix.Byte(&s.Coder, contexts[:], nil, 0, uint32(entropy.Int(l.held > 0)+entropy.Int(l.held > 5)), entropy.KindText, b)
	if l.from > 0 && l.past[l.from] == b {
		l.from++
		l.held++
	} else {
		l.from, l.held = 0, 0
	}
	l.past = append(l.past, b)
	l.last = last<<8 | uint32(b)
	at := &l.at[entropy.Hash(6, l.last&0xffffff)>>22]
	if l.n++; l.from == 0 && l.n > 2 {
		l.from = int(*at)
	}
	*at = uint16(len(l.past))
	return b
}
