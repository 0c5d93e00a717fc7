package mqttfront

import (
	"strings"
	"testing"
	"time"
)

// A connection on which nothing happens gives its buffers back, loses nothing of
// a packet that is half here, and is still held to its keep alive.
func TestIdleConnectionsShrink(t *testing.T) {
	s := start(t, newFake(), Options{})
	for _, keepAlive := range []int{0, 60} {
		c := connect(t, s.addr, connectOptions{id: "a", keepAlive: keepAlive})
		whole := c.publishPacket("t", 1, 0, strings.Repeat("x", 50_000))
		at := s.only(t)
		for _, half := range []int{0, 1, 30_000} {
			c.send(whole)
			c.expectAck(1, 0)
			c.ping()
			c.send(whole[:half])
			eventually(t, "the buffers have grown", at.fat.Load)
			s.trimIdle(time.Now())
			if at.trim.Load() {
				t.Fatal("trimmed although something happened just now")
			}
			s.trimIdle(time.Now().Add(2 * idleAfter))
			eventually(t, "it is trimmed", func() bool { return !at.trim.Load() && !at.trimOut.Load() })
			c.send(whole[half:])
			c.expectAck(1, 0)
			c.ping()
		}
		c.disconnect()
		c.Close()
		eventually(t, "it has left", func() bool { return s.Stats().Connections == 0 })
	}
	c := connect(t, s.addr, connectOptions{id: "b", keepAlive: 1})
	at := s.only(t)
	at.fat.Store(true)
	s.trimIdle(time.Now().Add(2 * idleAfter))
	c.expectDisconnect(KeepAliveTimeout)
}

// only is the one connection that there is.
func (s *server) only(t *testing.T) (only *conn) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		only = c
	}
	if only == nil || len(s.conns) != 1 {
		t.Fatalf("%d connections", len(s.conns))
	}
	return only
}
