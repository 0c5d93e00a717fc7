package mqttfront

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

const (
	maxControl = 128 << 10 // bytes of a packet that is neither CONNECT nor PUBLISH
	maxTopics  = 1024      // topics a connection remembers
	maxAliases = 64        // announced to MQTT 5 clients
	// maxTopicBytes bounds the topics that a connection remembers, and, apart
	// from them, those behind its aliases.
	maxTopicBytes  = 64 << 10
	maxTopicMemory = 16 << 20 // of all, beyond plainTopics each
	plainTopics    = 8 << 10
	topicCost      = 64 // beside the bytes
	slabBytes      = 8 << 10
	// entryCost is what an entry costs beside topic and payload, roughly.
	entryCost = 256
	userCost  = 40 // and each user property
)

// reader is the read side of a connection: a buffer of bytes, and what PUBLISH
// needs to remember.
type reader struct {
	buf          []byte
	r, w         int // unread are buf[r:w]
	accounted    int // length of buf that was accounted for
	deadlineFrom time.Time
	trimmed      bool      // the deadline stands, nothing was read since
	armed        bool      // there is a deadline
	since        time.Time // when part of a packet was there that is not whole yet; zero: none is
	topics       map[string]string
	topicBytes   int // of topics
	aliases      map[uint16]string
	aliasBytes   int // of aliases
	memory       *topicMemory
	charged      int64 // to memory
	crowded      bool  // memory was full
	slab         []byte
}

// topicMemory is what all connections together remember of topics, beyond
// plainTopics each.
type topicMemory struct{ bytes atomic.Int64 }

// charge brings what is charged for r up to what it will hold with more bytes; if
// that is too much nothing changes.
func (r *reader) charge(more int) bool {
	m := r.memory
	if m == nil {
		return true
	}
	n := int64(r.topicBytes+r.aliasBytes+more) + topicCost*int64(len(r.topics)+len(r.aliases)) - plainTopics
	n = max(n, 0)
	extra := n - r.charged
	if extra == 0 {
		return true
	}
	if m.bytes.Add(extra) > maxTopicMemory && extra > 0 {
		m.bytes.Add(-extra)
		return false
	}
	r.charged = n
	return true
}

// forget gives back what the topics took.
func (r *reader) forget() {
	r.topics, r.topicBytes, r.aliases, r.aliasBytes = nil, 0, nil, 0
	r.charge(0)
}

// trim gives memory back when nothing has come for a while.
func (r *reader) trim() {
	if r.r == r.w {
		r.buf, r.slab = nil, nil
		r.r, r.w = 0, 0
	}
}

// underWay reports whether part of a packet is there, for some time.
func (r *reader) underWay() bool { return !r.since.IsZero() }

// space gives room to read into; it moves or grows the buffer if it must, up to
// limit bytes.
func (r *reader) space(limit int) []byte {
	if r.r == r.w {
		r.r, r.w = 0, 0
		if r.buf == nil || len(r.buf) > readBufferMax {
			r.buf = make([]byte, readBufferMin)
		}
	}
	if r.w == len(r.buf) {
		if r.r > 0 {
			r.w = copy(r.buf, r.buf[r.r:r.w])
			r.r = 0
		} else {
			r.grow(min(2*len(r.buf), max(limit, readBufferMax)))
		}
	}
	return r.buf[r.w:]
}

func (r *reader) grow(size int) {
	b := make([]byte, size)
	r.w = copy(b, r.buf[r.r:r.w])
	r.r, r.buf = 0, b
}

// filled takes note of n bytes read where space were possible.
func (r *reader) filled(n, space int) {
	r.w += n
	if n == space && len(r.buf) < readBufferMax {
		r.grow(2 * len(r.buf)) // more comes than fits: fewer reads
	}
}

