package conformance

import (
	"fmt"
	"slices"

	"github.com/packetboat/packetboat/internal/rig/rawmqtt"
)

func (t *T) share(group, topic string) string { return "$share/" + group + "/" + t.topic(topic) }

// Each message goes to one member of each group, and to every plain subscriber.
func sharedOnce(t *T) {
	plain, pub := t.connect(), t.connect()
	plain.subscribe(t.topic("a"), 1)
	var members []*client
	for i := range 4 {
		c := t.connect()
		c.subscribe(t.share(fmt.Sprint("g", i%2), "a"), 1)
		members = append(members, c)
	}
	const n = 40
	for i := range n {
		pub.publish(message(t.topic("a"), 1, fmt.Sprint(i)))
		plain.want(t.topic("a"), fmt.Sprint(i))
	}
	for group := range 2 {
		seen := map[string]int{}
		for i := group; i < len(members); i += 2 {
			got := members[i].all(pub)
			if len(got) == 0 {
				t.Errorf("member %d of group %d got nothing", i, group)
			}
			for _, p := range got {
				seen[string(p.Payload)]++
			}
		}
		for i := range n {
			if seen[fmt.Sprint(i)] != 1 {
				t.Errorf("group %d got message %d %d times", group, i, seen[fmt.Sprint(i)])
			}
		}
	}
}

// all reads what is on its way to c.
func (c *client) all(pub *client) (out []*rawmqtt.Publish) {
	c.t.Helper()
	end := c.end(pub)
	for p := c.receive(); c.Topic(p) != end; p = c.receive() {
		out = append(out, p)
	}
	return out
}

func sharedQoS(t *T) {
	for granted := range byte(3) {
		sub, pub := t.connect(), t.connect()
		topic := fmt.Sprint("q", granted)
		sub.subscribe(t.share("g", topic), granted)
		for qos := range byte(3) {
			pub.publish(message(t.topic(topic), qos, fmt.Sprint(qos)))
			if p := sub.want(t.topic(topic), fmt.Sprint(qos)); p.QoS != min(qos, granted) {
				t.Fatalf("QoS %d, granted %d, arrives with %d", qos, granted, p.QoS)
			}
		}
	}
}

func sharedNoRetained(t *T) {
	pub, sub := t.connect(), t.connect()
	pub.publish(retained(message(t.topic("a"), 1, "kept")))
	pub.through()
	sub.subscribe(t.share("g", "a"), 1)
	sub.nothing(pub)
}

// A member that refuses a message has refused it for all.
func sharedRefusal(t *T) {
	a, b, pub := t.connect(), t.connect(), t.connect()
	a.subscribe(t.share("g", "a"), 2)
	b.subscribe(t.share("g", "a"), 2)
	for i := range 8 {
		pub.publish(message(t.topic("a"), byte(1+i%2), fmt.Sprint(i)))
	}
	seen := map[string]int{}
	for _, c := range []*client{a, b} {
		end := c.end(pub)
		for p := c.take(); c.Topic(p) != end; p = c.take() {
			kind := rawmqtt.PUBACK
			if p.QoS == 2 {
				kind = rawmqtt.PUBREC
			}
			c.send(&rawmqtt.Ack{Kind: kind, ID: p.ID, Code: 0x80})
			seen[string(p.Payload)]++
		}
	}
	for i := range 8 {
		if seen[fmt.Sprint(i)] != 1 {
			t.Errorf("message %d was delivered %d times", i, seen[fmt.Sprint(i)])
		}
	}
	a.ping()
	b.ping()
	if got := append(a.all(pub), b.all(pub)...); slices.ContainsFunc(got, func(p *rawmqtt.Publish) bool { return string(p.Payload) != "end" }) {
		t.Errorf("refused messages came again: %d", len(got))
	}
}

// A QoS 2 message whose exchange broke ends where it began.
func sharedQoS2Resumes(t *T) {
	a := t.connect(as(t.id("a")), t.lasting(600))
	b, pub := t.connect(), t.connect()
	a.subscribe(t.share("g", "a"), 2)
	pub.publish(message(t.topic("a"), 2, "mine"))
	p := a.take()
	b.subscribe(t.share("g", "a"), 2)
	a.drop()
	b.nothing(pub)
	a = t.connect(as(t.id("a")), resume, t.lasting(0))
	if again := a.receive(); again.ID != p.ID || !again.Dup {
		t.Fatalf("got %s", rawmqtt.Describe(again))
	}
}

var badShares = []string{"$share/gr+oup/a", "$share/gr#oup/a", "$share/group", "$share/group/", "$share//a", "$share/"}

func sharedBadNames(t *T) {
	for _, f := range badShares {
		c := t.connect()
		c.send(&rawmqtt.Subscribe{ID: 1, Filters: []rawmqtt.Filter{{Filter: f, Options: 1}}})
		c.filterRefused(0x8F)
	}
}

// What is wrong with one filter is answered for it alone.
func badFiltersAnswered(t *T) {
	c := t.connect()
	for _, f := range append([]string{"a/#/b", "a#", "+a"}, badShares...) {
		codes := c.trySubscribe([]rawmqtt.Filter{{Filter: t.topic("a"), Options: 1}, {Filter: f, Options: 1}})
		if codes[0] != 1 || codes[1] != 0x8F {
			t.Errorf("%q got % x", f, codes)
		}
	}
	c.ping()
}

func sharedUnsubscribe(t *T) {
	a, pub := t.connect(), t.connect()
	a.subscribe(t.share("g", "a"), 1)
	a.subscribe(t.share("h", "a"), 1)
	if codes := a.unsubscribe(t.share("g", "a"), t.topic("a")); !slices.Equal(codes, []byte{0, 0x11}) {
		t.Fatalf("codes % x", codes)
	}
	pub.publish(message(t.topic("a"), 1, "x"))
	a.want(t.topic("a"), "x")
	a.nothing(pub)
	a.unsubscribe(t.share("h", "a"))
	pub.publish(message(t.topic("a"), 1, "y"))
	a.nothing(pub)
}

// A member that leaves leaves its share to the others.
func sharedLeaves(t *T) {
	a, b, pub := t.connect(), t.connect(), t.connect()
	a.subscribe(t.share("g", "a"), 1)
	b.subscribe(t.share("g", "a"), 1)
	a.leave()
	for i := range 6 {
		pub.publish(message(t.topic("a"), 1, fmt.Sprint(i)))
		b.want(t.topic("a"), fmt.Sprint(i))
	}
}

// One client with a shared and a plain subscription gets both.
func sharedAndPlain(t *T) {
	a, pub := t.connect(), t.connect()
	a.subscribe(t.share("g", "a"), 1)
	a.subscribe(t.topic("a"), 1)
	for i := range 3 {
		pub.publish(message(t.topic("a"), 1, fmt.Sprint(i)))
		a.want(t.topic("a"), fmt.Sprint(i))
		a.want(t.topic("a"), fmt.Sprint(i))
	}
	a.nothing(pub)
}
