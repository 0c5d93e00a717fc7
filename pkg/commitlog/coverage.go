package commitlog

import (
	"errors"
	"fmt"
	"slices"

	"github.com/packetboat/packetboat/pkg/stream"
)

// ErrInvalid is what Apply and Check return, wrapped with what is wrong; logs
// answer it with ErrRejected.
var ErrInvalid = errors.New("invalid entry")

// DeviceCoverage is what a log says of one device: a fold over the device's
// entries, in the order of the log. The zero value has seen none. It is not
// safe for concurrent use; EpochStates are, because they never change.
type DeviceCoverage struct {
	// Epochs in the order of first sight. What they point to is never changed:
	// Apply and Expire put new ones in their place.
	Epochs []*EpochState
	// Forgotten counts the closed and complete epochs that were let go of.
	Forgotten uint64
	// Current is the epoch in use at the connection that appended last; zero:
	// none has said.
	Current stream.Epoch
}

// EpochState is what a log says of one epoch. It must not be changed.
type EpochState struct {
	ID stream.Epoch
	// Order is the how-manyth epoch of the device it is, from 1, by first
	// sight, forgotten ones counted.
	Order uint64
	// Closed says that it is not the epoch in use at the connection that
	// appended last.
	Closed bool
	// Lanes is indexed by stream.Lane; 0 is not used.
	Lanes [4]LaneState
}

// LaneState is what a log says of one stream. It must not be changed.
type LaneState struct {
	// In holds the numbers whose records the log took, Lost the ones declared
	// lost; they are disjoint. A number that is in either is settled.
	In, Lost stream.RangeSet
	// Losses say more of Lost: ascending, those that touch and agree in reason
	// merged, at most MaxLosses.
	Losses []stream.Loss
	// LostBy counts all of Lost by reason, exactly.
	LostBy [len(stream.Reasons) + 1]uint64
	// Head is the highest number told or settled.
	Head uint64
	// Floor and Oldest are what the edge said last, see Entry.
	Floor  uint64
	Oldest int64
	// Newest is the latest known event time of a record, µs; 0: none.
	Newest int64
	// Received is when the log last got an entry of the stream, µs; 0: never.
	Received int64
	// Expired is the part of In whose records retention has deleted.
	Expired stream.RangeSet
	// FIFO says that the lane drained in strict order when it last sent.
	FIFO bool
}

// IsZero reports whether the log has heard nothing of the stream.
func (l *LaneState) IsZero() bool {
	return l.Head == 0 && l.Floor == 0 && l.Received == 0 && l.In.IsEmpty() && l.Lost.IsEmpty()
}

// Complete reports whether every number up to Head is settled.
func (l *LaneState) Complete() bool { return l.In.Count()+l.Lost.Count() == l.Head }

// Settled is In and Lost together, a set of the caller's.
func (l *LaneState) Settled() stream.RangeSet {
	all := l.In.Clone()
	all.AddSet(&l.Lost)
	return all
}

// Out holds the numbers up to Head that are not settled: what is still out
// there. The set is the caller's.
func (l *LaneState) Out() stream.RangeSet {
	all := l.Settled()
	return stream.Collect(all.Missing(stream.Range{First: 1, Last: l.Head}))
}

// Complete reports whether all lanes of the epoch are.
func (e *EpochState) Complete() bool {
	for i := range e.Lanes {
		if !e.Lanes[i].Complete() {
			return false
		}
	}
	return true
}

// Clone copies the coverage. It costs a pointer per epoch, because what they
// point to never changes.
func (d *DeviceCoverage) Clone() *DeviceCoverage {
	c := *d
	c.Epochs = slices.Clone(d.Epochs)
	return &c
}

// Epoch is what is known of one epoch; nil: nothing.
func (d *DeviceCoverage) Epoch(id stream.Epoch) *EpochState {
	if i := d.index(id); i >= 0 {
		return d.Epochs[i]
	}
	return nil
}

// index searches from the newest, which is the one usually asked for.
func (d *DeviceCoverage) index(id stream.Epoch) int {
	for i := len(d.Epochs) - 1; i >= 0; i-- {
		if d.Epochs[i].ID == id {
			return i
		}
	}
	return -1
}

// Lane is what is known of one stream; nil: its epoch is not known or the lane
// is none. The device of id is not looked at.
func (d *DeviceCoverage) Lane(id stream.ID) *LaneState {
	e := d.Epoch(id.Epoch)
	if e == nil || !id.Lane.Valid() {
		return nil
	}
	return &e.Lanes[id.Lane]
}

