package buffer

import (
	"fmt"
	"time"

	"github.com/packetboat/packetboat/pkg/stream"
)

// Settle adopts a log's answer for a stream: in any order, any ranges, as often
// as one likes. Numbers above the head and unknown epochs are passed over. What
// the buffer counted as lost and the log has is settled and leaves the ledger;
// what the log counts as lost enters it. An empty answer still notes that the
// log answered for the epoch. The state is journalled within LazySync.
//
// When the ranges of all streams reach their limit, an answer that would add
// one more is not taken: its numbers are handed out again, and answered again.
func (b *Buffer) Settle(id stream.ID, a Answer) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return fmt.Errorf("settle %s: %w", id, ErrClosed)
	}
	e := b.state.find(id.Epoch)
	if e == nil {
		return nil
	}
	settled := a.Settled
	if id.Lane.Valid() && b.state.fragments() >= b.rangesMax {
		settled = e.lanes[id.Lane].withoutNewRanges(&a.Settled)
		b.state.returned(&e.lanes[id.Lane], id.Lane, func(f *flight) bool {
			return !settled.ContainsRange(f.records) && a.Settled.Overlaps(f.records)
		})
	}
	news, changed := b.state.settle(id.Epoch, id.Lane, a.By, &settled, &a.Lost)
	if !changed {
		return nil
	}
	var lost stream.RangeSet
	for _, r := range news.Ranges() {
		for x := range a.Lost.Within(r) {
			lost.Add(x)
		}
	}
	b.ops.settle(id.Epoch, id.Lane, a.By, &news, &lost)
	b.state.dropComplete()
	token(b.lazy)
	return nil
}

// withoutNewRanges is the part of settled that touches what is done already.
func (l *laneState) withoutNewRanges(settled *stream.RangeSet) (out stream.RangeSet) {
	for _, r := range settled.Ranges() {
		r.Last = min(r.Last, l.head)
		if r.First == 1 || l.done.Overlaps(stream.Range{First: r.First - 1, Last: r.Last + 1}) {
			out.Add(r)
		}
	}
	return out
}

// GiveUp puts all that is open in an epoch into the ledger, where it stands
// undeclared, and forgets the epoch; an unknown one is no error. If it is the
// current epoch a new one begins. The state is synced before it returns.
func (b *Buffer) GiveUp(e stream.Epoch, reason stream.Reason) error {
	if !reason.Valid() {
		return fmt.Errorf("give up epoch %s: reason %d", e, reason)
	}
	b.commitMu.Lock()
	defer b.commitMu.Unlock()
	b.mu.Lock()
	if b.closed || b.state.find(e) == nil {
		defer b.mu.Unlock()
		if b.closed {
			return fmt.Errorf("give up epoch %s: %w", e, ErrClosed)
		}
		return nil
	}
	if b.state.current().id == e {
		b.beginEpoch()
	}
	b.state.giveUp(e, reason)
	b.ops.giveUp(e, reason)
	b.mu.Unlock()
	if _, err := b.commitLocked(false); err != nil {
		return fmt.Errorf("give up epoch %s: %w", e, err)
	}
	return nil
}

// Held lists what the buffer still has to answer for, oldest epoch first: the
// streams in which something is stored and not settled, or lost and not
// declared; of the current epoch all lanes.
func (b *Buffer) Held() (held []stream.Held) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.state.epochs {
		current := e == b.state.current()
		for _, lane := range stream.Lanes {
			l := &e.lanes[lane]
			open := stream.Collect(l.done.Missing(stream.Range{First: 1, Last: l.head}))
			for _, loss := range l.losses {
				open.Add(loss.Range)
			}
			if current || !open.IsEmpty() {
				held = append(held, stream.Held{Epoch: e.id, Lane: lane, Ranges: open, Head: l.head, Current: current, Answered: e.answered})
			}
		}
	}
	return held
}

// Losses lists the ledger: the newest of what was declared or given up with its
// epoch, then all that is not declared yet. Totals are in Stats.
func (b *Buffer) Losses() []LedgerEntry {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := append([]LedgerEntry(nil), b.state.ledger...)
	for _, e := range b.state.epochs {
		for _, lane := range stream.Lanes {
			for _, loss := range e.lanes[lane].losses {
				out = append(out, LedgerEntry{ID: stream.ID{Epoch: e.id, Lane: lane}, Loss: loss})
			}
		}
	}
	return out
}

// Unsent says what of the lane Next could hand out. It is cheap.
func (b *Buffer) Unsent(lane stream.Lane) (w Backlog) {
	if !lane.Valid() {
		return w
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	q := &b.state.queues[lane]
	w.Messages = q.messages - q.flightMessages
	if w.Messages <= 0 {
		return Backlog{}
	}
	w.Bytes = max(q.bytes-q.flightLen, 0)
	for _, e := range b.state.epochs {
		if n := e.lanes[lane].firstUnsent(); n > 0 {
			w.OldestAppend = e.lanes[lane].appendedAt(n, b.opened)
			break
		}
	}
	return w
}

// Stats gives a picture of the buffer at this moment.
func (b *Buffer) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.stats
	s.Accepted, s.Settled, s.Lost, s.BytesAccepted = b.state.accepted, b.state.settled, b.state.lost, b.state.acceptedBytes
	for _, lane := range stream.Lanes {
		q := &b.state.queues[lane]
		s.Queued += uint64(q.messages - q.flightMessages)
		s.InFlight += uint64(q.flightMessages)
		s.Lanes[lane].Messages, s.Lanes[lane].Bytes = q.messages, q.bytes
		for _, e := range b.state.epochs {
			if at := b.oldest(e.id, lane, &e.lanes[lane], nil); at != 0 {
				s.Lanes[lane].Oldest = time.UnixMicro(at).UTC()
				break
			}
		}
	}
	s.Epochs = len(b.state.epochs)
	s.Spares = len(b.segs.free)
	s.Segments = len(b.segs.live) + len(b.segs.free)
	if b.segs.head != nil {
		s.Segments++
	}
	s.DiskBytes, s.DiskLimit = b.segs.bytes, b.o.MaxBytes
	s.Full = b.full
	s.Entries, s.StateBytes, s.StateLimit = len(b.keys.index), b.keys.bytes, b.o.MaxState
	if b.diskErr != nil {
		s.DiskError = b.diskErr.Error()
	}
	s.ConservationOK = b.state.conserved()
	return s
}
