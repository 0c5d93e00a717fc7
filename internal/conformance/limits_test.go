package conformance

import (
	"errors"
	"strings"
	"time"

	"github.com/packetboat/packetboat/internal/rig/rawmqtt"
)

// Nothing larger than the client takes is sent to it, the message counts as
// delivered, and what comes behind it arrives.
func maximumPacketSize(t *T) {
	for _, size := range []uint32{30, 64, 200} {
		sub := t.connect(with(num(rawmqtt.MaximumPacketSize, size)))
		pub := t.connect()
		sub.subscribe(t.topic("a"), 2)
		fits := int(size) - len(t.topic("a")) - 8
		for qos := range byte(3) {
			pub.publish(message(t.topic("a"), qos, strings.Repeat("f", max(0, fits-20))))
			sub.want(t.topic("a"), strings.Repeat("f", max(0, fits-20)))
			pub.publish(message(t.topic("a"), qos, strings.Repeat("x", int(size))))
			pub.publish(message(t.topic("a"), qos, "", user("key", strings.Repeat("x", int(size)))))
		}
		pub.publish(message(t.topic("a"), 1, "y"))
		sub.want(t.topic("a"), "y")
	}
}

// For other subscribers a message counts that is too large for one.
func maximumPacketSizeOthers(t *T) {
	small, large, pub := t.connect(with(num(rawmqtt.MaximumPacketSize, 40))), t.connect(), t.connect()
	small.subscribe(t.topic("a"), 1)
	large.subscribe(t.topic("a"), 1)
	pub.publish(message(t.topic("a"), 1, strings.Repeat("x", 100)))
	large.want(t.topic("a"), strings.Repeat("x", 100))
	pub.publish(message(t.topic("a"), 1, "y"))
	small.want(t.topic("a"), "y")
}

// Reason strings and user properties give way to the client's Maximum Packet
// Size; the judge measures.
func explanationsGiveWay(t *T) {
	t.provoke(with(num(rawmqtt.MaximumPacketSize, 40)))
	for _, o := range []option{with(str(rawmqtt.AuthMethod, "x")), as(""), will(rawmqtt.Will{Topic: "a/#"})} {
		c := t.dial()
		c.send(t.connectPacket(with(num(rawmqtt.MaximumPacketSize, 10)), o))
		for p, err := c.Next(time.Second); !errors.Is(err, rawmqtt.ErrClosed); p, err = c.Next(time.Second) {
			if errors.Is(err, rawmqtt.ErrNothing) { // a CONNACK that does not fit is not sent
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if a, ok := p.(*rawmqtt.Connack); ok && a.Code == 0 {
				break
			}
		}
	}
}

// What is larger than the server takes ends the connection with 0x95, at its
// header already.
func packetTooLarge(t *T) {
	c := t.connect()
	most := c.ack.Properties.Num(rawmqtt.MaximumPacketSize, 1<<28)
	if most > 1<<22 {
		t.Skip("the server takes packets that a test does not send")
	}
	topic := t.topic("a")
	body := int(most) - 4 - 2 - len(topic) - 2 - 1
	c.publish(message(topic, 1, strings.Repeat("x", body)))
	for _, extra := range []int{1, 1000} {
		c = t.connect()
		p := message(topic, 1, strings.Repeat("x", body+extra))
		p.ID = 1
		c.sendBytes(rawmqtt.Encode(p, t.v)[:20])
		c.told(0x95)
	}
	c = t.connect()
	c.sendBytes([]byte{0x30, 0xff, 0xff, 0xff, 0x7f}) // 256 MiB
	c.told(0x95)
}

// Every code of a refusal is one that the packet may have: the decoder looks.
func reasonCodes(t *T) { t.provoke(with()) }
