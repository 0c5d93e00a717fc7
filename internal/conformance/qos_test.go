package conformance

import (
	"errors"
	"fmt"
	"time"

	"github.com/packetboat/packetboat/internal/rig/rawmqtt"
)

func ack(kind rawmqtt.Type, id uint16) *rawmqtt.Ack { return &rawmqtt.Ack{Kind: kind, ID: id} }

// Each PUBLISH is answered as its QoS says, with its identifier.
func answers(t *T) {
	c := t.connect()
	c.publish(message(t.topic("a"), 0, "x"))
	c.ping() // nothing else comes for QoS 0
	for _, id := range []uint16{1, 2, 255, 256, 65535} {
		for qos := byte(1); qos <= 2; qos++ {
			p := message(t.topic("a"), qos, "x")
			p.ID = id
			c.publish(p)
		}
	}
}

// After PUBACK, a PUBLISH with the identifier is another message, DUP or not.
func qos1Again(t *T) {
	sub, pub := t.connect(), t.connect()
	sub.subscribe(t.topic("a"), 1)
	for _, dup := range []bool{false, false, true} {
		p := message(t.topic("a"), 1, fmt.Sprint(dup))
		p.ID, p.Dup = 7, dup
		pub.publish(p)
		sub.want(t.topic("a"), fmt.Sprint(dup))
	}
}

// Until PUBREL, the same identifier is the same message; after PUBCOMP it is
// another one.
func qos2Once(t *T) {
	sub, pub := t.connect(), t.connect()
	sub.subscribe(t.topic("a"), 2)
	for round := range 3 {
		p := message(t.topic("a"), 2, fmt.Sprint(round))
		p.ID = 7
		for i := range 3 {
			p.Dup = i > 0
			pub.send(p)
			if a := pub.expectAck(rawmqtt.PUBREC, 7); a.Code >= 0x80 {
				t.Fatalf("PUBREC with code 0x%02x", a.Code)
			}
		}
		pub.send(ack(rawmqtt.PUBREL, 7))
		if a := pub.expectAck(rawmqtt.PUBCOMP, 7); a.Code != 0 {
			t.Fatalf("PUBCOMP with code 0x%02x", a.Code)
		}
		sub.want(t.topic("a"), fmt.Sprint(round))
	}
	sub.nothing(pub)
}

// The exchange goes on over a new connection of the session, once.
func qos2Resumes(t *T) {
	sub := t.connect()
	sub.subscribe(t.topic("a"), 2)
	pub := t.connect(as(t.id("p")), t.lasting(600))
	p := message(t.topic("a"), 2, "once")
	p.ID = 9
	pub.send(p)
	pub.expectAck(rawmqtt.PUBREC, 9)
	for range 2 { // the client did not see PUBREC
		pub.drop()
		pub = t.connect(as(t.id("p")), resume, t.lasting(600))
		if !pub.ack.SessionPresent {
			t.Fatal("no session is present")
		}
		p.Dup = true
		pub.send(p)
		pub.expectAck(rawmqtt.PUBREC, 9)
	}
	for range 2 { // the client did not see PUBCOMP
		pub.send(ack(rawmqtt.PUBREL, 9))
		pub.expectAck(rawmqtt.PUBCOMP, 9)
		pub.drop()
		pub = t.connect(as(t.id("p")), resume, t.lasting(600))
	}
	sub.want(t.topic("a"), "once")
	sub.nothing(pub)
	p.Dup = false
	pub.publish(p) // the identifier is free again
	sub.want(t.topic("a"), "once")
}

// A clean session knows no identifiers of the one before.
func qos2Clean(t *T) {
	sub := t.connect()
	sub.subscribe(t.topic("a"), 2)
	pub := t.connect(as(t.id("p")), t.lasting(600))
	p := message(t.topic("a"), 2, "first")
	p.ID = 9
	pub.send(p)
	pub.expectAck(rawmqtt.PUBREC, 9)
	pub.drop()
	pub = t.connect(as(t.id("p")))
	q := message(t.topic("a"), 2, "second")
	q.ID = 9
	pub.publish(q)
	for got := ""; got != "second"; { // whether the first is delivered is the server's choice
		got = string(sub.receive().Payload)
	}
	sub.nothing(pub)
}

