package conformance

import (
	"errors"
	"strings"
	"time"

	"github.com/packetboat/packetboat/internal/rig/rawmqtt"
)

// malformed are the codes for what cannot be read.
var malformed = []byte{0x80, 0x81, 0x82, 0x85, 0x86, 0x87, 0x8F, 0x90, 0x99}

var badStrings = map[string]string{"ill-formed": "a\xff", "cut": "a\xc3", "overlong": "a\xc0\xaf", "surrogate": "a\xed\xa0\x80"}

// textsWith are packets with s in each place for a string. A nil connect says that
// the packet follows a connection.
func textsWith(t *T, s string) map[string]packet {
	m := map[string]packet{
		"client identifier": t.connectPacket(as(s)),
		"will topic":        t.connectPacket(will(rawmqtt.Will{Topic: s})),
		"user name":         t.connectPacket(func(p *rawmqtt.Connect) { p.Username = &s }),
		"topic name":        message(s, 0, "x"),
		"filter":            &rawmqtt.Subscribe{ID: 1, Filters: []rawmqtt.Filter{{Filter: s}}},
		"unsubscribe":       &rawmqtt.Unsubscribe{ID: 1, Filters: []string{s}},
	}
	if t.v == v5 {
		m["user property"] = message(t.topic("a"), 0, "x", user("k", s))
		m["user property key"] = message(t.topic("a"), 0, "x", user(s, "v"))
		m["content type"] = message(t.topic("a"), 0, "x", str(rawmqtt.ContentType, s))
		m["response topic"] = message(t.topic("a"), 0, "x", str(rawmqtt.ResponseTopic, s))
		m["will's content type"] = t.connectPacket(will(rawmqtt.Will{Topic: t.topic("w"), Properties: props{str(rawmqtt.ContentType, s)}}))
		m["reason string"] = &rawmqtt.Disconnect{Properties: props{str(rawmqtt.ReasonString, s)}}
	}
	return m
}

// refusesText sends the packet alone or after CONNECT and wants the end.
func (t *T) refusesText(what string, p packet) {
	t.Helper()
	c := t.dial()
	if p.Type() != rawmqtt.CONNECT {
		c = t.connect()
	}
	t.Logf("%s", what)
	c.send(p)
	c.refused(malformed...)
}

func illFormedText(t *T) {
	for kind, s := range badStrings {
		for where, p := range textsWith(t, s) {
			t.refusesText(kind+" "+where, p)
		}
	}
}

func nullInText(t *T) {
	for where, p := range textsWith(t, "a\x00b") {
		t.refusesText("U+0000 in "+where, p)
	}
}

func illFormedUserProperty(t *T) {
	for kind, s := range badStrings {
		for where, p := range textsWith(t, s) {
			if strings.HasPrefix(where, "user property") {
				t.refusesText(kind+" "+where, p)
			}
		}
	}
}

// aText checks one place for a string of those in textsWith.
func aText(t *T, where string) {
	for kind, s := range map[string]string{"ill-formed": badStrings["ill-formed"], "null": "a\x00"} {
		t.refusesText(kind, textsWith(t, s)[where])
	}
}

func illFormedClientID(t *T)    { aText(t, "client identifier") }
func illFormedWillTopic(t *T)   { aText(t, "will topic") }
func illFormedUserName(t *T)    { aText(t, "user name") }
func illFormedTopic(t *T)       { aText(t, "topic name") }
func illFormedFilter(t *T)      { aText(t, "filter") }
func illFormedUnsubscribe(t *T) { aText(t, "unsubscribe") }
func illFormedContentType(t *T) { aText(t, "content type") }
func illFormedResponse(t *T)    { aText(t, "response topic") }

// A byte order mark is a character like any other, and so is all of Unicode.
func textUnaltered(t *T) {
	c := t.connect()
	for _, s := range []string{"\ufeffbom", "bom", "ß/日本/🚢", "é", "e\u0301", "A", "a", " a ", "a//b", "/", "�"} {
		c.subscribe(t.topic(s), 1)
		c.publish(message(t.topic(s), 1, s))
		c.want(t.topic(s), s)
	}
	c.nothing(c)
}

// Payloads around every size at which the length takes another byte.
func remainingLength(t *T) {
	c := t.connect()
	topic := t.topic("n")
	c.subscribe(topic, 1)
	for _, n := range []int{0, 1, 100, 127, 128, 129, 16_300, 16_383, 16_384, 16_400, 100_000, 250_000} {
		payload := strings.Repeat("x", n)
		c.publish(message(topic, 1, payload))
		c.want(topic, payload)
	}
}

