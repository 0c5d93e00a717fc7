package mqttfront

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// message reads a PUBLISH.
func (c *raw) message() got {
	c.t.Helper()
	first, body := c.read()
	if first>>4 != typePublish {
		c.t.Fatalf("got packet 0x%02x % x, want a PUBLISH", first, body)
	}
	raw, err := decodePublish(first, body, c.version)
	if err != nil {
		c.t.Fatal(err)
	}
	g := parseOut(c.t, packet(first, body), c.version)[0]
	g.props, g.retain = raw.props, raw.retain
	return g
}

// answer does a subscriber's part for one message, to the end.
func (c *raw) answer(g got) {
	c.t.Helper()
	switch g.qos {
	case 1:
		c.send(packet(typePuback<<4, u16(int(g.id))))
	case 2:
		c.send(packet(typePubrec<<4, u16(int(g.id))))
		if body := c.expect(typePubrel<<4 | 2); !bytes.Equal(body, u16(int(g.id))) {
			c.t.Fatalf("PUBREL % x", body)
		}
		c.send(packet(typePubcomp<<4, u16(int(g.id))))
	}
}

// tell publishes with any QoS, to the end.
func (c *raw) tell(topic, payload string, qos byte, flags byte, props ...byte) {
	c.t.Helper()
	switch qos {
	case 0:
		c.send(c.publishPacket(topic, 0, flags, payload, props...))
	case 1:
		c.send(c.publishPacket(topic, 1, flags, payload, props...))
		c.expectAck(1, 0)
	case 2:
		c.send(c.publishPacket(topic, 1, 4|flags, payload, props...))
		c.expectAnswer(typePubrec, 1, 0)
		c.send(pubrelPacket(1))
		c.expectAnswer(typePubcomp, 1, 0)
	}
}

// subscribeWith subscribes with a subscription identifier.
func (c *raw) subscribeWith(filter string, options byte, identifier byte) {
	c.t.Helper()
	c.send(packet(0x82, u16(9), []byte{2, propSubID, identifier}, str(filter), []byte{options}))
	if body := c.expect(0x90); body[3] >= 0x80 {
		c.t.Fatalf("SUBACK % x", body)
	}
}

// A subscriber gets a message at the lower of the two QoS, whatever the versions;
// with QoS 2 it ends with PUBCOMP, and nothing is left. [MQTT-3.8.4-8] [MQTT-4.3.3-2..6]
func TestDeliveryQoS(t *testing.T) {
	s := start(t, newFake(), Options{FanOut: true})
	for _, version := range []byte{4, 5} {
		pub := connect(t, s.addr, connectOptions{id: "pub", version: 9 - version})
		for granted := range byte(3) {
			sub := connect(t, s.addr, connectOptions{id: "sub", version: version})
			if got := sub.subscribe(1, "t/+", granted); got != granted {
				t.Errorf("granted %d, want %d", got, granted)
			}
			for qos := range byte(3) {
				pub.tell("t/x", fmt.Sprint(qos), qos, 0)
				g := sub.message()
				if g.qos != min(qos, granted) || g.payload != fmt.Sprint(qos) || g.dup || g.retain {
					t.Errorf("version %d, granted %d, sent %d: %+v", version, granted, qos, g)
				}
				sub.answer(g)
			}
			sub.ping()
			sub.disconnect()
		}
		pub.disconnect()
	}
	eventually(t, "all are gone", func() bool { return s.Stats().Sessions == 0 })
	if st := s.Stats(); st.QueuedMessages != 0 || st.QueuedBytes != 0 || len(st.FanOutDropped) != 0 || st.Subscriptions != 0 {
		t.Errorf("%+v", st)
	}
}

