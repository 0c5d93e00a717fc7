package mqttfront

import (
	"sync/atomic"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// retainedWork is what is left to do of a client's SUBSCRIBEs: retained
// messages, sent as fast as the client takes them. mochi would push all of them
// at once through a short queue, and drop what does not fit. Connection's
// goroutine.
type retainedWork struct {
	asked  []packets.Subscription // of the SUBSCRIBE under way; Filter is empty where nothing is to be sent
	due    []packets.Subscription
	topics []string // of due[0], those not yet sent
	found  bool     // topics is filled in
}

// ask notes that retained messages for sub may be wanted, and keeps mochi from
// sending them. It is called once for every filter of a SUBSCRIBE.
func (w *retainedWork) ask(c *conn, sub *packets.Subscription) {
	_, existed := c.cl.State.Subscriptions.Get(sub.Filter)
	wanted := *sub
	if isShared(sub.Filter) || sub.RetainHandling == 2 || sub.RetainHandling == 1 && existed { // [MQTT-3.3.1-10,11]
		wanted.Filter = ""
	}
	w.asked = append(w.asked, wanted)
	sub.RetainHandling = 2
}

// granted takes over the filters that got a code below 0x80.
func (w *retainedWork) granted(codes []byte) {
	for i, sub := range w.asked {
		if sub.Filter != "" && i < len(codes) && codes[i] < UnspecifiedError && len(w.due) < maxSubscriptions {
			w.due = append(w.due, sub)
		}
	}
	w.asked = w.asked[:0]
}

// sendRetained sends retained messages until all are sent or the client's
// window is full; then its acknowledgements bring it back.
func (c *conn) sendRetained() {
	w := &c.subscribe.retained
	for len(w.due) > 0 && !c.ending.Load() {
		sub := &w.due[0]
		if !w.found {
			c.f.retained.RLock()
			for _, pk := range c.f.engine.Topics.Messages(sub.Filter) {
				w.topics = append(w.topics, pk.TopicName)
			}
			c.f.retained.RUnlock()
			w.found = true
		}
		for len(w.topics) > 0 {
			if !c.awaitOut() {
				c.f.n.fanDropped("slow_subscriber")
				w.topics = nil // it does not read
				break
			}
			if !c.sendRetainedOne(sub, w.topics[0]) {
				return
			}
			w.topics = w.topics[1:]
		}
		w.topics, w.found = nil, false
		w.due = w.due[1:]
	}
	if len(w.due) == 0 {
		w.due = nil
	}
}

// sendRetainedOne reports false if the client's window is full. The lock keeps
// a newer message of the topic from overtaking this one.
func (c *conn) sendRetainedOne(sub *packets.Subscription, topic string) bool {
	c.f.retained.RLock()
	defer c.f.retained.RUnlock()
	pk, ok := c.f.engine.Topics.Retained.Get(topic)
	if !ok || sub.NoLocal && pk.Origin == c.id { // gone meanwhile; [MQTT-3.8.3-3]
		return true
	}
	out := pk.Copy(false)
	out.FixedHeader.Retain = true
	out.FixedHeader.Qos = min(out.FixedHeader.Qos, sub.Qos, 1)
	if sub.Identifier > 0 {
		out.Properties.SubscriptionIdentifier = []int{sub.Identifier} // [MQTT-3.3.4-3]
	}
	if tooLarge(out, c.peerPacket) {
		c.f.n.fanDropped("too_large")
		return true
	}
	if out.FixedHeader.Qos > 0 {
		if !c.windowOpen() {
			return false
		}
		id, err := c.cl.NextPacketID()
		if err != nil {
			return false
		}
		out.PacketID = uint16(id)
		if c.cl.State.Inflight.Set(out) {
			atomic.AddInt64(&c.f.engine.Info.Inflight, 1)
		}
	}
	_ = c.cl.WritePacket(out) // an error ends the connection
	return true
}

// awaitOut waits until the client has read most of what is written for it, as
// long as a reader may stall; false: it has not.
func (c *conn) awaitOut() bool {
	if c.outPending() < slowOut/2 {
		return true
	}
	limit := stallLimit
	if c.keepAlive > 0 {
		limit = c.keepAlive / 2
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	c.draining.Store(true)
	defer c.draining.Store(false)
	for c.outPending() >= slowOut/2 {
		select {
		case <-c.room:
		case <-c.gone:
			return false
		case <-timer.C:
			return false
		}
	}
	return true
}
