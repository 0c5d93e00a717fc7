package mqttfront

import (
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// will is the last will of a connection.
type will struct {
	pub    Publish
	delay  time.Duration
	expiry uint32
}

// willOf reads the will of a CONNECT.
func willOf(pk packets.Packet) *Publish {
	w, p := &pk.Connect, publishProps{}
	props := &w.WillProperties
	p.keep = keptProperties(props)
	return &Publish{Topic: w.WillTopic, Payload: w.WillPayload, QoS: w.WillQos, Retain: w.WillRetain, Will: true, Properties: p.keep}
}

// takeWill makes a will of what the Handler left of it. It is due when its
// delay has passed or the session ends, whichever comes first. [MQTT-3.1.3-9]
func takeWill(p *Publish, pk packets.Packet) *will {
	if p == nil {
		return nil
	}
	w := &will{pub: *p, expiry: pk.Connect.WillProperties.MessageExpiryInterval}
	delay := min(pk.Connect.WillProperties.WillDelayInterval, pk.Properties.SessionExpiryInterval, maxSessionExpiry)
	w.delay = time.Duration(delay) * time.Second
	return w
}

// size is what the will costs in memory, roughly.
func (w *will) size() int {
	return len(w.pub.Topic) + len(w.pub.Payload) + propertiesSize(w.pub.Properties) + entryCost
}

// publishWill gives the will to the Session as a message that nobody awaits an
// acknowledgement of. It follows the last message of the reader.
func (c *conn) publishWill() {
	w := c.will
	c.will = nil
	c.f.n.wills.Add(1)
	e := c.acks.slot(c)
	e.pub, e.expiry = w.pub, w.expiry
	e.size = w.size()
	c.bytes.Add(int64(e.size))
	c.f.bytes.Add(int64(e.size))
	c.acks.push(e)
	c.session.Publish(&e.pub, e.settle)
}

// Bounds of the wills whose delay runs. Beyond them a will is published without
// delay.
const (
	maxWaitingWills     = 1024
	maxWaitingWillBytes = 1 << 20
)

// waitingWills are the wills whose delay runs. Their sessions are not closed
// yet. One for each client id.
type waitingWills struct {
	mu    sync.Mutex
	m     map[string]waitingWill // guarded by mu
	bytes int                    // of m; guarded by mu
}

type waitingWill struct {
	c   *conn
	due time.Time
}

// wait lets the delay of c's will begin; false: there is no room for it. The
// stripe of c is locked.
func (w *waitingWills) wait(c *conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	size := c.will.size()
	if len(w.m) >= maxWaitingWills || w.bytes+size > maxWaitingWillBytes {
		return false
	}
	w.m[c.id] = waitingWill{c, time.Now().Add(c.will.delay)}
	w.bytes += size
	return true
}

// take removes the will of id, if there is one. The caller holds mu.
func (w *waitingWills) take(id string) (c *conn) {
	if e, ok := w.m[id]; ok {
		c = e.c
		w.bytes -= c.will.size()
		delete(w.m, id)
	}
	return c
}

// returned is called when a client is back: its will is dropped, or due at once
// if it began a new session. [MQTT-3.1.3-9]
func (w *waitingWills) returned(id string, clean bool) {
	w.mu.Lock()
	old := w.take(id)
	w.mu.Unlock()
	if old != nil {
		old.concludeWill(clean)
	}
}

// tick publishes what is due; with all set, nothing is published any more.
func (w *waitingWills) tick(now time.Time, stop bool) {
	w.mu.Lock()
	var due []*conn
	for id, e := range w.m {
		if stop || !now.Before(e.due) {
			due = append(due, w.take(id))
		}
	}
	w.mu.Unlock()
	for _, c := range due {
		c.concludeWill(!stop)
	}
}

func (c *conn) concludeWill(publish bool) {
	if publish {
		c.publishWill()
	}
	c.session.Close(c.reason)
}