// keep copies b into memory that lives as long as any of its neighbours does.
func (r *reader) keep(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	if len(b) > slabBytes/4 {
		return append([]byte(nil), b...)
	}
	if len(b) > cap(r.slab)-len(r.slab) {
		// As much as is waiting to be handled, so that a slow client's
		// messages do not each hold a slab.
		r.slab = make([]byte, 0, min(slabBytes, len(b)+r.w-r.r))
	}
	n := len(r.slab)
	r.slab = append(r.slab, b...)
	return r.slab[n:len(r.slab):len(r.slab)]
}

// topic interns a valid topic name.
func (r *reader) topic(b []byte) (string, *wireError) {
	if s, ok := r.topics[string(b)]; ok {
		return s, nil
	}
	if err := checkTopic(b); err != nil {
		return "", err
	}
	s := string(b)
	if len(s) > 512 {
		return s, nil
	}
	if r.topics == nil || len(r.topics) >= maxTopics || r.topicBytes+len(s) > maxTopicBytes {
		r.topics, r.topicBytes = make(map[string]string), 0
	}
	if !r.charge(len(s)) {
		r.crowded = true
		return s, nil
	}
	r.topics[s] = s
	r.topicBytes += len(s)
	return s, nil
}

// resolve gives the topic of a PUBLISH whose properties may hold an alias.
func (r *reader) resolve(topic []byte, p *publishProps) (string, *wireError) {
	if !p.hasAlias {
		if len(topic) == 0 {
			return "", &wireError{ProtocolError, "topic", "PUBLISH without topic"}
		}
		return r.topic(topic)
	}
	if p.alias == 0 || p.alias > maxAliases {
		return "", &wireError{TopicAliasInvalid, "alias", fmt.Sprintf("topic alias %d is not in 1 to %d", p.alias, maxAliases)} // [MQTT-3.3.2-8,9]
	}
	if len(topic) == 0 {
		if s, ok := r.aliases[p.alias]; ok {
			return s, nil
		}
		return "", &wireError{ProtocolError, "alias", "topic alias is not known"}
	}
	s, err := r.topic(topic)
	if err == nil {
		if r.aliases == nil {
			r.aliases = make(map[uint16]string)
		}
		more := len(s) - len(r.aliases[p.alias])
		if r.aliasBytes+more > maxTopicBytes {
			return "", &wireError{QuotaExceeded, "alias", fmt.Sprintf("topics behind aliases have more than %d bytes", maxTopicBytes)}
		}
		if !r.charge(more) {
			r.crowded = true
			r.topics, r.topicBytes = nil, 0 // aliases have the room first
		}
		if r.crowded && !r.charge(more) {
			return "", &wireError{QuotaExceeded, "alias", "topics behind aliases take too much memory"}
		}
		r.aliasBytes += more
		r.aliases[p.alias] = s
	}
	return s, err
}

// handlePackets handles every whole packet in the buffer.
func (c *conn) handlePackets() *wireError {
	messages, bytes := int64(0), int64(0)
	defer func() {
		if messages > 0 {
			c.f.n.messagesIn.Add(messages)
			c.f.n.bytesIn.Add(bytes)
		}
	}()
	for !c.ending.Load() {
		first, body, err := c.nextPacket()
		if err != nil || body == nil {
			return err
		}
		if first>>4 != typePublish {
			if err := c.control(first, body); err != nil {
				return err
			}
			continue
		}
		total := 1 + varintSize(len(body)) + len(body)
		if err := c.publish(first, body, total); err != nil {
			return err
		}
		messages, bytes = messages+1, bytes+int64(total)
	}
	return nil
}

// nextPacket takes the next packet out of the buffer; a nil body: it has not
// come whole. body is valid until the next read.
func (c *conn) nextPacket() (first byte, body []byte, err *wireError) {
	r := &c.reader
	first, n, remaining, err := header(r.buf[r.r:r.w])
	if err != nil || n == 0 {
		return 0, nil, err
	}
	total := n + remaining
	if err := c.checkSize(first>>4, total); err != nil {
		return 0, nil, err
	}
	if r.w-r.r < total {
		return 0, nil, nil
	}
	body = r.buf[r.r+n : r.r+total : r.r+total]
	r.r += total
	r.since = time.Time{}
	if r.accounted > readBufferMax && c.open.Load() {
		c.f.partials.progress(c)
	}
	return first, body, nil
}

