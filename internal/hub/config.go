package hub

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/packetboat/packetboat/internal/config"
	"github.com/packetboat/packetboat/internal/obs"
	"github.com/packetboat/packetboat/internal/pki"
	"github.com/packetboat/packetboat/pkg/codec"
	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/commitlog/local"
)

// EnvPrefix begins every environment variable of the hub's configuration.
const EnvPrefix = "PACKETBOAT_HUB"

// Off is the address of a listener that is not wanted.
const Off = "off"

// Config is the hub's configuration. Make it with Defaults and Load.
type Config struct {
	Listen         Listen        `yaml:"listen"`
	DataDir        string        `yaml:"data_dir" doc:"where the commit log and the devices file live"`
	TLS            TLS           `yaml:"tls"`
	DevicesFile    string        `yaml:"devices_file" doc:"ids and hashed secrets of devices; default: devices in data_dir"`
	AllowAnonymous bool          `yaml:"allow_anonymous" doc:"let devices in that have no secret, from anywhere"`
	Accept         Accept        `yaml:"accept"`
	Store          Store         `yaml:"store"`
	Limits         Limits        `yaml:"limits"`
	Codec          Codec         `yaml:"codec"`
	Log            obs.LogConfig `yaml:"log"`
}

// Listen names addresses, host:port or "off".
type Listen struct {
	MQTT       string `yaml:"mqtt" doc:"where devices connect, without TLS"`
	MQTTS      string `yaml:"mqtts" doc:"where devices connect with TLS; default: 127.0.0.1:8884 when tls names its files, else off"`
	HTTP       string `yaml:"http" doc:"API, metrics and health"`
	HTTPPublic bool   `yaml:"http_public" doc:"serve HTTP, which asks nobody for a name, beyond loopback"`
}

// TLS names PEM files; they are read again when they change.
type TLS struct {
	CertFile     string `yaml:"cert_file" doc:"certificate chain, the hub's own first"`
	KeyFile      string `yaml:"key_file" doc:"its private key"`
	ClientCAFile string `yaml:"client_ca_file" doc:"authorities whose certificates prove a device: its common name or an alternative name is the device id"`
	ClientAuth   string `yaml:"client_auth" doc:"none, optional or required: whether a device on listen.mqtts brings a certificate; default: optional with client_ca_file, else none"`
	CRLFile      string `yaml:"crl_file" doc:"revocation lists of these authorities, PEM or DER"`
	Devices      string `yaml:"devices" doc:"whose certificates let in: any that the authorities signed, or those listed in devices_file"`
}

// The values of TLS.Devices.
const (
	DevicesAny    = "any"
	DevicesListed = "listed"
)

// Accept bounds what strangers cost, before it is known who they are.
type Accept struct {
	Rate       int `yaml:"rate" doc:"connections taken per second, before any handshake; what comes beyond it waits; 0: no bound"`
	Burst      int `yaml:"burst" doc:"of them at once"`
	PerAddress int `yaml:"per_address" doc:"connections of one address that wait or are in a handshake; more are closed; 0: no bound"`
	Handshakes int `yaml:"handshakes" doc:"TLS handshakes at a time"`
}

// Store configures the embedded log.
type Store struct {
	Shards    int          `yaml:"shards" doc:"shards of a new log, fixed once it exists; 0: as many as it has, 1 for a new one"`
	Retention Retention    `yaml:"retention"`
	MinFree   config.Bytes `yaml:"min_free" doc:"free disk space below which batches are refused"`
}

// Retention says when records are deleted; what was settled is never forgotten.
type Retention struct {
	MaxAge   config.Duration `yaml:"max_age" doc:"delete records received longer ago; 0: never"`
	MaxBytes config.Bytes    `yaml:"max_bytes" doc:"delete the oldest records beyond this size; 0: never"`
}

