package mqttfront

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
	"time"
)

// A subscriber gets every retained message that it asks for, however many there
// are, at QoS 0 and within its window at QoS 1.
func TestRetainedAreAllSent(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{FanOut: true})
	pub := connect(t, s.addr, connectOptions{id: "pub"})
	const n = 1500
	for i := range n {
		pub.send(pub.publishPacket(fmt.Sprint("r/", i), i+1, flagRetain, fmt.Sprint("value ", i)))
		pub.expectAck(i+1, 0)
	}
	eventually(t, "all are kept", func() bool { return s.Stats().FanOut == n })
	for _, version := range []byte{4, 5} {
		for _, qos := range []byte{0, 1} {
			sub := connect(t, s.addr, connectOptions{id: "sub", version: version})
			if got := sub.subscribe(9, "r/#", qos); got != qos {
				t.Fatalf("SUBACK 0x%02x", got)
			}
			seen := make(map[string]bool)
			for range n {
				body := sub.expect(0x31 | qos<<1)
				end := 2 + int(binary.BigEndian.Uint16(body))
				seen[string(body[2:end])] = true
				if qos > 0 {
					sub.send(packet(typePuback<<4, body[end:end+2]))
				}
			}
			sub.ping() // and no more
			if len(seen) != n {
				t.Errorf("version %d, QoS %d: %d topics, want %d", version, qos, len(seen), n)
			}
			sub.Close()
		}
	}
	if d := s.Stats().FanOutDropped; len(d) != 0 {
		t.Errorf("dropped %v", d)
	}
}

// Retain handling, no local and subscription identifiers hold for retained
// messages. [MQTT-3.3.1-9,10,11]
func TestRetainHandling(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{FanOut: true})
	c := connect(t, s.addr, connectOptions{id: "c"})
	c.send(c.publishPacket("r", 1, flagRetain, "kept"))
	c.expectAck(1, 0)
	eventually(t, "kept", func() bool { return s.Stats().Retained == 1 })
	gets := func(what string, want bool, filter string, options byte) {
		t.Helper()
		c.subscribe(2, filter, options)
		if want {
			if body := c.expect(0x31); !bytes.HasSuffix(body, []byte("kept")) {
				t.Errorf("%s: % x", what, body)
			}
		}
		c.ping()
	}
	gets("handling 1, new", true, "r", 1<<4)
	gets("handling 1, known", false, "r", 1<<4)
	gets("handling 0, known", true, "r", 0)
	gets("handling 2", false, "+", 2<<4)
	gets("no local", false, "#", 1<<2)
	gets("shared", false, "$share/g/r", 0)
	c.send(packet(typeSubscribe<<4|2, u16(3), []byte{2, 0x0b, 7}, str("r"), []byte{0}))
	c.expect(0x90)
	if body := c.expect(0x31); !bytes.Contains(body, []byte{2, 0x0b, 7}) {
		t.Errorf("subscription identifier is missing: % x", body)
	}
}

// What retained messages cost counts: properties and levels too.
func TestRetainedCost(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{FanOut: true})
	c := connect(t, s.addr, connectOptions{id: "c"})
	big := userProp("k", string(bytes.Repeat([]byte("v"), 60_000)))
	n := 0
	for ; s.Stats().FanOutDropped["retained_full"] == 0; n++ {
		if n*60_000 > 2*maxRetainedBytes {
			t.Fatalf("%d messages of 60 kB are retained", n)
		}
		c.send(c.publishPacket(fmt.Sprint("r/", n), 1, flagRetain, "p", big...))
		c.expectAck(1, 0)
	}
	deep := fanItem{pub: Publish{Topic: string(bytes.Repeat([]byte("/"), maxLevels-1)), Payload: []byte("p")}}
	if got := keptSize(&deep); got < maxLevels*levelCost {
		t.Errorf("a topic of %d levels costs %d", maxLevels, got)
	}
}

