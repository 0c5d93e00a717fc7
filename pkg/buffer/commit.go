package buffer

import (
	"errors"
	"fmt"
	"time"

	"github.com/packetboat/packetboat/pkg/stream"
)

// Why there is no segment to write to: the limit or a full disk, which evicting
// cures, or another error of the disk, which it does not.
var (
	errNoRoom    = errors.New("no free segment")
	errNoSegment = errors.New("no new segment")
)

// commitGroup is what one commit writes. The committer's own.
type commitGroup struct {
	chunks  []*chunk
	applied int       // chunks that are synced and part of the state
	written int       // chunks written to the head segment, not all synced
	touched int       // chunks of which anything may stand on a disk
	groups  [][]group // of the chunks from applied to written
	next    [4]uint64 // by lane: the number that the next message gets; 0: ask the state
	ops     operations
	opsDone int
	dead    []*segment // nothing in them is live, once ops are synced
	refused []waiter   // of Writes that were taken out of their chunk
}

// commit writes and syncs what waits: collected messages if messages is set,
// and the operations on state. It calls the waiters after the sync. The error
// is the disk's; the waiters have been told.
func (b *Buffer) commit(messages bool) error {
	b.commitMu.Lock()
	g, err := b.commitLocked(messages)
	b.commitMu.Unlock()
	for i := range g.refused {
		g.refused[i].done(stream.Position{}, fmt.Errorf("commit: %w: %w", ErrFull, errNoRoom))
	}
	for i, c := range g.chunks {
		if i < g.applied {
			c.acknowledge()
		} else {
			c.fail(fmt.Errorf("commit: %w", err))
		}
	}
	b.mu.Lock()
	b.recycle(g.chunks)
	b.mu.Unlock()
	return err
}

// commitLocked is commit under commitMu; the caller tells the waiters.
func (b *Buffer) commitLocked(messages bool) (*commitGroup, error) {
	g := b.take(messages)
	var err error
	if len(g.chunks) > 0 || !g.ops.empty() || len(g.dead) > 0 || b.segs.head == nil {
		err = b.write(g)
	}
	b.finish(g, err)
	if g.applied > 0 {
		token(b.ready)
	}
	return g, err
}

// take removes from the buffer what this commit writes. Under commitMu.
func (b *Buffer) take(messages bool) *commitGroup {
	b.mu.Lock()
	defer b.mu.Unlock()
	g := &commitGroup{}
	if messages {
		g.chunks, b.pending = b.pending, nil
		for _, c := range g.chunks {
			b.stats.BytesAppended += c.payload
		}
	}
	if g.ops = b.ops; !g.ops.empty() || b.suspectDead {
		b.ops, b.suspectDead = operations{}, false
		for _, seg := range b.segs.live {
			if !seg.tidy(b.state) {
				g.dead = append(g.dead, seg)
			}
		}
	}
	return g
}

// finish notes how the commit went, and frees what it made free. Under commitMu.
func (b *Buffer) finish(g *commitGroup, err error) {
	b.mu.Lock()
	for _, c := range g.chunks[g.applied:] {
		b.forget(c.changes)
	}
	var remove []*segment
	switch {
	case err == nil:
		b.diskErr = nil
		remove = b.release(g.dead)
	case errors.Is(err, ErrDisk):
		b.diskErr, b.retryAt = err, time.Now().Add(retryDisk)
		b.suspectDead = b.suspectDead || len(g.dead) > 0
		if b.segs.head != nil { // else the next snapshot has them
			b.restoreOps(&g.ops)
		}
	default:
		b.restoreOps(&g.ops)
		b.suspectDead = b.suspectDead || len(g.dead) > 0
	}
	b.mu.Unlock()
	for _, seg := range remove {
		b.discard(seg)
	}
}

