package mqttfront

import (
	"fmt"
	"testing"
	"time"
)

// Each message of a shared subscription goes to one member, in turn; groups are
// independent of each other and of plain subscriptions. [MQTT-4.8.2-3]
func TestSharedInTurn(t *testing.T) {
	s := start(t, newFake(), Options{FanOut: true})
	var members []*raw
	for i := range 3 {
		c := connect(t, s.addr, connectOptions{id: fmt.Sprint("m", i), version: byte(4 + i%2)})
		c.subscribe(1, "$share/g/t/#", 1)
		members = append(members, c)
	}
	other := connect(t, s.addr, connectOptions{id: "other"})
	other.subscribe(1, "$share/h/t/+", 0)
	other.subscribe(1, "t/x", 0)
	pub := connect(t, s.addr, connectOptions{id: "pub"})
	const n = 9
	for i := range n {
		pub.tell("t/x", fmt.Sprint(i), 1, 0)
		for range 2 { // of its group, and of its own
			if g := other.message(); g.payload != fmt.Sprint(i) {
				t.Fatalf("other got %+v", g)
			}
		}
	}
	for i, c := range members {
		for k := range n / 3 {
			g := c.message()
			if g.payload != fmt.Sprint(i+3*k) || g.qos != 1 {
				t.Errorf("member %d got %+v", i, g)
			}
			c.answer(g)
		}
		c.ping()
	}
	other.ping()
	if st := s.Stats(); st.QueuedMessages != 0 || len(st.FanOutDropped) != 0 {
		t.Errorf("%+v", st)
	}
}

// Those that are connected and have room go first; one that is away gets what
// nobody else can take.
func TestSharedPrefersRoom(t *testing.T) {
	s := start(t, newFake(), Options{FanOut: true})
	full := connect(t, s.addr, connectOptions{id: "full", props: []byte{propReceiveMaximum, 0, 1}})
	full.subscribe(1, "$share/g/t", 1)
	o := persistent
	o.id = "away"
	away := connect(t, s.addr, o)
	away.subscribe(1, "$share/g/t", 1)
	away.Close()
	eventually(t, "it is away", func() bool { return s.Clients() == 1 })
	pub := connect(t, s.addr, connectOptions{id: "pub"})
	pub.tell("t", "0", 1, 0)
	first := full.message() // and no answer: its window is full
	free := connect(t, s.addr, connectOptions{id: "free"})
	free.subscribe(1, "$share/g/t", 1)
	for i := 1; i < 5; i++ {
		pub.tell("t", fmt.Sprint(i), 1, 0)
		g := free.message()
		if g.payload != fmt.Sprint(i) {
			t.Errorf("got %+v", g)
		}
		free.answer(g)
	}
	free.disconnect()
	eventually(t, "it is gone", func() bool { return s.Stats().Sessions == 3 })
	pub.tell("t", "5", 1, 0)
	pub.tell("t", "QoS 0 needs no room", 0, 0)
	if g := full.message(); g.qos != 0 {
		t.Errorf("got %+v", g)
	}
	full.answer(first)
	g := full.message()
	if g.payload != "5" {
		t.Errorf("got %+v", g)
	}
	full.answer(g)
	full.ping()
	full.disconnect()
	eventually(t, "it is gone", func() bool { return s.Stats().Sessions == 2 })
	pub.tell("t", "6", 1, 0)
	pub.tell("t", "lost", 0, 0)
	eventually(t, "it waits for the one that is away", func() bool { return s.Stats().QueuedMessages == 1 })
	away = connect(t, s.addr, o)
	if g := away.message(); g.payload != "6" {
		t.Errorf("got %+v", g)
	}
}

// What a member has not been sent when it leaves goes to the others; what it was
// sent with QoS 2 does not, and with QoS 1 only when its session ends.
// [MQTT-4.8.2-4,5]
func TestSharedGivesBack(t *testing.T) {
	for name, leave := range map[string]struct {
		how  func(c *raw)
		want int // the first message that the other gets
	}{
		"unsubscribes":     {func(c *raw) { c.send(packet(0xA2, u16(5), []byte{0}, str("$share/g/t"))); c.expect(0xB0) }, 2},
		"breaks":           {func(c *raw) { c.Close() }, 2},
		"ends its session": {func(c *raw) { c.disconnect(expiryProp(0)...) }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, newFake(), Options{FanOut: true})
			o := persistent
			o.props = append(expiryProp(60), propReceiveMaximum, 0, 2)
			one := connect(t, s.addr, o)
			one.subscribe(1, "$share/g/t", 2)
			pub := connect(t, s.addr, connectOptions{id: "pub"})
			for i := range 6 {
				pub.tell("t", fmt.Sprint(i), 2-byte(i%2), 0)
			}
			eventually(t, "all are offered", func() bool { return s.Stats().FanOut == 6 })
			for i := range 2 {
				if g := one.message(); g.payload != fmt.Sprint(i) {
					t.Fatalf("got %+v", g)
				}
			}
			other := connect(t, s.addr, connectOptions{id: "other"})
			other.subscribe(1, "$share/g/t", 1)
			leave.how(one)
			got := map[string]bool{}
			for range 6 - leave.want {
				g := other.message()
				got[g.payload] = true
				other.answer(g)
			}
			other.ping()
			for i := leave.want; i < 6; i++ {
				if !got[fmt.Sprint(i)] {
					t.Errorf("message %d did not come: %v", i, got)
				}
			}
		})
	}
}

// What waits for a member that never comes back goes to the others when its
// session ends.
func TestSharedOutlivesASession(t *testing.T) {
	s := start(t, newFake(), Options{FanOut: true})
	one := connect(t, s.addr, persistent)
	one.subscribe(1, "$share/g/t", 1)
	one.Close()
	eventually(t, "it is away", func() bool { return s.Clients() == 0 })
	pub := connect(t, s.addr, connectOptions{id: "pub"})
	pub.tell("t", "x", 1, 0)
	eventually(t, "it waits", func() bool { return s.Stats().QueuedMessages == 1 })
	other := connect(t, s.addr, connectOptions{id: "other"})
	other.subscribe(1, "$share/g/t", 1)
	s.expireSessions(time.Now().Add(time.Hour))
	if g := other.message(); g.payload != "x" {
		t.Errorf("got %+v", g)
	}
}

// A message that a member refuses goes to nobody else. [MQTT-4.8.2-6]
func TestSharedRefused(t *testing.T) {
	s := start(t, newFake(), Options{FanOut: true})
	for _, id := range []string{"a", "b"} {
		c := connect(t, s.addr, connectOptions{id: id})
		c.subscribe(1, "$share/g/t", 2)
		defer c.ping() // nothing came
		if id == "a" {
			pub := connect(t, s.addr, connectOptions{id: "pub"})
			pub.tell("t", "x", 1, 0)
			g := c.message()
			pub.tell("t", "y", 2, 0)
			h := c.message()
			defer func() {
				c.send(packet(typePuback<<4, u16(int(g.id)), []byte{QuotaExceeded}))
				c.send(packet(typePubrec<<4, u16(int(h.id)), []byte{QuotaExceeded}))
				c.ping()
				if n := s.Stats().QueuedMessages; n != 0 {
					t.Errorf("%d wait", n)
				}
			}()
		}
	}
}
