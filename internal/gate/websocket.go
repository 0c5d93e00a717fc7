package gate

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

const (
	// wholeMessage is the largest message that is copied, to leave in one write.
	wholeMessage = 16 << 10
	// controlTimeout bounds the write of a Pong or Close frame.
	controlTimeout = time.Second
)

// messages holds buffers for whole messages.
var messages = sync.Pool{New: func() any { b := make([]byte, 0, wholeMessage+maxFrameHeader); return &b }}

// errClosing is what Write gives after CloseWrite or a Close frame.
var errClosing = fmt.Errorf("websocket: %w", net.ErrClosed)

// wsConn is a WebSocket connection as a stream of bytes. Beside its socket it
// keeps no buffer: frames are taken apart in the caller's. A read that ran into
// its deadline may be repeated; a write that did has broken the stream, as with
// TLS.
type wsConn struct {
	raw   net.Conn
	early []byte // came with the request; guarded by rmu

	rmu  sync.Mutex
	dec  decoder // guarded by rmu
	rerr error   // why reading has ended for good; guarded by rmu

	wmu     sync.Mutex // one frame at a time
	closing bool       // our Close frame is out; guarded by wmu
	werr    error      // why writing has ended for good; guarded by wmu

	pongMu sync.Mutex
	pong   []byte // payload of the Pong that is due; nil: none. guarded by pongMu

	deadlineMu sync.Mutex
	deadline   time.Time // of the caller's writes; guarded by deadlineMu
}

// Transport is "ws".
func (c *wsConn) Transport() string { return "ws" }

// Read gives bytes of binary messages; where one ends does not show. After the
// client's Close frame it gives io.EOF.
func (c *wsConn) Read(p []byte) (int, error) {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	for c.rerr == nil && len(p) > 0 {
		n, err := c.take(p)
		n, fault := c.dec.feed(p[:n], c.control)
		c.sendPong()
		switch {
		case fault != nil:
			c.rerr = c.faulted(fault)
		case errors.Is(err, os.ErrDeadlineExceeded):
			return n, err
		case errors.Is(err, io.EOF) && !c.dec.whole():
			c.rerr = io.ErrUnexpectedEOF
		default:
			c.rerr = err
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, c.rerr
}

// take reads raw bytes. rmu is held.
func (c *wsConn) take(p []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(p, c.early)
		if c.early = c.early[n:]; len(c.early) == 0 {
			c.early = nil
		}
		return n, nil
	}
	return c.raw.Read(p)
}

// control takes a control frame. rmu is held. Of several Pings the last one is
// answered [RFC 6455, 5.5.3].
func (c *wsConn) control(op byte, payload []byte) {
	switch op {
	case opPing:
		c.pongMu.Lock()
		c.pong = append(make([]byte, 0, len(payload)), payload...)
		c.pongMu.Unlock()
	case opClose:
		c.sayClose(closeAnswer(payload))
	}
}

// faulted answers a fault in the frames and gives the error that stays.
func (c *wsConn) faulted(err error) error {
	if errors.Is(err, errCloseFrame) {
		return io.EOF
	}
	if f, ok := errors.AsType[*frameError](err); ok {
		c.sayClose(f.status)
	}
	return err
}

// Write sends p as one binary message. [MQTT-6.0.0-1]
func (c *wsConn) Write(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.wmu.Lock()
	n, err = c.writeMessage(p)
	c.wmu.Unlock()
	c.sendPong() // one that became due meanwhile
	return n, err
}

// writeMessage does what Write says. wmu is held.
func (c *wsConn) writeMessage(p []byte) (int, error) {
	if c.closing || c.werr != nil {
		return 0, errors.Join(errClosing, c.werr)
	}
	buf := messages.Get().(*[]byte)
	b := appendFrameHeader((*buf)[:0], opBinary, len(p))
	header := len(b)
	first := min(len(p), wholeMessage)
	b = append(b, p[:first]...)
	n, err := c.raw.Write(b)
	*buf = b[:0]
	messages.Put(buf)
	n = max(0, n-header)
	if err == nil && first < len(p) {
		var m int
		m, err = c.raw.Write(p[first:])
		n += m
	}
	c.werr = err
	return n, err
}

// sendPong sends the Pong that is due, unless somebody writes: he looks after
// it when he is done.
func (c *wsConn) sendPong() {
	for c.pongDue() && c.wmu.TryLock() {
		c.pongMu.Lock()
		payload := c.pong
		c.pong = nil
		c.pongMu.Unlock()
		if payload != nil && !c.closing && c.werr == nil {
			c.werr = c.writeControl(opPong, payload)
		}
		c.wmu.Unlock()
	}
}

func (c *wsConn) pongDue() bool {
	c.pongMu.Lock()
	defer c.pongMu.Unlock()
	return c.pong != nil
}

// writeControl writes a control frame within a time of its own. wmu is held.
func (c *wsConn) writeControl(op byte, payload []byte) error {
	c.deadlineMu.Lock()
	_ = c.raw.SetWriteDeadline(time.Now().Add(controlTimeout)) // the write shows it if the connection is closed
	c.deadlineMu.Unlock()
	_, err := c.raw.Write(append(appendFrameHeader(make([]byte, 0, maxControl+2), op, len(payload)), payload...))
	c.deadlineMu.Lock()
	_ = c.raw.SetWriteDeadline(c.deadline)
	c.deadlineMu.Unlock()
	return err
}

// sayClose sends a Close frame, unless one is out or somebody is in the middle
// of a message that does not get through.
func (c *wsConn) sayClose(status uint16) {
	if !c.wmu.TryLock() {
		return
	}
	defer c.wmu.Unlock()
	if c.closing || c.werr != nil {
		return
	}
	c.closing = true
	c.werr = c.writeControl(opClose, binary.BigEndian.AppendUint16(nil, status))
}

// CloseWrite sends a Close frame and ends the sending half: what the client
// still sends can be read, until it answers.
func (c *wsConn) CloseWrite() error {
	c.wmu.Lock()
	if !c.closing && c.werr == nil {
		c.closing = true
		c.werr = c.writeControl(opClose, binary.BigEndian.AppendUint16(nil, closeNormal))
	}
	err := c.werr
	c.wmu.Unlock()
	if err != nil {
		return err
	}
	return closeWrite(c.raw)
}

// Close sends a Close frame if it can be done at once, and closes the socket.
func (c *wsConn) Close() error {
	c.sayClose(closeNormal)
	return c.raw.Close()
}

func (c *wsConn) LocalAddr() net.Addr  { return c.raw.LocalAddr() }
func (c *wsConn) RemoteAddr() net.Addr { return c.raw.RemoteAddr() }

func (c *wsConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *wsConn) SetReadDeadline(t time.Time) error { return c.raw.SetReadDeadline(t) }

func (c *wsConn) SetWriteDeadline(t time.Time) error {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	c.deadline = t
	return c.raw.SetWriteDeadline(t)
}

// wssConn is one over TLS.
type wssConn struct {
	*wsConn
	tls *tlsConn
}

// Transport is "wss".
func (*wssConn) Transport() string { return "wss" }

// ConnectionState is that of the TLS connection below.
func (c *wssConn) ConnectionState() tls.ConnectionState { return c.tls.ConnectionState() }
