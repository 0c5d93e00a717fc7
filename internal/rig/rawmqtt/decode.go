package rawmqtt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Sender is who sent a packet.
type Sender byte

// The senders.
const (
	FromServer Sender = iota
	FromClient
)

// Violation is a packet that its sender must not send.
type Violation struct {
	// Clause of the specification, [MQTT-x.x.x-n], or the section.
	Clause string
	What   string
}

func (v *Violation) Error() string { return v.Clause + " " + v.What }

func broken(clause, format string, args ...any) error {
	return &Violation{clause, fmt.Sprintf(format, args...)}
}

// ErrShort is returned for the beginning of a packet.
var ErrShort = errors.New("the packet goes on")

// Frame splits the first packet off b: its first byte, its body, and how many
// bytes it takes. It returns ErrShort when b ends before the packet does.
func Frame(b []byte) (first byte, body []byte, n int, err error) {
	if len(b) < 2 {
		return 0, nil, 0, ErrShort
	}
	length, used, err := varintAt(b[1:])
	if err != nil {
		return 0, nil, 0, err
	}
	n = 1 + used + int(length)
	if len(b) < n {
		return 0, nil, n, ErrShort
	}
	return b[0], b[1+used : n], n, nil
}

// varintAt reads a variable byte integer [MQTT-1.5.5-1].
func varintAt(b []byte) (n uint32, used int, err error) {
	for i := range 4 {
		if i >= len(b) {
			return 0, 0, ErrShort
		}
		n |= uint32(b[i]&127) << (7 * i)
		if b[i] < 128 {
			if i > 0 && b[i] == 0 {
				return 0, 0, broken("[MQTT-1.5.5-1]", "variable byte integer % x is longer than it needs", b[:i+1])
			}
			return n, i + 1, nil
		}
	}
	return 0, 0, broken("1.5.5", "variable byte integer % x has more than four bytes", b[:4])
}

