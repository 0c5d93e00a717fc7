package buffer

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/packetboat/packetboat/pkg/stream"
)

// recovery reads a journal's directory; the steps are those of
// docs/format/journal.md.
type recovery struct {
	b      *Buffer
	found  []*segment // in use at some time, by generation
	blank  []*segment
	view   frameView
	ahead  frameView
	report Recovery
	// Of the segment being read: how many changes of the map were seen.
	changes uint64
	// gone entries stood in segments that were recycled since: they were moved,
	// or replaced, or removed before, as the frames to come say.
	gone int
}

// damaged wraps ErrDamaged with what was found and what to do.
func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s; move the directory away to start with an empty one", ErrDamaged, fmt.Sprintf(format, args...))
}

// load recovers the journal, or makes a new one, and begins an epoch.
func (b *Buffer) load() error {
	started := time.Now()
	r := &recovery{b: b}
	if err := r.openSegments(); err != nil {
		return err
	}
	if len(r.found)+len(r.blank) == 0 {
		if err := r.fresh(); err != nil {
			return err
		}
	} else if err := r.replay(); err != nil {
		return err
	}
	b.fillReserve()
	b.makeRoom() // before anything is accepted: a crash at every start must not eat the reserve
	r.report.Took = time.Since(started)
	b.stats.Recovery = r.report
	b.log.Info("journal opened", "dir", b.o.Dir, "fresh", r.report.Fresh, "frames", r.report.Frames, "damaged_frames", r.report.Damaged,
		"unreadable_messages", r.report.Unreadable, "entries", len(b.keys.index), "dropped_entries", b.stats.StateDropped, "epochs", len(b.state.epochs), "segments", len(b.segs.live)+len(b.segs.free)+1, "took", r.report.Took)
	return nil
}

// openSegments is step 1.
func (r *recovery) openSegments() error {
	b := r.b
	names, err := b.fs.List()
	if err != nil {
		return fmt.Errorf("list journal: %w", err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, segmentSuffix+tempSuffix) {
			if err := b.fs.Remove(name); err != nil {
				return fmt.Errorf("remove unfinished segment: %w", err)
			}
		}
		if id, ok := parseSegmentName(name); ok {
			if err := r.openSegment(name, id); err != nil {
				return err
			}
		}
	}
	slices.SortFunc(r.found, func(x, y *segment) int { return cmp.Compare(x.generation, y.generation) })
	for i, seg := range r.found {
		if i > 0 && r.found[i-1].generation == seg.generation {
			return damaged("segments %08x and %08x are copies", r.found[i-1].id, seg.id)
		}
	}
	return nil
}

func (r *recovery) openSegment(name string, id uint32) error {
	b := r.b
	f, err := b.fs.Open(name)
	if err != nil {
		return fmt.Errorf("open segment: %w", err)
	}
	seg := &segment{id: id, file: f, due: neverDue}
	b.segs.next = max(b.segs.next, id+1)
	r.blank = append(r.blank, seg)
	b.segs.free = append(b.segs.free, seg) // so that a failing Open closes it
	if seg.size, err = f.Size(); err != nil {
		return fmt.Errorf("open segment: %w", err)
	}
	b.segs.bytes += seg.size
	p := make([]byte, pageSize)
	if err := readFull(seg, p, 0); err != nil {
		return err
	}
	h, ok, err := decodeSegmentHeader(p)
	if err != nil {
		return err
	}
	if !ok {
		if ok, err = r.adoptByFrame(seg); err != nil || !ok {
			return err
		}
		h = segmentHeader{journal: b.journal, size: seg.size, generation: seg.generation, salt: seg.salt}
	}
	if b.journal.IsZero() {
		b.journal = h.journal
	}
	if h.journal != b.journal {
		return damaged("segment %s is of another journal", name)
	}
	seg.generation, seg.salt = h.generation, h.salt
	seg.size = min(seg.size, max(h.size, pageSize)) // a file cut short holds less
	b.generation = max(b.generation, h.generation)
	r.blank = r.blank[:len(r.blank)-1]
	r.found = append(r.found, seg)
	return nil
}

