package mqttfront

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"sync"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
)

// Run serves until ctx ends or a listener breaks, and returns when every
// connection has been closed and every goroutine has ended. It can be called
// once. At the end of ctx clients may read what is acknowledged within half a
// second, and MQTT 5 clients are told that the server shuts down.
func (f *Front) Run(ctx context.Context) error {
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var keepers, acceptors sync.WaitGroup
	keepers.Go(func() { f.keepHouse(inner) })
	if f.fan != nil {
		keepers.Go(func() { f.fan.run(inner) })
	}
	broken := make(chan error, len(f.o.Listeners))
	for _, l := range f.o.Listeners {
		acceptors.Go(func() { broken <- f.accept(ctx, l) })
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-broken:
	}
	f.stopping.Store(true)
	for _, l := range f.o.Listeners {
		_ = l.Close()
	}
	acceptors.Wait()
	f.endConns()
	f.wills.tick(time.Now(), true)
	cancel()
	keepers.Wait()
	f.tasks.stop() // last: all of the above may have left something to write
	return err
}

// accept takes connections until the listener is closed.
func (f *Front) accept(ctx context.Context, l net.Listener) error {
	pause := 5 * time.Millisecond
	for {
		raw, err := l.Accept()
		switch {
		case err == nil:
			pause = 5 * time.Millisecond
			f.n.accepted.Add(1)
			f.serve(raw)
			continue
		case f.stopping.Load() || ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept on %s: %w", l.Addr(), err)
		}
		// Out of file descriptors, most likely: it passes when clients leave.
		f.n.acceptErrors.Add(1)
		f.log.Warn("listener cannot accept", "address", l.Addr().String(), "error", err, "pause", pause)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
			pause = min(2*pause, time.Second)
		}
	}
}

// serve takes charge of a connection.
func (f *Front) serve(raw net.Conn) {
	c := newConn(f, raw)
	f.mu.Lock()
	if f.stopping.Load() || len(f.conns) >= f.o.MaxClients+f.o.MaxClients/4+16 {
		f.mu.Unlock()
		f.n.protocol("too_many_connections")
		_ = raw.Close()
		return
	}
	f.conns[c] = struct{}{}
	f.serving.Add(1)
	f.mu.Unlock()
	go func() {
		defer f.serving.Done()
		defer func() {
			f.mu.Lock()
			delete(f.conns, c)
			f.mu.Unlock()
		}()
		c.serve()
	}()
}

// serve runs a connection from its first byte to its last.
func (c *conn) serve() {
	_ = c.Conn.SetDeadline(time.Now().Add(c.f.o.ConnectTimeout)) // mochi has no such limit
	if c.handshake() {
		c.runEngine()
	}
	_ = c.Close() // if nobody did
	_ = c.strangerBytes(0)
	c.unlockStripe()
	c.reader, c.subscribe.retained = reader{}, retainedWork{} // a session that outlives the connection keeps c
	if c.session == nil {
		c.f.n.connectsFailed.Add(1)
		c.f.log.Debug("connection ended before it was let in", "remote", c.RemoteAddr().String(), "reason", c.reason)
	} else {
		c.leave()
	}
	c.shut()
}

func (c *conn) handshake() bool {
	t, ok := c.Conn.(*tls.Conn)
	if !ok {
		return true
	}
	if err := t.Handshake(); err != nil {
		c.f.n.protocol("tls")
		c.endLost(fmt.Errorf("TLS handshake: %w", err))
		return false
	}
	return true
}

// runEngine lets mochi serve the connection. A client must not be able to stop
// the process by what it sends, and mochi has panicked on packets from outside
// (see checkFilters): that ends the connection. A panic of the Handler is not
// ours to stop.
func (c *conn) runEngine() {
	defer func() {
		if c.calling {
			return // unwinding out of the Handler
		}
		if p := recover(); p != nil {
			c.f.n.protocol("engine_panic")
			c.f.log.Warn("protocol engine cannot read what a client sent", "client", c.id, "remote", c.RemoteAddr().String(), "panic", fmt.Sprint(p))
			c.f.log.Debug("protocol engine panicked", "stack", string(debug.Stack()))
			c.endLost(fmt.Errorf("protocol engine panicked: %v", p))
		}
	}()
	_ = c.f.engine.EstablishConnection("front", c) // the reason is in c
}