// One copy for a client, however many of its filters match: at the highest QoS,
// with all identifiers. [MQTT-3.3.4-2,3,4,5]
func TestOverlappingSubscriptions(t *testing.T) {
	s := start(t, newFake(), Options{FanOut: true})
	sub := connect(t, s.addr, connectOptions{id: "sub"})
	sub.subscribeWith("a/#", 0, 2)
	sub.subscribeWith("a/b", 1, 3)
	sub.subscribe(1, "+/b", 2)
	sub.subscribeWith("#", 4, 5) // no local
	pub := connect(t, s.addr, connectOptions{id: "pub"})
	for payload, c := range map[string]*raw{"other": pub, "own": sub} {
		c.send(c.publishPacket("a/b", 1, 4, payload))
		c.expectAnswer(typePubrec, 1, 0)
		c.send(pubrelPacket(1))
		c.expectAnswer(typePubcomp, 1, 0)
		g := sub.message()
		want := []byte{propSubID, 2, propSubID, 3, propSubID, 5}
		if payload == "own" {
			want = want[:4] // [MQTT-3.8.3-3]
		}
		ids := slices.Clone(g.props)
		slices.Sort(ids)
		slices.Sort(want)
		if g.qos != 2 || g.payload != payload || !bytes.Equal(ids, want) {
			t.Errorf("got %+v, want identifiers % x", g, want)
		}
		sub.answer(g)
	}
	sub.ping()
	// Another subscription of the filter takes the identifier away.
	for _, f := range []string{"a/#", "+/b", "#"} {
		sub.send(packet(0xA2, u16(1), []byte{0}, str(f)))
		sub.expect(0xB0)
	}
	sub.subscribe(1, "a/b", 0)
	pub.tell("a/b", "x", 1, 0)
	if g := sub.message(); g.qos != 0 || len(g.props) != 0 {
		t.Errorf("got %+v", g)
	}
}

// The retain flag of a live message stays only where it was asked for.
// [MQTT-3.3.1-12,13]
func TestRetainAsPublished(t *testing.T) {
	s := start(t, newFake(), Options{FanOut: true})
	sub := connect(t, s.addr, connectOptions{id: "sub"})
	for options, want := range map[byte]bool{0: false, 1 << 3: true} {
		sub.subscribe(1, "t", options|2<<4)
		for _, flags := range []byte{0, flagRetain} {
			sub.tell("t", "x", 1, flags)
			if g := sub.message(); g.retain != (want && flags != 0) {
				t.Errorf("options %x, flags %x: retain %v", options, flags, g.retain)
			}
		}
	}
}

// A topic that begins with $ is found by its name, not by a wildcard.
// [MQTT-4.7.2-1]
func TestDollarTopics(t *testing.T) {
	s := start(t, newFake(), Options{FanOut: true})
	c := connect(t, s.addr, connectOptions{id: "c"})
	for _, f := range []string{"#", "+/x", "+/#"} {
		c.subscribe(1, f, 0)
	}
	c.tell("$own/x", "nobody", 1, flagRetain)
	c.subscribe(1, "$own/+", 0)
	if g := c.message(); g.payload != "nobody" || !g.retain {
		t.Errorf("got %+v", g)
	}
	c.tell("$own/x", "somebody", 1, 0)
	if g := c.message(); g.payload != "somebody" {
		t.Errorf("got %+v", g)
	}
	c.subscribe(1, "#", 0)
	c.ping()
}

// What waits says how long it has still; what has no time left does not come.
// [MQTT-3.3.2-5,6]
func TestDeliveryExpiry(t *testing.T) {
	s := start(t, newFake(), Options{FanOut: true})
	o := connectOptions{id: "sub", persist: true, props: expiryProp(60)}
	sub := connect(t, s.addr, o)
	sub.subscribe(1, "t", 1)
	sub.Close()
	eventually(t, "it is away", func() bool { return s.Clients() == 0 })
	pub := connect(t, s.addr, connectOptions{id: "pub"})
	pub.tell("t", "short", 1, 0, propMessageExpiry, 0, 0, 0, 1)
	pub.tell("t", "long", 1, 0, propMessageExpiry, 0, 0, 1, 0)
	eventually(t, "one has expired", func() bool { return s.Stats().FanOutDropped["expired"] == 1 })
	sub = connect(t, s.addr, o)
	if g := sub.message(); g.payload != "long" || g.expiry == 0 || g.expiry > 255 {
		t.Errorf("got %+v", g)
	}
}

// pickyHandler lets nobody see secrets.
type pickyHandler struct {
	*fakeHandler
}

