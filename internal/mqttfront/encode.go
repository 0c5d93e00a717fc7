package mqttfront

import (
	"bytes"
	"encoding/binary"
	"math"
	"strings"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/packetboat/packetboat/pkg/stream"
)

// appendAck appends a PUBACK, PUBREC or PUBCOMP, as its first byte says. User
// properties go with it to MQTT 5 clients, all or none of them, if the packet
// then has at most limit bytes (0: any).
func appendAck(dst []byte, first, version byte, id uint16, code byte, user []stream.Property, limit uint32) []byte {
	if version < 5 || code == Success && len(user) == 0 {
		return append(dst, first, 2, byte(id>>8), byte(id))
	}
	props := userSize(user)
	if props > 0 && props <= math.MaxUint16*8 { // never beyond four length bytes
		remaining := 3 + varintSize(props) + props
		if total := 1 + varintSize(remaining) + remaining; limit == 0 || uint32(total) <= limit {
			dst = appendVarint(append(dst, first), remaining)
			dst = append(dst, byte(id>>8), byte(id), code)
			return appendUser(appendVarint(dst, props), user)
		}
	}
	return append(dst, first, 3, byte(id>>8), byte(id), code) // [MQTT-3.4.2-3]
}

// appendDisconnect appends an MQTT 5 DISCONNECT; reason is left out if it does
// not fit into limit bytes (0: any).
func appendDisconnect(dst []byte, code byte, reason string, limit uint32) []byte {
	p := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Disconnect}, ProtocolVersion: 5, ReasonCode: code,
		Properties: packets.Properties{ReasonString: cut(reason, maxReason)},
	}
	return appendEncoded(dst, &p, p.DisconnectEncode, limit)
}

// appendEncoded appends what encode makes of p. If that has more than limit bytes
// (0: any), reason and user properties are left out; if it still has, nothing is
// appended [MQTT-3.1.2-24]. The bound is not left to mochi (Mods.MaxSize), which
// forgets the header and all other properties in its sum.
func appendEncoded(dst []byte, p *packets.Packet, encode func(*bytes.Buffer) error, limit uint32) []byte {
	var b bytes.Buffer
	for range 2 {
		b.Reset()
		if encode(&b) == nil && (limit == 0 || uint32(b.Len()) <= limit) {
			return append(dst, b.Bytes()...)
		}
		p.Properties.ReasonString, p.Properties.User = "", nil // [MQTT-3.2.2-19,20] [MQTT-3.14.2-3,4]
	}
	return dst
}

const (
	maxReason = 1024 // bytes of a reason string
	maxString = math.MaxUint16
)

// cut returns at most n bytes of s, which never end within a character. mochi
// would write a longer string whole after a length that is too small.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

// userOf gives user properties to mochi.
func userOf(user []stream.Property) []packets.UserProperty {
	out := make([]packets.UserProperty, len(user))
	for i, u := range user {
		out[i] = packets.UserProperty{Key: cut(u.Key, maxString), Val: cut(u.Value, maxString)}
	}
	return out
}

func userSize(user []stream.Property) (n int) {
	for _, u := range user {
		n += 5 + len(u.Key) + len(u.Value)
	}
	return n
}

func appendUser(dst []byte, user []stream.Property) []byte {
	for _, u := range user {
		dst = appendString(append(dst, propUser), u.Key)
		dst = appendString(dst, u.Value)
	}
	return dst
}

// appendString appends at most 65,535 bytes of s with their length.
func appendString(dst []byte, s string) []byte {
	s = s[:min(len(s), math.MaxUint16)]
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(s))), s...)
}

func varintSize(n int) int {
	size := 1
	for ; n >= 128; n >>= 7 {
		size++
	}
	return size
}

func appendVarint(dst []byte, n int) []byte {
	for ; n >= 128; n >>= 7 {
		dst = append(dst, byte(n)|0x80)
	}
	return append(dst, byte(n))
}

// appendStored appends p as the Store keeps it: an MQTT 5 PUBLISH without packet
// identifier.
func appendStored(dst []byte, p *Publish) []byte {
	props := make([]byte, 0, 64)
	if p.Expiry > 0 {
		props = binary.BigEndian.AppendUint32(append(props, propMessageExpiry), p.Expiry)
	}
	if k := p.Properties; k != nil {
		if k.PayloadUTF8 {
			props = append(props, propPayloadFormat, 1)
		}
		if k.ContentType != "" {
			props = appendString(append(props, propContentType), k.ContentType)
		}
		if k.ResponseTopic != "" {
			props = appendString(append(props, propResponseTopic), k.ResponseTopic)
		}
		if len(k.CorrelationData) > 0 {
			props = appendString(append(props, propCorrelationData), string(k.CorrelationData))
		}
		props = appendUser(props, k.User)
	}
	first := byte(typePublish<<4) | p.QoS<<1
	if p.Retain {
		first |= flagRetain
	}
	id := 0
	if p.QoS > 0 {
		id = 2
	}
	dst = appendVarint(append(dst, first), 2+len(p.Topic)+id+varintSize(len(props))+len(props)+len(p.Payload))
	dst = appendString(dst, p.Topic)
	if id > 0 {
		dst = append(dst, 0, 1) // one is wanted there
	}
	dst = appendVarint(dst, len(props))
	return append(append(dst, props...), p.Payload...)
}

// decodeStored reads what appendStored wrote, into memory of its own; false:
// it is something else.
func decodeStored(b []byte) (p Publish, ok bool) {
	first, n, remaining, err := header(b)
	if err != nil || n == 0 || len(b) != n+remaining || first>>4 != typePublish {
		return p, false
	}
	raw, err := decodePublish(first, b[n:], 5)
	if err != nil || checkTopic(raw.topic) != nil || len(raw.topic) == 0 {
		return p, false
	}
	props, err := decodeProps(raw.props)
	if err != nil || props.hasAlias {
		return p, false
	}
	return Publish{
		Topic: string(raw.topic), Payload: append([]byte(nil), raw.payload...), QoS: raw.qos, Retain: raw.retain,
		Expiry: props.expiry, Properties: props.keep,
	}, true
}
