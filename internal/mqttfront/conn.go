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
)

const (
	readBufferMin   = 2 << 10
	readBufferMax   = 32 << 10 // grown to when a read fills what is there
	keepWriteBuffer = 32 << 10
	idleWriteBuffer = 4 << 10
	maxOut          = 64 << 10 // answers that the client does not read
	byeTimeout      = 2 * time.Second
	lingerTimeout   = 3 * time.Second
	lingerBytes     = 1 << 20

	// packetTime is what a packet may take to come whole from a client without
	// keep alive, and packetPace the bytes in a second that give it longer: less
	// than what the slowest satellite modem sends (2,400 bit/s).
	packetTime = time.Minute
	packetPace = 128
)

// errEnded is the reason of a connection that ended without another.
var errEnded = errors.New("connection has ended")

// conn is a connection: one goroutine reads and handles packets, one writer,
// started on demand, writes.
type conn struct {
	net.Conn // the socket or its TLS layer
	f        *Front

	// open is set once the client is let in. What follows it is written by the
	// connection's goroutine before that and constant afterwards.
	open           atomic.Bool
	id             string
	user           string // as the Handler left it
	version        byte
	keepAlive      time.Duration
	session        Session  // the Handler's
	s              *session // MQTT's
	welcome        Welcome
	receiveMaximum int // MQTT 5: of the client's PUBLISHes
	maxMessages    int
	maxBytes       int64
	peerPacket     uint32 // the client's Maximum Packet Size
	noProblemInfo  bool
	askedExpiry    uint32 // session expiry interval of CONNECT
	ticket         uint64 // later connections have higher ones

	will    *will // connection's goroutine
	claimed bool  // likewise: it owns the seat of its client id
	calling bool  // likewise: inside the Handler

	helloBytes int64 // likewise: see roomFor

	reader reader // connection's goroutine
	hall   hall   // its place among the strangers

	acks   ackQueue
	writer atomic.Uint32
	wbuf   []byte // writer

	messages atomic.Int64  // QoS 1 and 2, given to the Session and not acknowledged
	quota    atomic.Int64  // of Receive Maximum, used
	bytes    atomic.Int64  // in flight
	room     chan struct{} // a token when a stalled reader may look again

	lastRead atomic.Int64 // since Front.began; when the client was heard last
	fat      atomic.Bool  // buffers have grown
	trim     atomic.Bool  // the read buffer shall shrink: nothing happens
	trimOut  atomic.Bool  // the write buffer likewise

	outMu     sync.Mutex
	out       []byte // not yet written; guarded by outMu
	outClosed bool   // guarded by outMu
	greeted   bool   // CONNACK leaves before out; guarded by outMu
	outTaken  bool   // writer: the last of out is taken
	wroteAll  chan struct{}

	endOnce sync.Once
	ending  atomic.Bool
	reason  error // why; written in endOnce, read after gone is closed
	lost    bool  // the other side is not there to linger for; likewise
	gone    chan struct{}
	left    chan struct{} // closed when the seat is free for another connection
	clean   bool          // connection's goroutine: DISCONNECT without will

}

func newConn(f *Front, raw net.Conn) *conn {
	return &conn{
		Conn: raw, f: f, reader: reader{memory: &f.topics},
		room: make(chan struct{}, 1), gone: make(chan struct{}), wroteAll: make(chan struct{}), left: make(chan struct{}),
	}
}

// fill reads from the socket. An error has ended the connection.
func (c *conn) fill() error {
	space := c.reader.space(c.maxPacket() + 5)
	if err := c.accountBuffer(); err != nil {
		return c.protocolError(err)
	}
	if c.open.Load() {
		c.extendReadDeadline()
	}
	n, err := c.Conn.Read(space)
	c.reader.filled(n, len(space))
	if len(c.reader.buf) > readBufferMin && !c.fat.Load() {
		c.fat.Store(true)
	}
	if n > 0 || err == nil {
		return nil
	}
	switch {
	case c.ending.Load():
		return errEnded
	case c.f.stopping.Load():
		c.drain()
		c.end(errShutdown, ServerShuttingDown, "server is shutting down")
		return errEnded
	case errors.Is(err, os.ErrDeadlineExceeded):
		return c.timedOut(err)
	}
	c.endLost(err)
	return err
}

