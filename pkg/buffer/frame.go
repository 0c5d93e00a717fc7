package buffer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/packetboat/packetboat/pkg/stream"
)

// frameView is a frame as read from a segment. Its slices point into data and
// are valid until the view is read into again.
type frameView struct {
	frameInfo
	seg        *segment
	generation uint64 // of seg when it was read
	off, next  int64

	data    []byte
	records []byte
	groups  []group
	heads   heads
	rest    []byte // operations, or the body of a snapshot
}

// read reads the frame of seg at off. ok is false where no valid frame starts;
// err is one of the disk.
func (v *frameView) read(seg *segment, off int64) (ok bool, err error) {
	v.seg, v.generation, v.off = seg, seg.generation, off
	if off < pageSize || off+pageSize > seg.size {
		return false, nil
	}
	v.data = slices.Grow(v.data[:0], pageSize)[:pageSize]
	if err := readFull(seg, v.data, off); err != nil {
		return false, err
	}
	n := frameLength(v.data, seg, off)
	if n == 0 {
		return false, nil
	}
	if n > pageSize {
		v.data = slices.Grow(v.data, n-pageSize)[:n]
		if err := readFull(seg, v.data[pageSize:], off+pageSize); err != nil {
			return false, err
		}
	}
	v.data = v.data[:n]
	if v.frameInfo, ok = parseFrame(v.data); !ok {
		return false, nil
	}
	v.next = off + roundUp(int64(n))
	body := v.data[frameHeader:]
	v.records, v.groups, v.rest = nil, v.groups[:0], body
	if v.kind == kindSnapshot {
		return v.frameInfo.records == 0 && v.index == 0, nil
	}
	v.records = body[:v.frameInfo.records]
	r := reader{p: body[v.frameInfo.records:]}
	v.groups = r.groups(v.groups)
	v.heads = r.heads()
	v.rest = r.p
	return !r.bad && v.kind == kindData, nil
}

func readFull(seg *segment, p []byte, off int64) error {
	if n, err := seg.file.ReadAt(p, off); n < len(p) {
		if errors.Is(err, io.EOF) {
			clear(p[n:]) // a file cut short: what is missing is damage, not an error
			return nil
		}
		return fmt.Errorf("read segment %08x at %d: %w", seg.id, off, err)
	}
	return nil
}

// find reads the first valid frame from off to end, page by page.
func (v *frameView) find(seg *segment, off, end int64) (ok bool, err error) {
	for ; off < end; off += pageSize {
		if ok, err = v.read(seg, off); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// recordIter walks the records of a data frame.
type recordIter struct {
	pos   int
	group [4]int    // by lane: index of the group in use
	used  [4]uint64 // of that group
}

// next gives the next record with its group and place in it.
func (it *recordIter) next(v *frameView) (g *group, seq uint64, raw rawRecord, ok bool) {
	if it.pos >= len(v.records) {
		return nil, 0, raw, false
	}
	if raw, ok = nextRecord(v.records[it.pos:]); !ok {
		return nil, 0, raw, false
	}
	it.pos += raw.size
	lane := raw.lane()
	i := it.group[lane]
	for i < len(v.groups) && (v.groups[i].lane != lane || it.used[lane] == v.groups[i].count) {
		i++
		it.used[lane] = 0
	}
	it.group[lane] = i
	if i == len(v.groups) {
		return nil, 0, raw, false
	}
	g = &v.groups[i]
	seq = g.first + it.used[lane]
	it.used[lane]++
	return g, seq, raw, true
}

// heads are the numbers that were synced when a frame was built.
type heads struct {
	epoch stream.Epoch
	lanes [4]uint64
}

func appendHeads(p []byte, e *epoch) []byte {
	p = append(p, e.id[:]...)
	for _, lane := range stream.Lanes {
		p = binary.AppendUvarint(p, e.lanes[lane].head)
	}
	return p
}

func (r *reader) heads() (h heads) {
	h.epoch = r.epoch()
	for _, lane := range stream.Lanes {
		if h.lanes[lane] = r.uvarint(); h.lanes[lane] == ^uint64(0) {
			r.fail()
		}
	}
	return h
}
