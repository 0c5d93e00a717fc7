package hostile

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	// welcome is how long a client waits for its CONNACK: others knock too.
	welcome = 10 * time.Second
	// writing is how long a server may take nothing before a client gives up.
	writing = 2 * time.Second
	// maxAnswer bounds what a client keeps of one packet; the rest is read over.
	maxAnswer = 64 << 10
)

// tally gathers a report from many connections.
type tally struct {
	t  *Target
	mu sync.Mutex
	r  Report // guarded by mu
}

func (t *tally) attempt(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.r.Attempts += n
}

func (t *tally) answer(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.r.Answers[what]++
}

func (t *tally) sent(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.r.Bytes += int64(n)
}

// client is one connection that will not behave.
type client struct {
	net.Conn
	r       *bufio.Reader
	t       *tally
	version byte
	stop    func() bool // takes back what closes the connection when ctx ends
}

// open connects without saying anything. The error is counted.
func (t *tally) open(ctx context.Context, dial Dial) (*client, error) {
	c, err := dial(ctx)
	if err != nil {
		if ctx.Err() == nil {
			t.answer("no connection")
		}
		return nil, err
	}
	t.mu.Lock()
	t.r.Connections++
	t.mu.Unlock()
	cl := &client{Conn: c, r: bufio.NewReaderSize(c, 1<<10), t: t, version: 4}
	cl.stop = context.AfterFunc(ctx, func() { _ = c.Close() }) // ends whatever waits on it
	return cl, nil
}

// close hangs up.
func (c *client) close() {
	c.stop()
	_ = c.Conn.Close() // it was never meant well
}

// reset hangs up in the rudest way.
func (c *client) reset() {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	c.close()
}

// send writes all of b, and gives up after a while: a server need not read.
func (c *client) send(b ...[]byte) error {
	_ = c.SetWriteDeadline(time.Now().Add(writing))
	for _, p := range b {
		n, err := c.Write(p)
		c.t.sent(n)
		if err != nil {
			return err
		}
	}
	return nil
}

// enter connects and is let in with h, or says why not.
func (t *tally) enter(ctx context.Context, h hello) (*client, error) {
	c, err := t.open(ctx, t.t.Dial)
	if err != nil {
		return nil, err
	}
	if h.version == 0 {
		h.version = 5
	}
	if h.user == "" {
		h.user, h.pass = t.t.Username, t.t.Password
	}
	c.version = h.version
	if err := c.send(h.packet()); err != nil {
		t.answer(ending(err))
		c.close()
		return nil, err
	}
	first, body, err := c.read(maxAnswer, welcome)
	if err == nil && (first != connack || len(body) < 2 || body[1] != 0) {
		err = errors.New(c.describe(first, body))
	}
	if err != nil {
		t.answer("at CONNECT: " + ending(err))
		c.close()
		return nil, err
	}
	return c, nil
}

// read reads one packet, of which it keeps most bytes of the body at most.
func (c *client) read(most int, wait time.Duration) (first byte, body []byte, err error) {
	_ = c.SetReadDeadline(time.Now().Add(wait))
	if first, err = c.r.ReadByte(); err != nil {
		return 0, nil, err
	}
	size := 0
	for shift := 0; shift <= 21; shift += 7 {
		b, err := c.r.ReadByte()
		if err != nil {
			return 0, nil, err
		}
		if size |= int(b&127) << shift; b < 128 {
			break
		}
	}
	body = make([]byte, min(size, most))
	if _, err = io.ReadFull(c.r, body); err == nil {
		_, err = io.CopyN(io.Discard, c.r, int64(size-len(body)))
	}
	return first, body, err
}

// hear notes every answer until the server is silent for too long or ends the
// connection. It reports whether the connection still stands.
func (c *client) hear() bool { return c.listen(c.t.t.Patience, 100_000) }

// listen is hear with a bound of its own on time and packets.
func (c *client) listen(wait time.Duration, packets int) bool {
	for range packets {
		first, body, err := c.read(16, wait)
		if err != nil {
			c.t.answer(ending(err))
			return errors.Is(err, os.ErrDeadlineExceeded)
		}
		if first&0xF0 == publish {
			continue // not about us
		}
		c.t.answer(c.describe(first, body))
	}
	return true
}

// describe names a packet with its reason code.
func (c *client) describe(first byte, body []byte) string {
	name := names[first&0xF0]
	at := -1
	switch first & 0xF0 {
	case connack:
		at = 1
	case puback, pubrec, pubrel & 0xF0, pubcomp:
		at = 2
	case suback, unsuback:
		if at = 2; c.version == 5 {
			at = 3
		}
	case disconnect, auth:
		at = 0
	}
	switch {
	case name == "":
		return fmt.Sprintf("byte %#02x", first)
	case at >= 0 && at < len(body):
		return fmt.Sprintf("%s %#02x", name, body[at])
	}
	return name
}

// ending says in a word how a connection ended.
func ending(err error) string {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "silence"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return "closed"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset"
	}
	return err.Error()
}