// Limits bound memory and connections.
type Limits struct {
	WindowMessages int          `yaml:"window_messages" doc:"batches of a device that may wait for their answer"`
	PacketBytes    config.Bytes `yaml:"packet_bytes" doc:"largest MQTT packet of a device"`
	TotalBytes     config.Bytes `yaml:"total_bytes" doc:"memory for batches of all devices that are not settled; beyond it batches are refused"`
	MaxDevices     int          `yaml:"max_devices" doc:"connections at once"`
}

// Codec bounds what is learned of the devices' messages, so that they take
// fewer bytes on the link.
type Codec struct {
	StateBytes  config.Bytes    `yaml:"state_bytes" doc:"memory that the codec session of one device may take; 0: every batch stands for itself"`
	TotalBytes  config.Bytes    `yaml:"total_bytes" doc:"memory of all of them, those kept included; beyond it the longest away are dropped, then devices go on with batches that stand for themselves"`
	Keep        config.Duration `yaml:"keep" doc:"how long a session is kept when its connection has ended, so that the next one goes on with it; 0: not at all"`
	KeepDevices int             `yaml:"keep_devices" doc:"for how many devices; 0: none"`
}

// Defaults are a hub on loopback with its log in the working directory, or
// where the service manager says (systemd's STATE_DIRECTORY).
func Defaults() Config {
	dir, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":")
	if !filepath.IsAbs(dir) {
		dir = "packetboat-hub-data"
	}
	return Config{
		Listen:  Listen{MQTT: "127.0.0.1:1884", HTTP: "127.0.0.1:8460"},
		DataDir: dir,
		TLS:     TLS{Devices: DevicesAny},
		Accept:  Accept{Rate: 200, Burst: 400, PerAddress: 64, Handshakes: 64},
		Store:   Store{MinFree: local.DefaultMinFree},
		Limits:  Limits{WindowMessages: 16, PacketBytes: 512 << 10, TotalBytes: 256 << 20, MaxDevices: 10_000},
		Codec:   Codec{StateBytes: codec.DefaultState, TotalBytes: 1 << 30, Keep: config.Duration(time.Hour), KeepDevices: 10_000},
		Log:     obs.DefaultLog(),
	}
}

// limits of the configuration: key, least, most, and why.
var limits = []struct {
	key         string
	get         func(*Config) int64
	least, most int64
	bytes       bool
	why         string
}{
	{"store.shards", func(c *Config) int64 { return int64(c.Store.Shards) }, 0, commitlog.MaxShards, false, "more than the disk can serve at once gain nothing"},
	{"store.min_free", func(c *Config) int64 { return int64(c.Store.MinFree) }, local.LeastMinFree, 1 << 50, true, "the log's files are mapped into memory: a full disk would end the process"},
	{"limits.window_messages", func(c *Config) int64 { return int64(c.Limits.WindowMessages) }, 1, 65535, false, "it is MQTT's Receive Maximum"},
	// CONNECT itself may carry 60 KB of ranges that the edge holds.
	{"limits.packet_bytes", func(c *Config) int64 { return int64(c.Limits.PacketBytes) }, 128 << 10, 4 << 20, true, "CONNECT alone may need 128KiB, and a batch has to fit into one transaction"},
	{"limits.total_bytes", func(c *Config) int64 { return int64(c.Limits.TotalBytes) }, 8 << 20, 1 << 40, true, "a few batches have to fit"},
	{"codec.total_bytes", func(c *Config) int64 { return int64(c.Codec.TotalBytes) }, codec.MinState, 1 << 40, true, "one session has to fit; codec.state_bytes: 0 turns them off"},
	{"codec.keep_devices", func(c *Config) int64 { return int64(c.Codec.KeepDevices) }, 0, 1_000_000, false, "0 keeps none"},
	{"accept.rate", func(c *Config) int64 { return int64(c.Accept.Rate) }, 0, 100_000, false, "a TLS handshake costs up to a millisecond of CPU; 0 is no bound"},
	{"accept.burst", func(c *Config) int64 { return int64(c.Accept.Burst) }, 1, 100_000, false, "at least one has to come in"},
	{"accept.per_address", func(c *Config) int64 { return int64(c.Accept.PerAddress) }, 0, 10_000, false, "each one is a file descriptor; 0 is no bound"},
	{"accept.handshakes", func(c *Config) int64 { return int64(c.Accept.Handshakes) }, 1, 10_000, false, "each one may hold 64KiB of memory"},
	{"limits.max_devices", func(c *Config) int64 { return int64(c.Limits.MaxDevices) }, 1, 1_000_000, false, "each one is a file descriptor"},
}

