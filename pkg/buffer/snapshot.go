package buffer

import (
	"encoding/binary"
	"slices"

	"github.com/packetboat/packetboat/pkg/stream"
)

// appendSnapshot encodes s and what the segments in live hold.
func appendSnapshot(p []byte, s *state, live []*segment) []byte {
	for _, v := range []uint64{s.ordinal, s.accepted, s.acceptedBytes, s.settled, uint64(len(stream.Reasons))} {
		p = binary.AppendUvarint(p, v)
	}
	for _, reason := range stream.Reasons {
		p = binary.AppendUvarint(p, s.lost[reason])
	}
	p = binary.AppendUvarint(p, uint64(len(s.epochs)))
	for _, e := range s.epochs {
		p = append(p, e.id[:]...)
		p = binary.AppendUvarint(p, e.ordinal)
		p = appendLog(p, e.answered)
		for _, lane := range stream.Lanes {
			l := &e.lanes[lane]
			p = binary.AppendUvarint(p, l.head)
			p = appendRanges(p, &l.done)
			p = binary.AppendUvarint(p, uint64(len(l.losses)))
			for _, loss := range l.losses {
				p = appendLoss(p, loss)
			}
		}
	}
	p = binary.AppendUvarint(p, uint64(len(s.ledger)))
	for _, entry := range s.ledger {
		p = append(p, entry.Epoch[:]...)
		declared := byte(0)
		if entry.Declared {
			declared = 1
		}
		p = appendLoss(append(p, byte(entry.Lane), declared), entry.Loss)
	}
	p = binary.AppendUvarint(p, uint64(len(live)))
	for _, seg := range live {
		p = appendHoldings(p, seg)
	}
	return appendExpiring(appendKept(p, live), live)
}

// appendExpiring names the segments of which some record expires.
func appendExpiring(p []byte, live []*segment) []byte {
	n := 0
	for _, seg := range live {
		if seg.due != neverDue {
			n++
		}
	}
	p = binary.AppendUvarint(p, uint64(n))
	for _, seg := range live {
		if seg.due != neverDue {
			p = binary.AppendUvarint(p, uint64(seg.id))
		}
	}
	return p
}

func (r *reader) expiring(live []*segment) {
	for range r.count(1) {
		id := uint32(r.uvarint())
		i := slices.IndexFunc(live, func(seg *segment) bool { return seg.id == id })
		if i < 0 {
			r.fail()
			return
		}
		live[i].due = 0
	}
}

// appendKept encodes which slots are live in which segments.
func appendKept(p []byte, live []*segment) []byte {
	n := 0
	for _, seg := range live {
		if seg.kept.live > 0 {
			n++
		}
	}
	p = binary.AppendUvarint(p, uint64(n))
	for _, seg := range live {
		if seg.kept.live == 0 {
			continue
		}
		p = binary.AppendUvarint(p, uint64(seg.id))
		p = appendRanges(p, &seg.kept.pages)
		p = binary.AppendUvarint(p, uint64(seg.kept.slots))
		p = binary.AppendUvarint(p, uint64(len(seg.kept.bits)))
		for _, w := range seg.kept.bits {
			p = binary.LittleEndian.AppendUint64(p, w)
		}
	}
	return p
}

// kept reads what appendKept wrote into the segments of live.
func (r *reader) kept(live []*segment) {
	for range r.count(4) {
		id := uint32(r.uvarint())
		k := kept{pages: r.ranges(), slots: uint32(r.uvarint())}
		for range r.count(8) {
			k.bits = append(k.bits, r.u64())
		}
		k.live = k.count()
		i := slices.IndexFunc(live, func(seg *segment) bool { return seg.id == id })
		if i < 0 || k.live == 0 {
			r.fail()
			return
		}
		live[i].kept = k
	}
}

func appendHoldings(p []byte, seg *segment) []byte {
	p = binary.AppendUvarint(p, uint64(seg.id))
	p = binary.AppendUvarint(p, seg.generation)
	p = binary.LittleEndian.AppendUint64(p, seg.salt)
	p = binary.AppendUvarint(p, uint64(seg.end))
	p = binary.AppendUvarint(p, uint64(len(seg.held)))
	for _, h := range seg.held {
		p = append(p, h.epoch[:]...)
		p = append(p, byte(h.lane))
		p = appendRanges(p, &h.ranges)
		p = binary.AppendUvarint(p, h.records)
		p = binary.AppendUvarint(p, h.bytes)
		p = binary.AppendVarint(p, h.from)
		p = binary.AppendVarint(p, h.to)
	}
	return p
}

