package mqttfront

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"runtime/debug"
	"sync"
	"time"
)

// Run serves until ctx ends or a listener breaks, and returns when every
// connection has been closed and every goroutine has ended. It can be called
// once. At the end of ctx clients may read what is acknowledged within half a
// second, and MQTT 5 clients are told that the server shuts down.
func (f *Front) Run(ctx context.Context) error {
	if err := f.load(); err != nil {
		for _, l := range f.o.Listeners {
			_ = l.Close()
		}
		return err
	}
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
	f.wills.stop()
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
	if f.stopping.Load() {
		f.mu.Unlock()
		f.n.accepted.Add(1)
		_ = raw.Close()
		return
	}
	f.conns[c] = struct{}{}
	f.serving.Add(1)
	f.mu.Unlock()
	if !f.strangers.enter(c, f.maxStrangers()) {
		f.n.limit(limitStrangers)
		f.n.protocol("strangers")
		c.endLost(errCrowded)
	}
	f.n.accepted.Add(1) // when it is counted where it is: Stats.Strangers
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

// maxStrangers bounds the connections that are not let in.
func (f *Front) maxStrangers() int { return f.o.MaxClients/4 + 16 }

// serve runs a connection from its first byte to its last.
func (c *conn) serve() {
	_ = c.Conn.SetDeadline(time.Now().Add(c.f.o.ConnectTimeout))
	if c.ending.Load() {
		c.wake()
	} else if c.handshake() {
		c.talk()
	}
	c.endQuietly(errEnded) // if nobody did
	c.f.strangers.leave(c)
	c.f.partials.account(c, 0, math.MaxInt64)
	c.reader.forget()
	c.reader = reader{} // a will that waits keeps c
	c.leave()
	c.f.helloBytes.Add(-c.helloBytes)
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

// talk handles what the client sends until the connection ends. A client must
// not be able to stop the process by what it sends, and the decoders of mochi
// have panicked on packets from outside: that ends the connection. A panic of
// the Handler is not ours to stop.
func (c *conn) talk() {
	defer func() {
		if c.calling {
			return // unwinding out of the Handler
		}
		if p := recover(); p != nil {
			c.f.n.protocol("panic")
			c.f.note(c, "panic", "what a client sent cannot be handled", "panic", fmt.Sprint(p))
			c.f.log.Debug("connection panicked", "stack", string(debug.Stack()))
			c.endLost(fmt.Errorf("handling what the client sent panicked: %v", p))
		}
	}()
	if !c.greet() {
		return
	}
	for {
		if err := c.handlePackets(); err != nil {
			_ = c.protocolError(err)
			return
		}
		if c.ending.Load() || c.fill() != nil {
			return
		}
	}
}

// leave ends what an admitted client had beside its socket: the will, the place
// at its session, the Session.
func (c *conn) leave() {
	if c.session == nil {
		c.f.n.connectsFailed.Add(1)
		c.f.log.Debug("connection ended before it was let in", "remote", c.RemoteAddr().String(), "reason", c.reason)
		c.vacate()
		return
	}
	c.f.log.Debug("client left", "client", c.id, "remote", c.RemoteAddr().String(), "reason", c.reason)
	waits := false
	if s := c.s; s != nil {
		c.f.n.clients.Add(-1)
		s.mu.Lock()
		s.conn, s.away = nil, time.Now()
		s.out.leave()
		expiry := s.expiry
		s.mu.Unlock()
		waits = c.concludeWill(expiry)
		if expiry == 0 {
			c.sit(nil)
			s.end()
		}
	}
	c.vacate()
	if !waits {
		c.session.Close(c.reason)
	}
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
		switch {
		case c.open.Load():
			c.wake() // it drains
		case c.hasConnack():
			c.end(errShutdown, ServerShuttingDown, "server is shutting down")
		default:
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

// idleAfter is how long a client must be silent for its buffers to shrink.
const idleAfter = 5 * time.Second

// keepHouse publishes wills that are due, ends sessions, and takes memory back.
func (f *Front) keepHouse(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			f.wills.tick(now)
			f.expireSessions(now)
			f.trimIdle(now)
		}
	}
}

// trimIdle lets connections give memory back on which nothing happens.
func (f *Front) trimIdle(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		if c.open.Load() && c.fat.Load() && c.idle(now) {
			c.fat.Store(false)
			c.trim.Store(true)
			c.trimOut.Store(true)
			c.wake()
			c.kick()
		}
	}
}

func (c *conn) idle(now time.Time) bool {
	return now.Sub(c.f.began)-time.Duration(c.lastRead.Load()) > idleAfter
}
