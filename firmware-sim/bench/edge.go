package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/packetboat/packetboat/firmware-sim/proc"
)

// EdgeOptions say how the edge is measured.
type EdgeOptions struct {
	Bin      string // folder of packetboat-edge and -hub; "": built, or beside this program
	Dir      string // where the journals are written; "": the system's temporary folder
	Rounds   int
	Messages int // per load
	Payload  int
	Window   int
	LowRate  time.Duration // how long 10 messages/s are watched
	Out      io.Writer
}

// Edge prints how the edge compares with mosquitto, in interleaved rounds of
// one run, and what its promise costs: memory, bytes on the device, commits.
func Edge(ctx context.Context, o EdgeOptions) (err error) {
	if o.Rounds < 1 || o.Messages < 100 {
		return fmt.Errorf("%d rounds of %d messages: want at least 1 of 100", o.Rounds, o.Messages)
	}
	dir, err := os.MkdirTemp(o.Dir, "packetboat-bench-")
	if err != nil {
		return fmt.Errorf("making a folder to measure in: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	defer proc.CloseIdle()
	r := &rig{o: o, dir: dir}
	if r.edge, r.hub, err = proc.Programs(ctx, o.Bin, dir); err != nil {
		return err
	}
	if err := r.writeSmall(); err != nil {
		return err
	}
	r.conditions()
	if err := r.beside(ctx); err != nil {
		return err
	}
	if err := r.front(ctx); err != nil {
		return err
	}
	if err := r.lowRate(ctx); err != nil {
		return err
	}
	return r.endToEnd(ctx)
}

// rig is one run of Edge.
type rig struct {
	o         EdgeOptions
	dir       string
	edge, hub string
	n         int // instances so far, for names
}

func (r *rig) printf(format string, args ...any) { fmt.Fprintf(r.o.Out, format, args...) }

func (r *rig) conditions() {
	r.printf("%s/%s, %d CPUs, %s, journals in %s\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), cpuName(), r.dir)
	r.printf("%d rounds, interleaved; %d messages a load, QoS 1, %d-byte payloads, a window of %d per connection; the load shares the CPUs\n",
		r.o.Rounds, r.o.Messages, r.o.Payload, r.o.Window)
	r.printf("the edge's journal of %d MiB is full before each load: its segments are recycled, as in a long run\n\n", smallJournal>>20)
}

// target is a broker to measure.
type target struct {
	name  string
	start func(ctx context.Context) (*instance, error)
	rates map[int][]float64 // by connections, one per round
	p99   map[int][]time.Duration
}

// instance is a running broker.
type instance struct {
	*proc.Process
	mqtt, http string // http is empty for others than the edge
	mqtts      string // where it speaks TLS
}

var connectionCounts = []int{1, 10}

// beside measures the edge and mosquitto in turns.
func (r *rig) beside(ctx context.Context) error {
	targets := []*target{{name: "packetboat-edge (durable)", start: r.startEdge}}
	if path := findMosquitto(); path != "" {
		for _, persistence := range []bool{false, true} {
			name := "mosquitto, persistence off"
			if persistence {
				name = "mosquitto, persistence on"
			}
			targets = append(targets, &target{name: name, start: func(ctx context.Context) (*instance, error) {
				return r.startMosquitto(ctx, path, persistence, "")
			}})
		}
	} else {
		r.printf("mosquitto is not installed: the edge is measured alone\n")
	}
	costs := &cost{}
	for round := range r.o.Rounds {
		for i := range targets {
			t := targets[(i+round)%len(targets)]
			if err := r.round(ctx, t, costs); err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
		}
	}
	r.table(targets)
	costs.print(r, "at full load, 10 connections")
	return nil
}

// round measures one target once, in a fresh process.
func (r *rig) round(ctx context.Context, t *target, costs *cost) error {
	in, err := t.start(ctx)
	if err != nil {
		return err
	}
	defer in.Kill()
	if t.rates == nil {
		t.rates, t.p99 = map[int][]float64{}, map[int][]time.Duration{}
	}
	warm := Load{Broker: in.mqtt, QoS: 1, Connections: 10, Window: r.o.Window, Payload: r.o.Payload, Messages: max(r.o.Messages/10, 10), Name: "warm"}
	if in.http != "" {
		warm.Messages = max(warm.Messages, smallJournal/(r.o.Payload+20)) // topic and framing: the journal is full after it
	}
	if _, err := warm.Run(ctx); err != nil {
		return err
	}
	for _, c := range connectionCounts {
		l := Load{Broker: in.mqtt, QoS: 1, Connections: c, Window: r.o.Window, Payload: r.o.Payload, Messages: r.o.Messages, Name: fmt.Sprint("load", c)}
		var before usage
		watch := in.http != "" && c == 10
		if watch {
			if before, err = r.usage(ctx, in); err != nil {
				return err
			}
		}
		res, err := l.Run(ctx)
		if err != nil {
			return err
		}
		if watch {
			after, err := r.usage(ctx, in)
			if err != nil {
				return err
			}
			costs.add(before, after, res.Duration)
		}
		t.rates[c] = append(t.rates[c], res.PerSecond)
		t.p99[c] = append(t.p99[c], res.P99)
	}
	return in.Stop()
}

func (r *rig) table(targets []*target) {
	r.printf("%-28s %24s %24s\n", "QoS 1 messages/s, medians", "1 connection", "10 connections")
	for _, t := range targets {
		r.printf("%-28s", t.name)
		for _, c := range connectionCounts {
			r.printf(" %13.0f (p99 %5s)", median(t.rates[c]), median(t.p99[c]).Round(100*time.Microsecond))
		}
		r.printf("\n")
	}
	for _, t := range targets[1:] {
		r.printf("%-28s", "edge / "+t.name)
		for _, c := range connectionCounts {
			r.printf(" %22.1f x", median(targets[0].rates[c])/median(t.rates[c]))
		}
		r.printf("\n")
	}
	r.printf("each of the %d rounds:\n", r.o.Rounds)
	for _, t := range targets {
		r.printf("  %-28s", t.name)
		for _, c := range connectionCounts {
			for _, v := range t.rates[c] {
				r.printf(" %7.0f", v)
			}
			r.printf("  ")
		}
		r.printf("\n")
	}
	r.printf("\n")
}

func median[T int64 | float64 | time.Duration](values []T) T {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	return (s[len(s)/2] + s[(len(s)-1)/2]) / 2
}

// lowRate watches what ten messages per second cost.
func (r *rig) lowRate(ctx context.Context) error {
	if r.o.LowRate <= 0 {
		return nil
	}
	in, err := r.startEdge(ctx)
	if err != nil {
		return err
	}
	defer in.Kill()
	before, err := r.usage(ctx, in)
	if err != nil {
		return err
	}
	l := Load{Broker: in.mqtt, QoS: 1, Connections: 1, Window: r.o.Window, Payload: r.o.Payload, Messages: int(10 * r.o.LowRate.Seconds()), Rate: 10, Name: "low"}
	res, err := l.Run(ctx)
	if err != nil {
		return err
	}
	after, err := r.usage(ctx, in)
	if err != nil {
		return err
	}
	costs := &cost{}
	costs.add(before, after, res.Duration)
	costs.print(r, "at 10 messages/s")
	r.printf("  acknowledged after %s (p50), %s (p99)\n\n", res.P50.Round(10*time.Microsecond), res.P99.Round(10*time.Microsecond))
	return in.Stop()
}

// endToEnd measures sensors to embedded log.
func (r *rig) endToEnd(ctx context.Context) error {
	ports, err := proc.FreePorts(2)
	if err != nil {
		return err
	}
	hub, err := proc.Start("packetboat-hub", filepath.Join(r.dir, "hub.log"), r.hub, "run", "--data-dir", filepath.Join(r.dir, "hub"), "--listen", ports[0], "--http", ports[1])
	if err != nil {
		return err
	}
	defer hub.Kill()
	if err := hub.Await(ctx, func() bool { return proc.Ready(ctx, ports[1]) }); err != nil {
		return err
	}
	in, err := r.edgeTo(ctx, "tcp://"+ports[0])
	if err != nil {
		return err
	}
	defer in.Kill()
	start := time.Now()
	l := Load{Broker: in.mqtt, QoS: 1, Connections: 10, Window: r.o.Window, Payload: r.o.Payload, Messages: r.o.Messages, Name: "through"}
	res, err := l.Run(ctx)
	if err != nil {
		return err
	}
	for {
		m, err := proc.Metrics(ctx, in.http)
		if err != nil {
			return err
		}
		if lost := m["packetboat_edge_lost_messages_total"]; lost > 0 {
			return fmt.Errorf("the edge lost %.0f messages", lost)
		}
		if m["packetboat_edge_settled_messages_total"] >= float64(res.Messages) {
			break
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-in.Done():
			return fmt.Errorf("the edge ended\n%s", in.Tail())
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	took := time.Since(start)
	r.printf("end to end, 10 connections -> edge -> hub -> embedded log (synced), one machine:\n")
	r.printf("  %.0f messages/s until the last of %d was in the log; the sensors were acknowledged at %.0f/s\n", float64(res.Messages)/took.Seconds(), res.Messages, res.PerSecond)
	return errors.Join(in.Stop(), hub.Stop())
}

func (r *rig) startEdge(ctx context.Context) (*instance, error) {
	ports, err := proc.FreePorts(1)
	if err != nil {
		return nil, err
	}
	// Nobody listens there: all stays in the buffer.
	return r.edgeTo(ctx, "tcp://"+ports[0], "--config", filepath.Join(r.dir, "small.yaml"))
}

// smallJournal is how much flash the edge has that is measured beside
// mosquitto: so little that it is full after the warm-up, and the loads see what
// an edge does for most of its life, writing again over segments that exist.
const smallJournal = 64 << 20 // bytes

// writeSmall writes the configuration of such an edge.
func (r *rig) writeSmall() error {
	text := fmt.Sprintf("buffer:\n  max_bytes: %dB\n", smallJournal)
	if err := os.WriteFile(filepath.Join(r.dir, "small.yaml"), []byte(text), 0o600); err != nil {
		return fmt.Errorf("writing the edge's configuration: %w", err)
	}
	return nil
}

func (r *rig) edgeTo(ctx context.Context, hub string, more ...string) (*instance, error) {
	ports, err := proc.FreePorts(2)
	if err != nil {
		return nil, err
	}
	r.n++
	dir := filepath.Join(r.dir, fmt.Sprint("edge-", r.n))
	args := append([]string{r.edge, "run", "--device", "bench", "--hub", hub, "--data-dir", dir, "--listen", ports[0], "--http", ports[1], "--log-level", "error"}, more...)
	p, err := proc.Start("packetboat-edge", dir+".log", args[0], args[1:]...)
	if err != nil {
		return nil, err
	}
	in := &instance{Process: p, mqtt: ports[0], http: ports[1]}
	if err := p.Await(ctx, func() bool { return proc.Ready(ctx, ports[1]) && proc.Dials(ports[0]) }); err != nil {
		p.Kill()
		return nil, err
	}
	return in, nil
}

func findMosquitto() string {
	for _, name := range []string{"mosquitto", "/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/opt/homebrew/sbin/mosquitto"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// startMosquitto starts one; more is further configuration.
func (r *rig) startMosquitto(ctx context.Context, path string, persistence bool, more string) (*instance, error) {
	ports, err := proc.FreePorts(1)
	if err != nil {
		return nil, err
	}
	r.n++
	dir := filepath.Join(r.dir, fmt.Sprint("mosquitto-", r.n))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	_, port, _ := cutPort(ports[0])
	conf := fmt.Sprintf("listener %s 127.0.0.1\nallow_anonymous true\nlog_dest none\npersistence %t\npersistence_location %s/\n%s", port, persistence, dir, more)
	if os.Geteuid() == 0 {
		conf += "user root\n" // else it gives up its rights, and its folder with them
	}
	file := filepath.Join(dir, "mosquitto.conf")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		return nil, err
	}
	p, err := proc.Start("mosquitto", dir+".log", path, "-c", file)
	if err != nil {
		return nil, err
	}
	if err := p.Await(ctx, func() bool { return proc.Dials(ports[0]) }); err != nil {
		p.Kill()
		return nil, err
	}
	return &instance{Process: p, mqtt: ports[0]}, nil
}
