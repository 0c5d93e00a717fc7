package buffer

import (
	"encoding/binary"
	"errors"
	"math"

	"github.com/packetboat/packetboat/pkg/stream"
)

// Moving a segment's live records to the head frees the segment, at the price
// of writing them again. It is done only while space is short: for segments that
// are live below sparseShare, which moved records never leave behind, so it ends;
// and after an eviction up to victimShare.
const (
	sparseShare = 1.0 / 2
	victimShare = 7.0 / 8
	// partShare is how far a segment is emptied by eviction whose numbers stand
	// among those of other segments.
	partShare = 5.0 / 8
	// maxReclaims bounds how many segments one call of makeRoom empties,
	// politeReclaims how many while messages still have room.
	maxReclaims    = 32
	politeReclaims = 2
)

// makeRoom frees segments while few are available: dead ones, then by moving
// the live records of sparse ones together, then by evicting from the lowest
// lane. It decides whether Append refuses, and reports whether there is room.
func (b *Buffer) makeRoom() bool {
	b.commitMu.Lock()
	defer b.commitMu.Unlock()
	return b.clear()
}

// clear is makeRoom under commitMu. It does not come into itself.
func (b *Buffer) clear() bool {
	b.clearing = true
	defer func() { b.clearing = false }()
	for i := range maxReclaims {
		b.mu.Lock()
		kept := b.keptBack()
		short := b.available() < kept+lowSegments-reserveSegments
		tight := b.available() <= kept
		busy := !b.ops.empty() || b.suspectDead
		failing := b.diskErr != nil
		crowd, hard := b.crowd(), b.crowded(b.o.SegmentBytes)
		var stale *segment
		if short || crowd != nil {
			stale = b.overdue(b.segs.live)
		}
		b.mu.Unlock()
		if !short && crowd == nil {
			return b.setFull(false)
		}
		if i > politeReclaims && !tight && !hard { // let a commit pass, then go on
			token(b.wake)
			return b.setFull(false)
		}
		if failing { // nothing is evicted because a disk does not answer
			return b.setFull(tight)
		}
		if busy && i == 0 {
			if _, err := b.commitLocked(false); err != nil {
				return b.setFull(tight)
			}
			continue
		}
		if stale != nil {
			b.expireIn(stale)
		} else if crowd != nil {
			if b.moveState(crowd) != nil {
				return b.setFull(tight)
			}
		} else if victim := b.chooseVictim(); victim == nil || b.moveLive(victim) != nil {
			return b.setFull(tight)
		}
		if _, err := b.commitLocked(false); err != nil {
			return b.setFull(tight)
		}
	}
	b.mu.Lock()
	tight := b.available() <= b.keptBack()
	b.mu.Unlock()
	return b.setFull(tight)
}

func (b *Buffer) setFull(full bool) bool {
	b.mu.Lock()
	changed := b.full != full
	b.full = full
	b.mu.Unlock()
	if changed && full {
		b.log.Warn("journal is full: messages are refused", "max_bytes", b.o.MaxBytes)
	} else if changed {
		b.log.Info("journal has room again")
	}
	return !full
}

// chooseVictim picks a segment to empty, after evicting from it if it must.
func (b *Buffer) chooseVictim() *segment {
	b.mu.Lock()
	defer b.mu.Unlock()
	if seg := b.sparsest(); seg != nil {
		b.suspectDead = true
		return seg
	}
	for i := len(stream.Lanes) - 1; i >= 0; i-- {
		if seg := b.victimOf(stream.Lanes[i : i+1]); seg != nil {
			return seg
		}
	}
	// No lane alone is worth the writing: the oldest segment gives up as much
	// as it must, lowest lane first.
	for i := len(stream.Lanes) - 1; i >= 0; i-- {
		if seg := b.victimOf(stream.Lanes[i:]); seg != nil {
			return seg
		}
	}
	return nil
}

// sparsest gives the segment with the fewest live bytes, if it is sparse. Under mu.
func (b *Buffer) sparsest() (sparse *segment) {
	least := uint64(0)
	for _, seg := range b.segs.live {
		if n := seg.liveBytes(b.state); float64(n) <= sparseShare*float64(seg.size) && (sparse == nil || n < least) && !b.packed(seg) {
			sparse, least = seg, n
		}
	}
	return sparse
}