// checkSize refuses a packet by its header alone.
func (c *conn) checkSize(kind byte, total int) *wireError {
	most, what := maxControl, limitControlSize
	switch {
	case !c.open.Load() && kind != typeConnect:
		return &wireError{ProtocolError, "no_connect", "first packet is not CONNECT"} // [MQTT-3.1.0-1]
	case !c.open.Load():
		most, what = maxConnect, limitConnectSize
	case kind == typePublish:
		most, what = int(c.f.o.MaxPacketSize), limitPacketSize
	}
	if total > most {
		c.f.n.limit(what)
		return &wireError{PacketTooLarge, "packet_too_large", fmt.Sprintf("packet of %d bytes, at most %d", total, most)} // [MQTT-3.2.2-15]
	}
	return nil
}

// control handles a packet that is not PUBLISH.
func (c *conn) control(first byte, body []byte) *wireError {
	kind := first >> 4
	switch controlFlags[kind] {
	case notForClients:
		return &wireError{ProtocolError, "protocol", fmt.Sprintf("packet of type %d from a client", kind)}
	case first & 15:
	default:
		return malformed("fixed header has wrong flags") // [MQTT-2.1.3-1]
	}
	switch kind {
	case typeConnect:
		return &wireError{ProtocolError, "protocol", "second CONNECT"} // [MQTT-3.1.0-2]
	case typePuback, typePubrec, typePubcomp:
		return c.acknowledged(kind, body)
	case typePubrel:
		return c.pubrel(body)
	case typeSubscribe:
		return c.handleSubscribe(first, body)
	case typeUnsubscribe:
		return c.handleUnsubscribe(first, body)
	case typePingreq:
		if len(body) > 0 {
			return malformed("PINGREQ with a body")
		}
		c.send(pingresp)
		return nil
	case typeDisconnect:
		return c.disconnect(body)
	}
	return &wireError{ProtocolError, "auth", "enhanced authentication is not supported"} // [MQTT-4.12.0-7]
}

var pingresp = []byte{typePingresp << 4, 0}

// controlFlags are the flags that a client's packets must have.
const notForClients = 0xFF

var controlFlags = [16]byte{
	0: notForClients, typeConnack: notForClients, typePublish: notForClients, typePubrel: 2, typeSubscribe: 2, typeSuback: notForClients,
	typeUnsubscribe: 2, typeUnsuback: notForClients, typePingresp: notForClients,
}

// acknowledged takes the client's answer to a message that it was sent.
func (c *conn) acknowledged(kind byte, body []byte) *wireError {
	id, code, err := decodeAck(body, c.version)
	if err != nil {
		return err
	}
	c.s.mu.Lock()
	reply, err := c.s.out.acked(kind, id, code)
	c.s.mu.Unlock()
	if err != nil {
		return err
	}
	if len(reply) > 0 {
		c.send(reply)
	} else {
		c.kick() // the window may have room now
	}
	return nil
}

// disconnect ends a connection as its client asks.
func (c *conn) disconnect(body []byte) *wireError {
	d, err := decodeDisconnect(body, c.version)
	if err != nil {
		return err
	}
	if d.hasExpiry {
		if c.askedExpiry == 0 && d.expiry != 0 {
			return &wireError{ProtocolError, "protocol", "DISCONNECT gives a session that was to end an expiry interval"} // [MQTT-3.14.2-2]
		}
		c.setExpiry(d.expiry)
	}
	c.clean = d.code == Success // 0x04 and errors want the will. [MQTT-3.1.2-8]
	c.endQuietly(errClientLeft)
	return nil
}

