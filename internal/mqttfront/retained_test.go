package mqttfront

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
	"testing"
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

// What retained messages cost counts: properties too, and each topic.
func TestRetainedCost(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{FanOut: true, MaxRetainedBytes: 1 << 20, MaxRetained: 100})
	c := connect(t, s.addr, connectOptions{id: "c"})
	retain := func(topic, payload string, props ...byte) bool {
		t.Helper()
		before := s.Stats().FanOutDropped["retained_full"]
		c.send(c.publishPacket(topic, 1, flagRetain, payload, props...))
		c.expectAck(1, 0)
		return s.Stats().FanOutDropped["retained_full"] == before
	}
	big := userProp("k", string(bytes.Repeat([]byte("v"), 60_000)))
	n := 0
	for ; retain(fmt.Sprint("r/", n), "p", big...); n++ {
		if n > 20 {
			t.Fatalf("%d messages of 60 kB are retained", n)
		}
	}
	if n < 10 {
		t.Errorf("only %d are retained", n)
	}
	if !retain("r/0", "another", big...) || retain("r/0", "larger", append(big, big...)...) {
		t.Error("a message in place of an equal one, or of a smaller one")
	}
	if !retain("r/0", "") || !retain("s", "small", big[:0]...) {
		t.Error("no room after one was cleared")
	}
	for i := range n {
		retain(fmt.Sprint("r/", i), "")
	}
	for i := range 99 {
		if !retain(fmt.Sprint("t/", i), "x") {
			t.Fatalf("topic %d is not retained", i)
		}
	}
	if retain("one/more", "x") || retain(string(bytes.Repeat([]byte("/"), 64)), "x") {
		t.Error("more topics, or more levels, than allowed")
	}
	for _, l := range []limit{limitRetained, limitRetainedBytes, limitTopicLevels} {
		if s.n.limits[l].Load() == 0 {
			t.Errorf("limit %s was hit and not counted", limitTexts[l].name)
		}
	}
	retain("s", "")
	for i := range 99 {
		retain(fmt.Sprint("t/", i), "")
	}
	eventually(t, "nothing is kept", func() bool { return s.Stats().Retained == 0 })
	if k := s.local.kept; k.bytes != 0 || len(k.topics)+len(k.order)+len(k.intents) != 0 {
		t.Errorf("%d bytes, %d topics are left", k.bytes, len(k.topics))
	}
}

// Messages that subscribers do not acknowledge are bounded in bytes; those that
// owe most lose theirs.
func TestUndeliveredAreBounded(t *testing.T) {
	h := newFake()
	const bound = 4 << 20
	s := start(t, h, Options{FanOut: true, MaxQueuedBytes: bound})
	debtor := connect(t, s.addr, connectOptions{id: "debtor", persist: true, props: []byte{0x11, 0, 0, 0, 60}})
	debtor.subscribe(1, "big/#", 1)
	debtor.Close()
	other := connect(t, s.addr, connectOptions{id: "other"})
	other.subscribe(1, "big/0", 1)
	pub := connect(t, s.addr, connectOptions{id: "pub"})
	payload := string(make([]byte, 250_000))
	n := int64(2 * bound / len(payload))
	for i := range n {
		pub.publish(fmt.Sprint("big/", i), 1, payload)
		pub.expectAck(1, 0)
	}
	eventually(t, "handled", func() bool { return s.Stats().FanOut == n })
	if st := s.Stats(); st.QueuedBytes > bound || st.QueuedBytes < bound/2 || st.FanOutDropped["undelivered_full"] == 0 || s.n.limits[limitQueuedBytes].Load() == 0 {
		t.Errorf("%d bytes wait, dropped %v", st.QueuedBytes, st.FanOutDropped)
	}
	body := other.expect(0x32)
	other.send(packet(typePuback<<4, body[7:9]))
	other.ping()
	debtor = connect(t, s.addr, connectOptions{id: "debtor", persist: true})
	body = debtor.expect(0x32)
	first, _ := strconv.Atoi(string(body[6 : 2+int(body[1])]))
	for i := int64(first); ; i++ {
		at := 2 + int(body[1])
		if topic := string(body[2:at]); topic != fmt.Sprint("big/", i) {
			t.Errorf("got %s, want big/%d: the oldest are lost, no other", topic, i)
		}
		debtor.send(packet(typePuback<<4, body[at:at+2]))
		if i == n-1 {
			break
		}
		body = debtor.expect(0x32)
	}
	debtor.ping()
	if st := s.Stats(); st.QueuedBytes != 0 || st.QueuedMessages != 0 {
		t.Errorf("%d bytes wait in %d messages", st.QueuedBytes, st.QueuedMessages)
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
