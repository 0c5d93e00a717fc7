package buffer

import (
	"errors"
	"fmt"
	"time"

	"github.com/packetboat/packetboat/pkg/stream"
)

// chunk is a frame being collected, then committed. Guarded by Buffer.mu while
// it is pending, then by commitMu.
type chunk struct {
	buf     []byte // frame header (empty yet), then the record area
	base    int64
	lanes   [4]chunkLane
	waiters []waiter
	started time.Time
	charged int64  // bytes counted in Buffer.waiting
	payload uint64 // topic and payload bytes

	// The changes of the map: encoded, and as the index takes them. marks tells
	// whose they are.
	state   []byte
	changes []change
	marks   []mixture
	// Where the frame stands that was written last: its first slot, its place.
	slot      uint32
	off, next int64

	numbered bool // the lanes' first numbers are given
	records  int  // end of the record area in buf, once sealed for the first time
	epoch    stream.Epoch
}

// mixture is one Write with entries: where its own end in the chunk, how many
// waiters came before it, whether it has one, and whether it has messages.
type mixture struct {
	state, changes, waiters int
	waits, messages         bool
}

type chunkLane struct {
	first, count, bytes uint64
	from, to            int64
	expires             bool  // some of the messages
	due                 int64 // the first of them, by Moment.Mono
}

// waiter is an Append that waits for its commit. Its first message is the
// index-th of the lane in chunk, which may be one before the chunk that the
// waiter stands in.
type waiter struct {
	done  func(stream.Position, error)
	chunk *chunk
	lane  stream.Lane
	index uint64
}

// Chunks start small and grow to a frame's size under load; a few are kept.
const (
	firstChunkBytes = 16 << 10
	spareChunks     = 4
	// timeSlack is how much longer a record's time may get in its chunk than it
	// was measured.
	timeSlack = 4
)

func (c *chunk) reset() {
	clear(c.waiters)
	clear(c.changes)
	*c = chunk{buf: append(c.buf[:0], zeroPage[:frameHeader]...), waiters: c.waiters[:0],
		state: c.state[:0], changes: c.changes[:0], marks: c.marks[:0]}
}

// used is how long the frame is so far.
func (c *chunk) used() int { return len(c.buf) + len(c.state) }

// rebase sets the base time, as long as no record needs another.
func (c *chunk) rebase(at int64) {
	if len(c.buf) == frameHeader {
		c.base = at
	}
}

// strip takes the messages out of the chunk, and the entries that came with
// them; what was written as entries alone stays. It returns the rest.
func (c *chunk) strip() (waiters []waiter, changes []change) {
	var keep chunk
	var at mixture
	for _, m := range c.marks {
		waiters = append(waiters, c.waiters[at.waiters:m.waiters]...)
		own := c.waiters[m.waiters:m.waiters]
		if m.waits {
			own = c.waiters[m.waiters : m.waiters+1]
		}
		if m.messages {
			waiters = append(waiters, own...)
			changes = append(changes, c.changes[at.changes:m.changes]...)
		} else {
			keep.state = append(keep.state, c.state[at.state:m.state]...)
			keep.changes = append(keep.changes, c.changes[at.changes:m.changes]...)
			keep.waiters = append(keep.waiters, own...)
		}
		at = mixture{state: m.state, changes: m.changes, waiters: m.waiters + len(own)}
	}
	waiters = append(waiters, c.waiters[at.waiters:]...)
	c.buf, c.records, c.lanes, c.marks = c.buf[:frameHeader], frameHeader, [4]chunkLane{}, nil
	c.state, c.changes, c.waiters = keep.state, keep.changes, keep.waiters
	return waiters, changes
}

// fail tells every waiter that its messages are not stored.
func (c *chunk) fail(err error) {
	for i := range c.waiters {
		c.waiters[i].done(stream.Position{}, err)
	}
}

// acknowledge tells every waiter where its messages stand.
func (c *chunk) acknowledge() {
	for i := range c.waiters {
		w := &c.waiters[i]
		at := stream.Position{}
		if w.lane.Valid() {
			at = stream.Position{ID: stream.ID{Epoch: w.chunk.epoch, Lane: w.lane}, Seq: w.chunk.lanes[w.lane].first + w.index}
		}
		w.done(at, nil)
	}
}

