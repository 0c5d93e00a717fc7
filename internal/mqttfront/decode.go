package mqttfront

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/packetboat/packetboat/pkg/stream"
)

// Packet types (MQTT 5, 2.1.2), and the flags of PUBLISH.
const (
	typeConnect     = 1
	typeConnack     = 2
	typePublish     = 3
	typePuback      = 4
	typePubrec      = 5
	typePubrel      = 6
	typePubcomp     = 7
	typeSubscribe   = 8
	typeSuback      = 9
	typeUnsubscribe = 10
	typeUnsuback    = 11
	typePingreq     = 12
	typePingresp    = 13
	typeDisconnect  = 14
	typeAuth        = 15

	flagRetain = 1 << 0
	flagDup    = 1 << 3
)

// wireError is a violation of the protocol: the code that an MQTT 5 client is
// told, and the kind under which it is counted.
type wireError struct {
	code byte
	kind string
	text string
}

func (e *wireError) Error() string {
	return fmt.Sprintf("protocol error 0x%02x (%s): %s", e.code, e.kind, e.text)
}

func malformed(text string) *wireError {
	return &wireError{MalformedPacket, "malformed", text}
}

// header reads a fixed header. n is its length, 0 while bytes are missing.
func header(b []byte) (first byte, n, remaining int, err *wireError) {
	if len(b) < 2 {
		return 0, 0, 0, nil
	}
	if b[1] < 0x80 { // the usual case
		return b[0], 2, int(b[1]), nil
	}
	remaining, n, ok := varint(b[1:])
	switch {
	case !ok && len(b) >= 5:
		return 0, 0, 0, malformed("remaining length has more than four bytes")
	case !ok:
		return 0, 0, 0, nil
	}
	return b[0], 1 + n, remaining, nil
}

// varint reads a variable byte integer of at most four bytes; not ok: more
// bytes are missing, or there are too many.
func varint(b []byte) (v, n int, ok bool) {
	for i := 0; i < 4 && i < len(b); i++ {
		v |= int(b[i]&0x7f) << (7 * i)
		if b[i] < 0x80 {
			return v, i + 1, true
		}
	}
	return 0, 0, false
}

// rawPublish is a decoded PUBLISH whose slices lie in the packet.
type rawPublish struct {
	topic    []byte
	payload  []byte
	props    []byte
	packetID uint16
	qos      byte
	retain   bool
	dup      bool
}

// decodePublish splits the variable header and payload of a PUBLISH. It checks
// framing and flags; topic and properties are checked by who uses them.
func decodePublish(first byte, b []byte, version byte) (p rawPublish, err *wireError) {
	p.qos, p.retain, p.dup = first>>1&3, first&flagRetain != 0, first&flagDup != 0
	switch {
	case p.qos == 3:
		return p, malformed("PUBLISH with QoS 3") // [MQTT-3.3.1-4]
	case p.qos == 0 && p.dup:
		return p, malformed("QoS 0 PUBLISH with DUP set") // [MQTT-3.3.1-2]
	case len(b) < 2:
		return p, malformed("PUBLISH ends in its topic")
	}
	n := int(binary.BigEndian.Uint16(b))
	if b = b[2:]; len(b) < n {
		return p, malformed("PUBLISH ends in its topic")
	}
	p.topic, b = b[:n], b[n:]
	if p.qos > 0 {
		if len(b) < 2 {
			return p, malformed("PUBLISH ends in its packet identifier")
		}
		p.packetID, b = binary.BigEndian.Uint16(b), b[2:]
		if p.packetID == 0 {
			return p, &wireError{ProtocolError, "protocol", "PUBLISH with packet identifier 0"} // [MQTT-2.2.1-3]
		}
	}
	if version >= 5 {
		n, size, ok := varint(b)
		if !ok || len(b)-size < n {
			return p, malformed("PUBLISH ends in its properties")
		}
		p.props, b = b[size:size+n], b[size+n:]
	}
	p.payload = b
	return p, nil
}

// checkTopic says what is wrong with a topic name of a client, nil if nothing.
func checkTopic(topic []byte) *wireError {
	switch {
	case !validString(topic):
		return malformed("topic is not UTF-8 or holds U+0000") // [MQTT-1.5.4-1,2]
	case bytes.ContainsAny(topic, "+#"):
		return &wireError{TopicNameInvalid, "topic", "topic holds a wildcard"} // [MQTT-3.3.2-2]
	}
	return nil
}

func validString(b []byte) bool {
	return utf8.Valid(b) && bytes.IndexByte(b, 0) < 0
}

// publishProps are the properties of a PUBLISH.
type publishProps struct {
	keep     *stream.Properties // nil when none of them is worth keeping
	alias    uint16
	hasAlias bool
	expiry   uint32 // seconds, 0: none
}

