// Package entropy turns decisions into bits and back: a binary range coder,
// estimates that learn how likely each decision is, and mixers of such. It
// promises that both directions walk the same way, in integers alone, on every
// machine; and that a decoder that is fed with anything ends. What is decided,
// and in which context, is the caller's.
package entropy

import "math/bits"

// Coder is a binary range coder for both directions (Martin 1979, with the carry
// kept as in LZMA). Whoever codes hands in a bit and gets the bit that was
// coded; decoding, what is handed in does not matter. So every model is written
// once, and the two sides cannot differ in it. Integers of fixed width only.
type Coder struct {
	Decoding bool // reads bits, else writes them
	rng      uint32
	// Digest changes with every probability that is used: two sides that have
	// learned differently notice in the first body where it matters.
	Digest uint32

	// Encoding: the number so far, of which the bytes that no carry can reach
	// any more stand in out.
	low     uint64
	cache   byte // the byte that a carry may still reach …
	pending int  // … and how many bytes 0xff behind it
	begun   bool
	out     []byte

	// Decoding.
	value uint32
	in    []byte
	over  int  // zero bytes read behind the end
	work  int  // bytes that may still come out of this body
	Bad   bool // decoding: the input is not what an encoder wrote
}

const digestPrime = 0x9E3779B1 // odd: no difference is lost

// maxOver is how many zero bytes an encoder may leave out at the end.
const maxOver = 4

// StartEncoding begins an output behind out.
func (c *Coder) StartEncoding(out []byte) {
	*c = Coder{rng: 1<<32 - 1, out: out}
}

// StartDecoding begins to read in, out of which so many bytes of work may come.
func (c *Coder) StartDecoding(in []byte, work int) {
	*c = Coder{Decoding: true, rng: 1<<32 - 1, in: in, work: work}
	for range 4 {
		c.value = c.value<<8 | c.next()
	}
}

func (c *Coder) next() uint32 {
	if len(c.in) == 0 {
		c.over++
		return 0
	}
	b := c.in[0]
	c.in = c.in[1:]
	return uint32(b)
}

// Fail makes the input a corrupt one. What an encoder codes is always valid.
func (c *Coder) Fail() { c.Bad = true }

// Spend counts n bytes of work, and notices an input that has long ended.
func (c *Coder) Spend(n int) {
	if c.work -= n; c.Decoding && (c.work < 0 || c.over > maxOver) {
		c.Bad = true
	}
}

// code codes b, where 1 has the part bound of the range. A 0, the likely
// outcome of every flag, takes the lower part: a body in which all is as
// foreseen is the number 0, and has no bytes.
func (c *Coder) code(bound uint32, b int) int {
	c.Note(bound)
	rest := c.rng - bound
	if c.Decoding {
		if c.value < rest {
			b = 0
			c.rng = rest
		} else {
			b = 1
			c.value -= rest
			c.rng = bound
		}
		for c.rng < 1<<24 {
			c.rng <<= 8
			c.value = c.value<<8 | c.next()
		}
		return b
	}
	if b == 0 {
		c.rng = rest
	} else {
		c.low += uint64(rest)
		c.rng = bound
	}
	for c.rng < 1<<24 {
		c.rng <<= 8
		c.shift()
	}
	return b
}

// shift moves the top byte of low on.
func (c *Coder) shift() {
	if carry := byte(c.low >> 32); carry != 0 || uint32(c.low) < 0xff<<24 {
		if c.begun {
			c.out = append(c.out, c.cache+carry)
		}
		c.begun = true
		for ; c.pending > 0; c.pending-- {
			c.out = append(c.out, 0xff+carry)
		}
		c.cache = byte(c.low >> 24)
	} else {
		c.pending++
	}
	c.low = c.low << 8 & 0xffffffff
}

// Finish ends the output, which began at start: of the numbers that are left it
// takes the one with the most zeros at its end, and leaves those out.
func (c *Coder) Finish(start int) []byte {
	top := c.low + uint64(c.rng) - 1
	for k := 32; ; k -= 8 {
		mask := uint64(1)<<k - 1
		if v := (c.low + mask) &^ mask; v <= top {
			c.low = v
			break
		}
	}
	for range 5 {
		c.shift()
	}
	for n := 0; n < maxOver && len(c.out) > start && c.out[len(c.out)-1] == 0; n++ {
		c.out = c.out[:len(c.out)-1]
	}
	return c.out
}

// Ended reports whether the decoder has read what the encoder wrote, all of it
// but for zeros at the end.
func (c *Coder) Ended() bool {
	for _, b := range c.in {
		if b != 0 {
			return false
		}
	}
	return !c.Bad && c.over <= maxOver
}

// Direct codes the n low bits of v without a model, the highest first.
func (c *Coder) Direct(v uint64, n int) uint64 {
	var r uint64
	for n--; n >= 0; n-- {
		r = r<<1 | uint64(c.code(c.rng>>1, int(v>>n&1)))
	}
	return r
}

// Note makes x part of the digest.
func (c *Coder) Note(x uint32) { c.Digest = (c.Digest ^ x) * digestPrime }

// Spent is how much was coded so far, in sixteenths of bits; encoding only.
func (c *Coder) Spent() int {
	n := bits.Len32(c.rng)
	return (len(c.out)+c.pending)*8*16 + (32-n)*16 - int(c.rng<<(32-n)>>27&15)
}
