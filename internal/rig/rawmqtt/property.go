package rawmqtt

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// PropertyID names a property of MQTT 5.
type PropertyID byte

// The properties.
const (
	PayloadFormat        PropertyID = 0x01
	MessageExpiry        PropertyID = 0x02 // seconds
	ContentType          PropertyID = 0x03
	ResponseTopic        PropertyID = 0x08
	CorrelationData      PropertyID = 0x09
	SubscriptionID       PropertyID = 0x0B
	SessionExpiry        PropertyID = 0x11 // seconds
	AssignedClientID     PropertyID = 0x12
	ServerKeepAlive      PropertyID = 0x13 // seconds
	AuthMethod           PropertyID = 0x15
	AuthData             PropertyID = 0x16
	RequestProblemInfo   PropertyID = 0x17
	WillDelay            PropertyID = 0x18 // seconds
	RequestResponseInfo  PropertyID = 0x19
	ResponseInfo         PropertyID = 0x1A
	ServerReference      PropertyID = 0x1C
	ReasonString         PropertyID = 0x1F
	ReceiveMaximum       PropertyID = 0x21
	TopicAliasMaximum    PropertyID = 0x22
	TopicAlias           PropertyID = 0x23
	MaximumQoS           PropertyID = 0x24
	RetainAvailable      PropertyID = 0x25
	UserProperty         PropertyID = 0x26
	MaximumPacketSize    PropertyID = 0x27 // bytes
	WildcardAvailable    PropertyID = 0x28
	SubscriptionIDsAvail PropertyID = 0x29
	SharedAvailable      PropertyID = 0x2A
)

type kind byte

const (
	oneByte kind = iota + 1
	twoBytes
	fourBytes
	varint
	text
	binaryData
	textPair
)

type rule struct {
	name string
	kind kind
	in   []Type
	min  uint32
	max  uint32 // 0: what the kind holds
	// fromClient and fromServer say who may send it.
	fromClient, fromServer bool
	many                   []Type // where it may stand more than once
}

var everywhere = []Type{CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, DISCONNECT, AUTH, will}

// rules is table 2-4 of the specification, with the values that each property
// may have.
var rules = map[PropertyID]rule{
	PayloadFormat:        {"Payload Format Indicator", oneByte, []Type{PUBLISH, will}, 0, 1, true, true, nil},
	MessageExpiry:        {"Message Expiry Interval", fourBytes, []Type{PUBLISH, will}, 0, 0, true, true, nil},
	ContentType:          {"Content Type", text, []Type{PUBLISH, will}, 0, 0, true, true, nil},
	ResponseTopic:        {"Response Topic", text, []Type{PUBLISH, will}, 0, 0, true, true, nil},
	CorrelationData:      {"Correlation Data", binaryData, []Type{PUBLISH, will}, 0, 0, true, true, nil},
	SubscriptionID:       {"Subscription Identifier", varint, []Type{PUBLISH, SUBSCRIBE}, 1, 0, true, true, []Type{PUBLISH}},
	SessionExpiry:        {"Session Expiry Interval", fourBytes, []Type{CONNECT, CONNACK, DISCONNECT}, 0, 0, true, true, nil},
	AssignedClientID:     {"Assigned Client Identifier", text, []Type{CONNACK}, 0, 0, false, true, nil},
	ServerKeepAlive:      {"Server Keep Alive", twoBytes, []Type{CONNACK}, 0, 0, false, true, nil},
	AuthMethod:           {"Authentication Method", text, []Type{CONNECT, CONNACK, AUTH}, 0, 0, true, true, nil},
	AuthData:             {"Authentication Data", binaryData, []Type{CONNECT, CONNACK, AUTH}, 0, 0, true, true, nil},
	RequestProblemInfo:   {"Request Problem Information", oneByte, []Type{CONNECT}, 0, 1, true, false, nil},
	WillDelay:            {"Will Delay Interval", fourBytes, []Type{will}, 0, 0, true, false, nil},
	RequestResponseInfo:  {"Request Response Information", oneByte, []Type{CONNECT}, 0, 1, true, false, nil},
	ResponseInfo:         {"Response Information", text, []Type{CONNACK}, 0, 0, false, true, nil},
	ServerReference:      {"Server Reference", text, []Type{CONNACK, DISCONNECT}, 0, 0, false, true, nil},
	ReasonString:         {"Reason String", text, []Type{CONNACK, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, DISCONNECT, AUTH}, 0, 0, true, true, nil},
	ReceiveMaximum:       {"Receive Maximum", twoBytes, []Type{CONNECT, CONNACK}, 1, 0, true, true, nil},
	TopicAliasMaximum:    {"Topic Alias Maximum", twoBytes, []Type{CONNECT, CONNACK}, 0, 0, true, true, nil},
	TopicAlias:           {"Topic Alias", twoBytes, []Type{PUBLISH}, 1, 0, true, true, nil},
	MaximumQoS:           {"Maximum QoS", oneByte, []Type{CONNACK}, 0, 1, false, true, nil},
	RetainAvailable:      {"Retain Available", oneByte, []Type{CONNACK}, 0, 1, false, true, nil},
	UserProperty:         {"User Property", textPair, everywhere, 0, 0, true, true, everywhere},
	MaximumPacketSize:    {"Maximum Packet Size", fourBytes, []Type{CONNECT, CONNACK}, 1, 0, true, true, nil},
	WildcardAvailable:    {"Wildcard Subscription Available", oneByte, []Type{CONNACK}, 0, 1, false, true, nil},
	SubscriptionIDsAvail: {"Subscription Identifiers Available", oneByte, []Type{CONNACK}, 0, 1, false, true, nil},
	SharedAvailable:      {"Shared Subscription Available", oneByte, []Type{CONNACK}, 0, 1, false, true, nil},
}