// write brings the group to the disk. After a failure it goes on in a new
// segment, since nothing more is trusted to the old one; after several it gives
// up: then the numbers that the group was given may stand on the disk, so a new
// epoch begins. Under commitMu.
func (b *Buffer) write(g *commitGroup) error {
	var cause error // of the failures before
	cleared := -1   // chunks applied when room was made last
	for failures := 0; ; {
		err := b.writeFrames(g)
		if err == nil {
			return nil
		}
		g.written, g.groups, g.opsDone = g.applied, nil, 0
		switch {
		case errors.Is(err, errNoSegment):
			cause = err
		case !errors.Is(err, errNoRoom):
			b.abandonHead(err)
			cause = err
			if failures++; failures < 3 {
				continue
			}
		case cause == nil && cleared < g.applied && !b.clearing:
			cleared = g.applied
			b.mu.Lock() // what g.ops freed must not be written over before they are synced
			b.restoreOps(&g.ops)
			g.ops, g.dead = operations{}, nil
			b.suspectDead = true
			b.mu.Unlock()
			b.clear() // a segment that should have been there could not be made
			continue
		}
		if g.touched > g.applied {
			b.mu.Lock()
			b.beginEpoch()
			b.mu.Unlock()
			g.touched = g.applied
		}
		if cause == nil && b.strip(g) { // entries go where messages may not
			continue
		}
		if cause == nil {
			return fmt.Errorf("%w: %w", ErrFull, err)
		}
		return fmt.Errorf("%w: %w", ErrDisk, cause)
	}
}

// strip takes the Writes with messages out of the chunks that are not applied,
// if there are others in them. They count as refused: the journal is full.
func (b *Buffer) strip(g *commitGroup) (others bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	stripped := false
	for _, c := range g.chunks[g.applied:] {
		if c.level() != forMessages {
			continue
		}
		stripped = true
		waiters, changes := c.strip()
		b.forget(changes)
		g.refused = append(g.refused, waiters...)
		others = others || len(c.changes) > 0
	}
	return stripped && others
}

// level says how far into what is kept back the chunk may go.
func (c *chunk) level() int {
	if len(c.buf) > frameHeader {
		return forMessages
	}
	return forEntries
}

// writeFrames writes what of the group is not applied yet, and syncs it.
func (b *Buffer) writeFrames(g *commitGroup) error {
	if b.segs.head == nil {
		level := forUpkeep
		if len(g.chunks) > g.applied {
			level = g.chunks[g.applied].level()
		}
		if err := b.rotate(level); err != nil {
			return err
		}
	}
	for i := g.applied; i < len(g.chunks); i++ {
		c := g.chunks[i]
		b.number(g, c)
		if c.used() == frameHeader { // all of it was refused
			g.groups, g.written = append(g.groups, nil), i+1
			continue
		}
		level, groups := c.level(), c.groups()
		p, opsDone := b.build(g, c, groups)
		if b.headAt+roundUp(int64(len(p))) > b.segs.head.size {
			if err := b.syncGroup(g); err != nil {
				return err
			}
			if err := b.rotate(level); err != nil {
				return err
			}
			p, opsDone = b.build(g, c, groups) // what it says of the segment has changed
		}
		g.touched, g.opsDone = max(g.touched, i+1), opsDone
		off := b.headAt
		var err error
		c.buf, err = b.writeFrame(p, frameInfo{kind: kindData, records: c.records - frameHeader, base: c.base})
		if err != nil {
			return err
		}
		c.off, c.next, c.slot = off, b.headAt, b.tail.wrote(c.changes)
		g.groups = append(g.groups, groups)
		g.written = i + 1
	}
	for g.opsDone < len(g.ops.ends) {
		if err := b.writeOps(g); err != nil {
			return err
		}
	}
	return b.syncGroup(g)
}

// build gives the frame of c, without header and padding; the last one of the
// group takes operations along, up to the one returned.
func (b *Buffer) build(g *commitGroup, c *chunk, groups []group) ([]byte, int) {
	p := b.appendTrailer(c.buf[:c.records], groups)
	p = b.tail.append(p, c.state, b.frameMax-len(p))
	if c != g.chunks[len(g.chunks)-1] {
		return p, g.opsDone
	}
	return g.ops.take(p, g.opsDone, b.frameMax-len(p))
}

// appendTrailer ends the record area with groups and the current heads: if one
// of the frames before is damaged, they tell what was in it.
func (b *Buffer) appendTrailer(p []byte, groups []group) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return appendHeads(appendGroups(p, groups), b.state.current())
}

