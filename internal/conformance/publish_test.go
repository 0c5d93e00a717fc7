package conformance

import (
	"bytes"
	"fmt"
	"time"

	"github.com/packetboat/packetboat/internal/rig/rawmqtt"
)

// Every QoS of a publication to every QoS of a subscription: the lower one
// holds, once each.
func qosMinimum(t *T) {
	for granted := range byte(3) {
		sub := t.connect()
		topic := t.topic(fmt.Sprint("q", granted))
		sub.subscribe(topic, granted)
		pub := t.connect()
		for qos := range byte(3) {
			pub.publish(message(topic, qos, fmt.Sprint(qos)))
			if p := sub.want(topic, fmt.Sprint(qos)); p.QoS != min(qos, granted) {
				t.Fatalf("QoS %d for a subscription of %d arrives with QoS %d", qos, granted, p.QoS)
			}
		}
		sub.nothing(pub)
	}
}

func qos3(t *T) {
	for _, flags := range []byte{0x36, 0x37, 0x3E} {
		c := t.connect()
		c.send(rawmqtt.Raw(rawmqtt.Encode(&rawmqtt.Publish{Wire: rawmqtt.Wire{First: &flags}, Topic: t.topic("a"), QoS: 1, ID: 1}, t.v)))
		c.refused(malformed...)
	}
}

func dupWithQoS0(t *T) {
	c := t.connect()
	c.send(&rawmqtt.Publish{Topic: t.topic("a"), Dup: true})
	c.refused(malformed...)
}

// DUP is not handed on.
func dupNotPropagated(t *T) {
	sub, pub := t.connect(), t.connect()
	sub.subscribe(t.topic("a"), 2)
	for qos := byte(1); qos <= 2; qos++ {
		p := message(t.topic("a"), qos, "x")
		p.Dup = true
		pub.publish(p)
		if got := sub.receive(); got.Dup {
			t.Fatalf("DUP was handed on with QoS %d", qos)
		}
	}
}

func wildcardTopic(t *T) {
	for _, topic := range []string{"a/+/b", "#", "+", "a/#", "a+", "a#b"} {
		for qos := range byte(3) {
			if t.v < v5 && qos == 2 {
				continue
			}
			c := t.connect()
			p := message(topic, qos, "x")
			p.ID = 1
			c.send(p)
			c.rejected(p, 0x90, 0x81, 0x82)
		}
	}
}

// rejected wants the end, or for a message of MQTT 5 that is acknowledged a
// reason code.
func (c *client) rejected(p *rawmqtt.Publish, codes ...byte) {
	c.t.Helper()
	for {
		got, err := c.Next(c.until)
		if err != nil {
			c.t.Logf("%v", err)
			return
		}
		switch got := got.(type) {
		case *rawmqtt.Disconnect:
			c.oneOf("DISCONNECT", got.Code, codes)
			return
		case *rawmqtt.Ack:
			if c.Version() < v5 || got.Code < 0x80 {
				c.t.Fatalf("got %s", rawmqtt.Describe(got))
			}
			return
		}
	}
}

func emptyTopic(t *T) {
	c := t.connect()
	c.send(&rawmqtt.Publish{Topic: "", QoS: 1, ID: 1})
	c.refused(0x82, 0x81, 0x90, 0x94)
}