// Decode reads one packet, all of b, as the specification lets sender send it on
// a connection of a protocol level. The error is a *Violation. What it returns
// shares no memory with b.
func Decode(b []byte, version byte, sender Sender) (Packet, error) {
	first, body, n, err := Frame(b)
	if err != nil || n != len(b) {
		if err == nil || errors.Is(err, ErrShort) {
			err = broken("2.1.4", "%d bytes are not one packet", len(b))
		}
		return nil, err
	}
	d := &reader{b: body, version: version, sender: sender, kind: Type(first >> 4)}
	p, err := d.packet(first)
	if err == nil {
		err = d.err
	}
	if err == nil && len(d.b) > 0 {
		err = broken("2.1.4", "%s has %d bytes too many", d.kind, len(d.b))
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (d *reader) packet(first byte) (Packet, error) {
	if d.kind == 0 || d.kind > AUTH || d.kind == AUTH && d.version < V5 {
		return nil, broken("2.1.2", "packet of %s", d.kind)
	}
	if !sentBy(d.kind, d.sender) {
		return nil, broken("2.1.2", "a %s is not for this side to send", d.kind)
	}
	if d.kind != PUBLISH && first&15 != d.kind.flags() {
		return nil, broken("[MQTT-2.1.3-1]", "%s has flags 0x%x", d.kind, first&15)
	}
	switch d.kind {
	case CONNECT:
		return d.connect()
	case CONNACK:
		return d.connack()
	case PUBLISH:
		return d.publish(first)
	case PUBACK, PUBREC, PUBREL, PUBCOMP:
		return d.ack()
	case SUBSCRIBE:
		return d.subscribe()
	case SUBACK:
		return d.suback()
	case UNSUBSCRIBE:
		return d.unsubscribe()
	case UNSUBACK:
		return d.unsuback()
	case PINGREQ:
		return &Pingreq{}, nil
	case PINGRESP:
		return &Pingresp{}, nil
	case DISCONNECT:
		p := &Disconnect{}
		return p, d.reason(&p.Code, &p.Properties)
	default:
		p := &Auth{}
		return p, d.reason(&p.Code, &p.Properties)
	}
}

func sentBy(t Type, s Sender) bool {
	switch t {
	case CONNECT, SUBSCRIBE, UNSUBSCRIBE, PINGREQ:
		return s == FromClient
	case CONNACK, SUBACK, UNSUBACK, PINGRESP:
		return s == FromServer
	}
	return true
}

// reader takes a body apart; after the first error it reads zeros.
type reader struct {
	b       []byte
	version byte
	sender  Sender
	kind    Type
	err     error
}

func (d *reader) fail(clause, format string, args ...any) {
	if d.err == nil {
		d.err = broken(clause, format, args...)
	}
}

func (d *reader) take(n int, what string) []byte {
	if d.err == nil && len(d.b) < n {
		d.fail("1.5", "%s ends in the middle of %s", d.kind, what)
	}
	if d.err != nil {
		return make([]byte, min(n, 4))
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *reader) u8(what string) byte    { return d.take(1, what)[0] }
func (d *reader) u16(what string) uint16 { return binary.BigEndian.Uint16(d.take(2, what)) }
func (d *reader) u32(what string) uint32 { return binary.BigEndian.Uint32(d.take(4, what)) }

func (d *reader) varint(what string) uint32 {
	if d.err != nil {
		return 0
	}
	n, used, err := varintAt(d.b)
	if errors.Is(err, ErrShort) {
		d.fail("1.5.5", "%s ends in the middle of %s", d.kind, what)
		return 0
	}
	if err != nil {
		d.err = err
		return 0
	}
	d.b = d.b[used:]
	return n
}

func (d *reader) binary(what string) string {
	n := int(d.u16("the length of " + what))
	if d.err == nil && n > len(d.b) {
		d.fail("1.5.6", "%s has %d bytes, %d are there", what, n, len(d.b))
	}
	if d.err != nil {
		return ""
	}
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

func (d *reader) text(what string) string {
	s := d.binary(what)
	if !utf8.ValidString(s) {
		d.fail("[MQTT-1.5.4-1]", "%s %q is not UTF-8", what, s)
	}
	if strings.ContainsRune(s, 0) {
		d.fail("[MQTT-1.5.4-2]", "%s %q contains U+0000", what, s)
	}
	return s
}

func (d *reader) id() uint16 {
	id := d.u16("the packet identifier")
	if id == 0 {
		d.fail("[MQTT-2.2.1-3]", "%s has packet identifier 0", d.kind)
	}
	return id
}

// properties reads the properties of a packet, or of the will in it [MQTT-2.2.2-1].
func (d *reader) properties(in Type) (out Properties) {
	if d.version < V5 {
		return nil
	}
	n := int(d.varint("the length of its properties"))
	if d.err == nil && n > len(d.b) {
		d.fail("2.2.2.1", "%s has %d bytes of properties, %d are there", in, n, len(d.b))
	}
	if d.err != nil {
		return nil
	}
	rest := d.b[n:]
	d.b = d.b[:n]
	for len(d.b) > 0 && d.err == nil {
		x := d.property(in)
		if d.err == nil && out.Has(x.ID) && !contains(rules[x.ID].many, in) {
			d.fail("2.2.2.2", "%s has more than one %s", in, x.ID)
		}
		if d.err == nil && x.ID == SubscriptionID && in == PUBLISH && d.sender == FromClient {
			d.fail("[MQTT-3.3.4-6]", "a client's PUBLISH has a Subscription Identifier")
		}
		out = append(out, x)
	}
	if d.err == nil && out.Has(AuthData) && !out.Has(AuthMethod) {
		d.fail("3.1.2.11.10", "%s has Authentication Data without a method", in)
	}
	d.b = rest
	return out
}

func (d *reader) property(in Type) Property {
	x := Property{ID: PropertyID(d.varint("a property"))}
	r, ok := rules[x.ID]
	switch {
	case !ok, !contains(r.in, in):
		d.fail("2.2.2.2", "%s has %s", in, x.ID)
		return x
	case d.sender == FromServer && !r.fromServer, d.sender == FromClient && !r.fromClient:
		d.fail("2.2.2.2", "%s in a %s is not for this side to send", x.ID, in)
		return x
	case d.sender == FromServer && in == DISCONNECT && x.ID == SessionExpiry:
		d.fail("[MQTT-3.14.2-2]", "a server's DISCONNECT has a Session Expiry Interval")
	case d.sender == FromClient && in == DISCONNECT && x.ID == ServerReference:
		d.fail("3.14.2.2.5", "a client's DISCONNECT has a Server Reference")
	}
	switch r.kind {
	case oneByte:
		x.Num = uint32(d.u8(r.name))
	case twoBytes:
		x.Num = uint32(d.u16(r.name))
	case fourBytes:
		x.Num = d.u32(r.name)
	case varint:
		x.Num = d.varint(r.name)
	case text:
		x.Text = d.text(r.name)
	case binaryData:
		x.Text = d.binary(r.name)
	case textPair:
		x.Text, x.Value = d.text(r.name), d.text(r.name)
	}
	if x.Num < r.min || r.max > 0 && x.Num > r.max {
		d.fail("2.2.2.2", "%s is %d", r.name, x.Num)
	}
	if x.ID == ResponseTopic && strings.ContainsAny(x.Text, "+#") {
		d.fail("[MQTT-3.3.2-14]", "Response Topic %q has wildcards", x.Text)
	}
	return x
}

func contains(list []Type, t Type) bool {
	for _, x := range list {
		if x == t {
			return true
		}
	}
	return false
}
