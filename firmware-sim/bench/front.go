package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/packetboat/packetboat/firmware-sim/proc"
	"github.com/packetboat/packetboat/internal/rig/publisher"
)

// crowd is how many clients a crowd has.
const crowd = 1000

// house is a configuration of a broker that rows are measured with.
type house int

const (
	open   house = iota // plain and TLS
	walled              // plain, with an ACL file
	houses
)

// row is one way of publishing. The first one is what the others are compared
// with.
type row struct {
	name     string
	house    house
	load     func(*Load)
	secure   bool
	watchers int  // subscribers to #
	watchQoS byte // of theirs
}

var rows = []row{
	{name: "QoS 1"},
	{name: "QoS 0", load: func(l *Load) { l.QoS = 0 }},
	{name: "QoS 2, sessions kept", load: func(l *Load) { l.QoS, l.Session = 2, time.Hour }},
	{name: "QoS 1 over TLS", secure: true},
	{name: "QoS 1, ACL file of 100 lines", house: walled},
	{name: "QoS 1, 1,000 connections", load: func(l *Load) { l.Connections, l.Window = crowd, min(l.Window, 20) }},
	{name: "QoS 1, a subscriber of #, QoS 0", watchers: 1},
	{name: "QoS 1, 10 subscribers of #, QoS 1", watchers: 10, watchQoS: 1},
}

// rival is a broker whose rows are measured.
type rival struct {
	name  string
	start func(ctx context.Context, h house) (*instance, error)
	rates [][]float64 // by row, one per round
	seen  [][]float64 // by row: the share of messages that each subscriber got
	idle  []float64   // bytes of memory per idle connection
}

// front measures what the doors of the edge cost, beside mosquitto where it is
// installed, in turns.
func (r *rig) front(ctx context.Context) error {
	cert, err := proc.NewCertificate(r.dir)
	if err != nil {
		return err
	}
	acl := filepath.Join(r.dir, "sensors.acl")
	if err := os.WriteFile(acl, []byte(hundredLines()), 0o644); err != nil {
		return fmt.Errorf("writing the ACL file: %w", err)
	}
	rivals := []*rival{{name: "packetboat-edge", start: func(ctx context.Context, h house) (*instance, error) { return r.edgeHouse(ctx, h, cert, acl) }}}
	if path := findMosquitto(); path != "" {
		rivals = append(rivals, &rival{name: "mosquitto, persistence off", start: func(ctx context.Context, h house) (*instance, error) {
			return r.mosquittoHouse(ctx, path, h, cert, acl)
		}})
	}
	for round := range r.o.Rounds {
		for i := range rivals {
			v := rivals[(i+round)%len(rivals)]
			if v.rates == nil {
				v.rates, v.seen = make([][]float64, len(rows)), make([][]float64, len(rows))
			}
			for h := range houses {
				if err := r.visit(ctx, v, h, round, cert); err != nil {
					return fmt.Errorf("%s: %w", v.name, err)
				}
			}
		}
	}
	r.frontTable(rivals)
	return nil
}

// hundredLines is an ACL of which only the last line allows what is measured.
func hundredLines() string {
	var b strings.Builder
	for i := range 99 {
		fmt.Fprintf(&b, "topic readwrite plant/%d/+/temperature\n", i)
	}
	b.WriteString("topic readwrite front/+/temperature\n")
	return b.String()
}

// visit measures the rows of a house, in a fresh process.
func (r *rig) visit(ctx context.Context, v *rival, h house, round int, cert *proc.Certificate) error {
	in, err := v.start(ctx, h)
	if err != nil {
		return err
	}
	defer in.Kill()
	if h == open {
		idle, err := r.idle(ctx, in)
		if err != nil {
			return err
		}
		v.idle = append(v.idle, idle...)
	}
	plain := Load{Broker: in.mqtt, QoS: 1, Connections: 10, Window: r.o.Window, Payload: r.o.Payload, Messages: max(r.o.Messages, crowd), Name: "front"}
	warm := plain
	if in.http != "" {
		warm.Messages = max(warm.Messages, smallJournal/(r.o.Payload+20)) // as in round
	}
	if _, err := warm.Run(ctx); err != nil {
		return err
	}
	for i := range rows {
		n := (i + round) % len(rows)
		if rows[n].house != h {
			continue
		}
		l := plain
		if rows[n].load != nil {
			rows[n].load(&l)
		}
		if rows[n].secure {
			l.Broker, l.TLS = "tls://"+in.mqtts, cert.Client
		}
		if err := v.measure(ctx, in, n, l); err != nil {
			return fmt.Errorf("%s: %w", rows[n].name, err)
		}
	}
	return in.Stop()
}

