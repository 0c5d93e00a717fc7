package mqttfront

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
)

const (
	readBufferMin   = 2 << 10
	readBufferMax   = 32 << 10 // grown to when a read fills what is there
	keepWriteBuffer = 32 << 10
	slowOut         = 64 << 10 // unwritten bytes at which a subscriber gets no more
	byeTimeout      = 2 * time.Second
	lingerTimeout   = time.Second
	lingerBytes     = 1 << 20
	maxStrangers    = 8 << 20 // bytes of large CONNECTs at the same time
)

// errEnded is what mochi gets to see when a connection has ended.
var errEnded = errors.New("connection has ended")

// conn is a connection, and the door through which mochi sees it: Read hands
// out the packets that are mochi's, Write puts into the queue of the one
// writer, Close ends the connection without waiting. Deadlines are kept here;
// those that mochi sets are ignored.
type conn struct {
	net.Conn // the socket or its TLS layer
	f        *Front

	// open is set once the client is let in. What follows it is written by the
	// connection's goroutine before that and constant afterwards.
	open           atomic.Bool
	cl             *mqtt.Client
	id             string
	version        byte
	keepAlive      time.Duration
	session        Session
	welcome        Welcome
	receiveMaximum int // MQTT 5: of the client's PUBLISHes
	maxMessages    int
	maxBytes       int64
	peerPacket     uint32 // the client's Maximum Packet Size
	noProblemInfo  bool
	will           *will
	stripe         *sync.Mutex // held by the connection's goroutine
	successor      int         // guarded by the stripe of id

	reader  reader // connection's goroutine
	strange int64  // likewise: see strangerBytes

	acks   ackQueue
	writer atomic.Uint32
	wbuf   []byte // writer

	messages atomic.Int64  // QoS 1, in flight
	bytes    atomic.Int64  // in flight
	room     chan struct{} // a token when a stalled reader may look again

	draining  atomic.Bool // the reader waits for out to be written
	outMu     sync.Mutex
	out       []byte // not yet written; guarded by outMu
	outClosed bool   // guarded by outMu
	outTaken  bool   // writer: the last of out is taken
	wroteAll  chan struct{}

	endOnce   sync.Once
	ending    atomic.Bool
	reason    error // why; written in endOnce, read after gone is closed
	lost      bool  // the other side is not there to linger for; likewise
	gone      chan struct{}
	clean     atomic.Bool    // the client said DISCONNECT without will
	calling   bool           // connection's goroutine: inside the Handler
	fan       *mqtt.Client   // fan-out goroutine: sends in the name of this client
	subscribe subscribeState // connection's goroutine
}

func newConn(f *Front, raw net.Conn) *conn {
	return &conn{
		Conn: raw, f: f,
		room: make(chan struct{}, 1), gone: make(chan struct{}), wroteAll: make(chan struct{}),
	}
}

