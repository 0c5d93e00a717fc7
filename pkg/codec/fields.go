package codec

import (
	"github.com/packetboat/packetboat/pkg/codec/entropy"
	"github.com/packetboat/packetboat/pkg/stream"
)

// fields codes the tokens of a template; decoding, it fills them in.
func (s *session) fields(x *ref, r *stream.Record) {
	g, cs := s.templates[x.template], x.cols
	if g.last == nil {
		g.last, g.format = make([]int64, len(cs.numbers)), make([]format, len(cs.numbers))
	}
	near := neighbours{at: r.Time, shapeSeen: g.seen}
	start := len(s.out)
	var at struct{ token, number, binary, flag int }
	for i := range g.parts {
		p := &g.parts[i]
		if s.Decoding {
			s.out = append(s.out, p.text...)
		}
		s.Spend(1)
		t := &token{}
		if !s.Decoding && at.token < len(s.tokens) {
			t = &s.tokens[at.token]
		}
		at.token++
		switch p.kind {
		case tokenNumber:
			near.shape, near.shapeFormat = g.last[at.number], g.format[at.number]
			col := &cs.numbers[at.number]
			older := col.v1
			v, f := s.number(col, &near, t.x, t.format)
			g.last[at.number], g.format[at.number] = v, f
			near.before, near.value, near.older = true, v, older
			if s.Decoding {
				s.out = f.append(s.out, v)
			}
			at.number++
		case tokenHex:
			s.hexBytes(&cs.bytes[at.binary], p, t.text)
			at.binary++
		case tokenWord:
			s.word(&cs.bytes[at.binary], t.text)
			at.binary++
		case tokenFlag:
			s.flag(&cs.flags[at.flag], t.text)
			at.flag++
		case tokenSum:
			at.token-- // has no token
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
	if s.Bit(&b.same, entropy.Int(string(text) != string(b.now))) == 1 {
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
	v := s.Bit(&f.p[f.hist&7], entropy.Int(len(text) == len("true")))
	f.hist = f.hist<<1 | uint8(v)
	switch {
	case !s.Decoding:
	case v == 1:
		s.out = append(s.out, "true"...)
	default:
		s.out = append(s.out, "false"...)
	}
}
