package edge

import (
	"fmt"

	"github.com/packetboat/packetboat/internal/obs"
	"github.com/packetboat/packetboat/pkg/stream"
)

func (e *Edge) emitSensors(m *obs.Emit) {
	s := e.sensors.Stats()
	for _, l := range stream.Lanes {
		m.Counter("sensor_messages_total", "Messages of sensors given to the buffer since the start.", float64(s.Accepted[l]), "lane", l.String())
	}
	m.Counter("sensor_messages_dropped_total", "Messages that a drop rule matched.", float64(s.Dropped))
	for reason, n := range s.Refused {
		m.Counter("sensor_messages_refused_total", "Messages that were not taken, by reason.", float64(n), "reason", reason)
	}
	for what, n := range s.Denied {
		m.Counter("sensor_acl_denials_total", "What the acl denied: publish, subscribe, deliver (messages that a wider subscription did not get), will.", float64(n), "what", what)
	}
	m.Counter("sensor_state_failures_total", "Changes of sessions, retained messages and wills that could not be saved.", float64(s.Unsaved))
	m.Counter("sensor_bad_logins_total", "Connections with a wrong name or password, or with none where one is wanted.", float64(s.BadLogins))
	m.Counter("sensor_anonymous_connects_total", "Sensors admitted that proved no name.", float64(s.Anonymous))
	m.Counter("sensor_certificate_connects_total", "Sensors admitted whose name a certificate proved.", float64(s.Certified))
}

// emitDoors exports what happens before MQTT: at the listeners, and to their
// certificates.
func (e *Edge) emitDoors(m *obs.Emit) {
	g := e.gate.Stats()
	m.Gauge("listener_waiting_connections", "Connections that wait for their turn.", float64(g.Waiting))
	m.Gauge("listener_handshakes", "TLS and WebSocket handshakes under way.", float64(g.Handshaking))
	m.Counter("listener_arrived_connections_total", "Connections of sensors taken from the kernel.", float64(g.Arrived))
	m.Counter("listener_accepted_connections_total", "Connections whose handshakes were done.", float64(g.Accepted))
	m.Counter("listener_delayed_connections_total", "Connections that had to wait for the accept rate.", float64(g.Delayed))
	m.Counter("listener_crowded_handshakes_total", "Handshakes that had to wait because all places were taken.", float64(g.FullHandshakes))
	for reason, n := range g.Refused {
		m.Counter("listener_refused_connections_total", "Connections closed before MQTT, by reason.", float64(n), "reason", reason)
	}
	if list := e.expiring.Load(); list != nil {
		for _, x := range *list {
			m.Gauge("certificate_expiry_timestamp_seconds", "When a certificate ends, seconds since 1970.", float64(x.NotAfter.Unix()), "certificate", x.Name)
		}
	}
	if e.tls != nil {
		t := e.tls.Stats()
		m.Gauge("certificates_unusable", "Whether a changed file of sensors.tls cannot be used; the last good one is.", obs.Bool(t.Unusable))
		m.Gauge("revocation_lists", "Revocation lists of sensors' certificates.", float64(t.Lists))
		m.Gauge("revoked_certificates", "Certificates on these lists.", float64(t.Revoked))
		m.Gauge("revocation_lists_stale", "Whether a list should have been replaced by now.", obs.Bool(t.Stale))
	}
}

