package mqttfront

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// qos2 is the packet of a QoS 2 PUBLISH to t.
func (c *raw) qos2(id int, payload string, flags byte) []byte {
	return c.publishPacket("t", id, 4|flags, payload)
}

func pubrelPacket(id int) []byte { return packet(typePubrel<<4|2, u16(id)) }

// expectAnswer demands a PUBREC or PUBCOMP.
func (c *raw) expectAnswer(kind byte, id int, code byte) {
	c.t.Helper()
	body := c.expect(kind << 4)
	got := byte(0)
	if len(body) > 2 {
		got = body[2]
	}
	if int(binary.BigEndian.Uint16(body)) != id || got != code {
		c.t.Fatalf("packet 0x%x0 % x, want id %d code 0x%02x", kind, body, id, code)
	}
}

var persistent = connectOptions{id: "dev", persist: true, props: []byte{propSessionExpiry, 0, 0, 0, 60}}

func persistentOf(version byte) connectOptions {
	o := persistent
	if o.version = version; version < 5 {
		o.props = nil
	}
	return o
}

// One message is taken once, however often it is sent before it is released; then
// its identifier stands for another. [MQTT-4.3.3-10,11,12]
func TestQoS2(t *testing.T) {
	for _, version := range []byte{4, 5} {
		j := newJournal()
		s, _ := stored(t, j, Options{})
		c := connect(t, s.addr, persistentOf(version))
		for range 3 {
			c.send(c.qos2(7, "one", 0))
			c.expectAnswer(typePubrec, 7, 0)
		}
		if got := j.keys("q/"); len(got) != 1 {
			t.Errorf("stored identifiers %q", got)
		}
		c.send(pubrelPacket(7))
		c.expectAnswer(typePubcomp, 7, 0)
		if got := j.keys("q/"); len(got) != 0 {
			t.Errorf("stored identifiers after the release %q", got)
		}
		c.send(pubrelPacket(7))
		code := PacketIdentifierNotFound
		if version < 5 {
			code = 0
		}
		c.expectAnswer(typePubcomp, 7, code)
		c.send(c.qos2(7, "two", 0))
		c.expectAnswer(typePubrec, 7, 0)
		if got := j.messages(); !slices.Equal(got, []string{"one", "two"}) {
			t.Errorf("taken %q", got)
		}
		if st := s.Stats(); st.Repeats != 2 || st.Unreleased != 1 || st.InflightBytes != 0 {
			t.Errorf("%+v", st)
		}
	}
}

// PUBREC leaves only when the message is durable, PUBCOMP only when the release is.
func TestQoS2WaitsForTheStore(t *testing.T) {
	j := newJournal()
	s, _ := stored(t, j, Options{})
	c := connect(t, s.addr, persistent)
	j.setManual(true)
	for i := 1; i <= 3; i++ {
		c.send(c.qos2(i, fmt.Sprint(i), 0))
	}
	c.ping() // the answer would stand behind the PUBRECs
	j.sync(2)
	c.expectAnswer(typePubrec, 1, 0)
	c.expectAnswer(typePubrec, 2, 0)
	c.send(pubrelPacket(1))
	c.send(pubrelPacket(1)) // again
	c.ping()
	j.sync(1) // the third message
	c.expectAnswer(typePubrec, 3, 0)
	c.ping()
	j.sync(1)
	c.expectAnswer(typePubcomp, 1, 0)
	c.expectAnswer(typePubcomp, 1, 0)
}

// A release that cannot be made durable is not answered; PUBREL comes again.
func TestQoS2ReleaseFails(t *testing.T) {
	j := newJournal()
	s, _ := stored(t, j, Options{})
	c := connect(t, s.addr, persistent)
	c.send(c.qos2(1, "x", 0))
	c.expectAnswer(typePubrec, 1, 0)
	j.setFail(errDisk)
	c.send(pubrelPacket(1))
	c.expectDisconnect(UnspecifiedError)
	j.setFail(nil)
	c = connect(t, s.addr, persistent)
	c.send(c.qos2(1, "x", flagDup))
	c.expectAnswer(typePubrec, 1, 0)
	c.send(pubrelPacket(1))
	c.expectAnswer(typePubcomp, 1, 0)
	if got := j.messages(); len(got) != 1 {
		t.Errorf("taken %q", got)
	}
	if n := s.Stats().StoreErrors; n != 1 {
		t.Errorf("%d errors counted", n)
	}
}

