// Package fleet drives simulated sensors: it paces their messages, publishes
// them through internal/rig/publisher and writes a receipt for each.
//
// It promises one receipt for every message that was handed to a publisher,
// whatever ends the run, with the connections it was sent on and whether it was
// acknowledged. When the edge is away, the sensors wait and catch up; they drop
// nothing. It makes up no values and judges nothing.
package fleet

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/fnv"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/packetboat/packetboat/firmware-sim/signals"
	"github.com/packetboat/packetboat/internal/rig/publisher"
	"github.com/packetboat/packetboat/internal/rig/receipts"
	"github.com/packetboat/packetboat/internal/rig/recording"
)

// Source yields the messages of one sensor, in order of time.
type Source = iter.Seq2[recording.Message, error]

// Client is one sensor that connects.
type Client struct {
	ID     string
	Source Source
	// Broker, Version and Mix, where set, are this sensor's instead of those of
	// Options.
	Broker  string
	Version byte
	Mix     []byte
}

// Options say how the sensors speak.
type Options struct {
	Broker             string      // tcp://, tls://, ws:// or wss://
	TLS                *tls.Config // for tls:// and wss://; nil: the system's authorities
	Username, Password string
	Version            byte // of MQTT: 4 or 5; 4 when 0
	QoS                byte // 0, 1 or 2
	// Mix, where set, stands before QoS: each topic has one of these, by its
	// name.
	Mix    []byte
	Window int // messages without acknowledgement, per client; 100 when 0
	// Session is how long the edge is to keep the sessions of sensors with QoS 2;
	// an hour when 0. Those with less have none that lasts.
	Session time.Duration
	// Speed is how fast recorded time passes; 0: as fast as it goes.
	Speed float64
	// Drain bounds the wait for the last acknowledgements, 0: for ever.
	Drain time.Duration
	// Receipts, when set, gets a receipt of every message.
	Receipts *receipts.Writer
	// Logger is told of connections; nil: nobody.
	Logger *slog.Logger
}

// Stats are sums over all clients.
type Stats struct {
	publisher.Stats
	Clients   int
	Connected int
	// Behind is how late the latest message was, compared with its time.
	Behind time.Duration
}

// Fleet is a set of running sensors.
type Fleet struct {
	o       Options
	clients []*client
}

// client is one sensor and its publisher.
type client struct {
	Client
	o      *Options
	pub    *publisher.Publisher
	mix    []byte
	behind atomic.Int64

	mu    sync.Mutex
	notes []note // guarded by mu: of the messages without outcome, oldest first
	err   error  // guarded by mu: of the receipts; the first
}

// note is what a receipt needs to know beside the outcome.
type note struct {
	topic string
	n     uint64
	hash  receipts.Hash
}

// New prepares the sensors; they speak when Run runs.
func New(clients []Client, o Options) (*Fleet, error) {
	if !(o.Speed >= 0) {
		return nil, fmt.Errorf("a speed of %v: use 1, 10, or 0 for as fast as it goes", o.Speed)
	}
	if o.Session == 0 {
		o.Session = time.Hour
	}
	f := &Fleet{o: o}
	for _, c := range clients {
		cl := &client{Client: c, o: &f.o, mix: c.Mix}
		if len(cl.mix) == 0 {
			cl.mix = o.Mix
		}
		if len(cl.mix) == 0 {
			cl.mix = []byte{o.QoS}
		}
		po := publisher.Options{
			Broker: cmp.Or(c.Broker, o.Broker), TLS: o.TLS, ClientID: c.ID, Username: o.Username, Password: o.Password,
			Version: cmp.Or(c.Version, o.Version), QoS: slices.Max(cl.mix), Window: o.Window, Logger: o.Logger,
		}
		if po.QoS == 2 {
			po.Session = o.Session
		}
		if o.Receipts != nil {
			po.Outcome = cl.receipt
		}
		var err error
		if cl.pub, err = publisher.New(po); err != nil {
			return nil, fmt.Errorf("sensor %s: %w", c.ID, err)
		}
		f.clients = append(f.clients, cl)
	}
	return f, nil
}

// qos gives a topic its quality of service, the same in every run.
func (c *client) qos(topic string) byte {
	if len(c.mix) == 1 {
		return c.mix[0]
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(topic)) // never an error
	return c.mix[h.Sum32()%uint32(len(c.mix))]
}

