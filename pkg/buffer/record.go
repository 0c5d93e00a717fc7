package buffer

import (
	"encoding/binary"

	"github.com/packetboat/packetboat/pkg/stream"
)

// The bits of a record's first byte and of its properties.
const (
	recLane       = 0x03
	recQoS        = 0x0c
	recQoSShift   = 2
	recRetain     = 0x10
	recQuality    = 0x20
	recBoot       = 0x40
	recProperties = 0x80

	propContentType = 1
	propResponse    = 2
	propCorrelation = 4
	propUser        = 8
	propUTF8        = 16
	propExpiry      = 32
)

// recordRest is the encoded size of m, accepted at the given moment, without its
// first byte and its length. The moment counts only where m expires.
func recordRest(m *stream.Message, base int64, at *stream.Moment) int {
	n := varintLen(m.Time-base) + uvarintLen(uint64(len(m.Topic))) + len(m.Topic) + len(m.Payload)
	if m.Quality != stream.TimeLocal {
		n++
	}
	if hasBoot(m) {
		n += len(m.Boot) + varintLen(m.Mono)
	}
	n += propertiesLen(m.Properties)
	if m.Expiry > 0 {
		if m.Properties.IsZero() {
			n++
		}
		n += expiryLen(m, at)
	}
	return n
}

// recordLen is the encoded size of a record whose rest has rest bytes.
func recordLen(rest int) int { return 1 + uvarintLen(uint64(rest)) + rest }

func hasBoot(m *stream.Message) bool { return m.Mono != 0 || !m.Boot.IsZero() }

func textLen(n int) int { return uvarintLen(uint64(n)) + n }

func propertiesLen(p *stream.Properties) int {
	if p.IsZero() {
		return 0
	}
	n := 1
	if p.ContentType != "" {
		n += textLen(len(p.ContentType))
	}
	if p.ResponseTopic != "" {
		n += textLen(len(p.ResponseTopic))
	}
	if len(p.CorrelationData) > 0 {
		n += textLen(len(p.CorrelationData))
	}
	if len(p.User) > 0 {
		n += uvarintLen(uint64(len(p.User)))
		for i := range p.User {
			n += textLen(len(p.User[i].Key)) + textLen(len(p.User[i].Value))
		}
	}
	return n
}

// appendRecord encodes m; rest is recordRest(m, base, at).
func appendRecord(p []byte, lane stream.Lane, m *stream.Message, base int64, rest int, at *stream.Moment) []byte {
	flags := byte(lane)&recLane | m.QoS<<recQoSShift&recQoS
	if m.Retain {
		flags |= recRetain
	}
	if m.Quality != stream.TimeLocal {
		flags |= recQuality
	}
	if hasBoot(m) {
		flags |= recBoot
	}
	if !m.Properties.IsZero() || m.Expiry > 0 {
		flags |= recProperties
	}
	p = append(p, flags)
	p = binary.AppendUvarint(p, uint64(rest))
	p = binary.AppendVarint(p, m.Time-base)
	if flags&recQuality != 0 {
		p = append(p, byte(m.Quality))
	}
	if flags&recBoot != 0 {
		p = append(p, m.Boot[:]...)
		p = binary.AppendVarint(p, m.Mono)
	}
	p = appendText(p, m.Topic)
	if flags&recProperties != 0 {
		mask := len(p)
		if p = append(p, 0); !m.Properties.IsZero() {
			p = appendProperties(p[:mask], m.Properties)
		}
		if m.Expiry > 0 {
			p[mask] |= propExpiry
			p = appendExpiry(p, m, at)
		}
	}
	return append(p, m.Payload...)
}

func appendText[T string | []byte](p []byte, s T) []byte {
	p = binary.AppendUvarint(p, uint64(len(s)))
	return append(p, s...)
}

func appendProperties(p []byte, m *stream.Properties) []byte {
	at := len(p)
	p = append(p, 0)
	if m.ContentType != "" {
		p[at] |= propContentType
		p = appendText(p, m.ContentType)
	}
	if m.ResponseTopic != "" {
		p[at] |= propResponse
		p = appendText(p, m.ResponseTopic)
	}
	if len(m.CorrelationData) > 0 {
		p[at] |= propCorrelation
		p = appendText(p, m.CorrelationData)
	}
	if len(m.User) > 0 {
		p[at] |= propUser
		p = binary.AppendUvarint(p, uint64(len(m.User)))
		for i := range m.User {
			p = appendText(p, m.User[i].Key)
			p = appendText(p, m.User[i].Value)
		}
	}
	if m.PayloadUTF8 {
		p[at] |= propUTF8
	}
	return p
}

// rawRecord is an encoded record: its first byte and what follows the length.
type rawRecord struct {
	flags byte
	rest  []byte
	size  int // in the record area
}

func (r *rawRecord) lane() stream.Lane { return stream.Lane(r.flags & recLane) }

// nextRecord takes one off the front of p.
func nextRecord(p []byte) (raw rawRecord, ok bool) {
	r := reader{p: p}
	raw.flags = r.byte()
	raw.rest = r.bytes()
	raw.size = len(p) - len(r.p)
	return raw, !r.bad && raw.lane().Valid()
}

// decode reads the record into m. Its texts come from intern; the payload is
// appended to arena, which must have the room, and points there.
func (raw *rawRecord) decode(m *stream.Message, base int64, arena []byte, intern func([]byte) string) ([]byte, bool) {
	r := reader{p: raw.rest}
	*m = stream.Message{Time: base + r.varint(), Quality: stream.TimeLocal}
	m.QoS = raw.flags & recQoS >> recQoSShift
	m.Retain = raw.flags&recRetain != 0
	if raw.flags&recQuality != 0 {
		m.Quality = stream.TimeQuality(r.byte())
	}
	if raw.flags&recBoot != 0 {
		m.Boot, m.Mono = r.epoch(), r.varint()
	}
	m.Topic = intern(r.bytes())
	if raw.flags&recProperties != 0 {
		r.properties(m)
	}
	if r.bad {
		return arena, false
	}
	if n := len(arena); len(r.p) > 0 {
		arena = append(arena, r.p...)
		m.Payload = arena[n:len(arena):len(arena)]
	}
	return arena, true
}

func (r *reader) properties(m *stream.Message) {
	mask := r.byte()
	p := &stream.Properties{PayloadUTF8: mask&propUTF8 != 0}
	if mask&propContentType != 0 {
		p.ContentType = string(r.bytes())
	}
	if mask&propResponse != 0 {
		p.ResponseTopic = string(r.bytes())
	}
	if mask&propCorrelation != 0 {
		p.CorrelationData = append([]byte(nil), r.bytes()...)
	}
	if mask&propUser != 0 {
		for range r.count(2) {
			p.User = append(p.User, stream.Property{Key: string(r.bytes()), Value: string(r.bytes())})
		}
	}
	if !p.IsZero() || mask&propExpiry == 0 {
		m.Properties = p
	}
	if mask&propExpiry != 0 {
		m.Expiry, _ = r.expiry(m.Time)
	}
}
