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

// idBits is in how many bits an id of n fits.
func idBits(n int) int { return bits.Len(uint(max(n-1, 0))) }

// push makes is the lowest of the bits that say how it was the last times.
func push(history *uint8, is bool) { *history = *history<<1 | uint8(entropy.Int(is)) }
