package mqttfront

import (
	"encoding/binary"
	"time"

	"github.com/packetboat/packetboat/pkg/stream"
)

// What the Store has of local delivery. All begin with a version byte; then
// flags, and what they announce; a message ends with an MQTT 5 PUBLISH whose
// expiry interval counts from the moment before it.
//
//	f/<session>/<filter>      version, options as in SUBSCRIBE, identifier (4)
//	m/<session>/<n, 16 hex>   version, flags, packet identifier (2), then unless
//	                          the flag released is set: identifiers (1 + 4 each),
//	                          the moment if the message expires (33), PUBLISH
//	r/<topic>                 version, flags, client id (2 + n), the moment if the
//	                          message expires, PUBLISH
const (
	savedVersion = 1

	savedReleased = 1 << 0 // PUBREC came
	savedExpires  = 1 << 1 // a moment is there

	maxSavedIDs = 255
)

// moment reads the device's clocks.
func (f *Front) moment() stream.Moment {
	if f.o.Now != nil {
		return f.o.Now()
	}
	return stream.Moment{Time: time.Now().UnixMicro(), Quality: stream.TimeLocal}
}

// elapsed is what has passed between two moments: within one boot by the
// monotonic clock, else by the wall clock if it was believed both times. If
// neither can say, or the clock went back, nothing has passed.
func elapsed(from, to stream.Moment) time.Duration {
	var d int64
	believed := func(q stream.TimeQuality) bool { return q == stream.TimeLocal || q == stream.TimeFixed }
	switch {
	case from.Boot != stream.Epoch{} && from.Boot == to.Boot:
		d = to.Mono - from.Mono
	case believed(from.Quality) && believed(to.Quality):
		d = to.Time - from.Time
	}
	const most = int64(1<<63-1) / int64(time.Microsecond)
	return time.Duration(min(max(d, 0), most)) * time.Microsecond
}

func appendMoment(dst []byte, m stream.Moment) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(m.Time))
	dst = append(append(dst, byte(m.Quality)), m.Boot[:]...)
	return binary.BigEndian.AppendUint64(dst, uint64(m.Mono))
}

func (r *propReader) moment() (m stream.Moment) {
	if b := r.take(8 + 1 + len(m.Boot) + 8); !r.bad {
		m.Time, m.Quality = int64(binary.BigEndian.Uint64(b)), stream.TimeQuality(b[8])
		copy(m.Boot[:], b[9:])
		m.Mono = int64(binary.BigEndian.Uint64(b[9+len(m.Boot):]))
	}
	return m
}

// appendSaved appends moment and PUBLISH.
func appendSaved(dst []byte, p *publication, now stream.Moment) []byte {
	if p.expiry > 0 {
		dst = appendMoment(dst, now)
	}
	return p.append(dst)
}

// saved reads moment and PUBLISH, which end the value.
func (r *propReader) saved(flags byte, clock stream.Moment, now time.Time) (*letter, bool) {
	var then stream.Moment
	if flags&savedExpires != 0 {
		then = r.moment()
	}
	if r.bad {
		return nil, false
	}
	first, n, remaining, err := header(r.b)
	if err != nil || n == 0 || len(r.b) != n+remaining || first>>4 != typePublish {
		return nil, false
	}
	raw, err := decodePublish(first, r.b[n:], 5)
	if err != nil || len(raw.topic) == 0 || checkTopic(raw.topic) != nil {
		return nil, false
	}
	props, err := decodeProps(raw.props)
	if err != nil || props.hasAlias || (props.expiry > 0) != (flags&savedExpires != 0) {
		return nil, false
	}
	l := newLetter("", &Publish{Topic: string(raw.topic), Payload: raw.payload, QoS: raw.qos, Retain: raw.retain, Properties: props.keep}, now)
	if props.expiry > 0 {
		l.until = now.Add(time.Duration(props.expiry)*time.Second - elapsed(then, clock))
	}
	return l, true
}

