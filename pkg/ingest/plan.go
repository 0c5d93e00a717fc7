package ingest

import (
	"fmt"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

// checkHello says what is wrong with a Hello.
func checkHello(h *Hello) error {
	if err := stream.CheckDeviceID(h.Device); err != nil {
		return fmt.Errorf("%w: %w", ErrHello, err)
	}
	if h.Version < 1 || h.Version > Version {
		return fmt.Errorf("%w: version %d of the protocol, this hub speaks 1 to %d", ErrHello, h.Version, Version)
	}
	seen := make(map[streamKey]bool, len(h.Held))
	for i := range h.Held {
		held := &h.Held[i]
		k := streamKey{held.Epoch, held.Lane}
		if held.Epoch.IsZero() || !held.Lane.Valid() || held.Head > maxSeq {
			return fmt.Errorf("%w: %s/%s with head %d", ErrHello, held.Epoch, held.Lane, held.Head)
		}
		if seen[k] {
			return fmt.Errorf("%w: %s/%s is held twice", ErrHello, held.Epoch, held.Lane)
		}
		seen[k] = true
	}
	return nil
}

// plan is what a Hello and the coverage together ask for before the device can
// be served.
type plan struct {
	// entries are committed before: losses that nobody else would ever declare,
	// heads that the log did not know (so that no epoch counts as complete
	// which is not), epochs that the log must know again.
	entries []commitlog.Entry
	// stale: the welcome leaves out an epoch for which this log has answered,
	// so the edge gives it up. It takes a commit to say that, because a hub that
	// has lost the shard does not know what it does not know.
	stale int
	// wentBack: this log has forgotten what it answered. It went back to an
	// earlier state without taking a new incarnation.
	wentBack bool
	// absent are numbers below a known head that are not settled and that this
	// edge does not hold: nobody declares them but an operator.
	absent map[streamKey]uint64
}

// planner makes a plan.
type planner struct {
	h       *Hello
	cov     *commitlog.DeviceCoverage
	log     stream.LogID
	now     int64
	current stream.Epoch
	plan    plan
}

func makePlan(h *Hello, cov *commitlog.DeviceCoverage, log stream.LogID, now int64) plan {
	p := planner{h: h, cov: cov, log: log, now: now}
	p.plan.absent = map[streamKey]uint64{}
	restored := false
	listed := make(map[streamKey]bool, len(h.Held))
	for i := range h.Held {
		held := &h.Held[i]
		listed[streamKey{held.Epoch, held.Lane}] = true
		if held.Current {
			p.current = held.Epoch
		}
		restored = restored || held.Answered.Name == log.Name && held.Answered != log
	}
	for i := range h.Held {
		p.held(&h.Held[i])
	}
	if !h.Partial {
		p.unlisted(listed, restored)
	}
	return p.plan
}

// held looks at one stream that the edge holds.
func (p *planner) held(held *stream.Held) {
	id := stream.ID{Device: p.h.Device, Epoch: held.Epoch, Lane: held.Lane}
	lane := p.cov.Lane(id)
	answered := held.Answered == p.log
	if lane == nil && answered {
		// The edge says that this log knew the epoch. A log that never forgot
		// one must have gone back; else the epoch is stale.
		if p.cov.Forgotten > 0 {
			p.plan.stale++
			return
		}
		p.plan.wentBack = true
	}
	if lane == nil {
		lane = &commitlog.LaneState{}
	}
	gone := p.gone(held, lane)
	p.absent(id, lane, &held.Ranges, &gone)
	known := p.cov.Epoch(held.Epoch) != nil
	if gone.IsEmpty() && !(known && held.Head > lane.Head) && (known || !answered) {
		return
	}
	// Also the epoch that a log which went back has to know again: the welcome
	// names it then, and the edge does not take it for stale.
	reason := stream.LogRestored
	if held.Answered.Name != p.log.Name {
		reason = stream.OtherLog
	}
	p.plan.wentBack = p.plan.wentBack || answered && !gone.IsEmpty()
	p.declare(id, lane, &gone, reason, held.Head)
}

// gone gives the numbers that the log has not and the edge no longer holds.
//
// Where no log has ever answered for the epoch there are none, whatever is
// missing: an edge lets go of a number only when a log has settled it, also of
// one that it has lost. (A hello that names less than that is wrong; to declare
// what it left out would turn a mistake into a loss.) Of a log that answered,
// the numbers that are neither here nor there were settled by it: by another
// log, or by this one before it was restored.
func (p *planner) gone(held *stream.Held, lane *commitlog.LaneState) stream.RangeSet {
	if held.Answered.IsZero() || held.Head == 0 {
		return stream.RangeSet{}
	}
	have := lane.Settled()
	have.AddSet(&held.Ranges)
	return stream.Collect(have.Missing(stream.Range{First: 1, Last: held.Head}))
}

// absent counts what is out there and not held here.
func (p *planner) absent(id stream.ID, lane *commitlog.LaneState, held, gone *stream.RangeSet) {
	out := lane.Out()
	out.RemoveSet(held)
	out.RemoveSet(gone)
	if n := out.Count(); n > 0 {
		p.plan.absent[streamKey{id.Epoch, id.Lane}] = n
	}
}

func (p *planner) declare(id stream.ID, lane *commitlog.LaneState, gone *stream.RangeSet, reason stream.Reason, head uint64) {
	e := commitlog.Entry{ID: id, Head: head, Current: p.current, Received: p.now}
	if lane.FIFO {
		e.Flags = stream.FIFO
	}
	for _, r := range gone.Ranges() {
		e.Losses = append(e.Losses, stream.Loss{Range: r, Reason: reason})
	}
	p.plan.entries = append(p.plan.entries, e)
}

// unlisted looks at what the log knows of and the edge does not name. It holds
// nothing of that, so what is open there is a gap. If the edge was last answered
// by an earlier incarnation of this log, the log was restored since it was here,
// and the gaps are taken for what the log has lost by that: with the disk that
// is here nobody else would ever close them. Else they are absent: the disk that
// held them is not here.
func (p *planner) unlisted(listed map[streamKey]bool, restored bool) {
	for _, e := range p.cov.Epochs {
		for _, l := range stream.Lanes {
			lane := &e.Lanes[l]
			if lane.Complete() || listed[streamKey{e.ID, l}] {
				continue
			}
			id := stream.ID{Device: p.h.Device, Epoch: e.ID, Lane: l}
			var none, gone stream.RangeSet
			if restored {
				gone = lane.Out()
				p.declare(id, lane, &gone, stream.LogRestored, lane.Head)
			}
			p.absent(id, lane, &none, &gone)
		}
	}
}

// welcomeCoverage names every epoch that is held and known, and says what is
// settled of what is held. The rest of what is settled the edge has long let go
// of.
func welcomeCoverage(held []stream.Held, cov *commitlog.DeviceCoverage) []stream.EpochCoverage {
	var all []stream.EpochCoverage
	at := make(map[stream.Epoch]int, len(held))
	for i := range held {
		h := &held[i]
		lane := cov.Lane(stream.ID{Epoch: h.Epoch, Lane: h.Lane})
		if lane == nil {
			continue
		}
		j, ok := at[h.Epoch]
		if !ok {
			j = len(all)
			at[h.Epoch] = j
			all = append(all, stream.EpochCoverage{Epoch: h.Epoch})
		}
		var c stream.LaneCoverage
		for _, r := range h.Ranges.Ranges() {
			for in := range lane.In.Within(r) {
				c.Settled.Add(in)
			}
			for lost := range lane.Lost.Within(r) {
				c.Settled.Add(lost)
				c.Lost.Add(lost)
			}
		}
		if !c.Settled.IsEmpty() {
			c.Lane = h.Lane
			all[j].Lanes = append(all[j].Lanes, c)
		}
	}
	return all
}
