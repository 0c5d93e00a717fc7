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

	numbered bool // the lanes' first numbers are given
	records  int  // end of the record area in buf, once sealed for the first time
	epoch    stream.Epoch
}

type chunkLane struct {
	first, count, bytes uint64
	from, to            int64
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
)

func (c *chunk) reset() {
	clear(c.waiters)
	*c = chunk{buf: append(c.buf[:0], zeroPage[:frameHeader]...), waiters: c.waiters[:0]}
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

// add encodes m and returns its encoded size.
func (c *chunk) add(lane stream.Lane, m *stream.Message) int {
	l := &c.lanes[lane]
	if l.count == 0 {
		l.from, l.to = m.Time, m.Time
	}
	l.from, l.to = min(l.from, m.Time), max(l.to, m.Time)
	n := len(c.buf)
	c.buf = appendRecord(c.buf, lane, m, c.base, recordRest(m, c.base))
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
	lane, msgs := w.Lane, w.Msgs
	switch {
	case len(msgs) == 0 && len(w.State) == 0:
		return errors.New("commit: nothing to write")
	case len(msgs) == 0:
		lane = 0
	case !lane.Valid():
		return fmt.Errorf("append: %s is not a lane", lane)
	}
	size, urgent := int64(0), len(w.State) > 0 && !w.Lazy
	for i := range msgs {
		n := recordLen(recordRest(&msgs[i], 0))
		if n > b.messageMax {
			return fmt.Errorf("append to %s: %w: %d bytes encoded, %d fit", lane, ErrTooLarge, n, b.messageMax)
		}
		size += int64(n)
		urgent = urgent || msgs[i].QoS > 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.admit(size); err != nil {
		return fmt.Errorf("append to %s: %w", lane, err)
	}
	var first waiter
	var c *chunk
	for i := range msgs {
		m := &msgs[i]
		c = b.collecting(m)
		if i == 0 {
			first = waiter{done, c, lane, c.lanes[lane].count}
		}
		n := int64(c.add(lane, m))
		c.charged += n
		b.waiting += n
	}
	if c == nil {
		c = b.collecting(&stream.Message{})
		first = waiter{done, c, 0, 0}
	}
	for _, e := range w.State {
		if b.stateMap == nil {
			b.stateMap = map[string][]byte{}
		}
		if e.Value == nil {
			delete(b.stateMap, e.Key)
		} else {
			b.stateMap[e.Key] = append([]byte{}, e.Value...)
		}
	}
	if done != nil {
		c.waiters = append(c.waiters, first)
	}
	if urgent {
		token(b.wake)
	} else {
		token(b.lazy)
	}
	return nil
}

// State yields every entry of the map that is synced, in no order, until yield
// returns false. key and value are the caller's.
func (b *Buffer) State(yield func(key string, value []byte) bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for k, v := range b.stateMap {
		if !yield(k, append([]byte{}, v...)) {
			break
		}
	}
	return nil
}

// admit says whether size bytes may be taken. Under mu.
func (b *Buffer) admit(size int64) error {
	switch {
	case b.stopped:
		return ErrClosed
	case b.diskErr != nil && time.Now().Before(b.retryAt):
		return fmt.Errorf("%w: %w", ErrDisk, b.diskErr)
	case b.full:
		return fmt.Errorf("%w: %d bytes, and nothing may be evicted", ErrFull, b.o.MaxBytes)
	case b.waiting > 0 && b.waiting+size > b.o.MaxPending:
		return fmt.Errorf("%w: %d bytes", ErrBusy, b.waiting)
	}
	return nil
}

// collecting is the chunk that has room for m: the last one, or a new one.
// Under mu.
func (b *Buffer) collecting(m *stream.Message) *chunk {
	if n := len(b.pending); n > 0 {
		c := b.pending[n-1]
		if len(c.buf)+recordLen(recordRest(m, c.base)) <= b.frameMax-groupReserve {
			return c
		}
	}
	var c *chunk
	if n := len(b.spare); n > 0 {
		c, b.spare = b.spare[n-1], b.spare[:n-1]
	} else {
		c = &chunk{buf: make([]byte, 0, firstChunkBytes)}
	}
	c.reset()
	c.base, c.started = m.Time, time.Now()
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