// Read gives mochi whole packets that are its own, and handles all others.
func (c *conn) Read(p []byte) (int, error) {
	for {
		if n := c.reader.pass(p); n > 0 {
			return n, nil
		}
		if c.ending.Load() {
			return 0, errEnded
		}
		if err := c.handlePackets(); err != nil {
			return 0, c.protocolError(err)
		}
		if c.reader.passing > 0 {
			continue
		}
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
}

// fill reads from the socket.
func (c *conn) fill() error {
	space := c.reader.space(int(max(c.f.o.MaxPacketSize, maxConnect)) + 5)
	if c.open.Load() {
		c.extendReadDeadline()
	} else if err := c.strangerBytes(int64(len(c.reader.buf))); err != nil {
		return c.protocolError(err)
	}
	n, err := c.Conn.Read(space)
	c.reader.filled(n, len(space))
	if n > 0 {
		return nil
	}
	switch {
	case err == nil:
		return nil
	case c.ending.Load():
		return errEnded
	case c.f.stopping.Load():
		c.drain()
		c.end(errShutdown, ServerShuttingDown, "server is shutting down")
		return errEnded
	case errors.Is(err, os.ErrDeadlineExceeded) && c.open.Load():
		c.f.n.protocol("keep_alive")
		c.end(fmt.Errorf("no packet for 1.5 times the keep alive: %w", err), KeepAliveTimeout, "keep alive timeout") // [MQTT-3.1.2-22]
		return errEnded
	}
	c.endLost(err)
	return err
}

// strangerBytes accounts for the read buffer of a connection that is not let in
// yet, beyond what every one may have.
func (c *conn) strangerBytes(size int64) *wireError {
	size = max(0, size-readBufferMax)
	total := c.f.strangers.Add(size - c.strange)
	grown := size > c.strange
	c.strange = size
	if grown && total > maxStrangers {
		return &wireError{ServerBusy, "strangers", "too many large CONNECTs at once"}
	}
	return nil
}

// extendReadDeadline gives the client at least 1.5 keep alives; not at each
// read, since setting it costs more than reading a clock.
func (c *conn) extendReadDeadline() {
	now := time.Now()
	if r := &c.reader; c.keepAlive > 0 && now.After(r.deadlineFrom.Add(c.keepAlive/16)) {
		_ = c.Conn.SetReadDeadline(now.Add(c.keepAlive + c.keepAlive/2 + c.keepAlive/16)) // [MQTT-3.1.2-22]
		r.deadlineFrom = now
		if c.ending.Load() || c.f.stopping.Load() {
			c.wake() // whoever set that before may have woken us too early
		}
	}
}

// Write queues p, which is one or more whole packets, for the writer.
func (c *conn) Write(p []byte) (int, error) {
	c.outMu.Lock()
	if c.outClosed {
		c.outMu.Unlock()
		return 0, errEnded
	}
	if len(c.out)+len(p) > slowOut+int(c.f.o.MaxPacketSize)+maxConnect {
		c.outMu.Unlock()
		c.f.n.protocol("slow_reader")
		c.endLost(errors.New("client does not read what it asked for"))
		return 0, errEnded
	}
	c.out = append(c.out, p...)
	c.outMu.Unlock()
	c.kick()
	return len(p), nil
}

// takeOut appends to buf what is to be written; last says that nothing more
// will come.
func (c *conn) takeOut(buf []byte) (_ []byte, last bool) {
	c.outMu.Lock()
	defer c.outMu.Unlock()
	buf = append(buf, c.out...)
	if c.out = c.out[:0]; cap(c.out) > 4<<10 {
		c.out = nil
	}
	last = c.outClosed && !c.outTaken
	c.outTaken = c.outClosed
	return buf, last
}

// outPending is the number of bytes that wait to be written.
func (c *conn) outPending() int {
	c.outMu.Lock()
	defer c.outMu.Unlock()
	return len(c.out)
}

// writeAcks writes buf, which holds acks acknowledgements. Writer only.
func (c *conn) writeAcks(buf []byte, acks int) {
	timeout := c.f.o.WriteTimeout
	if c.ending.Load() {
		if c.lost {
			return
		}
		timeout = byeTimeout
	}
	_ = c.Conn.SetWriteDeadline(time.Now().Add(timeout))
	if _, err := c.Conn.Write(buf); err != nil {
		if acks > 0 {
			c.f.n.ackFailures.Add(1)
		}
		c.endLost(fmt.Errorf("write to client: %w", err))
		return
	}
	if acks > 0 {
		c.f.n.acks.Add(int64(acks))
		c.f.n.ackWrites.Add(1)
	}
}

// flushed says that the last bytes have been written, or cannot be.
func (c *conn) flushed() { close(c.wroteAll) }

// end ends the connection; the first call decides why. An MQTT 5 client that
// is let in is told code and reason. It never blocks.
func (c *conn) end(reason error, code byte, text string) {
	c.finishOut(reason, false, func() []byte {
		if c.version < 5 || !c.open.Load() {
			return nil
		}
		return appendDisconnect(nil, code, text, c.peerPacket)
	})
}

// endLost ends a connection whose other side is not there any more.
func (c *conn) endLost(reason error) { c.finishOut(reason, true, nil) }

// Close is mochi's end: what it wrote before is still written.
func (c *conn) Close() error {
	reason := errEnded
	if c.clean.Load() {
		reason = errClientLeft
	}
	if c.finishOut(reason, false, nil) && reason == errEnded && c.open.Load() {
		c.f.n.protocol("engine") // mochi found a fault
	}
	return nil
}

// finishOut reports whether it was the first.
func (c *conn) finishOut(reason error, lost bool, bye func() []byte) (first bool) {
	c.endOnce.Do(func() {
		first = true
		c.reason, c.lost = reason, lost
		c.ending.Store(true)
		c.outMu.Lock()
		if bye != nil {
			c.out = append(c.out, bye()...)
		}
		c.outClosed = true
		c.outMu.Unlock()
		if lost {
			_ = c.Conn.SetDeadline(time.Unix(1, 0))
		} else {
			_ = c.Conn.SetReadDeadline(time.Unix(1, 0)) // wake the reader
			_ = c.Conn.SetWriteDeadline(time.Now().Add(byeTimeout))
		}
		close(c.gone)
		c.kick()
	})
	return first
}

// shut closes the socket, once the other side has had the time to read what
// was written last: closing over unread bytes resets the connection and may
// take a CONNACK or DISCONNECT with it. Connection's goroutine.
func (c *conn) shut() {
	<-c.wroteAll
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if ok && !c.lost && half.CloseWrite() == nil {
		timeout := lingerTimeout
		if c.f.stopping.Load() {
			timeout /= 4
		}
		_ = c.Conn.SetReadDeadline(time.Now().Add(timeout))
		_, _ = io.CopyN(io.Discard, c.Conn, lingerBytes)
	}
	_ = c.Conn.Close()
}

// tlsState is nil for a plain connection.
func (c *conn) tlsState() *tls.ConnectionState {
	t, ok := c.Conn.(*tls.Conn)
	if !ok {
		return nil
	}
	s := t.ConnectionState()
	return &s
}

// SetDeadline and its kin do nothing: see conn.
func (c *conn) SetDeadline(time.Time) error      { return nil }
func (c *conn) SetReadDeadline(time.Time) error  { return nil }
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

// subscribeState is what a SUBSCRIBE under way needs to remember. But for
// deciding it belongs to the connection's goroutine.
type subscribeState struct {
	deciding        atomic.Bool // mochi asks about filters, not deliveries
	codes           []byte      // of the filters: Success, or why not
	retained        retainedWork
	clientID, ownID uint16 // packet identifier: the client's, and what mochi sees
}
