package codec

import (
	"strconv"

	"github.com/packetboat/packetboat/pkg/stream"
)

// fields codes the tokens of a template; decoding, it fills them in.
func (s *session) fields(x *ref, r *stream.Record) {
	g, cs := s.templates[x.template], x.cols
	if g.last == nil {
		g.last, g.format = make([]int64, len(cs.numbers)), make([]format, len(cs.numbers))
	}
	near := neighbours{at: r.Time, shapeSeen: g.seen}
	start, tokens, last := len(s.out), s.tokens, &token{}
	for i := range g.parts {
		p := &g.parts[i]
		if s.Decoding {
			s.out = append(s.out, p.text...)
		}
		s.Spend(1)
		t := last
		if p.kind != tokenSum && len(tokens) > 0 {
			t, tokens = &tokens[0], tokens[1:]
		}
		switch p.kind {
		case tokenNumber:
			col := &cs.numbers[p.column]
			near.shape, near.shapeFormat = g.last[p.column], g.format[p.column]
			older := col.v1
			v, f := s.number(col, &near, t.x, t.format)
			g.last[p.column], g.format[p.column] = v, f
			near.before, near.value, near.older = true, v, older
			if s.Decoding {
				s.out = f.append(s.out, v)
			}
		case tokenHex:
			s.hexBytes(&cs.bytes[p.column], p, t.text)
		case tokenWord:
			s.word(&cs.bytes[p.column], t.text)
		case tokenFlag:
			s.flag(&cs.flags[p.column], t.text)
		case tokenSum:
			if s.Decoding {
				sum := xor(s.out[start+1 : len(s.out)-1])
				s.out = append(s.out, upper[sum>>4], upper[sum&15])
			}
		}
		if s.Bad {
			return
		}
	}
	g.seen = true
}

func (s *session) hexBytes(b *octets, p *part, text []byte) {
	s.hex = unhex(s.hex[:0], text, p.sep)
	if !s.Decoding {
		s.octets(b, s.hex, nil)
		return
	}
	s.hex = s.octets(b, nil, s.hex[:0])
	s.Spend(2 * len(s.hex))
	s.out = appendHex(s.out, s.hex, p.sep, p.first)
}

// word codes a word that is one of a kind, but may come again.
func (s *session) word(b *octets, text []byte) {
	if s.Flag(&b.same, string(text) != string(b.now)) {
		text = s.words.word(s, text, maxWord)
		if s.Bad {
			return
		}
		s.charge(s.current, -cap(b.now))
		b.now = append(room(b.now, len(text))[:0], text...)
		s.charge(s.current, cap(b.now))
	}
	if s.Decoding {
		s.out = append(s.out, b.now...)
	}
}

func (s *session) flag(f *flag, text []byte) {
	is := s.Flag(&f.p[f.hist&7], len(text) == len("true"))
	if push(&f.hist, is); s.Decoding {
		s.out = strconv.AppendBool(s.out, is)
	}
}
