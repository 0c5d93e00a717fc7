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
	noisy        = 8   // chunks that lost, more than gained
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
	was, had := b.size(), len(b.older)
	b.older = room(b.older, min(n, maxBytes))
	clear(b.older[min(had, len(b.older)):])
	b.places = room(b.places, max(len(b.places), min(n, maxPositions)))
	s.charge(s.current, b.size()-was)
	if n > chunkSize && !s.Flag(&b.same, n != len(b.now) || n > maxBytes || string(v) != string(b.now)) {
		if n != len(b.now) {
			s.Fail()
			return dst
		}
		copy(b.older, b.now)
		if s.Decoding {
			dst = append(dst, b.now...)
		}
		return dst
	}
	x := byteWalk{session: s, b: b, next: b.older}
	for i := 0; i < n && !s.Bad; i += chunkSize {
		dst = x.chunk(i, min(i+chunkSize, n), v, dst)
	}
	b.older, b.now = b.now, b.older
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

// chunk codes the bytes from position i to end. Whether models pay is the
// encoder's to learn; the decoder is told.
func (x *byteWalk) chunk(i, end int, v, dst []byte) []byte {
	b := x.b
	x.octetsDone += end - i
	raw := x.octetsDone > maxOctets || x.Flag(&b.raw, b.rest > 0)
	fair := x.Spent() + (end-i)*8*16
	for ; i < end; i++ {
		c := at(v, i)
		if raw {
			c = byte(x.Direct(uint64(c), 8))
		} else {
			c = x.byteAt(i, c)
		}
		if i < len(x.next) {
			x.next[i] = c
		}
		if x.Decoding {
			dst = append(dst, c)
		}
	}
	switch {
	case x.Decoding:
	case raw:
		b.rest = max(b.rest-1, 0)
	default:
		lost := x.Spent() - fair
		// Where one place is noise, others will be: they need less of a proof.
		if x.noise = max(x.noise+1-2*entropy.Int(lost <= 0), 0); x.noise > noisy {
			x.noise = noisy
			b.lost += rawAfter / 2
		}
		if b.lost = max(b.lost+lost, -rawAfter); b.lost > rawAfter {
			b.lost, b.rest = 0, rawFor
		}
	}
	return dst
}

// at is the byte of p at i, 0 behind its end.
func at(p []byte, i int) byte {
	if i < len(p) {
		return p[i]
	}
	return 0
}

// byteAt codes the byte at position i.
func (x *byteWalk) byteAt(i int, c byte) byte {
	was, older := at(x.b.now, i), at(x.next, i)
	pos := min(i, maxPositions-1)
	place := &x.b.places[pos]
	base, hist, step := entropy.Hash(x.b.key, uint32(pos)), uint32(place.hist), place.step^stepNew
	set := base >> 22 & (mixerSets/2 - 1)
	contexts := [3]uint32{
		entropy.Hash(base, 0x100|hist), entropy.Hash(base, 0x200|x.changed&15), entropy.Hash(base, 0x400|hist&3<<4|x.changed&3),
	}
	if x.mix.Bit(&x.Coder, contexts[:], mixerSets/2+set, entropy.Int(c != was)) == 1 {
		c = x.newByte(step, base, set, was, older, c)
	} else {
		c = was
	}
	if c != was {
		d := int(int8(c - was))
		n := bits.Len8(uint8(max(d, -d)))
		place.step = uint8((int(step)*7+n<<4+4)>>3) ^ stepNew
	}
	push(&place.hist, c != was)
	x.changed = x.changed<<1 | uint32(place.hist&1)
	x.sum += c - was
	x.last = c
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
