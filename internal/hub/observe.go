package hub

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/packetboat/packetboat/internal/httpapi"
	"github.com/packetboat/packetboat/internal/obs"
	"github.com/packetboat/packetboat/pkg/codec"
	"github.com/packetboat/packetboat/pkg/ingest"
	"github.com/packetboat/packetboat/pkg/stream"
)

// observe makes the API and registers what the parts say of themselves.
func (h *Hub) observe() {
	host, _, _ := net.SplitHostPort(h.c.Listen.HTTP)
	h.api = httpapi.New(httpapi.Options{
		Log: h.store, Links: h.links, Status: h.status, Operational: obs.Mux(h.metrics, h.health),
		LoopbackOnly: isLoopback(host), Logger: h.log.With("component", "http"),
	})
	h.health.Alive("commit log", func() error {
		if f := h.store.Stats().Failure; f != "" {
			return errors.New(f)
		}
		return nil
	})
	h.health.Ready("ingest", h.ingest.Ready)
	h.health.Ready("disk", func() error {
		if s := h.store.Stats(); s.Full {
			return fmt.Errorf("%d bytes are free, store.min_free keeps %d; batches are refused", s.FreeBytes, int64(h.c.Store.MinFree))
		}
		return nil
	})
	h.metrics.Register(h.emitIngest)
	h.metrics.Register(h.emitCodec)
	h.metrics.Register(h.emitStore)
	h.metrics.Register(h.emitFront)
	h.metrics.Register(h.emitBridge)
	h.metrics.Register(h.emitAPI)
	h.metrics.Register(h.emitGate)
	h.metrics.Register(h.emitTLS)
}

// links tells the API what ingest knows of the devices' connections.
func (h *Hub) links() []httpapi.Link {
	all := h.ingest.Devices()
	links := make([]httpapi.Link, 0, len(all))
	for i := range all {
		d := &all[i]
		l := httpapi.Link{Device: d.Device, Connected: d.Connected, Since: d.Since, LastBatch: d.LastBatch, Remote: d.Origin, Duplicate: duplicate(d), Codec: codecOf(d)}
		for _, s := range d.Streams {
			if s.Absent > 0 {
				if l.Absent == nil {
					l.Absent = make(map[stream.ID]uint64)
				}
				l.Absent[stream.ID{Device: d.Device, Epoch: s.Epoch, Lane: s.Lane}] = s.Absent
			}
		}
		links = append(links, l)
	}
	return links
}

// codecOf tells of a connected device's codec session.
func codecOf(d *ingest.DeviceStatus) *httpapi.DeviceCodec {
	switch {
	case !d.Connected:
		return nil
	case d.Learns:
		return &httpapi.DeviceCodec{Name: codec.Learning.String(), LimitBytes: d.CodecGranted, StateBytes: d.CodecBytes}
	}
	return &httpapi.DeviceCodec{Name: codec.Rows.String()}
}

// byLabel emits one counter per key of a closed set.
func byLabel[K comparable](e *obs.Emit, name, help, label string, counts map[K]int64) {
	for k, n := range counts {
		e.Counter(name, help, float64(n), label, fmt.Sprint(k))
	}
}

func (h *Hub) emitIngest(e *obs.Emit) {
	s := h.ingest.Stats()
	e.Gauge("shards", "Shards of the log.", float64(s.Shards))
	e.Gauge("served_shards", "Shards owned and served now.", float64(s.Served))
	e.Gauge("sessions", "Devices connected now.", float64(s.Sessions))
	e.Gauge("remembered_devices", "Devices remembered, connected or not.", float64(s.Devices))
	e.Gauge("window_bytes", "Windows granted to devices.", float64(s.WindowBytes))
	e.Gauge("pending_bytes", "Memory of batches that are not answered.", float64(s.PendingBytes))
	e.Counter("connects_total", "Devices admitted.", float64(s.Connects))
	e.Counter("takeovers_total", "Devices admitted in place of an open connection.", float64(s.Takeovers))
	e.Counter("duplicate_device_total", "Connections that showed two live devices with one id.", float64(s.Twins))
	byLabel(e, "busy_total", "Devices asked to come again.", "reason", s.Busy)
	byLabel(e, "revoked_total", "Connections ended by the hub.", "reason", s.Revoked)
	e.Counter("settled_batches_total", "Batches acknowledged.", float64(s.Batches))
	byLabel(e, "refused_batches_total", "Batches not taken.", "reason", s.Refused)
	e.Counter("bad_batches_total", "Batches that could not be decoded.", float64(s.Bad))
	e.Counter("overlapping_batches_total", "Batches that waited for one with the same numbers.", float64(s.Overlaps))
	e.Counter("appended_messages_total", "Records appended to the log.", float64(s.Records))
	e.Counter("appended_bytes_total", "Topics, payloads and properties appended.", float64(s.Bytes))
	byLabel(e, "lost_messages_total", "Numbers that devices declared lost.", "reason", s.Losses)
	e.Counter("duplicate_messages_total", "Numbers that were settled already and not appended again.", float64(s.Duplicates))
	e.Counter("appends_total", "Appends to the log, whatever came of them.", float64(s.Appends))
	e.Counter("append_seconds_total", "Time spent in appends.", s.AppendTime.Seconds())
	byLabel(e, "failed_appends_total", "Appends that did not end well.", "outcome",
		map[string]int64{"rejected": s.Rejected - s.NoSpace, "no_space": s.NoSpace, "fenced": s.Fenced, "unknown": s.Unknown})
	e.Counter("recovered_batches_total", "Batches of unknown outcome that coverage showed to be in.", float64(s.Recovered))
	e.Counter("shards_acquired_total", "Times a shard was acquired.", float64(s.Acquired))
	e.Counter("acquire_errors_total", "Times acquiring a shard did not succeed.", float64(s.AcquireErrors))
	e.Counter("stale_streams_total", "Held streams that the log has answered for and forgotten.", float64(s.StaleStreams))
	e.Counter("log_went_back_total", "Times a device showed that the log had gone back unnoticed.", float64(s.WentBack))
	e.Counter("incarnations_total", "Incarnations that the log took because of that.", float64(s.Incarnations))
}

