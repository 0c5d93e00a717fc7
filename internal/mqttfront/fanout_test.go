package mqttfront

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// Local subscribers see a message after it was settled with success, not before
// and not otherwise.
func TestFanOutAfterSettle(t *testing.T) {
	h := newFake()
	h.publish = h.hold
	s := start(t, h, Options{FanOut: true})
	sub := connect(t, s.addr, connectOptions{id: "sub", version: 4})
	if got := sub.subscribe(1, "v/+/temp", 1); got != 1 {
		t.Fatalf("SUBACK 0x%02x", got)
	}
	pub := connect(t, s.addr, connectOptions{id: "pub"})
	session := h.session(t, 1)
	for i := range 5 {
		pub.publish("v/1/temp", i+1, fmt.Sprint("m", i))
	}
	pub.publish("v/1/speed", 6, "other")
	h.await(t, "messages", func() bool { return len(session.settle) == 6 })
	sub.ping() // nothing came
	for i, r := range []Result{{}, {Code: QuotaExceeded}, {NoFanOut: true}, {Code: NoMatchingSubscribers}, {}, {}} {
		session.settle[i](r)
	}
	for i, want := range []string{"m0", "m3", "m4"} {
		body := sub.expect(0x32)
		if !bytes.HasSuffix(body, []byte(want)) {
			t.Errorf("message %d: % x, want %s", i, body, want)
		}
		sub.send(packet(typePuback<<4, body[10:12]))
	}
	sub.ping()
	eventually(t, "the last was offered", func() bool { return s.Stats().FanOut == 4 })
	if st := s.Stats(); st.Subscriptions != 1 {
		t.Errorf("%+v", st)
	}
}

func TestFanOutProperties(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{FanOut: true})
	c := connect(t, s.addr, connectOptions{id: "c"})
	c.subscribe(1, "echo/#", 0)
	props := append([]byte{propContentType}, str("json")...)
	props = append(props, userProp("k", "v")...)
	c.publish("echo/x", 1, "payload", props...)
	c.expectAck(1, 0)
	body := c.expect(0x30)
	if !bytes.Contains(body, props[:7]) || !bytes.Contains(body, userProp("k", "v")) || !bytes.HasSuffix(body, []byte("payload")) {
		t.Errorf("got % x", body)
	}
	// [MQTT-3.8.3-3]
	const noLocal = 1 << 2
	c.subscribe(2, "echo/#", noLocal)
	c.publish("echo/x", 2, "again")
	c.expectAck(2, 0)
	other := connect(t, s.addr, connectOptions{id: "other"})
	other.publish("echo/y", 1, "from the other")
	if body := c.expect(0x30); !bytes.HasSuffix(body, []byte("from the other")) {
		t.Errorf("no local: got % x", body)
	}
}

func TestRetained(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{FanOut: true})
	c := connect(t, s.addr, connectOptions{id: "c"})
	const retain = flagRetain
	c.send(c.publishPacket("r/a", 1, retain, "one"))
	c.send(c.publishPacket("r/b", 2, retain, "two"))
	c.send(c.publishPacket("r/b", 3, retain, ""))
	c.send(c.publishPacket("r/c", 4, retain, "three"))
	for i := range 4 {
		c.expectAck(i+1, 0)
	}
	eventually(t, "retained", func() bool { return s.Stats().FanOut == 4 })
	if n := s.Stats().Retained; n != 2 {
		t.Errorf("%d retained", n)
	}
	sub := connect(t, s.addr, connectOptions{id: "sub"})
	sub.subscribe(1, "r/#", 0)
	got := map[string]bool{}
	for range 2 {
		body := sub.expect(0x31)
		got[string(body[2:5])+string(body[6:])] = true
	}
	if !got["r/aone"] || !got["r/cthree"] {
		t.Errorf("got %v", got)
	}
	sub.ping()
	// A refused message is not retained.
	h.publish = func(_ *fakeSession, _ *Publish, settle Settle) { settle(Result{Code: QuotaExceeded}) }
	c.send(c.publishPacket("r/d", 5, retain, "four"))
	c.expectAck(5, QuotaExceeded)
	if n := s.Stats().Retained; n != 2 {
		t.Errorf("%d retained after a refusal", n)
	}
}

