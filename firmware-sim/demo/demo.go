// Package demo shows what Packetboat promises: it runs a hub, a bad link and an
// edge with real processes, lets sensors speak, cuts the link, kills the edge,
// and then proves that what was acknowledged is in the log exactly once.
//
// It promises to end every process that it started, on every path, and to fail
// when anything is missing or double, or when the proof would not have noticed.
// It measures nothing for comparison: the machine is shared with everything
// that it starts.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/packetboat/packetboat/firmware-sim/fleet"
	"github.com/packetboat/packetboat/firmware-sim/proc"
	"github.com/packetboat/packetboat/internal/httpapi"
	"github.com/packetboat/packetboat/internal/rig/badlink"
	"github.com/packetboat/packetboat/internal/rig/receipts"
)

// Options say what is shown.
type Options struct {
	Data string // folder of recordings to replay; "": made-up car sensors
	Bin  string // folder of packetboat-edge and -hub; "": beside this program, or built
	Dir  string // where report, receipts, logs and data go; emptied before
	Seed uint64
	// Pace is the length of each of the four acts.
	Pace time.Duration
	Out  io.Writer
}

// demo is one run.
type demo struct {
	o         Options
	edgePath  string
	hubPath   string
	hubMQTT   string
	hubHTTP   string
	doors     doors // of the edge
	edgeHTTP  string
	edgeRuns  int
	hub, edge *proc.Process
	link      *badlink.Link
	fleet     *fleet.Fleet
	writer    *receipts.Writer
	client    *httpapi.Client
	began     time.Time
	what      string // the sensors, in words
	plain     plain

	mu     sync.Mutex
	points []point // guarded by mu
	marks  []mark  // guarded by mu
}

func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.o.Out, "%5.1fs  %s\n", time.Since(d.began).Seconds(), fmt.Sprintf(format, args...))
}

// ErrBroken says that the demo found a promise broken.
var ErrBroken = errors.New("a promise is broken")

