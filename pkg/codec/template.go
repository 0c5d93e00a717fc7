package codec

import (
	"bytes"
	"unicode/utf8"

	"github.com/packetboat/packetboat/pkg/codec/entropy"
)

// A payload of text is a template, in which tokens stand for what varies, and
// the tokens' values. Splitting is the encoder's alone: the decoder fills in.

// The tokens, as bytes of a template's text. No text that is split holds them.
const (
	tokenNumber = 1
	tokenHex    = 2 // pairs of hex digits; followed by the separator (hexNone: none) and 'a' or 'A'
	tokenWord   = 3 // letters and digits mixed: ids, hashes
	tokenSum    = 4 // the checksum of an NMEA sentence, right: 36 % of NMEA
	tokenFlag   = 5 // true or false
)

const hexNone = 0x1f

// token is a part of a payload that varies.
type token struct {
	kind   byte
	text   []byte
	x      int64 // of a number
	format format
}

// isText reports whether p can be split: UTF-8 without control characters, which
// are tokens.
func isText(p []byte) bool {
	ascii := true
	for _, b := range p {
		if b < 0x20 && b != '\t' && b != '\n' && b != '\r' || b == 0x7f {
			return false
		}
		ascii = ascii && b < utf8.RuneSelf
	}
	return ascii || utf8.Valid(p)
}

// Classes of bytes.
const (
	isDigit = 1 << iota
	isLetter
	isLowHex
	isUpHex
	isAlnum = isDigit | isLetter
	isHex   = isDigit | isLowHex | isUpHex
)

var classes = func() (t [256]byte) {
	for b := byte('0'); b <= '9'; b++ {
		t[b] = isDigit
	}
	for b := byte('a'); b <= 'z'; b++ {
		t[b], t[b-'a'+'A'] = isLetter, isLetter
	}
	for b := byte('a'); b <= 'f'; b++ {
		t[b] |= isLowHex
		t[b-'a'+'A'] |= isUpHex
	}
	t['_'] = isLetter
	return t
}()

// split makes template and tokens of a text, in s.text and s.tokens. It reports
// false for more tokens than a template may have.
func (s *session) split(p []byte) bool {
	s.text, s.tokens = s.text[:0], s.tokens[:0]
	end := len(p)
	sum := nmeaSum(p)
	if sum > 0 {
		end = sum
	}
	before := byte(0) // the class of the byte before
	for i := 0; i < end; {
		kind, n := scan(p[i:end], before)
		if kind == 0 {
			s.text = append(s.text, p[i])
			before = classes[p[i]]
			i++
			continue
		}
		if len(s.tokens) == maxTokens {
			return false
		}
		t := token{kind: kind, text: p[i : i+n]}
		s.text = append(s.text, kind)
		if kind == tokenHex {
			sep, first := hexStyle(t.text)
			s.text = append(s.text, sep, first)
		}
		s.tokens = append(s.tokens, t)
		i += n
		before = classes[p[i-1]]
	}
	if sum > 0 {
		s.text = append(s.text, tokenSum)
		s.text = append(s.text, p[sum+2:]...)
	}
	return len(s.text) <= maxText
}

// scan finds the token at the start of p, if there is one: its kind and length.
func scan(p []byte, before byte) (kind byte, n int) {
	class := classes[p[0]]
	if class&isAlnum != 0 && before&isAlnum == 0 {
		if class&isHex != 0 {
			if n := scanHex(p); n > 0 {
				return tokenHex, n
			}
		}
		if n := scanWord(p); n > 0 {
			return tokenWord, n
		}
		if n := scanFlag(p); n > 0 {
			return tokenFlag, n
		}
	}
	if class&isDigit != 0 || p[0] == '-' && before&isAlnum == 0 {
		if n := scanNumber(p); n > 0 {
			if _, ok := parseNumber(p[:n]); ok {
				return tokenNumber, n
			}
		}
	}
	return 0, 0
}

// scanHex finds at least four pairs of hex digits of one case with one separator
// between them, or a word of at least four pairs with a letter in it.
func scanHex(p []byte) int {
	if len(p) < 8 {
		return 0
	}
	if n := word(p, isHex); n > 2 {
		if n < 8 || n%2 != 0 || n < len(p) && classes[p[n]]&isAlnum != 0 || oneCase(p[:n]) == isDigit {
			return 0
		}
		if oneCase(p[:n]) == 0 {
			return 0
		}
		return n
	}
	if len(p) < 11 || p[2] != ',' && p[2] != ':' && p[2] != ' ' && p[2] != '-' {
		return 0
	}
	n := 0
	for i := 0; ; i += 3 {
		if i+2 > len(p) || word(p[i:min(len(p), i+3)], isAlnum) != 2 || word(p[i:i+2], isHex) != 2 {
			break
		}
		n = i + 2
		if n >= len(p) || p[n] != p[2] {
			break
		}
	}
	if n < 11 || oneCase(p[:n]) == 0 {
		return 0
	}
	return n
}

// word is how many bytes at the start of p are of a class.
func word(p []byte, class byte) int {
	n := 0
	for n < len(p) && classes[p[n]]&class != 0 {
		n++
	}
	return n
}

// oneCase is the case of hex digits, isDigit if there are no letters, 0 if there
// are both.
func oneCase(p []byte) byte {
	all := byte(0)
	for _, b := range p {
		all |= classes[b] & (isLowHex | isUpHex)
	}
	switch all {
	case 0:
		return isDigit
	case isLowHex, isUpHex:
		return all
	}
	return 0
}

