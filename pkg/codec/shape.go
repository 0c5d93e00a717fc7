package codec

import (
	"bytes"
	"slices"

	"github.com/packetboat/packetboat/pkg/codec/entropy"
	"github.com/packetboat/packetboat/pkg/stream"
)

// What a payload looks like: a template with columns for what varies, bytes, or a
// long text. A topic's payloads take few shapes, mostly the one before.

// ref is a shape that payloads of a topic take.
type ref struct {
	kind     byte
	template int32    // of shapeTemplate
	cols     *columns // of shapeTemplate
	bytes    *octets  // of shapeBytes
}

const (
	shapeTemplate = 0
	shapeBytes    = 1
	shapeText     = 2 // a long text
)

// template is a text in which tokens stand for what varies.
type template struct {
	text  []byte
	parts []part // of text
	kinds []byte // of the tokens that have a column
	refs  int    // of topics
	// The numbers of the last message of this shape, whatever its topic: sensors
	// that are read together share a time stamp. Saves a third of OBD as JSON.
	last   []int64
	format []format
	seen   bool
}

func (g *template) size() int { return sizeTemplate + 2*len(g.text) + sizePart*len(g.parts) }

// columns hold what varies in payloads of a shape. Templates of a topic whose
// tokens are of the same kinds share them: a word that changes among the numbers
// does not make them new. Saves a fifth of rows with a text field.
type columns struct {
	refs    int
	kinds   []byte
	numbers []column
	bytes   []octets
	flags   []flag
}

type flag struct {
	p    [8]entropy.Prob
	hist uint8
}

func (s *state) newColumns(kinds []byte) *columns {
	count := func(kind byte) int { return bytes.Count(kinds, []byte{kind}) }
	cs := &columns{
		kinds: kinds, numbers: make([]column, count(tokenNumber)), flags: make([]flag, count(tokenFlag)),
		bytes: make([]octets, count(tokenHex)+count(tokenWord)),
	}
	for i := range cs.numbers {
		cs.numbers[i].changed = s.changed
		entropy.Soften(cs.numbers[i].changed[:], 3)
	}
	for i := range cs.bytes {
		cs.bytes[i] = s.newOctets()
	}
	return cs
}

// size is what the columns count, and how much of it is dictionaries.
func (cs *columns) size() (all, values int) {
	all = sizeColumns + sizeColumn*len(cs.numbers) + sizeFlag*len(cs.flags)
	for i := range cs.numbers {
		values += 8 * cap(cs.numbers[i].values)
		all += sizeModel * entropy.Int(cs.numbers[i].own != nil)
	}
	for i := range cs.bytes {
		all += cs.bytes[i].size()
	}
	return all + values, values
}

// payload codes the shape of a payload, then what is in it.
func (s *session) payload(t *topic, r *stream.Record) {
	rank, kind := len(t.refs), byte(0)
	if !s.Decoding {
		rank, kind = s.shapeOf(t, r.Payload)
	}
	at := 0
	for ; at < len(t.refs); at++ {
		p := &s.rank[min(at, 15)]
		if at == 0 {
			p = &t.same
		}
		if !s.Flag(p, at != rank) {
			break
		}
	}
	if at < len(t.refs) {
		x := t.refs[at]
		copy(t.refs[1:at+1], t.refs[:at])
		t.refs[0] = x
	} else if s.newShape(t, kind); s.Bad {
		return
	}
	switch x := &t.refs[0]; x.kind {
	case shapeTemplate:
		s.fields(x, r)
	case shapeBytes:
		s.out = s.octets(x.bytes, r.Payload, s.out)
	case shapeText:
		if text := s.words.text(s, r.Payload, MaxBytes); s.Decoding {
			s.out = append(s.out, text...)
		}
	}
}

