package codec

import (
	"bytes"
	"slices"
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
	kind    byte
	text    []byte
	decimal decimal // of a number …
	x       int64   // … as an integer …
	format  format  // … that is printed so
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
	isAlnum  = isDigit | isLetter
	hexCases = isLowHex | isUpHex
	isHex    = isDigit | hexCases
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
// false for more than a template may have.
func (s *session) split(p []byte) bool {
	s.text, s.tokens = s.text[:0], s.tokens[:0]
	end, sum := len(p), nmeaSum(p)
	if sum > 0 {
		end = sum
	}
	before := byte(0) // the class of the byte before
	for i := 0; i < end && len(s.tokens) <= maxTokens; before = classes[p[i-1]] {
		kind, n := scan(p[i:end], before)
		if kind == 0 || !s.addToken(kind, p[i:i+n]) {
			s.text = append(s.text, p[i])
			i++
			continue
		}
		if s.text = append(s.text, kind); kind == tokenHex {
			sep, first := p[i+2], byte('a')
			if classes[sep]&isAlnum != 0 {
				sep = hexNone
			}
			if cases(p[i:i+n]) == isUpHex {
				first = 'A'
			}
			s.text = append(s.text, sep, first)
		}
		i += n
	}
	if sum > 0 {
		s.text = append(append(s.text, tokenSum), p[sum+2:]...)
	}
	return len(s.text) <= maxText && len(s.tokens) <= maxTokens
}

// addToken reports false for what looks like a number and is none.
func (s *session) addToken(kind byte, text []byte) (ok bool) {
	n := len(s.tokens)
	s.tokens = slices.Grow(s.tokens, 1)[:n+1]
	t := &s.tokens[n]
	t.kind, t.text = kind, text
	if kind != tokenNumber {
		return true
	}
	if t.decimal, ok = parseNumber(text); !ok {
		s.tokens = s.tokens[:n]
	}
	return ok
}

// scan finds the token at the start of p, if there is one: its kind and length.
func scan(p []byte, before byte) (kind byte, n int) {
	class := classes[p[0]]
	if class&isAlnum != 0 && before&isAlnum == 0 {
		if n = scanHex(p); n > 0 {
			return tokenHex, n
		}
		if n = scanWord(p); n > 0 {
			return tokenWord, n
		}
		if n = scanFlag(p); n > 0 {
			return tokenFlag, n
		}
	}
	if class&isDigit != 0 || p[0] == '-' && before&isAlnum == 0 {
		if n = scanNumber(p); n > 0 {
			return tokenNumber, n
		}
	}
	return 0, 0
}

// scanHex finds a word of at least four pairs of hex digits, with a letter in it,
// or as many pairs with one separator between them; of one case.
func scanHex(p []byte) int {
	n := word(p, isHex)
	if n > 2 {
		if all := cases(p[:n]); n >= 8 && n%2 == 0 && word(p[n:], isAlnum) == 0 && (all == isLowHex || all == isUpHex) {
			return n
		}
		return 0
	}
	if n < 2 || len(p) < 11 || bytes.IndexByte([]byte(",: -"), p[2]) < 0 {
		return 0
	}
	for n+3 <= len(p) && p[n] == p[2] && word(p[n+1:min(len(p), n+4)], isAlnum) == 2 && word(p[n+1:n+3], isHex) == 2 {
		n += 3
	}
	if n < 11 || cases(p[:n]) == hexCases {
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

// cases are those of hex digits that p has.
func cases(p []byte) (all byte) {
	for _, b := range p {
		all |= classes[b] & hexCases
	}
	return all
}

// scanWord finds a word whose letters and digits change at least three times.
func scanWord(p []byte) int {
	n, turns := word(p, isAlnum), 0
	for i := 1; i < n; i++ {
		turns += int((classes[p[i]] ^ classes[p[i-1]]) & isDigit)
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
	at := len(bytes.TrimRight(p, "\r\n")) - 2
	if at < 2 || p[at-1] != '*' {
		return 0
	}
	if x := xor(p[1 : at-1]); p[at] != upper[x>>4] || p[at+1] != upper[x&15] {
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
	rest := p
	for k := range g.parts {
		x := &g.parts[k]
		if !bytes.HasPrefix(rest, x.text) {
			return false
		}
		rest = rest[len(x.text):]
		n := 0
		switch x.kind {
		case 0:
			return len(rest) == 0
		case tokenSum:
			if len(p)-len(rest) != nmeaSum(p) {
				return false
			}
			rest = rest[2:]
			continue
		case tokenNumber:
			n = scanNumber(rest)
		case tokenHex:
			n = matchHex(rest, x.sep, x.first)
		case tokenWord:
			n = word(rest, isAlnum)
		case tokenFlag:
			n = scanFlag(rest)
		}
		if n == 0 || n > maxWord && x.kind == tokenWord || !s.addToken(x.kind, rest[:n]) {
			return false
		}
		rest = rest[n:]
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
	column     int16
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
	start, columns := 0, [tokenFlag + 1]int16{}
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
			if text[0] != '$' && text[0] != '!' || i == start || text[i-1] != '*' {
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
		if b == tokenWord {
			b = tokenHex // they stand together
		}
		x.column = columns[b]
		columns[b]++
		g.parts = append(g.parts, x)
		start = i + 1
	}
	g.parts = append(g.parts, part{text: text[start:]})
	return g, columns[tokenSum] <= 1 && len(g.kinds) <= maxTokens && len(text) <= maxText
}
