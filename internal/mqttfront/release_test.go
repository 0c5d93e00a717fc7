package mqttfront

import (
	"bytes"
	"slices"
	"testing"
)

// Local subscribers get a QoS 2 message when it is released, after PUBCOMP if
// they are the sender; a retained one is retained then.
func TestQoS2IsDeliveredAtRelease(t *testing.T) {
	s, _ := stored(t, newJournal(), Options{FanOut: true})
	for _, version := range []byte{4, 5} {
		c := connect(t, s.addr, persistentOf(version))
		c.subscribe(1, "t", 0)
		c.send(c.qos2(1, "one", flagRetain))
		c.expectAnswer(typePubrec, 1, 0)
		c.send(c.qos2(1, "one", flagRetain|flagDup))
		c.expectAnswer(typePubrec, 1, 0)
		c.ping()
		if n := s.Stats().Retained; n != 0 {
			t.Fatalf("%d retained before the release", n)
		}
		c.send(pubrelPacket(1))
		c.expectAnswer(typePubcomp, 1, 0)
		if body := c.expect(0x30); !bytes.HasSuffix(body, []byte("one")) {
			t.Errorf("got % x", body)
		}
		if n := s.Stats().Retained; n != 1 {
			t.Errorf("%d retained", n)
		}
		c.send(c.qos2(2, "", flagRetain)) // clears it
		c.expectAnswer(typePubrec, 2, 0)
		c.send(pubrelPacket(2))
		c.expectAnswer(typePubcomp, 2, 0)
		c.expect(0x30)
		if st := s.Stats(); st.Retained != 0 || s.held.Load() != 0 {
			t.Errorf("%d retained, %d bytes held", st.Retained, s.held.Load())
		}
	}
}

// A restart between PUBREC and PUBREL costs a stored subscriber nothing, nor the
// retained messages.
func TestQoS2ReleaseAfterARestart(t *testing.T) {
	j := newJournal()
	s, _ := stored(t, j, Options{FanOut: true})
	o := persistent
	o.id = "sub"
	sub := connect(t, s.addr, o)
	sub.subscribe(1, "t", 1)
	c := connect(t, s.addr, persistent)
	c.send(c.qos2(1, "one", 0))
	c.expectAnswer(typePubrec, 1, 0)
	c.send(c.publishPacket("other", 2, 4|flagRetain, "two"))
	c.expectAnswer(typePubrec, 2, 0)
	c.send(c.publishPacket("other", 3, 4, "nobody waits for it"))
	c.expectAnswer(typePubrec, 3, 0)
	j = s.crash(j, 0)
	s, _ = stored(t, j, Options{FanOut: true})
	sub = connect(t, s.addr, o)
	c = connect(t, s.addr, persistent)
	for id := range 3 {
		c.send(pubrelPacket(id + 1))
		c.expectAnswer(typePubcomp, id+1, 0)
	}
	if body := sub.expect(0x32); !bytes.Contains(body, []byte("one")) {
		t.Errorf("got % x", body)
	}
	sub.subscribe(2, "other", 0)
	if body := sub.expect(0x31); !bytes.HasSuffix(body, []byte("two")) {
		t.Errorf("got % x", body)
	}
	if got := j.messages(); !slices.Equal(got, []string{"one", "two", "nobody waits for it"}) {
		t.Errorf("taken %q", got)
	}
	if n := s.held.Load(); n != 0 {
		t.Errorf("%d bytes held", n)
	}
}

// When the release cannot be made durable nobody gets the message; when it is
// sent again everybody does, once.
func TestQoS2ReleaseFailsForSubscribers(t *testing.T) {
	j := newJournal()
	s, _ := stored(t, j, Options{FanOut: true})
	sub := connect(t, s.addr, connectOptions{id: "sub"})
	sub.subscribe(1, "t", 0)
	c := connect(t, s.addr, persistent)
	c.send(c.qos2(1, "x", flagRetain))
	c.expectAnswer(typePubrec, 1, 0)
	j.setFail(errDisk)
	c.send(pubrelPacket(1))
	c.expectDisconnect(UnspecifiedError)
	j.setFail(nil)
	sub.ping()
	if n := s.Stats().Retained; n != 0 {
		t.Errorf("%d retained", n)
	}
	c = connect(t, s.addr, persistent)
	c.send(pubrelPacket(1))
	c.expectAnswer(typePubcomp, 1, 0)
	sub.expect(0x30)
	sub.ping()
	if n := s.Stats().Retained; n != 1 || len(j.keys("r/")) != 1 {
		t.Errorf("%d retained, stored %q", n, j.keys("r/"))
	}
}

// What waits for a release goes with its session.
func TestUnreleasedGoWithTheSession(t *testing.T) {
	s, _ := stored(t, newJournal(), Options{FanOut: true})
	sub := connect(t, s.addr, connectOptions{id: "sub"})
	sub.subscribe(1, "t", 0)
	c := connect(t, s.addr, connectOptions{id: "a"})
	c.send(c.qos2(1, "x", 0))
	c.expectAnswer(typePubrec, 1, 0)
	if s.held.Load() == 0 {
		t.Error("nothing is held for the release")
	}
	c.disconnect()
	eventually(t, "nothing is held", func() bool { return s.held.Load() == 0 && s.Stats().Unreleased == 0 })
	sub.ping()
}

// A message that is taken, but is not for local subscribers, is not given to them
// when it is released either.
func TestQoS2NoFanOut(t *testing.T) {
	h := newFake()
	h.publish = func(_ *fakeSession, _ *Publish, settle Settle) { settle(Result{NoFanOut: true}) }
	s := start(t, h, Options{FanOut: true})
	c := connect(t, s.addr, persistent)
	c.subscribe(1, "t", 0)
	c.send(c.qos2(1, "x", flagRetain))
	c.expectAnswer(typePubrec, 1, 0)
	c.send(pubrelPacket(1))
	c.expectAnswer(typePubcomp, 1, 0)
	c.ping()
	if n, held := s.Stats().Retained, s.held.Load(); n != 0 || held != 0 {
		t.Errorf("%d retained, %d bytes held", n, held)
	}
}

// A message that is sent again and again takes the room of one.
func TestQoS2RepeatsTakeNoRoom(t *testing.T) {
	s := start(t, newFake(), Options{})
	for _, version := range []byte{4, 5} {
		c := connect(t, s.addr, persistentOf(version))
		for range 5 {
			c.send(c.qos2(1, "x", 0))
			c.expectAnswer(typePubrec, 1, 0)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if n := c.messages.Load(); n != 0 {
			t.Errorf("version %d: %d messages in flight", c.version, n)
		}
	}
}