type pickySession struct {
	Session
}

func (h *pickyHandler) Connect(ctx context.Context, p *Peer) (Session, Welcome, error) {
	s, w, err := h.fakeHandler.Connect(ctx, p)
	return &pickySession{s}, w, err
}

func (s *pickySession) Deliver(topic string) bool { return !strings.HasPrefix(topic, "secret") }

// The Session is asked for each message that leaves, new, retained or queued.
func TestDeliverIsAsked(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{FanOut: true})
	s.handler = &pickyHandler{fakeHandler: h}
	pub := connect(t, s.addr, connectOptions{id: "pub"})
	pub.tell("secret/kept", "x", 1, flagRetain)
	pub.tell("open/kept", "x", 1, flagRetain)
	sub := connect(t, s.addr, connectOptions{id: "sub"})
	sub.subscribe(1, "#", 2)
	if g := sub.message(); g.topic != "open/kept" {
		t.Errorf("got %+v", g)
	}
	sub.send(packet(typePuback<<4, u16(1)))
	for qos := range byte(3) {
		pub.tell("secret/now", "x", qos, 0)
		pub.tell("open/now", "x", qos, 0)
		g := sub.message()
		if g.topic != "open/now" {
			t.Errorf("got %+v", g)
		}
		sub.answer(g)
	}
	sub.ping()
	if n := s.Stats().FanOutDropped["not_allowed"]; n != 4 {
		t.Errorf("%d kept back, want 4", n)
	}
}

// What a client has not answered comes again on its next connection, with its
// identifier and DUP, before anything new; of a message that it has received only
// the PUBREL. [MQTT-4.4.0-1] [MQTT-3.3.1-1] [MQTT-4.6.0-1,4]
func TestRedelivery(t *testing.T) {
	s := start(t, newFake(), Options{FanOut: true})
	for _, version := range []byte{4, 5} {
		o := persistentOf(version)
		o.id = fmt.Sprint("sub", version)
		sub := connect(t, s.addr, o)
		sub.subscribe(1, "t", 2)
		pub := connect(t, s.addr, connectOptions{id: "pub"})
		for i, qos := range []byte{1, 2, 2, 1} {
			pub.tell("t", fmt.Sprint(i), qos, 0)
		}
		for i := range 4 {
			if g := sub.message(); g.payload != fmt.Sprint(i) || g.dup || int(g.id) != i+1 {
				t.Fatalf("message %d: %+v", i, g)
			}
		}
		sub.send(packet(typePubrec<<4, u16(2)))
		sub.expect(typePubrel<<4 | 2)
		sub.Close()
		eventually(t, "it is away", func() bool { return s.Clients() == 1 })
		before := s.Stats().FanOut
		pub.tell("t", "new", 1, 0)
		pub.tell("t", "not for one that is away", 0, 0)
		eventually(t, "both were offered", func() bool { return s.Stats().FanOut == before+2 })
		sub = connect(t, s.addr, o)
		for _, i := range []int{0, 2, 3} {
			if g := sub.message(); g.payload != fmt.Sprint(i) || !g.dup || int(g.id) != i+1 {
				t.Fatalf("message %d again: %+v", i, g)
			}
		}
		if body := sub.expect(typePubrel<<4 | 2); !bytes.Equal(body, u16(2)) {
			t.Errorf("PUBREL % x", body)
		}
		if g := sub.message(); g.payload != "new" || g.dup || g.id != 5 {
			t.Errorf("got %+v", g)
		}
		for id, kind := range []byte{0, typePuback, typePubcomp, 0, typePuback, typePuback} {
			if kind != 0 {
				sub.send(packet(kind<<4, u16(id)))
			}
		}
		sub.answer(got{qos: 2, id: 3})
		sub.ping()
		if n := s.Stats().QueuedMessages; n != 0 {
			t.Errorf("%d wait", n)
		}
		pub.disconnect()
		o.persist, o.props = false, nil
		connect(t, s.addr, o).disconnect()
		eventually(t, "both are gone", func() bool { return s.Stats().Sessions == 0 })
	}
}