// decodeSnapshot reads what appendSnapshot wrote. The segments are without files.
func decodeSnapshot(p []byte, ledgerMax int) (s *state, live []*segment, ok bool) {
	r := reader{p: p}
	s = &state{ledgerMax: ledgerMax}
	s.ordinal, s.accepted, s.acceptedBytes, s.settled = r.uvarint(), r.uvarint(), r.uvarint(), r.uvarint()
	if r.uvarint() != uint64(len(stream.Reasons)) {
		return nil, nil, false
	}
	for _, reason := range stream.Reasons {
		s.lost[reason] = r.uvarint()
	}
	for range r.count(54) {
		s.epochs = append(s.epochs, r.epochState())
	}
	for range r.count(23) {
		entry := LedgerEntry{ID: stream.ID{Epoch: r.epoch(), Lane: r.lane()}}
		entry.Declared = r.byte() == 1
		entry.Loss = r.loss()
		s.ledger = append(s.ledger, entry)
	}
	for range r.count(12) {
		live = append(live, r.holdings())
	}
	if len(r.p) > 0 { // format 1 ends here
		r.kept(live)
		r.expiring(live)
	}
	if r.bad || len(r.p) > 0 || len(s.epochs) == 0 {
		return nil, nil, false
	}
	return s, live, true
}

func (r *reader) epochState() *epoch {
	e := &epoch{id: r.epoch(), ordinal: r.uvarint(), answered: r.log()}
	for _, lane := range stream.Lanes {
		l := &e.lanes[lane]
		l.head, l.done = r.uvarint(), r.ranges()
		for range r.count(5) {
			loss := r.loss()
			if n := len(l.losses); n > 0 && l.losses[n-1].Last >= loss.First || !l.done.ContainsRange(loss.Range) {
				r.fail()
			}
			l.losses = append(l.losses, loss)
		}
		if l.done.Max() > l.head || l.head == ^uint64(0) {
			r.fail()
		}
	}
	return e
}

func (r *reader) holdings() *segment {
	seg := &segment{due: neverDue, id: uint32(r.uvarint()), generation: r.uvarint(), salt: r.u64(), end: int64(r.uvarint())}
	for range r.count(22) {
		h := &holding{epoch: r.epoch(), lane: r.lane(), ranges: r.ranges()}
		h.records, h.bytes, h.from, h.to = r.uvarint(), r.uvarint(), r.varint(), r.varint()
		seg.held = append(seg.held, h)
	}
	return seg
}

// recountQueues sets what waits in each lane from the ranges and from what the
// segments hold.
func (s *state) recountQueues(ss *segments) {
	s.queues = [4]queue{}
	for _, e := range s.epochs {
		for _, lane := range stream.Lanes {
			s.queues[lane].messages += int64(e.lanes[lane].queued())
		}
	}
	for _, seg := range ss.live {
		for _, h := range seg.held {
			live := h.live(s)
			s.queues[h.lane].bytes += int64(h.share(h.bytes, live.Count(), h.records))
		}
	}
}

func appendGroups(p []byte, groups []group) []byte {
	p = binary.AppendUvarint(p, uint64(len(groups)))
	for i := range groups {
		g := &groups[i]
		flags := byte(0)
		if g.moved {
			flags = groupMoved
		}
		if g.expires {
			flags |= groupExpires
		}
		p = append(p, g.epoch[:]...)
		p = append(p, byte(g.lane), flags)
		p = binary.AppendUvarint(p, g.first)
		p = binary.AppendUvarint(p, g.count)
		p = binary.AppendVarint(p, g.from)
		p = binary.AppendVarint(p, g.to)
		p = binary.AppendUvarint(p, g.bytes)
	}
	return p
}

// groups reads what appendGroups wrote into dst.
func (r *reader) groups(dst []group) []group {
	for range r.count(23) {
		g := group{epoch: r.epoch(), lane: r.lane()}
		flags := r.byte()
		g.moved, g.expires = flags&groupMoved != 0, flags&groupExpires != 0
		g.first, g.count = r.uvarint(), r.uvarint()
		g.from, g.to, g.bytes = r.varint(), r.varint(), r.uvarint()
		if g.first == 0 || g.count == 0 || g.first+g.count < g.first {
			r.fail()
		}
		dst = append(dst, g)
	}
	return dst
}
