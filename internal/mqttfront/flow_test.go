package mqttfront

import (
	"strings"
	"testing"
)

func TestReceiveMaximum(t *testing.T) {
	h := newFake()
	h.publish = h.hold
	h.connect = nil
	s := start(t, h, Options{MaxInflightMessages: 3})
	c := connect(t, s.addr, connectOptions{id: "a"})
	session := h.session(t, 0)
	for i := range 3 {
		c.publish("t", i+1, "x")
	}
	h.await(t, "messages", func() bool { return len(session.settle) == 3 })
	session.settle[0](Result{})
	c.expectAck(1, 0)
	c.publish("t", 1, "x") // the window has room as soon as the client knows
	c.publish("t", 0, "x") // QoS 0 does not count
	c.ping()
	c.publish("t", 4, "x")
	c.expectDisconnect(ReceiveMaximumExceeded)
	if n := s.Stats().ProtocolErrors["receive_maximum"]; n != 1 {
		t.Errorf("counted %d", n)
	}
}

// A client of MQTT 3.1.1, which knows no window, is not read while it is full.
func TestOldClientStalls(t *testing.T) {
	h := newFake()
	h.publish = h.hold
	s := start(t, h, Options{MaxInflightMessages: 3})
	c := connect(t, s.addr, connectOptions{id: "a", version: 4})
	session := h.session(t, 0)
	for i := range 10 {
		c.publish("t", i+1, "x")
	}
	eventually(t, "a stall", func() bool { return s.Stats().Stalls > 0 })
	if st := s.Stats(); st.InflightMessages != 3 {
		t.Fatalf("%d in flight, bound 3", st.InflightMessages)
	}
	for i := range 10 {
		h.await(t, "a message", func() bool { return len(session.settle) > i })
		h.mu.Lock()
		settle := session.settle[i]
		h.mu.Unlock()
		settle(Result{})
		c.expectAck(i+1, 0)
	}
	c.ping()
}

// A stall lasts for half the keep alive at most.
func TestStallEnds(t *testing.T) {
	for _, version := range []byte{4, 5} {
		h := newFake()
		h.publish = h.hold
		s := start(t, h, Options{MaxInflightBytes: 2000})
		c := connect(t, s.addr, connectOptions{id: "a", version: version, keepAlive: 1})
		for i := range 10 {
			c.publish("t", i+1, strings.Repeat("x", 300))
		}
		if version == 5 {
			c.expectDisconnect(QuotaExceeded)
		} else {
			c.expectEnd()
		}
		if st := s.Stats(); st.StallTimeouts != 1 || st.MessagesIn != 3 {
			t.Errorf("%+v", st)
		}
	}
}

// What the Welcome granted never stops the reader.
func TestWelcomeRaisesTheBound(t *testing.T) {
	h := newFake()
	h.publish = h.hold
	s := start(t, h, Options{MaxInflightBytes: 1000, MaxPacketSize: 1 << 20})
	s.handler = welcoming{h, Welcome{ReceiveMaximum: 8, MaximumPacketSize: 10_000}}
	c := connect(t, s.addr, connectOptions{id: "a"})
	for i := range 8 {
		c.publish("t", i+1, strings.Repeat("x", 9900))
	}
	c.ping()
	if st := s.Stats(); st.Stalls != 0 || st.InflightMessages != 8 {
		t.Errorf("%+v", st)
	}
}

// The bound over all clients makes the second wait until the first has room,
// but lets each have one message.
func TestTotalBound(t *testing.T) {
	h := newFake()
	h.publish = h.hold
	s := start(t, h, Options{MaxTotalBytes: 3000})
	a := connect(t, s.addr, connectOptions{id: "a", version: 4})
	b := connect(t, s.addr, connectOptions{id: "b", version: 4})
	sa, sb := h.session(t, 0), h.session(t, 1)
	for i := range 2 {
		a.publish("t", i+1, strings.Repeat("x", 1000))
	}
	h.await(t, "messages of a", func() bool { return len(sa.settle) == 2 })
	for i := range 2 {
		b.publish("t", i+1, strings.Repeat("x", 1000))
	}
	h.await(t, "the first of b", func() bool { return len(sb.settle) == 1 })
	eventually(t, "b stalls", func() bool { return s.Stats().Stalls == 1 })
	sa.settle[0](Result{})
	a.expectAck(1, 0)
	sa.settle[1](Result{})
	a.expectAck(2, 0)
	h.await(t, "the second of b", func() bool { return len(sb.settle) == 2 })
}

func TestKeepAlive(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{})
	c := connect(t, s.addr, connectOptions{id: "a", keepAlive: 1})
	c.ping()
	c.expectDisconnect(KeepAliveTimeout)
	if st := s.Stats(); st.ProtocolErrors["keep_alive"] != 1 {
		t.Errorf("%+v", st)
	}
}
