package conformance

import (
	"fmt"
	"time"

	"github.com/packetboat/packetboat/internal/rig/rawmqtt"
)

// A session that lasts is present when its client returns, with subscriptions
// and with what waited; a clean start ends it.
func sessionLasts(t *T) {
	pub := t.connect()
	id := t.id("s")
	sub := t.connect(as(id), resume, t.lasting(600)) // none was there
	if sub.ack.SessionPresent {
		t.Fatal("a session of a new client is present")
	}
	sub.subscribe(t.topic("#"), 2)
	sub.leave()
	pub.publish(message(t.topic("zero"), 0, "0"))
	for qos := byte(1); qos <= 2; qos++ {
		for i := range 5 {
			pub.publish(message(t.topic(fmt.Sprint("q", qos)), qos, fmt.Sprint(i)))
		}
	}
	sub = t.connect(as(id), resume, t.lasting(600))
	if !sub.ack.SessionPresent {
		t.Fatal("the session is not present")
	}
	p := sub.receive()
	if string(p.Payload) == "0" && sub.Topic(p) == t.topic("zero") { // a server may keep QoS 0
		p = sub.receive()
	}
	for qos := byte(1); qos <= 2; qos++ {
		for i := range 5 {
			if sub.Topic(p) != t.topic(fmt.Sprint("q", qos)) || string(p.Payload) != fmt.Sprint(i) || p.QoS != qos || p.Dup || p.Retain {
				t.Fatalf("got %s, want message %d of QoS %d", rawmqtt.Describe(p), i, qos)
			}
			if qos < 2 || i < 4 {
				p = sub.receive()
			}
		}
	}
	pub.publish(message(t.topic("live"), 1, "x"))
	sub.want(t.topic("live"), "x")
	sub.drop() // without DISCONNECT it lasts as well
	sub = t.connect(as(id), resume, t.lasting(600))
	if !sub.ack.SessionPresent {
		t.Fatal("the session is not present after a break")
	}
}

func cleanStart(t *T) {
	pub := t.connect()
	id := t.id("s")
	sub := t.connect(as(id), t.lasting(600))
	sub.subscribe(t.topic("a"), 1)
	sub.leave()
	pub.publish(message(t.topic("a"), 1, "waits"))
	sub = t.connect(as(id)) // the judge wants Session Present 0
	sub.nothing(pub)
	pub.publish(message(t.topic("a"), 1, "not subscribed"))
	sub.nothing(pub)
	sub.leave()
	if sub = t.connect(as(id), resume, t.lasting(0)); sub.ack.SessionPresent {
		t.Fatal("a session outlived its connection")
	}
}

// Sessions belong to client identifiers, to the last character.
func sessionsApart(t *T) {
	a := t.connect(as(t.id("a")), t.lasting(600))
	a.subscribe(t.topic("a"), 1)
	a.leave()
	for _, other := range []string{"A", "a ", " a", "aa", ""} {
		if c := t.connect(as(t.id(other)), resume, t.lasting(0)); c.ack.SessionPresent {
			t.Fatalf("%q has the session of %q", other, "a")
		}
	}
}

// MQTT 5: a session ends its expiry interval after its connection, and not
// before.
func sessionExpiry(t *T) {
	id := t.id("e")
	c := t.connect(as(id), t.lasting(3))
	c.subscribe(t.topic("a"), 1)
	c.leave()
	after(time.Second)
	c = t.connect(as(id), resume, t.lasting(1))
	if !c.ack.SessionPresent {
		t.Fatal("the session ended too early")
	}
	c.leave()
	after(3 * time.Second)
	if c = t.connect(as(id), resume, t.lasting(0)); c.ack.SessionPresent {
		t.Fatal("the session did not end")
	}
	c.leave()
	if c = t.connect(as(id), resume); c.ack.SessionPresent {
		t.Fatal("a session with expiry 0 did not end with its connection")
	}
}

// DISCONNECT may change the interval, down to an end at once, and up.
func expiryAtDisconnect(t *T) {
	id := t.id("e")
	c := t.connect(as(id), t.lasting(1))
	c.subscribe(t.topic("a"), 1)
	c.leave(num(rawmqtt.SessionExpiry, 999_999_999))
	after(2500 * time.Millisecond)
	c = t.connect(as(id), resume, t.lasting(99_999))
	if !c.ack.SessionPresent {
		t.Fatal("DISCONNECT did not prolong the session")
	}
	c.leave(num(rawmqtt.SessionExpiry, 0))
	if c = t.connect(as(id), resume, t.lasting(0)); c.ack.SessionPresent {
		t.Fatal("DISCONNECT did not end the session")
	}
}

// From 0 the interval cannot be raised.
func expiryFromZero(t *T) {
	id := t.id("z")
	c := t.connect(as(id))
	c.send(&rawmqtt.Disconnect{Properties: props{num(rawmqtt.SessionExpiry, 100)}})
	c.refused(0x82)
	if c = t.connect(as(id), resume); c.ack.SessionPresent {
		t.Fatal("the session lasts all the same")
	}
}

// What the server makes of a wish stands in CONNACK.
func expirySaid(t *T) {
	for _, wish := range []uint32{10, 100_000, 1<<32 - 1} {
		c := t.connect(t.lasting(wish))
		if said := c.ack.Properties.Num(rawmqtt.SessionExpiry, wish); said > wish || said == 0 {
			t.Errorf("for %d s CONNACK says %d", wish, said)
		}
		c.leave(num(rawmqtt.SessionExpiry, 0))
	}
}

// A session is not discarded while its connection is open, however short its
// interval.
func sessionOpen(t *T) {
	c := t.connect(t.lasting(1))
	c.subscribe(t.topic("a"), 1)
	after(2500 * time.Millisecond)
	c.publish(message(t.topic("a"), 1, "x"))
	c.want(t.topic("a"), "x")
}

// DISCONNECT in each form is the end, and nothing is processed behind it.
func disconnectEnds(t *T) {
	sub := t.connect()
	sub.subscribe(t.topic("a"), 1)
	for _, d := range []*rawmqtt.Disconnect{{}, {Full: true}, {Code: 0, Properties: props{str(rawmqtt.ReasonString, "bye"), user("a", "b")}}} {
		c := t.connect()
		c.send(d, message(t.topic("a"), 0, "too late"))
		c.ended()
	}
	sub.nothing(t.connect())
}

func disconnectCodes(t *T) {
	for _, code := range []byte{0x05, 0x8B, 0x8E, 0xFF} {
		c := t.connect()
		c.send(&rawmqtt.Disconnect{Code: code})
		c.refused(0x81, 0x82)
	}
}

// PINGREQ is answered, many of them, one by one.
func pings(t *T) {
	c := t.connect()
	for range 3 {
		c.ping()
	}
	for range 10 {
		c.send(&rawmqtt.Pingreq{}, &rawmqtt.Pingreq{})
	}
	for range 20 {
		expect[*rawmqtt.Pingresp](c)
	}
}
