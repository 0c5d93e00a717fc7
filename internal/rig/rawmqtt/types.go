package rawmqtt

import "fmt"

// The protocol levels.
const (
	V31  = 3
	V311 = 4
	V5   = 5
)

// Type is the type of a control packet, the upper half of its first byte.
type Type byte

// The control packet types.
const (
	CONNECT Type = 1 + iota
	CONNACK
	PUBLISH
	PUBACK
	PUBREC
	PUBREL
	PUBCOMP
	SUBSCRIBE
	SUBACK
	UNSUBSCRIBE
	UNSUBACK
	PINGREQ
	PINGRESP
	DISCONNECT
	AUTH
	will // not a packet: where the properties of a will stand
)

var typeNames = [...]string{
	CONNECT: "CONNECT", CONNACK: "CONNACK", PUBLISH: "PUBLISH", PUBACK: "PUBACK", PUBREC: "PUBREC", PUBREL: "PUBREL",
	PUBCOMP: "PUBCOMP", SUBSCRIBE: "SUBSCRIBE", SUBACK: "SUBACK", UNSUBSCRIBE: "UNSUBSCRIBE", UNSUBACK: "UNSUBACK",
	PINGREQ: "PINGREQ", PINGRESP: "PINGRESP", DISCONNECT: "DISCONNECT", AUTH: "AUTH", will: "will",
}

func (t Type) String() string {
	if int(t) < len(typeNames) && typeNames[t] != "" {
		return typeNames[t]
	}
	return fmt.Sprintf("type %d", byte(t))
}

// flags are the lower half of the first byte, but for PUBLISH [MQTT-2.1.3-1].
func (t Type) flags() byte {
	switch t {
	case PUBREL, SUBSCRIBE, UNSUBSCRIBE:
		return 2
	}
	return 0
}

// Packet is a control packet that can be encoded.
type Packet interface {
	Type() Type
	// Append encodes the packet for a protocol level and appends it to dst.
	Append(dst []byte, version byte) []byte
}

// Wire overrides what Append would do. The zero value overrides nothing. It is
// never set in a decoded packet.
type Wire struct {
	// First is the first byte.
	First *byte
	// Length stands in place of the remaining length.
	Length []byte
	// PropertyLength stands in place of the length of the properties.
	PropertyLength []byte
	// Cut is how many bytes of the body are left out at its end.
	Cut int
	// Extra comes behind the body, before its length is taken.
	Extra []byte
}

// Will is the last will in a CONNECT.
type Will struct {
	Topic      string
	Payload    []byte
	QoS        byte
	Retain     bool
	Properties Properties
}

// Connect is a CONNECT packet. Zero values of ProtocolName and Level take what
// belongs to the version it is encoded for.
type Connect struct {
	Wire
	ProtocolName string
	Level        byte
	// Flags are the connect flags, when they shall not say what is there.
	Flags      *byte
	CleanStart bool
	KeepAlive  uint16 // seconds
	Properties Properties
	ClientID   string
	Will       *Will
	Username   *string
	Password   []byte // nil: none
}

// Connack is a CONNACK packet.
type Connack struct {
	Wire
	SessionPresent bool
	Code           byte
	Properties     Properties
}

// Publish is a PUBLISH packet. ID is encoded when QoS is above 0.
type Publish struct {
	Wire
	Dup        bool
	QoS        byte
	Retain     bool
	Topic      string
	ID         uint16
	Properties Properties
	Payload    []byte
}

// Ack is a PUBACK, PUBREC, PUBREL or PUBCOMP packet.
type Ack struct {
	Wire
	Kind       Type
	ID         uint16
	Code       byte
	Properties Properties
	// Full encodes code and properties also where they may be left out.
	Full bool
}

// Filter is a topic filter and its subscription options: QoS, NoLocal,
// RetainAsPublished and RetainHandling.
type Filter struct {
	Filter  string
	Options byte
}

// Subscription options beside the QoS.
const (
	NoLocal             byte = 4
	RetainAsPublished   byte = 8
	RetainIfNew         byte = 1 << 4 // Retain Handling 1
	RetainNever         byte = 2 << 4 // Retain Handling 2
	retainHandling      byte = 3 << 4
	reservedSubscribe   byte = 3 << 6
	reservedSubscribeV4 byte = 0xFC
)

// Subscribe is a SUBSCRIBE packet.
type Subscribe struct {
	Wire
	ID         uint16
	Properties Properties
	Filters    []Filter
}

// Suback is a SUBACK packet.
type Suback struct {
	Wire
	ID         uint16
	Properties Properties
	Codes      []byte
}

// Unsubscribe is an UNSUBSCRIBE packet.
type Unsubscribe struct {
	Wire
	ID         uint16
	Properties Properties
	Filters    []string
}

// Unsuback is an UNSUBACK packet; Codes are MQTT 5's.
type Unsuback struct {
	Wire
	ID         uint16
	Properties Properties
	Codes      []byte
}

// Pingreq is a PINGREQ packet.
type Pingreq struct{ Wire }

// Pingresp is a PINGRESP packet.
type Pingresp struct{ Wire }

// Disconnect is a DISCONNECT packet; code and properties are MQTT 5's.
type Disconnect struct {
	Wire
	Code       byte
	Properties Properties
	// Full encodes code and properties also where they may be left out.
	Full bool
}

// Auth is an AUTH packet of MQTT 5.
type Auth struct {
	Wire
	Code       byte
	Properties Properties
	// Full encodes code and properties also where they may be left out.
	Full bool
}

// Raw is bytes that need not be a packet. It is never decoded.
type Raw []byte

func (*Connect) Type() Type     { return CONNECT }
func (*Connack) Type() Type     { return CONNACK }
func (*Publish) Type() Type     { return PUBLISH }
func (p *Ack) Type() Type       { return p.Kind }
func (*Subscribe) Type() Type   { return SUBSCRIBE }
func (*Suback) Type() Type      { return SUBACK }
func (*Unsubscribe) Type() Type { return UNSUBSCRIBE }
func (*Unsuback) Type() Type    { return UNSUBACK }
func (*Pingreq) Type() Type     { return PINGREQ }
func (*Pingresp) Type() Type    { return PINGRESP }
func (*Disconnect) Type() Type  { return DISCONNECT }
func (*Auth) Type() Type        { return AUTH }
func (Raw) Type() Type          { return 0 }
