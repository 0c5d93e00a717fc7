package hostile

import (
	"encoding/binary"
	"slices"
)

// First bytes of packets, flags included where MQTT fixes them.
const (
	connect     = 0x10
	connack     = 0x20
	publish     = 0x30
	puback      = 0x40
	pubrec      = 0x50
	pubrel      = 0x62
	pubcomp     = 0x70
	subscribe   = 0x82
	suback      = 0x90
	unsubscribe = 0xA2
	unsuback    = 0xB0
	pingreq     = 0xC0
	pingresp    = 0xD0
	disconnect  = 0xE0
	auth        = 0xF0
)

var names = map[byte]string{
	connect: "CONNECT", connack: "CONNACK", publish: "PUBLISH", puback: "PUBACK", pubrec: "PUBREC", pubrel & 0xF0: "PUBREL",
	pubcomp: "PUBCOMP", subscribe & 0xF0: "SUBSCRIBE", suback: "SUBACK", unsubscribe & 0xF0: "UNSUBSCRIBE", unsuback: "UNSUBACK",
	pingreq: "PINGREQ", pingresp: "PINGRESP", disconnect: "DISCONNECT", auth: "AUTH",
}

// packet puts a fixed header before the parts. It checks nothing.
func packet(first byte, parts ...[]byte) []byte {
	body := slices.Concat(parts...)
	return append(appendLength([]byte{first}, len(body)), body...)
}

func appendLength(dst []byte, n int) []byte {
	for n > 127 {
		dst = append(dst, byte(n)|128)
		n >>= 7
	}
	return append(dst, byte(n))
}

func u16(n int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(n)) }

// str is a length and so many bytes, which need not be UTF-8.
func str(s string) []byte { return append(u16(len(s)), s...) }

// props is a property length and the properties.
func props(p ...[]byte) []byte {
	body := slices.Concat(p...)
	return append(appendLength(nil, len(body)), body...)
}

func userProperty(key, value string) []byte { return slices.Concat([]byte{0x26}, str(key), str(value)) }

// hello is what a CONNECT says.
type hello struct {
	id         string
	version    byte
	keepAlive  int
	persistent bool   // no clean start, and a session that outlives the connection
	user, pass string // nothing is sent while user is empty
	willTopic  string
	will       []byte // with a will when willTopic is set
	willFlags  byte   // QoS and retain, in their place
	willProps  []byte // properties of the will (MQTT 5)
	extra      []byte // more properties (MQTT 5)
}

func (h *hello) packet() []byte {
	flags := byte(0x02)
	if h.persistent {
		flags = 0
	}
	body := slices.Concat(str("MQTT"), []byte{h.version, 0}, u16(h.keepAlive))
	at := len(str("MQTT")) + 1
	if h.version == 5 {
		p := h.extra
		if h.persistent {
			p = append([]byte{0x11, 0xFF, 0xFF, 0xFF, 0xFE}, p...) // session expiry: as long as it goes
		}
		body = append(body, props(p)...)
	}
	body = append(body, str(h.id)...)
	if h.willTopic != "" {
		flags |= 0x04 | h.willFlags
		if h.version == 5 {
			body = append(body, props(h.willProps)...)
		}
		body = append(append(body, str(h.willTopic)...), str(string(h.will))...)
	}
	if h.user != "" {
		flags |= 0xC0
		body = append(append(body, str(h.user)...), str(h.pass)...)
	}
	body[at] = flags
	return packet(connect, body)
}

// message is a PUBLISH; with QoS 0 the id is left out.
func message(version byte, flags byte, topic string, id int, properties, payload []byte) []byte {
	body := str(topic)
	if flags&0x06 != 0 {
		body = append(body, u16(id)...)
	}
	if version == 5 {
		body = append(body, props(properties)...)
	}
	return packet(publish|flags, body, payload)
}

// ask is a SUBSCRIBE with one options byte for all filters.
func ask(version byte, id int, options byte, filters ...string) []byte {
	body := u16(id)
	if version == 5 {
		body = append(body, 0)
	}
	for _, f := range filters {
		body = append(append(body, str(f)...), options)
	}
	return packet(subscribe, body)
}
