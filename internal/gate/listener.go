package gate

import (
	"errors"
	"net"
	"sync"
	"time"
)

// handover is what Accept returns.
type handover struct {
	conn net.Conn
	err  error
}

// listener is one way through the gate. Two goroutines serve it from the first
// Accept on: one takes connections from the kernel, one gives them their turn;
// each handshake has one more.
type listener struct {
	g         *Gate
	raw       net.Listener
	transport string
	shake     func(net.Conn) (net.Conn, error) // nil: there is no handshake

	ready   chan handover
	arrived chan struct{} // a token when somebody waits
	room    chan struct{} // a token when somebody has got his turn
	done    chan struct{} // closed by Close
	wg      sync.WaitGroup

	mu      sync.Mutex
	started bool  // guarded by mu
	closed  bool  // guarded by mu
	waiting queue // guarded by mu
}

func newListener(g *Gate, raw net.Listener, transport string, shake func(net.Conn) (net.Conn, error)) *listener {
	return &listener{
		g: g, raw: raw, transport: transport, shake: shake, waiting: newQueue(),
		ready: make(chan handover), arrived: make(chan struct{}, 1), room: make(chan struct{}, 1), done: make(chan struct{}),
	}
}

func (l *listener) Addr() net.Addr { return l.raw.Addr() }

// Accept gives the next connection whose handshake is done.
func (l *listener) Accept() (net.Conn, error) {
	if !l.begin() {
		return nil, net.ErrClosed
	}
	select {
	case h := <-l.ready:
		return h.conn, h.err
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// begin starts the goroutines; false: the listener is closed.
func (l *listener) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.started && !l.closed {
		l.started = true
		l.wg.Go(l.arrive)
		l.wg.Go(l.serve)
	}
	return !l.closed
}

// Close ends the listener, what waits and every handshake, and returns when
// their goroutines have ended. Connections that were handed over live on.
func (l *listener) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		l.wg.Wait()
		return nil
	}
	l.closed = true
	close(l.done)
	l.mu.Unlock()
	err := l.raw.Close()
	l.g.endHandshakes(l)
	l.wg.Wait()
	for {
		w, ok := l.pop()
		if !ok {
			break
		}
		l.turnAway(w, Stopped, nil)
	}
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return err
}

// arrive takes connections from the kernel, as long as there is room to wait.
func (l *listener) arrive() {
	for {
		if !l.awaitRoom() {
			return
		}
		c, err := l.raw.Accept()
		if err != nil {
			// The caller decides how long to pause: the next round waits for him.
			select {
			case l.ready <- handover{err: err}:
			case <-l.done:
				return
			}
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		l.g.n.arrived.Add(1)
		w := guest{conn: c, addr: AddressOf(c.RemoteAddr()), since: time.Now()}
		if !l.g.hold(w.addr) {
			abort(c)
			l.g.refuse(PerAddress, c.RemoteAddr(), l.transport, nil)
			continue
		}
		l.mu.Lock()
		l.waiting.push(w)
		l.mu.Unlock()
		l.g.n.waiting.Add(1)
		signal(l.arrived)
	}
}

func (l *listener) awaitRoom() bool {
	for {
		l.mu.Lock()
		ok := l.waiting.size < l.g.o.Waiting
		l.mu.Unlock()
		select {
		case <-l.done:
			return false
		default:
		}
		if ok {
			return true
		}
		select {
		case <-l.room:
		case <-l.done:
			return false
		}
	}
}

// serve gives connections their turn, each with a token of the rate and, where
// there is a handshake, a place for it.
func (l *listener) serve() {
	for l.awaitGuest() {
		if !l.g.awaitTurn(l.done) {
			return
		}
		if l.shake != nil && !l.g.awaitSlot(l.done) {
			return
		}
		w, ok := l.next()
		switch {
		case !ok:
			l.g.unusedTurn()
			if l.shake != nil {
				<-l.g.slots
			}
		case l.shake == nil:
			l.handOver(w, plain(w.conn, l.transport))
		default:
			h := l.g.begin(l, w)
			l.wg.Go(func() { l.handshake(h) })
		}
	}
}

func (l *listener) awaitGuest() bool {
	for {
		l.mu.Lock()
		ok := l.waiting.size > 0
		l.mu.Unlock()
		select {
		case <-l.done:
			return false
		default:
		}
		if ok {
			return true
		}
		select {
		case <-l.arrived:
		case <-l.done:
			return false
		}
	}
}

func (l *listener) pop() (guest, bool) {
	l.mu.Lock()
	w, ok := l.waiting.pop()
	l.mu.Unlock()
	if ok {
		l.g.n.waiting.Add(-1)
		signal(l.room)
	}
	return w, ok
}

// next gives the guest whose turn it is. Those that nobody waits for any more
// cost no turn: else a crowd that gave up would keep out who comes now, and
// everybody would be served too late.
func (l *listener) next() (guest, bool) {
	for {
		w, ok := l.pop()
		switch {
		case !ok:
			return w, false
		case gone(w.conn):
			l.turnAway(w, Left, nil)
		case time.Since(w.since) > l.g.o.HandshakeTimeout:
			l.turnAway(w, Waited, nil)
		default:
			return w, true
		}
	}
}

// handOver gives a finished connection to Accept.
func (l *listener) handOver(w guest, c net.Conn) {
	l.g.n.accepted.Add(1) // before somebody can see the connection
	select {
	case l.ready <- handover{conn: c}:
		l.g.release(w.addr)
	case <-l.done:
		l.g.n.accepted.Add(-1)
		_ = c.Close()
		l.g.release(w.addr)
		l.g.refuse(Stopped, w.conn.RemoteAddr(), l.transport, nil)
	}
}

// turnAway closes a connection that nothing was said to.
func (l *listener) turnAway(w guest, reason string, err error) {
	remote := w.conn.RemoteAddr()
	abort(w.conn)
	l.g.release(w.addr)
	l.g.refuse(reason, remote, l.transport, err)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// abort closes a connection without leaving its remains in the kernel.
func abort(c net.Conn) {
	if t, ok := c.(interface{ SetLinger(int) error }); ok {
		_ = t.SetLinger(0) // a connection that is gone already is closed as well
	}
	_ = c.Close()
}
