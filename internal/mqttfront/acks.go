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

// The kinds of answer that an entry ends in.
const (
	answerNone   = iota // a QoS 0 message, or a will
	answerPuback        // of a QoS 1 message
	answerPubrec        // of a QoS 2 message
	answerPubcomp
	answerBytes // pub.Payload holds whole packets
)

// entry is one thing that a client awaits an answer to: a message between its
// PUBLISH and its acknowledgement, mostly. Entries are never used twice, so that
// a Settle called twice can do no harm.
type entry struct {
	c     *conn
	seq   uint64
	state atomic.Uint32
	// Written by the reader before the entry is in the queue.
	packetID uint16
	kind     byte
	message  bool // the Session was given it
	counted  bool // it uses the Receive Maximum
	released bool // it ends a QoS 2 message, which is in pub for local subscribers
	retains  bool // it is retained, if it is taken
	pub      Publish
	size     int
	received *received // of a QoS 2 message
	// Written by the one that claimed the entry.
	code     byte
	noFanOut bool
	withhold bool
	user     []stream.Property
}

// settle is the Settle of an entry, but for those of QoS 2 messages.
func (e *entry) settle(r Result) {
	if e.claim() {
		e.result(r)
	}
}

// claim reports whether this is the first call of a Settle.
func (e *entry) claim() bool {
	if !e.state.CompareAndSwap(entryOpen, entryClaimed) {
		e.c.f.n.settledTwice.Add(1)
		return false
	}
	return true
}

// result settles an entry that is claimed.
func (e *entry) result(r Result) {
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

// flush takes what is settled, what was sent, and messages for the client, and
// writes it all at once.
func (c *conn) flush() {
	buf := c.wbuf[:0]
	var done tally
	ended := c.ending.Load()
	for done.end == nil && len(buf) < maxWrite {
		e := c.acks.pop()
		if e == nil {
			break
		}
		if buf = c.answerEntry(buf, e, &done, ended); done.end == nil {
			c.conclude(e)
		}
	}
	// Before the write: a client may use its window again as soon as it reads.
	c.release(&done)
	if len(buf) >= maxWrite {
		c.writer.Store(writerAgain) // there may be more
	}
	buf, last, closed := c.takeOut(buf)
	if !closed && done.end == nil {
		buf = c.takeMessages(buf, done.answers)
	}
	if len(buf) > 0 {
		c.write(buf, done.acks)
	}
	c.keepBuffer(buf)
	if e := done.end; e != nil {
		c.conclude(e)
		c.endUnacknowledged(e)
	}
	if last {
		c.flushed()
	}
}

// tally is what one flush has done.
type tally struct {
	messages, quota, bytes, acks, answers int
	end                                   *entry // it can be told only by closing
}

// answerEntry appends the answer to e.
func (c *conn) answerEntry(buf []byte, e *entry, t *tally, ended bool) []byte {
	t.bytes += e.size
	if e.message && e.packetID != 0 {
		t.messages++
	}
	if e.counted && (e.kind != answerPubrec || e.code >= UnspecifiedError) {
		t.quota++
	}
	switch {
	case ended || e.kind == answerNone: // nobody to tell
	case e.withhold || e.code >= UnspecifiedError && c.version < 5 && e.kind < answerPubcomp:
		t.end = e
	case e.kind == answerBytes:
		buf = append(buf, e.pub.Payload...)
		t.answers++
	default:
		user := e.user
		if c.noProblemInfo {
			user = nil // [MQTT-3.1.2-29]
		}
		buf = appendAck(buf, ackTypes[e.kind], c.version, e.packetID, e.code, user, c.peerPacket)
		t.acks++
	}
	return buf
}

// ackTypes are the first bytes of the acknowledgements.
var ackTypes = [...]byte{answerPuback: typePuback << 4, answerPubrec: typePubrec << 4, answerPubcomp: typePubcomp << 4}

// takeMessages appends messages for the client, as many as fit, once answers
// have been appended.
func (c *conn) takeMessages(buf []byte, answers int) []byte {
	if !c.open.Load() {
		return buf
	}
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != c {
		return buf
	}
	for range answers {
		s.out.answered()
	}
	n := len(buf)
	if n >= maxWrite {
		return buf
	}
	if buf = s.out.take(buf, maxWrite-n); len(buf) >= maxWrite {
		c.writer.Store(writerAgain) // there may be more
	}
	return buf
}

// keepBuffer keeps the write buffer for the next time, unless it is large or
// the connection idle. Writer.
func (c *conn) keepBuffer(buf []byte) {
	switch {
	case len(buf) == 0 && c.trimOut.Swap(false), cap(buf) > keepWriteBuffer:
		c.wbuf = nil
	default:
		c.wbuf = buf
		if cap(buf) > idleWriteBuffer && !c.fat.Load() {
			c.fat.Store(true)
		}
	}
}

// conclude counts a settled entry, gives its message to local subscribers and
// forgets what it holds.
func (c *conn) conclude(e *entry) {
	refused := e.withhold || e.code >= UnspecifiedError
	if e.message && refused {
		if e.withhold {
			c.f.n.withheld.Add(1)
		} else {
			c.f.n.refused.Add(1)
		}
		c.f.noteRefused(c, e)
	}
	if fan := c.f.fan; fan != nil && (e.released || e.message && e.kind != answerPubrec) {
		switch taken := !refused && !e.noFanOut; {
		case taken && (e.retains || fan.wants(&e.pub)):
			fan.offer(c.id, &e.pub)
		case e.retains:
			fan.refuse(&e.pub, e.withhold || e.code < UnspecifiedError)
		}
	}
	e.pub, e.user, e.received = Publish{}, nil, nil
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

// answer queues b, one or more whole packets, behind the acknowledgements that
// are due. It is sent when changes are durable; when they cannot be, the
// connection ends. Connection's goroutine.
func (c *conn) answer(b []byte, changes []Change) *wireError {
	size := len(b) + entryCost
	if err := c.admitBytes(size); err != nil {
		return err
	}
	e := c.acks.slot(c)
	e.kind, e.size, e.pub.Payload = answerBytes, size, b
	c.acks.push(e)
	c.f.save(changes, func(err error) {
		e.settle(Result{Withhold: err != nil})
	})
	return nil
}