// Messages that subscribers do not acknowledge are bounded in bytes; those that
// owe most lose theirs.
func TestUndeliveredAreBounded(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{FanOut: true})
	debtor := connect(t, s.addr, connectOptions{id: "debtor", persist: true, props: []byte{0x11, 0, 0, 0, 60}})
	debtor.subscribe(1, "big/#", 1)
	debtor.Close()
	other := connect(t, s.addr, connectOptions{id: "other"})
	other.subscribe(1, "big/0", 1)
	pub := connect(t, s.addr, connectOptions{id: "pub"})
	payload := string(make([]byte, 250_000))
	held := func(id string) (n int) {
		cl, _ := s.engine.Clients.Get(id)
		for _, pk := range cl.State.Inflight.GetAll(false) {
			n += len(pk.Payload)
		}
		return n
	}
	for i := range 2 * maxOwed / len(payload) {
		pub.publish(fmt.Sprint("big/", i), 1, payload)
		pub.expectAck(1, 0)
	}
	eventually(t, "handled", func() bool { return s.fan.bytes.Load() == 0 })
	pub.publish("end", 1, "")
	pub.expectAck(1, 0)
	if n := held("debtor"); n > maxOwed {
		t.Errorf("%d bytes wait for one client", n)
	}
	if held("other") != len(payload) || s.Stats().FanOutDropped["undelivered_full"] == 0 {
		t.Errorf("other holds %d, dropped %v", held("other"), s.Stats().FanOutDropped)
	}
}

// A message larger than a subscriber allows takes no place in its window and
// does not keep it from resuming its session. [MQTT-3.1.2-25]
func TestSubscriberPacketLimit(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{FanOut: true})
	o := connectOptions{id: "small", persist: true, props: []byte{0x11, 0, 0, 0, 60, 0x27, 0, 0, 0, 50}}
	sub := connect(t, s.addr, o)
	sub.subscribe(1, "t", 1)
	pub := connect(t, s.addr, connectOptions{id: "pub"})
	for i := range maxOutInflight + 1 {
		pub.publish("t", i+1, string(make([]byte, 100)))
		pub.expectAck(i+1, 0)
	}
	pub.publish("t", 100, "fits")
	pub.expectAck(100, 0)
	if body := sub.expect(0x32); !bytes.HasSuffix(body, []byte("fits")) {
		t.Errorf("got % x", body)
	}
	sub.Close()
	eventually(t, "gone", func() bool { return s.Clients() == 1 })
	pub.publish("t", 1, string(make([]byte, 30)))
	pub.expectAck(1, 0)
	eventually(t, "delivered", func() bool { return s.Stats().FanOut == maxOutInflight+3 })
	o.props[len(o.props)-1] = 25 // back with a lower limit
	sub = connect(t, s.addr, o)
	sub.expect(0x3A) // "fits"
	sub.ping()
}

// Towards subscribers topics are never replaced by aliases.
func TestNoAliasesToSubscribers(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{FanOut: true})
	o := connectOptions{id: "sub", persist: true, props: []byte{0x11, 0, 0, 0, 60, 0x22, 0, 10}}
	sub := connect(t, s.addr, o)
	sub.subscribe(1, "t", 1)
	pub := connect(t, s.addr, connectOptions{id: "pub"})
	for i := range 2 {
		pub.publish("t", i+1, "x")
		pub.expectAck(i+1, 0)
		if body := sub.expect(0x32); body[1] != 1 || body[2] != 't' {
			t.Errorf("message %d without topic: % x", i, body)
		}
	}
	sub.Close()
	eventually(t, "gone", func() bool { return s.Clients() == 1 })
	sub = connect(t, s.addr, o)
	for range 2 {
		if body := sub.expect(0x3A); body[1] != 1 || body[2] != 't' {
			t.Errorf("resent without topic: % x", body)
		}
	}
}

// The levels of all filters are bounded, and come back.
func TestFilterLevelsAreBounded(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{FanOut: true})
	deep := string(bytes.Repeat([]byte("/"), maxLevels-1))
	var code byte
	for i := 0; code != QuotaExceeded; i++ {
		if i > 2*maxTotalLevels/maxLevels/maxSubscriptions {
			t.Fatal("no bound")
		}
		c := connect(t, s.addr, connectOptions{id: fmt.Sprint("c", i)})
		for j := 0; j < maxSubscriptions && code == 0; j++ {
			code = c.subscribe(1, fmt.Sprint(j)+deep, 0)
		}
		defer c.Close()
	}
	all := s.engine.Clients.GetAll()
	for _, cl := range all {
		s.engine.UnsubscribeClient(cl)
		for filter := range cl.State.Subscriptions.GetAll() {
			cl.State.Subscriptions.Delete(filter)
		}
	}
	s.forgetSessions(time.Now(), nil)
	if n := s.levels.Load(); n != 0 {
		t.Errorf("%d levels are left", n)
	}
}
