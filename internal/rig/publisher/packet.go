package publisher

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The packet types that a publisher meets, shifted to their place.
const (
	connect    = 0x10
	connack    = 0x20
	publish    = 0x30
	puback     = 0x40
	pubrec     = 0x50
	pubrel     = 0x60
	pubcomp    = 0x70
	pingreq    = 0xC0
	disconnect = 0xE0
)

// maxIncoming bounds what is read at once: a publisher subscribes to nothing.
const maxIncoming = 1 << 20

// AppendPublish encodes a PUBLISH and says where, from the start of dst, its
// packet id stands (0 with QoS 0). The caller keeps to MQTT's limits.
func AppendPublish(dst []byte, version byte, topic string, payload []byte, qos byte, retain bool, id uint16) (_ []byte, idAt int) {
	size := 2 + len(topic) + len(payload)
	if qos > 0 {
		size += 2
	}
	if version == 5 {
		size++
	}
	first := byte(publish) | qos<<1
	if retain {
		first |= 1
	}
	dst = appendLength(append(dst, first), size)
	dst = appendString(dst, topic)
	if qos > 0 {
		idAt = len(dst)
		dst = binary.BigEndian.AppendUint16(dst, id)
	}
	if version == 5 {
		dst = append(dst, 0) // no properties
	}
	return append(dst, payload...), idAt
}

// connectPacket is what a CONNECT says.
type connectPacket struct {
	version                      byte
	clean                        bool
	keepAlive                    uint16 // s
	session                      uint32 // s; 0: none
	clientID, username, password string
}

func appendConnect(dst []byte, c connectPacket) []byte {
	const cleanStart, hasPassword, hasUser = 0x02, 0x40, 0x80
	flags := byte(0)
	if c.clean {
		flags |= cleanStart
	}
	size := 10 + 2 + len(c.clientID)
	if c.version == 5 {
		size++
		if c.session > 0 {
			size += 5
		}
	}
	if c.username != "" {
		flags |= hasUser | hasPassword
		size += 4 + len(c.username) + len(c.password)
	}
	dst = appendLength(append(dst, connect), size)
	dst = appendString(dst, "MQTT")
	dst = append(dst, c.version, flags)
	dst = binary.BigEndian.AppendUint16(dst, c.keepAlive)
	switch {
	case c.version == 5 && c.session > 0:
		dst = appendExpiry(dst, c.session)
	case c.version == 5:
		dst = append(dst, 0) // no properties
	}
	dst = appendString(dst, c.clientID)
	if c.username != "" {
		dst = appendString(dst, c.username)
		dst = appendString(dst, c.password)
	}
	return dst
}

// appendExpiry encodes properties that are a session expiry interval, in s.
func appendExpiry(dst []byte, session uint32) []byte {
	return binary.BigEndian.AppendUint32(append(dst, 5, 0x11), session)
}

// appendDisconnect encodes a good-bye; end says that the session ends with it.
func appendDisconnect(dst []byte, version byte, end bool) []byte {
	if version != 5 || !end {
		return append(dst, disconnect, 0)
	}
	return appendExpiry(append(dst, disconnect, 7, 0), 0)
}

// appendRelease encodes a PUBREL; MQTT 3.1.1 has no reason codes.
func appendRelease(dst []byte, version byte, id uint16, code byte) []byte {
	if version != 5 || code == 0 {
		return append(dst, pubrel|2, 2, byte(id>>8), byte(id))
	}
	return append(dst, pubrel|2, 3, byte(id>>8), byte(id), code)
}

func appendString(dst []byte, s string) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(s)))
	return append(dst, s...)
}

func appendLength(dst []byte, n int) []byte {
	for n > 127 {
		dst = append(dst, byte(n)|128)
		n >>= 7
	}
	return append(dst, byte(n))
}

// packet is one packet from the broker.
type packet struct {
	first byte
	body  []byte // valid until the next read
}

func (p packet) kind() byte { return p.first & 0xF0 }