// writeOps writes a frame that holds operations alone.
func (b *Buffer) writeOps(g *commitGroup) error {
	p := append(b.scratch[:0], zeroPage[:frameHeader]...)
	p = b.appendTrailer(p, nil)
	p = b.tail.append(p, nil, (b.frameMax-len(p))/2)
	var next int
	p, next = g.ops.take(p, g.opsDone, b.frameMax-len(p))
	b.scratch = p
	if b.headAt+roundUp(int64(len(p))) > b.segs.head.size {
		if err := b.syncGroup(g); err != nil {
			return err
		}
		if err := b.rotate(forUpkeep); err != nil { // uses scratch
			return err
		}
		return b.writeOps(g)
	}
	g.opsDone = next
	var err error
	if b.scratch, err = b.writeFrame(p, frameInfo{kind: kindData}); err == nil {
		b.tail.wrote(nil)
	}
	return err
}

// writeFrame seals p and writes it as the head segment's next frame.
func (b *Buffer) writeFrame(p []byte, f frameInfo) ([]byte, error) {
	seg := b.segs.head
	f.index, f.synced = b.headIndex, b.headSynced+1
	p = sealFrame(p, seg, f)
	if _, err := seg.file.WriteAt(p, b.headAt); err != nil {
		return p, fmt.Errorf("write segment %08x at %d: %w", seg.id, b.headAt, err)
	}
	b.headAt += int64(len(p))
	b.headIndex++
	b.mu.Lock()
	b.stats.BytesWritten += uint64(len(p))
	b.mu.Unlock()
	return p, nil
}

// syncHead makes what was written to the head segment durable.
func (b *Buffer) syncHead() error {
	seg := b.segs.head
	if err := seg.file.Sync(); err != nil {
		return fmt.Errorf("sync segment %08x: %w", seg.id, err)
	}
	b.mu.Lock()
	seg.end = b.headAt
	b.stats.Syncs++
	b.mu.Unlock()
	b.headSynced, b.tail.synced = b.headIndex, b.tail.changes
	return nil
}

// syncGroup syncs the head segment and makes the group's written chunks part of
// the state.
func (b *Buffer) syncGroup(g *commitGroup) error {
	if err := b.syncHead(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stats.Commits++
	for i, groups := range g.groups {
		c := g.chunks[g.applied+i]
		for j := range groups {
			b.applyFresh(b.segs.head, &groups[j], c)
		}
		b.applyChanges(b.segs.head, c)
	}
	g.applied, g.groups = g.written, nil
	return nil
}

// applyFresh makes new records part of the state: only now they may be read.
// Under mu.
func (b *Buffer) applyFresh(seg *segment, gr *group, c *chunk) {
	e := b.state.find(gr.epoch)
	if e == nil {
		return
	}
	b.state.extend(e, gr.lane, gr.span(), int64(gr.bytes))
	b.state.acceptedBytes += gr.bytes
	e.lanes[gr.lane].noteAppend(gr.span().Last, c.started)
	b.segs.place(seg, gr, false)
}

// number gives the chunk's messages their numbers. They stay the same if the
// chunk must be written again. Under commitMu.
func (b *Buffer) number(g *commitGroup, c *chunk) {
	if c.numbered {
		return
	}
	b.mu.Lock()
	e := b.state.current()
	b.mu.Unlock()
	c.numbered, c.records, c.epoch = true, len(c.buf), e.id
	for _, lane := range stream.Lanes {
		if g.next[lane] == 0 {
			g.next[lane] = e.lanes[lane].head + 1 // only commits move it
		}
		c.lanes[lane].first = g.next[lane]
		g.next[lane] += c.lanes[lane].count
	}
}

func (c *chunk) groups() (out []group) {
	for _, lane := range stream.Lanes {
		if l := &c.lanes[lane]; l.count > 0 {
			out = append(out, group{epoch: c.epoch, lane: lane, first: l.first, count: l.count, from: l.from, to: l.to, bytes: l.bytes, expires: l.expires, due: l.due})
		}
	}
	return out
}

// beginEpoch closes the current epoch and begins a new one. Under commitMu and mu.
func (b *Buffer) beginEpoch() {
	id := stream.NewEpoch()
	b.state.begin(b.state.ordinal+1, id)
	b.ops.begin(b.state.ordinal, id)
}

// restoreOps puts operations that were not journalled back in front of those
// that came since. Under mu.
func (b *Buffer) restoreOps(ops *operations) {
	for i, end := range b.ops.ends {
		b.ops.ends[i] = end + len(ops.buf)
	}
	b.ops.buf = append(ops.buf, b.ops.buf...)
	b.ops.ends = append(ops.ends, b.ops.ends...)
}
