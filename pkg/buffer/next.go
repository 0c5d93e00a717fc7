package buffer

import (
	"fmt"
	"math"

	"github.com/packetboat/packetboat/pkg/stream"
)

// Bounds of a batch where the caller sets none.
const (
	maxBatchMessages = 1 << 16
	maxBatchBytes    = 1 << 20
	maxBatchLosses   = 256
)

// plan is what Next is about to hand out.
type plan struct {
	epoch  *epoch
	run    stream.Range // records; empty: losses only
	losses []stream.Loss
	mark   bool // the settle state must be synced before it leaves
	expire bool // what has expired may be given up
}

// Next hands out the oldest contiguous run of one stream of the lane that is
// synced, unsettled and not in flight: closed epochs first, the current one
// last. With it go the losses below its end that no log knows of; an epoch that
// has only those gives a batch without records, whose First is the first number
// lost. What is handed out is in flight until Settle, Requeue or RequeueAll,
// and never evicted meanwhile.
//
// ok is false when there is nothing. Before the first batch of an epoch in this
// process, and after another log answered for it, the settle state is synced;
// err is that of the disk, also when it cannot read for now: try again later.
// The batch's memory is the caller's; its ID.Device is empty.
func (b *Buffer) Next(lane stream.Lane, limit Limit) (batch stream.Batch, ok bool, err error) {
	if !lane.Valid() {
		return batch, false, fmt.Errorf("next batch: %s is not a lane", lane)
	}
	if limit.Messages <= 0 || limit.Messages > maxBatchMessages {
		limit.Messages = maxBatchMessages
	}
	if limit.Bytes <= 0 || limit.Bytes > maxBatchBytes {
		limit.Bytes = maxBatchBytes
	}
	b.readMu.Lock()
	defer b.readMu.Unlock()
	for {
		p, ok := b.plan(lane, limit)
		if !ok {
			return batch, false, nil
		}
		recs, size, err := b.gather(p, lane, limit)
		if err != nil {
			return batch, false, fmt.Errorf("next batch of %s: %w", lane, err)
		}
		if p.run.Count() > 0 && len(recs) == 0 { // expired, or unreadable: not a sync for each frame of these
			continue
		}
		if p.mark {
			if err := b.markEpoch(p.epoch); err != nil {
				return batch, false, fmt.Errorf("next batch of %s: %w", lane, err)
			}
		}
		if batch, ok = b.handOut(p, lane, recs, size); ok {
			return batch, true, nil
		}
	}
}

// plan chooses what comes next.
func (b *Buffer) plan(lane stream.Lane, limit Limit) (p plan, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return p, false
	}
	for _, e := range b.state.epochs {
		l := &e.lanes[lane]
		first, end := l.firstUnsent(), uint64(math.MaxUint64)
		if first > 0 {
			p.run = l.runFrom(first)
			p.run.Last = min(p.run.Last, first+uint64(limit.Messages)-1)
			end = first
		}
		p.losses = l.undeclared(end, maxBatchLosses+1)
		if len(p.losses) > maxBatchLosses { // the rest goes before the records
			p.losses, p.run, first = p.losses[:maxBatchLosses], stream.Range{First: 1}, 0
		}
		if first == 0 && len(p.losses) == 0 {
			continue
		}
		p.epoch, p.mark = e, !e.marked || e.markedBy != e.answered
		p.expire = b.state.fragments() < b.rangesMax
		if first == 0 {
			p.run = stream.Range{First: 1}
		}
		return p, true
	}
	return p, false
}

// markEpoch syncs the settle state before the first batch of e leaves: a copy
// of the disk that comes back must know what was settled by then.
func (b *Buffer) markEpoch(e *epoch) error {
	b.commitMu.Lock() // a commit that is under way may carry state of its own
	defer b.commitMu.Unlock()
	b.mu.Lock()
	by := e.answered
	clean := b.ops.empty() && b.segs.head != nil
	b.mu.Unlock()
	if !clean {
		if _, err := b.commitLocked(false); err != nil {
			return err
		}
	}
	b.mu.Lock()
	e.marked, e.markedBy = true, by
	b.mu.Unlock()
	return nil
}

