package codec

import (
	"bytes"
	"hash/crc32"
	"math/bits"
	"slices"

	"github.com/packetboat/packetboat/pkg/codec/entropy"
	"github.com/packetboat/packetboat/pkg/stream"
)

// session walks over messages: encoding and decoding are the same walk. What it
// learns is in the state; the rest is scratch.
type session struct {
	entropy.Coder
	*state
	current *topic // of the message at hand

	// By name and text, where an encoder looks things up; nil at a decoder.
	names map[string]int32
	texts map[string]int32

	guess  [followers]guess
	text   []byte
	tokens []token
	hex    []byte
	props  []byte
	out    []byte // payloads that were decoded
	crc    uint32 // of the payloads so far
	left   int    // bytes of content that may still come out of this body

	noise               int // the encoder's own: chunks of bytes on which models lost, of late
	spelled, octetsDone int // bytes of this body that models have coded
}

// batch codes what all records of a body have in common: how many there are,
// which it gives, and the unit of their times.
func (s *session) batch(n int, unit int64) int {
	s.spelled, s.octetsDone = 0, 0
	if s.Flag(&s.sameCount, n != s.count) {
		s.count = int(min(s.Magnitude(&s.counts, uint64(n)), MaxRecords+1))
	}
	if s.Flag(&s.sameUnit, unit != s.unit) {
		k := s.Direct(uint64(slices.Index(units[:], unit)), 2)
		if k >= uint64(len(units)) {
			s.Fail()
			return 0
		}
		s.now, s.unit = rescale(s.now, s.unit, units[k]), units[k]
	}
	if s.count > MaxRecords {
		s.Fail()
	}
	return s.count
}

// record codes a message. Decoding, what it gives aliases s.out.
func (s *session) record(r *stream.Record) {
	t := s.topic(r.Topic)
	if s.Bad {
		return
	}
	s.current = t
	r.Topic = t.name
	r.Time = s.time(t, r.Time/s.unit) * s.unit
	s.about(t, r)
	if s.Bad {
		return
	}
	start := len(s.out)
	s.payload(t, r)
	if s.Decoding {
		r.Payload = s.out[start:len(s.out):len(s.out)]
		s.Spend(len(r.Payload))
	}
	// What the other side has to come to, too.
	s.crc = crc32.Update(s.crc, castagnoli, r.Payload)
	for _, x := range [5]uint32{t.sum, uint32(r.Time), uint32(uint64(r.Time) >> 32), uint32(t.meta), uint32(len(r.Payload))} {
		s.Note(x)
	}
	s.settle()
}

// about codes what is beside topic, time and payload: nearly always as the last
// time.
func (s *session) about(t *topic, r *stream.Record) {
	meta := metaOf(r)
	if s.Flag(&s.sameMeta, meta != t.meta) {
		t.meta = byte(s.Direct(uint64(meta), 7))
	}
	meta = t.meta
	s.meta = meta
	if meta&metaQoS > 2 {
		s.Fail()
		return
	}
	r.QoS, r.Retain, r.Quality = meta&metaQoS, meta&metaRetain != 0, stream.TimeQuality(meta&metaQuality>>metaQualityShift)
	if meta&metaBoot != 0 {
		s.bootTime(r)
	}
	if meta&metaProps != 0 {
		s.properties(t, r)
	}
}

// bootTime codes the boot id, and the monotonic time by how far it is from going
// with the message's.
func (s *session) bootTime(r *stream.Record) {
	if s.Flag(&s.sameBoot, r.Boot != s.boot) {
		for i := range s.boot {
			s.boot[i] = byte(s.Direct(uint64(r.Boot[i]), 8))
		}
	}
	foreseen := s.mono + r.Time - s.monoAt
	off := r.Mono - foreseen
	if s.Flag(&s.sameMono, off != 0) {
		off = s.Signed(&s.monoSign, &s.monos, &s.monoTrend, &s.monoAvg, off)
	} else {
		off = 0
	}
	s.mono, s.monoAt = foreseen+off, r.Time
	r.Boot, r.Mono = s.boot, s.mono
	s.crc = crc32.Update(s.crc, castagnoli, s.boot[:])
	s.Note(uint32(r.Mono))
	s.Note(uint32(uint64(r.Mono) >> 32))
}

// properties codes the MQTT 5 properties, as they stand in a row.
func (s *session) properties(t *topic, r *stream.Record) {
	if !s.Decoding {
		s.props = appendProperties(s.props[:0], r.Properties)
	}
	if s.Flag(&s.sameProps, !bytes.Equal(s.props, t.props)) {
		s.props = append(s.props[:0], s.words.text(s, s.props, MaxBytes)...)
		known := s.props[:min(len(s.props), maxBytes)] // longer ones never come again
		s.charge(t, -cap(t.props))
		t.props = append(room(t.props, len(known))[:0], known...)
		s.charge(t, cap(t.props))
	} else {
		s.props = append(s.props[:0], t.props...)
	}
	s.crc = crc32.Update(s.crc, castagnoli, s.props)
	if s.Decoding && !s.Bad {
		s.decodeProperties(r)
	}
}

// decodeProperties makes the record's own copy.
func (s *session) decodeProperties(r *stream.Record) {
	d := rowDecoder{cursor: cursor{b: bytes.Clone(s.props)}, left: max(s.left, 0)}
	r.Properties = new(stream.Properties)
	if err := d.readPropertiesOf(r.Properties); err != nil || d.bad || len(d.b) > 0 {
		s.Fail()
	}
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

// idBits is in how many bits an id of n fits.
func idBits(n int) int { return bits.Len(uint(max(n-1, 0))) }

// push makes is the lowest of the bits that say how it was the last times.
func push(history *uint8, is bool) { *history = *history<<1 | uint8(entropy.Int(is)) }