// What is published with properties arrives with them, in every QoS, and in the
// order of the user properties.
func propertiesUnaltered(t *T) {
	sub, pub := t.connect(), t.connect()
	sub.subscribe(t.topic("a"), 2)
	for qos := range byte(3) {
		sent := props{num(rawmqtt.PayloadFormat, 1), str(rawmqtt.ContentType, "text/ß; charset=utf-8"), str(rawmqtt.ResponseTopic, "back/to/me"),
			str(rawmqtt.CorrelationData, "\x00\xff\x00"), user("b", "2"), user("a", "1"), user("b", "1"), user("", ""), user("a", "1")}
		pub.publish(message(t.topic("a"), qos, "grüße", sent...))
		got := sub.want(t.topic("a"), "grüße")
		for _, id := range []rawmqtt.PropertyID{rawmqtt.PayloadFormat, rawmqtt.ContentType, rawmqtt.ResponseTopic, rawmqtt.CorrelationData, rawmqtt.UserProperty} {
			if g, w := got.Properties.All(id).String(), sent.All(id).String(); g != w {
				t.Errorf("QoS %d: %s arrives as %s", qos, w, g)
			}
		}
		if len(got.Properties) != len(sent) {
			t.Errorf("QoS %d: %v arrives as %v", qos, sent, got.Properties)
		}
		pub.publish(message(t.topic("a"), qos, "plain")) // nothing sticks to the next
		if got := sub.want(t.topic("a"), "plain"); len(got.Properties) > 0 {
			t.Errorf("QoS %d: a message without properties arrives with %v", qos, got.Properties)
		}
	}
}

func payloadFormatUnaltered(t *T) {
	sub, pub := t.connect(), t.connect()
	sub.subscribe(t.topic("a"), 2)
	for qos := range byte(3) {
		pub.publish(message(t.topic("a"), qos, "", num(rawmqtt.PayloadFormat, 1), str(rawmqtt.ContentType, "My name")))
		if p := sub.want(t.topic("a"), "").Properties; p.Num(rawmqtt.PayloadFormat, 9) != 1 || p.Text(rawmqtt.ContentType) != "My name" {
			t.Errorf("arrives with %v", p)
		}
		pub.publish(message(t.topic("a"), qos, "\xff\x00", num(rawmqtt.PayloadFormat, 0)))
		if p := sub.want(t.topic("a"), "\xff\x00").Properties; p.Num(rawmqtt.PayloadFormat, 0) != 0 {
			t.Errorf("arrives with %v", p)
		}
	}
}

func responseWildcard(t *T) {
	for _, s := range []string{"a/#", "+"} {
		c := t.connect()
		p := message(t.topic("a"), 1, "x", str(rawmqtt.ResponseTopic, s))
		p.ID = 1
		c.send(p)
		c.rejected(p, 0x82, 0x81, 0x90)
	}
}

// Request and response, as they are meant.
func requestResponse(t *T) {
	a, b := t.connect(), t.connect()
	topic := t.topic("rr")
	a.subscribe(topic, 2|rawmqtt.NoLocal)
	b.subscribe(topic, 2|rawmqtt.NoLocal)
	a.publish(message(topic, 1, "request", str(rawmqtt.ResponseTopic, topic), str(rawmqtt.CorrelationData, "334")))
	got := b.want(topic, "request")
	answer := message(got.Properties.Text(rawmqtt.ResponseTopic), 1, "response")
	answer.Properties = got.Properties // everything back, as simple responders do
	b.publish(answer)
	if p := a.want(topic, "response"); p.Properties.Text(rawmqtt.CorrelationData) != "334" {
		t.Errorf("correlation data %q", p.Properties.Text(rawmqtt.CorrelationData))
	}
	a.nothing(b)
	b.nothing(a)
}

// Message expiry: what has expired is not delivered, what has not says how much
// is left.
func messageExpiry(t *T) {
	sub := t.connect(as(t.id("away")), t.lasting(600))
	sub.subscribe(t.topic("#"), 2)
	sub.leave()
	pub := t.connect()
	for qos := byte(1); qos <= 2; qos++ {
		pub.publish(message(t.topic(fmt.Sprint("short", qos)), qos, "x", num(rawmqtt.MessageExpiry, 1)))
		pub.publish(message(t.topic(fmt.Sprint("long", qos)), qos, "x", num(rawmqtt.MessageExpiry, 100)))
	}
	after(2100 * time.Millisecond)
	sub = t.connect(as(t.id("away")), resume, t.lasting(0))
	for qos := byte(1); qos <= 2; qos++ {
		p := sub.want(t.topic(fmt.Sprint("long", qos)), "x")
		if left := p.Properties.Num(rawmqtt.MessageExpiry, 0); left < 70 || left > 98 {
			t.Errorf("%d s are left of 100 after two", left)
		}
	}
	sub.nothing(pub)
}