func pubrelUnknown(t *T) {
	c := t.connect()
	c.send(ack(rawmqtt.PUBREL, 999))
	if a := c.expectAck(rawmqtt.PUBCOMP, 999); t.v == v5 && a.Code != 0x92 && a.Code != 0 {
		t.Fatalf("PUBCOMP with code 0x%02x", a.Code)
	}
	c.ping()
}

// Acknowledgements that answer nothing do no harm.
func acksUnknown(t *T) {
	c := t.connect()
	c.send(ack(rawmqtt.PUBACK, 5), ack(rawmqtt.PUBCOMP, 6), &rawmqtt.Pingreq{})
	for {
		p, err := c.Next(c.until)
		if errors.Is(err, rawmqtt.ErrClosed) {
			t.Log("the connection is ended") // allowed, and unkind
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		switch p := p.(type) {
		case *rawmqtt.Disconnect:
			c.oneOf("DISCONNECT", p.Code, []byte{0x82})
			return
		case *rawmqtt.Pingresp:
			return
		}
		t.Fatalf("got %s", rawmqtt.Describe(p))
	}
}

// Towards a subscriber: identifiers that are not zero and not in use, the same
// through the exchange, and nothing again while the connection lives.
func serverIdentifiers(t *T) {
	sub, pub := t.connect(), t.connect()
	sub.subscribe(t.topic("a"), 2)
	var got []*rawmqtt.Publish
	for i := range 10 {
		pub.publish(message(t.topic("a"), byte(1+i%2), fmt.Sprint(i)))
	}
	for range 10 {
		got = append(got, sub.take()) // the judge knows what is in use
	}
	for i := len(got) - 1; i >= 0; i-- { // answered in the wrong order
		sub.answer(got[i])
	}
	sub.nothing(pub)
}

// What was not answered comes again when the session goes on, and only then: in
// its order, with its identifiers, with DUP.
func redelivery(t *T) {
	pub := t.connect()
	sub := t.connect(as(t.id("s")), t.lasting(600))
	sub.subscribe(t.topic("a"), 2)
	for i := range 6 {
		pub.publish(message(t.topic("a"), byte(1+i%2), fmt.Sprint(i)))
	}
	var first []*rawmqtt.Publish
	for range 6 {
		first = append(first, sub.take())
	}
	sub.send(ack(rawmqtt.PUBACK, first[0].ID), ack(rawmqtt.PUBREC, first[1].ID))
	sub.expectAck(rawmqtt.PUBREL, first[1].ID)
	for round := range 2 {
		if round == 0 {
			sub.drop()
		} else {
			sub.leave()
		}
		sub = t.connect(as(t.id("s")), resume, t.lasting(600))
		if !sub.ack.SessionPresent {
			t.Fatal("no session is present")
		}
		sub.expectAck(rawmqtt.PUBREL, first[1].ID) // and not its PUBLISH
		for i, p := range first[2:] {
			got := sub.take()
			if got.ID != p.ID || !got.Dup || string(got.Payload) != fmt.Sprint(i+2) || got.QoS != p.QoS || sub.Topic(got) != t.topic("a") {
				t.Fatalf("round %d: %s comes again as %s", round, rawmqtt.Describe(p), rawmqtt.Describe(got))
			}
			if round == 1 {
				sub.answer(got)
			}
		}
	}
	sub.send(ack(rawmqtt.PUBCOMP, first[1].ID))
	sub.nothing(pub)
	sub.drop()
	sub = t.connect(as(t.id("s")), resume, t.lasting(0))
	sub.nothing(pub)
}

// While the connection lives nothing is sent again, however long it takes.
func noRetryWhileConnected(t *T) {
	sub, pub := t.connect(), t.connect()
	sub.subscribe(t.topic("a"), 2)
	pub.publish(message(t.topic("a"), 1, "one"))
	pub.publish(message(t.topic("a"), 2, "two"))
	one, two := sub.take(), sub.take()
	if p, err := sub.Next(3 * time.Second); !errors.Is(err, rawmqtt.ErrNothing) {
		t.Fatalf("%v came while nothing was due: %v", p, err)
	}
	sub.answer(one)
	sub.answer(two)
}

// A refusal by the subscriber ends the exchange: nothing comes again.
func negativeAck(t *T) {
	pub := t.connect()
	sub := t.connect(as(t.id("s")), t.lasting(600))
	sub.subscribe(t.topic("a"), 2)
	for qos := byte(1); qos <= 2; qos++ {
		pub.publish(message(t.topic("a"), qos, "no"))
		kind := rawmqtt.PUBACK
		if qos == 2 {
			kind = rawmqtt.PUBREC
		}
		sub.send(&rawmqtt.Ack{Kind: kind, ID: sub.take().ID, Code: 0x97})
	}
	sub.ping()
	sub.drop()
	sub = t.connect(as(t.id("s")), resume, t.lasting(0))
	sub.nothing(pub)
}

// After a negative PUBREC the identifier is free: its next PUBLISH is another
// message.
func negativePubrec(t *T) {
	c := t.connect()
	p := message("$SYS/"+t.topic("a"), 2, "not taken")
	p.ID = 5
	if c.tryPublish(p) < 0x80 {
		t.Skip("the server takes what it drops")
	}
	c.subscribe(t.topic("a"), 2)
	p = message(t.topic("a"), 2, "taken")
	p.ID = 5
	c.publish(p)
	c.want(t.topic("a"), "taken")
}

// PUBREC of an unknown message: PUBREL 0x92, in MQTT 3.1.1 any PUBREL or nothing.
func pubrecUnknown(t *T) {
	c := t.connect(as(t.id("a")), t.lasting(600)) // the judge lets a session resume anything
	c.drop()
	c = t.connect(as(t.id("a")), resume, t.lasting(0))
	c.send(ack(rawmqtt.PUBREC, 4242))
	for {
		p, err := c.Next(c.until)
		if errors.Is(err, rawmqtt.ErrClosed) {
			t.Log("the connection is ended")
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		switch p := p.(type) {
		case *rawmqtt.Ack:
			if p.Kind != rawmqtt.PUBREL || p.ID != 4242 || t.v == v5 && p.Code != 0x92 && p.Code != 0 {
				t.Fatalf("got %s", rawmqtt.Describe(p))
			}
			c.send(ack(rawmqtt.PUBCOMP, 4242))
			c.ping()
			return
		case *rawmqtt.Disconnect:
			c.oneOf("DISCONNECT", p.Code, []byte{0x82})
			return
		}
	}
}

// Receive Maximum of the client: no more than it takes, and the rest when there
// is room; everything else goes on.
func receiveMaximumOfClient(t *T) {
	for _, most := range []int{1, 3} {
		sub := t.connect(with(num(rawmqtt.ReceiveMaximum, uint32(most))))
		pub := t.connect()
		topic := t.topic(fmt.Sprint("r", most))
		sub.subscribe(topic, 2)
		for i := range 8 {
			pub.publish(message(topic, byte(1+i%2), fmt.Sprint(i)))
		}
		var held []*rawmqtt.Publish
		for range most {
			held = append(held, sub.take())
		}
		sub.ping() // the judge counts; packets other than PUBLISH are not held back
		sub.subscribe(t.topic("other"), 0)
		pub.publish(message(t.topic("other"), 0, "free"))
		sub.want(t.topic("other"), "free")
		for i := range 8 {
			if string(held[0].Payload) != fmt.Sprint(i) {
				t.Fatalf("message %d is %q", i, held[0].Payload)
			}
			sub.answer(held[0])
			held = held[1:]
			if i+most < 8 {
				held = append(held, sub.take())
			}
		}
		sub.nothing(pub)
	}
}

// Receive Maximum of the server: one more than it takes ends the connection with
// 0x93. QoS 2 counts until PUBCOMP.
func receiveMaximumOfServer(t *T) {
	c := t.connect()
	most := int(c.ack.Properties.Num(rawmqtt.ReceiveMaximum, 65535))
	if most == 65535 {
		t.Skip("the server takes as many as there are identifiers")
	}
	for i := range most + 1 {
		if err := c.Send(&rawmqtt.Publish{Topic: t.topic("a"), QoS: 2, ID: uint16(i + 1), Payload: []byte("x")}); err != nil {
			t.Logf("after %d: %v", i, err)
			break
		}
	}
	c.told(0x93)
	c = t.connect() // the whole window may be used, again and again
	for range 2 {
		sent := []packet{}
		for i := range most {
			sent = append(sent, &rawmqtt.Publish{Topic: t.topic("a"), QoS: 2, ID: uint16(i + 1), Payload: []byte("x")})
		}
		c.send(sent...)
		c.complete(sent)
	}
}

// MQTT 3.1.1 has no Receive Maximum: many open exchanges of QoS 2 are read on, so
// that they can end.
func manyOpen(t *T) {
	c := t.connect()
	sent := []packet{}
	for i := range 4000 {
		sent = append(sent, &rawmqtt.Publish{Topic: t.topic("a"), QoS: 2, ID: uint16(i + 1), Payload: []byte("x")})
	}
	c.send(sent...)
	c.complete(sent)
	c.ping()
}

// Message expiry touches no exchange that has begun.
func expiryDuringExchange(t *T) {
	sub, pub := t.connect(), t.connect()
	sub.subscribe(t.topic("a"), 2)
	pub.publish(message(t.topic("a"), 2, "x", num(rawmqtt.MessageExpiry, 1)))
	got := sub.take()
	p := message(t.topic("a"), 2, "y", num(rawmqtt.MessageExpiry, 1))
	p.ID = 20
	pub.send(p)
	pub.expectAck(rawmqtt.PUBREC, 20)
	after(2100 * time.Millisecond)
	sub.send(ack(rawmqtt.PUBREC, got.ID))
	sub.expectAck(rawmqtt.PUBREL, got.ID)
	sub.send(ack(rawmqtt.PUBCOMP, got.ID))
	pub.send(ack(rawmqtt.PUBREL, 20))
	pub.expectAck(rawmqtt.PUBCOMP, 20)
}

// The server's answers come before what it delivers to the same client.
func ackBeforeDelivery(t *T) {
	c := t.connect()
	c.subscribe(t.topic("a"), 2)
	c.send(&rawmqtt.Publish{Topic: t.topic("a"), QoS: 1, ID: 11, Payload: []byte("one")})
	if a, ok := c.next().(*rawmqtt.Ack); !ok || a.Kind != rawmqtt.PUBACK {
		t.Fatal("the message came before its PUBACK")
	}
	c.want(t.topic("a"), "one")
	c.send(&rawmqtt.Publish{Topic: t.topic("a"), QoS: 2, ID: 12, Payload: []byte("two")})
	if a, ok := c.next().(*rawmqtt.Ack); !ok || a.Kind != rawmqtt.PUBREC {
		t.Fatal("the message came before its PUBREC")
	}
	c.ping() // and not before its PUBREL
	if len(c.inbox) > 0 {
		t.Fatal("the message came before its PUBREL")
	}
	c.send(ack(rawmqtt.PUBREL, 12))
	if a, ok := c.next().(*rawmqtt.Ack); !ok || a.Kind != rawmqtt.PUBCOMP {
		t.Fatal("the message came before its PUBCOMP")
	}
	c.want(t.topic("a"), "two")
}
