package conformance

import (
	"fmt"
	"slices"

	"github.com/packetboat/packetboat/internal/rig/rawmqtt"
)

// One SUBACK, one code each, in order; the subscriptions are as if asked for one
// by one.
func manyFilters(t *T) {
	c := t.connect()
	codes := c.trySubscribe([]rawmqtt.Filter{{Filter: t.topic("a"), Options: 2}, {Filter: t.topic("b"), Options: 0}, {Filter: t.topic("c/#"), Options: 1}, {Filter: t.topic("a"), Options: 1}})
	if !slices.Equal(codes, []byte{2, 0, 1, 1}) {
		t.Fatalf("codes % x", codes)
	}
	c.publish(message(t.topic("a"), 2, "x"))
	if p := c.want(t.topic("a"), "x"); p.QoS != 1 {
		t.Fatalf("the later subscription granted 1, QoS %d arrives", p.QoS)
	}
	c.publish(message(t.topic("c/d"), 2, "x"))
	c.want(t.topic("c/d"), "x")
	c.nothing(c)
}

// A filter that is subscribed to again replaces the subscription.
func resubscribe(t *T) {
	sub, pub := t.connect(), t.connect()
	pub.publish(retained(message(t.topic("a"), 1, "kept")))
	pub.through()
	for _, qos := range []byte{0, 2, 1} {
		sub.subscribe(t.topic("a"), qos)
		sub.want(t.topic("a"), "kept")
		pub.publish(message(t.topic("a"), 2, "x"))
		if p := sub.want(t.topic("a"), "x"); p.QoS != qos {
			t.Fatalf("QoS %d, want %d", p.QoS, qos)
		}
		sub.nothing(pub)
	}
}

// Messages do not get lost while a subscription is replaced.
func resubscribeLosesNothing(t *T) {
	sub, pub := t.connect(), t.connect()
	sub.subscribe(t.topic("a"), 1)
	next := 0
	for round := range 10 {
		sent := []packet{}
		for range 10 {
			p := message(t.topic("a"), 1, fmt.Sprint(next))
			p.ID = pub.pid()
			sent, next = append(sent, p), next+1
		}
		pub.send(sent...)
		sub.subscribe(t.topic("a"), 1)
		pub.complete(sent)
		for i := range 10 {
			sub.want(t.topic("a"), fmt.Sprint(round*10+i))
		}
	}
}

func noFilters(t *T) {
	c := t.connect()
	c.send(&rawmqtt.Subscribe{ID: 1})
	c.refused(0x82, 0x81)
	c = t.connect()
	c.send(&rawmqtt.Unsubscribe{ID: 1})
	c.refused(0x82, 0x81)
}

func noFiltersToUnsubscribe(t *T) {
	c := t.connect()
	c.send(&rawmqtt.Unsubscribe{ID: 1})
	c.refused(0x82, 0x81)
}

func reservedOptions(t *T) {
	bad := []byte{3, 0x40, 0x80, 0x30}
	if t.v < v5 {
		bad = []byte{3, 4, 8, 0x10, 0x40, 0x80}
	}
	for _, o := range bad {
		c := t.connect()
		c.send(&rawmqtt.Subscribe{ID: 1, Filters: []rawmqtt.Filter{{Filter: t.topic("a"), Options: o}}})
		c.refused(0x81, 0x82)
	}
}

func noLocal(t *T) {
	a, b := t.connect(), t.connect()
	a.subscribe(t.topic("a"), 1|rawmqtt.NoLocal)
	b.subscribe(t.topic("a"), 1|rawmqtt.NoLocal)
	a.publish(message(t.topic("a"), 1, "of a"))
	b.want(t.topic("a"), "of a")
	a.nothing(b)
	b.publish(message(t.topic("a"), 1, "of b"))
	a.want(t.topic("a"), "of b")
	b.nothing(a)
	a.subscribe(t.topic("a"), 1) // replaced
	a.publish(message(t.topic("a"), 1, "again"))
	a.want(t.topic("a"), "again")
}