// While it does not wait, the interval is what was sent.
func expiryUnaltered(t *T) {
	sub, pub := t.connect(), t.connect()
	sub.subscribe(t.topic("a"), 1)
	for _, n := range []uint32{30, 1 << 20, 1<<32 - 1} {
		pub.publish(message(t.topic("a"), 1, "x", num(rawmqtt.MessageExpiry, n)))
		if left := sub.receive().Properties.Num(rawmqtt.MessageExpiry, 0); left > n || left < n-25 {
			t.Errorf("%d s arrive as %d", n, left)
		}
	}
}

func retainedExpiry(t *T) {
	pub := t.connect()
	pub.publish(retained(message(t.topic("short"), 1, "x", num(rawmqtt.MessageExpiry, 1))))
	pub.publish(retained(message(t.topic("long"), 1, "x", num(rawmqtt.MessageExpiry, 100))))
	pub.through()
	after(2100 * time.Millisecond)
	sub := t.connect()
	sub.subscribe(t.topic("+"), 1)
	if left := sub.want(t.topic("long"), "x").Properties.Num(rawmqtt.MessageExpiry, 0); left < 70 || left > 98 {
		t.Errorf("%d s are left of 100 after two", left)
	}
	sub.nothing(pub)
}

// Aliases of the client: all that CONNACK allows, given anew, unknown ones and
// those beyond.
func clientAliases(t *T) {
	c := t.connect()
	most := c.ack.Properties.Num(rawmqtt.TopicAliasMaximum, 0)
	if most == 0 {
		t.Skip("no topic aliases are offered")
	}
	c.subscribe(t.topic("#"), 1)
	for n := uint32(1); n <= min(most, 200); n++ {
		topic := t.topic(fmt.Sprint(n))
		c.publish(message(topic, 1, "named", num(rawmqtt.TopicAlias, n)))
		c.want(topic, "named")
	}
	c.publish(message(t.topic("last"), 0, "named", num(rawmqtt.TopicAlias, most)))
	c.want(t.topic("last"), "named")
	for _, n := range []uint32{1, most} {
		topic := t.topic(fmt.Sprint(n))
		if n == most {
			topic = t.topic("last")
		}
		c.publish(message("", n2qos(n), "alias", num(rawmqtt.TopicAlias, n)))
		c.want(topic, "alias")
	}
	c.publish(message(t.topic("anew"), 1, "x", num(rawmqtt.TopicAlias, 1)))
	c.want(t.topic("anew"), "x")
	c.publish(message("", 2, "y", num(rawmqtt.TopicAlias, 1)))
	c.want(t.topic("anew"), "y")
}

func n2qos(n uint32) byte { return byte(n % 3) }

func aliasPerConnection(t *T) {
	id := t.id("alias")
	c := t.connect(as(id), t.lasting(600))
	c.publish(message(t.topic("a"), 1, "x", num(rawmqtt.TopicAlias, 1)))
	c.leave()
	c = t.connect(as(id), resume, t.lasting(0))
	c.publish(message(t.topic("a"), 1, "x"))
	p := message("", 1, "y", num(rawmqtt.TopicAlias, 1))
	p.ID = 77
	c.send(p)
	c.told(0x82, 0x94)
}

func aliasZero(t *T) {
	c := t.connect()
	p := message(t.topic("a"), 1, "x", num(rawmqtt.TopicAlias, 0))
	p.ID = 1
	c.send(p)
	c.told(0x94, 0x82)
}

func aliasTooHigh(t *T) {
	c := t.connect()
	most := c.ack.Properties.Num(rawmqtt.TopicAliasMaximum, 0)
	if most == 65535 {
		t.Skip("every alias is allowed")
	}
	p := message(t.topic("a"), 1, "x", num(rawmqtt.TopicAlias, most+1))
	p.ID = 1
	c.send(p)
	c.told(0x94)
}