// timedOut is what follows when the read deadline has passed.
func (c *conn) timedOut(err error) error {
	switch {
	case !c.open.Load():
		c.f.n.limit(limitConnectTime)
		c.f.n.protocol("connect_timeout")
		c.endLost(fmt.Errorf("no CONNECT in %v: %w", c.f.o.ConnectTimeout, err))
		return errEnded
	case c.trim.Swap(false):
		c.reader.trim()
		c.setReadDeadline(c.f.began.Add(time.Duration(c.lastRead.Load())))
		c.reader.trimmed = true
		return nil
	case c.reader.underWay():
		return c.slowPacket(err)
	case c.keepAlive == 0:
		c.setReadDeadline(time.Now()) // woken for nothing, or for a packet that is through
		return nil
	}
	c.f.n.limit(limitKeepAlive)
	c.f.n.protocol("keep_alive")
	c.end(fmt.Errorf("no packet for 1.5 times the keep alive: %w", err), KeepAliveTimeout, "keep alive timeout") // [MQTT-3.1.2-22]
	return errEnded
}

// extendReadDeadline gives the client at least 1.5 keep alives; not at each
// read, since setting it costs more than reading a clock.
func (c *conn) extendReadDeadline() {
	r := &c.reader
	if r.trimmed { // nothing was read since the deadline was set
		r.trimmed = false
		return
	}
	now := time.Now()
	c.lastRead.Store(int64(now.Sub(c.f.began)))
	if r.r < r.w {
		// Part of a packet is no life: the deadline stands, and slowPacket looks
		// further when it passes.
		if !r.underWay() {
			r.since = now
		}
		if c.keepAlive == 0 && !r.armed {
			c.setReadDeadline(now)
		}
		return
	}
	if c.keepAlive > 0 && now.After(r.deadlineFrom.Add(c.keepAlive/16)) {
		c.setReadDeadline(now)
	}
}

// slowPacket is what follows when the read deadline has passed and part of a
// packet is there.
func (c *conn) slowPacket(err error) error {
	now := time.Now()
	if now.Before(c.packetDue()) {
		c.setReadDeadline(now)
		return nil
	}
	c.f.n.limit(limitPacketTime)
	c.f.n.protocol("slow_packet")
	code := KeepAliveTimeout // [MQTT-3.1.2-22]
	if c.keepAlive == 0 {
		code = QuotaExceeded
	}
	c.f.note(c, "slow_packet", "client sends too slowly", "bytes", c.reader.w-c.reader.r, "under_way", now.Sub(c.reader.since).Round(time.Millisecond))
	c.end(fmt.Errorf("a packet is under way for too long: %w", err), code, "packet is under way for too long")
	return errEnded
}

// packetDue is when the packet that is under way has to be there: like any other
// packet in 1.5 keep alives, and a slow link has the longer the more has come.
func (c *conn) packetDue() time.Time {
	r := &c.reader
	wait := packetTime
	if c.keepAlive > 0 {
		wait = c.keepAlive + c.keepAlive/2
	}
	return r.since.Add(wait + time.Duration(r.w-r.r)*time.Second/packetPace)
}

// setReadDeadline sets the deadline of a client that was heard at from.
func (c *conn) setReadDeadline(from time.Time) {
	r := &c.reader
	r.deadlineFrom = from
	until := time.Time{}
	switch {
	case r.underWay():
		until = c.packetDue()
		r.deadlineFrom = time.Time{} // the next packet sets it anew
	case c.keepAlive > 0:
		until = from.Add(c.keepAlive + c.keepAlive/2 + c.keepAlive/16) // [MQTT-3.1.2-22]
	}
	r.armed = !until.IsZero()
	_ = c.Conn.SetReadDeadline(until)
	if c.ending.Load() || c.f.stopping.Load() {
		c.wake() // whoever set that before may have woken us too early
	}
}

// wake ends a read that waits.
func (c *conn) wake() { _ = c.Conn.SetReadDeadline(time.Unix(1, 0)) }