// Check reports what is wrong beyond the types of single keys.
func (c *Config) Check(r *config.Report) {
	for _, l := range limits {
		n, least, most := l.get(c), strconv.FormatInt(l.least, 10), strconv.FormatInt(l.most, 10)
		if l.bytes {
			least, most = config.Bytes(l.least).String(), config.Bytes(l.most).String()
		}
		if n < l.least || n > l.most {
			r.Add(l.key, fmt.Sprintf("is out of range: %s to %s", least, most), l.why)
		}
	}
	if c.DataDir == "" {
		r.Add("data_dir", "is empty", "name a directory that the hub may write to")
	}
	if age := time.Duration(c.Store.Retention.MaxAge); age > 0 && age < time.Minute {
		r.Add("store.retention.max_age", "is shorter than a minute", "0 keeps records for ever")
	}
	if n := c.Store.Retention.MaxBytes; n > 0 && n < 16<<20 {
		r.Add("store.retention.max_bytes", "is less than 16MiB", "0 keeps records for ever")
	}
	c.Codec.check(r)
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		r.Add("tls", "names only one of cert_file and key_file", "TLS needs both, cleartext neither")
	}
	c.TLS.check(r)
	c.Listen.check(r, c.TLS.CertFile != "")
}

func (c *Codec) check(r *config.Report) {
	if n := c.StateBytes; n != 0 && (n < codec.MinState || n > codec.MaxState) {
		r.Add("codec.state_bytes", fmt.Sprintf("is out of range: 0, or %s to %s", config.Bytes(codec.MinState), config.Bytes(codec.MaxState)),
			"less learns nothing that lasts, more no device needs")
	} else if c.TotalBytes < n {
		r.Add("codec.total_bytes", "is less than codec.state_bytes", "one session has to fit")
	}
	if k := time.Duration(c.Keep); k < 0 || k > 7*24*time.Hour {
		r.Add("codec.keep", "is out of range: 0 to 168h", "what was learned is old by then; 0 keeps nothing")
	}
}

// check looks at how devices prove themselves with certificates.
func (t *TLS) check(r *config.Report) {
	auth := pki.ClientAuth(t.ClientAuth)
	if t.ClientAuth != "" && !slices.Contains(pki.ClientAuths, auth) {
		r.Add("tls.client_auth", fmt.Sprintf("%.40q is none of none, optional and required", t.ClientAuth), "")
	}
	if t.Devices != DevicesAny && t.Devices != DevicesListed {
		r.Add("tls.devices", fmt.Sprintf("%.40q is neither any nor listed", t.Devices), "any: the authorities decide; listed: only devices that stand in devices_file")
	}
	if (auth == pki.AuthOptional || auth == pki.AuthRequired) && t.ClientCAFile == "" {
		r.Add("tls.client_auth", "asks for certificates, and no authority is named", "set tls.client_ca_file")
	}
	if t.ClientCAFile != "" && t.CertFile == "" {
		r.Add("tls.client_ca_file", "needs TLS", "set tls.cert_file and tls.key_file")
	}
	if t.CRLFile != "" && t.ClientCAFile == "" {
		r.Add("tls.crl_file", "names revocation lists of no authority", "set tls.client_ca_file")
	}
}