// Run shows the demo.
func Run(ctx context.Context, o Options) (err error) {
	d := &demo{o: o, began: time.Now()}
	if err := d.prepare(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer func() { // every path ends what was started, the edge first
		cancel(nil)
		d.edge.Kill()
		d.hub.Kill()
		proc.CloseIdle()
	}()
	if err := d.start(ctx); err != nil {
		return err
	}
	defer d.client.Close()
	wg.Go(func() {
		if err := d.link.Run(ctx); err != nil {
			cancel(fmt.Errorf("running the link: %w", err))
		}
	})
	if err := d.startEdge(ctx); err != nil {
		return err
	}
	if err := d.acts(ctx); err != nil {
		return err
	}
	return d.proof(ctx)
}

// prepare empties the folder and finds the programs.
func (d *demo) prepare(ctx context.Context) error {
	if d.o.Pace < time.Second || d.o.Pace > time.Minute {
		return fmt.Errorf("a pace of %s: use 1s to 1m", d.o.Pace)
	}
	var err error
	if d.o.Dir, err = filepath.Abs(d.o.Dir); err != nil {
		return fmt.Errorf("finding the demo's folder: %w", err)
	}
	// Only what the demo itself makes is removed: the folder may be anyone's.
	for _, name := range []string{"receipts", "report.html", "hub-data", "edge-data", "hub.log", "edge.log", "edge.yaml", "server.pem", "server-key.pem"} {
		if err := os.RemoveAll(d.path(name)); err != nil {
			return fmt.Errorf("emptying the demo's folder: %w", err)
		}
	}
	if err := os.MkdirAll(d.path("bin"), 0o755); err != nil {
		return fmt.Errorf("making the demo's folder: %w", err)
	}
	d.say("building the hub and the edge")
	d.edgePath, d.hubPath, err = proc.Programs(ctx, d.o.Bin, d.path("bin"))
	return err
}

func (d *demo) path(name string) string { return filepath.Join(d.o.Dir, name) }

// start starts the hub and makes the link and the sensors.
func (d *demo) start(ctx context.Context) error {
	ports, err := proc.FreePorts(6)
	if err != nil {
		return err
	}
	d.hubMQTT, d.hubHTTP, d.edgeHTTP, d.doors = ports[0], ports[1], ports[2], doors{ports[3], ports[4], ports[5]}
	d.hub, err = proc.Start("packetboat-hub", d.path("hub.log"), d.hubPath, "run", "--data-dir", d.path("hub-data"), "--listen", d.hubMQTT, "--http", d.hubHTTP)
	if err != nil {
		return err
	}
	if err := d.hub.Await(ctx, func() bool { return proc.Ready(ctx, d.hubHTTP) }); err != nil {
		return err
	}
	if d.client, err = httpapi.NewClient("http://" + d.hubHTTP); err != nil {
		return err
	}
	d.link, err = badlink.New(badlink.Options{Listen: "127.0.0.1:0", Target: d.hubMQTT, Seed: d.o.Seed, Conditions: conditions})
	if err != nil {
		return err
	}
	return d.startSensors()
}

// startSensors makes the sensors, and what the edge needs for their doors.
func (d *demo) startSensors() error {
	certificate, err := proc.NewCertificate(d.o.Dir)
	if err != nil {
		return errors.Join(err, d.link.Close())
	}
	if err := d.writeConfig(certificate); err != nil {
		return errors.Join(err, d.link.Close())
	}
	clients, what, err := sensors(d.o, d.doors)
	if err != nil {
		return errors.Join(err, d.link.Close())
	}
	d.what = what
	for i := range clients {
		clients[i].Source = d.plain.count(clients[i].Source)
	}
	if d.writer, err = receipts.Append(d.path("receipts")); err != nil {
		return errors.Join(err, d.link.Close())
	}
	d.fleet, err = fleet.New(clients, fleet.Options{TLS: certificate.Client, QoS: 1, Window: 200, Speed: 1, Receipts: d.writer})
	if err != nil {
		return errors.Join(err, d.link.Close())
	}
	return nil
}

// conditions are the link's on a good day: 500 kB/s, 40 ms there and back, one
// packet in 200 lost.
var conditions = badlink.Conditions{
	RateUp: 500_000, RateDown: 500_000, Delay: 20 * time.Millisecond, Jitter: 5 * time.Millisecond, Loss: 0.005, Stall: 100 * time.Millisecond,
}

// startEdge starts the edge, for the first time or again.
func (d *demo) startEdge(ctx context.Context) (err error) {
	d.edgeRuns++
	d.edge, err = proc.Start("packetboat-edge", d.path("edge.log"), d.edgePath, "run", "--config", d.path("edge.yaml"))
	if err != nil {
		return err
	}
	return d.edge.Await(ctx, func() bool { return proc.Ready(ctx, d.edgeHTTP) && proc.Dials(d.doors.tcp) })
}

// writeConfig writes the edge's configuration.
func (d *demo) writeConfig(c *proc.Certificate) error {
	text := fmt.Sprintf("device: demo-car\ndata_dir: %q\nlisten: {mqtt: %q, mqtts: %q, ws: %q, http: %q}\nsensors: {tls: {cert_file: %q, key_file: %q}}\nhub: {urls: [%q]}\n",
		d.path("edge-data"), d.doors.tcp, d.doors.tls, d.doors.ws, d.edgeHTTP, c.File, c.Key, "tcp://"+d.link.Addr())
	if err := os.WriteFile(d.path("edge.yaml"), []byte(text), 0o600); err != nil {
		return fmt.Errorf("writing the edge's configuration: %w", err)
	}
	return nil
}

// edgeKills is how often the edge is killed in its act.
const edgeKills = 3

// killEdge kills the edge in the middle of its work, each time as soon as it has
// all of its sensors again: then most is on its way.
func (d *demo) killEdge(ctx context.Context) error {
	d.say("the edge is killed (kill -9) in the middle of its work, and started again, %d times", edgeKills)
	for range edgeKills {
		d.mark("edge killed")
		d.edge.Kill()
		if err := d.startEdge(ctx); err != nil {
			return err
		}
		limit := time.Now().Add(d.o.Pace)
		for s := d.fleet.Stats(); s.Connected < s.Clients && time.Now().Before(limit); s = d.fleet.Stats() {
			if err := d.pause(ctx, time.Millisecond); err != nil {
				return err
			}
		}
	}
	return nil
}

// acts is the play: all is well, a cut, a kill, the link comes back, and the
// sensors fall silent.
func (d *demo) acts(ctx context.Context) (err error) {
	d.say("%s -> edge -> bad link (500 kB/s, 40 ms, 0.5 %% loss) -> hub -> embedded log", d.what)
	d.mark("sensors on")
	speak, silence := context.WithCancel(ctx)
	done := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() { done <- d.fleet.Run(speak) })
	watchCtx, stopWatching := context.WithCancel(ctx)
	wg.Go(func() { d.watch(watchCtx) })
	defer func() {
		silence()
		stopWatching()
		wg.Wait()
		err = errors.Join(err, d.writer.Close())
	}()
	for _, act := range []func() error{
		func() error { return nil },
		func() error {
			d.mark("link cut")
			d.say("the link is cut: a black hole, packets go in and nothing comes out")
			return d.link.Cut(badlink.BlackHole)
		},
		func() error { return d.killEdge(ctx) },
		func() error {
			d.mark("link back")
			d.say("the link is back")
			return d.link.Cut(badlink.Up)
		},
	} {
		if err := act(); err != nil {
			return err
		}
		if err := d.pause(ctx, d.o.Pace); err != nil {
			return err
		}
	}
	return d.drain(ctx, silence, done)
}

// pause waits, and ends early when a program does.
func (d *demo) pause(ctx context.Context, t time.Duration) error {
	select {
	case <-time.After(t):
		return nil
	case <-d.edge.Done():
		return fmt.Errorf("the edge ended by itself\n%s", d.edge.Tail())
	case <-d.hub.Done():
		return fmt.Errorf("the hub ended by itself\n%s", d.hub.Tail())
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// drainWait bounds how long the backlog may take to reach the log.
const drainWait = 3 * time.Minute

// drain lets the sensors end, and waits until the edge holds nothing back.
func (d *demo) drain(ctx context.Context, silence func(), done <-chan error) error {
	if d.o.Data == "" {
		silence() // recordings end by themselves
	}
	limit := time.Now().Add(drainWait)
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("running the sensors: %w", err)
		}
	case <-time.After(drainWait):
		return errors.New("the sensors do not come to an end")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	d.mark("sensors off")
	d.say("the sensors are silent; the edge sends what is still out there")
	for {
		m, err := proc.Metrics(ctx, d.edgeHTTP)
		if err == nil && m["packetboat_edge_queued_messages"] == 0 && m["packetboat_edge_in_flight_messages"] == 0 {
			d.mark("all in the log")
			return nil
		}
		if time.Now().After(limit) {
			return fmt.Errorf("the edge still holds %.0f messages after %s\n%s", m["packetboat_edge_queued_messages"], drainWait, d.edge.Tail())
		}
		if err := d.pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}