// shapeOf finds the shape of a payload among the topic's; len(t.refs): it is a
// new one, of this kind. It leaves the template in s.text and the tokens in
// s.tokens.
func (s *session) shapeOf(t *topic, p []byte) (rank int, kind byte) {
	if len(t.refs) > 0 && t.refs[0].kind == shapeTemplate {
		x := &t.refs[0]
		if s.match(s.templates[x.template], p) && s.formats(x.cols) {
			return 0, shapeTemplate
		}
	}
	if isText(p) {
		if s.split(p) {
			id, known := s.texts[string(s.text)]
			for i := range t.refs {
				if x := &t.refs[i]; known && x.kind == shapeTemplate && x.template == id && s.formats(x.cols) {
					return i, shapeTemplate
				}
			}
			if s.formats(s.sharing(t)) {
				return len(t.refs), shapeTemplate
			}
		}
		kind = shapeText
	}
	if len(p) <= maxBytes || kind != shapeText {
		kind = shapeBytes
	}
	if i := slices.IndexFunc(t.refs, func(x ref) bool { return x.kind == kind }); i >= 0 {
		return i, kind
	}
	return len(t.refs), kind
}

// formats finds for each number of the message the integer and its format, by
// those of its column. It reports false where one would not come back.
func (s *session) formats(cols *columns) bool {
	k := 0
	for i := range s.tokens {
		t := &s.tokens[i]
		if t.kind != tokenNumber {
			continue
		}
		f, fresh, ok := format{}, true, false
		if cols != nil {
			f, fresh = cols.numbers[k].format, cols.numbers[k].seen == 0
		}
		if t.x, t.format, ok = f.fit(t.decimal, t.text, fresh); !ok {
			return false
		}
		k++
	}
	return true
}

// sharing finds columns of the topic that take the tokens at hand.
func (s *session) sharing(t *topic) *columns {
	kinds := s.hex[:0]
	for i := range s.tokens {
		kinds = append(kinds, s.tokens[i].kind)
	}
	s.hex = kinds
	return t.columns(kinds)
}

// columns finds those of the topic for tokens of such kinds, if there are any.
func (t *topic) columns(kinds []byte) *columns {
	for i := range t.refs {
		if cs := t.refs[i].cols; cs != nil && bytes.Equal(cs.kinds, kinds) {
			return cs
		}
	}
	return nil
}

// newShape codes a shape that the topic does not know, and puts it first.
func (s *session) newShape(t *topic, kind byte) {
	x := ref{}
	if s.Flag(&s.kind[0], kind != shapeTemplate) {
		x.kind = shapeBytes + byte(s.Bit(&s.kind[1], entropy.Int(kind == shapeText)))
	}
	switch x.kind {
	case shapeTemplate:
		if x.template = s.newTemplate(); s.Bad {
			return
		}
		g := s.templates[x.template]
		g.refs++
		if x.cols = t.columns(g.kinds); x.cols == nil {
			x.cols = s.newColumns(g.kinds)
			all, _ := x.cols.size()
			s.charge(t, all)
		}
		x.cols.refs++
	case shapeBytes:
		b := s.newOctets()
		x.bytes = &b
		s.charge(t, sizeOctets)
	}
	if len(t.refs) == maxTemplates {
		s.drop(t, t.refs[maxTemplates-1])
		t.refs = t.refs[:maxTemplates-1]
	}
	s.charge(t, sizeRef)
	t.refs = slices.Insert(t.refs, 0, x)
}

// newTemplate codes a template: the one that a topic took up last, as when a
// car's sensors come one after the other for the first time, one that is known,
// or a text.
func (s *session) newTemplate() int32 {
	id, known := s.texts[string(s.text)]
	if s.template >= 0 && !s.Flag(&s.again, !known || id != s.template) {
		return s.template
	}
	if len(s.templates) > len(s.freeTemplates) && !s.Flag(&s.known, !known) {
		id = int32(s.Direct(uint64(id), idBits(len(s.templates))))
		if int(id) >= len(s.templates) || s.templates[id] == nil {
			s.Fail()
			return -1
		}
	} else {
		g, ok := parseTemplate(bytes.Clone(s.words.word(s, s.text, maxText)))
		if s.Bad || !ok {
			s.Fail()
			return -1
		}
		id = take(&s.templates, &s.freeTemplates, g)
		s.used += g.size()
		if s.texts != nil {
			s.texts[string(g.text)] = id
		}
	}
	s.template = id
	return id
}