// wantsCertificates reports whether a certificate can let a device in.
func (t *TLS) wantsCertificates() bool {
	return t.ClientCAFile != "" && pki.ClientAuth(t.ClientAuth) != pki.AuthNone
}

// files are those of the TLS listener.
func (t *TLS) files(log *slog.Logger) pki.ServerFiles {
	return pki.ServerFiles{Cert: t.CertFile, Key: t.KeyFile, ClientCAFile: t.ClientCAFile, ClientAuth: pki.ClientAuth(t.ClientAuth), CRLFile: t.CRLFile, Logger: log}
}

func (l *Listen) check(r *config.Report, tls bool) {
	for _, a := range []struct{ key, addr string }{{"mqtt", l.MQTT}, {"mqtts", l.MQTTS}, {"http", l.HTTP}} {
		if a.addr == Off || a.addr == "" && a.key == "mqtts" {
			continue
		}
		host, port, err := net.SplitHostPort(a.addr)
		if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || n > 65535 {
			r.Add("listen."+a.key, fmt.Sprintf("%q is not an address", a.addr), `write host:port, as 127.0.0.1:1884, or "off"`)
		} else if a.key == "http" && !isLoopback(host) && !l.HTTPPublic {
			r.Add("listen.http", "is reachable from elsewhere, and HTTP asks nobody for a name",
				"keep it on 127.0.0.1, or set listen.http_public: true where the network may read everything")
		}
	}
	if l.MQTTS != "" && l.MQTTS != Off && !tls {
		r.Add("listen.mqtts", "needs a certificate", "set tls.cert_file and tls.key_file")
	}
	if l.MQTT == Off && (l.MQTTS == Off || l.MQTTS == "" && !tls) {
		r.Add("listen.mqtt", "no device could connect: mqtt and mqtts are off", "")
	}
}

// Warnings are what an operator should know of a configuration that is good.
func (c *Config) Warnings() (all []string) {
	if beyondLoopback(c.Listen.MQTT) {
		all = append(all, "listen.mqtt: devices send their secrets and data in the clear; use listen.mqtts and turn listen.mqtt off, or keep it on loopback")
	}
	if beyondLoopback(c.Listen.HTTP) {
		all = append(all, "listen.http: whoever can reach it can read the whole log")
	}
	if c.TLS.ClientCAFile != "" && !c.TLS.wantsCertificates() {
		all = append(all, "tls.client_ca_file: tls.client_auth is none, so it is not looked at")
	}
	if c.TLS.wantsCertificates() && c.TLS.CRLFile == "" && c.TLS.Devices == DevicesAny {
		all = append(all, "tls.client_ca_file: without tls.crl_file or tls.devices: listed, a stolen certificate lets in until it expires")
	}
	if c.AllowAnonymous && (beyondLoopback(c.Listen.MQTT) || beyondLoopback(c.mqtts())) {
		all = append(all, "allow_anonymous: whoever can reach the hub can be any device that has no secret")
	}
	return append(all, c.modeWarnings()...)
}

// beyondLoopback reports whether an address is reachable from elsewhere.
func beyondLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	return err == nil && !isLoopback(host)
}

// mqtts is the address of the TLS listener, Off for none.
func (c *Config) mqtts() string {
	switch {
	case c.Listen.MQTTS != "":
		return c.Listen.MQTTS
	case c.TLS.CertFile != "":
		return "127.0.0.1:8884"
	}
	return Off
}

// DevicesPath is where ids and hashed secrets are.
func (c *Config) DevicesPath() string {
	if c.DevicesFile != "" {
		return c.DevicesFile
	}
	return filepath.Join(c.DataDir, "devices")
}

// LogDir is where the embedded log lives in a data directory.
func LogDir(dataDir string) string { return filepath.Join(dataDir, "log") }

// isLoopback reports whether a listener on host is reachable from this machine
// only. A name is looked up by nobody here: only localhost is trusted to be it.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
