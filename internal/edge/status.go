package edge

import (
	"maps"
	"os"
	"strings"
	"time"

	"github.com/packetboat/packetboat/internal/obs"
	"github.com/packetboat/packetboat/internal/uplink"
	"github.com/packetboat/packetboat/pkg/stream"
)

// Status is what an edge says of itself at /api/v1/status. Times are RFC 3339
// in UTC, spans in seconds, sizes in bytes; what is not known is left out.
type Status struct {
	Device   string        `json:"device"`
	Build    obs.Build     `json:"build"`
	PID      int           `json:"pid"`
	Started  time.Time     `json:"started"`
	Now      time.Time     `json:"now"`
	Ready    bool          `json:"ready"`
	NotReady []string      `json:"not_ready,omitempty"` // one line per reason
	Link     LinkStatus    `json:"link"`
	Messages MessageStatus `json:"messages"`
	Lanes    []LaneStatus  `json:"lanes"` // highest first
	Journal  JournalStatus `json:"journal"`
	Sensors  SensorStatus  `json:"sensors"`
	Losses   []LossStatus  `json:"losses,omitempty"` // the newest, newest first
}

// LinkStatus is the way to the hub.
type LinkStatus struct {
	State            uplink.State `json:"state"` // down, connecting, up or waiting
	Since            time.Time    `json:"since,omitzero"`
	Hub              string       `json:"hub,omitempty"` // in use, or tried last
	LastError        string       `json:"last_error,omitempty"`
	LastErrorAt      time.Time    `json:"last_error_at,omitzero"`
	RetryAt          time.Time    `json:"retry_at,omitzero"`
	LastAck          time.Time    `json:"last_ack,omitzero"`
	RoundTripSeconds float64      `json:"round_trip_seconds,omitempty"`
	Connects         int64        `json:"connects"`
	BatchesInFlight  int          `json:"batches_in_flight"`
	BytesSent        int64        `json:"bytes_sent"`
	BytesReceived    int64        `json:"bytes_received"`
	Codec            *CodecStatus `json:"encoding,omitempty"` // nil before the first connection
}

// MessageStatus counts messages over the life of the journal: accepted is
// settled + queued + in flight + lost. Dropped counts since the start.
type MessageStatus struct {
	Accepted       uint64            `json:"accepted"`
	Settled        uint64            `json:"settled"`
	Queued         uint64            `json:"queued"`
	InFlight       uint64            `json:"in_flight"`
	Lost           uint64            `json:"lost"`
	LostBy         map[string]uint64 `json:"lost_by,omitempty"` // reason
	Dropped        int64             `json:"dropped"`           // by a drop rule
	ConservationOK bool              `json:"conservation_ok"`
}

// LaneStatus is the backlog of a lane: not settled, in flight included.
type LaneStatus struct {
	Lane          stream.Lane `json:"lane"`
	Messages      int64       `json:"messages"`
	Bytes         int64       `json:"bytes"`
	Oldest        time.Time   `json:"oldest,omitzero"`
	OldestSeconds float64     `json:"oldest_seconds"`
}

// JournalStatus is the buffer on disk.
type JournalStatus struct {
	Dir        string `json:"dir"`
	Bytes      int64  `json:"bytes"`
	LimitBytes int64  `json:"limit_bytes"`
	Segments   int    `json:"segments"`
	Epochs     int    `json:"epochs"`
	Full       bool   `json:"full"`
	DiskError  string `json:"disk_error,omitempty"`
	Unreadable uint64 `json:"unreadable"` // numbers that the last start found damaged

	StateEntries    int    `json:"state_entries"` // sessions, subscriptions, retained and queued messages
	StateBytes      int64  `json:"state_bytes"`
	StateLimitBytes int64  `json:"state_limit_bytes"`
	StateDropped    uint64 `json:"state_dropped"` // entries that could not be read any more
}

// SensorStatus is the sensors' side: now, and what was counted since the start.
// Counts by name leave out those that are zero.
type SensorStatus struct {
	Clients       int              `json:"clients"`
	Sessions      int64            `json:"sessions"` // of clients that are away included
	Subscriptions int64            `json:"subscriptions"`
	Retained      int64            `json:"retained"`                  // messages
	Refused       int64            `json:"refused"`                   // messages
	RefusedBy     map[string]int64 `json:"refused_by,omitempty"`      // the buffer, by reason
	Denied        map[string]int64 `json:"denied,omitempty"`          // by the ACL: publish, subscribe, deliver, will
	BadLogins     int64            `json:"bad_logins"`                // wrong name or password, or none
	TurnedAway    map[string]int64 `json:"turned_away,omitempty"`     // connections before MQTT, by reason
	Limits        map[string]int64 `json:"limits,omitempty"`          // hits of limits, by name
	Errors        map[string]int64 `json:"protocol_errors,omitempty"` // connections ended for what the client sent, by kind
	StateFailures int64            `json:"state_failures"`            // changes of sessions that could not be saved
	Certificates  []Certificate    `json:"certificates,omitempty"`
}