// No Local holds for what was published on another connection of the client, too.
func noLocalSession(t *T) {
	a := t.connect(as(t.id("n")), t.lasting(600))
	a.subscribe(t.topic("a"), 1|rawmqtt.NoLocal)
	a.leave()
	a = t.connect(as(t.id("n")), resume, t.lasting(0))
	a.publish(message(t.topic("a"), 1, "mine"))
	a.nothing(t.connect())
}

func noLocalShared(t *T) {
	c := t.connect()
	c.send(&rawmqtt.Subscribe{ID: 1, Filters: []rawmqtt.Filter{{Filter: "$share/g/" + t.topic("a"), Options: rawmqtt.NoLocal}}})
	c.refused(0x82, 0x81)
}

// Filters that are none: SUBACK with a code, or the end.
func badFilters(t *T) {
	for _, f := range []string{"a/#/b", "a#", "#/a", "a/b#", "a+", "+a", "a/+b/c", "##", "++", "", "/#a", "a/+#"} {
		c := t.connect()
		c.send(&rawmqtt.Subscribe{ID: 1, Filters: []rawmqtt.Filter{{Filter: f}}})
		c.filterRefused(0x8F)
	}
}

func emptyFilter(t *T) {
	c := t.connect()
	c.send(&rawmqtt.Subscribe{ID: 1, Filters: []rawmqtt.Filter{{Filter: ""}}})
	c.filterRefused(0x8F)
}

func (c *client) filterRefused(code byte) {
	c.t.Helper()
	p, err := c.Next(c.until)
	if err != nil {
		c.t.Logf("%v", err)
		return
	}
	switch p := p.(type) {
	case *rawmqtt.Suback:
		for _, got := range p.Codes {
			if c.Version() == v5 && got != code || c.Version() < v5 && got != 0x80 {
				c.t.Fatalf("SUBACK % x", p.Codes)
			}
		}
	case *rawmqtt.Disconnect:
		c.oneOf("DISCONNECT", p.Code, []byte{0x81, 0x82, 0x8F})
	default:
		c.t.Fatalf("got %s", rawmqtt.Describe(p))
	}
}

// Wildcards, every rule of section 4.7 that has an example there.
func wildcards(t *T) {
	match := map[string][]string{
		"sport/tennis/player1/#": {"sport/tennis/player1", "sport/tennis/player1/ranking", "sport/tennis/player1/score/wimbledon"},
		"sport/#":                {"sport", "sport/tennis/player1", "sport/tennis/player1/ranking", "sport/tennis/player1/score/wimbledon", "sport/"},
		"sport/tennis/+":         {"sport/tennis/player1"},
		"sport/+":                {"sport/"},
		"+/tennis/#":             {"sport/tennis/player1", "sport/tennis/player1/ranking", "sport/tennis/player1/score/wimbledon"},
		"+/+":                    {"sport/", "/finance"},
		"/+":                     {"/finance"},
		"+":                      {"sport", "finance"},
		"sport/+/player1":        {"sport/tennis/player1"},
		"finance":                {"finance"},
		"Finance":                {},
		"+/finance":              {"/finance"},
		"sport/tennis/player1":   {"sport/tennis/player1"},
	}
	topics := []string{"sport", "sport/", "finance", "/finance", "sport/tennis/player1", "sport/tennis/player1/ranking", "sport/tennis/player1/score/wimbledon"}
	pub := t.connect()
	subs := map[string]*client{}
	for filter := range match {
		subs[filter] = t.connect()
		subs[filter].subscribe(t.topic(filter), 1)
	}
	for _, topic := range topics {
		pub.publish(message(t.topic(topic), 1, topic))
	}
	for filter, sub := range subs {
		for _, topic := range topics {
			if slices.Contains(match[filter], topic) {
				sub.want(t.topic(topic), topic)
			}
		}
		sub.nothing(pub)
	}
}

