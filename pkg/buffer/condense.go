package buffer

import (
	"slices"
)

// keptBack is how many segments messages leave alone: the reserve, and where a
// lane refuses rather than evicts, what the map may still need. Under mu.
func (b *Buffer) keptBack() int {
	if !b.refuses {
		return reserveSegments
	}
	span := stateSpan(b.o.MaxState, b.o.SegmentBytes)
	for _, seg := range b.segs.live {
		if seg.kept.live > 0 && len(seg.held) == 0 {
			span--
		}
	}
	return reserveSegments + max(span, 0)
}

// packed: the segment is full, and entries fill more than two fifths of it: with
// large values that may be all it can hold, and writing it once more would make
// no room. stateSpan counts on no more than that. Under mu.
func (b *Buffer) packed(seg *segment) bool {
	return 5*seg.kept.bytes > 2*seg.size && seg.end > seg.size-int64(b.frameMax)
}

// slots counts the slots in segments that hold entries: a snapshot has a bit for
// each. Under mu.
func (b *Buffer) slots() (n int64) {
	for _, seg := range b.segs.live {
		if seg.kept.live > 0 {
			n += int64(seg.kept.slots)
		}
	}
	if head := b.segs.head; head != nil {
		n += int64(head.kept.slots)
	}
	return n
}

// crowded reports whether the bits of all slots take more than an eighth of a
// snapshot's segment. Under mu.
func (b *Buffer) crowded(limit int64) bool { return b.slots() > limit }

// Entries are kept together, so that recovery has few places to look and
// segments do not stay for one key: those of more than scattered segments, or
// twice as many as they would fill, are moved, fewest first.
const scattered = 4

// crowd is the segment whose entries are to be moved next; nil: none. Under mu.
func (b *Buffer) crowd() (seg *segment) {
	n := 0
	for _, x := range b.segs.live {
		if x.kept.live > 0 {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	if b.crowded(b.o.SegmentBytes / 2) {
		for _, x := range b.segs.live { // most dead slots first
			if x.kept.live > 0 && (seg == nil || int(x.kept.slots)-x.kept.live > int(seg.kept.slots)-seg.kept.live) {
				seg = x
			}
		}
		if int(seg.kept.slots) > seg.kept.live {
			return seg
		}
	}
	if int64(n) <= scattered+2*b.keys.bytes/b.o.SegmentBytes {
		return nil
	}
	for _, x := range b.segs.live {
		if x.kept.live > 0 && (seg == nil || x.kept.bytes < seg.kept.bytes) {
			seg = x
		}
	}
	return seg
}

// moveState writes the live entries of seg once more, to the head, and syncs
// them; then they count there. Under commitMu.
func (b *Buffer) moveState(seg *segment) error {
	k := seg.kept
	k.bits = slices.Clone(k.bits)
	if k.live == 0 {
		return nil
	}
	m := entryMover{b: b, from: seg}
	var failed error
	err := b.tryKept(seg, &b.mover, &k, func(slot uint32, key, value []byte) {
		if failed == nil && !m.found.has(slot) {
			failed = m.entry(slot, key, value)
		}
	})
	if failed == nil {
		failed = m.flush()
	}
	if failed == nil {
		failed = m.land()
	}
	if failed != nil {
		return (&mover{b: b}).failed(failed)
	}
	b.missedEntries(seg, &kept{}, err)
	return nil
}

// entryMover collects moved entries into frames.
type entryMover struct {
	b     *Buffer
	from  *segment
	found kept // slots of from

	state  []byte
	moves  []move
	landed []landing // written, not synced
}

type move struct {
	key  string
	slot uint32 // in from
	size int
}

type landing struct {
	moves     []move
	slot      uint32
	off, next int64
}

func (m *entryMover) entry(slot uint32, key, value []byte) error {
	n := len(key) + len(value) + entryOverhead + 1
	if len(m.state) > 0 && frameHeader+groupReserve+len(m.state)+n > m.b.frameMax {
		if err := m.flush(); err != nil {
			return err
		}
	}
	m.found.set(slot, 0)
	m.state = appendChange(m.state, changeMoved, string(key), value)
	m.moves = append(m.moves, move{string(key), slot, len(value)})
	return nil
}

// flush writes the collected frame.
func (m *entryMover) flush() error {
	if len(m.moves) == 0 {
		return nil
	}
	b := m.b
	p := m.build()
	if b.segs.head == nil || b.headAt+roundUp(int64(len(p))) > b.segs.head.size {
		if err := m.land(); err != nil {
			return err
		}
		if err := b.rotate(forUpkeep); err != nil { // uses scratch
			return err
		}
		p = m.build()
	}
	off := b.headAt
	var err error
	if b.scratch, err = b.writeFrame(p, frameInfo{kind: kindData}); err != nil {
		return err
	}
	slot := b.tail.wrote(nil)
	b.tail.slots += uint32(len(m.moves))
	m.landed = append(m.landed, landing{m.moves, slot, off, b.headAt})
	m.state, m.moves = m.state[:0], nil
	return nil
}

func (m *entryMover) build() []byte {
	b := m.b
	p := b.appendTrailer(append(b.scratch[:0], zeroPage[:frameHeader]...), nil)
	return b.tail.append(p, m.state, b.frameMax-len(p))
}

// land syncs what was written; from then on the entries stand in the head.
func (m *entryMover) land() error {
	b := m.b
	if len(m.landed) == 0 {
		return nil
	}
	if err := b.syncHead(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range m.landed {
		for i, x := range l.moves {
			if p, ok := b.keys.index[x.key]; ok && p.seg == m.from && p.slot == x.slot {
				b.keys.put(b.segs.head, l.slot+uint32(i), x.key, x.size)
				b.stats.StateMoved++
			}
		}
		b.segs.head.kept.note(l.off, l.next)
	}
	b.suspectDead = true
	m.landed = nil
	return nil
}
