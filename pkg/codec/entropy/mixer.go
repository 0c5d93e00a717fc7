package entropy

import "slices"

// Bytes that no better model knows are coded by mixed contexts, as in lpaq (Matt
// Mahoney): each context has an estimate in one hashed table, and a small linear
// mixer in the logistic domain weighs them by how well they did. Half of what a
// CAN bus or a binary payload takes is saved by it. The weights are sums of those
// of the context's own, which fit best in the end, and of some that many contexts
// share, which are right soon: 4 % of binary data in blocks of 2,000 messages.

const maxInputs = 5

// Mixer is one table with its weights. It takes memory from the first Grow on,
// which stands before whatever is coded.
type Mixer struct {
	slots    []uint16 // 12 bits of probability, the first inverted, 4 that say how much it has seen
	min, max int      // slots
	sets     int      // of weights
	coded    int      // symbols since it began
	weights  []set
	shared   []set // of sharedSets, beyond weightNew
}

// set is the weights of a context's inputs, 16 fraction bits.
type set [maxInputs]int32

const (
	slotFlip    = 1 << 15 // the zero value has seen nothing
	weightNew   = 16000
	learnOwn    = 28 // of the weights
	learnShared = 10
	sharedSets  = 4 * 8 // by kind of symbol and bit
	// What is as sure as it can be teaches the weights nothing. Else they would
	// grow while a bit rests for a day, and believe nothing else after it.
	calm = 2
)

// slotRates: the mean of all seen at first, then of about the last 16.
var slotRates = [16]int32{43690, 26214, 18724, 14563, 11915, 10082, 8738, 7710, 6898, 6241, 5698, 5242, 4854, 4700, 4300, 4100}

// NewMixer is a mixer whose table begins with slots, a power of two, and grows to
// maxSlots; it has sets of weights.
func NewMixer(slots, maxSlots, sets int) Mixer { return Mixer{min: slots, max: maxSlots, sets: sets} }

// Clone copies the mixer.
func (m *Mixer) Clone() Mixer {
	n := *m
	n.slots, n.weights, n.shared = slices.Clone(m.slots), slices.Clone(m.weights), slices.Clone(m.shared)
	return n
}

// Size is what the mixer takes, in bytes.
func (m *Mixer) Size() int { return 2*len(m.slots) + 4*maxInputs*(len(m.weights)+len(m.shared)) }

// Grow makes the table, then doubles it as bytes are coded; both halves go on
// with what is known. It gives the bytes that were added.
func (m *Mixer) Grow() int {
	n := len(m.slots)
	switch {
	case n == 0:
		m.slots, m.weights, m.shared = make([]uint16, m.min), make([]set, m.sets), make([]set, sharedSets)
		return m.Size()
	case m.coded*16 <= n || n >= m.max:
		return 0
	}
	m.slots = slices.Concat(m.slots, m.slots)
	return 2 * n
}

// code codes one bit by the slots of some hashes, with a set of weights and a
// shared one.
func (m *Mixer) code(c *Coder, in []uint32, own, shared uint32, b int) int {
	w, u, last := &m.weights[own], &m.shared[shared], uint32(len(m.slots)-1)
	in = in[:min(len(in), maxInputs)]
	var stretch [maxInputs]int32
	dot := int64(0)
	for i, h := range in {
		stretch[i] = int32(stretches[(m.slots[h&last]^slotFlip)>>4])
		dot += int64(stretch[i]) * int64(w[i]+u[i]+weightNew)
	}
	p := squash(int32(min(max(dot>>16, -2047), 2047)))
	b = c.code(uint32(uint64(c.rng)*uint64(p<<4|8)>>16), b)
	miss, all := int32(b)<<12-p, int32(b)*4095
	if miss >= -calm && miss <= calm {
		miss = 0
	}
	for i, h := range in {
		w[i] += (stretch[i]*miss*learnOwn + 1<<15) >> 16
		u[i] += (stretch[i]*miss*learnShared + 1<<15) >> 16
		slot := &m.slots[h&last]
		v := *slot ^ slotFlip
		q, seen := int32(v>>4), v&15
		q += ((all - q) * slotRates[seen]) >> 16
		*slot = (uint16(q)<<4 | min(seen+1, 15)) ^ slotFlip
	}
	return b
}

// Bit codes one bit under contexts, given as hashes.
func (m *Mixer) Bit(c *Coder, contexts []uint32, set uint32, b int) int {
	return m.code(c, contexts, set, 0, b)
}

// Kinds of symbols, for the weights that they share; Bit has the kind 0.
const (
	KindValue = 1 + iota
	KindDifference
	KindText
)

// Byte codes a byte under contexts, given as hashes, and beside expected values:
// of those only whether the bits so far agree, and what the next one would be.
func (m *Mixer) Byte(c *Coder, contexts []uint32, values []byte, base, set, kind uint32, v byte) byte {
	return byte(m.Symbol(c, contexts, values, base, set, kind, 8, uint32(v)))
}

// Symbol does so for one of width bits, up to 8 beside values.
func (m *Mixer) Symbol(c *Coder, contexts []uint32, values []byte, base, set, kind uint32, width int, v uint32) uint32 {
	m.coded++
	t := uint32(1)
	var inputs [maxInputs]uint32
	for i := width - 1; i >= 0; i-- {
		in := inputs[:0]
		for _, h := range contexts {
			h = (h + t) * 0x9E3779B1
			in = append(in, h^h>>15)
		}
		for j, x := range values {
			k := uint32(0)
			if (uint32(x)|256)>>(i+1) == t {
				k = 1 + uint32(i)<<1 + uint32(x)>>i&1
			}
			in = append(in, Hash(base, 0xA00|uint32(j)<<5|k))
		}
		t = t<<1 | uint32(m.code(c, in, set, kind<<3|uint32(i&7), int(v>>i&1)))
	}
	return t - 1<<width
}

// Hash mixes two numbers.
func Hash(a, b uint32) uint32 {
	h := a*0x9E3779B1 ^ (b+0x7F4A7C15)*0x85EBCA6B
	h ^= h >> 15
	h *= 0xC2B2AE35
	return h ^ h>>13
}

// squashes is 4096/(1+e^-x) at x = -8, -7.5 … 8.
var squashes = [33]int32{1, 2, 3, 6, 10, 16, 27, 45, 73, 120, 194, 310, 488, 747, 1101, 1546, 2047, 2549, 2994, 3348, 3607, 3785, 3901, 3975, 4022, 4050, 4068, 4079, 4085, 4089, 4092, 4093, 4094}

// squash is the probability, of 4096, for a stretch between -2047 and 2047, of
// which 256 are 1.
func squash(d int32) int32 {
	k, w := d>>7+16, d&127
	return (squashes[k]*(128-w) + squashes[min(k+1, 32)]*w + 64) >> 7
}

// stretches is the inverse of squash.
var stretches = func() (t [4096]int16) {
	next := int32(0)
	for d := int32(-2047); d <= 2047; d++ {
		for v := squash(d); next <= v; next++ {
			t[next] = int16(d)
		}
	}
	for ; next < 4096; next++ {
		t[next] = 2047
	}
	return t
}()
