package entropy

import "math/bits"

// Magnitude learns positive numbers: the length in bits in unary, by the length
// that is expected; then three bits below the leading one; the rest is noise.
type Magnitude struct {
	length [magRows][magLengths]Prob
	high   [magHigh][8]Prob
}

const (
	magRows    = 8
	magLengths = 14 // longer ones share the last
	magHigh    = 8
	maxLength  = 15 // that Expected knows
)

// Magnitude codes v >= 1.
func (c *Coder) Magnitude(m *Magnitude, v uint64) uint64 {
	k := 1
	for k < 64 && c.Bit(&m.length[0][min(k, magLengths)-1], Int(bits.Len64(v) > k)) == 1 {
		k++
	}
	return c.below(m, k, v)
}

// below codes what v, of k bits, has below its leading one.
func (c *Coder) below(m *Magnitude, k int, v uint64) uint64 {
	left := k - 1
	r, t := uint64(1), 1
	high := &m.high[min(k, magHigh)-1]
	for i := 0; i < 3 && left > 0; i++ {
		left--
		b := c.Bit(&high[t], int(v>>left&1))
		t = t<<1 | b
		r = r<<1 | uint64(b)
	}
	if left > 0 {
		r = r<<left | c.Direct(v, left)
	}
	return r
}

// Expected is what is known of the lengths in bits of a series of numbers: a
// running mean, with four fraction bits, and the last one.
type Expected struct{ mean, last uint8 }

// row is the row of a magnitude for it.
func (e Expected) row() int {
	return [maxLength + 1]int{0, 1, 2, 3, 4, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7, 7}[(e.mean+12)>>4&maxLength]
}

func (e *Expected) see(v uint64) {
	e.last = uint8(min(bits.Len64(v), maxLength))
	e.mean = uint8((int(e.mean)*3 + int(e.last)<<4 + 2) >> 2)
}

// Trend is the second opinion on lengths, that many series share: which lengths
// follow on one another. Beside the mean, which is a series' own, it saves 1 % of
// all kinds of numbers.
type Trend struct {
	length  [maxLength + 1][magLengths]Prob
	weights [magRows]Weights
}

// Signed codes a difference that is not zero.
func (c *Coder) Signed(sign *Prob, m *Magnitude, t *Trend, e *Expected, d int64) int64 {
	negative := c.Bit(sign, Int(d < 0)) == 1
	v, row, k := Abs(d), e.row(), 1
	for n := bits.Len64(v); k < 64; k++ {
		i := min(k, magLengths) - 1
		if c.Blend(&t.weights[row], &m.length[row][i], &t.length[e.last][i], Int(n > k)) == 0 {
			break
		}
	}
	v = c.below(m, k, v)
	e.see(v)
	if negative {
		return -int64(v)
	}
	return int64(v)
}

// Abs is |x|.
func Abs(x int64) uint64 {
	if x < 0 {
		return -uint64(x)
	}
	return uint64(x)
}

// Int is 1 for true.
func Int(b bool) int {
	if b {
		return 1
	}
	return 0
}

// BitLength is the length in bits of |x|.
func BitLength(x int64) uint32 { return uint32(bits.Len64(Abs(x))) }
