package mqttfront

import (
	"context"
	"net"
	"testing"
	"time"
)

// However its connections stand, a front stops, and every session is closed.
func TestStop(t *testing.T) {
	h := newFake()
	h.publish = h.hold
	blocked := make(chan struct{}, 1)
	h.connect = func(ctx context.Context, p *Peer) (Welcome, error) {
		if p.ClientID == "blocked" {
			blocked <- struct{}{}
			<-ctx.Done()
			return Welcome{}, ctx.Err()
		}
		return Welcome{}, nil
	}
	s := start(t, h, Options{MaxInflightMessages: 2, ConnectTimeout: time.Hour, FanOut: true, drain: 20 * time.Millisecond})
	dial(t, s.addr) // mochi alone would never stop
	in := dial(t, s.addr)
	in.send(connectPacket(connectOptions{id: "blocked"}))
	<-blocked
	idle := connect(t, s.addr, connectOptions{id: "idle"})
	old := connect(t, s.addr, connectOptions{id: "old", version: 4})
	stalled := connect(t, s.addr, connectOptions{id: "stalled", version: 4, willTopic: "w", will: "untrue"})
	for i := range 4 {
		stalled.publish("t", i+1, "x")
	}
	busy := connect(t, s.addr, connectOptions{id: "busy"})
	busy.publish("t", 1, "x")
	eventually(t, "a stall", func() bool { return s.Stats().Stalls == 1 && s.Stats().InflightMessages == 3 })
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	idle.expectDisconnect(ServerShuttingDown)
	busy.expectDisconnect(ServerShuttingDown)
	old.expectEnd()
	stalled.expectEnd()
	in.expectEnd()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.sessions) != 4 {
		t.Errorf("%d sessions", len(h.sessions))
	}
	for _, s := range h.sessions {
		if s.closed != 1 {
			t.Errorf("session %s closed %d times", s.peer.ClientID, s.closed)
		}
		for _, p := range s.got {
			if p.Will {
				t.Errorf("a stop published the will of %s", s.peer.ClientID)
			}
		}
	}
	if s.Clients() != 0 || s.Stats().Connections != 0 {
		t.Errorf("%+v", s.Stats())
	}
}

// What is settled while the front stops is still acknowledged.
func TestStopDrains(t *testing.T) {
	h := newFake()
	h.publish = h.hold
	s := start(t, h, Options{drain: patience})
	c := connect(t, s.addr, connectOptions{id: "a"})
	for i := range 10 {
		c.publish("t", i+1, "x")
	}
	session := h.session(t, 0)
	h.await(t, "messages", func() bool { return len(session.settle) == 10 })
	stopped := make(chan error, 1)
	go func() { stopped <- s.stop() }()
	eventually(t, "it stops", func() bool { return s.stopping.Load() })
	for _, settle := range session.settle {
		settle(Result{})
	}
	for i := range 10 {
		c.expectAck(i+1, 0)
	}
	c.expectDisconnect(ServerShuttingDown)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
}

// A listener that breaks ends Run with the reason.
func TestListenerBreaks(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := New(newFake(), Options{Listeners: []net.Listener{l}})
	done := make(chan error, 1)
	go func() { done <- f.Run(context.Background()) }()
	l.Close()
	select {
	case err := <-done:
		if err == nil {
			t.Error("Run ended without an error")
		}
	case <-time.After(patience):
		t.Fatal("Run goes on without its listener")
	}
}