// A refused message leaves no identifier behind. [MQTT-4.3.3-9]
func TestQoS2Refused(t *testing.T) {
	for _, version := range []byte{4, 5} {
		j := newJournal()
		s, h := stored(t, j, Options{})
		h.publish = func(_ *fakeSession, _ *Publish, settle Settle) { settle(Result{Code: QuotaExceeded}) }
		c := connect(t, s.addr, persistentOf(version))
		c.send(c.qos2(1, "x", 0))
		if version == 5 {
			c.expectAnswer(typePubrec, 1, QuotaExceeded)
			c.ping()
		} else {
			c.expectEnd()
		}
		if st := s.Stats(); st.Unreleased != 0 || st.Refused != 1 || len(j.keys("q/")) != 0 {
			t.Errorf("%+v", st)
		}
	}
}

// While a message waits for its outcome, one with its identifier waits for the
// same, over a takeover too.
func TestQoS2PendingOverTakeover(t *testing.T) {
	for _, withhold := range []bool{false, true} {
		h := newFake()
		h.publish = h.hold
		s := start(t, h, Options{})
		old := connect(t, s.addr, persistent)
		old.send(old.qos2(1, "x", 0))
		first := h.session(t, 0)
		h.await(t, "the message", func() bool { return len(first.settle) == 1 })
		c := connect(t, s.addr, persistent)
		c.send(c.qos2(1, "x", flagDup))
		c.ping()
		second := h.session(t, 1)
		if n := len(second.messagesNow()); n != 0 {
			t.Fatalf("%d messages reached the second session", n)
		}
		first.settle[0](Result{Withhold: withhold})
		if withhold {
			c.expectDisconnect(UnspecifiedError)
			c = connect(t, s.addr, persistent)
			c.send(c.qos2(1, "x", flagDup))
			third := h.session(t, 2)
			h.await(t, "the message again", func() bool { return len(third.settle) == 1 })
			third.settle[0](Result{})
		}
		c.expectAnswer(typePubrec, 1, 0)
		c.send(pubrelPacket(1))
		c.expectAnswer(typePubcomp, 1, 0)
		if st := s.Stats(); st.Unreleased != 0 {
			t.Errorf("%+v", st)
		}
	}
}

func (s *fakeSession) messagesNow() []Publish {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	return slices.Clone(s.got)
}

// In flight means until PUBCOMP. [MQTT-3.3.4-9]
func TestQoS2ReceiveMaximum(t *testing.T) {
	j := newJournal()
	s, _ := stored(t, j, Options{MaxInflightMessages: 3})
	c := connect(t, s.addr, persistent)
	for i := 1; i <= 3; i++ {
		c.send(c.qos2(i, "x", 0))
		c.expectAnswer(typePubrec, i, 0)
		if i == 2 {
			c.send(c.qos2(i, "x", flagDup)) // counted already
			c.expectAnswer(typePubrec, i, 0)
		}
	}
	c.send(pubrelPacket(1))
	c.expectAnswer(typePubcomp, 1, 0)
	c.publish("t", 9, "x")
	c.expectAck(9, 0)
	c.send(c.qos2(1, "x", 0))
	c.expectAnswer(typePubrec, 1, 0)
	c.send(c.qos2(4, "x", 0))
	c.expectDisconnect(ReceiveMaximumExceeded)
	// A new connection counts anew, what it sends again included.
	c = connect(t, s.addr, persistent)
	for i := 1; i <= 3; i++ {
		c.send(c.qos2(i, "x", flagDup))
		c.expectAnswer(typePubrec, i, 0)
	}
	for i := 1; i <= 3; i++ {
		c.send(pubrelPacket(i))
		c.expectAnswer(typePubcomp, i, 0)
	}
	for i := 1; i <= 3; i++ {
		c.send(c.qos2(i, "y", 0))
		c.expectAnswer(typePubrec, i, 0)
	}
	c.send(c.qos2(4, "x", 0))
	c.expectDisconnect(ReceiveMaximumExceeded)
}

