package uplink

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of a connection.
const (
	maxInbound  = 256 << 10 // bytes of a packet from the hub; its welcome is the largest
	writeChunk  = 16 << 10  // a packet up to this is one write, and one TLS record
	unsentBytes = 32 << 10  // that the kernel holds without having sent them
)

// errHeader says that the hub sent something that is no packet for us.
var errHeader = errors.New("hub sent a malformed or oversized packet")

// meter counts the bytes of a TCP connection.
type meter struct {
	net.Conn
	in, out *atomic.Int64
}

func (m meter) Read(p []byte) (int, error) {
	n, err := m.Conn.Read(p)
	m.in.Add(int64(n))
	return n, err
}

func (m meter) Write(p []byte) (int, error) {
	n, err := m.Conn.Write(p)
	m.out.Add(int64(n))
	return n, err
}

// packetConn is the connection that paho reads and writes. paho writes a packet
// in pieces, between Lock and Unlock: they leave as one write at Unlock. paho
// believes whatever length a packet's header claims: here it is checked before
// paho sees it.
type packetConn struct {
	net.Conn
	writeTimeout time.Duration // for each chunk

	mu  sync.Mutex // held from Lock to Unlock, while a packet is written
	out []byte     // guarded by mu

	in    *bufio.Reader // the reader's own
	ahead int           // bytes of the current packet that the header promised; the reader's own

	deadline atomic.Int64 // for all writes, ns since 1970; 0: none
	began    time.Time    // with a monotonic reading: the wall clock may jump
	lastIn   atomic.Int64 // when bytes last arrived, as a time.Duration since began
	failed   atomic.Pointer[error]
}

func newPacketConn(c net.Conn, writeTimeout time.Duration) *packetConn {
	p := &packetConn{Conn: c, writeTimeout: writeTimeout, in: bufio.NewReaderSize(c, 4096)}
	p.began = time.Now()
	return p
}

// age is how long the connection stands, by a clock that nobody sets.
func (p *packetConn) age() time.Duration { return time.Since(p.began) }

// fail keeps the first error and closes the connection.
func (p *packetConn) fail(err error) error {
	p.failed.CompareAndSwap(nil, &err)
	_ = p.Conn.Close() // what counts is the error that led here
	return err
}

// err is why the connection ended, as far as it knows.
func (p *packetConn) err() error {
	if e := p.failed.Load(); e != nil {
		return *e
	}
	return nil
}

// hurry lets no write last beyond t.
func (p *packetConn) hurry(t time.Time) {
	p.deadline.Store(t.UnixNano())
	_ = p.SetWriteDeadline(t) // a connection without deadlines is closed anyway
}

// Lock begins a packet.
func (p *packetConn) Lock() { p.mu.Lock() }

// Write takes a piece of a packet. mu is held: paho calls Lock before.
func (p *packetConn) Write(b []byte) (int, error) {
	if err := p.err(); err != nil {
		return 0, err
	}
	p.out = append(p.out, b...)
	return len(b), nil
}

// Unlock sends the packet. An error closes the connection and shows at the next
// Write and at Read.
func (p *packetConn) Unlock() {
	defer p.mu.Unlock()
	b := p.out
	for len(b) > 0 && p.err() == nil {
		until := time.Now().Add(p.writeTimeout)
		if d := p.deadline.Load(); d != 0 && until.UnixNano() > d {
			until = time.Unix(0, d)
		}
		n := min(len(b), writeChunk)
		err := p.SetWriteDeadline(until)
		if err == nil {
			_, err = p.Conn.Write(b[:n])
		}
		if err != nil {
			_ = p.fail(fmt.Errorf("write to the hub: %w", withoutPorts(err)))
		}
		b = b[n:]
	}
	if p.out = p.out[:0]; cap(p.out) > 4*writeChunk {
		p.out = nil
	}
}

// Read gives bytes of packets whose headers have been checked.
func (p *packetConn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if p.ahead == 0 {
		if err := p.header(); err != nil {
			return 0, p.fail(err)
		}
	}
	n, err := p.in.Read(b[:min(len(b), p.ahead)])
	p.ahead -= n
	if err != nil {
		err = p.fail(readError(err))
	}
	return n, err
}

// header looks at the next packet's header, which stays in the reader.
func (p *packetConn) header() error {
	length := 0
	for n := 2; ; n++ {
		h, err := p.in.Peek(n)
		if err != nil {
			return readError(err)
		}
		digit := h[n-1]
		length |= int(digit&0x7f) << (7 * (n - 2))
		if digit&0x80 == 0 {
			if length > maxInbound {
				return fmt.Errorf("%w: %d bytes, %d allowed", errHeader, length, maxInbound)
			}
			p.ahead = n + length
			p.lastIn.Store(int64(p.age()))
			return nil
		}
		if n == 5 { // [MQTT-1.5.5-1]
			return fmt.Errorf("%w: no length", errHeader)
		}
	}
}

func readError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("hub closed the connection")
	}
	return fmt.Errorf("read from the hub: %w", withoutPorts(err))
}

// withoutPorts leaves out what differs from connection to connection, so that
// the same trouble reads the same.
func withoutPorts(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}