// adoptByFrame looks for a snapshot in a segment whose header is damaged: the
// frame repeats generation and salt.
func (r *recovery) adoptByFrame(seg *segment) (ok bool, err error) {
	p := make([]byte, frameHeader)
	if err := readFull(seg, p, pageSize); err != nil || string(p[:4]) != frameMagic {
		return false, err
	}
	seg.generation, seg.salt = binary.LittleEndian.Uint64(p[8:]), binary.LittleEndian.Uint64(p[16:])
	if ok, err = r.view.read(seg, pageSize); ok && err == nil && r.view.kind == kindSnapshot && seg.generation > 0 {
		return true, nil
	}
	seg.generation, seg.salt = 0, 0
	return false, err
}

// fresh is step 2.
func (r *recovery) fresh() error {
	b := r.b
	r.report.Fresh = true
	b.state = &state{ledgerMax: b.ledgerMax()}
	b.state.begin(1, stream.NewEpoch())
	if err := b.firstHead(); err != nil {
		return fmt.Errorf("%w: %w", ErrDisk, err)
	}
	return nil
}

func (b *Buffer) ledgerMax() int { return int(min(maxLedger, b.o.SegmentBytes/256)) }
func (b *Buffer) epochsMax() int { return int(min(maxEpochs, b.o.SegmentBytes/512)) }

// replay is steps 3 to 9.
func (r *recovery) replay() error {
	b := r.b
	b.segs.live, b.segs.free = append(r.blank, r.found...), nil
	base, err := r.findBase()
	if err != nil {
		return err
	}
	r.readKept()
	for i := base; i < len(r.found); i++ {
		if err := r.readSegment(r.found[i]); err != nil {
			return err
		}
	}
	if len(b.state.epochs) == 0 {
		return damaged("no snapshot and no frame is valid in %d segments", len(r.found)+len(r.blank))
	}
	r.declareMissing()
	r.dropGone()
	b.state.recountQueues(&b.segs)
	if !b.state.conserved() {
		b.log.Error("journal does not add up", "accepted", b.state.accepted, "settled", b.state.settled, "lost", b.state.lost)
	}
	if err := r.checkFrames(); err != nil {
		return err
	}
	r.sortSegments(base)
	return r.begin()
}

// checkFrames refuses segments that are too small to take what stands in the
// journal: moved there, it would be lost.
func (r *recovery) checkFrames() error {
	for _, seg := range append(slices.Clone(r.blank), r.found...) {
		if size := frameLimit(seg.size); size > r.b.frameMax && seg.tidy(r.b.state) {
			return fmt.Errorf("journal segments of %d bytes cannot take what stands in those of %d: use at least %d, or drain the journal first", r.b.o.SegmentBytes, seg.size, 4*size)
		}
	}
	return nil
}

// findBase is steps 3 and 4: the state to start from, and the index of the
// segment whose frames come next.
func (r *recovery) findBase() (int, error) {
	b := r.b
	for i := len(r.found) - 1; i >= 0; i-- {
		seg := r.found[i]
		ok, err := r.view.read(seg, pageSize)
		if err != nil {
			return 0, err
		}
		if ok && r.view.kind == kindSnapshot {
			if s, live, ok := decodeSnapshot(r.view.rest, b.ledgerMax()); ok {
				b.state = s
				r.adopt(live)
				return i, nil
			}
		}
		r.report.BadSnapshots++
	}
	b.state = &state{ledgerMax: b.ledgerMax()}
	return 0, nil
}

// adopt takes over what a snapshot says of older segments.
func (r *recovery) adopt(live []*segment) {
	for _, said := range live {
		r.gone += said.kept.live
		for _, seg := range append(slices.Clone(r.found), r.blank...) {
			if seg.id != said.id {
				continue
			}
			if seg.generation == 0 { // its header is damaged; the snapshot knows it
				seg.generation, seg.salt = said.generation, said.salt
				r.b.generation = max(r.b.generation, seg.generation)
			}
			if seg.generation == said.generation && seg.salt == said.salt {
				seg.held, seg.end, seg.kept, seg.due = said.held, min(said.end, seg.size), said.kept, said.due
				r.gone -= said.kept.live
			}
		}
	}
}