// victimOf finds the oldest segment that is worth emptying when these lanes are
// evicted from it, and evicts them. Under mu.
func (b *Buffer) victimOf(lanes []stream.Lane) *segment {
	for _, seg := range b.segs.live {
		gain := uint64(0)
		for _, h := range seg.held {
			if free := b.evictable(h, lanes); !free.IsEmpty() {
				gain += h.share(h.bytes, free.Count(), h.records)
			}
		}
		if gain == 0 || float64(seg.liveBytes(b.state)-min(gain, seg.liveBytes(b.state))) > victimShare*float64(seg.size) {
			continue
		}
		b.evictFrom(seg, lanes)
		b.suspectDead = true
		return seg
	}
	return nil
}

// evictFrom evicts what these lanes have in seg, and with it all that is older
// in their streams. Moving has mixed old numbers with new ones: where most of
// what would go stands in other segments, only the oldest go, until seg is
// worth emptying. Under mu.
func (b *Buffer) evictFrom(seg *segment, lanes []stream.Lane) {
	here, all := uint64(0), uint64(0)
	for _, h := range seg.held {
		if free := b.evictable(h, lanes); !free.IsEmpty() {
			here += free.Count()
			all += b.state.stream(h.epoch, h.lane).openUpTo(free.Max())
		}
	}
	excess := float64(seg.liveBytes(b.state)) - partShare*float64(seg.size)
	for _, e := range b.state.epochs { // oldest first
		for i := len(lanes) - 1; i >= 0; i-- {
			h := seg.holding(e.id, lanes[i])
			if h == nil {
				continue
			}
			free := b.evictable(h, lanes)
			upTo := free.Max()
			if all > 2*here {
				each := float64(h.bytes) / float64(max(h.records, 1))
				n := min(uint64(math.Ceil(max(excess, 0)/max(each, 1))), free.Count())
				excess -= each * float64(n)
				upTo = nth(&free, n)
			}
			if upTo > 0 {
				b.evict(e.id, lanes[i], upTo, lanes)
			}
		}
	}
}

// openUpTo counts the numbers up to n that are queued and not in flight.
func (l *laneState) openUpTo(n uint64) (count uint64) {
	for r := range l.done.Missing(stream.Range{First: 1, Last: n}) {
		for m := range l.inflight.Missing(r) {
			count += m.Count()
		}
	}
	return count
}

// nth is the n-th number of s; 0: there is none.
func nth(s *stream.RangeSet, n uint64) uint64 {
	for _, r := range s.Ranges() {
		if n <= r.Count() && n > 0 {
			return r.First + n - 1
		}
		n -= min(n, r.Count())
	}
	return 0
}

// evictable lists what of h may be evicted with these lanes: what is queued and
// not in flight. Under mu.
func (b *Buffer) evictable(h *holding, lanes []stream.Lane) (out stream.RangeSet) {
	for _, lane := range lanes {
		if lane == h.lane && b.o.Lanes[lane].Overflow == EvictOldest {
			if l := b.state.stream(h.epoch, lane); l != nil {
				out = h.live(b.state)
				out.RemoveSet(&l.inflight)
			}
		}
	}
	return out
}

// evict gives up what is evictable of a stream up to a number, the oldest
// first, wherever it stands. Under mu.
func (b *Buffer) evict(id stream.Epoch, lane stream.Lane, upTo uint64, lanes []stream.Lane) {
	for _, seg := range b.segs.live {
		h := seg.holding(id, lane)
		if h == nil {
			continue
		}
		free := b.evictable(h, lanes)
		for r := range free.Within(stream.Range{First: 1, Last: upTo}) {
			loss := stream.Loss{Range: r, Reason: stream.Evicted, From: h.from, To: h.to}
			b.state.lose(id, lane, loss)
			b.ops.lose(id, lane, loss)
		}
	}
	token(b.ready)
}

