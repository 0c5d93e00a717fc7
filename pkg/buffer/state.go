package buffer

import (
	"slices"
	"time"

	"github.com/packetboat/packetboat/pkg/stream"
)

// state is everything that is not records: a fold over the journal's
// operations and groups. Doing an operation twice changes nothing. Guarded by
// Buffer.mu.
type state struct {
	ordinal       uint64 // of the newest epoch
	accepted      uint64
	acceptedBytes uint64
	settled       uint64 // in a log, not lost
	lost          [len(stream.Reasons) + 1]uint64
	epochs        []*epoch // oldest first; the last one is current
	ledger        []LedgerEntry
	ledgerMax     int

	queues [4]queue // by lane, over all epochs
}

// queue counts what is stored and neither settled nor lost.
type queue struct {
	messages, bytes           int64
	flightMessages, flightLen int64 // of these: handed out
}

type epoch struct {
	id       stream.Epoch
	ordinal  uint64
	answered stream.LogID
	lanes    [4]laneState // by stream.Lane; index 0 unused

	marked   bool // settle state was synced before its first batch …
	markedBy stream.LogID
}

// laneState is one stream. A number up to head is queued, or in done: settled,
// or lost. Losses are the lost ones that no log knows of yet.
type laneState struct {
	head   uint64
	done   stream.RangeSet
	losses []stream.Loss // ascending, disjoint

	// Not journalled: what Next handed out, records and losses.
	inflight stream.RangeSet
	flights  []flight
	// appended says when numbers were appended in this process.
	appended []mark
}

type mark struct {
	last uint64
	at   time.Time
}

// flight is one batch that Next handed out.
type flight struct {
	key     uint64 // First of the batch
	records stream.Range
	losses  []stream.Range
	bytes   int64
}

func (s *state) find(id stream.Epoch) *epoch {
	for i := len(s.epochs) - 1; i >= 0; i-- {
		if s.epochs[i].id == id {
			return s.epochs[i]
		}
	}
	return nil
}

func (s *state) current() *epoch { return s.epochs[len(s.epochs)-1] }

func (s *state) stream(id stream.Epoch, lane stream.Lane) *laneState {
	if e := s.find(id); e != nil && lane.Valid() {
		return &e.lanes[lane]
	}
	return nil
}

// begin closes the current epoch and makes id the current one.
func (s *state) begin(ordinal uint64, id stream.Epoch) {
	if ordinal <= s.ordinal {
		return
	}
	s.ordinal = ordinal
	s.epochs = append(s.epochs, &epoch{id: id, ordinal: ordinal})
	s.dropComplete()
}

// dropComplete forgets the closed epochs of which nothing is open; their counts
// stand in the totals.
func (s *state) dropComplete() {
	cur := len(s.epochs) - 1
	i := 0
	s.epochs = slices.DeleteFunc(s.epochs, func(e *epoch) bool {
		i++
		return i <= cur && !e.open()
	})
}

// open reports whether any number of e is neither settled nor declared.
func (e *epoch) open() bool {
	for _, lane := range stream.Lanes {
		l := &e.lanes[lane]
		if len(l.losses) > 0 || !l.done.ContainsRange(stream.Range{First: 1, Last: l.head}) {
			return true
		}
	}
	return false
}

// queued is how many numbers are stored and neither settled nor lost, counted
// from the ranges.
func (l *laneState) queued() uint64 { return l.head - l.done.Count() }

// leave takes n messages off the lane's queue, with their share of its bytes.
func (s *state) leave(lane stream.Lane, n uint64) {
	q := &s.queues[lane]
	if n == 0 || q.messages == 0 {
		return
	}
	q.bytes -= int64(float64(q.bytes) * (float64(n) / float64(q.messages)))
	if q.messages -= int64(n); q.messages <= 0 {
		q.messages, q.bytes = 0, 0
	}
}

// extend takes records up to r.Last into the stream, which starts at r.First.
// Numbers that are passed over count as accepted.
func (s *state) extend(e *epoch, lane stream.Lane, r stream.Range, bytes int64) {
	l := &e.lanes[lane]
	if r.Last <= l.head {
		return
	}
	n := r.Last - l.head
	s.accepted += n
	s.queues[lane].messages += int64(n)
	s.queues[lane].bytes += bytes
	l.head = r.Last
}

// settle adopts a log's answer for the numbers of settled, of which it counts
// lost as lost. It returns the numbers that were open before.
func (s *state) settle(id stream.Epoch, lane stream.Lane, by stream.LogID, settled, lost *stream.RangeSet) (news stream.RangeSet, changed bool) {
	e := s.find(id)
	if e == nil {
		return news, false
	}
	if !by.IsZero() && e.answered != by {
		e.answered, changed = by, true
	}
	if !lane.Valid() {
		return news, changed
	}
	l := &e.lanes[lane]
	for _, r := range settled.Ranges() {
		r.Last = min(r.Last, l.head)
		for m := range l.done.Missing(r) {
			news.Add(m)
			s.answer(e.id, lane, m, stream.Loss{Reason: stream.RefusedByLog}, lost, false)
			s.leave(lane, m.Count())
		}
		s.declare(e.id, l, lane, r, lost, &news)
	}
	for _, r := range news.Ranges() {
		l.done.Add(r)
		l.inflight.Remove(r)
	}
	if !news.IsEmpty() {
		s.landed(l, lane)
	}
	return news, changed || !news.IsEmpty()
}

