package buffer

import (
	"slices"
	"time"

	"github.com/packetboat/packetboat/pkg/stream"
)

// maxMarks bounds the memory of when numbers were appended; beyond it
// neighbours are joined and take the earlier time.
const maxMarks = 1024

// firstUnsent is the lowest number that is stored, not settled or lost, and not
// in flight; 0: none.
func (l *laneState) firstUnsent() uint64 {
	for r := range l.done.Missing(stream.Range{First: 1, Last: l.head}) {
		for m := range l.inflight.Missing(r) {
			return m.First
		}
	}
	return 0
}

// runFrom is the run of unsent numbers that starts at first, which is one.
func (l *laneState) runFrom(first uint64) stream.Range {
	r := stream.Range{First: first, Last: l.head}
	for m := range l.done.Missing(r) {
		r = m
		break
	}
	for m := range l.inflight.Missing(r) {
		r = m
		break
	}
	return r
}

// floor is the lowest number that is still to be answered for; head+1: none.
func (l *laneState) floor() uint64 {
	n := l.head + 1
	for r := range l.done.Missing(stream.Range{First: 1, Last: l.head}) {
		n = r.First
		break
	}
	if len(l.losses) > 0 {
		n = min(n, l.losses[0].First)
	}
	return n
}

// undeclared lists up to limit losses below end that are not in flight.
func (l *laneState) undeclared(end uint64, limit int) (out []stream.Loss) {
	for _, loss := range l.losses {
		if loss.First >= end {
			break
		}
		for r := range l.inflight.Missing(loss.Range) {
			if len(out) == limit {
				return out
			}
			part := loss
			part.Range = r
			out = append(out, part)
		}
	}
	return out
}

// depart notes a batch as in flight.
func (s *state) depart(l *laneState, lane stream.Lane, f flight) {
	l.flights = append(l.flights, f)
	for r := range l.done.Missing(f.records) {
		l.inflight.Add(r)
	}
	for _, r := range f.losses {
		l.inflight.Add(r)
	}
	q := &s.queues[lane]
	q.flightMessages += l.aloft(&f)
	q.flightLen += f.bytes
}

// aloft counts the records of f that are not settled.
func (l *laneState) aloft(f *flight) (n int64) {
	for r := range l.done.Missing(f.records) {
		n += int64(r.Count())
	}
	return n
}

// landed brings the lane's flights in line with what is in flight still.
func (s *state) landed(l *laneState, lane stream.Lane) {
	l.flights = slices.DeleteFunc(l.flights, func(f flight) bool {
		return !l.inflight.Overlaps(f.records) && !slices.ContainsFunc(f.losses, l.inflight.Overlaps)
	})
	for len(l.appended) > 0 && l.done.ContainsRange(stream.Range{First: 1, Last: l.appended[0].last}) {
		l.appended = l.appended[1:]
	}
	s.recountFlights(lane)
}

func (s *state) recountFlights(lane stream.Lane) {
	q := &s.queues[lane]
	q.flightMessages, q.flightLen = 0, 0
	for _, e := range s.epochs {
		l := &e.lanes[lane]
		for i := range l.flights {
			q.flightMessages += l.aloft(&l.flights[i])
			q.flightLen += l.flights[i].bytes
		}
	}
}

// returned takes the flights that match back: they will be handed out again.
func (s *state) returned(l *laneState, lane stream.Lane, match func(*flight) bool) (any bool) {
	for i := range l.flights {
		f := &l.flights[i]
		if !match(f) {
			continue
		}
		any = true
		l.inflight.Remove(f.records)
		for _, r := range f.losses {
			l.inflight.Remove(r)
		}
	}
	if any {
		s.landed(l, lane)
	}
	return any
}

// noteAppend remembers when the numbers up to last were appended.
func (l *laneState) noteAppend(last uint64, at time.Time) {
	if len(l.appended) == maxMarks {
		half := make([]mark, 0, maxMarks)
		for i := 0; i+1 < len(l.appended); i += 2 {
			half = append(half, mark{l.appended[i+1].last, l.appended[i].at})
		}
		l.appended = half
	}
	l.appended = append(l.appended, mark{last, at})
}

// appendedAt says when number n was appended, if in this process.
func (l *laneState) appendedAt(n uint64, otherwise time.Time) time.Time {
	i, _ := slices.BinarySearchFunc(l.appended, n, func(m mark, n uint64) int {
		if m.last < n {
			return -1
		}
		return 1
	})
	if i == len(l.appended) {
		return otherwise
	}
	return l.appended[i].at
}