// add encodes m, accepted at the given moment, and returns its encoded size. The
// moment counts, and may not be nil, only where m expires.
func (c *chunk) add(lane stream.Lane, m *stream.Message, at *stream.Moment) int {
	l := &c.lanes[lane]
	if m.Expiry > 0 {
		if due := at.Mono + int64(m.Expiry)*microseconds; !l.expires || due < l.due {
			l.due = due
		}
		l.expires = true
	}
	if l.count == 0 {
		l.from, l.to = m.Time, m.Time
	}
	l.from, l.to = min(l.from, m.Time), max(l.to, m.Time)
	n := len(c.buf)
	c.buf = appendRecord(c.buf, lane, m, c.base, recordRest(m, c.base, at), at)
	n = len(c.buf) - n
	l.count++
	l.bytes += uint64(n)
	c.payload += uint64(len(m.Topic) + len(m.Payload))
	return n
}

// Append is Commit of messages alone. It takes msgs into the lane, in order and
// with contiguous numbers; there must be at least one.
func (b *Buffer) Append(lane stream.Lane, msgs []stream.Message, done func(first stream.Position, err error)) error {
	if len(msgs) == 0 {
		return fmt.Errorf("append to %s: no messages", lane)
	}
	return b.Commit(Write{Lane: lane, Msgs: msgs}, done)
}

// Commit takes w: its messages in order and with contiguous numbers, its entries
// after those of all earlier Writes. It copies them, does not wait for the disk,
// and returns nil when they will be committed: done, which may be nil, is then
// called exactly once, in commit order, from the goroutine of Run (or of Close):
// with the place of the first message (zero if there is none) after the sync
// that covers all of w, or with an error when w could not be stored (ErrDisk,
// ErrFull, ErrClosed; after one, w may turn up all the same, as anything without
// an acknowledgement may: entries and their messages together or not at all, and
// of messages alone some). done must not block and must not call GiveUp or
// Close.
//
// When Commit returns an error (ErrFull, ErrBusy, ErrDisk, ErrClosed,
// ErrTooLarge, ErrStateFull, wrapped) nothing was taken and done is not called.
// A Write with entries fits a frame as a whole or is ErrTooLarge.
func (b *Buffer) Commit(w Write, done func(first stream.Position, err error)) error {
	size, urgent, at, err := b.measure(&w)
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.admit(size, len(w.Msgs) > 0); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	if len(w.State) > 0 {
		if err := b.keys.reserve(w.State); err != nil {
			return fmt.Errorf("commit: %w", err)
		}
		b.collectWhole(&w, size, at, done)
	} else {
		b.collect(&w, at, done)
	}
	if urgent {
		token(b.wake)
	} else {
		token(b.lazy)
	}
	return nil
}

// measure checks w, and says how large it is at most when encoded. If any of its
// messages expires, at is now.
func (b *Buffer) measure(w *Write) (size int64, urgent bool, at *stream.Moment, err error) {
	switch {
	case len(w.Msgs) == 0 && len(w.State) == 0:
		return 0, false, nil, errors.New("nothing to write")
	case len(w.Msgs) > 0 && !w.Lane.Valid():
		return 0, false, nil, fmt.Errorf("%s is not a lane", w.Lane)
	}
	urgent = len(w.State) > 0 && !w.Lazy
	for i := range w.Msgs {
		if w.Msgs[i].Expiry > 0 && at == nil {
			now := b.o.Now()
			at = &now
		}
		n := recordLen(recordRest(&w.Msgs[i], 0, at))
		if n > b.messageMax {
			return 0, false, nil, fmt.Errorf("%w: %d bytes encoded, %d fit", ErrTooLarge, n, b.messageMax)
		}
		size += int64(n)
		urgent = urgent || w.Msgs[i].QoS > 0
	}
	if len(w.State) == 0 {
		return size, urgent, at, nil
	}
	size += timeSlack * int64(len(w.Msgs))
	for i := range w.State {
		size += int64(changeLen(&w.State[i]))
	}
	if room := int64(b.frameMax - groupReserve - frameHeader); size > room {
		return 0, false, nil, fmt.Errorf("%w: %d bytes with its entries, %d fit", ErrTooLarge, size, room)
	}
	return size, urgent, at, nil
}

