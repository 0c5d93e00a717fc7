package edge

import (
	"strconv"
	"time"

	"github.com/packetboat/packetboat/internal/config"
	"github.com/packetboat/packetboat/pkg/buffer"
	"github.com/packetboat/packetboat/pkg/codec"
)

// limits of the configuration: key, least, most, and why.
var limits = []struct {
	key         string
	get         func(*Config) int64
	least, most int64
	text        func(int64) string
	why         string
}{
	{"sensors.max_clients", func(c *Config) int64 { return int64(c.Sensors.MaxClients) }, 1, 100_000, decimal, "each one is a file descriptor"},
	{"sensors.max_packet_bytes", func(c *Config) int64 { return int64(c.Sensors.MaxPacketBytes) }, 1 << 10, buffer.MaxMessageBytes - 1<<10, size, "a message has to fit into a frame of the journal, with what is added to it"},
	{"sensors.max_inflight", func(c *Config) int64 { return int64(c.Sensors.MaxInflight) }, 1, 65_535, decimal, "it is MQTT's Receive Maximum"},
	{"sensors.max_pending_bytes", func(c *Config) int64 { return int64(c.Sensors.MaxPendingBytes) }, 1 << 20, 1 << 30, size, "a few messages have to fit, and it is memory"},
	{"sensors.accept_rate", func(c *Config) int64 { return int64(c.Sensors.AcceptRate) }, 0, 1_000_000, decimal, "it is a count; 0 is no bound"},
	{"sensors.max_sessions", func(c *Config) int64 { return int64(c.Sensors.MaxSessions) }, 0, 1_000_000, decimal, "each one is memory and flash; 0 is max_clients and 1,000 more"},
	{"sensors.session_expiry", func(c *Config) int64 { return int64(c.Sensors.SessionExpiry) }, int64(time.Second), int64(366 * 24 * time.Hour), span, "MQTT counts it in seconds, and a session that nobody comes back for keeps its messages"},
	{"sensors.max_subscriptions", func(c *Config) int64 { return int64(c.Sensors.MaxSubscriptions) }, 1, 65_536, decimal, "each one is memory and flash"},
	{"sensors.max_topic_levels", func(c *Config) int64 { return int64(c.Sensors.MaxTopicLevels) }, 1, 128, decimal, "each level of a filter is memory and of a topic time; an acl knows 128"},
	{"sensors.max_queued_messages", func(c *Config) int64 { return int64(c.Sensors.MaxQueuedMessages) }, 1, 1_000_000, decimal, "each one is memory and flash"},
	{"sensors.max_queued_bytes", func(c *Config) int64 { return int64(c.Sensors.MaxQueuedBytes) }, 64 << 10, 1 << 30, size, "a few messages have to fit, and it is memory and flash"},
	{"sensors.max_retained", func(c *Config) int64 { return int64(c.Sensors.MaxRetained) }, 1, 1_000_000, decimal, "each one is memory and flash"},
	{"sensors.max_retained_bytes", func(c *Config) int64 { return int64(c.Sensors.MaxRetainedBytes) }, 64 << 10, 1 << 30, size, "a few messages have to fit, and it is memory and flash"},
	{"sensors.max_keep_alive", func(c *Config) int64 { return int64(c.Sensors.MaxKeepAlive) }, 0, int64(65_535 * time.Second), span, "MQTT counts it in seconds, up to 65,535; 0 is no bound"},
	{"buffer.max_bytes", func(c *Config) int64 { return int64(c.Buffer.MaxBytes) }, 16 << 20, 1 << 40, size, "the journal is made of segments of a few MiB"},
	{"buffer.lazy_sync", func(c *Config) int64 { return int64(c.Buffer.LazySync) }, int64(time.Millisecond), int64(time.Minute), span, "a power cut costs the QoS 0 messages of this time"},
	{"buffer.max_state", func(c *Config) int64 { return int64(c.Buffer.MaxState) }, 0, buffer.MaxStateBytes, size, "it is a part of max_bytes with an index in memory; 0 chooses"},
	{"hub.codec.state_bytes", func(c *Config) int64 { return int64(c.Hub.Codec.StateBytes) }, codec.MinState, codec.MaxState, size, "a few hundred topics have to fit, and it is memory at the hub too"},
	{"hub.codec.keep", func(c *Config) int64 { return int64(c.Hub.Codec.Keep) }, 0, int64(24 * time.Hour), span, "a hub forgets too, after an hour as a rule; 0 keeps nothing"},
	{"hub.keep_alive", func(c *Config) int64 { return int64(c.Hub.KeepAlive) }, int64(time.Second), int64(18 * time.Hour), span, "MQTT counts it in seconds, up to 65,535"},
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }
func size(n int64) string    { return config.Bytes(n).String() }
func span(n int64) string    { return config.Duration(n).String() }
