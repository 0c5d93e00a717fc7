package mqttfront

import (
	"runtime"
	"sync/atomic"

	"github.com/packetboat/packetboat/pkg/stream"
)

// The states of an entry.
const (
	entryOpen    = iota // the Session has it
	entryClaimed        // a Settle writes the result
	entrySettled        // the result may be read
)

// entry is one message between its PUBLISH and its acknowledgement. Entries are
// never used twice, so that a Settle called twice can do no harm.
type entry struct {
	c     *conn
	seq   uint64
	state atomic.Uint32
	// Written by the reader before the entry is in the queue.
	pub      Publish
	size     int
	expiry   uint32 // message expiry in seconds, for local subscribers
	packetID uint16
	// Written by the one that claimed the entry.
	code     byte
	noFanOut bool
	withhold bool
	user     []stream.Property
}

// settle is the Settle of an entry.
func (e *entry) settle(r Result) {
	if !e.state.CompareAndSwap(entryOpen, entryClaimed) {
		e.c.f.n.settledTwice.Add(1)
		return
	}
	e.code, e.user, e.noFanOut, e.withhold = r.Code, r.User, r.NoFanOut, r.Withhold
	e.state.Store(entrySettled)
	// Whoever settles the head wakes the writer. The writer stores the head
	// before it looks at the next entry, so one of the two sees the other.
	if q := &e.c.acks; q.head.Load() == e.seq {
		e.c.kick()
	}
}

const (
	chunkEntries = 32
	maxWrite     = 64 << 10 // bytes of acknowledgements in one write, about
)

// chunk holds entries; many at once so that a message costs no allocation of
// its own, few so that one late settle keeps little alive.
type chunk struct {
	e    [chunkEntries]entry
	next *chunk // reader, before it publishes an entry of it
}

// ackQueue is the queue of a connection's entries in the order of arrival: one
// reader appends, one writer (who holds the flush phase) takes.
type ackQueue struct {
	head atomic.Uint64 // the next to acknowledge; written by the writer
	tail atomic.Uint64 // the next to append; written by the reader
	last *chunk        // reader
	open *chunk        // writer, once the first chunk is there
	root atomic.Pointer[chunk]
}

// slot gives the reader the next entry to fill in.
func (q *ackQueue) slot(c *conn) *entry {
	seq := q.tail.Load()
	i := seq % chunkEntries
	if i == 0 {
		n := new(chunk)
		if q.last == nil {
			q.root.Store(n)
		} else {
			q.last.next = n
		}
		q.last = n
	}
	e := &q.last.e[i]
	e.c, e.seq = c, seq
	return e
}

// push makes the entry that slot gave part of the queue.
func (q *ackQueue) push(e *entry) { q.tail.Store(e.seq + 1) }

// pop gives the writer the oldest entry if it is settled.
func (q *ackQueue) pop() *entry {
	h := q.head.Load()
	if h == q.tail.Load() {
		return nil
	}
	i := h % chunkEntries
	switch {
	case q.open == nil:
		q.open = q.root.Load()
		q.root.Store(nil)
	case i == 0 && q.open.e[0].seq != h:
		q.open = q.open.next
	}
	e := &q.open.e[i]
	if e.state.Load() != entrySettled {
		return nil
	}
	q.head.Store(h + 1)
	return e
}

// The phases of a connection's writer.
const (
	writerIdle = iota
	writerRunning
	writerAgain // something came while it ran
)

// kick sees to it that the writer looks at the queue after this call.
func (c *conn) kick() {
	if c.writer.Swap(writerAgain) == writerIdle {
		c.f.tasks.start(c.runWriter)
	}
}

// runWriter is the one writer of a connection, started on demand. It writes all
// that is there in one write, again until nothing came meanwhile.
func (c *conn) runWriter() {
	// Let those run that are about to settle more: one write for many.
	runtime.Gosched()
	for {
		c.writer.Store(writerRunning)
		c.flush()
		if c.writer.CompareAndSwap(writerRunning, writerIdle) {
			return
		}
	}
}

// flush takes what is settled and what mochi wrote, and writes it.
func (c *conn) flush() {
	buf := c.wbuf[:0]
	messages, acks, freed := 0, 0, 0
	ended := c.ending.Load()
	var end *entry // a refusal that an old client can only be told by closing
	for end == nil && len(buf) < maxWrite {
		e := c.acks.pop()
		if e == nil {
			break
		}
		freed += e.size
		if e.packetID != 0 {
			messages++
			switch {
			case ended: // nobody to tell
			case e.withhold || e.code >= UnspecifiedError && c.version < 5:
				end = e
			default:
				buf = c.appendAck(buf, e)
				acks++
			}
		}
		c.conclude(e)
	}
	// Before the write: a client may use its window again as soon as it reads.
	c.release(messages, freed)
	if len(buf) >= maxWrite {
		c.writer.Store(writerAgain) // there may be more
	}
	buf, last := c.takeOut(buf)
	if len(buf) > 0 {
		c.writeAcks(buf, acks)
	}
	if cap(buf) <= keepWriteBuffer {
		c.wbuf = buf
	} else {
		c.wbuf = nil
	}
	if c.draining.Load() {
		c.wakeReader()
	}
	if end != nil {
		c.endUnacknowledged(end)
	}
	if last {
		c.flushed()
	}
}

// appendAck appends the PUBACK of e.
func (c *conn) appendAck(buf []byte, e *entry) []byte {
	user := e.user
	if c.noProblemInfo {
		user = nil // [MQTT-3.1.2-29]
	}
	return appendPuback(buf, c.version, e.packetID, e.code, user, c.peerPacket)
}

// conclude counts a settled entry, gives it to local subscribers and forgets
// what it holds.
func (c *conn) conclude(e *entry) {
	n := &c.f.n
	switch {
	case e.withhold:
		n.withheld.Add(1)
	case e.code >= UnspecifiedError:
		n.refused.Add(1)
	case !e.noFanOut && c.f.fan != nil && (e.pub.Retain || c.f.subscriptions() > 0):
		c.f.fan.offer(c, e)
	}
	e.pub, e.user = Publish{}, nil
}

// endUnacknowledged closes the connection at a message that will not be
// acknowledged, so that nothing after it is.
func (c *conn) endUnacknowledged(e *entry) {
	code, text := e.code, "message refused"
	if e.withhold {
		code, text = max(code, UnspecifiedError), "acknowledgement withheld"
	}
	c.end(&wireError{code, "unacknowledged", text}, code, text)
}
