package publisher

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

const (
	minBackoff  = 20 * time.Millisecond
	maxBackoff  = time.Second
	handshake   = 10 * time.Second
	mostAcks    = 4096 // taken off the connection before the lock is asked for
	goodbyeWait = time.Second
)

// Run connects, and again whenever the connection ends, until ctx ends. It then
// says good-bye, reports what is not settled and returns nil. A broker that
// refuses for good ends it with an error, and so does any with Options.Once. It
// is called once.
func (p *Publisher) Run(ctx context.Context) error {
	defer p.abandon()
	backoff := p.pause
	for {
		err := p.connection(ctx, func() { backoff = p.pause })
		if ctx.Err() != nil {
			return nil
		}
		var refused *RefusedError
		var qos *QoSError
		if p.o.Once || errors.As(err, &refused) && refused.permanent() || errors.As(err, &qos) {
			return fmt.Errorf("connecting %s to %s: %w", p.o.ClientID, p.at.addr, err)
		}
		p.mu.Lock()
		p.stats.LastError = err.Error()
		p.mu.Unlock()
		p.o.Logger.Debug("sensor disconnected", "client", p.o.ClientID, "error", err)
		t := time.NewTimer(backoff/2 + rand.N(backoff/2))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// connection is the life of one connection; up is called once it is accepted.
func (p *Publisher) connection(ctx context.Context, up func()) error {
	first, err := p.firstOfSession(ctx)
	if err != nil {
		return err
	}
	conn, err := p.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	r := bufio.NewReaderSize(conn, 32<<10)
	w, err := p.greet(ctx, conn, r, first && (p.o.Version == 5 || p.o.Session == 0))
	if err != nil {
		return err
	}
	if first && w.present {
		// [MQTT-3.2.2-4]: its packet ids would be taken for our new messages.
		return errors.New("the broker goes on with a session that this sensor does not know")
	}
	up()
	p.begin(uint64(w.receiveMaximum), w.present)
	p.advance() // a session that was lost settles messages
	done := make(chan struct{})
	var wg sync.WaitGroup
	var writeErr error
	wg.Go(func() {
		writeErr = p.write(conn)
		_ = conn.Close() // the read ends too
	})
	wg.Go(func() { p.ping(done) })
	stop := context.AfterFunc(ctx, func() { p.goodbye(conn) })
	readErr := p.read(conn, r)
	close(done)
	_ = conn.Close()
	p.end()
	wg.Wait()
	stop()
	if errors.Is(readErr, net.ErrClosed) && writeErr != nil {
		return writeErr
	}
	return readErr
}

// firstOfSession reports whether the next connection begins a session. If the
// session is to last, MQTT 3.1.1 cannot have it begin anew: an older one of the
// same client id is thrown away by a connection of its own.
func (p *Publisher) firstOfSession(ctx context.Context) (bool, error) {
	p.mu.Lock()
	first := !p.kept
	p.mu.Unlock()
	if !first || p.o.Version == 5 || p.o.Session == 0 {
		return first, nil
	}
	conn, err := p.dial(ctx)
	if err != nil {
		return true, err
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	if _, err := p.greet(ctx, conn, r, true); err != nil {
		return true, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if _, err := conn.Write([]byte{disconnect, 0}); err != nil {
		return true, err
	}
	_ = conn.SetReadDeadline(time.Now().Add(goodbyeWait)) // the broker closes; if not, it has had the time
	_, _ = io.Copy(io.Discard, r)
	return true, nil
}

// greet does CONNECT and CONNACK.
func (p *Publisher) greet(ctx context.Context, conn net.Conn, r *bufio.Reader, clean bool) (welcome, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err := conn.SetDeadline(time.Now().Add(handshake)); err != nil {
		return welcome{}, err
	}
	hello := appendConnect(nil, connectPacket{
		version: p.o.Version, clean: clean, keepAlive: uint16(p.o.KeepAlive / time.Second), session: uint32(p.o.Session / time.Second),
		clientID: p.o.ClientID, username: p.o.Username, password: p.o.Password,
	})
	if _, err := conn.Write(hello); err != nil {
		return welcome{}, err
	}
	first, _, err := readPacket(r, nil)
	if err != nil {
		return welcome{}, fmt.Errorf("waiting for CONNACK: %w", err)
	}
	w, err := parseConnack(p.o.Version, first)
	switch {
	case err != nil:
		return w, err
	case p.o.QoS > w.maximumQoS:
		return w, &QoSError{p.o.QoS, w.maximumQoS}
	case clean && w.present:
		return w, errors.New("the broker keeps a session that was to begin anew") // [MQTT-3.2.2-2]
	}
	return w, conn.SetDeadline(time.Time{})
}

// write sends what is encoded until the connection ends.
func (p *Publisher) write(conn net.Conn) error {
	var buf []byte
	for {
		p.mu.Lock()
		for p.live && len(p.out) == 0 {
			p.work.Wait()
		}
		if !p.live {
			p.mu.Unlock()
			return nil
		}
		buf, p.out = p.out, buf[:0]
		p.pump()
		p.space.Broadcast()
		p.mu.Unlock()
		if _, err := conn.Write(buf); err != nil {
			return err
		}
		p.advance() // QoS 0 is settled by having been handed over
	}
}

// ping keeps the connection alive, and tells a dead one from a silent broker.
func (p *Publisher) ping(done <-chan struct{}) {
	t := time.NewTicker(p.o.KeepAlive / 2)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-done:
			return
		}
		p.mu.Lock()
		if p.live {
			p.out = append(p.out, pingreq, 0)
			p.work.Signal()
		}
		p.mu.Unlock()
	}
}

// goodbye ends the connection in order, when ctx has ended.
func (p *Publisher) goodbye(conn net.Conn) {
	p.mu.Lock()
	if p.live {
		p.out = appendDisconnect(p.out, p.o.Version, p.o.Session > 0) // the session's state ends with this process
		p.work.Signal()
	}
	p.leaving = true
	_ = conn.SetDeadline(time.Now().Add(goodbyeWait)) // the broker closes; if not, the read ends so
	p.mu.Unlock()
}

// read settles what is acknowledged until the connection ends.
func (p *Publisher) read(conn net.Conn, r *bufio.Reader) error {
	var buf []byte
	acks := make([]ack, 0, mostAcks)
	for {
		if r.Buffered() == 0 {
			if err := p.awaitNext(conn); err != nil {
				return err
			}
		}
		pk, rest, err := readPacket(r, buf)
		if err != nil {
			if errors.Is(err, io.EOF) {
				return errors.New("the broker closed the connection")
			}
			return err
		}
		buf = rest
		switch pk.kind() {
		case puback, pubrec, pubcomp:
			a, err := parseAck(pk)
			if err != nil {
				return err
			}
			acks = append(acks, a)
		case disconnect:
			return fmt.Errorf("the broker disconnects with % x", pk.body[:min(len(pk.body), 8)])
		}
		if len(acks) > 0 && (r.Buffered() < 4 || len(acks) == mostAcks) {
			p.mu.Lock()
			p.settle(acks)
			p.mu.Unlock()
			acks = acks[:0]
			p.advance()
		}
	}
}

// awaitNext gives the broker one and a half keep-alives, unless the good-bye
// has set a deadline of its own.
func (p *Publisher) awaitNext(conn net.Conn) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.leaving {
		return nil
	}
	return conn.SetReadDeadline(time.Now().Add(p.o.KeepAlive + p.o.KeepAlive/2))
}
