package httpapi

import (
	"fmt"
	"time"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

// Ranges is a set of sequence numbers in JSON. Runs may hold fewer than Count
// numbers, the lowest runs first; then Cut is set.
type Ranges struct {
	Count uint64      `json:"count"`
	Runs  [][2]uint64 `json:"ranges"` // [first, last], both included
	Cut   bool        `json:"cut,omitempty"`
}

// Loss is a run of numbers that were given up, and why.
type Loss struct {
	First  uint64        `json:"first"`
	Last   uint64        `json:"last"`
	Count  uint64        `json:"count"`
	Reason stream.Reason `json:"reason"`
	// From and To bound the times of what was lost; absent where nobody knows.
	From   string `json:"from,omitempty"`
	To     string `json:"to,omitempty"`
	FromUS int64  `json:"from_us,omitempty"`
	ToUS   int64  `json:"to_us,omitempty"`
}

// Epoch is one life of a device's buffer as the log knows it.
type Epoch struct {
	Epoch  stream.Epoch `json:"epoch"`
	Order  uint64       `json:"order"` // by first sight, from 1
	Closed bool         `json:"closed"`
}

// Stream is what the log says of one stream. Times are µs since 1970 UTC,
// absent or 0: none.
type Stream struct {
	Epoch  stream.Epoch `json:"epoch"`
	Lane   stream.Lane  `json:"lane"`
	Closed bool         `json:"closed"`
	FIFO   bool         `json:"fifo"`
	Head   uint64       `json:"head"`
	Floor  uint64       `json:"floor"`

	In      Ranges `json:"in"`
	Lost    Ranges `json:"lost"`
	Expired Ranges `json:"expired"`
	// OutThere are the numbers up to Head that are not settled; Absent counts
	// those of them that the connected edge does not hold.
	OutThere Ranges `json:"out_there"`
	Absent   uint64 `json:"absent"`

	LostBy map[string]uint64 `json:"lost_by,omitempty"`
	Losses []Loss            `json:"losses"`

	OldestUS   int64 `json:"oldest_us,omitempty"`
	NewestUS   int64 `json:"newest_us,omitempty"`
	ReceivedUS int64 `json:"received_us,omitempty"`

	CompleteTo   string `json:"complete_to,omitempty"`
	CompleteToUS int64  `json:"complete_to_us,omitempty"`
}

// Device is what the hub says of one device in a list.
type Device struct {
	Device    string     `json:"device"`
	Shard     int        `json:"shard"`
	Connected bool       `json:"connected"`
	Since     *time.Time `json:"since,omitempty"`      // when it connected, or its last connection ended
	LastBatch *time.Time `json:"last_batch,omitempty"` // settled
	Remote    string     `json:"remote,omitempty"`     // address of the connection, or of the last one
	// Duplicate is the last sign of two live devices with this id.
	Duplicate *Duplicate `json:"duplicate,omitempty"`
	// Codec is how its batches are encoded, while it is connected.
	Codec *DeviceCodec `json:"codec,omitempty"`
}

// DeviceCodec tells of a connection's codec session.
type DeviceCodec struct {
	Name string `json:"name"` // rows, or the newest that both sides speak
	// LimitBytes is how much the session may keep in memory, 0 where every batch
	// stands for itself; StateBytes what it does.
	LimitBytes int64 `json:"limit_bytes"`
	StateBytes int64 `json:"state_bytes"`
}

// DeviceStreams answers /api/v1/devices/{id}/streams.
type DeviceStreams struct {
	Device
	Current   *stream.Epoch `json:"current_epoch,omitempty"`
	Forgotten uint64        `json:"forgotten_epochs"`
	// CompleteTo is the time up to which, as far as the edge has told, every
	// record is in the log or declared lost; absent: it is not known.
	CompleteTo   string   `json:"complete_to,omitempty"`
	CompleteToUS int64    `json:"complete_to_us,omitempty"`
	Epochs       []Epoch  `json:"epochs"`
	Streams      []Stream `json:"streams"`
}

// newRanges shows at most limit runs of s; limit < 0: all.
func newRanges(s *stream.RangeSet, limit int) Ranges {
	all := s.Ranges()
	out := Ranges{Count: s.Count()}
	if limit >= 0 && len(all) > limit {
		all, out.Cut = all[:limit], true
	}
	out.Runs = make([][2]uint64, len(all))
	for i, r := range all {
		out.Runs[i] = [2]uint64{r.First, r.Last}
	}
	return out
}

// set gives the numbers back. A set that was cut is an error.
func (r *Ranges) set() (s stream.RangeSet, err error) {
	for _, x := range r.Runs {
		s.Add(stream.Range{First: x[0], Last: x[1]})
	}
	if r.Cut || s.Count() != r.Count {
		return s, fmt.Errorf("the answer names %d of %d sequence numbers", s.Count(), r.Count)
	}
	return s, nil
}

// newDeviceStreams shows cov; at most limit runs of each set.
func newDeviceStreams(d Device, cov *commitlog.DeviceCoverage, absent map[stream.ID]uint64, limit int) *DeviceStreams {
	out := &DeviceStreams{Device: d, Epochs: []Epoch{}, Streams: []Stream{}}
	if cov == nil {
		return out
	}
	out.Forgotten = cov.Forgotten
	if !cov.Current.IsZero() {
		out.Current = &cov.Current
	}
	for _, e := range cov.Epochs {
		out.Epochs = append(out.Epochs, Epoch{Epoch: e.ID, Order: e.Order, Closed: e.Closed})
		for _, lane := range stream.Lanes {
			if l := &e.Lanes[lane]; !l.IsZero() {
				out.Streams = append(out.Streams, newStream(e, lane, absent[stream.ID{Device: d.Device, Epoch: e.ID, Lane: lane}], limit))
			}
		}
	}
	out.CompleteToUS = completeTo(out.Streams)
	out.CompleteTo = rfc3339(out.CompleteToUS)
	return out
}

func newStream(e *commitlog.EpochState, lane stream.Lane, absent uint64, limit int) Stream {
	l := &e.Lanes[lane]
	out := l.Out()
	s := Stream{
		Epoch: e.ID, Lane: lane, Closed: e.Closed, FIFO: l.FIFO, Head: l.Head, Floor: l.Floor,
		In: newRanges(&l.In, limit), Lost: newRanges(&l.Lost, limit), Expired: newRanges(&l.Expired, limit),
		OutThere: newRanges(&out, limit), Absent: min(absent, out.Count()),
		Losses: []Loss{}, OldestUS: l.Oldest, NewestUS: l.Newest, ReceivedUS: l.Received,
	}
	for _, r := range stream.Reasons {
		if n := l.LostBy[r]; n > 0 {
			if s.LostBy == nil {
				s.LostBy = make(map[string]uint64)
			}
			s.LostBy[r.String()] = n
		}
	}
	for _, x := range l.Losses {
		s.Losses = append(s.Losses, Loss{First: x.First, Last: x.Last, Count: x.Count(), Reason: x.Reason,
			From: rfc3339(x.From), To: rfc3339(x.To), FromUS: x.From, ToUS: x.To})
	}
	switch {
	case out.IsEmpty():
		s.CompleteToUS = l.Newest
	case l.Oldest > 0:
		s.CompleteToUS = l.Oldest - 1
	}
	s.CompleteTo = rfc3339(s.CompleteToUS)
	return s
}

// completeTo is the time up to which all streams are complete: before the
// oldest record that is out there, or up to the newest where nothing is. 0: not
// known.
func completeTo(all []Stream) int64 {
	newest, oldest, missing := int64(0), int64(0), false
	for i := range all {
		s := &all[i]
		switch {
		case s.OutThere.Count == 0:
			newest = max(newest, s.NewestUS)
		case s.CompleteToUS == 0:
			return 0
		case !missing || s.CompleteToUS < oldest:
			oldest, missing = s.CompleteToUS, true
		}
	}
	if missing {
		return oldest
	}
	return newest
}

// Coverage gives the coverage back as the log holds it.
func (d *DeviceStreams) Coverage() (*commitlog.DeviceCoverage, error) {
	cov := &commitlog.DeviceCoverage{Forgotten: d.Forgotten}
	if d.Current != nil {
		cov.Current = *d.Current
	}
	byID := make(map[stream.Epoch]*commitlog.EpochState, len(d.Epochs))
	for _, e := range d.Epochs {
		state := &commitlog.EpochState{ID: e.Epoch, Order: e.Order, Closed: e.Closed}
		cov.Epochs, byID[e.Epoch] = append(cov.Epochs, state), state
	}
	for i := range d.Streams {
		s := &d.Streams[i]
		e := byID[s.Epoch]
		if e == nil || !s.Lane.Valid() {
			return nil, fmt.Errorf("stream %s/%s belongs to no epoch of the answer", s.Epoch, s.Lane)
		}
		if err := s.state(&e.Lanes[s.Lane]); err != nil {
			return nil, fmt.Errorf("reading the coverage of %s/%s/%s: %w", d.Device.Device, s.Epoch, s.Lane, err)
		}
	}
	return cov, nil
}

func (s *Stream) state(l *commitlog.LaneState) (err error) {
	l.Head, l.Floor, l.Oldest, l.Newest, l.Received, l.FIFO = s.Head, s.Floor, s.OldestUS, s.NewestUS, s.ReceivedUS, s.FIFO
	if l.In, err = s.In.set(); err != nil {
		return err
	}
	if l.Lost, err = s.Lost.set(); err != nil {
		return err
	}
	if l.Expired, err = s.Expired.set(); err != nil {
		return err
	}
	for _, r := range stream.Reasons {
		l.LostBy[r] = s.LostBy[r.String()]
	}
	for _, x := range s.Losses {
		l.Losses = append(l.Losses, stream.Loss{Range: stream.Range{First: x.First, Last: x.Last}, Reason: x.Reason, From: x.FromUS, To: x.ToUS})
	}
	return nil
}