func (id PropertyID) String() string {
	if r, ok := rules[id]; ok {
		return r.name
	}
	return fmt.Sprintf("property 0x%02x", byte(id))
}

// Property is one property as it stands in a packet: Num for numbers, Text for
// strings and binary data, Text and Value for a user property. One whose id is
// unknown is encoded as Text alone.
type Property struct {
	ID    PropertyID
	Num   uint32
	Text  string
	Value string
}

// Properties are the properties of a packet in the order of the wire.
type Properties []Property

// Num makes a property that is a number.
func Num(id PropertyID, n uint32) Property { return Property{ID: id, Num: n} }

// Text makes a property that is a string or binary data.
func Text(id PropertyID, s string) Property { return Property{ID: id, Text: s} }

// User makes a user property.
func User(key, value string) Property { return Property{ID: UserProperty, Text: key, Value: value} }

// Get is the first property of an id.
func (p Properties) Get(id PropertyID) (Property, bool) {
	i := slices.IndexFunc(p, func(x Property) bool { return x.ID == id })
	if i < 0 {
		return Property{}, false
	}
	return p[i], true
}

// Has reports whether there is a property of an id.
func (p Properties) Has(id PropertyID) bool { _, ok := p.Get(id); return ok }

// Num is the number of the first property of an id, or otherwise.
func (p Properties) Num(id PropertyID, otherwise uint32) uint32 {
	if x, ok := p.Get(id); ok {
		return x.Num
	}
	return otherwise
}

// Text is the text of the first property of an id, "" without one.
func (p Properties) Text(id PropertyID) string { x, _ := p.Get(id); return x.Text }

// All are the properties of an id, in their order.
func (p Properties) All(id PropertyID) (out Properties) {
	for _, x := range p {
		if x.ID == id {
			out = append(out, x)
		}
	}
	return out
}

func (p Properties) appendTo(dst []byte) []byte {
	for _, x := range p {
		dst = append(dst, byte(x.ID))
		switch rules[x.ID].kind {
		case oneByte:
			dst = append(dst, byte(x.Num))
		case twoBytes:
			dst = binary.BigEndian.AppendUint16(dst, uint16(x.Num))
		case fourBytes:
			dst = binary.BigEndian.AppendUint32(dst, x.Num)
		case varint:
			dst = AppendVarint(dst, x.Num)
		case text, binaryData:
			dst = AppendString(dst, x.Text)
		case textPair:
			dst = AppendString(AppendString(dst, x.Text), x.Value)
		default:
			dst = append(dst, x.Text...)
		}
	}
	return dst
}