func (h *Hub) emitCodec(e *obs.Emit) {
	s := h.ingest.Stats().Codec
	e.Gauge("codec_sessions", "Devices connected now whose codec session may learn.", float64(s.Sessions))
	e.Gauge("codec_state_bytes", "What these sessions keep in memory.", float64(s.StateBytes))
	e.Gauge("codec_kept_sessions", "Sessions kept for devices that are away.", float64(s.Kept))
	e.Gauge("codec_kept_bytes", "What these keep in memory.", float64(s.KeptBytes))
	e.Counter("codec_fresh_sessions_total", "Sessions that began with nothing learned.", float64(s.Fresh))
	e.Counter("codec_resumed_sessions_total", "Times a session was given to a new connection to go on with.", float64(s.Resumed))
	byLabel(e, "codec_dropped_sessions_total", "Sessions let go of.", "reason", s.Dropped)
	e.Counter("codec_self_contained_batches_total", "Batches of devices that could learn and had no room for it.", float64(s.SelfContained))
}

func (h *Hub) emitStore(e *obs.Emit) {
	s := h.store.Stats()
	id := h.store.ID()
	e.Gauge("log_info", "The log's name and incarnation, as labels; always 1.", 1, "log", id.Name.String(), "incarnation", id.Incarnation.String())
	e.Counter("log_groups_total", "Groups committed.", float64(s.Groups))
	e.Counter("log_written_bytes_total", "Blocks committed, as stored.", float64(s.Bytes))
	e.Gauge("log_messages", "Records that the log holds.", float64(s.StoredRecords))
	e.Gauge("log_bytes", "What its blocks take.", float64(s.StoredBytes))
	e.Gauge("log_disk_bytes", "What its tables take on the disk.", float64(s.DiskBytes))
	e.Gauge("log_free_bytes", "Free on its disk.", float64(s.FreeBytes))
	e.Gauge("log_full", "1 while batches are refused for lack of disk space.", obs.Bool(s.Full))
	e.Counter("log_expired_messages_total", "Records deleted by retention.", float64(s.ExpiredRecords))
	e.Gauge("log_followers", "Readers that wait for more.", float64(s.Followers))
	e.Counter("log_open_retries_total", "Times the store had to be opened again.", float64(s.OpenRetries))
	e.Gauge("log_failed", "1 when the disk failed and the hub must be restarted.", obs.Bool(s.Failure != ""))
}