// Property identifiers that a client may use in PUBLISH (2.2.2.2).
const (
	propPayloadFormat   = packets.PropPayloadFormat
	propMessageExpiry   = packets.PropMessageExpiryInterval
	propContentType     = packets.PropContentType
	propResponseTopic   = packets.PropResponseTopic
	propCorrelationData = packets.PropCorrelationData
	propTopicAlias      = packets.PropTopicAlias
	propUser            = packets.PropUser
)

// propReader walks over properties; bad is set at the first that is cut short.
type propReader struct {
	b   []byte
	bad bool
}

func (r *propReader) take(n int) []byte {
	if r.bad || len(r.b) < n {
		r.bad = true
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *propReader) bytes() []byte {
	n := r.take(2)
	if r.bad {
		return nil
	}
	return r.take(int(binary.BigEndian.Uint16(n)))
}

func (r *propReader) text() string {
	v := r.bytes()
	if !validString(v) {
		r.bad = true
	}
	return string(v)
}

// decodeProps reads the properties of a PUBLISH into memory of its own.
func decodeProps(b []byte) (p publishProps, err *wireError) {
	r := propReader{b: b}
	var seen [64]bool
	keep := func() *stream.Properties {
		if p.keep == nil {
			p.keep = new(stream.Properties)
		}
		return p.keep
	}
	for len(r.b) > 0 && !r.bad {
		id := r.b[0]
		r.b = r.b[1:]
		if id < byte(len(seen)) && id != propUser {
			if seen[id] {
				return p, &wireError{ProtocolError, "protocol", "property stands twice in PUBLISH"}
			}
			seen[id] = true
		}
		switch id {
		case propPayloadFormat:
			v := r.take(1)
			if !r.bad && v[0] > 1 {
				return p, &wireError{ProtocolError, "protocol", "payload format indicator is neither 0 nor 1"}
			}
			if !r.bad && v[0] == 1 {
				keep().PayloadUTF8 = true
			}
		case propMessageExpiry:
			if v := r.take(4); !r.bad {
				p.expiry = binary.BigEndian.Uint32(v)
			}
		case propContentType:
			keep().ContentType = r.text()
		case propResponseTopic:
			topic := r.text()
			if strings.ContainsAny(topic, "+#") {
				return p, &wireError{ProtocolError, "protocol", "response topic holds a wildcard"} // [MQTT-3.3.2-14]
			}
			keep().ResponseTopic = topic
		case propCorrelationData:
			keep().CorrelationData = bytes.Clone(r.bytes())
		case propTopicAlias:
			if v := r.take(2); !r.bad {
				p.alias, p.hasAlias = binary.BigEndian.Uint16(v), true
			}
		case propUser:
			k := r.text()
			keep().User = append(keep().User, stream.Property{Key: k, Value: r.text()})
		default:
			return p, &wireError{ProtocolError, "protocol", "property does not belong in PUBLISH"}
		}
	}
	if r.bad {
		return p, malformed("a property of PUBLISH is cut short or not UTF-8")
	}
	if p.keep.IsZero() {
		p.keep = nil
	}
	return p, nil
}

// decodeAck reads a PUBACK, PUBREC, PUBREL or PUBCOMP.
func decodeAck(b []byte, version byte) (id uint16, code byte, err *wireError) {
	if len(b) < 2 || len(b) > 2 && version < 5 {
		return 0, 0, malformed("acknowledgement has a wrong length")
	}
	id = binary.BigEndian.Uint16(b)
	if id == 0 {
		return 0, 0, &wireError{ProtocolError, "protocol", "acknowledgement of packet identifier 0"} // [MQTT-2.2.1-3]
	}
	if len(b) > 2 {
		code = b[2]
	}
	if len(b) > 3 {
		err = checkAll(b[3:], inAck)
	}
	return id, code, err
}

// disconnectPacket is a DISCONNECT of a client.
type disconnectPacket struct {
	code      byte
	hasExpiry bool
	expiry    uint32
}

func decodeDisconnect(b []byte, version byte) (d disconnectPacket, err *wireError) {
	if len(b) > 0 && version < 5 {
		return d, malformed("DISCONNECT with a body")
	}
	if len(b) > 0 {
		d.code = b[0]
	}
	if len(b) > 1 {
		if err := checkAll(b[1:], inDisconnect); err != nil {
			return d, err
		}
		// Not DisconnectDecode, to which a packet of a code alone means success.
		var p packets.Properties
		if _, err := p.Decode(packets.Disconnect, bytes.NewBuffer(b[1:])); err != nil {
			return d, malformed(err.Error())
		}
		d.hasExpiry, d.expiry = p.SessionExpiryIntervalFlag, p.SessionExpiryInterval
	}
	return d, nil
}

// checkAll checks properties that must be all of b.
func checkAll(b []byte, in uint16) *wireError {
	r := propReader{b: b}
	_, err := r.checkProps(in)
	if err == nil && len(r.b) > 0 {
		return malformed("properties are followed by something")
	}
	return err
}