// Wildcards at the first level do not see topics with $; filters that name them
// may.
func dollarTopics(t *T) {
	all, first, pub := t.connect(), t.connect(), t.connect()
	all.subscribe("#", 1)
	first.subscribe("+/"+t.topic("d"), 1)
	for _, root := range []string{"$SYS", "$x", "$"} {
		p := message(root+"/"+t.topic("d"), 1, "x")
		p.ID = pub.pid()
		pub.send(p)
		pub.expectAck(rawmqtt.PUBACK, p.ID) // of either kind, and never the end
		pub.send(message(root+"/"+t.topic("d"), 0, "x"))
	}
	pub.publish(message("y/"+t.topic("d"), 1, "end"))
	first.want("y/"+t.topic("d"), "end")
	for {
		p := all.receive() // others publish, too
		if p.Topic[0] == '$' {
			t.Fatalf("# sees %q", p.Topic)
		}
		if string(p.Payload) == "end" && p.Topic == "y/"+t.topic("d") {
			return
		}
	}
}

// A topic with $ that is no server's own is for whoever names it.
func dollarTopicsNamed(t *T) {
	sub, pub := t.connect(), t.connect()
	root := "$" + t.prefix
	sub.subscribe(root+"/#", 1)
	pub.publish(message(root+"/a", 1, "x"))
	sub.want(root+"/a", "x")
}

// Subscribing to $SYS is granted or refused, and harms nobody.
func dollarSYS(t *T) {
	c := t.connect()
	c.trySubscribe([]rawmqtt.Filter{{Filter: "$SYS/#"}})
	c.ping()
}

func unsubscribeStops(t *T) {
	sub, pub := t.connect(), t.connect()
	sub.subscribe(t.topic("a"), 1)
	sub.subscribe(t.topic("+"), 1)
	codes := sub.unsubscribe(t.topic("a")) // and not t.topic("+"): filters are compared, not matched
	if t.v == v5 && !slices.Equal(codes, []byte{0}) {
		t.Fatalf("codes % x", codes)
	}
	pub.publish(message(t.topic("a"), 1, "x"))
	sub.want(t.topic("a"), "x")
	sub.nothing(pub)
	sub.unsubscribe(t.topic("+"))
	pub.publish(message(t.topic("a"), 1, "x"))
	sub.nothing(pub)
}

// What was on its way when the subscription ended is still delivered.
func unsubscribeCompletes(t *T) {
	pub := t.connect()
	sub := t.connect(as(t.id("s")), t.lasting(600))
	sub.subscribe(t.topic("a"), 2)
	pub.publish(message(t.topic("a"), 1, "one"))
	pub.publish(message(t.topic("a"), 2, "two"))
	one, two := sub.take(), sub.take()
	sub.unsubscribe(t.topic("a"))
	sub.answer(two)
	sub.drop()
	sub = t.connect(as(t.id("s")), resume, t.lasting(0))
	if again := sub.receive(); again.ID != one.ID || string(again.Payload) != "one" {
		t.Fatalf("got %s", rawmqtt.Describe(again))
	}
	sub.nothing(pub)
}

func unsubscribeUnknown(t *T) {
	c := t.connect()
	c.subscribe(t.topic("a"), 1)
	codes := c.unsubscribe(t.topic("b"), t.topic("a"), t.topic("A"), t.topic("a"))
	if t.v == v5 && !slices.Equal(codes, []byte{0x11, 0, 0x11, 0x11}) {
		t.Fatalf("codes % x", codes)
	}
}

// Overlapping subscriptions: with the highest QoS of them, once or once for each.
func overlapping(t *T) {
	sub, pub := t.connect(), t.connect()
	if codes := sub.trySubscribe([]rawmqtt.Filter{{Filter: t.topic("o/#"), Options: 2}, {Filter: t.topic("o/+"), Options: 1}}); !slices.Equal(codes, []byte{2, 1}) {
		t.Fatalf("codes % x", codes)
	}
	pub.publish(message(t.topic("o/a"), 2, "x"))
	got := []byte{sub.want(t.topic("o/a"), "x").QoS}
	end := sub.end(pub)
	for p := sub.receive(); sub.Topic(p) != end; p = sub.receive() {
		got = append(got, p.QoS)
	}
	slices.Sort(got)
	if !slices.Equal(got, []byte{2}) && !slices.Equal(got, []byte{1, 2}) {
		t.Fatalf("arrives with QoS %v", got)
	}
}