func (h *Hub) emitFront(e *obs.Emit) {
	if h.front == nil { // a scrape before the hub runs
		return
	}
	s := h.front.Stats()
	e.Gauge("mqtt_connections", "Sockets, those not admitted included.", float64(s.Connections))
	e.Gauge("mqtt_strangers", "Connections that are not let in yet.", float64(s.Strangers))
	e.Gauge("mqtt_inflight_messages", "PUBLISHes that are not acknowledged.", float64(s.InflightMessages))
	e.Gauge("mqtt_inflight_bytes", "What they take.", float64(s.InflightBytes))
	e.Counter("mqtt_accepted_total", "Connections accepted.", float64(s.Accepted))
	e.Counter("mqtt_failed_connects_total", "Connections that ended before they were asked who they are.", float64(s.ConnectsFailed))
	for code, n := range s.Refusals {
		e.Counter("mqtt_refusals_total", "Connections refused, by CONNACK code.", float64(n), "code", "0x"+strconv.FormatUint(uint64(code), 16))
	}
	e.Counter("mqtt_received_messages_total", "PUBLISHes received.", float64(s.MessagesIn))
	e.Counter("mqtt_received_bytes_total", "PUBLISH packets received.", float64(s.BytesIn))
	e.Counter("mqtt_acks_total", "PUBACKs written.", float64(s.Acks))
	e.Counter("mqtt_ack_writes_total", "Writes that carried them.", float64(s.AckWrites))
	e.Counter("mqtt_ack_failures_total", "Such writes that failed; each ended its connection.", float64(s.AckFailures))
	e.Counter("mqtt_stalls_total", "Times reading from a device stopped because a bound was reached.", float64(s.Stalls))
	byLabel(e, "mqtt_limit_hits_total", "Times a limit of the MQTT front was met.", "limit", s.Limits)
	e.Counter("mqtt_log_lines_left_out_total", "Lines not written because there were too many like them.", float64(s.LinesKept))
	byLabel(e, "mqtt_protocol_errors_total", "Connections ended for breaking MQTT.", "error", s.ProtocolErrors)
}

func (h *Hub) emitBridge(e *obs.Emit) {
	b := &h.bridge.stats
	byLabel(e, "refused_connects_total", "CONNECTs refused.", "reason", b.refused())
	byLabel(e, "foreign_requests_total", "What connected devices may not do.", "what", map[string]int64{
		"topic": b.foreignTopic.Load(), "filter": b.foreignFilter.Load(), "qos": b.badQoS.Load()})
	e.Counter("expelled_devices_total", "Connections ended because the device may not connect any more.", float64(b.expelled.Load()))
	e.Counter("slowed_refusals_total", "Answers to wrong secrets that were held back.", float64(h.bridge.slow.delayed.Load()))
	e.Counter("unslowed_refusals_total", "Answers to wrong secrets that were not, because too many were.", float64(h.bridge.slow.full.Load()))
	e.Gauge("devices_with_secret", "Devices in the devices file.", float64(h.devices.len()))
}

func (h *Hub) emitGate(e *obs.Emit) {
	s := h.gate.Stats()
	e.Gauge("gate_waiting", "Connections that wait for their turn.", float64(s.Waiting))
	e.Gauge("gate_handshakes", "TLS handshakes under way.", float64(s.Handshaking))
	e.Counter("gate_arrived_total", "Connections taken from the kernel.", float64(s.Arrived))
	e.Counter("gate_accepted_total", "Connections whose handshake was done.", float64(s.Accepted))
	e.Counter("gate_delayed_total", "Times accept.rate made connections wait.", float64(s.Delayed))
	e.Counter("gate_full_total", "Times accept.handshakes made connections wait.", float64(s.FullHandshakes))
	byLabel(e, "gate_refused_total", "Connections closed before MQTT.", "reason", s.Refused)
}

func (h *Hub) emitTLS(e *obs.Emit) {
	if h.tls == nil {
		return
	}
	s := h.tls.Stats()
	moment := func(name, help string, t time.Time) {
		if !t.IsZero() {
			e.Gauge(name, help, float64(t.Unix()))
		}
	}
	moment("tls_certificate_not_after_seconds", "When the hub's certificate ends, seconds since 1970.", s.NotAfter)
	moment("tls_client_ca_not_after_seconds", "When the first of the devices' authorities ends, seconds since 1970.", s.ClientCANotAfter)
	moment("tls_crl_next_update_seconds", "When a revocation list should be replaced, seconds since 1970.", s.NextUpdate)
	e.Gauge("tls_revoked_certificates", "Certificates on the revocation lists.", float64(s.Revoked))
	e.Gauge("tls_crl_stale", "1 while a revocation list is out of date; it is enforced all the same.", obs.Bool(s.Stale))
	e.Gauge("tls_files_unusable", "1 while a changed TLS file cannot be used and the last good one is in force.", obs.Bool(s.Unusable))
}

func (h *Hub) emitAPI(e *obs.Emit) {
	s := h.api.Stats()
	e.Counter("http_requests_total", "Requests.", float64(s.Requests))
	byLabel(e, "http_failed_requests_total", "Requests not answered well.", "side", map[string]int64{"client": s.Refused, "hub": s.Failed})
	e.Gauge("http_readers", "Answers of records under way.", float64(s.Readers))
	e.Counter("http_read_messages_total", "Records handed to readers.", float64(s.Records))
	e.Counter("http_cut_readers_total", "Readers cut off because they stopped reading.", float64(s.CutOff))
}