// readSegment is steps 5 and 6 for one segment. Every valid frame counts, for
// none is ever written over within a generation; a jump in the index tells that
// something between was damaged, or torn: then what follows was never synced.
func (r *recovery) readSegment(seg *segment) error {
	seg.end, seg.kept, seg.due = pageSize, kept{}, neverDue
	r.changes = 0
	for index := uint32(0); ; index++ {
		ok, err := r.view.find(seg, seg.end, seg.size)
		if err != nil {
			return err
		}
		if !ok {
			return nil
		}
		here := true
		if r.view.index != index {
			synced, inPlace, err := r.jump(seg, index)
			if err != nil {
				return err
			}
			if !synced {
				r.torn(seg)
				return nil
			}
			r.report.Damaged++
			if here = inPlace; here {
				index = r.view.index
			} else {
				index-- // the next one has it
			}
		}
		r.apply(seg, here)
		seg.end = r.view.next
	}
}

// apply does what the frame in view says. What it says of the map counts only in
// its place among the others.
func (r *recovery) apply(seg *segment, inPlace bool) {
	s := r.b.state
	r.report.Frames++
	if r.view.kind != kindData {
		return
	}
	if !s.replay(r.view.rest) || inPlace && !r.replayMap(seg) {
		r.report.Damaged++
	}
	r.raise()
	for i := range r.view.groups {
		g := &r.view.groups[i]
		e := s.find(g.epoch)
		switch {
		case e == nil && g.moved:
			continue // settled and forgotten by now
		case e == nil:
			s.begin(s.ordinal+1, g.epoch)
			e = s.current()
		}
		if !g.moved && g.span().Last > e.lanes[g.lane].head {
			s.acceptedBytes += g.bytes
		}
		s.extend(e, g.lane, g.span(), 0)
		r.b.segs.place(seg, g, true)
	}
}

// raise takes over the heads that the frame vouches for.
func (r *recovery) raise() {
	s, h := r.b.state, &r.view.heads
	e := s.find(h.epoch)
	for _, lane := range stream.Lanes {
		if e == nil && h.lanes[lane] > 0 {
			s.begin(s.ordinal+1, h.epoch)
			e = s.current()
		}
		if e != nil && h.lanes[lane] > 0 {
			s.extend(e, lane, stream.Range{First: 1, Last: h.lanes[lane]}, 0)
		}
	}
}

// declareMissing is step 7.
func (r *recovery) declareMissing() {
	s := r.b.state
	for _, e := range s.epochs {
		for _, lane := range stream.Lanes {
			l := &e.lanes[lane]
			missing := stream.Collect(l.done.Missing(stream.Range{First: 1, Last: l.head}))
			for _, seg := range r.b.segs.live {
				if h := seg.holding(e.id, lane); h != nil {
					missing.RemoveSet(&h.ranges)
				}
			}
			for _, x := range missing.Ranges() {
				s.lose(e.id, lane, stream.Loss{Range: x, Reason: stream.Unreadable})
				r.report.Unreadable += x.Count()
			}
		}
	}
}

// sortSegments tells live segments from free ones. Those from base on stay as
// they are until a newer snapshot is synced.
func (r *recovery) sortSegments(base int) {
	b := r.b
	all := append(r.blank, r.found...)
	b.segs.live, b.segs.free, b.suspectDead = nil, nil, true
	for _, seg := range all {
		inUse := slices.Contains(r.found[base:], seg)
		switch {
		case seg.tidy(b.state) || inUse:
			b.segs.addLive(seg)
		case seg.size != b.o.SegmentBytes:
			b.segs.bytes -= seg.size
			b.discard(seg)
		default:
			b.segs.addFree(seg)
		}
	}
}

// begin is step 9.
func (r *recovery) begin() error {
	b := r.b
	for len(b.state.epochs) > b.epochsMax() {
		e := b.state.epochs[0]
		b.log.Error("too many epochs: the oldest is given up", "epoch", e.id)
		b.state.giveUp(e.id, stream.Evicted)
	}
	b.state.begin(b.state.ordinal+1, stream.NewEpoch())
	var errs []error
	for range 3 {
		err := b.rotate(forUpkeep)
		if err == nil {
			err = b.syncHead()
		}
		if err == nil {
			return nil
		}
		b.abandonHead(err)
		errs = append(errs, err)
	}
	return fmt.Errorf("%w: %w", ErrDisk, errors.Join(errs...))
}