// moveLive writes the live records of seg once more, to the head, and syncs
// them; then they count there. Under commitMu.
func (b *Buffer) moveLive(seg *segment) error {
	b.mu.Lock()
	alive := seg.tidy(b.state)
	records := len(seg.held) > 0
	b.mu.Unlock()
	if !alive {
		return nil
	}
	if err := b.moveState(seg); err != nil || !records {
		return err
	}
	m := mover{b: b, buf: append([]byte(nil), zeroPage[:frameHeader]...)}
	v := &b.mover
	given := false
	for off := int64(pageSize); off < seg.end; {
		ok, err := v.find(seg, off, seg.end)
		if err != nil {
			if !given && b.unreadable(seg, err) != nil {
				return err
			}
			given = true // up; what lies behind is moved
			off = max(off, v.off) + pageSize
			continue
		}
		if !ok {
			break
		}
		if err := m.frame(v); err != nil {
			return m.failed(err)
		}
		off = v.next
	}
	if err := m.flush(); err != nil {
		return m.failed(err)
	}
	if err := m.land(); err != nil {
		return m.failed(err)
	}
	b.mu.Lock()
	b.suspectDead = true
	seg.tidy(b.state)
	left := len(seg.held) > 0
	b.mu.Unlock()
	if left { // what the segment promised was not all there
		return b.unreadable(seg, nil)
	}
	return nil
}

// mover collects moved records into frames.
type mover struct {
	b      *Buffer
	buf    []byte
	base   int64
	groups []group
	last   [4]int  // by lane: index of its last group in groups, plus 1
	landed []group // written, not synced
}

func (m *mover) failed(err error) error {
	if !errors.Is(err, errNoRoom) && !errors.Is(err, errNoSegment) {
		m.b.abandonHead(err)
	}
	return err
}

// frame takes over what is live in v.
func (m *mover) frame(v *frameView) error {
	var it recordIter
	for {
		g, seq, raw, ok := it.next(v)
		if !ok {
			return nil
		}
		if !m.b.isLive(v.seg, g, seq) {
			continue
		}
		if len(m.buf)+raw.size+16+(len(m.groups)+2)*96 > m.b.frameMax {
			if err := m.flush(); err != nil {
				return err
			}
		}
		if err := m.record(g, seq, &raw, v.base); err != nil {
			return err
		}
	}
}

func (m *mover) record(g *group, seq uint64, raw *rawRecord, base int64) error {
	r := reader{p: raw.rest}
	at := base + r.varint()
	if len(m.groups) == 0 {
		m.base = at
	}
	expires := g.expires && raw.expires()
	n := len(m.buf)
	m.buf = append(m.buf, raw.flags)
	m.buf = binary.AppendUvarint(m.buf, uint64(varintLen(at-m.base)+len(r.p)))
	m.buf = binary.AppendVarint(m.buf, at-m.base)
	m.buf = append(m.buf, r.p...)
	size := uint64(len(m.buf) - n)
	if i := m.last[g.lane]; i > 0 {
		if last := &m.groups[i-1]; last.epoch == g.epoch && last.first+last.count == seq {
			last.count++
			last.bytes += size
			last.from, last.to = min(last.from, at), max(last.to, at)
			last.expires = last.expires || expires // due stays 0: not known
			return nil
		}
	}
	m.groups = append(m.groups, group{epoch: g.epoch, lane: g.lane, moved: true, first: seq, count: 1, from: at, to: at, bytes: size, expires: expires})
	m.last[g.lane] = len(m.groups)
	return nil
}

// flush writes the collected frame.
func (m *mover) flush() error {
	if len(m.groups) == 0 {
		return nil
	}
	b := m.b
	records := len(m.buf)
	m.buf = b.appendTrailer(m.buf, m.groups)
	if b.segs.head == nil || b.headAt+roundUp(int64(len(m.buf))) > b.segs.head.size {
		if err := m.land(); err != nil {
			return err
		}
		if err := b.rotate(forUpkeep); err != nil {
			return err
		}
	}
	var err error
	m.buf, err = b.writeFrame(m.buf, frameInfo{kind: kindData, records: records - frameHeader, base: m.base})
	if err != nil {
		return err
	}
	m.landed = append(m.landed, m.groups...)
	m.buf, m.groups, m.last = m.buf[:frameHeader], nil, [4]int{}
	return nil
}

// land syncs what was written and moves the numbers to the head segment.
func (m *mover) land() error {
	b := m.b
	if len(m.landed) == 0 {
		return nil
	}
	if err := b.syncHead(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range m.landed {
		b.segs.place(b.segs.head, &m.landed[i], true)
		b.stats.Moved += m.landed[i].count
	}
	m.landed = nil
	return nil
}

// isLive reports whether record seq of g is queued and counts in seg.
func (b *Buffer) isLive(seg *segment, g *group, seq uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.state.stream(g.epoch, g.lane)
	if l == nil || seq > l.head || l.done.Contains(seq) {
		return false
	}
	h := seg.holding(g.epoch, g.lane)
	return h != nil && h.ranges.Contains(seq)
}