// leave ends an admitted client's session: the will, if it is due, and Close.
func (c *conn) leave() {
	if c.open.Load() {
		c.f.n.clients.Add(-1)
	}
	c.f.log.Debug("client left", "client", c.id, "remote", c.RemoteAddr().String(), "reason", c.reason)
	// A stop is no failure of the client: its will would be untrue.
	due := c.will != nil && !c.clean.Load() && !errors.Is(c.reason, errShutdown) && c.open.Load()
	if due && c.will.delay > 0 {
		waits := false
		c.lockStripe()
		// The client may be back already: then nobody looks for a will that waits.
		switch c.successor {
		case successorNone:
			waits = c.f.wills.wait(c)
		case successorResumed:
			due = false // [MQTT-3.1.3-9]
		}
		c.unlockStripe()
		if waits {
			return
		}
	}
	if due {
		c.publishWill()
	}
	c.session.Close(c.reason)
}

// endConns ends all connections and waits for them.
func (f *Front) endConns() {
	each := func(do func(c *conn)) {
		f.mu.Lock()
		defer f.mu.Unlock()
		for c := range f.conns {
			do(c)
		}
	}
	each(func(c *conn) {
		if c.open.Load() {
			c.wake() // it drains
		} else {
			c.endLost(errShutdown)
		}
	})
	done := make(chan struct{})
	go func() {
		f.serving.Wait()
		close(done)
	}()
	timer := time.NewTimer(2 * f.o.drain)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		each(func(c *conn) { c.end(errShutdown, ServerShuttingDown, "server is shutting down") })
		<-done
	}
}

// keepHouse publishes wills that are due and forgets sessions.
func (f *Front) keepHouse(ctx context.Context) {
	away := make(map[*mqtt.Client]time.Time)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			f.wills.tick(now, false)
			f.forgetSessions(now, away)
		}
	}
}

// forgetSessions ends the sessions of clients that are away for too long, by
// the monotonic clock, and those beyond MaxClients. away says since when.
func (f *Front) forgetSessions(now time.Time, away map[*mqtt.Client]time.Time) {
	all := f.engine.Clients.GetAll()
	f.countLevels(all)
	for cl := range away {
		if all[cl.ID] != cl {
			delete(away, cl)
		}
	}
	for id, cl := range all {
		if !cl.Closed() {
			continue
		}
		since, known := away[cl]
		if !known {
			if len(away) < f.o.MaxClients {
				away[cl] = now
				continue
			}
		} else if now.Sub(since) < sessionExpiry(cl) {
			continue
		}
		f.forgetSession(id, cl)
		delete(away, cl)
	}
}

func sessionExpiry(cl *mqtt.Client) time.Duration {
	seconds := uint32(maxSessionExpiry)
	if cl.Properties.ProtocolVersion == 5 {
		seconds = min(seconds, cl.Properties.Props.SessionExpiryInterval)
	} else if cl.Properties.Clean {
		seconds = 0 // its CONNACK could not be sent: mochi forgets to clear it away
	}
	return time.Duration(seconds) * time.Second
}

func (f *Front) forgetSession(id string, cl *mqtt.Client) {
	m := f.stripeOf(id)
	m.Lock()
	defer m.Unlock()
	if now, ok := f.engine.Clients.Get(id); !ok || now != cl {
		return // it came back
	}
	cl.ClearInflights()
	f.engine.UnsubscribeClient(cl)
	f.engine.Clients.Delete(id)
	f.wills.returned(id, true) // due when the session ends [MQTT-3.1.3-9]
}