// gather reads the plan's records. Nothing read without an error means that the
// plan does not hold any more: what cannot be read is lost by now.
func (b *Buffer) gather(p plan, lane stream.Lane, limit Limit) (recs []stream.Record, size int, err error) {
	id := p.epoch.id
	for run := p.run; run.Count() > 0 && limit.Messages > 0; {
		part, n, gone, err := b.readRun(id, lane, run, limit, len(recs) > 0, p.expire)
		if len(gone) > 0 { // what stands before them is good
			b.expire(p.epoch, lane, gone)
			return append(recs, part...), size + n, nil
		}
		if len(part) == 0 && len(recs) > 0 {
			break // this much is good; the rest is for the next call
		}
		if len(part) == 0 {
			return nil, 0, b.missed(stream.Position{ID: stream.ID{Epoch: id, Lane: lane}, Seq: run.First}, err)
		}
		if recs == nil {
			recs = part
		} else {
			recs = append(recs, part...)
		}
		size += n
		run.First += uint64(len(part))
		limit.Messages -= len(part)
		limit.Bytes -= n
	}
	return recs, size, nil
}

// missed deals with a queued number that readRun did not find: it was moved
// meanwhile, or settled, or its segment is damaged. One that is missed again
// and again is given up, so that Next always comes past it. Under readMu.
func (b *Buffer) missed(at stream.Position, err error) error {
	b.mu.Lock()
	seg := b.segs.holds(at.ID.Epoch, at.ID.Lane, at.Seq)
	b.mu.Unlock()
	if b.missedAt != at {
		b.missedAt, b.missedTimes = at, 0
	}
	if b.missedTimes++; b.missedTimes <= readAttempts && seg != nil {
		return b.unreadable(seg, err)
	}
	b.missedTimes = 0
	b.mu.Lock()
	defer b.mu.Unlock()
	loss := stream.Loss{Range: stream.Range{First: at.Seq, Last: at.Seq}, Reason: stream.Unreadable}
	if gone := b.state.lose(at.ID.Epoch, at.ID.Lane, loss); !gone.IsEmpty() {
		b.ops.lose(at.ID.Epoch, at.ID.Lane, loss)
		token(b.lazy)
		b.log.Error("a queued message cannot be found", "epoch", at.ID.Epoch, "lane", at.ID.Lane, "seq", at.Seq, "error", err)
	}
	return nil
}

// handOut notes the batch as in flight, unless what was read is settled by now.
func (b *Buffer) handOut(p plan, lane stream.Lane, recs []stream.Record, size int) (batch stream.Batch, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, l := p.epoch, &p.epoch.lanes[lane]
	if b.state.find(e.id) != e || p.run.Count() > 0 && len(recs) == 0 {
		return batch, false
	}
	f := flight{bytes: int64(size)}
	end := uint64(math.MaxUint64)
	if len(recs) > 0 {
		f.key = recs[0].Seq
		f.records = stream.Range{First: f.key, Last: recs[len(recs)-1].Seq}
		if l.done.Overlaps(f.records) || l.inflight.Overlaps(f.records) {
			return batch, false
		}
		end = f.key
	} else {
		f.records = stream.Range{First: 1}
	}
	losses := l.undeclared(end, maxBatchLosses) // some may be settled by now, or new
	if len(losses) > 0 && !e.marked {
		return batch, false // something expired since: once that is synced
	}
	if len(recs) == 0 {
		if len(losses) == 0 {
			return batch, false
		}
		f.key = losses[0].First
	}
	for _, loss := range losses {
		f.losses = append(f.losses, loss.Range)
	}
	batch = stream.Batch{
		ID: stream.ID{Epoch: e.id, Lane: lane}, First: f.key, Records: recs, Losses: losses,
		Head: l.head, Floor: l.floor(),
	}
	batch.Oldest = b.oldest(e.id, lane, l, recs)
	b.state.depart(l, lane, f)
	return batch, true
}

// oldest is the time of the stream's oldest unsettled record: exact when it is
// in recs, else a lower bound from its segment; 0: none. Under mu.
func (b *Buffer) oldest(id stream.Epoch, lane stream.Lane, l *laneState, recs []stream.Record) int64 {
	for r := range l.done.Missing(stream.Range{First: 1, Last: l.head}) {
		if len(recs) > 0 && recs[0].Seq == r.First {
			return recs[0].Time
		}
		if seg := b.segs.holds(id, lane, r.First); seg != nil {
			return seg.holding(id, lane).from
		}
		break
	}
	return 0
}

// Requeue takes back the batch of id whose First is first, which was refused:
// Next hands it out again. A batch that is not in flight is no error.
func (b *Buffer) Requeue(id stream.ID, first uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l := b.state.stream(id.Epoch, id.Lane); l != nil {
		if b.state.returned(l, id.Lane, func(f *flight) bool { return f.key == first }) {
			token(b.ready)
		}
	}
}

// RequeueAll says that the connection ended: nothing is in flight.
func (b *Buffer) RequeueAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.state.epochs {
		for _, lane := range stream.Lanes {
			b.state.returned(&e.lanes[lane], lane, func(*flight) bool { return true })
		}
	}
	token(b.ready)
}
