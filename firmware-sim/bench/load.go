// Package bench measures: QoS 1 messages per second and latency against any
// broker, and the edge beside mosquitto in one run.
//
// It promises that every number of a table was measured in the run that prints
// it, and says under which conditions. It never passes or fails on time: a
// number is for people to judge.
package bench

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/packetboat/packetboat/internal/rig/publisher"
)

// Load is one run of publishers against a broker.
type Load struct {
	Broker             string
	TLS                *tls.Config // for tls:// and wss://; nil: the system's authorities
	Username, Password string
	QoS                byte
	Session            time.Duration // that the broker keeps; 0: every connection has its own
	Connections        int
	Window             int     // messages without acknowledgement, per connection
	Payload            int     // bytes
	Messages           int     // of all connections together
	Rate               float64 // messages/s of all together; 0: as fast as it goes
	Name               string  // of the clients and the first level of their topics
}

// Result is what a Load measured.
type Result struct {
	Connections int           `json:"connections"`
	Messages    int64         `json:"messages"`
	Duration    time.Duration `json:"duration_ns"`
	PerSecond   float64       `json:"messages_per_second"`
	P50         time.Duration `json:"p50_ns"`
	P90         time.Duration `json:"p90_ns"`
	P99         time.Duration `json:"p99_ns"`
	Max         time.Duration `json:"max_ns"`
}

// knocking is how many connections are made at a time: brokers bound those of
// one address that are strangers yet.
const knocking = 100

// sampleEvery is how many messages share one look at the clock.
const sampleEvery = 8

// Run publishes and waits for the last acknowledgement, which is that of the last
// message with QoS 0 too: its last one is sent with QoS 1. A connection that ends
// is an error: what came after it would be another measurement.
func (l Load) Run(ctx context.Context) (Result, error) {
	if l.Connections < 1 || l.Messages < l.Connections || l.Payload < 0 || l.Payload > 1<<20 || l.QoS > 2 || !(l.Rate >= 0) {
		return Result{}, fmt.Errorf("%d messages of %d bytes on %d connections: want at least one message for each, of at most 1 MiB, and QoS 0 to 2", l.Messages, l.Payload, l.Connections)
	}
	pubs := make([]*loader, l.Connections)
	for i := range pubs {
		var err error
		if pubs[i], err = l.loader(i); err != nil {
			return Result{}, err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	errs := make([]error, 2*l.Connections)
	for i, p := range pubs {
		wg.Go(func() {
			errs[i] = p.pub.Run(ctx)
			cancel()
		})
		if i >= knocking {
			pubs[i-knocking].awaitConnection(ctx)
		}
	}
	for _, p := range pubs {
		p.awaitConnection(ctx)
	}
	start := time.Now()
	var loads sync.WaitGroup
	for i, p := range pubs {
		loads.Go(func() { errs[l.Connections+i] = p.load(ctx, l) })
	}
	loads.Wait()
	took := time.Since(start)
	cancel()
	wg.Wait()
	if err := cmp.Or(errs...); err != nil { // why a connection ended, before what that ended
		return Result{}, fmt.Errorf("measuring %s: %w", l.Broker, err)
	}
	return l.result(pubs, took)
}

func (l Load) result(pubs []*loader, took time.Duration) (Result, error) {
	r := Result{Connections: l.Connections, Duration: took}
	var samples []time.Duration
	for _, p := range pubs {
		s := p.pub.Stats()
		r.Messages += s.Published
		if s.Refused > 0 {
			return r, fmt.Errorf("%s refused %d messages", l.Broker, s.Refused)
		}
		samples = append(samples, p.samples...)
	}
	r.PerSecond = float64(r.Messages) / took.Seconds()
	slices.Sort(samples)
	if n := len(samples); n > 0 {
		at := func(q float64) time.Duration { return samples[min(int(q*float64(n)), n-1)] }
		r.P50, r.P90, r.P99, r.Max = at(0.50), at(0.90), at(0.99), samples[n-1]
	}
	return r, nil
}

// loader is one connection.
type loader struct {
	pub     *publisher.Publisher
	start   time.Time
	n       int
	topic   string
	samples []time.Duration // appended by the publisher's outcomes, one at a time
}

func (l Load) loader(i int) (*loader, error) {
	p := &loader{start: time.Now(), n: l.Messages / l.Connections, topic: fmt.Sprintf("%s/%d/temperature", l.Name, i)}
	if i < l.Messages%l.Connections {
		p.n++
	}
	var err error
	p.pub, err = publisher.New(publisher.Options{
		Broker: l.Broker, ClientID: fmt.Sprintf("%s-%d", l.Name, i), Username: l.Username, Password: l.Password, Window: l.Window, Outcome: p.outcome, Once: true,
		TLS: l.TLS, QoS: max(l.QoS, 1), Session: l.Session,
	})
	return p, err
}

func (p *loader) awaitConnection(ctx context.Context) {
	for !p.pub.Stats().Connected && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
}

func (p *loader) outcome(o publisher.Outcome) {
	if o.Tag > 0 && o.Acked {
		p.samples = append(p.samples, time.Since(p.start)-time.Duration(o.Tag))
	}
}

func (p *loader) load(ctx context.Context, l Load) error {
	payload := make([]byte, l.Payload)
	for i := range payload {
		payload[i] = 'a' + byte(i%26)
	}
	var gap time.Duration
	if l.Rate > 0 {
		gap = time.Duration(float64(time.Second) * float64(l.Connections) / l.Rate)
	}
	begun := time.Now()
	for i := range p.n {
		if gap > 0 {
			if wait := time.Until(begun.Add(time.Duration(i) * gap)); wait > 0 {
				select {
				case <-time.After(wait):
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
		}
		tag := uint64(0)
		if i%sampleEvery == 0 || gap > 0 {
			tag = uint64(time.Since(p.start))
		}
		qos := l.QoS
		if i == p.n-1 {
			qos = max(qos, 1)
		}
		if err := p.pub.Publish(ctx, p.topic, payload, qos, false, tag); err != nil {
			return err
		}
	}
	return p.pub.Drain(ctx)
}
