package buffer

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/packetboat/packetboat/pkg/stream"
)

// What a segment is wanted for: messages leave the reserve and the map's room
// alone, entries the last segment, upkeep (operations, moved records and
// entries, which make room) nothing.
const (
	forUpkeep = iota
	forEntries
	forMessages
)

// available is how many segments may be taken into use. Under mu.
func (b *Buffer) available() int {
	n := len(b.segs.free)
	if left := b.o.MaxBytes - b.segs.bytes; left > 0 && time.Now().After(b.noSpares) {
		n += int(left / b.o.SegmentBytes)
	}
	return n
}

// rotate takes a segment into use as the head: header, snapshot, and from then
// on frames. It leaves alone what is kept back from the level. What was written to the
// old head is synced already, or given up. Under commitMu.
func (b *Buffer) rotate(level int) error {
	seg, err := b.takeFree(level)
	if err != nil {
		return err
	}
	b.generation++
	salt := [8]byte{}
	_, _ = rand.Read(salt[:]) // crypto/rand.Read never fails
	b.mu.Lock()
	if old := b.segs.head; old != nil {
		b.segs.head = nil
		b.segs.addLive(old)
		b.suspectDead = true
	}
	seg.generation, seg.salt = b.generation, binary.LittleEndian.Uint64(salt[:])
	seg.end, seg.held, seg.kept, seg.due = 0, nil, kept{}, neverDue
	p, n := b.encodeHead(seg)
	b.stats.BytesWritten += uint64(len(p))
	b.mu.Unlock()
	b.scratch = p
	if _, err := seg.file.WriteAt(p, 0); err != nil {
		b.drop(seg)
		return fmt.Errorf("write segment %08x: %w", seg.id, err)
	}
	b.headAt, b.headIndex, b.headSynced = int64(pageSize)+n, 1, 0
	b.tail = mapTail{echo: b.tail.echo[:0]}
	b.mu.Lock()
	b.segs.head = seg
	wanted := len(b.segs.free) < spares
	b.mu.Unlock()
	if wanted {
		token(b.room)
	}
	return nil
}

// encodeHead gives the header page and the snapshot frame of seg, and the
// frame's padded length. Under commitMu and mu.
func (b *Buffer) encodeHead(seg *segment) ([]byte, int64) {
	h := segmentHeader{journal: b.journal, size: seg.size, generation: seg.generation, salt: seg.salt}
	for {
		p := append(b.scratch[:0], zeroPage[:]...)
		h.encode(p)
		body := appendSnapshot(append(p, zeroPage[:frameHeader]...), b.state, b.segs.live)
		if n := len(body) - pageSize; int64(n) <= seg.size/2 || len(b.state.ledger) == 0 {
			frame := sealFrame(body[pageSize:], seg, frameInfo{kind: kindSnapshot})
			// sealFrame may have moved the frame to pad it.
			p = append(body[:pageSize], frame...)
			return p, int64(len(frame))
		}
		b.state.ledger = b.state.ledger[(len(b.state.ledger)+1)/2:] // the totals stay
		b.scratch = body
	}
}

// takeFree gives a segment that may be overwritten, or makes one. It leaves
// alone what is kept back from the level, and of that the reserve is one of files
// which exist: a disk may be full long before MaxBytes is reached.
func (b *Buffer) takeFree(level int) (*segment, error) {
	b.mu.Lock()
	keep, files := 0, 0
	switch level {
	case forMessages:
		keep, files = b.keptBack(), reserveSegments
	case forEntries:
		keep, files = 1, 1
	}
	if b.available() <= keep && (level != forUpkeep || b.segs.head != nil) || level != forUpkeep && b.crowded(b.o.SegmentBytes) {
		b.mu.Unlock()
		return nil, errNoRoom
	}
	if len(b.segs.free) > files {
		seg := b.segs.free[0]
		b.segs.free = append([]*segment(nil), b.segs.free[1:]...)
		b.mu.Unlock()
		return seg, nil
	}
	b.mu.Unlock()
	// Without a head nothing can be said any more, so as a last resort the
	// limit is passed by a segment.
	seg, err := b.makeSegment(nil)
	switch { // either way nothing is wrong with the head
	case isFull(err):
		return nil, fmt.Errorf("%w: %w", errNoRoom, err)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errNoSegment, err)
	}
	return seg, nil
}