// readPacket reads one packet, using and returning buf.
func readPacket(r *bufio.Reader, buf []byte) (packet, []byte, error) {
	first, err := r.ReadByte()
	if err != nil {
		return packet{}, buf, err
	}
	size := 0
	for shift := 0; ; shift += 7 {
		b, err := r.ReadByte()
		if err != nil {
			return packet{}, buf, err
		}
		size |= int(b&127) << shift
		if b < 128 {
			break
		}
		if shift == 21 {
			return packet{}, buf, errors.New("a packet length of more than four bytes")
		}
	}
	if size > maxIncoming {
		return packet{}, buf, fmt.Errorf("a packet of %d bytes", size)
	}
	if cap(buf) < size {
		buf = make([]byte, size)
	}
	buf = buf[:size]
	_, err = io.ReadFull(r, buf)
	return packet{first, buf}, buf, err
}

// RefusedError says that the broker does not want this client.
type RefusedError struct {
	Version byte
	Code    byte
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("the broker refuses the connection with code %#02x", e.Code)
}

// permanent reports whether trying again cannot help.
func (e *RefusedError) permanent() bool {
	if e.Version == 5 {
		switch e.Code {
		case 0x84, 0x85, 0x86, 0x87, 0x8A, 0x8C: // version, client id, user, not authorised, banned, method
			return true
		}
		return false
	}
	return e.Code == 1 || e.Code == 2 || e.Code == 4 || e.Code == 5 // version, client id, user, not authorised
}

// QoSError says that the broker takes no messages of the QoS that is wanted.
type QoSError struct{ Wanted, Maximum byte }

func (e *QoSError) Error() string {
	return fmt.Sprintf("the broker takes QoS %d at most, and QoS %d is to be published", e.Maximum, e.Wanted)
}

// welcome is what a CONNACK says.
type welcome struct {
	present        bool // the session of the last connection goes on
	receiveMaximum uint16
	maximumQoS     byte
}

// parseConnack reads a CONNACK: a Receive Maximum of 65,535 and QoS 2 where it
// says nothing.
func parseConnack(version byte, p packet) (welcome, error) {
	w := welcome{receiveMaximum: 65535, maximumQoS: 2}
	if p.kind() != connack || len(p.body) < 2 {
		return w, errors.New("the broker's first packet is no CONNACK")
	}
	if code := p.body[1]; code != 0 {
		return w, &RefusedError{version, code}
	}
	w.present = p.body[0]&1 != 0
	if version != 5 {
		return w, nil
	}
	return w, w.properties(p.body[2:])
}

// properties walks the properties of a CONNACK.
func (w *welcome) properties(b []byte) error {
	bad := errors.New("a CONNACK with malformed properties")
	size, n := binary.Uvarint(b)
	if n <= 0 || n > 4 || size != uint64(len(b)-n) {
		return bad
	}
	b = b[n:]
	for len(b) > 0 {
		id := b[0]
		b = b[1:]
		skip := 0
		switch id {
		case 0x24, 0x25, 0x28, 0x29, 0x2A:
			skip = 1
		case 0x13, 0x21, 0x22:
			skip = 2
		case 0x11, 0x27:
			skip = 4
		case 0x12, 0x15, 0x16, 0x1A, 0x1C, 0x1F, 0x26: // strings; 0x26 has two
			for range 1 + int(id/0x26) {
				if len(b) < skip+2 {
					return bad
				}
				skip += 2 + int(binary.BigEndian.Uint16(b[skip:]))
			}
		default:
			return bad
		}
		if len(b) < skip {
			return bad
		}
		switch id {
		case 0x21:
			if w.receiveMaximum = binary.BigEndian.Uint16(b); w.receiveMaximum == 0 { // [MQTT-3.2.2.3.3]: zero is a protocol error
				return bad
			}
		case 0x24:
			w.maximumQoS = b[0]
		}
		b = b[skip:]
	}
	return nil
}

// ack is one PUBACK, PUBREC or PUBCOMP.
type ack struct {
	kind byte
	id   uint16
	code byte
}

func parseAck(p packet) (ack, error) {
	if len(p.body) < 2 {
		return ack{}, errors.New("an acknowledgement without a packet id")
	}
	a := ack{kind: p.kind(), id: binary.BigEndian.Uint16(p.body)}
	if len(p.body) > 2 {
		a.code = p.body[2]
	}
	return a, nil
}
