package edge

import (
	"time"

	"github.com/packetboat/packetboat/internal/obs"
	"github.com/packetboat/packetboat/internal/uplink"
	"github.com/packetboat/packetboat/pkg/stream"
)

// register exports the Stats of every part.
func (e *Edge) register() {
	e.metrics.Register(func(m *obs.Emit) {
		m.Gauge("start_time_seconds", "When the edge started, seconds since 1970.", float64(e.started.UnixMilli())/1000)
		m.Gauge("ready", "Whether the edge is ready, as /readyz says.", obs.Bool(e.health.CheckReady() == nil))
	})
	e.metrics.Register(e.emitBuffer)
	e.metrics.Register(e.emitLink)
	e.metrics.Register(e.emitSensors)
	e.metrics.Register(e.emitDoors)
	e.metrics.Register(e.emitFront)
}

func (e *Edge) emitBuffer(m *obs.Emit) {
	s := e.buffer.Stats()
	m.Counter("accepted_messages_total", "Messages that were given a number, over the life of the journal.", float64(s.Accepted))
	m.Counter("settled_messages_total", "Messages that are in the log, over the life of the journal.", float64(s.Settled))
	for _, r := range stream.Reasons {
		m.Counter("lost_messages_total", "Messages given up, by reason, over the life of the journal.", float64(s.Lost[r]), "reason", r.String())
	}
	m.Gauge("queued_messages", "Messages that wait to be sent.", float64(s.Queued))
	m.Gauge("in_flight_messages", "Messages sent and not answered.", float64(s.InFlight))
	m.Gauge("conservation_ok", "Whether accepted = settled + queued + in flight + lost.", obs.Bool(s.ConservationOK))
	now := time.Now()
	for _, l := range stream.Lanes {
		x, lane := s.Lanes[l], l.String()
		m.Gauge("backlog_messages", "Messages that are not settled, in flight included.", float64(x.Messages), "lane", lane)
		m.Gauge("backlog_bytes", "Encoded size of the messages that are not settled.", float64(x.Bytes), "lane", lane)
		m.Gauge("backlog_oldest_seconds", "Age of the oldest message that is not settled; 0: none.", age(now, x.Oldest), "lane", lane)
	}
	m.Gauge("epochs", "Epochs that the journal holds.", float64(s.Epochs))
	m.Gauge("journal_bytes", "Size of the journal's files.", float64(s.DiskBytes))
	m.Gauge("journal_limit_bytes", "Size that the journal's files may reach.", float64(s.DiskLimit))
	m.Gauge("journal_segments", "Files of the journal.", float64(s.Segments))
	m.Gauge("journal_spare_segments", "Files of the journal that are ready to be written.", float64(s.Spares))
	m.Gauge("journal_full", "Whether a lane refuses new messages because the journal is full.", obs.Bool(s.Full))
	m.Gauge("journal_disk_refuses", "Whether the disk refused the last write.", obs.Bool(s.DiskError != ""))
	m.Counter("journal_disk_errors_total", "Writes and syncs that the disk refused.", float64(s.DiskErrors))
	m.Counter("journal_commits_total", "Group commits.", float64(s.Commits))
	m.Counter("journal_syncs_total", "Syncs of journal files.", float64(s.Syncs))
	m.Counter("journal_appended_bytes_total", "Topic and payload of what was appended.", float64(s.BytesAppended))
	m.Counter("journal_written_bytes_total", "Bytes written to the journal, padding and state included.", float64(s.BytesWritten))
	m.Counter("journal_prepared_bytes_total", "Bytes written to make new files.", float64(s.BytesPrepared))
	m.Counter("journal_moved_messages_total", "Messages moved so that a file could be recycled.", float64(s.Moved))
	m.Gauge("state_entries", "Entries that the journal keeps for sessions, subscriptions, retained and queued messages.", float64(s.Entries))
	m.Gauge("state_bytes", "What these entries count of their limit.", float64(s.StateBytes))
	m.Gauge("state_limit_bytes", "Limit of these entries.", float64(s.StateLimit))
	m.Counter("state_dropped_entries_total", "Entries that could not be read any more.", float64(s.StateDropped))
	m.Counter("expired_messages_total", "Messages given up because their message expiry had passed, since the start.", float64(s.Expired))
	m.Gauge("recovery_seconds", "How long the last start took to read the journal.", s.Recovery.Took.Seconds())
	m.Gauge("recovery_damaged_frames", "Damaged frames that the last start passed by.", float64(s.Recovery.Damaged))
}

var linkStates = []uplink.State{uplink.Down, uplink.Connecting, uplink.Up, uplink.Waiting}

func (e *Edge) emitLink(m *obs.Emit) {
	s := e.uplink.Stats()
	for _, state := range linkStates {
		m.Gauge("link_state", "State of the link to the hub: 1 for the one it is in.", obs.Bool(s.State == state), "state", string(state))
	}
	m.Gauge("link_up", "Whether a hub is connected.", obs.Bool(s.State == uplink.Up))
	m.Counter("link_connects_total", "Welcomes received from a hub.", float64(s.Connects))
	m.Counter("link_connect_failures_total", "Connections that did not come to a welcome.", float64(s.ConnectFailures))
	m.Counter("link_connections_lost_total", "Connections that broke.", float64(s.ConnectionsLost))
	m.Counter("link_redirects_total", "Times a hub named another one.", float64(s.Redirects))
	m.Counter("link_sent_bytes_total", "Bytes sent to the hub, below TLS and above TCP.", float64(s.BytesSent))
	m.Counter("link_received_bytes_total", "Bytes received from the hub.", float64(s.BytesReceived))
	m.Counter("link_batches_sent_total", "Batches sent.", float64(s.BatchesSent))
	m.Counter("link_batches_settled_total", "Batches that the hub settled.", float64(s.BatchesSettled))
	m.Counter("link_batches_refused_total", "Batches that the hub refused for now.", float64(s.BatchesRefused))
	m.Counter("link_batches_bad_total", "Batches that the hub could not decode.", float64(s.BatchesBad))
	m.Counter("link_messages_sent_total", "Messages sent, resent ones again.", float64(s.MessagesSent))
	m.Counter("link_messages_settled_total", "Messages settled by the answer to their batch.", float64(s.MessagesSettled))
	m.Counter("link_messages_resent_total", "Messages sent and not settled by the answer.", float64(s.MessagesResent))
	m.Counter("link_losses_declared_total", "Losses told to the hub.", float64(s.LossesDeclared))
	m.Counter("link_messages_quarantined_total", "Messages that the hub cannot decode.", float64(s.Quarantined))
	m.Counter("link_messages_too_large_total", "Messages that exceed the hub's packet limit.", float64(s.TooLarge))
	m.Counter("link_epochs_stale_total", "Epochs given up because their log forgot them.", float64(s.EpochsStale))
	emitCodec(m, &s)
	m.Gauge("link_in_flight_batches", "Batches sent and not answered.", float64(s.InFlightBatches))
	m.Gauge("link_in_flight_bytes", "Bytes of batches sent and not answered.", float64(s.InFlightBytes))
	m.Gauge("link_window_batches", "Batches that the hub lets be in flight.", float64(s.WindowBatches))
	m.Gauge("link_round_trip_seconds", "Time from the last answered batch to its answer.", s.LastRoundTrip.Seconds())
}
