package rawmqtt

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var words = rapid.StringMatching(`[a-zäß0-9/$ ]{0,12}`)
var topics = rapid.StringMatching(`[a-zäß0-9/$ ]{1,12}`)

// anyProperties draws properties that sender may put into in.
func anyProperties(t *rapid.T, in Type, version byte, sender Sender) (out Properties) {
	if version < V5 {
		return nil
	}
	for id := PropertyID(0); id < 0x30; id++ {
		r, ok := rules[id]
		if !ok || !contains(r.in, in) || sender == FromClient && !r.fromClient || sender == FromServer && !r.fromServer ||
			id == AuthData || in == DISCONNECT && (id == SessionExpiry && sender == FromServer || id == ServerReference) ||
			id == SubscriptionID && in == PUBLISH && sender == FromClient {
			continue
		}
		n := rapid.IntRange(0, 1).Draw(t, "has")
		if contains(r.many, in) {
			n = rapid.IntRange(0, 3).Draw(t, "many")
		}
		for range n {
			x := Property{ID: id}
			switch r.kind {
			case oneByte:
				x.Num = rapid.Uint32Range(r.min, max(r.max, r.min)).Draw(t, "byte")
			case twoBytes:
				x.Num = rapid.Uint32Range(r.min, 65535).Draw(t, "two")
			case fourBytes:
				x.Num = rapid.Uint32Range(r.min, 1<<32-1).Draw(t, "four")
			case varint:
				x.Num = rapid.Uint32Range(r.min, 1<<28-1).Draw(t, "varint")
			case text:
				x.Text = words.Draw(t, "text")
			case binaryData:
				x.Text = string(rapid.SliceOf(rapid.Byte()).Draw(t, "binary"))
			case textPair:
				x.Text, x.Value = words.Draw(t, "key"), words.Draw(t, "value")
			}
			out = append(out, x)
		}
	}
	return out
}

func anyID(t *rapid.T) uint16 { return rapid.Uint16Range(1, 65535).Draw(t, "id") }

func anyCodes(t *rapid.T, from []byte) []byte {
	return rapid.SliceOfN(rapid.SampledFrom(from), 1, 5).Draw(t, "codes")
}

func anyConnect(t *rapid.T, version byte) *Connect {
	p := &Connect{ProtocolName: nameOf(version), Level: version, CleanStart: rapid.Bool().Draw(t, "clean"), KeepAlive: rapid.Uint16().Draw(t, "keepalive"),
		Properties: anyProperties(t, CONNECT, version, FromClient), ClientID: words.Draw(t, "client")}
	if rapid.Bool().Draw(t, "will") {
		p.Will = &Will{Topic: topics.Draw(t, "topic"), Payload: rapid.SliceOf(rapid.Byte()).Draw(t, "payload"), QoS: rapid.ByteRange(0, 2).Draw(t, "qos"),
			Retain: rapid.Bool().Draw(t, "retain"), Properties: anyProperties(t, will, version, FromClient)}
	}
	if rapid.Bool().Draw(t, "user") {
		name := words.Draw(t, "name")
		p.Username = &name
		if rapid.Bool().Draw(t, "password") {
			p.Password = rapid.SliceOf(rapid.Byte()).Draw(t, "secret")
		}
	}
	return p
}

func anyPublish(t *rapid.T, version byte, sender Sender) *Publish {
	p := &Publish{QoS: rapid.ByteRange(0, 2).Draw(t, "qos"), Retain: rapid.Bool().Draw(t, "retain"), Topic: topics.Draw(t, "topic"),
		Properties: anyProperties(t, PUBLISH, version, sender), Payload: rapid.SliceOf(rapid.Byte()).Draw(t, "payload")}
	if p.QoS > 0 {
		p.ID, p.Dup = anyID(t), rapid.Bool().Draw(t, "dup")
	}
	return p
}