func appendRetained(l *letter, now stream.Moment, expiry uint32) []byte {
	flags := byte(0)
	if expiry > 0 {
		flags |= savedExpires
	}
	m := outMessage{letter: l, qos: l.qos, retain: true}
	p := publication{outMessage: &m, version: 5, id: 1, expiry: expiry}
	b := make([]byte, 0, 40+len(l.origin)+p.packetSize())
	b = appendString(append(b, savedVersion, flags), l.origin)
	return appendSaved(b, &p, now)
}

func decodeRetained(value []byte, clock stream.Moment, now time.Time) (*letter, bool) {
	r := propReader{b: value}
	head := r.take(2)
	if r.bad || head[0] != savedVersion {
		return nil, false
	}
	origin := r.bytes()
	l, ok := r.saved(head[1], clock, now)
	if !ok || len(l.payload) == 0 {
		return nil, false
	}
	l.origin, l.retain = string(origin), true
	return l, true
}

func appendOutbound(s *slot, clock stream.Moment, now time.Time) []byte {
	head := []byte{savedVersion, 0, byte(s.id >> 8), byte(s.id)}
	if s.released {
		head[1] = savedReleased
		return head
	}
	p := publication{outMessage: s.m, version: 5, id: s.id, expiry: s.m.remaining(now)}
	if p.expiry > 0 {
		head[1] |= savedExpires
	}
	ids := s.m.ids[:min(len(s.m.ids), maxSavedIDs)]
	b := make([]byte, 0, 48+4*len(ids)+p.packetSize())
	b = append(append(b, head...), byte(len(ids)))
	for _, id := range ids {
		b = binary.BigEndian.AppendUint32(b, id)
	}
	m := *s.m
	m.ids = nil
	p.outMessage = &m
	return appendSaved(b, &p, clock)
}

func decodeOutbound(value []byte, clock stream.Moment, now time.Time) (s slot, ok bool) {
	r := propReader{b: value}
	head := r.take(4)
	if r.bad || head[0] != savedVersion {
		return s, false
	}
	s.id, s.saved, s.dup = binary.BigEndian.Uint16(head[2:]), true, true
	if s.id == 0 {
		return s, false
	}
	if head[1]&savedReleased != 0 {
		s.qos, s.released = 2, true
		return s, len(r.b) == 0
	}
	m := &outMessage{}
	if n := r.take(1); !r.bad {
		for range n[0] {
			if id := r.take(4); !r.bad {
				m.ids = append(m.ids, binary.BigEndian.Uint32(id))
			}
		}
	}
	for _, id := range m.ids {
		if id == 0 || id > maxSubID {
			return s, false
		}
	}
	if r.bad {
		return s, false
	}
	l, ok := r.saved(head[1], clock, now)
	if !ok || l.qos == 0 {
		return s, false
	}
	m.letter, m.qos, m.retain = l, l.qos, l.retain
	s.m, s.qos = m, m.qos
	return s, true
}

// appendSubscription makes the value of an f/ key.
func appendSubscription(s *subscription) []byte {
	options := s.qos | s.handling<<4
	if s.noLocal {
		options |= 1 << 2
	}
	if s.asPublished {
		options |= 1 << 3
	}
	return binary.BigEndian.AppendUint32([]byte{savedVersion, options}, s.identifier)
}

func decodeSubscription(filter string, value []byte) (*subscription, bool) {
	_, plain := splitShare(filter)
	if len(value) != 6 || value[0] != savedVersion || !validShare(filter) || !ValidFilter(plain) {
		return nil, false
	}
	options := value[1]
	s := &subscription{
		filter: filter, qos: options & 3, noLocal: options&(1<<2) != 0, asPublished: options&(1<<3) != 0, handling: options >> 4 & 3,
		identifier: binary.BigEndian.Uint32(value[2:]),
	}
	return s, checkOptions(options, 5, isShared(filter)) == nil && s.identifier <= maxSubID
}
