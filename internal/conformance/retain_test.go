package conformance

import (
	"fmt"

	"github.com/packetboat/packetboat/internal/rig/rawmqtt"
)

// A retained message goes to whoever subscribes later, with RETAIN and with the
// QoS that both allow.
func retainStores(t *T) {
	pub := t.connect()
	for qos := range byte(3) {
		topic := t.topic(fmt.Sprint(qos))
		pub.publish(retained(message(topic, qos, "old")))
		pub.publish(retained(message(topic, qos, "new")))
	}
	pub.through()
	for granted := range byte(3) {
		sub := t.connect()
		for qos := range byte(3) {
			topic := t.topic(fmt.Sprint(qos))
			sub.subscribe(topic, granted)
			if p := sub.want(topic, "new"); !p.Retain || p.QoS != min(qos, granted) {
				t.Fatalf("QoS %d, granted %d: %s", qos, granted, rawmqtt.Describe(p))
			}
		}
		sub.nothing(pub)
	}
}

// RETAIN 0 stores nothing and replaces nothing.
func notRetained(t *T) {
	pub, sub := t.connect(), t.connect()
	pub.publish(retained(message(t.topic("a"), 1, "kept")))
	pub.publish(message(t.topic("a"), 1, "passing"))
	pub.publish(message(t.topic("a"), 1, ""))
	pub.publish(message(t.topic("b"), 1, "passing"))
	pub.through()
	sub.subscribe(t.topic("+"), 1)
	sub.want(t.topic("a"), "kept")
	sub.nothing(pub)
}

// An empty payload clears, is delivered as any message is, and is not kept.
func retainClears(t *T) {
	pub, live := t.connect(), t.connect()
	for qos := range byte(3) {
		topic := t.topic(fmt.Sprint(qos))
		pub.publish(retained(message(topic, qos, "kept")))
		pub.through()
		live.subscribe(topic, 2)
		live.want(topic, "kept")
		pub.publish(retained(message(topic, qos, "")))
		live.want(topic, "")
	}
	sub := t.connect()
	sub.subscribe(t.topic("#"), 2)
	sub.nothing(pub)
}

// An existing subscription sees RETAIN 0.
func retainFlagLive(t *T) {
	pub, sub := t.connect(), t.connect()
	sub.subscribe(t.topic("a"), 1)
	pub.publish(retained(message(t.topic("a"), 1, "x")))
	if p := sub.want(t.topic("a"), "x"); p.Retain {
		t.Fatal("RETAIN is set for an existing subscription")
	}
}

func retainAsPublished(t *T) {
	pub, sub := t.connect(), t.connect()
	sub.subscribe(t.topic("a"), 1|rawmqtt.RetainAsPublished)
	for _, retain := range []bool{false, true, false} {
		p := message(t.topic("a"), 1, fmt.Sprint(retain))
		p.Retain = retain
		pub.publish(p)
		if got := sub.want(t.topic("a"), fmt.Sprint(retain)); got.Retain != retain {
			t.Fatalf("RETAIN %t was published, %t arrives", retain, got.Retain)
		}
	}
}

func retainHandling(t *T, options byte, first, second bool) {
	pub, sub := t.connect(), t.connect()
	pub.publish(retained(message(t.topic("a"), 1, "kept")))
	pub.through()
	for round, due := range []bool{first, second, second} {
		sub.subscribe(t.topic("a"), 1|options)
		if due {
			if p := sub.want(t.topic("a"), "kept"); !p.Retain {
				t.Fatalf("round %d: RETAIN is not set", round)
			}
		}
		sub.nothing(pub)
	}
	sub.unsubscribe(t.topic("a"))
	sub.subscribe(t.topic("a"), 1|options)
	if first { // it is a new subscription again
		sub.want(t.topic("a"), "kept")
	}
	sub.nothing(pub)
}

func retainHandling0(t *T) { retainHandling(t, 0, true, true) }
func retainHandling1(t *T) { retainHandling(t, rawmqtt.RetainIfNew, true, false) }
func retainHandling2(t *T) { retainHandling(t, rawmqtt.RetainNever, false, false) }

// Retained messages are not part of a session.
func retainOutlivesSession(t *T) {
	pub := t.connect(as(t.id("p")))
	pub.publish(retained(message(t.topic("a"), 1, "kept")))
	pub.through()
	pub.leave()
	pub = t.connect(as(t.id("p")))
	pub.subscribe(t.topic("a"), 1)
	pub.want(t.topic("a"), "kept")
}

func retainProperties(t *T) {
	pub, sub := t.connect(), t.connect()
	sent := props{num(rawmqtt.PayloadFormat, 1), str(rawmqtt.ContentType, "c"), str(rawmqtt.ResponseTopic, "r"), str(rawmqtt.CorrelationData, "\x00"), user("a", "2"), user("c", "3")}
	for qos := range byte(3) {
		pub.publish(retained(message(t.topic(fmt.Sprint(qos)), qos, "x", sent...)))
	}
	pub.through()
	sub.subscribe(t.topic("+"), 2)
	for range 3 {
		p := sub.receive()
		if p.Properties.All(rawmqtt.UserProperty).String() != sent.All(rawmqtt.UserProperty).String() || len(p.Properties) != len(sent) {
			t.Errorf("arrives with %v", p.Properties)
		}
	}
}

// A subscription that matches many retained messages gets each of them once.
func retainMany(t *T) {
	pub, sub := t.connect(), t.connect()
	const n = 300
	for i := range n {
		pub.send(retained(message(t.topic(fmt.Sprintf("many/%d", i)), 0, "x")))
	}
	pub.publish(retained(message(t.topic("many/last"), 1, "x")))
	pub.through()
	sub.subscribe(t.topic("many/#"), 1)
	seen := map[string]bool{}
	for range n + 1 {
		p := sub.receive()
		if topic := sub.Topic(p); seen[topic] || !p.Retain {
			t.Fatalf("got %s", rawmqtt.Describe(p))
		}
		seen[sub.Topic(p)] = true
	}
	sub.nothing(pub)
}

// Retained messages follow the wildcard rules, topics with $ included.
func retainWildcards(t *T) {
	pub, sub := t.connect(), t.connect()
	for _, topic := range []string{"a", "a/b", "a/b/c", "b"} {
		pub.publish(retained(message(t.topic(topic), 1, topic)))
	}
	pub.through()
	for filter, want := range map[string]int{"a/#": 3, "+": 2, "+/b": 1, "a/+/c": 1, "a/+": 1, "#": 4, "c/#": 0} {
		sub.subscribe(t.topic(filter), 1)
		for range want {
			sub.receive()
		}
		sub.nothing(pub)
		sub.unsubscribe(t.topic(filter))
	}
}