func anyPacket(t *rapid.T, version byte, sender Sender) Packet {
	kinds := []Type{PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP}
	if sender == FromClient {
		kinds = append(kinds, CONNECT, SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT)
	} else {
		kinds = append(kinds, CONNACK, SUBACK, UNSUBACK, PINGRESP)
	}
	if version >= V5 {
		kinds = append(kinds, DISCONNECT, AUTH)
	}
	kind := rapid.SampledFrom(kinds).Draw(t, "type")
	props := func() Properties { return anyProperties(t, kind, version, sender) }
	code := func(from []byte) byte {
		if version < V5 {
			return 0
		}
		return rapid.SampledFrom(from).Draw(t, "code")
	}
	switch kind {
	case CONNECT:
		return anyConnect(t, version)
	case CONNACK:
		p := &Connack{Code: code(connackCodes), Properties: props()}
		p.SessionPresent = p.Code == 0 && rapid.Bool().Draw(t, "present")
		return p
	case PUBLISH:
		return anyPublish(t, version, sender)
	case PUBACK, PUBREC:
		return &Ack{Kind: kind, ID: anyID(t), Code: code(pubackCodes), Properties: props()}
	case PUBREL, PUBCOMP:
		return &Ack{Kind: kind, ID: anyID(t), Code: code(pubrelCodes), Properties: props()}
	case SUBSCRIBE:
		p := &Subscribe{ID: anyID(t), Properties: props()}
		for range rapid.IntRange(1, 4).Draw(t, "filters") {
			p.Filters = append(p.Filters, Filter{"x" + words.Draw(t, "filter"), rapid.ByteRange(0, 2).Draw(t, "options")})
		}
		return p
	case SUBACK:
		return &Suback{ID: anyID(t), Properties: props(), Codes: anyCodes(t, subackCodesV3)}
	case UNSUBSCRIBE:
		return &Unsubscribe{ID: anyID(t), Properties: props(), Filters: rapid.SliceOfN(topics, 1, 4).Draw(t, "filters")}
	case UNSUBACK:
		p := &Unsuback{ID: anyID(t), Properties: props()}
		if version >= V5 {
			p.Codes = anyCodes(t, unsubackCodes)
		}
		return p
	case PINGREQ:
		return &Pingreq{}
	case PINGRESP:
		return &Pingresp{}
	case DISCONNECT:
		codes := disconnectCodes
		if sender == FromClient {
			codes = disconnectCodesOfClient
		}
		return &Disconnect{Code: code(codes), Properties: props()}
	default:
		return &Auth{Code: 0x18, Properties: props()}
	}
}

// What is encoded is decoded to the same, whoever sends it.
func TestDecodeOfEncode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		version := rapid.SampledFrom([]byte{V31, V311, V5}).Draw(t, "version")
		sender := rapid.SampledFrom([]Sender{FromServer, FromClient}).Draw(t, "sender")
		p := anyPacket(t, version, sender)
		b := Encode(p, version)
		got, err := Decode(b, version, sender)
		if err != nil {
			t.Fatalf("%s: % x: %v", Describe(p), b, err)
		}
		if !same(p, got) {
			t.Fatalf("encoded %+v\ndecoded %+v", p, got)
		}
		if _, _, n, err := Frame(append(b, 1, 2, 3)); err != nil || n != len(b) {
			t.Fatalf("Frame says %d bytes and %v, want %d", n, err, len(b))
		}
		for i := range b {
			if _, _, _, err := Frame(b[:i]); !errors.Is(err, ErrShort) {
				t.Fatalf("Frame of the first %d of %d bytes: %v", i, len(b), err)
			}
		}
	})
}

// same compares by content: nil and empty are one.
func same(a, b Packet) bool {
	return reflect.TypeOf(a) == reflect.TypeOf(b) && strings.ReplaceAll(full(a), "[]", "") == strings.ReplaceAll(full(b), "[]", "")
}

func full(p Packet) string {
	return string(bytes.Join([][]byte{Encode(p, V311), Encode(p, V5)}, nil)) + Describe(p)
}

func FuzzDecode(f *testing.F) {
	for _, p := range []Packet{&Connect{ClientID: "a", Will: &Will{Topic: "w"}}, &Connack{}, &Publish{Topic: "t", QoS: 1, ID: 1, Properties: Properties{Num(TopicAlias, 1), User("k", "v")}},
		&Ack{Kind: PUBREL, ID: 1, Code: 0x92, Properties: Properties{Text(ReasonString, "x")}}, &Subscribe{ID: 1, Filters: []Filter{{"a/#", 2}}}, &Suback{ID: 1, Codes: []byte{0}},
		&Disconnect{Code: 0x81, Properties: Properties{Text(ReasonString, "x")}}, &Auth{Code: 0x18}} {
		f.Add(Encode(p, V5), byte(V5), true)
		f.Add(Encode(p, V311), byte(V311), false)
	}
	// Whatever comes: no panic; what is accepted is a packet that means the same
	// when it is encoded and decoded again.
	f.Fuzz(func(t *testing.T, b []byte, version byte, fromServer bool) {
		sender := FromClient
		if fromServer {
			sender = FromServer
		}
		version = V31 + version%3
		p, err := Decode(b, version, sender)
		if err != nil {
			if _, ok := errors.AsType[*Violation](err); !ok {
				t.Fatalf("error %v is no violation", err)
			}
			return
		}
		again, err := Decode(Encode(p, version), version, sender)
		if err != nil || !same(p, again) {
			t.Fatalf("% x decodes to %s, and that encoded and decoded to %v %v", b, Describe(p), again, err)
		}
	})
}
