package mqttfront

import (
	"errors"
	"sync"
)

// strangers are the connections that are not let in yet. They have bounds of
// their own, so that nobody who says nothing takes the place of a client.
type strangers struct {
	mu    sync.Mutex
	n     int
	bytes int64           // of large CONNECTs under way; guarded by mu
	mute  map[*conn]int64 // those that have not sent a whole CONNECT, by arrival; guarded by mu
	seq   int64           // guarded by mu
}

// hall is the place of a connection among the strangers; guarded by strangers.mu.
type hall struct {
	in    bool
	bytes int64
}

const (
	maxConnect       = 128 << 10 // bytes of a CONNECT
	maxStrangerBytes = 8 << 20   // of CONNECTs beyond readBufferMax each
)

var errCrowded = errors.New("too many connections that are not let in")

// enter takes c in. When the hall is full the one that has been silent for the
// longest has to leave; false: all have spoken, and c has to.
func (s *strangers) enter(c *conn, most int) bool {
	s.mu.Lock()
	var oldest *conn
	if s.n >= most {
		for m, seq := range s.mute {
			if oldest == nil || seq < s.mute[oldest] {
				oldest = m
			}
		}
		if oldest == nil {
			s.mu.Unlock()
			return false
		}
		s.remove(oldest)
	}
	if s.mute == nil {
		s.mute = make(map[*conn]int64)
	}
	s.seq++
	s.mute[c] = s.seq
	s.n++
	c.hall.in = true
	s.mu.Unlock()
	if oldest != nil {
		c.f.n.limit(limitStrangers)
		c.f.n.protocol("strangers")
		oldest.endLost(errCrowded)
	}
	return true
}

// spoke says that c has sent a whole CONNECT.
func (s *strangers) spoke(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mute, c)
}

// leave says that c is a client, or gone.
func (s *strangers) leave(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(c)
}

// remove takes c off. The caller holds mu.
func (s *strangers) remove(c *conn) {
	if !c.hall.in {
		return
	}
	c.hall.in = false
	s.n--
	s.bytes -= c.hall.bytes
	c.hall.bytes = 0
	delete(s.mute, c)
}

// account notes the size of c's read buffer; false: all are too large together.
func (s *strangers) account(c *conn, size int) bool {
	extra := int64(max(0, size-readBufferMax))
	s.mu.Lock()
	defer s.mu.Unlock()
	if !c.hall.in || extra == c.hall.bytes {
		return true
	}
	grown := extra > c.hall.bytes
	s.bytes += extra - c.hall.bytes
	c.hall.bytes = extra
	return !grown || s.bytes <= maxStrangerBytes
}

func (s *strangers) count() (n int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n, s.bytes
}

// partials are the clients whose read buffers have grown over packets that
// have not come whole. Together they are bounded; when they are too many bytes,
// the packet that has been under way for the longest ends its connection.
type partials struct {
	mu    sync.Mutex
	m     map[*conn]*partial // guarded by mu
	total int64              // guarded by mu
	seq   int64              // guarded by mu
}

type partial struct {
	bytes int64
	since int64
}

// account notes the size of c's read buffer, and returns the connection that
// has to end so that it may be so.
func (p *partials) account(c *conn, size int, most int64) (victim *conn) {
	extra := int64(max(0, size-readBufferMax))
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.m[c]
	switch {
	case h == nil && extra == 0:
		return nil
	case h == nil:
		if p.m == nil {
			p.m = make(map[*conn]*partial)
		}
		p.seq++
		h = &partial{since: p.seq}
		p.m[c] = h
	}
	p.total += extra - h.bytes
	h.bytes = extra
	if extra == 0 {
		delete(p.m, c)
	}
	if p.total <= most {
		return nil
	}
	for other, h := range p.m {
		if victim == nil || h.since < p.m[victim].since {
			victim = other
		}
	}
	p.total -= p.m[victim].bytes
	delete(p.m, victim)
	return victim
}

// progress says that a packet of c has come whole.
func (p *partials) progress(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h := p.m[c]; h != nil {
		p.seq++
		h.since = p.seq
	}
}

// accountBuffer bounds what read buffers hold beyond what every connection may
// have.
func (c *conn) accountBuffer() *wireError {
	size := len(c.reader.buf)
	if size <= readBufferMax && c.reader.accounted <= readBufferMax {
		return nil
	}
	c.reader.accounted = size
	f := c.f
	if !c.open.Load() {
		if !f.strangers.account(c, size) {
			f.n.limit(limitStrangerBytes)
			return &wireError{ServerBusy, "stranger_bytes", "too many large CONNECTs at once"}
		}
		return nil
	}
	victim := f.partials.account(c, size, f.maxPartial())
	if victim == nil {
		return nil
	}
	f.n.limit(limitPartial)
	why := &wireError{QuotaExceeded, "partial", "too many large packets come at once, and this one for the longest"}
	if victim == c {
		return why
	}
	f.n.protocol(why.kind)
	victim.end(why, why.code, why.text)
	return nil
}

// maxPartial bounds the half-received packets of all clients, in bytes.
func (f *Front) maxPartial() int64 {
	return max(f.o.MaxTotalBytes/2, 4*int64(f.o.MaxPacketSize))
}