// collect takes the messages of w, which may be split over chunks. Under mu.
func (b *Buffer) collect(w *Write, at *stream.Moment, done func(stream.Position, error)) {
	var first waiter
	var c *chunk
	for i := range w.Msgs {
		m := &w.Msgs[i]
		c = b.collecting(m, at)
		if i == 0 {
			first = waiter{done: done, chunk: c, lane: w.Lane, index: c.lanes[w.Lane].count}
		}
		n := int64(c.add(w.Lane, m, at))
		c.charged += n
		b.waiting += n
	}
	if done != nil {
		c.waiters = append(c.waiters, first)
	}
}

// collectWhole takes w, of size bytes at most, into one chunk. Under mu.
func (b *Buffer) collectWhole(w *Write, size int64, at *stream.Moment, done func(stream.Position, error)) {
	var c *chunk
	if n := len(b.pending); n > 0 && b.pending[n-1].used()+int(size) <= b.frameMax-groupReserve {
		c = b.pending[n-1]
	} else {
		c = b.newChunk()
	}
	first := waiter{done: done, chunk: c}
	n := int64(0)
	if len(w.Msgs) > 0 {
		c.rebase(w.Msgs[0].Time)
		first.lane, first.index = w.Lane, c.lanes[w.Lane].count
		for i := range w.Msgs {
			n += int64(c.add(w.Lane, &w.Msgs[i], at))
		}
	}
	n -= int64(len(c.state))
	for i := range w.State {
		c.changed(&w.State[i])
	}
	n += int64(len(c.state))
	c.charged += n
	b.waiting += n
	c.marks = append(c.marks, mixture{state: len(c.state), changes: len(c.changes), waiters: len(c.waiters), waits: done != nil, messages: len(w.Msgs) > 0})
	if done != nil {
		c.waiters = append(c.waiters, first)
	}
}

// admit says whether size bytes may be taken. Under mu.
func (b *Buffer) admit(size int64, messages bool) error {
	switch {
	case b.stopped:
		return ErrClosed
	case b.diskErr != nil && time.Now().Before(b.retryAt):
		return fmt.Errorf("%w: %w", ErrDisk, b.diskErr)
	case b.full && messages:
		return fmt.Errorf("%w: %d bytes, and nothing may be evicted", ErrFull, b.o.MaxBytes)
	case b.waiting > 0 && b.waiting+size > b.o.MaxPending:
		return fmt.Errorf("%w: %d bytes", ErrBusy, b.waiting)
	}
	return nil
}

// collecting is the chunk that has room for m: the last one, or a new one.
// Under mu.
func (b *Buffer) collecting(m *stream.Message, at *stream.Moment) *chunk {
	if n := len(b.pending); n > 0 {
		c := b.pending[n-1]
		c.rebase(m.Time)
		if c.used()+recordLen(recordRest(m, c.base, at)) <= b.frameMax-groupReserve {
			return c
		}
	}
	c := b.newChunk()
	c.rebase(m.Time)
	return c
}

// newChunk begins a chunk. Under mu.
func (b *Buffer) newChunk() *chunk {
	var c *chunk
	if n := len(b.spare); n > 0 {
		c, b.spare = b.spare[n-1], b.spare[:n-1]
	} else {
		c = &chunk{buf: make([]byte, 0, firstChunkBytes)}
	}
	c.reset()
	c.started = time.Now()
	b.pending = append(b.pending, c)
	return c
}

// recycle takes committed chunks back for reuse. Under mu.
func (b *Buffer) recycle(chunks []*chunk) {
	for _, c := range chunks {
		b.waiting -= c.charged
		if len(b.spare) < spareChunks {
			b.spare = append(b.spare, c)
		}
	}
}