// isFull reports whether err says that the disk has no space left.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// fillReserve makes the segments that are kept back. A disk without the room
// for them is a state, not an error.
func (b *Buffer) fillReserve() {
	for len(b.segs.free) < reserveSegments && b.segs.bytes+b.o.SegmentBytes <= b.o.MaxBytes {
		seg, err := b.makeSegment(nil)
		if err != nil {
			b.log.Warn("no room for the journal's reserve", "error", err)
			return
		}
		b.mu.Lock()
		b.segs.addFree(seg)
		b.mu.Unlock()
	}
}

// makeSegment makes a file of zeros. With init, the first bytes are its.
func (b *Buffer) makeSegment(init func(*segment) []byte) (*segment, error) {
	b.mu.Lock()
	id := b.segs.next
	b.segs.next++
	size := b.o.SegmentBytes
	b.segs.bytes += size
	b.mu.Unlock()
	seg, err := b.fillSegment(id, size, init)
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		b.segs.bytes -= size
		if isFull(err) {
			b.noSpares = time.Now().Add(retryDisk)
		}
		return nil, fmt.Errorf("make segment %08x: %w", id, err)
	}
	b.stats.BytesPrepared += uint64(size)
	return seg, nil
}

func (b *Buffer) fillSegment(id uint32, size int64, init func(*segment) []byte) (*segment, error) {
	name := segmentName(id)
	f, err := b.fs.Create(name + tempSuffix)
	if err != nil {
		return nil, err
	}
	seg := &segment{id: id, file: f, size: size}
	zeros := make([]byte, min(size, 256<<10))
	for off := int64(0); off < size && err == nil; off += int64(len(zeros)) {
		_, err = f.WriteAt(zeros[:min(int64(len(zeros)), size-off)], off)
	}
	if err == nil && init != nil {
		_, err = f.WriteAt(init(seg), 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = b.fs.Publish(name+tempSuffix, name)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), b.fs.Remove(name+tempSuffix))
	}
	return seg, nil
}

// abandonHead gives the head segment up after err: what was synced in it
// counts, nothing more is written there. Under commitMu.
func (b *Buffer) abandonHead(err error) {
	b.mu.Lock()
	b.stats.DiskErrors++
	seg := b.segs.head
	b.segs.head = nil
	if seg != nil {
		seg.suspect = true
		if seg.end > 0 {
			b.segs.addLive(seg) // it may hold the newest snapshot
			b.suspectDead = true
		}
	}
	b.mu.Unlock()
	if seg != nil && seg.end == 0 {
		b.drop(seg)
	}
	b.log.Error("journal segment given up", "error", err)
}

// release takes dead segments off the live ones: what can be written again
// becomes free, the rest is returned, to be discarded. Under mu.
func (b *Buffer) release(dead []*segment) (remove []*segment) {
	for _, seg := range dead {
		if seg.tidy(b.state) {
			continue
		}
		for i, x := range b.segs.live {
			if x == seg {
				b.segs.live = append(b.segs.live[:i:i], b.segs.live[i+1:]...)
				break
			}
		}
		if seg.suspect || seg.size != b.o.SegmentBytes || b.segs.bytes > b.o.MaxBytes {
			b.segs.bytes -= seg.size
			remove = append(remove, seg)
		} else {
			b.segs.addFree(seg)
		}
	}
	return remove
}

// drop takes a segment that was never synced since it was free out of use.
func (b *Buffer) drop(seg *segment) {
	b.mu.Lock()
	b.segs.bytes -= seg.size
	b.mu.Unlock()
	b.discard(seg)
}

// discard removes a file that is in no list any more.
func (b *Buffer) discard(seg *segment) {
	if err := errors.Join(seg.file.Close(), b.fs.Remove(segmentName(seg.id))); err != nil {
		b.log.Warn("journal segment not removed", "segment", segmentName(seg.id), "error", err)
	}
}

// firstHead makes the first segment of a journal: it gets its name only when
// its snapshot is durable.
func (b *Buffer) firstHead() error {
	b.journal = stream.NewEpoch()
	b.generation = 1
	n := int64(0)
	seg, err := b.makeSegment(func(seg *segment) []byte {
		salt := stream.NewEpoch()
		seg.generation, seg.salt = 1, binary.LittleEndian.Uint64(salt[:8])
		b.scratch, n = b.encodeHead(seg)
		return b.scratch
	})
	if err != nil {
		return err
	}
	b.headAt, b.headIndex, b.headSynced = pageSize+n, 1, 1
	seg.end, seg.due = b.headAt, neverDue
	b.segs.head = seg
	return nil
}