// measure runs a row's load, before its subscribers.
func (v *rival) measure(ctx context.Context, in *instance, n int, l Load) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var watchers []*subscriber
	for i := range rows[n].watchers {
		s, err := subscribe(in.mqtt, fmt.Sprint("watcher-", i), "#", rows[n].watchQoS)
		if err != nil {
			return err
		}
		watchers = append(watchers, s)
		wg.Go(func() { s.run(ctx) })
	}
	res, err := l.Run(ctx)
	if err != nil {
		return err
	}
	v.rates[n] = append(v.rates[n], res.PerSecond)
	for _, s := range watchers {
		s.awaitSilence()
		v.seen[n] = append(v.seen[n], float64(s.got.Load())/float64(res.Messages))
	}
	return nil
}

// idle is what a connection costs that does nothing, in bytes of anonymous
// memory; nothing where the system does not tell.
func (r *rig) idle(ctx context.Context, in *instance) ([]float64, error) {
	before := anonymous(in.PID())
	if before < 0 {
		return nil, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	pubs := make([]*publisher.Publisher, crowd)
	for i := range pubs {
		p, err := publisher.New(publisher.Options{Broker: in.mqtt, ClientID: fmt.Sprint("idle-", i), Window: 1})
		if err != nil {
			return nil, err
		}
		pubs[i] = p
		wg.Go(func() { _ = p.Run(ctx) }) // ends with ctx; one that breaks connects again
	}
	limit := time.Now().Add(time.Minute)
	for _, p := range pubs {
		for !p.Stats().Connected {
			if ctx.Err() != nil || time.Now().After(limit) {
				return nil, errors.Join(fmt.Errorf("not all of %d clients connect: %s", crowd, p.Stats().LastError), ctx.Err())
			}
			time.Sleep(time.Millisecond)
		}
	}
	select {
	case <-time.After(2 * time.Second): // what connecting took is given back by then, or kept for long
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	return []float64{(anonymous(in.PID()) - before) / crowd}, nil
}

// edgeHouse starts an edge.
func (r *rig) edgeHouse(ctx context.Context, h house, cert *proc.Certificate, acl string) (*instance, error) {
	ports, err := proc.FreePorts(2)
	if err != nil {
		return nil, err
	}
	text := fmt.Sprintf("buffer:\n  max_bytes: %dB\nlisten:\n  mqtts: %s\nsensors:\n  max_clients: %d\n  tls: {cert_file: %q, key_file: %q}\n",
		smallJournal, ports[1], 2*crowd, cert.File, cert.Key)
	if h == walled {
		text += fmt.Sprintf("  acl_file: %q\n", acl)
	}
	file := filepath.Join(r.dir, fmt.Sprintf("house-%d.yaml", h))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("writing the edge's configuration: %w", err)
	}
	in, err := r.edgeTo(ctx, "tcp://"+ports[0], "--config", file) // nobody listens there
	if err == nil {
		in.mqtts = ports[1]
	}
	return in, err
}

// mosquittoHouse starts a mosquitto that does the same: without its bounds on
// messages in flight and waiting, at which it loses some.
func (r *rig) mosquittoHouse(ctx context.Context, path string, h house, cert *proc.Certificate, acl string) (*instance, error) {
	ports, err := proc.FreePorts(1)
	if err != nil {
		return nil, err
	}
	_, port, _ := cutPort(ports[0])
	more := "max_inflight_messages 0\nmax_queued_messages 0\n"
	if h == walled {
		more += "acl_file " + acl + "\n"
	} else {
		more += fmt.Sprintf("listener %s 127.0.0.1\ncertfile %s\nkeyfile %s\n", port, cert.File, cert.Key)
	}
	in, err := r.startMosquitto(ctx, path, false, more)
	if err == nil {
		in.mqtts = ports[0]
	}
	return in, err
}

// frontTable prints the rows.
func (r *rig) frontTable(rivals []*rival) {
	r.printf("%-36s", "10 connections, medians")
	for _, v := range rivals {
		r.printf(" %28s", v.name)
	}
	r.printf("\n")
	for n, row := range rows {
		r.printf("%-36s", row.name+", messages/s")
		for _, v := range rivals {
			rate := median(v.rates[n])
			r.printf(" %18.0f (%4.2f x)", rate, rate/median(v.rates[0]))
		}
		r.printf("\n")
		if row.watchers == 0 {
			continue
		}
		r.printf("%-36s", "  of them at each subscriber")
		for _, v := range rivals {
			r.printf(" %27.0f%%", 100*median(v.seen[n]))
		}
		r.printf("\n")
	}
	r.printf("%-36s", "memory of an idle connection, kB")
	for _, v := range rivals {
		if len(v.idle) == 0 {
			r.printf(" %28s", "not known on this system")
		} else {
			r.printf(" %28.1f", median(v.idle)/1000)
		}
	}
	r.printf("\nx: against QoS 1 of the same broker in this run; a window of 20 with 1,000 connections;\n")
	r.printf("with QoS 0 the last message of each connection has QoS 1; a subscriber shares the CPUs, too\n\n")
}
