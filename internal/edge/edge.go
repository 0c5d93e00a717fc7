package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/packetboat/packetboat/internal/acl"
	"github.com/packetboat/packetboat/internal/cli"
	"github.com/packetboat/packetboat/internal/gate"
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
	clock   *sensors.Clock
	gate    *gate.Gate
	front   atomic.Pointer[mqttfront.Front] // nil until sensors may connect
	users   *pki.Users                      // nil without a users file
	acl     *acl.List                       // nil without an ACL file
	tls     *pki.Server                     // of the sensors' listeners; nil without a certificate
	hubTLS  *pki.Client
	// expiring are the certificates as they were looked at last.
	expiring atomic.Pointer[[]Certificate]
}

// Addrs are the addresses that an edge listens on; nil: it does not.
type Addrs struct {
	MQTT, MQTTS, WS, WSS net.Addr
	HTTP                 net.Addr
}

// sensors lists the addresses at which sensors connect.
func (a Addrs) sensors() string {
	var list []string
	for _, x := range []net.Addr{a.MQTT, a.MQTTS, a.WS, a.WSS} {
		if x != nil {
			list = append(list, x.String())
		}
	}
	return strings.Join(list, " ")
}

// Run runs an edge with a configuration that passed its checks, until ctx ends
// or a part fails, and stops it in order. It returns nil when ctx ended,
// whatever is still in the buffer. ready, which may be nil, is called once
// sensors may connect. Errors carry the exit code of the program.
func Run(ctx context.Context, c Config, log *slog.Logger, ready func(Addrs)) error {
	e := &Edge{config: c, log: log, started: time.Now(), metrics: obs.NewMetrics("packetboat_edge"), clock: sensors.NewClock()}
	notify := obs.NewNotify(log)
	log.Info("starting", "device", c.Device, "version", obs.Version().String(), "data_dir", c.DataDir)
	for _, w := range c.Warnings() {
		log.Warn("configuration", "warning", w)
	}
	p := newParts(log)
	addrs, err := e.start(p)
	if err == nil {
		p.start("notifications", func(ctx context.Context) error { return e.tell(ctx, notify) })
		notify.Ready("serving " + addrs.sensors())
		log.Info("ready", "sensors", addrs.sensors(), "hub", c.Hub.URLs)
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
	if err := e.openFiles(); err != nil {
		return addrs, err
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
	e.gate = gate.New(e.gateOptions())
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
	p.start("files", e.watchFiles)
	listeners, err := e.listen(&addrs)
	if err != nil {
		return addrs, err
	}
	front := mqttfront.New(e.sensors, e.frontOptions(listeners))
	e.front.Store(front)
	p.start("sensors", front.Run)
	return addrs, nil
}

func (e *Edge) linkOptions() (o uplink.Options, err error) {
	c := &e.config
	o = uplink.Options{
		Device: c.Device, URLs: c.Hub.URLs, Username: c.Hub.Username, Lanes: c.batches(),
		KeepAlive: time.Duration(c.Hub.KeepAlive), Logger: e.log.With("part", "uplink"),
		Codec: c.Hub.Codec.Name.id(), CodecState: int(c.Hub.Codec.StateBytes), CodecKeep: time.Duration(c.Hub.Codec.Keep),
	}
	if o.CodecKeep == 0 {
		o.CodecKeep = -1 // not at all
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
	e.hubTLS, o.TLSConfig = client, client.Config
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
		MaxPending: 2 * int64(c.Sensors.MaxPendingBytes), MaxState: int64(c.Buffer.MaxState), Now: e.clock.Now,
	})
	if err != nil {
		return nil, openError(c.DataDir, err)
	}
	s := b.Stats()
	e.log.Info("buffer is open", "accepted", s.Accepted, "settled", s.Settled, "queued", s.Queued)
	return b, nil
}

func (e *Edge) sensorOptions() sensors.Options {
	o := sensors.Options{
		Lanes: e.config.rules(), AllowAnonymous: e.config.anonymous(), ACL: e.acl, Clock: e.clock, Logger: e.log.With("part", "sensors"),
	}
	if e.users != nil {
		o.Users = authenticator{e.users}
	}
	if e.tls != nil {
		o.Trust = e.tls.Trust
	}
	return o
}

func (e *Edge) frontOptions(l []net.Listener) mqttfront.Options {
	s := &e.config.Sensors
	// What has to be there after a restart has to fit into the buffer's map, and
	// must leave room there for sessions and the ids of QoS 2.
	room := e.buffer.Stats().StateLimit
	return mqttfront.Options{
		Listeners: l, MinVersion: 4, FanOut: true,
		MaxPacketSize: uint32(s.MaxPacketBytes), MaxClients: s.MaxClients, MaxInflightMessages: s.MaxInflight,
		MaxTotalBytes: int64(s.MaxPendingBytes), MaxKeepAlive: time.Duration(s.MaxKeepAlive),
		MaxSessions: s.MaxSessions, MaxSessionExpiry: time.Duration(s.SessionExpiry),
		MaxSubscriptions: s.MaxSubscriptions, MaxTopicLevels: s.MaxTopicLevels,
		MaxQueuedMessages: s.MaxQueuedMessages, MaxQueuedBytes: min(int64(s.MaxQueuedBytes), room/4),
		MaxRetained: s.MaxRetained, MaxRetainedBytes: min(int64(s.MaxRetainedBytes), room/2),
		Store: e.sensors.Store(), Now: e.clock.Now, Logger: e.log.With("part", "sensors"),
	}
}

// authenticator lets the users of a file in.
type authenticator struct{ users *pki.Users }

// Authenticate reports whether password is that of the user.
func (a authenticator) Authenticate(name string, password []byte) bool {
	return a.users.Check(name, password)
}

// Has reports whether the file has the user.
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
