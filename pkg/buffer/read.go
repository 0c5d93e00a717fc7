package buffer

import (
	"strings"

	"github.com/packetboat/packetboat/pkg/stream"
)

const (
	// maxTopics and maxTopicBytes bound the memory of topics that were read.
	maxTopics     = 4096
	maxTopicBytes = 1 << 20
	// readAttempts is how often the disk may fail to read a segment before
	// what it held is lost.
	readAttempts = 3
)

// cursor remembers the frame that a lane was last read from. Guarded by readMu.
type cursor struct {
	view frameView
	iter recordIter
	ok   bool // view holds a valid frame
}

// valid reports whether the cursor's frame still stands in seg.
func (c *cursor) valid(seg *segment) bool {
	return c.ok && c.view.seg == seg && c.view.generation == seg.generation
}

// holds reports whether the frame has record n of the stream.
func (c *cursor) holds(id stream.Epoch, lane stream.Lane, n uint64) bool {
	for i := range c.view.groups {
		g := &c.view.groups[i]
		if g.lane == lane && g.epoch == id && g.first <= n && n < g.first+g.count {
			return true
		}
	}
	return false
}

// seek moves the cursor to the frame of seg that holds n. It looks behind the
// frame it has, then from the segment's start. found is false when no valid
// frame up to end holds it.
func (c *cursor) seek(seg *segment, end int64, id stream.Epoch, lane stream.Lane, n uint64) (found bool, err error) {
	start := int64(pageSize)
	if c.valid(seg) {
		if c.holds(id, lane, n) {
			return true, nil
		}
		start = c.view.next
	}
	found, err = c.scan(seg, start, end, id, lane, n)
	if !found && err == nil && start > pageSize {
		found, err = c.scan(seg, pageSize, end, id, lane, n)
	}
	return found, err
}

func (c *cursor) scan(seg *segment, off, end int64, id stream.Epoch, lane stream.Lane, n uint64) (bool, error) {
	c.iter = recordIter{}
	for off < end {
		var err error
		if c.ok, err = c.view.find(seg, off, end); !c.ok || err != nil {
			return false, err
		}
		if c.holds(id, lane, n) {
			return true, nil
		}
		off = c.view.next
	}
	return false, nil
}

// readRun reads records first to last of a stream, as far as limit allows, in
// one segment. It returns fewer where the run goes on in another segment or
// frame, none where the record cannot be found, or, with more, where the first
// is too large. With expire it ends before the first message whose time has
// passed, and gone lists those of the frame. Under readMu.
func (b *Buffer) readRun(id stream.Epoch, lane stream.Lane, r stream.Range, limit Limit, more, expire bool) (recs []stream.Record, size int, gone []stream.Loss, err error) {
	c := &b.cursors[lane]
	b.mu.Lock()
	seg := b.segs.holds(id, lane, r.First)
	end := int64(0)
	if seg != nil {
		end = seg.end
	}
	b.mu.Unlock()
	if seg == nil {
		return nil, 0, nil, nil
	}
	if found, err := c.seek(seg, end, id, lane, r.First); !found || err != nil {
		c.ok = false
		return nil, 0, nil, err
	}
	spans, size, ok := c.collect(id, lane, r, limit, more)
	if !ok {
		c.iter = recordIter{} // the run may stand before the place reached
		if spans, size, _ = c.collect(id, lane, r, limit, more); len(spans) == 0 {
			return nil, 0, nil, nil
		}
	}
	if expire {
		spans, size, gone = b.sift(spans, size, c.view.base, r.First)
	}
	payload := 0
	for i := range spans {
		payload += len(spans[i].rest)
	}
	arena := make([]byte, 0, payload)
	recs = make([]stream.Record, len(spans))
	for i := range spans {
		recs[i].Seq = r.First + uint64(i)
		if arena, ok = spans[i].decode(&recs[i].Message, c.view.base, arena, b.intern); !ok {
			return recs[:i], size, nil, nil
		}
	}
	return recs, size, gone, nil
}

// collect gathers the run's records that stand in the cursor's frame from where
// its iterator is.
func (c *cursor) collect(id stream.Epoch, lane stream.Lane, r stream.Range, limit Limit, more bool) (spans []rawRecord, size int, ok bool) {
	want := r.First
	for want <= r.Last && len(spans) < limit.Messages {
		before := c.iter
		g, seq, raw, valid := c.iter.next(&c.view)
		if !valid {
			break
		}
		if g.lane != lane || g.epoch != id || seq < want || seq > want && len(spans) == 0 {
			continue // moved records need not stand in order
		}
		if seq > want || (more || len(spans) > 0) && size+raw.size > limit.Bytes {
			c.iter = before
			break
		}
		spans = append(spans, raw)
		size += raw.size
		want++
	}
	return spans, size, len(spans) > 0
}

// intern gives topics that repeat one string. Under readMu.
func (b *Buffer) intern(p []byte) string {
	if s, ok := b.topics[string(p)]; ok {
		return s
	}
	if len(b.topics) >= maxTopics || b.topicBytes > maxTopicBytes {
		clear(b.topics)
		b.topicBytes = 0
	}
	s := strings.Clone(string(p))
	b.topics[s] = s
	b.topicBytes += len(s)
	return s
}

// unreadable looks through a segment of which something cannot be read, and
// gives up what no valid frame holds. err is the disk's; it must come several
// times before it counts. Returns err while it does not.
func (b *Buffer) unreadable(seg *segment, err error) error {
	b.mu.Lock()
	generation, end := seg.generation, seg.end
	if err != nil {
		if seg.failures++; seg.failures < readAttempts {
			b.mu.Unlock()
			return err
		}
	}
	b.mu.Unlock()
	found := segment{}
	var v frameView
	for off := int64(pageSize); off < end; {
		ok, err := v.find(seg, off, end)
		if err != nil { // what lies behind may be read, page by page
			off = max(off, v.off) + pageSize
			continue
		}
		if !ok {
			break
		}
		for i := range v.groups {
			found.store(&v.groups[i])
		}
		off = v.next
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if seg.generation != generation {
		return nil // recycled meanwhile: nothing in it was live
	}
	seg.failures = 0
	lost := uint64(0)
	for _, h := range seg.held {
		l := b.state.stream(h.epoch, h.lane)
		if l == nil {
			continue
		}
		gone := h.live(b.state)
		gone.RemoveSet(&l.inflight)
		if there := found.holding(h.epoch, h.lane); there != nil {
			gone.RemoveSet(&there.ranges)
		}
		for _, r := range gone.Ranges() {
			loss := stream.Loss{Range: r, Reason: stream.Unreadable, From: h.from, To: h.to}
			b.state.lose(h.epoch, h.lane, loss)
			b.ops.lose(h.epoch, h.lane, loss)
			lost += r.Count()
		}
	}
	if lost > 0 {
		token(b.lazy)
		b.log.Error("journal segment is damaged", "segment", segmentName(seg.id), "messages_lost", lost, "error", err)
	}
	return nil
}
