package mqttfront

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// A will goes through the session once the connection has broken, before Close,
// and is fanned out as it is settled.
func TestWills(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{FanOut: true})
	sub := connect(t, s.addr, connectOptions{id: "sub"})
	sub.subscribe(1, "will", 0)
	n := 1
	end := func(name string, want bool, o connectOptions, how func(c *raw)) {
		t.Helper()
		o.id, o.willTopic, o.will, o.willFlags = name, "will", name, 1<<3
		c := connect(t, s.addr, o)
		session := h.session(t, n)
		n++
		c.publish("before", 0, "x")
		c.ping()
		how(c)
		h.await(t, "Close", func() bool { return session.closed == 1 })
		h.mu.Lock()
		got := session.got[1:]
		h.mu.Unlock()
		if !want {
			if len(got) != 0 {
				t.Errorf("%s: %d wills", name, len(got))
			}
			return
		}
		if len(got) != 1 || !got[0].Will || got[0].QoS != 1 || string(got[0].Payload) != name {
			t.Fatalf("%s: wills %+v", name, got)
		}
		if body := sub.expect(0x30); string(body[7:]) != name {
			t.Errorf("%s: subscriber got % x", name, body)
		}
	}
	end("broken", true, connectOptions{}, func(c *raw) { c.Close() })
	end("broken 3.1.1", true, connectOptions{version: 4}, func(c *raw) { c.Close() })
	end("left", false, connectOptions{}, func(c *raw) { c.send([]byte{typeDisconnect << 4, 0}) })
	end("left 3.1.1", false, connectOptions{version: 4}, func(c *raw) { c.send([]byte{typeDisconnect << 4, 0}) })
	end("left with will", true, connectOptions{}, func(c *raw) { c.send([]byte{typeDisconnect << 4, 1, 4}) })
	end("left with an error", true, connectOptions{}, func(c *raw) { c.send([]byte{typeDisconnect << 4, 1, 0x80}) })
	end("violation", true, connectOptions{}, func(c *raw) { c.publish("+", 0, "x") })
	end("kept silent", true, connectOptions{keepAlive: 1}, func(c *raw) {})
	end("taken over", true, connectOptions{}, func(c *raw) {
		connect(t, s.addr, connectOptions{id: "taken over"})
	})
	sub.ping()
}

// A will whose delay runs is dropped when the client is back in its session,
// and due when it begins a new one.
func TestDelayedWill(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{})
	o := connectOptions{id: "a", willTopic: "will", will: "x", willProps: []byte{0x18, 0, 0, 0, 60}, props: []byte{0x11, 0, 0, 0, 60}, persist: true}
	for i, clean := range []bool{false, true} {
		c := connect(t, s.addr, o)
		session := h.session(t, 2*i)
		clients := s.Clients()
		c.Close()
		eventually(t, "the client is gone", func() bool { return s.Clients() == clients-1 })
		h.mu.Lock()
		if len(session.got)+session.closed != 0 {
			t.Errorf("will published or session closed before its time")
		}
		h.mu.Unlock()
		back := connect(t, s.addr, connectOptions{id: "a", persist: !clean, props: o.props})
		h.await(t, "Close", func() bool { return session.closed == 1 })
		want := 0
		if clean {
			want = 1
		}
		h.mu.Lock()
		if len(session.got) != want {
			t.Errorf("clean start %v: %d wills, want %d", clean, len(session.got), want)
		}
		h.mu.Unlock()
		back.send([]byte{typeDisconnect << 4, 0})
		back.expectEnd()
	}
	// The delay passes.
	o.willProps, o.id = []byte{0x18, 0, 0, 0, 1}, "b"
	c := connect(t, s.addr, o)
	session := h.session(t, 4)
	c.Close()
	h.await(t, "will and Close", func() bool { return session.closed == 1 && len(session.got) == 1 })
}

// A handler may take the will away.
func TestWillRefused(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{})
	s.handler = willless{h}
	c := connect(t, s.addr, connectOptions{id: "a", willTopic: "will", will: "x"})
	session := h.session(t, 0)
	c.Close()
	h.await(t, "Close", func() bool { return session.closed == 1 })
	if len(session.got) != 0 {
		t.Errorf("will published")
	}
	for _, topic := range []string{"$SYS/x", "a/#"} {
		c := dial(t, s.addr)
		if code, _ := c.connect(connectOptions{id: "a", willTopic: topic, will: "x"}); code != TopicNameInvalid {
			t.Errorf("will to %s: CONNACK 0x%02x", topic, code)
		}
	}
}

// A delayed will is not sent by a connection that ends after its successor came,
// when that resumed the session; when it began a new one, the will is due.
func TestDelayedWillOfTakenOver(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{})
	o := connectOptions{id: "a", willTopic: "will", will: "x", willProps: []byte{0x18, 0, 0, 0, 60}, props: []byte{0x11, 0, 0, 0, 60}, persist: true}
	for i, clean := range []bool{false, true} {
		connect(t, s.addr, o)
		session := h.session(t, 2*i)
		back := connect(t, s.addr, connectOptions{id: "a", persist: !clean, props: o.props})
		h.await(t, "Close", func() bool { return session.closed == 1 })
		want := 0
		if clean {
			want = 1
		}
		h.mu.Lock()
		if len(session.got) != want {
			t.Errorf("clean start %v: %d wills, want %d", clean, len(session.got), want)
		}
		h.mu.Unlock()
		back.send([]byte{typeDisconnect << 4, 0})
		back.expectEnd()
	}
}

