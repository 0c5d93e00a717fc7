package hub

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/packetboat/packetboat/internal/cli"
	"github.com/packetboat/packetboat/internal/gate"
	"github.com/packetboat/packetboat/internal/httpapi"
	"github.com/packetboat/packetboat/internal/mqttfront"
	"github.com/packetboat/packetboat/internal/obs"
	"github.com/packetboat/packetboat/internal/pki"
	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/commitlog/local"
	"github.com/packetboat/packetboat/pkg/ingest"
)

// Hub is an assembled hub. Make it with Open, then Run it once.
type Hub struct {
	c       Config
	log     *slog.Logger
	store   *local.Log
	devices *devices
	ingest  *ingest.Ingest
	bridge  *bridge
	api     *httpapi.API
	metrics *obs.Metrics
	health  *obs.Health
	http    net.Listener // nil: off
	gate    *gate.Gate
	tls     *pki.Server // nil: off
	mqtt    []net.Listener
	front   *mqttfront.Front
}

// Open makes a hub of a checked configuration. What holds data is opened first,
// what accepts data last. Its errors carry exit codes and hints. Nothing is
// served before Run; a hub that is not run must be closed.
func Open(c Config, log *slog.Logger) (h *Hub, err error) {
	h = &Hub{c: c, log: log, metrics: obs.NewMetrics("packetboat_hub"), health: &obs.Health{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.Close())
		}
	}()
	for _, w := range c.Warnings() {
		log.Warn("configuration is risky", "warning", w)
	}
	if err := makeDataDir(c.DataDir); err != nil {
		return h, err
	}
	if h.store, err = local.Open(h.storeOptions()); err != nil {
		return h, storeError(c.DataDir, err)
	}
	if h.devices, err = openDevices(c.deviceRules(), log); err != nil {
		return h, cli.Fail(cli.Usage, err, "correct the line, or remove and add the device again")
	}
	if err := c.checkReach(h.devices.len()); err != nil {
		return h, cli.Fail(cli.Usage, err, reachRemedy)
	}
	h.ingest = ingest.New(h.store, h.ingestOptions())
	if c.mqtts() != Off {
		if h.tls, err = pki.OpenServerTLS(c.TLS.files(log)); err != nil {
			return h, cli.Fail(cli.Usage, err, "check tls: `packetboat-hub config check` says which file")
		}
	}
	h.bridge = newBridge(h.ingest, h.devices, h.trust, log)
	h.gate = gate.New(c.gateOptions(log.With("component", "gate")))
	h.observe()
	if err := h.listen(); err != nil {
		return h, err
	}
	h.front = mqttfront.New(h.bridge, h.frontOptions())
	return h, nil
}

// Close gives back what Open took from a hub that was never run.
func (h *Hub) Close() error {
	var errs []error
	for _, l := range append([]net.Listener{h.http}, h.mqtt...) {
		if l != nil {
			errs = append(errs, l.Close())
		}
	}
	if h.store != nil {
		errs = append(errs, h.store.Close())
	}
	return errors.Join(errs...)
}

func makeDataDir(dir string) error {
	err := os.MkdirAll(dir, 0o750)
	if err == nil {
		return nil
	}
	return cli.Fail(cli.Operator, fmt.Errorf("making the data directory: %w", err), "give the hub's user the right to write there, or set data_dir")
}

// storeError says what an operator can do about a log that does not open.
func storeError(dir string, err error) error {
	switch {
	case errors.Is(err, local.ErrLocked):
		return cli.Fail(cli.Locked, fmt.Errorf("data directory %s: %w", dir, err), "another hub runs on it; stop that one or set data_dir")
	case errors.Is(err, local.ErrShards):
		return cli.Fail(cli.Usage, err, "leave store.shards out, or set it to what the log has")
	case errors.Is(err, commitlog.ErrNoSpace) || errors.Is(err, syscall.ENOSPC):
		return cli.Fail(cli.Operator, err, "make room on the disk of the data directory")
	case errors.Is(err, fs.ErrPermission):
		return cli.Fail(cli.Operator, err, "give the hub's user the right to read and write the data directory")
	case errors.Is(err, local.ErrDamaged), errors.Is(err, local.ErrFormat):
		return cli.Fail(cli.Operator, err, "restore a backup, or move the log directory away to begin a new log; devices send again what they still hold")
	}
	// Whatever else it is stays until somebody does something about it.
	return cli.Fail(cli.Operator, err, "where the disk is good and the files cannot be read, restore a backup or move the log directory away")
}

