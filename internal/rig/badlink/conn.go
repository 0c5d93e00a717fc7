package badlink

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	chunkSize  = 16 << 10
	queueDepth = 128 // chunks on their way, per connection and direction: 2 MiB
)

// conn is one client's connection and its other half.
type conn struct {
	client net.Conn
	cancel context.CancelFunc

	mu     sync.Mutex
	target net.Conn // guarded by mu; nil until dialled
	closed bool     // guarded by mu
}

func (c *conn) setTarget(t net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.target = t
	if c.closed {
		_ = t.Close()
	}
}

// close ends both halves; what was not read is dropped.
func (c *conn) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	_ = c.client.Close()
	if c.target != nil {
		_ = c.target.Close()
	}
	c.cancel()
}

// reset ends both halves with RST where the system allows it.
func (c *conn) reset() {
	c.mu.Lock()
	for _, half := range []net.Conn{c.client, c.target} {
		if t, ok := half.(*net.TCPConn); ok {
			_ = t.SetLinger(0) // best effort: a plain close is also an end
		}
	}
	c.mu.Unlock()
	c.close()
}

// chunk is a run of bytes on its way.
type chunk struct {
	data []byte
	due  time.Time // not delivered before
	eof  bool      // the sender closed after it
}

// carry moves bytes from src to dst until either ends. A close in order goes
// through after the bytes before it; anything else ends the connection.
func (l *Link) carry(ctx context.Context, c *conn, src, dst net.Conn, d *direction, count *atomic.Int64) {
	way := make(chan chunk, queueDepth)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		defer close(way)
		l.collect(ctx, src, d, way)
	})
	for ch := range way {
		if !sleep(ctx, time.Until(ch.due)) || !sleep(ctx, d.reserve(time.Now(), len(ch.data))) || l.flowing(ctx) != nil {
			break
		}
		if ch.eof {
			if t, ok := dst.(interface{ CloseWrite() error }); ok && t.CloseWrite() == nil {
				return // the other direction may go on
			}
			break
		}
		n, err := dst.Write(ch.data)
		count.Add(int64(n))
		if err != nil {
			break
		}
	}
	c.close() // collect's read ends with it
}

// collect reads src into way. In a black hole it does not read, so that the
// sender's own buffers fill as they would.
func (l *Link) collect(ctx context.Context, src net.Conn, d *direction, way chan<- chunk) {
	for l.flowing(ctx) == nil {
		buf := make([]byte, d.chunk())
		n, err := src.Read(buf)
		next := chunk{data: buf[:n], due: d.due(time.Now(), n)}
		if n > 0 && !send(ctx, way, next) {
			return
		}
		if err != nil {
			if isEOF(err) {
				send(ctx, way, chunk{eof: true, due: next.due})
			}
			return
		}
	}
}

func send(ctx context.Context, way chan<- chunk, c chunk) bool {
	select {
	case way <- c:
		return true
	case <-ctx.Done():
		return false
	}
}