// answer counts the numbers of r as in the log or as lost. They were queued, or
// stood in the ledger before (wasLost) as loss says.
func (s *state) answer(id stream.Epoch, lane stream.Lane, r stream.Range, loss stream.Loss, lost *stream.RangeSet, wasLost bool) {
	for in := range lost.Missing(r) {
		s.settled += in.Count()
		if wasLost {
			s.lost[loss.Reason] -= in.Count()
		}
	}
	for out := range lost.Within(r) {
		if !wasLost {
			s.lost[loss.Reason] += out.Count()
		}
		loss.Range = out
		s.remember(LedgerEntry{ID: stream.ID{Epoch: id, Lane: lane}, Loss: loss, Declared: true})
	}
}

// declare takes the losses within r out of those that no log knows of.
func (s *state) declare(id stream.Epoch, l *laneState, lane stream.Lane, r stream.Range, lost, news *stream.RangeSet) {
	if len(l.losses) == 0 || r.Count() == 0 {
		return
	}
	var keep []stream.Loss
	for _, loss := range l.losses {
		x := stream.Range{First: max(loss.First, r.First), Last: min(loss.Last, r.Last)}
		if x.Count() == 0 {
			keep = append(keep, loss)
			continue
		}
		news.Add(x)
		s.answer(id, lane, x, loss, lost, true)
		if loss.First < x.First {
			rest := loss
			rest.Last = x.First - 1
			keep = append(keep, rest)
		}
		if loss.Last > x.Last {
			rest := loss
			rest.First = x.Last + 1
			keep = append(keep, rest)
		}
	}
	l.losses = keep
}

// remember puts an entry into the ledger of what is no longer waited for.
func (s *state) remember(entry LedgerEntry) {
	if n := len(s.ledger); n > 0 {
		last := &s.ledger[n-1]
		if last.ID == entry.ID && last.Declared == entry.Declared && last.Reason == entry.Reason && last.Last+1 == entry.First && timed(&last.Loss) == timed(&entry.Loss) {
			joinLoss(&last.Loss, entry.Loss)
			return
		}
	}
	if s.ledger = append(s.ledger, entry); len(s.ledger) > s.ledgerMax {
		s.ledger = slices.Delete(s.ledger, 0, len(s.ledger)-s.ledgerMax)
	}
}

func timed(l *stream.Loss) bool { return l.From != 0 || l.To != 0 }

// joinLoss appends b to a, which it follows.
func joinLoss(a *stream.Loss, b stream.Loss) {
	a.Last = b.Last
	a.From, a.To = min(a.From, b.From), max(a.To, b.To)
}

// lose gives up what of loss is queued. It returns these numbers.
func (s *state) lose(id stream.Epoch, lane stream.Lane, loss stream.Loss) (gone stream.RangeSet) {
	l := s.stream(id, lane)
	if l == nil {
		return gone
	}
	loss.Last = min(loss.Last, l.head)
	gone = stream.Collect(l.done.Missing(loss.Range))
	for _, r := range gone.Ranges() {
		loss.Range = r
		s.lost[loss.Reason] += r.Count()
		s.leave(lane, r.Count())
		l.done.Add(r)
		l.addLoss(loss)
	}
	return gone
}

func (l *laneState) addLoss(loss stream.Loss) {
	i, _ := slices.BinarySearchFunc(l.losses, loss.First, func(x stream.Loss, n uint64) int {
		if x.First < n {
			return -1
		}
		return 1
	})
	joins := func(a, b *stream.Loss) bool {
		return a.Last+1 == b.First && a.Reason == b.Reason && timed(a) == timed(b)
	}
	if i > 0 && joins(&l.losses[i-1], &loss) {
		i--
		joinLoss(&l.losses[i], loss)
	} else {
		l.losses = slices.Insert(l.losses, i, loss)
	}
	if i+1 < len(l.losses) && joins(&l.losses[i], &l.losses[i+1]) {
		joinLoss(&l.losses[i], l.losses[i+1])
		l.losses = slices.Delete(l.losses, i+1, i+2)
	}
}

// giveUp puts all that is open in the epoch into the ledger and forgets it.
func (s *state) giveUp(id stream.Epoch, reason stream.Reason) bool {
	e := s.find(id)
	if e == nil {
		return false
	}
	for _, lane := range stream.Lanes {
		l := &e.lanes[lane]
		for _, loss := range l.losses {
			s.remember(LedgerEntry{ID: stream.ID{Epoch: id, Lane: lane}, Loss: loss})
		}
		for r := range l.done.Missing(stream.Range{First: 1, Last: l.head}) {
			s.lost[reason] += r.Count()
			s.leave(lane, r.Count())
			s.remember(LedgerEntry{ID: stream.ID{Epoch: id, Lane: lane}, Loss: stream.Loss{Range: r, Reason: reason}})
		}
		l.flights = nil
		s.landed(l, lane)
	}
	s.epochs = slices.DeleteFunc(s.epochs, func(x *epoch) bool { return x == e })
	return true
}

// conserved checks the conservation law with what waits counted from the ranges.
func (s *state) conserved() bool {
	sum := s.settled
	for _, n := range s.lost {
		sum += n
	}
	queued := uint64(0)
	byLane := [4]int64{}
	for _, e := range s.epochs {
		for _, lane := range stream.Lanes {
			n := e.lanes[lane].queued()
			queued += n
			byLane[lane] += int64(n)
		}
	}
	ok := s.accepted == sum+queued
	for _, lane := range stream.Lanes {
		q := &s.queues[lane]
		ok = ok && q.messages == byLane[lane] && q.flightMessages >= 0 && q.flightMessages <= q.messages
	}
	return ok
}

// fragments counts the ranges in all streams: what a snapshot must hold.
func (s *state) fragments() (n int) {
	for _, e := range s.epochs {
		for _, lane := range stream.Lanes {
			n += e.lanes[lane].done.Len() + len(e.lanes[lane].losses)
		}
	}
	return n
}