// LossStatus is a run of messages that were given up.
type LossStatus struct {
	Epoch  stream.Epoch  `json:"epoch"`
	Lane   stream.Lane   `json:"lane"`
	First  uint64        `json:"first"`
	Last   uint64        `json:"last"`
	Reason stream.Reason `json:"reason"`
}

// maxLossesShown bounds the list in the status.
const maxLossesShown = 20

// Status takes a picture of the edge.
func (e *Edge) Status() Status {
	now := time.Now().UTC()
	s := Status{
		Device: e.config.Device, Build: obs.Version(), PID: os.Getpid(), Started: e.started.UTC(), Now: now,
		Link: e.linkStatus(), Losses: e.lossStatus(),
	}
	if err := e.health.CheckReady(); err != nil {
		s.NotReady = strings.Split(err.Error(), "\n")
	}
	s.Ready = s.NotReady == nil
	b := e.buffer.Stats()
	dropped := e.sensors.Stats()
	s.Messages = MessageStatus{Accepted: b.Accepted, Settled: b.Settled, Queued: b.Queued, InFlight: b.InFlight,
		LostBy: map[string]uint64{}, Dropped: dropped.Dropped, ConservationOK: b.ConservationOK}
	for _, r := range stream.Reasons {
		if n := b.Lost[r]; n > 0 {
			s.Messages.Lost += n
			s.Messages.LostBy[r.String()] = n
		}
	}
	for _, l := range stream.Lanes {
		x := b.Lanes[l]
		s.Lanes = append(s.Lanes, LaneStatus{Lane: l, Messages: x.Messages, Bytes: x.Bytes, Oldest: utc(x.Oldest), OldestSeconds: age(now, x.Oldest)})
	}
	s.Journal = JournalStatus{Dir: e.config.JournalDir(), Bytes: b.DiskBytes, LimitBytes: b.DiskLimit, Segments: b.Segments, Epochs: b.Epochs,
		Full: b.Full, DiskError: b.DiskError, Unreadable: b.Recovery.Unreadable,
		StateEntries: b.Entries, StateBytes: b.StateBytes, StateLimitBytes: b.StateLimit, StateDropped: b.StateDropped}
	s.Sensors = e.sensorStatus()
	return s
}

func (e *Edge) sensorStatus() SensorStatus {
	x := e.sensors.Stats()
	s := SensorStatus{RefusedBy: counted(x.Refused), Denied: counted(x.Denied), BadLogins: x.BadLogins, StateFailures: x.Unsaved,
		TurnedAway: counted(e.gate.Stats().Refused)}
	if list := e.expiring.Load(); list != nil {
		s.Certificates = *list
	}
	if f := e.front.Load(); f != nil {
		y := f.Stats()
		s.Clients, s.Refused = f.Clients(), y.Refused
		s.Sessions, s.Subscriptions, s.Retained = y.Sessions, y.Subscriptions, y.Retained
		s.Limits, s.Errors = counted(y.Limits), counted(y.ProtocolErrors)
	}
	return s
}

// counted leaves out what is zero.
func counted(m map[string]int64) map[string]int64 {
	maps.DeleteFunc(m, func(_ string, n int64) bool { return n == 0 })
	return m
}

func (e *Edge) linkStatus() LinkStatus {
	u := e.uplink.Stats()
	return LinkStatus{
		State: u.State, Since: utc(u.Since), Hub: u.Hub, LastError: u.LastError, LastErrorAt: utc(u.LastErrorAt), RetryAt: utc(u.RetryAt),
		LastAck: utc(u.LastAck), RoundTripSeconds: u.LastRoundTrip.Seconds(), Connects: u.Connects, BatchesInFlight: u.InFlightBatches,
		BytesSent: u.BytesSent, BytesReceived: u.BytesReceived, Codec: codecStatus(&u),
	}
}

func (e *Edge) lossStatus() (list []LossStatus) {
	all := e.buffer.Losses()
	for i := len(all) - 1; i >= 0 && len(list) < maxLossesShown; i-- {
		x := all[i]
		list = append(list, LossStatus{x.Epoch, x.Lane, x.First, x.Last, x.Reason})
	}
	return list
}

func utc(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC()
}

// age is the time since then in seconds, 0 when there is no then, or when a
// wrong clock puts it into the future.
func age(now, then time.Time) float64 {
	if then.IsZero() {
		return 0
	}
	return max(0, now.Sub(then).Seconds())
}
