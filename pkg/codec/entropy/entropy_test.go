package entropy

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// walk makes decisions of every kind, as a codec does; the same way in both
// directions. It gives what was coded.
func walk(c *Coder, chance *rand.Rand, values *rand.Rand, steps int) (out []uint64) {
	var ps [64]Prob
	var sign Prob
	var magnitude Magnitude
	var expected Expected
	var trend Trend
	var weights Weights
	mix := NewMixer(64, 1<<10, 16)
	mix.Grow()
	skew := uint64(chance.IntN(40)) // how often values are 0
	value := func() uint64 {
		if uint64(values.IntN(41)) < skew {
			return 0
		}
		return values.Uint64() >> values.IntN(64)
	}
	for range steps {
		v := value()
		switch chance.IntN(9) {
		case 0:
			v = c.Direct(v&0xfff, 12)
		case 1:
			v = uint64(c.Bit(&ps[chance.IntN(64)], int(v&1)))
		case 2:
			v = uint64(c.Tree(ps[:32], int(v&31), 5))
		case 3:
			v = c.Magnitude(&magnitude, max(v, 1))
		case 4:
			d := int64(v)
			if d == 0 {
				d = -1 << 63
			}
			v = uint64(c.Signed(&sign, &magnitude, &trend, &expected, d))
		case 5:
			contexts := []uint32{chance.Uint32(), 7, chance.Uint32() & 3}
			v = uint64(mix.Byte(c, contexts, []byte{byte(chance.Uint32()), 9}, 5, chance.Uint32()&15, KindValue, byte(v)))
			mix.Grow()
		case 6:
			v = uint64(c.Blend(&weights, &ps[chance.IntN(64)], &ps[chance.IntN(64)], int(v&1)))
		case 7:
			v = uint64(mix.Bit(c, []uint32{chance.Uint32() & 7, 3}, 1, int(v&1)))
		default:
			v = c.Direct(v, 64)
		}
		c.Spend(1)
		out = append(out, v)
	}
	return out
}

// What comes out is what went in, and both sides learn the same.
func TestCoder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed, steps := rapid.Uint64().Draw(t, "seed"), rapid.IntRange(0, 400).Draw(t, "steps")
		var e, d Coder
		e.StartEncoding([]byte("head"))
		in := walk(&e, rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 2)), steps)
		b := e.Finish(4)
		if string(b[:4]) != "head" {
			t.Fatal("wrote over what was there")
		}
		d.StartDecoding(b[4:], steps)
		out := walk(&d, rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 3)), steps)
		if !slices.Equal(in, out) || e.Digest != d.Digest || !d.Ended() {
			t.Fatalf("in %v\nout %v, ended %t", in, out, d.Ended())
		}
	})
}

// A decoder of anything ends, and says so when the input has.
func TestCoderOfAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		var d Coder
		d.StartDecoding(rapid.SliceOf(rapid.Byte()).Draw(t, "in"), 1<<20)
		walk(&d, rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 3)), 500)
		if d.over > maxOver && d.Ended() {
			t.Fatal("goes on behind the end")
		}
	})
	var d Coder
	d.StartDecoding(nil, 10)
	if d.Spend(11); !d.Bad || d.Ended() {
		t.Error("more work than allowed")
	}
	d.StartDecoding([]byte{1, 2, 3, 4, 5}, 10)
	if d.Ended() {
		t.Error("bytes that nobody read")
	}
	d.StartDecoding(nil, 10)
	if d.Direct(0, 64); d.Ended() {
		t.Error("more zeros than an encoder leaves out")
	}
}

// What is as foreseen has no bytes, noise its own size: a carry over a long run
// of 0xff included.
func TestSizes(t *testing.T) {
	var c Coder
	c.StartEncoding(nil)
	var p Prob
	for range 20 {
		c.Bit(&p, 0)
	}
	if b := c.Finish(0); len(b) != 0 {
		t.Errorf("20 zeros take %d bytes", len(b))
	}
	noise := make([]byte, 1000)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range noise {
		noise[i] = byte(r.Uint32())
		if i < 500 {
			noise[i] = 0xff
		}
	}
	for _, last := range []byte{0, 1, 0xff} {
		c.StartEncoding(nil)
		p = 1<<3 ^ probFlip // hardly ever 1: moves low a little, so that carries come
		c.Bit(&p, 1)
		for _, b := range append(noise, last) {
			c.Direct(uint64(b), 8)
		}
		b := c.Finish(0)
		if len(b) > len(noise)+7 {
			t.Errorf("1,001 bytes of noise take %d", len(b))
		}
		var d Coder
		d.StartDecoding(b, 0)
		p = 1<<3 ^ probFlip
		got := []byte{byte(d.Bit(&p, 0))}
		for range append(noise, last) {
			got = append(got, byte(d.Direct(0, 8)))
		}
		if want := append([]byte{1}, append(bytes.Clone(noise), last)...); !bytes.Equal(got, want) || !d.Ended() {
			t.Error("noise came back as something else")
		}
	}
}

// Estimates move towards what comes, and are never sure.
func TestProb(t *testing.T) {
	var c Coder
	c.StartEncoding(nil)
	r := rand.New(rand.NewPCG(1, 2))
	for _, way := range []func(i int) int{
		func(int) int { return 0 }, func(int) int { return 1 }, func(i int) int { return i & 1 }, func(int) int { return r.IntN(2) },
		func(i int) int { return Int(i > 5000) },
	} {
		var p Prob
		for i := range 10_000 {
			was, b := p^probFlip, way(i)
			c.Bit(&p, b)
			if q := (p ^ probFlip) >> 3; q < 1 || q > probOne-1 || b == 1 && q < was>>3 || b == 0 && q > was>>3 {
				t.Fatalf("after %d: %d to %d by %d", i, was>>3, q, b)
			}
		}
	}
	ps := []Prob{100<<3 | 7, 100<<3 | 1}
	if Soften(ps, 3); ps[0] != 100<<3|3 || ps[1] != 100<<3|1 {
		t.Errorf("softened to %d", ps)
	}
}

// The logistic functions are monotonic inverses of each other.
func TestSquash(t *testing.T) {
	for d := int32(-2047); d < 2047; d++ {
		if squash(d) > squash(d+1) || squash(d) < 0 || squash(d) > 4095 {
			t.Fatalf("squash(%d) = %d", d, squash(d))
		}
	}
	for p := int32(1); p < 4095; p++ {
		if d := int32(stretches[p]); stretches[p] < stretches[p-1] || squash(d) < p || d > -2047 && squash(d-1) >= p && d < 2047 {
			t.Fatalf("stretch(%d) = %d, which is squash of %d", p, d, squash(d))
		}
	}
}

// A copy of a mixer goes on by itself.
func TestMixerClone(t *testing.T) {
	var c Coder
	c.StartEncoding(nil)
	m := NewMixer(64, 256, 4)
	m.Grow()
	for i := range 100 {
		m.Byte(&c, []uint32{uint32(i)}, nil, 0, 0, KindText, byte(i))
	}
	n, o := m.Clone(), m.Clone()
	size := m.Size()
	for m.Grow() > 0 {
	}
	for i := range 100 {
		m.Byte(&c, []uint32{uint32(i)}, nil, 0, 0, KindText, byte(i*7))
	}
	if !slices.Equal(n.slots, o.slots) || !slices.Equal(n.weights, o.weights) || n.Size() != size || m.Size() != size+2*(256-64) {
		t.Fatal("a copy changed with its original")
	}
}