// A subscriber that does not read costs nobody else anything: not publishers
// their acknowledgements, nor other subscribers their messages.
func TestSlowSubscriber(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{FanOut: true})
	for _, qos := range []byte{0, 1} {
		slow := connect(t, s.addr, connectOptions{id: fmt.Sprint("slow", qos), keepAlive: 0})
		if err := slow.Conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
			t.Fatal(err)
		}
		slow.subscribe(1, "t", qos)
	}
	quick := connect(t, s.addr, connectOptions{id: "quick"})
	quick.subscribe(1, "last", 0)
	pub := connect(t, s.addr, connectOptions{id: "pub"})
	payload := strings.Repeat("x", 10_000)
	for i := range 3000 {
		pub.publish("t", i+1, payload)
		pub.expectAck(i+1, 0)
	}
	eventually(t, "the fan-out has nothing to do", func() bool { return s.fan.bytes.Load() == 0 })
	pub.publish("last", 3001, "end")
	pub.expectAck(3001, 0)
	if body := quick.expect(0x30); !bytes.HasSuffix(body, []byte("end")) {
		t.Errorf("got % x", body)
	}
	st := s.Stats()
	if st.FanOutDropped["slow_subscriber"]+st.FanOutDropped["queue_full"] == 0 {
		t.Errorf("nothing was dropped: %+v", st)
	}
}

// Client and server number their packets independently.
func TestPacketIdentifiersAreTwoSpaces(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{FanOut: true})
	sub := connect(t, s.addr, connectOptions{id: "sub"})
	sub.subscribe(9, "t", 1)
	pub := connect(t, s.addr, connectOptions{id: "pub"})
	pub.publish("t", 1, "x")
	body := sub.expect(0x32)
	id := int(body[3])<<8 | int(body[4])
	if got := sub.subscribe(id, "u", 1); got != 1 || id != 1 {
		t.Errorf("SUBACK 0x%02x for identifier %d", got, id)
	}
	sub.send(packet(typeUnsubscribe<<4|2, u16(id), []byte{0}, str("u")))
	if body := sub.expect(0xB0); !bytes.Equal(body, append(u16(id), 0, 0)) {
		t.Errorf("UNSUBACK % x", body)
	}
	// And a PUBLISH with that number does not make the server forget its own.
	sub.publish("v", id, "x")
	sub.expectAck(id, 0)
	if n := s.Stats().QueuedMessages; n != 1 {
		t.Errorf("%d messages on the way to the subscriber, want 1", n)
	}
	sub.send(packet(typePuback<<4, u16(id)))
	sub.ping()
	if n := s.Stats().QueuedMessages; n != 0 {
		t.Errorf("%d messages on the way after PUBACK", n)
	}
}

// The session of a client that asked for one survives its connection.
func TestSessionPresent(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{FanOut: true})
	expiry := []byte{0x11, 0, 0, 0, 60}
	for _, version := range []byte{4, 5} {
		o := connectOptions{id: fmt.Sprint("sub", version), version: version, persist: true}
		if version == 5 {
			o.props = expiry
		}
		sub := connect(t, s.addr, o)
		sub.subscribe(1, "t", 1)
		n := s.Stats().Clients
		sub.Close()
		eventually(t, "the client is gone", func() bool { return s.Stats().Clients == n-1 })
		pub := connect(t, s.addr, connectOptions{id: "pub"})
		pub.publish("t", 1, "while away")
		pub.expectAck(1, 0)
		eventually(t, "delivered", func() bool { return s.Stats().FanOut == int64(version)-3 })
		sub = dial(t, s.addr)
		if code, body := sub.connect(o); code != 0 || body[0] != 1 {
			t.Errorf("CONNACK % x, want session present", body)
		}
		if body := sub.expect(0x32); !bytes.HasSuffix(body, []byte("while away")) { // QoS 1, for the first time
			t.Errorf("got % x", body)
		}
		pub.Close()
		sub.send([]byte{typeDisconnect << 4, 0})
		sub.expectEnd()
		o.persist = false
		sub = dial(t, s.addr)
		if _, body := sub.connect(o); body[0] != 0 {
			t.Errorf("CONNACK % x after clean start", body)
		}
		sub.send([]byte{typeDisconnect << 4, 0})
		sub.expectEnd()
		eventually(t, "both are gone", func() bool { return s.Stats().Clients == 0 })
	}
}

// A subscriber's own Receive Maximum holds; what is beyond it waits.
// [MQTT-3.3.4-9]
func TestSubscriberWindow(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{FanOut: true})
	sub := connect(t, s.addr, connectOptions{id: "sub", props: []byte{0x21, 0, 2}})
	sub.subscribe(1, "t", 1)
	pub := connect(t, s.addr, connectOptions{id: "pub"})
	for i := range 5 {
		pub.publish("t", i+1, fmt.Sprint(i))
		pub.expectAck(i+1, 0)
	}
	eventually(t, "all are handled", func() bool { return s.Stats().FanOut == 5 })
	open := [][]byte{sub.expect(0x32), sub.expect(0x32)}
	for i := range 5 {
		sub.ping() // and no more than two
		if want := fmt.Sprint(i); !bytes.HasSuffix(open[0], []byte(want)) {
			t.Errorf("got % x, want %s", open[0], want)
		}
		sub.send(packet(typePuback<<4, open[0][3:5]))
		if open = open[1:]; i < 3 {
			open = append(open, sub.expect(0x32))
		}
	}
	sub.ping()
	if st := s.Stats(); st.QueuedMessages != 0 || st.QueuedBytes != 0 || len(st.FanOutDropped) != 0 {
		t.Errorf("%d messages, %d bytes wait, dropped %v", st.QueuedMessages, st.QueuedBytes, st.FanOutDropped)
	}
}

