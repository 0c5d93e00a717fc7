package codec

import (
	"bytes"

	"github.com/packetboat/packetboat/pkg/codec/entropy"
)

// Numbers in text: a scaled integer and how it is printed.

// format says how an integer is printed: the integer, then zeros zeros; the last
// decimals digits are the fraction; at least width digits before the point.
type format struct {
	decimals, zeros, width uint8
	strip                  uint8 // of the fraction: stripNot …
}

const (
	stripNot = 0
	stripAll = 1 // zeros at its end are cut
	stripOne = 2 // the same, but one digit stays

	maxDigits   = 18 // of an integer: it fits 64 bits
	maxDecimals = maxDigits + 6
	maxWidth    = 31
)

// valid reports whether the decoder may print with f.
func (f format) valid() bool {
	return f.decimals <= maxDecimals && f.zeros <= f.decimals && f.width <= maxWidth && f.strip <= stripOne
}

// unit is the power of ten that 1 stands for, negated.
func (f format) unit() int { return int(f.decimals) - int(f.zeros) }

// append prints x.
func (f format) append(dst []byte, x int64) []byte {
	if x < 0 {
		dst = append(dst, '-')
	}
	var b [80]byte
	i := len(b)
	for range f.zeros {
		i--
		b[i] = '0'
	}
	for u := entropy.Abs(x); u > 0; u /= 10 {
		i--
		b[i] = '0' + byte(u%10)
	}
	for len(b)-i < int(f.decimals)+max(1, int(f.width)) {
		i--
		b[i] = '0'
	}
	point, end := len(b)-int(f.decimals), len(b)
	dst = append(dst, b[i:point]...)
	if f.strip != stripNot {
		for end > point && b[end-1] == '0' {
			end--
		}
		if end == point && f.decimals > 0 && f.strip == stripOne {
			end++
		}
	}
	if end > point {
		dst = append(dst, '.')
		dst = append(dst, b[point:end]...)
	}
	return dst
}

// decimal is a number as it stands in a text.
type decimal struct {
	x        int64 // without the point
	decimals uint8
	width    uint8 // digits before the point, if the first of several is a zero
	zeros    uint8 // at the end of x
}

// scanNumber gives the length of the number at the start of s: 0 if there is
// none. Longer ones than an integer holds are cut: the rest is another number.
func scanNumber(s []byte) int {
	start := 0
	if len(s) > 0 && s[0] == '-' {
		start = 1
	}
	end := start + word(s[start:], isDigit)
	switch {
	case end == start:
		return 0
	case end-start > maxDigits:
		return start + maxDigits
	case end+1 >= len(s) || s[end] != '.':
		return end
	}
	fraction := word(s[end+1:], isDigit)
	all := end + 1 + fraction
	if fraction == 0 || fraction > maxDecimals || all-1-start > maxDigits && significant(s[start:all]) > maxDigits {
		return end
	}
	return all
}

// significant is how many digits a number has, without zeros before them.
func significant(s []byte) int {
	s = bytes.TrimLeft(s, "0.")
	return len(s) - bytes.Count(s, []byte("."))
}

// parseNumber reads what scanNumber found; false for -0, which no integer is.
func parseNumber(s []byte) (n decimal, ok bool) {
	negative := s[0] == '-'
	if negative {
		s = s[1:]
	}
	whole := len(s)
	for i, b := range s {
		if b == '.' {
			whole, n.decimals = i, uint8(len(s)-i-1)
			continue
		}
		n.x = n.x*10 + int64(b-'0')
		if n.zeros++; b != '0' {
			n.zeros = 0
		}
	}
	if whole > 1 && s[0] == '0' {
		n.width = uint8(whole)
	}
	if negative {
		n.x = -n.x
	}
	return n, n.x != 0 || !negative
}

// scale gives x * 10^k if that fits and is exact.
func scale(x int64, k int) (int64, bool) {
	switch {
	case x == 0:
		return 0, true
	case k < -maxDigits || k > maxDigits:
		return 0, false
	case k < 0:
		return x / powers[-k], x%powers[-k] == 0
	}
	const top = 4e18
	y := x * powers[k]
	return y, y/powers[k] == x && y < top && y > -top
}

var powers = func() (p [maxDigits + 1]int64) {
	p[0] = 1
	for i := 1; i < len(p); i++ {
		p[i] = p[i-1] * 10
	}
	return p
}()

// under gives the integer that f prints as text, which is n.
func (f format) under(n decimal, text []byte) (int64, bool) {
	x, ok := scale(n.x, f.unit()-int(n.decimals))
	if !ok || !f.valid() {
		return 0, false
	}
	if f.strip != stripNot {
		var b [96]byte
		return x, bytes.Equal(f.append(b[:0], x), text)
	}
	// The same, without printing it.
	whole := len(text) - entropy.Int(text[0] == '-')
	if n.decimals > 0 {
		whole -= int(n.decimals) + 1
	}
	return x, n.decimals == f.decimals && (whole == int(f.width) || whole > int(f.width) && n.width == 0)
}

// fit finds the integer and a format for text, which is n: the column's own
// format f if that prints it, else one near it that also prints what f does, so
// that the column's past keeps its meaning.
func (f format) fit(n decimal, text []byte, fresh bool) (x int64, g format, ok bool) {
	if !fresh {
		if x, ok = f.under(n, text); ok {
			return x, f, true
		}
	}
	g = f.widened(n, fresh)
	if x, ok = g.under(n, text); !ok {
		g = format{decimals: n.decimals, width: n.width}
		x, ok = g.under(n, text)
	}
	return x, g, ok
}

// widened is f so that it may print n too.
func (f format) widened(n decimal, fresh bool) format {
	g := format{decimals: n.decimals, width: n.width}
	if !fresh {
		if n.width == 0 {
			g.width = f.width
		}
		g.strip = f.strip
		if g.decimals != f.decimals {
			g.strip = stripAll
			if g.decimals > 0 && f.decimals > 0 && f.strip != stripAll {
				g.strip = stripOne
			}
			g.decimals = max(g.decimals, f.decimals)
		}
	}
	if g.strip != stripNot || g.decimals == 0 {
		return g
	}
	// Zeros that all numbers of a column end with are not part of the integer.
	switch {
	case n.x != 0 && n.zeros >= 2:
		g.zeros = min(n.zeros, g.decimals)
	case n.x == 0 && (!fresh || g.decimals > 1):
		g.zeros = g.decimals
	}
	if !fresh {
		g.zeros = min(g.zeros, f.zeros)
	}
	return g
}

// format codes the format of a number, where it is not the column's.
func (s *session) format(f format) format {
	part := func(i int, v uint8) uint8 { return uint8(s.Tree(s.formatPart[i][:], int(v), 5)) }
	f.decimals, f.zeros, f.width = part(0, f.decimals), part(1, f.zeros), part(2, f.width)
	f.strip = uint8(s.Tree(s.strip[:], int(f.strip), 2))
	if !f.valid() {
		s.Fail()
		return format{}
	}
	return f
}
