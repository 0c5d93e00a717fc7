package mqttfront

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

const (
	maxConnect = 128 << 10 // bytes of a CONNECT
	maxForeign = 64 << 10  // bytes of any other packet that is mochi's
	maxTopics  = 1024      // topics a connection remembers
	maxAliases = 64        // announced to MQTT 5 clients
	// maxTopicBytes bounds the topics that a connection remembers, and, apart
	// from them, those behind its aliases.
	maxTopicBytes = 64 << 10
	slabBytes     = 8 << 10
	// entryCost is what an entry costs beside topic and payload, roughly.
	entryCost = 256
	userCost  = 40 // and each user property
)

// reader is the read side of a connection: a buffer of bytes, and what PUBLISH
// needs to remember.
type reader struct {
	buf          []byte
	r, w         int // unread are buf[r:w]
	passing      int // of them mochi's
	deadlineFrom time.Time
	topics       map[string]string
	topicBytes   int // of topics
	aliases      map[uint16]string
	aliasBytes   int // of aliases
	slab         []byte
}

// pass copies to p what is mochi's.
func (r *reader) pass(p []byte) int {
	n := copy(p, r.buf[r.r:r.r+r.passing])
	r.r += n
	r.passing -= n
	return n
}

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
		r.slab = make([]byte, 0, min(slabBytes, max(len(b), r.w-r.r)))
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
		r.aliasBytes += len(s) - len(r.aliases[p.alias])
		r.aliases[p.alias] = s
		if r.aliasBytes > maxTopicBytes {
			return "", &wireError{QuotaExceeded, "alias", fmt.Sprintf("topics behind aliases have more than %d bytes", maxTopicBytes)}
		}
	}
	return s, err
}

// handlePackets handles every whole packet in the buffer up to the first that
// is mochi's.
func (c *conn) handlePackets() *wireError {
	r := &c.reader
	messages, bytes := int64(0), int64(0)
	defer func() {
		if messages > 0 {
			c.f.n.messagesIn.Add(messages)
			c.f.n.bytesIn.Add(bytes)
		}
	}()
	for r.passing == 0 && !c.ending.Load() {
		first, n, remaining, err := header(r.buf[r.r:r.w])
		if err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		total := n + remaining
		if err := c.checkSize(first>>4, total); err != nil {
			return err
		}
		if r.w-r.r < total {
			return nil
		}
		body := r.buf[r.r+n : r.r+total]
		if first>>4 != typePublish || !c.open.Load() {
			if err := c.foreign(first, body); err != nil {
				return err
			}
			r.passing = total
			return nil
		}
		if err := c.publish(first, body, total); err != nil {
			return err
		}
		r.r += total
		messages, bytes = messages+1, bytes+int64(total)
	}
	return nil
}

// checkSize refuses a packet by its header alone.
func (c *conn) checkSize(kind byte, total int) *wireError {
	limit := maxForeign
	switch {
	case !c.open.Load() && kind != typeConnect:
		return &wireError{ProtocolError, "no_connect", "first packet is not CONNECT"} // [MQTT-3.1.0-1]
	case !c.open.Load():
		limit = maxConnect
	case kind == typePublish:
		limit = int(c.f.o.MaxPacketSize)
	}
	if total > limit {
		return &wireError{PacketTooLarge, "packet_too_large", fmt.Sprintf("packet of %d bytes, at most %d", total, limit)} // [MQTT-3.2.2-15]
	}
	return nil
}

// foreign looks at a packet that mochi will handle.
func (c *conn) foreign(first byte, body []byte) *wireError {
	switch first >> 4 {
	case typeDisconnect:
		// 0x04 asks for the will to be published. [MQTT-3.1.2-8]
		c.clean.Store(len(body) == 0 || body[0] == 0)
	case typeSubscribe:
		return checkFilters(body, c.version, 1)
	case typeUnsubscribe:
		return checkFilters(body, c.version, 0)
	case typeAuth:
		return &wireError{ProtocolError, "auth", "enhanced authentication is not supported"} // [MQTT-4.12.0-7]
	}
	return nil
}

// publish takes one PUBLISH of total bytes.
func (c *conn) publish(first byte, body []byte, total int) *wireError {
	raw, err := decodePublish(first, body, c.version)
	if err != nil {
		return err
	}
	if raw.qos == 2 {
		return &wireError{QoSNotSupported, "qos2", "QoS 2 is not supported yet, use QoS 1"} // [MQTT-3.2.2-11]
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
	topic, err := c.reader.resolve(raw.topic, &props)
	if err != nil {
		return err
	}
	reserved := topic[0] == '$'
	if reserved && (raw.qos == 0 || c.version < 5) {
		return &wireError{TopicNameInvalid, "topic", "topics that begin with $ are not for clients"}
	}
	if err := c.admitPublish(raw.qos, size); err != nil {
		return err
	}
	e := c.acks.slot(c)
	e.pub = Publish{Topic: topic, Payload: c.reader.keep(raw.payload), QoS: raw.qos, Retain: raw.retain, Dup: raw.dup, Properties: props.keep}
	e.packetID, e.expiry, e.size = raw.packetID, props.expiry, size
	c.acks.push(e)
	if reserved {
		c.f.n.protocol("topic")
		e.settle(Result{Code: TopicNameInvalid})
		return nil
	}
	c.calling = true
	c.session.Publish(&e.pub, e.settle)
	c.calling = false
	return nil
}

// admitPublish counts a message in, after waiting for room if need be.
func (c *conn) admitPublish(qos byte, size int) *wireError {
	if qos > 0 && c.version >= 5 && c.messages.Load() >= int64(c.receiveMaximum) {
		return &wireError{ReceiveMaximumExceeded, "receive_maximum", fmt.Sprintf("more than %d messages in flight", c.receiveMaximum)} // [MQTT-3.3.4-9]
	}
	if c.full(qos, size) {
		if err := c.stall(qos, size); err != nil {
			return err
		}
	}
	if qos > 0 {
		c.messages.Add(1)
	}
	c.bytes.Add(int64(size))
	c.f.bytes.Add(int64(size))
	return nil
}

// protocolError ends the connection as the client's version allows.
func (c *conn) protocolError(err *wireError) error {
	if c.ending.Load() {
		return errEnded
	}
	c.f.n.protocol(err.kind)
	level := slog.LevelWarn
	if !c.open.Load() {
		level = slog.LevelDebug // anybody may knock, at any rate; it is counted
	}
	c.f.log.Log(context.Background(), level, "client broke the protocol", "client", c.id, "remote", c.RemoteAddr().String(), "version", c.version, "kind", err.kind, "error", err.text)
	c.end(err, err.code, err.text)
	return errEnded
}
