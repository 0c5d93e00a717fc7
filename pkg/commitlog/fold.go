package commitlog

import (
	"cmp"
	"slices"

	"github.com/packetboat/packetboat/pkg/stream"
)

// Change is what one entry changed in a device's coverage.
type Change struct {
	// Epoch is the new state of the entry's epoch.
	Epoch *EpochState
	// New says that the epoch was not known before.
	New bool
	// Forgotten are the epochs let go of; nearly always none.
	Forgotten []stream.Epoch
	// Device says that Current or Forgotten of the coverage changed.
	Device bool
}

// Apply folds one entry in. It is the only rule by which coverage comes about:
// logs and ingest both use it.
//
//   - Settled is what is in or lost. An entry that settles a settled number is
//     refused (ErrInvalid), and so is one that is malformed; nothing changes
//     then. So the first to settle a number wins, and who appends must trim
//     before.
//   - Head is the highest number told or settled.
//   - An epoch is closed while it is not the Current of the last entry that
//     named one.
//   - Beyond MaxEpochs the epochs that are closed and complete are forgotten, the
//     first seen first.
//
// The cost is that of copying the coverage of the epoch's touched lane.
func (d *DeviceCoverage) Apply(e *Entry) (Change, error) {
	if err := d.Check(e); err != nil {
		return Change{}, err
	}
	var ch Change
	i := d.index(e.ID.Epoch)
	next := EpochState{ID: e.ID.Epoch, Order: d.Forgotten + uint64(len(d.Epochs)) + 1}
	if i >= 0 {
		next = *d.Epochs[i]
	}
	lane := &next.Lanes[e.ID.Lane]
	before := lane.size()
	lane.settle(e)
	if n := lane.size(); n > MaxRanges && n > before {
		return Change{}, invalid(e, "the coverage of the stream has more than %d ranges", MaxRanges)
	}
	if i < 0 {
		ch.New = true
		i = len(d.Epochs)
		d.Epochs = append(d.Epochs, nil)
	}
	if !e.Current.IsZero() && e.Current != d.Current {
		d.setCurrent(e.Current)
		ch.Device = true
	}
	next.Closed = d.closed(next.ID)
	ch.Epoch = &next
	d.Epochs[i] = ch.Epoch
	if len(d.Epochs) > MaxEpochs {
		ch.Forgotten = d.forget()
		ch.Device = ch.Device || len(ch.Forgotten) > 0
	}
	return ch, nil
}

func (l *LaneState) size() int { return l.In.Len() + l.Lost.Len() + l.Expired.Len() }

func (d *DeviceCoverage) closed(id stream.Epoch) bool { return !d.Current.IsZero() && id != d.Current }

// setCurrent makes another epoch the one in use. Epochs go from open to closed
// and back; at most two change, or all when there was no Current before.
func (d *DeviceCoverage) setCurrent(id stream.Epoch) {
	d.Current = id
	for i, e := range d.Epochs {
		if e == nil {
			continue // the one that Apply is adding
		}
		if closed := d.closed(e.ID); closed != e.Closed {
			changed := *e
			changed.Closed = closed
			d.Epochs[i] = &changed
		}
	}
}

// forget lets go of the first seen epochs that are closed and complete until
// MaxEpochs are left or none qualifies.
func (d *DeviceCoverage) forget() (gone []stream.Epoch) {
	over := len(d.Epochs) - MaxEpochs
	d.Epochs = slices.DeleteFunc(d.Epochs, func(e *EpochState) bool {
		if over <= 0 || !e.Closed || !e.Complete() {
			return false
		}
		over--
		gone = append(gone, e.ID)
		return true
	})
	d.Forgotten += uint64(len(gone))
	return gone
}

// settle folds a checked entry into the lane, whose sets are shared with older
// states and so copied before they change.
func (l *LaneState) settle(e *Entry) {
	l.Head = max(l.Head, e.Head)
	if e.Floor != 0 {
		l.Floor, l.Oldest = e.Floor, e.Oldest
	}
	l.Received = max(l.Received, e.Received)
	if len(e.Records) > 0 || len(e.Losses) > 0 {
		l.FIFO = e.Flags&stream.FIFO != 0
	}
	if len(e.Records) > 0 {
		l.In = l.In.Clone()
		for _, r := range runs(e.Records) {
			l.In.Add(r)
		}
		for i := range e.Records {
			if m := &e.Records[i].Message; m.Quality != stream.TimeUnknown {
				l.Newest = max(l.Newest, m.Time)
			}
		}
		l.Head = max(l.Head, l.In.Max())
	}
	if len(e.Losses) > 0 {
		l.Lost = l.Lost.Clone()
		for _, x := range e.Losses {
			l.Lost.Add(x.Range)
			l.LostBy[x.Reason] += x.Count()
		}
		l.Losses = mergeLosses(l.Losses, e.Losses)
		l.Head = max(l.Head, l.Lost.Max())
	}
}

// mergeLosses gives old and more as one ascending list, without changing
// either.
func mergeLosses(old, more []stream.Loss) []stream.Loss {
	all := make([]stream.Loss, 0, len(old)+len(more))
	all = append(append(all, old...), more...)
	slices.SortFunc(all, func(a, b stream.Loss) int { return cmp.Compare(a.First, b.First) })
	n := 0
	for _, x := range all[1:] {
		if p := &all[n]; p.Last+1 == x.First && p.Reason == x.Reason && timed(p) == timed(&x) {
			p.Last, p.From, p.To = x.Last, min(p.From, x.From), max(p.To, x.To)
			continue
		}
		n++
		all[n] = x
	}
	all = all[:n+1]
	return slices.Clip(all[max(0, len(all)-MaxLosses):])
}

// timed reports whether anybody knows when the lost messages were accepted.
func timed(l *stream.Loss) bool { return l.From != 0 || l.To != 0 }