// emitFront exports what the MQTT server says.
func (e *Edge) emitFront(m *obs.Emit) {
	f := e.front.Load()
	if f == nil {
		return
	}
	x := f.Stats()
	m.Gauge("mqtt_connections", "Sockets of sensors, those that are not admitted included.", float64(x.Connections))
	m.Gauge("mqtt_clients", "Sensors that are connected.", float64(x.Clients))
	m.Gauge("mqtt_in_flight_messages", "Messages of sensors that wait for their acknowledgement.", float64(x.InflightMessages))
	m.Gauge("mqtt_in_flight_bytes", "Size of the messages that wait for their acknowledgement.", float64(x.InflightBytes))
	m.Gauge("mqtt_sessions", "Sessions, those of sensors that are away included.", float64(x.Sessions))
	m.Gauge("mqtt_strangers", "Connections that are not let in yet.", float64(x.Strangers))
	m.Gauge("mqtt_unreleased_ids", "Identifiers of QoS 2 messages that wait for their release.", float64(x.Unreleased))
	m.Gauge("mqtt_queued_messages", "Messages that wait for local subscribers.", float64(x.QueuedMessages))
	m.Gauge("mqtt_queued_bytes", "Size of the messages that wait for local subscribers.", float64(x.QueuedBytes))
	m.Gauge("mqtt_subscriptions", "Subscriptions of local clients.", float64(x.Subscriptions))
	m.Gauge("mqtt_retained_messages", "Retained messages kept for local clients.", float64(x.Retained))
	m.Counter("mqtt_connections_total", "Sockets accepted.", float64(x.Accepted))
	m.Counter("mqtt_accept_errors_total", "Times that a listener could not accept.", float64(x.AcceptErrors))
	m.Counter("mqtt_connects_total", "Sensors admitted.", float64(x.Connects))
	m.Counter("mqtt_takeovers_total", "Connections ended by a new one of the same client.", float64(x.TakeOvers))
	m.Counter("mqtt_connects_failed_total", "Connections that ended before they said who they are.", float64(x.ConnectsFailed))
	for code, n := range x.Refusals {
		m.Counter("mqtt_refused_connects_total", "Connections refused, by reason code.", float64(n), "code", fmt.Sprintf("0x%02x", code))
	}
	m.Counter("mqtt_received_messages_total", "Messages received.", float64(x.MessagesIn))
	m.Counter("mqtt_received_bytes_total", "Bytes of the messages received.", float64(x.BytesIn))
	m.Counter("mqtt_repeated_messages_total", "QoS 2 messages that were sent again and taken once.", float64(x.Repeats))
	for limit, n := range x.Limits {
		m.Counter("mqtt_limit_hits_total", "Times a limit was reached, by its name.", float64(n), "limit", limit)
	}
	m.Counter("mqtt_wills_dropped_total", "Wills that nobody takes after a restart.", float64(x.WillsDropped))
	m.Counter("mqtt_store_errors_total", "Changes of sessions that could not be made durable while somebody waited.", float64(x.StoreErrors))
	m.Counter("mqtt_unusable_entries_total", "Stored entries that the last start could not use.", float64(x.LoadDropped))
	m.Counter("mqtt_log_lines_left_out_total", "Lines not written because there were too many like them.", float64(x.LinesKept))
	m.Counter("mqtt_acks_total", "Acknowledgements written.", float64(x.Acks))
	m.Counter("mqtt_ack_writes_total", "Writes that carried acknowledgements.", float64(x.AckWrites))
	m.Counter("mqtt_ack_failures_total", "Writes of acknowledgements that failed.", float64(x.AckFailures))
	m.Counter("mqtt_refused_messages_total", "Messages answered with a refusal.", float64(x.Refused))
	m.Counter("mqtt_withheld_messages_total", "Messages left without an answer, so that the sensor sends them again.", float64(x.Withheld))
	m.Counter("mqtt_wills_total", "Wills published.", float64(x.Wills))
	m.Counter("mqtt_settled_twice_total", "Answers to a message beyond the first: a fault of the program.", float64(x.SettledTwice))
	m.Counter("mqtt_stall_timeouts_total", "Sensors that had to wait longer than they have patience.", float64(x.StallTimeouts))
	m.Counter("mqtt_stalls_total", "Times a sensor had to wait because a bound was reached.", float64(x.Stalls))
	for kind, n := range x.ProtocolErrors {
		m.Counter("mqtt_protocol_errors_total", "Connections ended because of what the client sent, by kind.", float64(n), "kind", kind)
	}
	m.Counter("mqtt_fan_out_messages_total", "Messages given to local subscribers.", float64(x.FanOut))
	for reason, n := range x.FanOutDropped {
		m.Counter("mqtt_fan_out_dropped_total", "Messages that local subscribers did not get, by reason.", float64(n), "reason", reason)
	}
}