// The count of subscriptions, which decides whether messages are fanned out at
// all, comes back to 0 on every way out.
func TestSubscriptionsAreCounted(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{FanOut: true})
	want := func(n int64) {
		t.Helper()
		eventually(t, fmt.Sprint(n, " subscriptions"), func() bool { return s.Stats().Subscriptions == n })
	}
	for _, version := range []byte{4, 5} {
		o := connectOptions{id: "a", version: version}
		c := connect(t, s.addr, o)
		c.subscribe(1, "x", 0)
		c.subscribe(2, "x", 1)
		c.subscribe(3, "$share/g/y", 0)
		want(2)
		c = connect(t, s.addr, o) // clean takeover
		want(0)
		c.subscribe(1, "x", 0)
		o.persist = true
		if version == 5 {
			o.props = []byte{0x11, 0, 0, 0, 60}
		}
		c = connect(t, s.addr, o)
		c.subscribe(1, "y", 0)
		n := int64(1) // the session before ended with its connection
		want(n)
		c = connect(t, s.addr, o) // takes the session over
		want(n)
		c.subscribe(1, "z", 0)
		want(n + 1)
		c.Close()
		eventually(t, "gone", func() bool { return s.Clients() == 0 })
		want(n + 1)
		s.expireSessions(time.Now().Add(100 * time.Hour))
		want(0)
		c = connect(t, s.addr, connectOptions{id: "a", version: version})
		c.subscribe(1, "x", 0)
		c.Close()
		want(0)
		eventually(t, "gone", func() bool { return s.Clients() == 0 })
	}
}

// Without FanOut nothing is kept or delivered, and a client is told so.
func TestNoFanOut(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{})
	c := dial(t, s.addr)
	if _, body := c.connect(connectOptions{id: "a"}); !bytes.Contains(body, []byte{0x25, 0}) {
		t.Errorf("CONNACK % x does not say that retain is not available", body)
	}
	c.subscribe(1, "#", 0)
	c.publish("t", 1, "x")
	c.expectAck(1, 0)
	c.ping()
	c.send(c.publishPacket("t", 2, flagRetain, "x"))
	c.expectDisconnect(RetainNotSupported)
	c = dial(t, s.addr)
	if code, _ := c.connect(connectOptions{id: "b", willTopic: "w", will: "x", willFlags: 1 << 5}); code != RetainNotSupported {
		t.Errorf("retained will: CONNACK 0x%02x", code)
	}
}

// Who subscribes after an acknowledgement gets no message from before it as a new
// one, although the fan-out lags behind; what is retained by then comes once.
func TestSubscribeOvertakesFanOut(t *testing.T) {
	s := start(t, newFake(), Options{FanOut: true})
	first := connect(t, s.addr, connectOptions{id: "first"})
	first.subscribe(1, "r/#", 1)
	pub := connect(t, s.addr, connectOptions{id: "pub"})
	busy := s.local.all()
	busy = slices.DeleteFunc(busy, func(at *session) bool { return at.id != "first" })
	busy[0].mu.Lock() // the fan-out hangs at the first message
	pub.tell("r/a", "one", 1, flagRetain)
	pub.tell("r/b", "old", 2, flagRetain)
	pub.tell("r/b", "two", 2, flagRetain)
	pub.tell("r/a", "", 1, flagRetain)
	pub.tell("r/c", "live", 1, 0)
	late := connect(t, s.addr, connectOptions{id: "late"})
	late.subscribe(1, "r/#", 1)
	shared := connect(t, s.addr, connectOptions{id: "shared"})
	shared.subscribe(1, "$share/g/r/#", 1)
	again := connect(t, s.addr, connectOptions{id: "again"})
	again.subscribe(1, "r/c", 1)
	pub.tell("r/c", "to again", 1, 0)
	again.subscribe(2, "r/c", 0) // loses nothing [MQTT-3.8.4-4]
	busy[0].mu.Unlock()

	for _, want := range []string{"one", "old", "two", "", "live", "to again"} {
		if g := first.message(); g.payload != want || g.retain {
			t.Errorf("first: %+v, want %q", g, want)
		}
	}
	if g := late.message(); g.payload != "two" || !g.retain {
		t.Errorf("late: %+v", g)
	}
	for id, c := range map[string]*raw{"late": late, "shared": shared, "again": again} {
		if g := c.message(); g.payload != "to again" || g.retain {
			t.Errorf("%s: %+v", id, g)
		}
		c.ping()
	}
}