// Settled holds the settled numbers of a stream, in a set of the caller's.
func (d *DeviceCoverage) Settled(id stream.ID) (s stream.RangeSet) {
	if l := d.Lane(id); l != nil {
		s = l.Settled()
	}
	return s
}

// Welcome is the coverage as an edge is told it when it connects, in the order
// of first sight: every epoch, the lanes that anything is known of.
func (d *DeviceCoverage) Welcome() []stream.EpochCoverage {
	all := make([]stream.EpochCoverage, 0, len(d.Epochs))
	for _, e := range d.Epochs {
		c := stream.EpochCoverage{Epoch: e.ID}
		for _, lane := range stream.Lanes {
			if l := &e.Lanes[lane]; !l.In.IsEmpty() || !l.Lost.IsEmpty() {
				c.Lanes = append(c.Lanes, stream.LaneCoverage{Lane: lane, Settled: l.Settled(), Lost: l.Lost.Clone()})
			}
		}
		all = append(all, c)
	}
	return all
}

// Expire notes that retention has deleted records of a stream: the numbers of
// r that are in the log. It returns the epoch's new state, nil if nothing
// changed.
func (d *DeviceCoverage) Expire(id stream.ID, ranges ...stream.Range) *EpochState {
	i := d.index(id.Epoch)
	if i < 0 || !id.Lane.Valid() {
		return nil
	}
	e := *d.Epochs[i]
	l := &e.Lanes[id.Lane]
	expired := l.Expired.Clone()
	for _, r := range ranges {
		for in := range l.In.Within(r) {
			expired.Add(in)
		}
	}
	if expired.Equal(&l.Expired) {
		return nil
	}
	l.Expired = expired
	d.Epochs[i] = &e
	return &e
}

// Check says whether Apply would take e, without changing anything. What is
// wrong is ErrInvalid.
func (d *DeviceCoverage) Check(e *Entry) error {
	if err := checkEntry(e); err != nil {
		return err
	}
	l := d.Lane(e.ID)
	if l == nil {
		if len(d.Epochs) >= MaxIncomplete {
			return invalid(e, "the device has %d epochs that are not complete", len(d.Epochs))
		}
		l = &LaneState{}
	}
	for _, r := range runs(e.Records) {
		if l.In.Overlaps(r) || l.Lost.Overlaps(r) {
			return invalid(e, "some number of %s is settled", r)
		}
	}
	for i := range e.Losses {
		if r := e.Losses[i].Range; l.In.Overlaps(r) || l.Lost.Overlaps(r) {
			return invalid(e, "some number of the loss %s is settled", r)
		}
	}
	return nil
}

// Late reports whether some record of e comes after a record of its stream with
// a higher number. Who appends it in a lane that does not drain in strict order
// marks it stream.Backfill.
func (d *DeviceCoverage) Late(e *Entry) bool {
	l := d.Lane(e.ID)
	return l != nil && len(e.Records) > 0 && e.Records[0].Seq < l.In.Max()
}

func invalid(e *Entry, format string, args ...any) error {
	return fmt.Errorf("%w of stream %s: %s", ErrInvalid, e.ID, fmt.Sprintf(format, args...))
}

// checkEntry checks what needs no coverage.
func checkEntry(e *Entry) error {
	const highest = ^uint64(0) - 1
	if err := stream.CheckDeviceID(e.ID.Device); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if e.ID.Epoch.IsZero() || !e.ID.Lane.Valid() {
		return invalid(e, "not a stream")
	}
	if e.Head > highest {
		return invalid(e, "head %d is too high", e.Head)
	}
	var last uint64
	for i := range e.Records {
		seq := e.Records[i].Seq
		if seq <= last || seq > highest {
			return invalid(e, "record %d is out of order", seq)
		}
		last = seq
	}
	if len(e.Losses) == 0 {
		return nil
	}
	var all stream.RangeSet
	for _, r := range runs(e.Records) {
		all.Add(r)
	}
	for i := range e.Losses {
		l := &e.Losses[i]
		switch {
		case !l.Reason.Valid():
			return invalid(e, "loss %s has no known reason", l.Range)
		case l.First == 0 || l.Last < l.First || l.Last > highest:
			return invalid(e, "loss %s is not a range", l.Range)
		case all.Overlaps(l.Range):
			return invalid(e, "some number of the loss %s is named twice", l.Range)
		}
		all.Add(l.Range)
	}
	return nil
}

// runs gives the ranges that ascending records make.
func runs(recs []stream.Record) (all []stream.Range) {
	for i := range recs {
		seq := recs[i].Seq
		if n := len(all); n > 0 && all[n-1].Last+1 == seq {
			all[n-1].Last = seq
		} else {
			all = append(all, stream.Range{First: seq, Last: seq})
		}
	}
	return all
}