// Five bytes are no length; a packet cannot be larger than its length says.
func badLength(t *T) {
	for _, b := range []rawmqtt.Raw{{0xC0, 0x80, 0x80, 0x80, 0x80, 0x01}, {0x30, 0xff, 0xff, 0xff, 0xff, 0x7f}} {
		c := t.connect()
		c.send(b)
		c.refused(0x81, 0x82, 0x95)
	}
	c := t.connect()
	c.send(&rawmqtt.Pingreq{Wire: rawmqtt.Wire{Extra: []byte{0}}})
	c.refused(malformed...)
}

// Every packet type with flags that are not its own.
func reservedFlags(t *T) {
	good := map[byte]packet{
		0xC0: &rawmqtt.Pingreq{}, 0x82: &rawmqtt.Subscribe{ID: 1, Filters: []rawmqtt.Filter{{Filter: t.topic("a")}}},
		0xA2: &rawmqtt.Unsubscribe{ID: 1, Filters: []string{t.topic("a")}}, 0x62: &rawmqtt.Ack{Kind: rawmqtt.PUBREL, ID: 1},
		0x40: &rawmqtt.Ack{Kind: rawmqtt.PUBACK, ID: 1}, 0x50: &rawmqtt.Ack{Kind: rawmqtt.PUBREC, ID: 1},
		0x70: &rawmqtt.Ack{Kind: rawmqtt.PUBCOMP, ID: 1}, 0xE0: &rawmqtt.Disconnect{},
	}
	for first, p := range good {
		for _, flip := range []byte{1, 2, 8} {
			b := rawmqtt.Raw(rawmqtt.Encode(p, t.v))
			b[0] = first ^ flip
			c := t.connect()
			t.Logf("first byte 0x%02x", b[0])
			c.send(b)
			c.refused(malformed...)
		}
	}
	c := t.dial()
	b := rawmqtt.Raw(rawmqtt.Encode(t.connectPacket(), t.v))
	b[0] |= 1
	c.send(b)
	c.refused(malformed...)
}

// flagsOf sends one packet with each wrong flag.
func flagsOf(t *T, p packet, right byte) {
	for _, flags := range []byte{right ^ 1, right ^ 2, right ^ 4, right ^ 8} {
		b := rawmqtt.Raw(rawmqtt.Encode(p, t.v))
		b[0] = b[0]&0xF0 | flags
		c := t.connect()
		c.send(b)
		c.refused(malformed...)
	}
}

func pubrelFlags(t *T) { flagsOf(t, &rawmqtt.Ack{Kind: rawmqtt.PUBREL, ID: 1}, 2) }
func subscribeFlags(t *T) {
	flagsOf(t, &rawmqtt.Subscribe{ID: 1, Filters: []rawmqtt.Filter{{Filter: t.topic("a")}}}, 2)
}
func unsubscribeFlags(t *T) {
	flagsOf(t, &rawmqtt.Unsubscribe{ID: 1, Filters: []string{t.topic("a")}}, 2)
}
func disconnectFlags(t *T) { flagsOf(t, &rawmqtt.Disconnect{}, 0) }
func authFlags(t *T)       { flagsOf(t, &rawmqtt.Auth{Code: 0x18}, 0) }

// Packets that only a server sends, and type 0.
func notForClients(t *T) {
	for _, p := range []packet{&rawmqtt.Connack{}, &rawmqtt.Suback{ID: 1, Codes: []byte{0}}, &rawmqtt.Unsuback{ID: 1, Codes: []byte{0}}, &rawmqtt.Pingresp{}, rawmqtt.Raw{0, 0}} {
		c := t.connect()
		c.send(p)
		c.refused(malformed...)
	}
}

// A packet with an identifier that may not be zero.
func zeroID(t *T) {
	for _, p := range []packet{message(t.topic("a"), 1, "x"), message(t.topic("a"), 2, "x"),
		&rawmqtt.Subscribe{Filters: []rawmqtt.Filter{{Filter: t.topic("a")}}}, &rawmqtt.Unsubscribe{Filters: []string{t.topic("a")}}} {
		c := t.connect()
		c.send(p)
		c.refused(malformed...)
	}
}