// Subscription identifiers: those of all subscriptions that match, and of no
// other; the largest one too; replaced with the subscription.
func identifiers(t *T) {
	a, b, pub := t.connect(), t.connect(), t.connect()
	a.subscribe(t.topic("a"), 1, num(rawmqtt.SubscriptionID, 268_435_455))
	b.subscribe(t.topic("a"), 2, num(rawmqtt.SubscriptionID, 2))
	b.subscribe(t.topic("a/#"), 1, num(rawmqtt.SubscriptionID, 3))
	b.subscribe(t.topic("+"), 0)
	pub.publish(message(t.topic("a"), 2, "x"))
	if got := ids(a.want(t.topic("a"), "x")); !slices.Equal(got, []uint32{268_435_455}) {
		t.Fatalf("a gets %v", got)
	}
	b.wantIDs(pub, 2, 3)
	b.subscribe(t.topic("a"), 2, num(rawmqtt.SubscriptionID, 7))
	pub.publish(message(t.topic("a"), 2, "y"))
	b.wantIDs(pub, 3, 7)
	b.subscribe(t.topic("a"), 2)
	pub.publish(message(t.topic("a"), 2, "z"))
	b.wantIDs(pub, 3)
}

// wantIDs reads the copies of one message and wants these identifiers on them,
// all on one or one on each.
func (c *client) wantIDs(pub *client, want ...uint32) {
	c.t.Helper()
	end := c.end(pub)
	got, copies := []uint32{}, 0
	for p := c.receive(); c.Topic(p) != end; p = c.receive() {
		got, copies = append(got, ids(p)...), copies+1
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		c.t.Fatalf("identifiers %v in %d copies, want %v", got, copies, want)
	}
}

func ids(p *rawmqtt.Publish) (out []uint32) {
	for _, x := range p.Properties.All(rawmqtt.SubscriptionID) {
		out = append(out, x.Num)
	}
	slices.Sort(out)
	return out
}

// One copy with all identifiers, as this server promises.
func identifiersOnOne(t *T) {
	b := t.connect()
	b.subscribe(t.topic("a"), 2, num(rawmqtt.SubscriptionID, 2))
	b.subscribe(t.topic("a/#"), 2, num(rawmqtt.SubscriptionID, 3))
	b.publish(message(t.topic("a"), 1, "x"))
	if got := ids(b.want(t.topic("a"), "x")); !slices.Equal(got, []uint32{2, 3}) {
		t.Fatalf("identifiers %v", got)
	}
	b.nothing(b)
}

// Identifiers of retained messages and of sessions that go on.
func identifiersKept(t *T) {
	pub := t.connect()
	pub.publish(retained(message(t.topic("a"), 1, "kept")))
	pub.through()
	sub := t.connect(as(t.id("s")), t.lasting(600))
	sub.subscribe(t.topic("a"), 1, num(rawmqtt.SubscriptionID, 5))
	if got := ids(sub.want(t.topic("a"), "kept")); !slices.Equal(got, []uint32{5}) {
		t.Fatalf("identifiers %v of a retained message", got)
	}
	sub.leave()
	pub.publish(message(t.topic("a"), 1, "waiting"))
	sub = t.connect(as(t.id("s")), resume, t.lasting(0))
	if got := ids(sub.want(t.topic("a"), "waiting")); !slices.Equal(got, []uint32{5}) {
		t.Fatalf("identifiers %v of a message that waited", got)
	}
}

// Long filters and deep ones.
func longTopics(t *T) {
	c := t.connect()
	long := t.topic(string(slices.Repeat([]byte{'l'}, 65535-len(t.topic("")))))
	c.subscribe(long, 1)
	c.publish(message(long, 1, "x"))
	c.want(long, "x")
	deep := t.topic("1")
	for i := range 30 {
		deep += fmt.Sprintf("/%d", i)
	}
	c.subscribe(deep, 1)
	c.publish(message(deep, 1, "x"))
	c.want(deep, "x")
}
