package mqttfront

import (
	"encoding/binary"
	"sync/atomic"
	"time"

	"github.com/packetboat/packetboat/pkg/stream"
)

const (
	letterCost = 256 // what a letter costs beside what it holds, roughly
	slotCost   = 128 // and each place in an outbox

	propSubID = 0x0B
	maxSubID  = 268435455
)

// letter is a settled message on its way to local subscribers, or kept as
// retained. All of them share it; nothing in it changes.
type letter struct {
	topic   string
	payload []byte
	props   []byte // MQTT 5 properties as they are sent, without expiry and subscription identifiers
	origin  string // client id of the publisher
	qos     byte
	retain  bool
	until   time.Time // when it expires; zero: never
	seq     uint64    // of a retained message: the number of the change that brought it

	holders atomic.Int32 // places in outboxes
}

// newLetter makes a letter of p; it keeps nothing of p's payload and properties.
func newLetter(origin string, p *Publish, now time.Time) *letter {
	l := &letter{topic: p.Topic, props: appendProperties(nil, p.Properties), origin: origin, qos: p.QoS, retain: p.Retain}
	l.payload = append(make([]byte, 0, len(p.Payload)), p.Payload...)
	if p.Expiry > 0 {
		l.until = now.Add(time.Duration(p.Expiry) * time.Second)
	}
	return l
}

func (l *letter) size() int { return letterCost + len(l.topic) + len(l.payload) + len(l.props) }

func (l *letter) expired(now time.Time) bool { return !l.until.IsZero() && !now.Before(l.until) }

// remaining is the message expiry interval in seconds that is left at now, 0 if
// there is none. [MQTT-3.3.2-6]
func (l *letter) remaining(now time.Time) uint32 {
	if l.until.IsZero() {
		return 0
	}
	// Delivery may have begun in time and go on later: then it has a second.
	return uint32(max(1, (l.until.Sub(now)+time.Second-1)/time.Second))
}

// outMessage is a letter as subscribers of one kind get it. It does not change,
// and may stand in many outboxes.
type outMessage struct {
	*letter
	qos    byte // granted, at most the letter's
	retain bool
	ids    []uint32 // subscription identifiers
	group  *group   // of the shared subscription that it came by
}

// cost is what the message is charged to one subscriber.
func (m *outMessage) cost() int { return m.size() + slotCost }

// publication is one PUBLISH to a subscriber.
type publication struct {
	*outMessage
	version byte
	id      uint16
	dup     bool
	expiry  uint32
	alias   uint16 // 0: none
	known   bool   // the client knows the alias: the topic is left out
}

// remaining is the remaining length of the packet.
func (p *publication) remainingLength() int {
	n := 2 + len(p.topic) + len(p.payload)
	if p.known {
		n -= len(p.topic)
	}
	if p.qos > 0 {
		n += 2
	}
	if p.version >= 5 {
		props := p.properties()
		n += varintSize(props) + props
	}
	return n
}

func (p *publication) properties() int {
	n := len(p.props)
	if p.expiry > 0 {
		n += 5
	}
	if p.alias > 0 {
		n += 3
	}
	for _, id := range p.ids {
		n += 1 + varintSize(int(id))
	}
	return n
}

// packetSize is the size of the packet in bytes.
func (p *publication) packetSize() int {
	n := p.remainingLength()
	return 1 + varintSize(n) + n
}

func (p *publication) append(dst []byte) []byte {
	first := byte(typePublish<<4) | p.qos<<1
	if p.retain {
		first |= flagRetain
	}
	if p.dup && p.qos > 0 {
		first |= flagDup
	}
	dst = appendVarint(append(dst, first), p.remainingLength())
	if p.known {
		dst = append(dst, 0, 0)
	} else {
		dst = appendString(dst, p.topic)
	}
	if p.qos > 0 {
		dst = binary.BigEndian.AppendUint16(dst, p.id)
	}
	if p.version >= 5 {
		dst = appendVarint(dst, p.properties())
		if p.expiry > 0 {
			dst = binary.BigEndian.AppendUint32(append(dst, propMessageExpiry), p.expiry)
		}
		if p.alias > 0 {
			dst = binary.BigEndian.AppendUint16(append(dst, propTopicAlias), p.alias)
		}
		for _, id := range p.ids {
			dst = appendVarint(append(dst, propSubID), int(id)) // [MQTT-3.3.4-3]
		}
		dst = append(dst, p.props...)
	}
	return append(dst, p.payload...)
}

// appendProperties appends what of a message's properties goes to subscribers
// unaltered. [MQTT-3.3.2-4,15,16,17,18,20]
func appendProperties(dst []byte, p *stream.Properties) []byte {
	if p == nil {
		return dst
	}
	if p.PayloadUTF8 {
		dst = append(dst, propPayloadFormat, 1)
	}
	if p.ContentType != "" {
		dst = appendString(append(dst, propContentType), p.ContentType)
	}
	if p.ResponseTopic != "" {
		dst = appendString(append(dst, propResponseTopic), p.ResponseTopic)
	}
	if len(p.CorrelationData) > 0 {
		dst = binary.BigEndian.AppendUint16(append(dst, propCorrelationData), uint16(len(p.CorrelationData)))
		dst = append(dst, p.CorrelationData...)
	}
	return appendUser(dst, p.User)
}

// fifo is a queue that gives its memory back when it is empty.
type fifo[T any] struct {
	b    []T
	head int
}

func (q *fifo[T]) len() int    { return len(q.b) - q.head }
func (q *fifo[T]) at(i int) *T { return &q.b[q.head+i] }
func (q *fifo[T]) all() []T    { return q.b[q.head:] }

func (q *fifo[T]) push(v T) {
	if q.head > len(q.b)/2 && len(q.b) == cap(q.b) {
		n := copy(q.b, q.b[q.head:])
		clear(q.b[n:])
		q.b, q.head = q.b[:n], 0
	}
	q.b = append(q.b, v)
}

func (q *fifo[T]) pop() (v T) {
	at := &q.b[q.head]
	v, *at = *at, v
	if q.head++; q.head == len(q.b) {
		q.b, q.head = q.b[:0], 0
		if cap(q.b) > 64 {
			q.b = nil
		}
	}
	return v
}
