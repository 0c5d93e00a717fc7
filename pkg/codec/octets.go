package codec

import (
	"math/bits"
	"slices"

	"github.com/packetboat/packetboat/pkg/codec/entropy"
)

// Payloads that are no text, and hex digits: byte by byte, each beside the same
// byte of the payload before. First whether it changed, then to what: where a
// byte moves in small steps (19 % of CAN) the difference, else the byte.

// octets is what is known of the bytes at one place of a topic's payloads.
type octets struct {
	key        uint32
	now, older []byte     // the last two payloads, of which maxBytes are kept
	places     []position // by position
	sameLength entropy.Prob
	same       entropy.Prob // of a word
	raw        entropy.Prob
	length     int
	lost       int // the encoder's own: sixteenths of bits that models took beyond the bytes
	rest       int // the encoder's own: chunks to go raw before models are tried again
}

const (
	maxPositions = 256 // further bytes share the last
	smallStep    = 84  // of step: below it differences are coded
	stepNew      = 64
	chunkSize    = 64  // bytes that are raw or not, together
	rawAfter     = 512 // of lost
	rawFor       = 16  // chunks
	mixerSets    = 1024
)

// position is what is known of the bytes at one place.
type position struct {
	hist uint8 // bits: whether it changed
	step uint8 // length in bits of the changes, with 4 fraction bits, ^ stepNew
}

func (s *state) newOctets() octets {
	s.binaries++
	return octets{key: entropy.Hash(s.binaries, 99)}
}

func (b octets) clone() octets {
	b.now, b.older, b.places = clone(b.now), clone(b.older), clone(b.places)
	return b
}

func (b *octets) size() int { return sizeOctets + cap(b.now) + cap(b.older) + 2*cap(b.places) }

// octets codes the bytes v; decoding, it appends them to dst.
func (s *session) octets(b *octets, v, dst []byte) []byte {
	s.used += s.mix.Grow()
	n := len(v)
	if s.Flag(&b.sameLength, n != b.length) {
		b.length = int(min(s.Magnitude(&s.length, uint64(n)+1)-1, 1<<30))
	}
	if n = b.length; s.Decoding {
		if s.Spend(n); s.Bad {
			return dst
		}
		dst = slices.Grow(dst, n)
	}
	was := b.size()
	keep := min(n, maxBytes)
	had := len(b.older)
	b.older = room(b.older, keep)
	clear(b.older[min(had, keep):])
	b.places = room(b.places, max(len(b.places), min(n, maxPositions)))
	if n > chunkSize && !s.Flag(&b.same, n != len(b.now) || n > maxBytes || string(v) != string(b.now)) {
		if n != len(b.now) {
			s.Fail()
			return dst
		}
		b.older = append(b.older[:0], b.now...)
		s.charge(s.current, b.size()-was)
		if s.Decoding {
			dst = append(dst, b.now...)
		}
		return dst
	}
	x := byteWalk{session: s, b: b, next: b.older}
	for at := 0; at < n && !s.Bad; at += chunkSize {
		end := min(at+chunkSize, n)
		var part []byte
		if !s.Decoding {
			part = v[at:end]
		}
		dst = x.chunk(at, end-at, part, dst)
	}
	b.older, b.now = b.now, b.older
	s.charge(s.current, b.size()-was)
	return dst
}

// byteWalk goes over the bytes of one payload.
type byteWalk struct {
	*session
	b       *octets
	next    []byte // the payload before the last one, overwritten by this one
	changed uint32 // bits: which of the bytes before changed
	sum     byte   // of the changes: what a checksum changes by
	last    byte
}

// chunk codes n bytes from position at.
func (x *byteWalk) chunk(at, n int, v, dst []byte) []byte {
	b := x.b
	x.octetsDone += n
	raw := x.octetsDone > maxOctets
	if !raw {
		raw = x.Flag(&b.raw, b.rest > 0)
	}
	before := x.Spent()
	for i := range n {
		c := byte(0)
		if !x.Decoding {
			c = v[i]
		}
		if raw {
			c = byte(x.Direct(uint64(c), 8))
			if at+i < len(x.next) {
				x.next[at+i] = c
			}
		} else {
			c = x.byteAt(at+i, c)
		}
		if x.Decoding {
			dst = append(dst, c)
		}
	}
	if !x.Decoding {
		b.weigh(raw, x.Spent()-before-n*8*16)
	}
	return dst
}

// weigh learns whether models pay; the decoder is told.
func (b *octets) weigh(raw bool, lost int) {
	if raw {
		b.rest = max(b.rest-1, 0)
		return
	}
	if b.lost = max(b.lost+lost, -rawAfter); b.lost > rawAfter {
		b.lost, b.rest = 0, rawFor
	}
}

// byteAt codes the byte at position i.
func (x *byteWalk) byteAt(i int, c byte) byte {
	b, m := x.b, x.mix
	was, older := byte(0), byte(0)
	if i < len(b.now) {
		was = b.now[i]
	}
	if i < len(x.next) {
		older = x.next[i]
	}
	pos := min(i, maxPositions-1)
	at := &b.places[pos]
	hist, step := uint32(at.hist), at.step^stepNew
	base := entropy.Hash(b.key, uint32(pos))
	set := base >> 22 & (mixerSets/2 - 1)
	contexts := [3]uint32{
		entropy.Hash(base, 0x100|hist), entropy.Hash(base, 0x200|x.changed&15), entropy.Hash(base, 0x400|hist&3<<4|x.changed&3),
	}
	if m.Bit(&x.Coder, contexts[:], mixerSets/2+set, entropy.Int(c != was)) == 1 {
		c = x.newByte(step, base, set, was, older, c)
	} else {
		c = was
	}
	moved := entropy.Int(c != was)
	if moved == 1 {
		d := int(int8(c - was))
		n := bits.Len8(uint8(max(d, -d)))
		at.step = uint8((int(step)*7+n<<4+4)>>3) ^ stepNew
	}
	at.hist = at.hist<<1 | uint8(moved)
	x.changed = x.changed<<1 | uint32(moved)
	x.sum += c - was
	x.last = c
	if i < len(x.next) {
		x.next[i] = c
	}
	return c
}

// newByte codes a byte that is not the one it was. Expected are as far again as
// the last time, and what makes up for the changes before it.
func (x *byteWalk) newByte(step uint8, base, set uint32, was, older, c byte) byte {
	if step < smallStep {
		contexts := [3]uint32{entropy.Hash(base, 0x800|uint32(was)), entropy.Hash(base, 0x900), entropy.Hash(base, 0xB00|uint32(was-older))}
		values := [2]byte{was - older, x.sum}
		return was + x.mix.Byte(&x.Coder, contexts[:], values[:], base, set, entropy.KindDifference, c-was)
	}
	contexts := [3]uint32{entropy.Hash(base, 0x500|uint32(was)), entropy.Hash(base, 0x600), entropy.Hash(base, 0x700|uint32(x.last))}
	values := [2]byte{2*was - older, was + x.sum}
	return x.mix.Byte(&x.Coder, contexts[:], values[:], base, set, entropy.KindValue, c)
}