// A 3.1.1 client, which knows no window, may leave many unreleased, but not any
// number.
func TestUnreleasedAreBounded(t *testing.T) {
	s, _ := stored(t, newJournal(), Options{MaxInflightMessages: 4})
	c := connect(t, s.addr, persistentOf(4))
	for i := 1; i <= 8; i++ {
		c.send(c.qos2(i, "x", 0))
		c.expectAnswer(typePubrec, i, 0)
	}
	c.send(c.qos2(9, "x", 0))
	c.expectEnd()
	c = connect(t, s.addr, persistentOf(4))
	c.send(pubrelPacket(1))
	c.expectAnswer(typePubcomp, 1, 0)
	c.send(c.qos2(9, "x", 0))
	c.expectAnswer(typePubrec, 9, 0)
	if n := s.Stats().Limits["unreleased"]; n != 1 {
		t.Errorf("counted %d", n)
	}
}

// Identifiers die with their session.
func TestReceivedDieWithTheSession(t *testing.T) {
	j := newJournal()
	s, _ := stored(t, j, Options{})
	c := connect(t, s.addr, persistent)
	c.send(c.qos2(1, "x", 0))
	c.expectAnswer(typePubrec, 1, 0)
	clean := persistent
	clean.persist = false
	c = connect(t, s.addr, clean)
	c.send(pubrelPacket(1))
	c.expectAnswer(typePubcomp, 1, PacketIdentifierNotFound)
	c.send(c.qos2(1, "x", 0))
	c.expectAnswer(typePubrec, 1, 0)
	if got := j.messages(); len(got) != 2 {
		t.Errorf("taken %q", got)
	}
	c.send(packet(typeDisconnect<<4, []byte{0, 5, propSessionExpiry, 0, 0, 0, 0}))
	c.expectEnd()
	eventually(t, "nothing is stored", func() bool { return len(j.keys("")) == 0 && s.Stats().Sessions == 0 })
}

// PUBREL for a message that has no PUBREC yet is no protocol.
func TestPubrelBeforePubrec(t *testing.T) {
	h := newFake()
	h.publish = h.hold
	s := start(t, h, Options{})
	c := connect(t, s.addr, connectOptions{id: "a"})
	c.send(c.qos2(1, "x", 0))
	c.send(pubrelPacket(1))
	c.expectDisconnect(ProtocolError)
}

// PUBRECs and PUBACKs leave in the order of the PUBLISHes, PUBCOMPs in that of
// the PUBRELs. [MQTT-4.6.0-2,3]
func TestQoS2Order(t *testing.T) {
	h := newFake()
	h.publish = h.hold
	s := start(t, h, Options{})
	c := connect(t, s.addr, connectOptions{id: "a"})
	c.send(c.qos2(1, "x", 0))
	c.publish("t", 2, "x")
	c.send(c.qos2(3, "x", 0))
	c.send(pubrelPacket(9))
	session := h.session(t, 0)
	h.await(t, "messages", func() bool { return len(session.settle) == 3 })
	for i := 2; i >= 0; i-- {
		c.ping() // nothing before it
		session.settle[i](Result{})
	}
	c.expectAnswer(typePubrec, 1, 0)
	c.expectAck(2, 0)
	c.expectAnswer(typePubrec, 3, 0)
	c.expectAnswer(typePubcomp, 9, PacketIdentifierNotFound)
}

// sender is a QoS 2 client that keeps its session: what it has not had PUBCOMP
// for it sends again.
type sender struct {
	t       *rapid.T
	addr    string
	version byte
	c       *raw
	pub     map[int]string // sent, no PUBREC
	rel     map[int]string // PUBREC had, no PUBCOMP
	order   []int          // of both
	next    int
	sent    int
}