// publish takes one PUBLISH of total bytes.
func (c *conn) publish(first byte, body []byte, total int) *wireError {
	raw, err := decodePublish(first, body, c.version)
	if err != nil {
		return err
	}
	if raw.qos > c.f.o.MaxQoS {
		return &wireError{QoSNotSupported, "qos2", "QoS 2 is not spoken here, use QoS 1"} // [MQTT-3.2.2-11]
	}
	if raw.retain && c.f.fan == nil && c.version >= 5 {
		return &wireError{RetainNotSupported, "retain", "retained messages are not kept here"} // [MQTT-3.2.2-14]
	}
	var props publishProps
	size := total + entryCost
	if len(raw.props) > 0 {
		if props, err = decodeProps(raw.props); err != nil {
			return err
		}
		if props.keep != nil {
			size += userCost * len(props.keep.User)
		}
	}
	topic, err := c.topicOf(&raw, &props)
	if err != nil {
		return err
	}
	reserved := reservedTopic(topic)
	if err := c.admitPublish(raw.qos, size); err != nil {
		return err
	}
	e := c.acks.slot(c)
	p := &e.pub // field by field: the entry is new
	p.Topic, p.Payload, p.Properties = topic, c.reader.keep(raw.payload), props.keep
	p.QoS, p.Retain, p.Dup, p.Expiry = raw.qos, raw.retain, raw.dup, props.expiry
	e.packetID, e.size, e.message = raw.packetID, size, true
	e.kind, e.counted = raw.qos, raw.qos > 0 && c.version >= 5 // the kinds are numbered like that
	switch {
	case reserved:
		c.refuseReserved(e)
	case raw.qos == 2:
		c.publishOnce(e)
	default:
		c.acks.push(e)
		c.give(e, e.settle)
	}
	return nil
}

// refuseReserved answers for a message that is not taken because of its topic. A
// connection never ends for that: MQTT 5 clients are told, older ones are not.
// [MQTT-3.3.5-2]
func (c *conn) refuseReserved(e *entry) {
	c.f.n.protocol("reserved_topic")
	c.acks.push(e)
	code := TopicNameInvalid
	if c.version < 5 {
		c.f.noteRefused(c, e)
		code = Success
	}
	e.settle(Result{Code: code, NoFanOut: true})
}

// reservedTopic reports whether a topic is the server's own.
func reservedTopic(topic string) bool {
	if topic[0] != '$' {
		return false
	}
	first, _, _ := strings.Cut(topic, "/")
	return first == "$SYS" || first == "$share"
}

// give hands a message to the Session.
func (c *conn) give(e *entry, settle Settle) {
	p := &e.pub
	retains := p.Retain && c.f.fan != nil && e.kind != answerPubrec // those are when they are released
	if retains {
		e.retains = true
		p.Save = append(p.Save, c.f.local.retainChange(c.id, p)...)
	}
	topic := p.Topic // p may be settled and forgotten when Publish returns
	c.calling = true
	c.session.Publish(p, settle)
	c.calling = false
	if retains {
		c.f.local.retainHanded(topic)
	}
}

// topicOf gives the topic of a PUBLISH, and counts the limits that it breaks.
func (c *conn) topicOf(raw *rawPublish, props *publishProps) (string, *wireError) {
	topic, err := c.reader.resolve(raw.topic, props)
	switch {
	case c.reader.crowded:
		c.reader.crowded = false
		c.f.n.limit(limitTopicMemory)
	case err == nil || err.kind != "alias":
	case err.code == TopicAliasInvalid:
		c.f.n.limit(limitAlias)
	case err.code == QuotaExceeded:
		c.f.n.limit(limitAliasBytes)
	}
	return topic, err
}

// protocolError ends the connection as the client's version allows.
func (c *conn) protocolError(err *wireError) error {
	if c.ending.Load() {
		return errEnded
	}
	c.f.n.protocol(err.kind)
	c.f.note(c, err.kind, "client broke the protocol", "error", err.text)
	c.end(err, err.code, err.text)
	return errEnded
}