// trust is what certificates of devices are believed now, nil for none.
func (h *Hub) trust() *pki.Trust {
	if h.tls == nil {
		return nil
	}
	return h.tls.Trust()
}

func (c *Config) deviceRules() deviceRules {
	return deviceRules{path: c.DevicesPath(), max: c.Limits.MaxDevices * 10, anonymous: c.AllowAnonymous,
		certificates: c.TLS.wantsCertificates(), listed: c.TLS.Devices == DevicesListed}
}

func (c *Config) gateOptions(log *slog.Logger) gate.Options {
	a := c.Accept
	return gate.Options{Rate: float64(a.Rate), Burst: a.Burst, PerAddress: a.PerAddress, Handshakes: a.Handshakes, Logger: log}
}

func (h *Hub) storeOptions() local.Options {
	s := h.c.Store
	return local.Options{
		Dir: LogDir(h.c.DataDir), Shards: s.Shards, MinFree: int64(s.MinFree), Logger: h.log.With("component", "log"),
		Retention: local.Retention{MaxAge: time.Duration(s.Retention.MaxAge), MaxBytes: int64(s.Retention.MaxBytes)},
	}
}

func (h *Hub) ingestOptions() ingest.Options {
	l := h.c.Limits
	return ingest.Options{
		WindowMessages: l.WindowMessages, PacketBytes: int(l.PacketBytes), PendingBytes: int64(l.TotalBytes),
		// Every device that may connect gets a window.
		WindowBytes: int64(l.MaxDevices) * int64(l.WindowMessages) * int64(l.PacketBytes),
		MaxIdle:     l.MaxDevices, Logger: h.log.With("component", "ingest"),
		CodecState: orNone(int(h.c.Codec.StateBytes)), CodecTotal: int64(h.c.Codec.TotalBytes),
		CodecKeep: orNone(time.Duration(h.c.Codec.Keep)), CodecKept: orNone(h.c.Codec.KeepDevices),
	}
}

// orNone makes 0, which in the configuration is none, what it is in Options.
func orNone[T int | time.Duration](n T) T {
	if n == 0 {
		return -1
	}
	return n
}

func (h *Hub) frontOptions() mqttfront.Options {
	l := h.c.Limits
	return mqttfront.Options{
		Listeners: h.mqtt, MinVersion: 5, MaxPacketSize: uint32(l.PacketBytes), MaxClients: l.MaxDevices,
		MaxQoS: 1, MaxSessionExpiry: time.Second, MaxSubscriptions: 16, // nothing outlives a connection, nothing is fanned out
		MaxInflightMessages: l.WindowMessages, MaxInflightBytes: l.WindowMessages * int(l.PacketBytes), MaxTotalBytes: int64(l.TotalBytes),
		Logger: h.log.With("component", "mqtt"),
	}
}

// listen opens what accepts, MQTT last.
func (h *Hub) listen() (err error) {
	if h.c.Listen.HTTP != Off {
		if h.http, err = net.Listen("tcp", h.c.Listen.HTTP); err != nil {
			return cli.ListenError("listen.http", h.c.Listen.HTTP, err)
		}
	}
	if a := h.c.mqtts(); a != Off {
		l, err := net.Listen("tcp", a)
		if err != nil {
			return cli.ListenError("listen.mqtts", a, err)
		}
		h.mqtt = append(h.mqtt, h.gate.TLS(l, h.tls.Config()))
	}
	if a := h.c.Listen.MQTT; a != Off {
		l, err := net.Listen("tcp", a)
		if err != nil {
			return cli.ListenError("listen.mqtt", a, err)
		}
		h.mqtt = append(h.mqtt, h.gate.TCP(l))
	}
	return nil
}
