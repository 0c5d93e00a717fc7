package mqttfront

import (
	"fmt"
	"time"
)

// stallLimit is how long a reader may stop for a client without keep alive.
const stallLimit = 30 * time.Second

// full reports whether a message must wait. A client that has nothing in flight
// never waits: there would be nobody to wake it.
func (c *conn) full(qos byte, size int) bool {
	bytes := c.bytes.Load()
	return bytes > 0 && (bytes+int64(size) > c.maxBytes ||
		qos > 0 && c.messages.Load() >= int64(c.maxMessages) ||
		c.f.bytes.Load()+int64(size) > c.f.o.MaxTotalBytes)
}

// stall stops reading until there is room, for at most half the keep alive:
// meanwhile no PINGREQ is read either.
func (c *conn) stall(qos byte, size int) *wireError {
	c.f.n.stalls.Add(1)
	if c.bytes.Load()+int64(size) > c.maxBytes || qos > 0 && c.messages.Load() >= int64(c.maxMessages) {
		c.f.n.limit(limitInflight)
	} else {
		c.f.n.limit(limitInflightTotal)
	}
	limit := stallLimit
	if c.keepAlive > 0 {
		limit = c.keepAlive / 2
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	c.f.stall(c, true)
	defer c.f.stall(c, false)
	for {
		// stalled is set before the look, and read after the release.
		if !c.full(qos, size) {
			return nil
		}
		select {
		case <-c.room:
		case <-c.gone:
			return &wireError{ServerShuttingDown, "ended", "connection has ended"}
		case <-timer.C:
			c.f.n.stallTimeouts.Add(1)
			return &wireError{QuotaExceeded, "stalled", "too much in flight for too long"}
		}
	}
}

// release gives room back. Writer.
func (c *conn) release(t *tally) {
	if t.bytes == 0 {
		return
	}
	c.messages.Add(int64(-t.messages))
	if t.quota > 0 {
		c.quota.Add(int64(-t.quota))
	}
	c.bytes.Add(int64(-t.bytes))
	c.f.bytes.Add(int64(-t.bytes))
	if c.f.stalls.Load() > 0 {
		c.f.wakeStalled()
	}
}

// admitPublish counts a message in, after waiting for room if need be.
func (c *conn) admitPublish(qos byte, size int) *wireError {
	if qos > 0 && c.version >= 5 && c.quota.Load() >= int64(c.receiveMaximum) {
		c.f.n.limit(limitReceiveMaximum)
		return &wireError{ReceiveMaximumExceeded, "receive_maximum", fmt.Sprintf("more than %d messages in flight", c.receiveMaximum)} // [MQTT-3.3.4-9]
	}
	if c.full(qos, size) {
		if err := c.stall(qos, size); err != nil {
			return err
		}
	}
	if qos > 0 {
		c.messages.Add(1)
		if c.version >= 5 {
			c.quota.Add(1)
		}
	}
	c.bytes.Add(int64(size))
	c.f.bytes.Add(int64(size))
	return nil
}

// admitBytes counts in what is not a message.
func (c *conn) admitBytes(size int) *wireError { return c.admitPublish(0, size) }

// stall enters c in the list of stalled readers, or takes it off.
func (f *Front) stall(c *conn, on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if on {
		f.stalled[c] = struct{}{}
	} else {
		delete(f.stalled, c)
	}
	f.stalls.Store(int64(len(f.stalled)))
}

func (f *Front) wakeStalled() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.stalled {
		c.wakeReader()
	}
}

func (c *conn) wakeReader() {
	select {
	case c.room <- struct{}{}:
	default:
	}
}

// drain waits a moment for what is in flight, so that a restart costs clients
// few repetitions. Connection's goroutine, which has stopped reading.
func (c *conn) drain() {
	timer := time.NewTimer(c.f.o.drain)
	defer timer.Stop()
	c.f.stall(c, true)
	defer c.f.stall(c, false)
	for c.bytes.Load() > 0 {
		select {
		case <-c.room:
		case <-c.gone:
			return
		case <-timer.C:
			return
		}
	}
}
