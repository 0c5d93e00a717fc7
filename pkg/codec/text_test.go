package codec

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/packetboat/packetboat/pkg/stream"
)

// numberTexts are texts that may stand where a number does.
func numberTexts() *rapid.Generator[string] {
	return rapid.OneOf(rapid.StringMatching(`-?[0-9]{1,20}`), rapid.StringMatching(`-?[0-9]{1,19}\.[0-9]{1,26}`),
		rapid.StringMatching(`-?0{0,35}[0-9]{0,3}\.0{0,25}[1-9]?0{0,9}`), rapid.StringMatching(`-?[1-9]0{0,20}`),
		rapid.SampledFrom(odd), rapid.StringMatching(`[-.0-9]{0,9}`))
}

// Any format that is found for a number prints it as it stood, also after any
// other format of its column.
func TestNumberFormats(t *testing.T) {
	whole, tried := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		tried++
		text := []byte(numberTexts().Draw(t, "text"))
		n := scanNumber(text)
		if n == 0 {
			return
		}
		if n == len(text) {
			whole++
		}
		x, ok := parseNumber(text[:n])
		if !ok {
			if text[0] != '-' || x.x != 0 {
				t.Fatal("not a number")
			}
			return
		}
		f := format{uint8(rapid.IntRange(0, maxDecimals).Draw(t, "decimals")), 0, uint8(rapid.IntRange(0, maxWidth).Draw(t, "width")), uint8(rapid.IntRange(0, 2).Draw(t, "strip"))}
		f.zeros = uint8(rapid.IntRange(0, int(f.decimals)).Draw(t, "zeros"))
		fresh := rapid.Bool().Draw(t, "fresh")
		v, g, ok := f.fit(x, text[:n], fresh)
		if !ok {
			t.Logf("%q has no format", text[:n])
			return
		}
		if got := g.append([]byte("x"), v); !g.valid() || string(got) != "x"+string(text[:n]) {
			t.Fatalf("%q becomes %d as %+v, which prints %q", text[:n], v, g, got)
		}
		again, ok := g.under(x, text[:n])
		if !ok || again != v {
			t.Fatalf("%q: %d and %d as %+v", text[:n], v, again, g)
		}
	})
	if whole*4 < tried {
		t.Fatalf("%d numbers in %d texts", whole, tried)
	}
}

// Numbers that people would see in a payload are split out of it.
func TestNumbersAreFound(t *testing.T) {
	for text, want := range map[string]string{
		"1.50": "1.50", "-12": "-12", "007": "007", "0.004532068199369834": "0.004532068199369834", "999999999999999999": "999999999999999999",
		"1e5": "1", "9999999999999999999": "999999999999999999", "1.": "1", ".5": "", "-": "", "--1": "", "-0.5": "-0.5", "1.2.3": "1.2", "0.0000000000000000000000001": "0",
	} {
		if got := text[:scanNumber([]byte(text))]; got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	for _, text := range []string{"-0", "-0.00"} {
		if _, ok := parseNumber([]byte(text)); ok {
			t.Errorf("%q is a number", text)
		}
	}
}

// anyText draws payloads that split takes apart.
func anyText(t *rapid.T) []byte {
	w := newWorld(byRapid(t))
	return []byte(w.payload(w.chooser(payloadKinds), int64(w.chooser(1000))))
}

// rebuild puts a payload together from a template and tokens, as a decoder does,
// without its models.
func rebuild(g *template, tokens []token) (b []byte, err error) {
	for _, p := range g.parts {
		b = append(b, p.text...)
		switch p.kind {
		case 0:
		case tokenSum:
			sum := xor(b[1 : len(b)-1])
			b = append(b, upper[sum>>4], upper[sum&15])
			continue
		case tokenHex:
			b = appendHex(b, unhex(nil, tokens[0].text, p.sep), p.sep, p.first)
		default:
			b = append(b, tokens[0].text...)
		}
		if p.kind != 0 {
			if tokens[0].kind != p.kind {
				return nil, fmt.Errorf("a token of kind %d, want %d", tokens[0].kind, p.kind)
			}
			tokens = tokens[1:]
		}
	}
	if len(tokens) > 0 {
		return nil, fmt.Errorf("%d tokens are left", len(tokens))
	}
	return b, nil
}

// A text is its template and tokens, found anew or by another text's template.
func TestSplit(t *testing.T) {
	matched, tried := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		tried++
		var s session
		a, b := anyText(t), anyText(t)
		if !isText(a) || !s.split(a) {
			return
		}
		g, ok := parseTemplate(bytes.Clone(s.text))
		if !ok {
			t.Fatalf("%q has the template %q, which is none", a, s.text)
		}
		if got, err := rebuild(g, s.tokens); err != nil || !bytes.Equal(got, a) {
			t.Fatalf("%q as %q comes back as %q: %v", a, s.text, got, err)
		}
		for _, p := range [][]byte{a, b} {
			if isText(p) && s.match(g, p) {
				matched++
				if got, err := rebuild(g, s.tokens); err != nil || !bytes.Equal(got, p) {
					t.Fatalf("%q by %q comes back as %q: %v", p, g.text, got, err)
				}
			}
		}
	})
	if matched*5 < tried {
		t.Fatalf("of %d templates %d matched", tried, matched)
	}
}