func hexStyle(p []byte) (sep, first byte) {
	sep, first = p[2], 'a'
	if classes[sep]&isAlnum != 0 {
		sep = hexNone
	}
	if oneCase(p) == isUpHex {
		first = 'A'
	}
	return sep, first
}

// scanWord finds a word whose letters and digits change at least three times.
func scanWord(p []byte) int {
	n, turns := word(p, isAlnum), 0
	for i := 1; i < n; i++ {
		turns += entropy.Int(classes[p[i]]&isDigit != classes[p[i-1]]&isDigit)
	}
	if turns < 3 || n > maxWord {
		return 0
	}
	return n
}

func scanFlag(p []byte) int {
	if n := word(p, isAlnum); string(p[:n]) == "true" || string(p[:n]) == "false" {
		return n
	}
	return 0
}

// nmeaSum is where the two digits of a right checksum stand, 0 if there is none.
func nmeaSum(p []byte) int {
	if len(p) < 5 || p[0] != '$' && p[0] != '!' {
		return 0
	}
	line := bytes.TrimRight(p, "\r\n")
	at := len(line) - 2
	if at < 2 || line[at-1] != '*' {
		return 0
	}
	if x := xor(p[1 : at-1]); line[at] != upper[x>>4] || line[at+1] != upper[x&15] {
		return 0
	}
	return at
}

func xor(p []byte) (x byte) {
	for _, b := range p {
		x ^= b
	}
	return x
}

const (
	upper = "0123456789ABCDEF"
	lower = "0123456789abcdef"
)

// match takes p apart by a template that is known, which is quicker than split,
// and sure where a word could be read in two ways: hex digits may all be decimal.
func (s *session) match(g *template, p []byte) bool {
	s.tokens = s.tokens[:0]
	i := 0
	for k := range g.parts {
		x := &g.parts[k]
		if !bytes.HasPrefix(p[i:], x.text) {
			return false
		}
		i += len(x.text)
		n := 0
		switch rest := p[i:]; x.kind {
		case 0:
			return len(rest) == 0
		case tokenSum:
			if i != nmeaSum(p) {
				return false
			}
			i += 2
			continue
		case tokenNumber:
			n = scanNumber(rest)
		case tokenHex:
			n = matchHex(rest, x.sep, x.first)
		case tokenWord:
			if n = word(rest, isAlnum); n > maxWord {
				return false
			}
		case tokenFlag:
			n = scanFlag(rest)
		}
		if n == 0 {
			return false
		}
		s.tokens = append(s.tokens, token{kind: x.kind, text: p[i : i+n]})
		i += n
	}
	return false
}

// matchHex finds pairs of hex digits in a style.
func matchHex(p []byte, sep, first byte) int {
	digit := byte(isDigit | isLowHex)
	if first == 'A' {
		digit = isDigit | isUpHex
	}
	if sep == hexNone {
		return word(p, digit) &^ 1
	}
	n := 0
	for i := 0; i+2 <= len(p) && word(p[i:i+2], digit) == 2; i += 3 {
		if n = i + 2; n >= len(p) || p[n] != sep {
			break
		}
	}
	return n
}

// unhex gives the bytes of pairs of hex digits.
func unhex(dst, p []byte, sep byte) []byte {
	step := 3
	if sep == hexNone {
		step = 2
	}
	for i := 0; i+1 < len(p); i += step {
		dst = append(dst, digit(p[i])<<4|digit(p[i+1]))
	}
	return dst
}

func digit(b byte) byte {
	if b <= '9' {
		return b - '0'
	}
	return b&7 + 9
}

// appendHex is the inverse of unhex.
func appendHex(dst, v []byte, sep, first byte) []byte {
	digits := lower
	if first == 'A' {
		digits = upper
	}
	for i, b := range v {
		if i > 0 && sep != hexNone {
			dst = append(dst, sep)
		}
		dst = append(dst, digits[b>>4], digits[b&15])
	}
	return dst
}

// part is a token of a template with the text before it.
type part struct {
	text       []byte
	kind       byte // 0: the end
	sep, first byte // of tokenHex
}

// parseTemplate takes a template's text apart; false if it is none.
func parseTemplate(text []byte) (*template, bool) {
	g := &template{text: text}
	tokens := 0
	for _, b := range text {
		tokens += entropy.Int(b <= tokenFlag)
	}
	g.parts, g.kinds = make([]part, 0, tokens+1), make([]byte, 0, tokens)
	start, sums := 0, 0
	for i := 0; i < len(text); i++ {
		b := text[i]
		if b > tokenFlag {
			continue
		}
		x := part{text: text[start:i], kind: b}
		switch b {
		case 0:
			return nil, false
		case tokenSum: // behind the *, of what is between
			if sums++; text[0] != '$' && text[0] != '!' || i == start || text[i-1] != '*' {
				return nil, false
			}
		case tokenHex:
			if i += 2; i >= len(text) {
				return nil, false
			}
			if x.sep, x.first = text[i-1], text[i]; x.first != 'a' && x.first != 'A' || x.sep <= tokenFlag {
				return nil, false
			}
		}
		if b != tokenSum {
			g.kinds = append(g.kinds, b)
		}
		g.parts = append(g.parts, x)
		start = i + 1
	}
	g.parts = append(g.parts, part{text: text[start:]})
	return g, sums <= 1 && len(g.kinds) <= maxTokens && len(text) <= maxText
}
