package gate

import (
	"container/list"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// handshake is one that is under way.
type handshake struct {
	of      *listener
	guest   guest
	began   time.Time
	place   *list.Element // in Gate.running; guarded by Gate.mu; nil: ended
	crowded atomic.Bool   // closed to make room
}

// awaitTurn takes a token of the rate; false: done was closed.
func (g *Gate) awaitTurn(done <-chan struct{}) bool {
	for first := true; ; first = false {
		g.mu.Lock()
		wait := g.bucket.take(time.Now())
		g.mu.Unlock()
		if wait == 0 {
			return true
		}
		if first {
			g.n.delayed.Add(1)
		}
		if !sleep(done, wait) {
			return false
		}
	}
}

func (g *Gate) unusedTurn() {
	g.mu.Lock()
	g.bucket.giveBack()
	g.mu.Unlock()
}

// awaitSlot takes a place for a handshake; false: done was closed. While all
// are taken, the oldest handshake has to be quick.
func (g *Gate) awaitSlot(done <-chan struct{}) bool {
	select {
	case g.slots <- struct{}{}:
		return true
	default:
	}
	g.n.full.Add(1)
	for {
		t := time.NewTimer(g.hurry())
		select {
		case g.slots <- struct{}{}:
			t.Stop()
			return true
		case <-t.C:
		case <-done:
			t.Stop()
			return false
		}
	}
}

// hurry ends the oldest handshake if it is not done after a quarter of its
// time, and says when to look again.
func (g *Gate) hurry() time.Duration {
	patience := g.o.HandshakeTimeout / 4
	g.mu.Lock()
	defer g.mu.Unlock()
	for e := g.running.Front(); e != nil; e = e.Next() {
		h := e.Value.(*handshake)
		if age := time.Since(h.began); age < patience {
			return patience - age
		}
		if h.crowded.CompareAndSwap(false, true) {
			_ = h.guest.conn.SetDeadline(time.Unix(1, 0))
			return time.Millisecond // its place will be free in a moment
		}
	}
	return patience
}

// begin notes a handshake that has a place.
func (g *Gate) begin(l *listener, w guest) *handshake {
	h := &handshake{of: l, guest: w, began: time.Now()}
	_ = w.conn.SetDeadline(h.began.Add(g.o.HandshakeTimeout)) // a connection without deadlines is closed by its owner
	g.mu.Lock()
	h.place = g.running.PushBack(h)
	g.mu.Unlock()
	g.n.handshaking.Add(1)
	return h
}

// end takes a handshake out of those that may be hurried.
func (g *Gate) end(h *handshake) {
	g.mu.Lock()
	g.running.Remove(h.place)
	g.mu.Unlock()
	g.n.handshaking.Add(-1)
}

// endHandshakes closes the connections of a listener's handshakes.
func (g *Gate) endHandshakes(l *listener) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for e := g.running.Front(); e != nil; e = e.Next() {
		if h := e.Value.(*handshake); h.of == l {
			_ = h.guest.conn.Close()
		}
	}
}

// handshake does one and hands the connection over. Its place is free only
// then, so that an Accept that is not called holds back the handshakes.
func (l *listener) handshake(h *handshake) {
	g, w := l.g, h.guest
	defer func() { <-g.slots }()
	select {
	case <-l.done: // Close may have looked before this one began
		_ = w.conn.Close()
	default:
	}
	c, err := l.shake(w.conn)
	g.end(h)
	if err == nil && !h.crowded.Load() {
		_ = c.SetDeadline(time.Time{})
		l.handOver(w, c)
		return
	}
	reason := reasonOf(err)
	select {
	case <-l.done:
		reason = Stopped
	default:
		if h.crowded.Load() {
			reason = Crowded
		}
	}
	switch reason {
	case Stopped, Left, Timeout, Crowded:
	default:
		say(w.conn)
	}
	remote := w.conn.RemoteAddr()
	_ = w.conn.Close()
	g.release(w.addr)
	g.refuse(reason, remote, l.transport, err)
}

// say lets a client read why it is refused: a socket that is closed over unread
// bytes is reset, and the reset overtakes an alert or an HTTP answer.
func say(c net.Conn) {
	half, ok := c.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(linger))
	_, _ = io.CopyN(io.Discard, c, handshakeBytes)
}

// refusal is an error that knows its reason.
type refusal struct {
	reason string
	err    error
}

func (r *refusal) Error() string           { return r.err.Error() }
func (r *refusal) Unwrap() error           { return r.err }
func (r *refusal) HandshakeReason() string { return r.reason }

// reasonOf sorts the error of a handshake. An error of a tls.Config's own
// checks may name its reason with a method HandshakeReason.
func reasonOf(err error) string {
	if err == nil {
		return Timeout // done, but too late
	}
	if r, ok := errors.AsType[interface {
		error
		HandshakeReason() string
	}](err); ok {
		for _, known := range Reasons {
			if r.HandshakeReason() == known {
				return known
			}
		}
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return ClientCert
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return Timeout
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed):
		return Left
	case strings.Contains(err.Error(), "didn't provide a certificate"): // crypto/tls has no other sign of it
		return NoClientCert
	case isAlert(err):
		return ClientAlert
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return NotTLS
	}
	return TLS
}

// isAlert reports whether err is an alert of the client's.
func isAlert(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error"
}

// shakeTLS does a TLS handshake with a bound on the bytes it may take.
func shakeTLS(raw net.Conn, conf *tls.Config) (*tlsConn, error) {
	s := &stranger{Conn: raw, left: handshakeBytes}
	t := tls.Server(s, conf)
	if err := t.Handshake(); err != nil {
		if s.left < 0 {
			err = &refusal{TooLarge, errTooLarge}
		}
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	s.known = true
	return &tlsConn{t}, nil
}

// sleep waits for d; false: done was closed first.
func sleep(done <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-done:
		return false
	}
}
