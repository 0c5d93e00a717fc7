package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/packetboat/packetboat/internal/cli"
	"github.com/packetboat/packetboat/internal/mqttfront"
	"github.com/packetboat/packetboat/internal/obs"
	"github.com/packetboat/packetboat/internal/pki"
	"github.com/packetboat/packetboat/internal/sensors"
	"github.com/packetboat/packetboat/internal/uplink"
	"github.com/packetboat/packetboat/pkg/buffer"
)

// Edge is a running edge. Its fields are set before it serves and do not
// change; what they point to is safe for concurrent use.
type Edge struct {
	config  Config
	log     *slog.Logger
	started time.Time
	health  obs.Health
	metrics *obs.Metrics

	buffer  *buffer.Buffer
	uplink  *uplink.Uplink
	sensors *sensors.Sensors
	front   atomic.Pointer[mqttfront.Front] // nil until sensors may connect
	users   *pki.Users                      // nil without a users file
}

// Addrs are the addresses that an edge listens on.
type Addrs struct {
	MQTT net.Addr
	HTTP net.Addr // nil without HTTP
}

// Run runs an edge with a configuration that passed its checks, until ctx ends
// or a part fails, and stops it in order. It returns nil when ctx ended,
// whatever is still in the buffer. ready, which may be nil, is called once
// sensors may connect. Errors carry the exit code of the program.
func Run(ctx context.Context, c Config, log *slog.Logger, ready func(Addrs)) error {
	e := &Edge{config: c, log: log, started: time.Now(), metrics: obs.NewMetrics("packetboat_edge")}
	notify := obs.NewNotify(log)
	log.Info("starting", "device", c.Device, "version", obs.Version().String(), "data_dir", c.DataDir)
	for _, w := range c.Warnings() {
		log.Warn("configuration", "warning", w)
	}
	p := newParts(log)
	addrs, err := e.start(p)
	if err == nil {
		p.start("notifications", func(ctx context.Context) error { return e.tell(ctx, notify) })
		notify.Ready("serving " + addrs.MQTT.String())
		log.Info("ready", "sensors", addrs.MQTT.String(), "hub", c.Hub.URLs)
		if ready != nil {
			ready(addrs)
		}
		select {
		case <-ctx.Done():
			log.Info("stopping", "reason", context.Cause(ctx))
		case x := <-p.failed:
			<-x.done
			err = fmt.Errorf("%s: %w", x.name, x.err)
			log.Error("a part failed", "part", x.name, "error", x.err)
		}
	}
	reason := err
	if reason == nil {
		reason = context.Cause(ctx)
	}
	notify.Stopping(fmt.Sprintf("stopping: %v", reason))
	stopErr := p.stop(reason)
	if err == nil {
		err = stopErr
	}
	if e.buffer != nil {
		err = errors.Join(err, e.close())
	}
	return err
}

// start opens what holds data first and what accepts data last.
func (e *Edge) start(p *parts) (addrs Addrs, err error) {
	c := &e.config
	if c.Sensors.UsersFile != "" {
		if e.users, err = pki.OpenUsers(c.Sensors.UsersFile, 0); err != nil {
			return addrs, cli.Fail(cli.Usage, err, "")
		}
	}
	link, err := e.linkOptions()
	if err != nil {
		return addrs, err
	}
	if e.buffer, err = e.openBuffer(); err != nil {
		return addrs, err
	}
	p.start("buffer", e.buffer.Run)
	e.uplink = uplink.New(e.buffer, link)
	if e.sensors, err = sensors.New(e.buffer, e.sensorOptions()); err != nil {
		return addrs, cli.Fail(cli.Usage, fmt.Errorf("read lanes: %w", err), "")
	}
	e.observe()
	if c.Listen.HTTP != Off {
		l, err := net.Listen("tcp", c.Listen.HTTP)
		if err != nil {
			return addrs, cli.ListenError("listen.http", c.Listen.HTTP, err)
		}
		addrs.HTTP = l.Addr()
		e.log.Info("listening", "for", "http", "address", l.Addr().String())
		p.start("http", func(ctx context.Context) error { return obs.Serve(ctx, l, e.handler(), e.log) })
	}
	p.start("uplink", e.uplink.Run)
	l, err := net.Listen("tcp", c.Listen.MQTT)
	if err != nil {
		return addrs, cli.ListenError("listen.mqtt", c.Listen.MQTT, err)
	}
	addrs.MQTT = l.Addr()
	e.log.Info("listening", "for", "sensors", "address", l.Addr().String(), "anonymous", c.anonymous())
	front := mqttfront.New(e.sensors, e.frontOptions(l))
	e.front.Store(front)
	p.start("sensors", front.Run)
	return addrs, nil
}