// connect begins a connection and sends again what is open.
func (s *sender) connect(t testing.TB) {
	s.c = dial(t, s.addr)
	_, body := s.c.connect(persistentOf(s.version))
	if s.sent > 0 && body[0] != 1 {
		s.t.Fatalf("session is not present: % x", body)
	}
	for _, id := range s.order {
		if payload, ok := s.pub[id]; ok {
			s.c.send2(s.c.qos2(id, payload, flagDup))
		} else {
			s.c.send2(pubrelPacket(id))
		}
	}
	s.read()
}

func (s *sender) publish() {
	if len(s.order) >= 6 {
		return
	}
	for s.next = s.next%9 + 1; s.pub[s.next]+s.rel[s.next] != ""; {
		s.next = s.next%9 + 1
	}
	s.sent++
	payload := fmt.Sprint("message ", s.sent)
	s.pub[s.next] = payload
	s.order = append(s.order, s.next)
	s.c.send2(s.c.qos2(s.next, payload, 0))
	s.read()
}

// read handles all answers that have come, up to a PINGRESP.
func (s *sender) read() {
	for answered := false; !answered; {
		answered = true
		s.c.send2([]byte{typePingreq << 4, 0})
		for {
			first, body, err := s.c.next()
			if err != nil {
				s.t.Fatalf("connection ended: %v", err)
			}
			if first == typePingresp<<4 {
				break
			}
			id := int(binary.BigEndian.Uint16(body))
			answered = false
			if len(body) > 2 && body[2] >= UnspecifiedError && !(first == typePubcomp<<4 && body[2] == PacketIdentifierNotFound) {
				s.t.Fatalf("0x%02x % x", first, body)
			}
			switch first {
			case typePubrec << 4:
				if payload, ok := s.pub[id]; ok {
					delete(s.pub, id)
					s.rel[id] = payload
				}
				s.c.send2(pubrelPacket(id))
			case typePubcomp << 4:
				delete(s.rel, id)
				s.order = slices.DeleteFunc(s.order, func(o int) bool { return o == id })
			}
		}
	}
}

// Whatever is lost in crashes, and however connections end: every message of a
// client that keeps its session is taken exactly once in the end, and never
// twice.
func TestQoS2Model(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		j := newJournal()
		h := newFake()
		h.publish = j.take
		front := begin(t, h, Options{Store: j, drain: time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
		c := &sender{t: r, addr: front.addr, version: rapid.SampledFrom([]byte{4, 5}).Draw(r, "version"), pub: map[int]string{}, rel: map[int]string{}}
		c.connect(t)
		j.setManual(true)
		once := func() {
			seen := map[string]bool{}
			for _, m := range j.messages() {
				if seen[m] {
					r.Fatalf("%s was taken twice: %q", m, j.messages())
				}
				seen[m] = true
			}
			for _, m := range c.rel {
				if !seen[m] {
					r.Fatalf("%s has its PUBREC and is not there", m)
				}
			}
		}
		steps := rapid.SliceOfN(rapid.SampledFrom([]string{"publish", "publish", "publish", "sync", "sync", "break", "takeover", "crash", "restart"}), 1, 40).Draw(r, "steps")
		for _, step := range steps {
			switch step {
			case "publish":
				c.publish()
			case "sync":
				j.sync(rapid.IntRange(1, 4).Draw(r, "records"))
				c.read()
			case "break":
				c.c.Close()
				c.connect(t)
			case "takeover":
				c.connect(t)
			case "crash", "restart":
				keep := rapid.IntRange(0, j.pending()).Draw(r, "kept")
				if step == "restart" {
					keep = j.pending()
				}
				c.c.Close()
				j = front.crash(j, keep)
				h = newFake()
				h.publish = j.take
				front = begin(t, h, Options{Store: j, drain: time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
				c.addr = front.addr
				c.connect(t)
			}
			once()
		}
		j.setManual(false)
		j.sync(j.pending())
		for c.read(); len(c.order) > 0; c.read() {
		}
		once()
		if n := len(j.messages()); n != c.sent {
			r.Fatalf("%d messages taken, %d sent", n, c.sent)
		}
		if got := j.keys("q/"); len(got) != 0 {
			r.Fatalf("identifiers are left: %q", got)
		}
		c.c.Close()
		if err := front.stop(); err != nil {
			r.Fatal(err)
		}
	})
}