// Properties that are malformed, misplaced or twice there.
func badProperties(t *T) {
	topic := t.topic("a")
	for name, p := range map[string]packet{
		"length cut":     rawmqtt.Raw{0x30, 4, 0, 1, 'a', 0x80},
		"length beyond":  &rawmqtt.Publish{Wire: rawmqtt.Wire{PropertyLength: []byte{100}}, Topic: topic},
		"unknown":        message(topic, 0, "x", rawmqtt.Property{ID: 0x7E, Text: "x"}),
		"misplaced":      message(topic, 0, "x", num(rawmqtt.ReceiveMaximum, 1)),
		"of CONNACK":     message(topic, 0, "x", num(rawmqtt.ServerKeepAlive, 1)),
		"twice":          message(topic, 0, "x", num(rawmqtt.MessageExpiry, 1), num(rawmqtt.MessageExpiry, 1)),
		"content twice":  message(topic, 0, "x", str(rawmqtt.ContentType, "a"), str(rawmqtt.ContentType, "a")),
		"format 2":       message(topic, 0, "x", num(rawmqtt.PayloadFormat, 2)),
		"PUBACK's":       &rawmqtt.Ack{Kind: rawmqtt.PUBACK, ID: 1, Properties: props{num(rawmqtt.MessageExpiry, 1)}},
		"SUBSCRIBE's":    &rawmqtt.Subscribe{ID: 1, Filters: []rawmqtt.Filter{{Filter: topic}}, Properties: props{num(rawmqtt.SubscriptionID, 1), num(rawmqtt.SubscriptionID, 2)}},
		"identifier 0":   &rawmqtt.Subscribe{ID: 1, Filters: []rawmqtt.Filter{{Filter: topic}}, Properties: props{num(rawmqtt.SubscriptionID, 0)}},
		"UNSUBSCRIBE's":  &rawmqtt.Unsubscribe{ID: 1, Filters: []string{topic}, Properties: props{num(rawmqtt.SubscriptionID, 1)}},
		"DISCONNECT's":   &rawmqtt.Disconnect{Properties: props{num(rawmqtt.ReceiveMaximum, 1)}},
		"expiry twice":   &rawmqtt.Disconnect{Properties: props{num(rawmqtt.SessionExpiry, 1), num(rawmqtt.SessionExpiry, 1)}},
		"Receive Max. 0": t.connectPacket(with(num(rawmqtt.ReceiveMaximum, 0))),
		"Packet Size 0":  t.connectPacket(with(num(rawmqtt.MaximumPacketSize, 0))),
		"problem info 2": t.connectPacket(with(num(rawmqtt.RequestProblemInfo, 2))),
		"response info":  t.connectPacket(with(num(rawmqtt.RequestResponseInfo, 2))),
		"CONNECT twice":  t.connectPacket(with(num(rawmqtt.SessionExpiry, 2), num(rawmqtt.SessionExpiry, 2))),
		"CONNECT alien":  t.connectPacket(with(num(rawmqtt.TopicAlias, 2))),
		"will alien":     t.connectPacket(will(rawmqtt.Will{Topic: topic, Properties: props{num(rawmqtt.SessionExpiry, 2)}})),
		"auth data":      t.connectPacket(with(str(rawmqtt.AuthData, "x"))),
	} {
		t.refusesText(name, p)
	}
}

// A packet that ends too early.
func cutShort(t *T) {
	for _, p := range []packet{
		&rawmqtt.Publish{Wire: rawmqtt.Wire{Cut: 4}, Topic: "abc"},
		&rawmqtt.Subscribe{Wire: rawmqtt.Wire{Cut: 1}, ID: 1, Filters: []rawmqtt.Filter{{Filter: "abc"}}},
		&rawmqtt.Unsubscribe{Wire: rawmqtt.Wire{Cut: 1}, ID: 1, Filters: []string{"abc"}},
		&rawmqtt.Ack{Wire: rawmqtt.Wire{Cut: 1}, Kind: rawmqtt.PUBREL, ID: 1},
	} {
		c := t.connect()
		c.send(p)
		c.refused(malformed...)
	}
}

// Bytes arrive as they please: one by one, and many packets in one write.
func byteStream(t *T) {
	c := t.dial()
	topic := t.topic("s")
	var b []byte
	for _, p := range []packet{t.connectPacket(), &rawmqtt.Subscribe{ID: 1, Filters: []rawmqtt.Filter{{Filter: topic, Options: 1}}}, &rawmqtt.Publish{Topic: topic, QoS: 1, ID: 2, Payload: []byte("one")}} {
		b = p.Append(b, t.v)
		c.Announce(p)
	}
	for i := range b {
		c.sendBytes(b[i : i+1])
	}
	c.connack()
	expect[*rawmqtt.Suback](c)
	c.nextID = 10
	c.want(topic, "one")
	expect[*rawmqtt.Ack](c)
	many := []packet{}
	for range 100 {
		many = append(many, message(topic, 0, "m"), &rawmqtt.Pingreq{})
	}
	c.send(many...)
	for range 100 {
		c.want(topic, "m")
		expect[*rawmqtt.Pingresp](c)
	}
}

// sendBytes sends a part of packets that the judge has been told of elsewhere.
func (c *client) sendBytes(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// A connection on which nothing is said is ended: nobody holds one for free.
func silence(t *T) {
	c := t.dial()
	begin := time.Now()
	if p, err := c.Next(4 * patience); !errors.Is(err, rawmqtt.ErrClosed) {
		t.Fatalf("%v after %v", p, err)
	}
	t.Logf("a connection without CONNECT lasts %v", time.Since(begin).Round(time.Second))
}
