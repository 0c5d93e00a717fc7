package edge

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/packetboat/packetboat/internal/config"
	"github.com/packetboat/packetboat/internal/obs"
	"github.com/packetboat/packetboat/internal/pki"
	"github.com/packetboat/packetboat/pkg/codec"
)

// EnvPrefix begins every environment variable of the edge's configuration.
const EnvPrefix = "PACKETBOAT_EDGE"

// Off is the address of a listener that is not wanted.
const Off = "off"

// Config is the edge's configuration. Make it with Defaults and config.Source.
type Config struct {
	Device         string        `yaml:"device" doc:"id of this vehicle, 1 to 64 of A-Z a-z 0-9 . _ -; required"`
	DataDir        string        `yaml:"data_dir" doc:"where the journal lives"`
	Listen         Listen        `yaml:"listen"`
	AllowAnonymous bool          `yaml:"allow_anonymous" doc:"let sensors in that give no name, from anywhere; on loopback they are let in anyway while there is no users file"`
	Sensors        Sensors       `yaml:"sensors"`
	Lanes          []Lane        `yaml:"lanes" doc:"rules from topics to lanes, the first that matches wins; what matches none is normal"`
	Buffer         Buffer        `yaml:"buffer"`
	Hub            Hub           `yaml:"hub"`
	Log            obs.LogConfig `yaml:"log"`
}

// Listen names addresses, host:port, or Off.
type Listen struct {
	MQTT       string   `yaml:"mqtt" doc:"where sensors connect, MQTT over TCP; off for none"`
	MQTTS      string   `yaml:"mqtts" doc:"the same over TLS, 127.0.0.1:8883 for example; off for none"`
	WS         string   `yaml:"ws" doc:"MQTT over WebSocket, 127.0.0.1:8083 for example; off for none"`
	WSS        string   `yaml:"wss" doc:"MQTT over WebSocket over TLS; off for none"`
	WSOrigins  []string `yaml:"ws_origins" doc:"sites whose pages may connect over WebSocket, as http://display.example, or * for all; without any, pages of the host that is connected to may, by its address or over TLS"`
	HTTP       string   `yaml:"http" doc:"status, metrics and health; off for none"`
	HTTPPublic bool     `yaml:"http_public" doc:"serve HTTP, which asks nobody for a name, beyond loopback"`
}

// Sensors says who may publish and see what, and how much at once.
type Sensors struct {
	UsersFile         string          `yaml:"users_file" doc:"names and hashed passwords of sensors; read again when it changes"`
	ACLFile           string          `yaml:"acl_file" doc:"who may publish and see which topics, in mosquitto's syntax; without it everybody everything; read again when it changes"`
	TLS               SensorTLS       `yaml:"tls"`
	MaxClients        int             `yaml:"max_clients" doc:"connections at once"`
	AcceptRate        int             `yaml:"accept_rate" doc:"new connections a second, all listeners together; what comes beyond it waits; 0: no bound"`
	MaxPacketBytes    config.Bytes    `yaml:"max_packet_bytes" doc:"largest MQTT packet of a sensor"`
	MaxInflight       int             `yaml:"max_inflight" doc:"messages of one sensor that may wait for their acknowledgement"`
	MaxPendingBytes   config.Bytes    `yaml:"max_pending_bytes" doc:"memory for messages of all sensors that wait for the disk"`
	MaxSessions       int             `yaml:"max_sessions" doc:"sessions, those of sensors that are away included; 0: max_clients and 1,000 more"`
	SessionExpiry     config.Duration `yaml:"session_expiry" doc:"longest time that a session outlives its connection"`
	MaxSubscriptions  int             `yaml:"max_subscriptions" doc:"subscriptions of one client"`
	MaxTopicLevels    int             `yaml:"max_topic_levels" doc:"levels of a topic or filter"`
	MaxQueuedMessages int             `yaml:"max_queued_messages" doc:"messages of QoS 1 and 2 that wait for one subscriber"`
	MaxQueuedBytes    config.Bytes    `yaml:"max_queued_bytes" doc:"what waits for all subscribers; at most a quarter of buffer.max_state"`
	MaxRetained       int             `yaml:"max_retained" doc:"retained messages"`
	MaxRetainedBytes  config.Bytes    `yaml:"max_retained_bytes" doc:"memory for retained messages; at most half of buffer.max_state"`
	MaxKeepAlive      config.Duration `yaml:"max_keep_alive" doc:"longest keep alive of an MQTT 5 sensor that has one; 0: no bound"`
}

// SensorTLS names the files of listen.mqtts and listen.wss; they are read again
// when they change.
type SensorTLS struct {
	CertFile     string         `yaml:"cert_file" doc:"the edge's certificate and its chain, PEM"`
	KeyFile      string         `yaml:"key_file" doc:"its private key"`
	ClientCAFile string         `yaml:"client_ca_file" doc:"who may sign the certificates of sensors"`
	ClientAuth   pki.ClientAuth `yaml:"client_auth" doc:"whether sensors show a certificate: none, optional or required; default optional with client_ca_file, else none. Its common name is the user name of a sensor that gives none"`
	CRLFile      string         `yaml:"crl_file" doc:"revocation lists, each signed by one of client_ca_file"`
}

