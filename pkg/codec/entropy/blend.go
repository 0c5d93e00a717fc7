package entropy

// Weights are how much more than about half a blend believes its two estimates:
// 16 fraction bits.
type Weights [2]int32

const (
	blendHalf     = 32000
	blendLearning = 4 // of the weights
)

// Blend codes b by two estimates that have seen it in different contexts, mixed
// as by a Mixer: where one is sure the other does not spoil it. All learn.
func (c *Coder) Blend(w *Weights, p, q *Prob, b int) int {
	sp, sq := int32(stretches[(*p^probFlip)>>4]), int32(stretches[(*q^probFlip)>>4])
	dot := int64(sp)*int64(w[0]+blendHalf) + int64(sq)*int64(w[1]+blendHalf)
	x := squash(int32(min(max(dot>>16, -2047), 2047)))
	b = c.code(uint32(uint64(c.rng)*uint64(x<<4|8)>>16), b)
	miss := (int32(b)<<12 - x) * blendLearning
	w[0] += (sp*miss + 1<<15) >> 16
	w[1] += (sq*miss + 1<<15) >> 16
	c.Learn(p, b)
	c.Learn(q, b)
	return b
}