// Stats reads the counters, from any goroutine.
func (f *Fleet) Stats() (sum Stats) {
	for _, c := range f.clients {
		s := c.pub.Stats()
		sum.Clients++
		if s.Connected {
			sum.Connected++
		}
		sum.Published += s.Published
		sum.Acknowledged += s.Acknowledged
		sum.Refused += s.Refused
		sum.Resent += s.Resent
		sum.InFlight += s.InFlight
		sum.Released += s.Released
		sum.Connections += s.Connections
		sum.Sessions += s.Sessions
		sum.SessionsLost += s.SessionsLost
		if s.LastError != "" && !s.Connected {
			sum.LastError = c.ID + ": " + s.LastError
		}
		sum.Behind = max(sum.Behind, time.Duration(c.behind.Load()))
	}
	return sum
}

// Run lets the sensors speak until their sources end or ctx does, and then
// waits for the last acknowledgements, for Options.Drain at most. It returns
// when all connections are closed and all receipts are handed over. It is
// called once.
func (f *Fleet) Run(ctx context.Context) error {
	errs := make([]error, len(f.clients))
	var wg sync.WaitGroup
	for i, c := range f.clients {
		wg.Go(func() { errs[i] = c.run(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (c *client) run(ctx context.Context) error {
	connCtx, hangUp := context.WithCancel(context.WithoutCancel(ctx)) // the last acknowledgements are waited for
	defer hangUp()
	speakCtx, stop := context.WithCancel(ctx)
	defer stop()
	lost := make(chan error, 1)
	go func() {
		err := c.pub.Run(connCtx)
		stop() // nobody listens
		lost <- err
	}()
	err := c.speak(speakCtx)
	if errors.Is(err, publisher.ErrClosed) || errors.Is(err, context.Canceled) {
		err = nil // said by lost, or asked for
	}
	if drainErr := c.drain(ctx); err == nil && ctx.Err() == nil {
		err = drainErr
	}
	hangUp()
	err = errors.Join(err, <-lost)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err = errors.Join(err, c.err); err != nil {
		return fmt.Errorf("sensor %s: %w", c.ID, err)
	}
	return nil
}

// lastWait is how long a run that was told to end waits for acknowledgements.
const lastWait = 3 * time.Second

// drain waits for what is in flight.
func (c *client) drain(ctx context.Context) error {
	limit := c.o.Drain
	if ctx.Err() != nil {
		ctx, limit = context.WithoutCancel(ctx), lastWait
	}
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	err := c.pub.Drain(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%d messages were not acknowledged within %s", c.pub.Stats().InFlight, c.o.Drain)
	}
	if errors.Is(err, publisher.ErrClosed) {
		return nil // said by Run
	}
	return err
}

// speak publishes the source, each message at its time.
func (c *client) speak(ctx context.Context) error {
	start := time.Now()
	count := map[string]uint64{}
	for m, err := range c.Source {
		if err != nil {
			return err
		}
		if c.o.Speed > 0 {
			due := time.Duration(float64(m.T) / c.o.Speed)
			late := time.Since(start) - due
			c.behind.Store(int64(max(late, 0)))
			if late < -500*time.Microsecond && !sleep(ctx, -late) {
				return ctx.Err()
			}
		}
		if c.o.Receipts != nil {
			count[m.Topic]++
			c.expect(note{m.Topic, count[m.Topic], receipts.HashOf(m.Payload)})
		}
		if err := c.pub.Publish(ctx, m.Topic, m.Payload, c.qos(m.Topic), false, 0); err != nil {
			c.forget()
			return err
		}
		if err := c.receiptError(); err != nil {
			return nil // run reports it
		}
	}
	return nil
}

func (c *client) expect(n note) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notes = append(c.notes, n)
}

// forget takes back the latest expect: the publisher did not take the message.
func (c *client) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.notes) > 0 {
		c.notes = c.notes[:len(c.notes)-1]
	}
}

func (c *client) receiptError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// receipt writes down an outcome. Outcomes come in the order of Publish, one
// for each message, so the oldest note is the one.
func (c *client) receipt(o publisher.Outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.notes[0]
	c.notes = c.notes[1:]
	err := c.o.Receipts.Add(&receipts.Receipt{
		Client: c.ID, Topic: n.topic, N: n.n, Hash: n.hash, QoS: o.QoS, Tries: len(o.Sent), Acked: o.Acked,
		Sent: newest(o.Sent), Sessions: newest(o.Sessions),
	})
	if err != nil && c.err == nil {
		c.err = err
	}
}

// newest leaves out what does not fit a receipt.
func newest(numbers []uint32) []uint32 {
	return numbers[max(len(numbers)-receipts.MaxSent, 0):]
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// FromDevice makes a source of a made-up device; it ends after duration, or
// never when that is 0.
func FromDevice(d *signals.Device, duration time.Duration) Source {
	return func(yield func(recording.Message, error) bool) {
		for {
			s := d.Next()
			if duration > 0 && s.T >= duration || !yield(recording.Message{T: s.T, Topic: s.Topic, Payload: s.Payload}, nil) {
				return
			}
		}
	}
}