// Lane is a rule: which topics go to which lane, and how the lane behaves.
type Lane struct {
	Name       LaneName        `yaml:"name" doc:"urgent, normal, bulk, or drop to keep nothing"`
	Filters    []string        `yaml:"filters" doc:"MQTT topic filters"`
	Resolution config.Duration `yaml:"resolution" doc:"of the recorded times, 1us to 1s; default 1ms"`
	Overflow   Overflow        `yaml:"overflow" doc:"when the buffer is full: evict-oldest (default) or refuse-new"`
	Drain      Drain           `yaml:"drain" doc:"order of sending: fifo"`
	Batch      Batch           `yaml:"batch"`
}

// Batch says when a batch of a lane is closed, at whatever comes first. Zero
// takes the lane's default.
type Batch struct {
	Messages int             `yaml:"messages" doc:"at most so many messages; 0: the lane's default"`
	Bytes    config.Bytes    `yaml:"bytes" doc:"at most so many bytes before encoding; 0: the lane's default"`
	Age      config.Duration `yaml:"age" doc:"at most this long after its oldest message; 0: the lane's default"`
}

// Buffer bounds the journal.
type Buffer struct {
	MaxBytes config.Bytes    `yaml:"max_bytes" doc:"size of the journal on disk, all lanes together"`
	LazySync config.Duration `yaml:"lazy_sync" doc:"longest wait of QoS 0 messages for the disk"`
	MaxState config.Bytes    `yaml:"max_state" doc:"part of the journal for sessions, subscriptions, retained and queued messages; 0: an eighth of max_bytes, at most 64MiB"`
}

// Hub says where the data goes.
type Hub struct {
	URLs       []string        `yaml:"urls" doc:"tcp://host:1884 or tls://host:8884, tried in order; required"`
	Username   string          `yaml:"username" doc:"default: the device id"`
	SecretFile string          `yaml:"secret_file" doc:"the device's secret, as packetboat-hub device add printed it"`
	KeepAlive  config.Duration `yaml:"keep_alive" doc:"longest silence on the link"`
	Codec      Codec           `yaml:"codec"`
	TLS        TLS             `yaml:"tls"`
}

// Codec says how what goes to the hub is made small.
type Codec struct {
	Name       CodecName       `yaml:"name" doc:"learning: both sides learn what the sensors say; rows: as for a hub that knows nothing else"`
	StateBytes config.Bytes    `yaml:"state_bytes" doc:"memory for what is learned, at most; the hub may grant less"`
	Keep       config.Duration `yaml:"keep" doc:"how long what was learned outlives a connection; 0: not at all"`
}

// TLS names PEM files; they are read again when they change.
type TLS struct {
	CAFile     string `yaml:"ca_file" doc:"who may sign the hub's certificate; default: the system's authorities"`
	CertFile   string `yaml:"cert_file" doc:"the device's certificate"`
	KeyFile    string `yaml:"key_file" doc:"its private key"`
	ServerName string `yaml:"server_name" doc:"name in the hub's certificate; default: the host of the url"`
}

// Defaults are an edge on loopback. The journal is in the working directory, or
// where the service manager says (systemd's STATE_DIRECTORY).
func Defaults() Config {
	dir, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":")
	if !filepath.IsAbs(dir) {
		dir = "packetboat-edge-data"
	}
	return Config{
		DataDir: dir,
		Listen:  Listen{MQTT: "127.0.0.1:1883", MQTTS: Off, WS: Off, WSS: Off, HTTP: "127.0.0.1:8461"},
		Sensors: Sensors{
			MaxClients: 1000, AcceptRate: 500, MaxPacketBytes: 255 << 10, MaxInflight: 2048, MaxPendingBytes: 16 << 20,
			SessionExpiry: config.Duration(24 * time.Hour), MaxSubscriptions: 256, MaxTopicLevels: 64,
			MaxQueuedMessages: 1000, MaxQueuedBytes: 16 << 20, MaxRetained: 10_000, MaxRetainedBytes: 32 << 20,
			MaxKeepAlive: config.Duration(time.Minute),
		},
		Buffer: Buffer{MaxBytes: 1 << 30, LazySync: config.Duration(100 * time.Millisecond)},
		Hub:    Hub{KeepAlive: config.Duration(30 * time.Second), Codec: Codec{Name: LearningCodec, StateBytes: codec.DefaultState, Keep: config.Duration(time.Hour)}},
		Log:    obs.DefaultLog(),
	}
}

// anonymous reports whether sensors that prove no name are let in.
func (c *Config) anonymous() bool {
	return c.AllowAnonymous || c.Sensors.UsersFile == ""
}

// BoundedMemory is what the bounds of the configuration let an edge hold, in
// bytes: on the sensors' side messages that wait for the disk, here and in the buffer, those
// that wait for subscribers, retained ones, and 20 KiB a connection; and what the
// link's codec learns, with the two copies that it can go back to.
func (c *Config) BoundedMemory() int64 {
	s := &c.Sensors
	return 2*int64(s.MaxPendingBytes) + int64(s.MaxQueuedBytes) + int64(s.MaxRetainedBytes) + int64(s.MaxClients)*20<<10 + 3*int64(c.Hub.Codec.StateBytes)
}

// JournalDir is where the journal of a data directory lives.
func (c *Config) JournalDir() string { return filepath.Join(c.DataDir, "journal") }
