package edge

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/packetboat/packetboat/internal/config"
	"github.com/packetboat/packetboat/internal/obs"
)

// EnvPrefix begins every environment variable of the edge's configuration.
const EnvPrefix = "PACKETBOAT_EDGE"

// Off is the address of a listener that is not wanted.
const Off = "off"

// Config is the edge's configuration. Make it with Defaults and config.Load.
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

// Listen names addresses, host:port.
type Listen struct {
	MQTT       string `yaml:"mqtt" doc:"where sensors connect"`
	HTTP       string `yaml:"http" doc:"status, metrics and health; off for none"`
	HTTPPublic bool   `yaml:"http_public" doc:"serve HTTP, which asks nobody for a name, beyond loopback"`
}

// Sensors says who may publish, and how much at once.
type Sensors struct {
	UsersFile       string       `yaml:"users_file" doc:"names and hashed passwords of sensors; read again when it changes"`
	MaxClients      int          `yaml:"max_clients" doc:"connections at once"`
	MaxPacketBytes  config.Bytes `yaml:"max_packet_bytes" doc:"largest MQTT packet of a sensor"`
	MaxInflight     int          `yaml:"max_inflight" doc:"messages of one sensor that may wait for their acknowledgement"`
	MaxPendingBytes config.Bytes `yaml:"max_pending_bytes" doc:"memory for messages of all sensors that wait for the disk"`
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
}

// Hub says where the data goes.
type Hub struct {
	URLs       []string        `yaml:"urls" doc:"tcp://host:1884 or tls://host:8884, tried in order; required"`
	Username   string          `yaml:"username" doc:"default: the device id"`
	SecretFile string          `yaml:"secret_file" doc:"the device's secret, as packetboat-hub device add printed it"`
	KeepAlive  config.Duration `yaml:"keep_alive" doc:"longest silence on the link"`
	TLS        TLS             `yaml:"tls"`
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
		Listen:  Listen{MQTT: "127.0.0.1:1883", HTTP: "127.0.0.1:8461"},
		Sensors: Sensors{MaxClients: 1000, MaxPacketBytes: 255 << 10, MaxInflight: 2048, MaxPendingBytes: 16 << 20},
		Buffer:  Buffer{MaxBytes: 1 << 30, LazySync: config.Duration(100 * time.Millisecond)},
		Hub:     Hub{KeepAlive: config.Duration(30 * time.Second)},
		Log:     obs.DefaultLog(),
	}
}

// anonymous reports whether sensors without a name are let in.
func (c *Config) anonymous() bool {
	return c.AllowAnonymous || c.Sensors.UsersFile == ""
}

// JournalDir is where the journal of a data directory lives.
func (c *Config) JournalDir() string { return filepath.Join(c.DataDir, "journal") }
