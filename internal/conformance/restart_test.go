package conformance

import (
	"fmt"
	"time"

	"github.com/packetboat/packetboat/internal/rig/rawmqtt"
)

// keeping is well beyond the tenth of a second in which a copy for a local
// subscriber, which no acknowledgement waits for, comes to flash.
const keeping = time.Second

// restart: sessions, subscriptions with their options, what waits in them, and
// retained messages survive kill -9; what ended before does not come back.
func restart(t *T) {
	t.own()
	pub := t.connect(as("pub"), t.lasting(600))
	sub := t.connect(as("sub"), t.lasting(600))
	sub.subscribe("a/#", 2)
	sub.subscribe("gone", 2)
	sub.unsubscribe("gone")
	gone := t.connect(as("clean"))
	gone.subscribe("a/#", 2)
	pub.publish(retained(message("a/kept", 1, "kept")))
	pub.publish(retained(message("a/cleared", 1, "x")))
	pub.publish(retained(message("a/cleared", 1, "")))
	for range 3 {
		sub.receive()
	}
	sub.leave()
	pub.publish(message("a/wait", 1, "1"))
	pub.publish(message("a/wait", 2, "2"))
	pub.publish(message("gone", 2, "not for you"))
	after(keeping)
	t.b.crash()
	t.b.start()
	sub = t.connect(as("sub"), resume, t.lasting(600))
	if !sub.ack.SessionPresent {
		t.Fatal("the session did not survive")
	}
	sub.want("a/wait", "1")
	sub.want("a/wait", "2")
	if gone = t.connect(as("clean"), resume, t.lasting(0)); gone.ack.SessionPresent {
		t.Fatal("a clean session survived")
	}
	pub = t.connect(as("pub"), resume, t.lasting(600))
	if !pub.ack.SessionPresent {
		t.Fatal("the publisher's session did not survive")
	}
	pub.publish(message("a/new", 2, "3"))
	sub.want("a/new", "3")
	pub.through()
	fresh := t.connect(as("fresh"))
	fresh.subscribe("a/#", 1)
	if p := fresh.want("a/kept", "kept"); !p.Retain {
		t.Fatal("RETAIN is not set")
	}
	fresh.nothing(pub)
	sub.nothing(pub)
}

// restartQoS2: both directions of QoS 2 go on over kill -9, exactly once.
func restartQoS2(t *T) {
	t.own()
	pub := t.connect(as("pub"), t.lasting(600))
	sub := t.connect(as("sub"), t.lasting(600))
	sub.subscribe("a", 2)
	p := message("a", 2, "once")
	p.ID = 7
	pub.send(p)
	pub.expectAck(rawmqtt.PUBREC, 7)
	for range 2 {
		t.b.crash()
		t.b.start()
		pub = t.connect(as("pub"), resume, t.lasting(600))
		if !pub.ack.SessionPresent {
			t.Fatal("the publisher's session did not survive")
		}
		p.Dup = true
		pub.send(p)
		pub.expectAck(rawmqtt.PUBREC, 7)
	}
	pub.send(ack(rawmqtt.PUBREL, 7))
	pub.expectAck(rawmqtt.PUBCOMP, 7)
	after(keeping)
	t.b.crash()
	t.b.start()
	pub = t.connect(as("pub"), resume, t.lasting(600))
	pub.send(ack(rawmqtt.PUBREL, 7))
	pub.expectAck(rawmqtt.PUBCOMP, 7)
	sub = t.connect(as("sub"), resume, t.lasting(600))
	if !sub.ack.SessionPresent {
		t.Fatal("the subscriber's session did not survive")
	}
	got := sub.take()
	if string(got.Payload) != "once" || got.QoS != 2 {
		t.Fatalf("got %s", rawmqtt.Describe(got))
	}
	t.b.crash()
	t.b.start()
	sub = t.connect(as("sub"), resume, t.lasting(600))
	again := sub.receive()
	if again.ID != got.ID || string(again.Payload) != "once" {
		t.Fatalf("got %s, want %s again", rawmqtt.Describe(again), rawmqtt.Describe(got))
	}
	pub = t.connect(as("pub"), resume, t.lasting(600))
	q := message("a", 2, "second")
	q.ID = 7
	pub.publish(q)
	sub.want("a", "second")
	sub.nothing(pub)
}

// restartWill: a will that waits survives kill -9; one of a connection that the
// kill itself broke is published or not, and no more than once.
func restartWill(t *T) {
	t.own()
	sub := t.connect(as("sub"), t.lasting(600))
	sub.subscribe("w/#", 1)
	w := theWill(t, "after the restart", 1, num(rawmqtt.WillDelay, 3))
	w.Topic = "w/delayed"
	t.connect(as("dies"), t.lasting(600), will(w)).drop()
	sub.ping()
	after(keeping)
	t.b.crash()
	t.b.start()
	sub = t.connect(as("sub"), resume, t.lasting(600))
	sub.want("w/delayed", "after the restart")
	pub := t.connect(as("pub"))
	for i := range 2 {
		pub.publish(message("w/end", 1, fmt.Sprint(i)))
		sub.want("w/end", fmt.Sprint(i))
	}
}