// What is split is what varies, and the rest stays text.
func TestTokens(t *testing.T) {
	for _, c := range []struct{ text, template string }{
		{`{"v":1.5,"on":true}`, "{\"v\":\x01,\"on\":\x05}"},
		{"$A,1*5C\r\n", "$A,\x01*\x04\r\n"},
		{"$A,1*5D\r\n", "$A,\x01*\x01D\r\n"},
		{"$A*B*29", "$A*B*\x04"},
		{"5e:44:3b:f3", "\x02:a"},
		{"5E-44-3B-F3 x", "\x02-A x"},
		{"5E-44-3b-F3", "\x01E-\x01-\x01b-F\x01"},
		{"deadbeef", "\x02\x1fa"},
		{"DEADBEEF01", "\x02\x1fA"},
		{"12345678", "\x01"},
		{"a1b2c", "\x03"},
		{"truefalse", "truefalse"},
		{"x7 -0 7x", "x\x01 -\x01 \x01x"},
		{"", ""},
	} {
		var s session
		if !s.split([]byte(c.text)) || string(s.text) != c.template {
			t.Errorf("%q is split into %q, want %q", c.text, s.text, c.template)
		}
	}
	var s session
	if s.split([]byte(strings.Repeat("1 ", maxTokens+1))) || s.split([]byte(strings.Repeat("x", maxText+1))) {
		t.Error("split beyond the limits")
	}
	for _, p := range []string{"\x00", "a\x01", "\x1f", "\x7f", "\xff", "\xc3", "\xed\xa0\x80"} {
		if isText([]byte(p)) {
			t.Errorf("%q is text", p)
		}
	}
}

// Texts of templates that no encoder makes are refused where they would print
// rubbish.
func TestParseTemplate(t *testing.T) {
	for _, text := range []string{"\x00", "a\x00b", "\x02", "\x02:", "\x04", "$\x04", "a*\x04", "*\x04", "$*\x04*\x04", "$\x02:*\x04", strings.Repeat("\x01", maxTokens+1), strings.Repeat("x", maxText+1)} {
		if _, ok := parseTemplate([]byte(text)); ok {
			t.Errorf("%.20q is taken", text)
		}
	}
}

// Each of these comes back as it was, twice in a row and after all others.
func TestOddPayloads(t *testing.T) {
	l := newLink(t, byRand(1), MinState)
	for _, topic := range []string{"t", "u"} {
		for _, p := range append(odd, "a1b2c3d4e5"+strings.Repeat("g", 20_000), strings.Repeat("a1b2", 70), strings.Repeat("ab", 5000)) {
			r := []stream.Record{message(topic, []byte(p)), message(topic, []byte(p)), message(topic+"/"+p[:min(len(p), 9)], []byte(p))}
			l.send1(r...)
		}
	}
}

// Any two texts can follow each other in a topic.
func TestOddPairs(t *testing.T) {
	l := newLink(t, byRand(1), MinState)
	var recs []stream.Record
	for _, a := range odd {
		for _, b := range odd {
			if len(a)+len(b) < 300 {
				recs = append(recs, message("t", []byte(a)), message("t", []byte(b)), message("u", []byte(a+b)))
			}
		}
	}
	l.send1(recs...)
}