// Aliases towards a client that takes them; the judge knows the bound, and that
// an alias must have been announced.
func serverAliases(t *T) {
	for _, most := range []uint32{1, 5} {
		c := t.connect(with(num(rawmqtt.TopicAliasMaximum, most)))
		c.subscribe(t.topic("#"), 2)
		for round := range 3 {
			for n := range 8 {
				topic := t.topic(fmt.Sprint(n))
				c.publish(message(topic, byte(round), fmt.Sprint(round)))
				c.want(topic, fmt.Sprint(round))
			}
		}
	}
}

// They are used, from the first message of a topic on.
func serverAliasesUsed(t *T) {
	c := t.connect(with(num(rawmqtt.TopicAliasMaximum, 1)))
	c.subscribe(t.topic("a"), 2)
	for qos := range byte(3) {
		c.publish(message(t.topic("a"), qos, "x"))
		p := c.receive()
		if named := p.Topic != ""; named != (qos == 0) || p.Properties.Num(rawmqtt.TopicAlias, 0) != 1 {
			t.Fatalf("message %d arrives as %s", qos, rawmqtt.Describe(p))
		}
	}
}

func noServerAliases(t *T) {
	for _, o := range []option{with(num(rawmqtt.TopicAliasMaximum, 0)), with()} {
		c := t.connect(o)
		c.subscribe(t.topic("a"), 2)
		for qos := range byte(3) {
			c.publish(message(t.topic("a"), qos, "x"))
			if p := c.want(t.topic("a"), "x"); p.Properties.Has(rawmqtt.TopicAlias) {
				t.Fatalf("an alias for a client that takes none: %v", p.Properties)
			}
		}
	}
}

// Messages of one client with one topic and QoS arrive in their order.
func order(t *T) {
	sub, pub := t.connect(), t.connect()
	for qos := range byte(3) {
		topic := t.topic(fmt.Sprint("o", qos))
		sub.subscribe(topic, qos)
		const n = 15 // within anybody's Receive Maximum
		sent := []packet{}
		for i := range n {
			p := message(topic, qos, fmt.Sprint(i))
			p.ID = pub.pid()
			sent = append(sent, p)
		}
		pub.send(sent...)
		pub.complete(sent)
		for i := range n {
			sub.want(topic, fmt.Sprint(i))
		}
	}
}

// complete ends the exchanges of messages that were sent without waiting, and
// wants the acknowledgements in order [MQTT-4.6.0-2], which are a client's duty
// in the specification and this server's promise.
func (c *client) complete(sent []packet) {
	c.t.Helper()
	for _, kind := range []rawmqtt.Type{rawmqtt.PUBREC, rawmqtt.PUBCOMP} {
		for _, p := range sent {
			m := p.(*rawmqtt.Publish)
			switch {
			case m.QoS == 1 && kind == rawmqtt.PUBREC:
				c.expectAck(rawmqtt.PUBACK, m.ID)
			case m.QoS == 2 && kind == rawmqtt.PUBREC:
				c.expectAck(kind, m.ID)
				c.send(&rawmqtt.Ack{Kind: rawmqtt.PUBREL, ID: m.ID})
			case m.QoS == 2:
				c.expectAck(kind, m.ID)
			}
		}
	}
}

// Any bytes are a payload.
func anyPayload(t *T) {
	c := t.connect()
	c.subscribe(t.topic("a"), 1)
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for _, b := range [][]byte{{}, {0}, all, bytes.Repeat([]byte{0xff}, 1000)} {
		c.publish(message(t.topic("a"), 1, string(b)))
		c.want(t.topic("a"), string(b))
	}
}

// A subscription identifier in a client's PUBLISH.
func identifierFromClient(t *T) {
	c := t.connect()
	p := message(t.topic("a"), 1, "x", num(rawmqtt.SubscriptionID, 1))
	p.ID = 1
	c.send(p)
	c.refused(0x82, 0x81)
}