// send queues p, which is one or more whole packets, for the writer. They
// follow the acknowledgements that are ready, and precede messages.
func (c *conn) send(p []byte) {
	c.outMu.Lock()
	if c.outClosed {
		c.outMu.Unlock()
		return
	}
	if len(c.out)+len(p) > maxOut+maxConnect {
		c.outMu.Unlock()
		c.f.n.limit(limitWriteQueue)
		c.f.n.protocol("slow_reader")
		c.endLost(errors.New("client does not read the answers to its packets"))
		return
	}
	c.out = append(c.out, p...)
	c.outMu.Unlock()
	c.kick()
}

// takeOut appends to buf what is to be written; last says that nothing more
// will come, done that it has been taken before.
func (c *conn) takeOut(buf []byte) (_ []byte, last, done bool) {
	c.outMu.Lock()
	defer c.outMu.Unlock()
	buf = append(buf, c.out...)
	if c.out = c.out[:0]; cap(c.out) > 1<<10 {
		c.out = nil
	}
	last = c.outClosed && !c.outTaken
	c.outTaken = c.outClosed
	return buf, last, c.outClosed
}

// write writes buf, which holds acks acknowledgements. Writer only.
func (c *conn) write(buf []byte, acks int) {
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
		if errors.Is(err, os.ErrDeadlineExceeded) && !c.ending.Load() {
			c.f.n.limit(limitWriteTime)
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
// has its CONNACK is told code and reason. It never blocks.
func (c *conn) end(reason error, code byte, text string) {
	c.finish(reason, false, func() []byte {
		if c.version < 5 || !c.greeted {
			return nil
		}
		return appendDisconnect(nil, code, text, c.peerPacket)
	})
}

// endLost ends a connection whose other side is not there any more.
func (c *conn) endLost(reason error) { c.finish(reason, true, nil) }

// endQuietly ends a connection that has been told all there is to say.
func (c *conn) endQuietly(reason error) { c.finish(reason, false, nil) }

func (c *conn) finish(reason error, lost bool, bye func() []byte) {
	c.endOnce.Do(func() {
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
			c.wake()
			_ = c.Conn.SetWriteDeadline(time.Now().Add(byeTimeout))
		}
		close(c.gone)
		c.kick()
	})
}

// shut closes the socket, once the other side has had the time to read what
// was written last: closing over unread bytes resets the connection and may
// take a CONNACK or DISCONNECT with it. Connection's goroutine.
func (c *conn) shut() {
	<-c.wroteAll
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if ok && !c.lost && half.CloseWrite() == nil && c.f.mayLinger() {
		defer c.f.lingering.Add(-1)
		timeout := lingerTimeout
		if c.f.stopping.Load() {
			timeout /= 12
		}
		_ = c.Conn.SetReadDeadline(time.Now().Add(timeout))
		_, _ = io.CopyN(io.Discard, c.Conn, lingerBytes)
	}
	_ = c.Conn.Close()
}

// mayLinger counts in a connection that is over but not closed, unless there
// are too many.
func (f *Front) mayLinger() bool {
	if f.lingering.Add(1) <= int64(f.maxStrangers()) {
		return true
	}
	f.lingering.Add(-1)
	f.n.limit(limitLingering)
	return false
}

// tlsState is nil for a plain connection.
func (c *conn) tlsState() *tls.ConnectionState {
	t, ok := c.Conn.(interface{ ConnectionState() tls.ConnectionState })
	if !ok {
		return nil
	}
	s := t.ConnectionState()
	if !s.HandshakeComplete {
		return nil // a WebSocket without TLS has the method too
	}
	return &s
}

// transport is what carries the connection, for logs.
func (c *conn) transport() string {
	if t, ok := c.Conn.(interface{ Transport() string }); ok {
		return t.Transport()
	}
	if _, ok := c.Conn.(*tls.Conn); ok {
		return "tls"
	}
	return "tcp"
}

// maxPacket is the largest packet that may come now.
func (c *conn) maxPacket() int {
	if !c.open.Load() {
		return maxConnect
	}
	return max(int(c.f.o.MaxPacketSize), maxControl)
}
