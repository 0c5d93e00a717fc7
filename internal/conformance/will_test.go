package conformance

import (
	"fmt"
	"time"

	"github.com/packetboat/packetboat/internal/rig/rawmqtt"
)

func theWill(t *T, payload string, qos byte, p ...rawmqtt.Property) rawmqtt.Will {
	return rawmqtt.Will{Topic: t.topic("w"), Payload: []byte(payload), QoS: qos, Properties: p}
}

// watch subscribes to the wills of a check.
func (t *T) watch() *client {
	t.Helper()
	c := t.connect()
	c.subscribe(t.topic("w"), 2)
	return c
}

// A connection that breaks has its will published, once, with its QoS and with
// any payload.
func willPublished(t *T) {
	sub := t.watch()
	for qos := range byte(3) {
		for _, payload := range []string{"gone", "", "\x00\xff"} {
			t.connect(will(theWill(t, payload, qos))).drop()
			if p := sub.want(t.topic("w"), payload); p.QoS != qos || p.Retain || p.Dup {
				t.Fatalf("got %s", rawmqtt.Describe(p))
			}
		}
	}
	sub.nothing(t.connect())
}

func willEmpty(t *T) {
	sub := t.watch()
	t.connect(will(theWill(t, "", 1))).drop()
	sub.want(t.topic("w"), "")
}

// A protocol error breaks a connection as well as the network does.
func willOnError(t *T) {
	sub := t.watch()
	c := t.connect(will(theWill(t, "error", 1)))
	c.send(rawmqtt.Raw{0x36, 3, 0, 1, 'a'})
	c.refused()
	sub.want(t.topic("w"), "error")
}

// DISCONNECT removes the will; so does its publication.
func willDiscarded(t *T) {
	sub := t.watch()
	id := t.id("w")
	t.connect(as(id), will(theWill(t, "never", 1))).leave()
	t.connect(as(id), will(theWill(t, "once", 1))).drop()
	sub.want(t.topic("w"), "once")
	t.connect(as(id)).drop() // without a will there is none
	sub.nothing(t.connect())
}

func willWithDisconnect4(t *T) {
	sub := t.watch()
	c := t.connect(will(theWill(t, "with 0x04", 1)))
	c.send(&rawmqtt.Disconnect{Code: 4})
	c.ended()
	sub.want(t.topic("w"), "with 0x04")
}

// Any code but 0 has the will published.
func willWithCodes(t *T) {
	sub := t.watch()
	for _, code := range []byte{0x80, 0x81, 0x93} {
		c := t.connect(will(theWill(t, fmt.Sprint(code), 1)))
		c.send(&rawmqtt.Disconnect{Code: code})
		c.ended()
		sub.want(t.topic("w"), fmt.Sprint(code))
	}
}

func willRetained(t *T) {
	w := theWill(t, "kept", 1)
	w.Retain = true
	live := t.watch()
	t.connect(will(w)).drop()
	if p := live.want(t.topic("w"), "kept"); p.Retain {
		t.Fatal("RETAIN is set for an existing subscription")
	}
	if p := t.watch().want(t.topic("w"), "kept"); !p.Retain {
		t.Fatal("RETAIN is not set")
	}
}

func willNotRetained(t *T) {
	sub := t.watch()
	t.connect(will(theWill(t, "passing", 1))).drop()
	sub.want(t.topic("w"), "passing")
	t.watch().nothing(t.connect())
}

// A takeover ends a connection without DISCONNECT of its client.
func willOnTakeover(t *T) {
	sub := t.watch()
	id := t.id("w")
	old := t.connect(as(id), will(theWill(t, "taken over", 1)))
	t.connect(as(id))
	old.refused(0x8E)
	sub.want(t.topic("w"), "taken over")
}

func willProperties(t *T) {
	sub := t.watch()
	sent := props{num(rawmqtt.PayloadFormat, 1), str(rawmqtt.ContentType, "c"), str(rawmqtt.ResponseTopic, "r"), str(rawmqtt.CorrelationData, "\x00"), user("b", "2"), user("a", "1"), user("b", "1")}
	t.connect(will(theWill(t, "x", 1, append(sent, num(rawmqtt.WillDelay, 0), num(rawmqtt.MessageExpiry, 100))...))).drop()
	p := sub.want(t.topic("w"), "x").Properties
	for _, x := range sent {
		if p.All(x.ID).String() != sent.All(x.ID).String() {
			t.Errorf("%v arrives as %v", sent, p)
		}
	}
	if p.Has(rawmqtt.WillDelay) || p.Num(rawmqtt.MessageExpiry, 0) > 100 {
		t.Errorf("arrives with %v", p)
	}
}

// The will waits for its delay, or for the end of the session if that is sooner.
func willDelay(t *T) {
	for _, tc := range []struct {
		delay, expiry uint32
		least         time.Duration
	}{{2, 10, 2 * time.Second}, {100, 2, 2 * time.Second}, {100, 0, 0}} {
		sub := t.watch()
		c := t.connect(t.lasting(tc.expiry), will(theWill(t, fmt.Sprint(tc), 1, num(rawmqtt.WillDelay, tc.delay))))
		begin := time.Now()
		c.drop()
		sub.want(t.topic("w"), fmt.Sprint(tc))
		if d := time.Since(begin); d < tc.least-20*time.Millisecond {
			t.Errorf("delay %d s, session %d s: published after %v", tc.delay, tc.expiry, d)
		}
		sub.leave()
	}
}

// A client that is back before the delay has passed is well.
func willDelayReturns(t *T) {
	sub := t.watch()
	id := t.id("w")
	t.connect(as(id), t.lasting(600), will(theWill(t, "never", 1, num(rawmqtt.WillDelay, 2)))).drop()
	c := t.connect(as(id), resume, t.lasting(600))
	if !c.ack.SessionPresent {
		t.Fatal("no session is present")
	}
	after(2500 * time.Millisecond)
	sub.nothing(t.connect())
}

// A clean start ends the session and with it the wait.
func willDelayClean(t *T) {
	sub := t.watch()
	id := t.id("w")
	t.connect(as(id), t.lasting(600), will(theWill(t, "session ended", 1, num(rawmqtt.WillDelay, 600)))).drop()
	t.connect(as(id))
	sub.want(t.topic("w"), "session ended")
}

func willWildcard(t *T) {
	for _, topic := range []string{"a/+", "#", ""} {
		c := t.dial()
		c.send(t.connectPacket(will(rawmqtt.Will{Topic: topic, Payload: []byte("x")})))
		t.notWelcome(c)
	}
}