func (e *Edge) linkOptions() (o uplink.Options, err error) {
	c := &e.config
	o = uplink.Options{
		Device: c.Device, URLs: c.Hub.URLs, Username: c.Hub.Username, Lanes: c.batches(),
		KeepAlive: time.Duration(c.Hub.KeepAlive), Logger: e.log.With("part", "uplink"),
	}
	if c.Hub.SecretFile != "" {
		o.Secret = func() ([]byte, error) { return pki.ReadSecret(c.Hub.SecretFile) }
	}
	files := c.Hub.TLS.files()
	files.Logger = o.Logger
	client, err := pki.OpenClientTLS(files)
	if err != nil {
		return o, cli.Fail(cli.Usage, fmt.Errorf("read hub.tls: %w", err), "")
	}
	o.TLSConfig = client.Config
	return o, nil
}

func (e *Edge) openBuffer() (*buffer.Buffer, error) {
	c := &e.config
	if err := os.MkdirAll(c.DataDir, 0o750); err != nil {
		return nil, openError(c.DataDir, err)
	}
	b, err := buffer.Open(buffer.Options{
		Dir: c.JournalDir(), MaxBytes: int64(c.Buffer.MaxBytes), Lanes: c.overflows(),
		LazySync: time.Duration(c.Buffer.LazySync), Logger: e.log.With("part", "buffer"),
		// The sensors' side bounds the same messages and makes sensors wait. Here
		// they count with what is stored around them; a refusal would be too early.
		MaxPending: 2 * int64(c.Sensors.MaxPendingBytes),
	})
	if err != nil {
		return nil, openError(c.DataDir, err)
	}
	s := b.Stats()
	e.log.Info("buffer is open", "accepted", s.Accepted, "settled", s.Settled, "queued", s.Queued)
	return b, nil
}

func (e *Edge) sensorOptions() sensors.Options {
	o := sensors.Options{Lanes: e.config.rules(), AllowAnonymous: e.config.anonymous(), Logger: e.log.With("part", "sensors")}
	if e.users != nil {
		o.Users = authenticator{e.users}
	}
	return o
}

func (e *Edge) frontOptions(l net.Listener) mqttfront.Options {
	s := &e.config.Sensors
	return mqttfront.Options{
		Listeners: []net.Listener{l}, MinVersion: 4, FanOut: true,
		MaxPacketSize: uint32(s.MaxPacketBytes), MaxClients: s.MaxClients, MaxInflightMessages: s.MaxInflight,
		MaxTotalBytes: int64(s.MaxPendingBytes), Logger: e.log.With("part", "sensors"),
	}
}

// authenticator lets the users of a file in.
type authenticator struct{ users *pki.Users }

// Authenticate reports whether password is that of the user.
func (a authenticator) Authenticate(name string, password []byte) bool {
	return a.users.Check(name, password)
}

// Has reports whether the file holds the user.
func (a authenticator) Has(name string) bool { return a.users.Has(name) }

// close closes the buffer, the last of all.
func (e *Edge) close() error {
	s := e.buffer.Stats()
	err := e.buffer.Close()
	e.log.Info("stopped", "accepted", s.Accepted, "settled", s.Settled, "kept", s.Queued+s.InFlight, "uptime", time.Since(e.started).Round(time.Second))
	if err != nil {
		return fmt.Errorf("close the buffer: %w", err)
	}
	return nil
}
