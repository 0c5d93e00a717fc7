package rawmqtt

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

// MaxPacket bounds what Next reads.
const MaxPacket = 16 << 20

// ErrClosed says that the server ended the connection, in an orderly way or not.
var ErrClosed = errors.New("the server closed the connection")

// ErrNothing says that nothing came in time.
var ErrNothing = errors.New("nothing came")

// Conn is a client's end of a connection. Sends may come from any goroutine,
// Next from one at a time. Every packet in both directions is judged and noted.
type Conn struct {
	net.Conn
	version byte
	start   time.Time

	r *bufio.Reader // Next only

	mu    sync.Mutex
	judge Judge    // guarded by mu
	trace []string // guarded by mu: the last packets
}

// NewConn speaks a protocol level over c, which it owns from now on.
func NewConn(c net.Conn, version byte) *Conn {
	return &Conn{Conn: c, version: version, start: time.Now(), r: bufio.NewReaderSize(c, 64<<10)}
}

// Version is the protocol level.
func (c *Conn) Version() byte { return c.version }

// Send encodes packets and sends them in one write.
func (c *Conn) Send(packets ...Packet) error {
	var b []byte
	c.mu.Lock()
	for _, p := range packets {
		b = p.Append(b, c.version)
		c.note("->", Describe(p))
		if raw, ok := p.(Raw); ok {
			c.sentRaw(raw)
		} else {
			c.judge.Sent(p, c.version)
		}
	}
	c.mu.Unlock()
	if _, err := c.Write(b); err != nil {
		return fmt.Errorf("sending %d bytes: %w", len(b), err)
	}
	return nil
}

// Announce tells the judge of packets whose bytes are written in other ways.
func (c *Conn) Announce(packets ...Packet) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range packets {
		c.note("->", Describe(p))
		c.judge.Sent(p, c.version)
	}
}

// sentRaw tells the judge of whole packets among raw bytes.
func (c *Conn) sentRaw(b []byte) {
	for len(b) > 0 {
		_, _, n, err := Frame(b)
		if err != nil {
			return
		}
		if p, err := Decode(b[:n], c.version, FromClient); err == nil {
			c.judge.Sent(p, c.version)
		}
		b = b[n:]
	}
}

// Next reads one packet, waiting for wait at most. It returns ErrClosed,
// ErrNothing, or a *Violation beside the packet, if there is one.
func (c *Conn) Next(wait time.Duration) (Packet, error) {
	_ = c.SetReadDeadline(time.Now().Add(wait))
	b, err := c.frame()
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.note("<-", err.Error())
		return nil, err
	}
	p, err := Decode(b, c.version, FromServer)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.note("<-", fmt.Sprintf("% x: %v", b[:min(len(b), 200)], err))
		return nil, err
	}
	c.note("<-", Describe(p))
	if err := c.judge.Received(p, len(b)); err != nil {
		c.note("!!", err.Error())
		return p, err
	}
	return p, nil
}

// frame reads the bytes of one packet.
func (c *Conn) frame() ([]byte, error) {
	for n := 2; ; {
		b, err := c.r.Peek(min(n, 5))
		if err != nil && (n == 2 || len(b) < 2) {
			if len(b) > 0 && !errors.Is(err, os.ErrDeadlineExceeded) {
				return nil, broken("2.1", "the connection ends behind % x", b)
			}
			return nil, because(err)
		}
		_, _, size, ferr := Frame(b)
		if ferr != nil && !errors.Is(ferr, ErrShort) {
			return nil, ferr
		}
		if size == 0 {
			if err != nil {
				return nil, because(err)
			}
			n = len(b) + 1
			continue
		}
		if size > MaxPacket {
			return nil, broken("2.1.4", "a packet of %d bytes", size)
		}
		out := make([]byte, size)
		if _, err := io.ReadFull(c.r, out); err != nil {
			return nil, broken("2.1.4", "the connection ends in the middle of a packet of %d bytes", size)
		}
		return out, nil
	}
}

func because(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ErrNothing
	}
	if v, ok := errors.AsType[*Violation](err); ok {
		return v
	}
	return ErrClosed
}

// Topic is the topic of a message that came on this connection, its alias
// resolved.
func (c *Conn) Topic(p *Publish) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.judge.Topic(p)
}

// maxTrace bounds the lines that Trace remembers.
const maxTrace = 60

func (c *Conn) note(way, what string) {
	if len(c.trace) >= 2*maxTrace {
		c.trace = append(c.trace[:0], c.trace[len(c.trace)-maxTrace:]...)
	}
	c.trace = append(c.trace, fmt.Sprintf("%7.3f %s %s", time.Since(c.start).Seconds(), way, what))
}

// Trace is what went over the connection lately, one line a packet, with the
// seconds since it was made.
func (c *Conn) Trace() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.trace[max(0, len(c.trace)-maxTrace):], "\n")
}