// Wills whose delay runs are bounded; beyond, they are published at once.
func TestWaitingWillsAreBounded(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{})
	n := maxWaitingWillBytes/60_000 + 2
	for i := range n {
		c := connect(t, s.addr, connectOptions{id: fmt.Sprint(i), willTopic: "w", will: strings.Repeat("x", 60_000), willProps: []byte{0x18, 0, 0, 0, 60}, props: []byte{0x11, 0, 0, 0, 60}, persist: true})
		c.Close()
	}
	eventually(t, "the last are published", func() bool { return s.Stats().Wills >= 2 })
	s.wills.mu.Lock()
	defer s.wills.mu.Unlock()
	if s.wills.bytes > maxWaitingWillBytes || len(s.wills.m) < n/2 {
		t.Errorf("%d wills of %d bytes wait", len(s.wills.m), s.wills.bytes)
	}
}

// A will whose connection was open when the process ended, by a crash or a stop,
// is published after the restart, once, unless the client comes back in time.
func TestWillsOutliveARestart(t *testing.T) {
	for _, how := range []string{"crash", "stop"} {
		t.Run(how, func(t *testing.T) {
			j := newJournal()
			s, _ := stored(t, j, Options{FanOut: true})
			will := func(id string) connectOptions {
				return connectOptions{id: id, user: "user", willTopic: "will", will: id, willFlags: 2<<3 | 1<<5}
			}
			for _, id := range []string{"gone", "back", "back, kept"} {
				o := will(id)
				o.persist, o.props = id == "back, kept", expiryProp(60)
				connect(t, s.addr, o)
			}
			connect(t, s.addr, will("left")).disconnect()
			connect(t, s.addr, will("broken")).Close()
			eventually(t, "the broken one's will", func() bool { return len(j.published()) == 1 })
			delayed := will("delayed")
			delayed.persist, delayed.props, delayed.willProps = true, expiryProp(60), []byte{propWillDelay, 0, 0, 0, 30}
			connect(t, s.addr, delayed).Close()
			eventually(t, "its delay runs", func() bool { return s.Clients() == 3 })
			if n := len(j.keys("w/")); n != 4 {
				t.Fatalf("%d wills stored, want 4", n)
			}
			if how == "crash" {
				j = s.crash(j, 0)
			} else if err := s.stop(); err != nil {
				t.Fatal(err)
			}
			s, h := stored(t, j, Options{FanOut: true})
			connect(t, s.addr, connectOptions{id: "back", user: "user"})
			connect(t, s.addr, connectOptions{id: "back, kept", user: "user", persist: true})
			s.wills.tick(time.Now().Add(comeBack - time.Second))
			if len(h.orphans) != 0 {
				t.Errorf("wills before their time: %q", h.orphans)
			}
			s.wills.tick(time.Now().Add(comeBack + time.Second))
			if want := []string{"gone/user: will=gone"}; !slices.Equal(h.orphans, want) {
				t.Errorf("wills %q, want %q", h.orphans, want)
			}
			s.wills.tick(time.Now().Add(31 * time.Second))
			if len(h.orphans) != 2 {
				t.Errorf("wills %q", h.orphans)
			}
			eventually(t, "none is stored", func() bool { return len(j.keys("w/")) == 0 })
			if !slices.Equal(j.published(), []string{"broken", "gone", "delayed"}) {
				t.Errorf("published %q", j.published())
			}
		})
	}
}

// A will that nobody takes after a restart is counted, and not kept for ever.
func TestOrphanWillsWithoutHandler(t *testing.T) {
	j := newJournal()
	s, _ := stored(t, j, Options{})
	connect(t, s.addr, connectOptions{id: "a", willTopic: "w", will: "x"})
	j = s.crash(j, 0)
	f := New(welcoming{newFake(), Welcome{}} /* no WillHandler */, Options{Store: j})
	if err := f.load(); err != nil {
		t.Fatal(err)
	}
	if st := f.Stats(); st.WillsDropped != 1 {
		t.Errorf("%+v", st)
	}
	eventually(t, "none is stored", func() bool { return len(j.keys("w/")) == 0 })
}

// While the disk refuses, the will stays stored; a will that is refused for
// good does not.
func TestRefusedWills(t *testing.T) {
	for _, r := range []Result{{Code: QuotaExceeded}, {Withhold: true}} {
		j := newJournal()
		s, h := stored(t, j, Options{})
		h.publish = func(_ *fakeSession, _ *Publish, settle Settle) { settle(r) }
		c := connect(t, s.addr, connectOptions{id: "a", willTopic: "w", will: "x"})
		session := h.session(t, 0)
		c.Close()
		h.await(t, "Close", func() bool { return session.closed == 1 })
		want := 0
		if r.Withhold {
			want = 1
		}
		if n := len(j.keys("w/")); n != want {
			t.Errorf("%+v: %d wills stored, want %d", r, n, want)
		}
	}
}
