// Package publisher is a lean MQTT publisher, 3.1.1 and 5, that behaves as a
// careful sensor does: it keeps a window of QoS 1 messages in flight, connects
// again when the connection ends, and sends again, in order, what was not
// acknowledged.
//
// It promises that a message leaves the window only when it was acknowledged,
// that the messages of one publisher go out in the order of Publish, and that
// each gets one Outcome, which says on which connections it was sent and
// whether the last of these sends was acknowledged. It does not subscribe, does
// not speak QoS 2 and keeps nothing on disk.
package publisher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// ErrClosed is what Publish returns once Run has ended.
var ErrClosed = errors.New("the publisher has stopped")

// MaxWindow is the largest window.
const MaxWindow = 30_000

const (
	outLimit  = 1 << 20 // bytes encoded and not yet written; one message may exceed it
	maxPacket = 268_435_455
)

// Options say where a publisher connects and how it publishes.
type Options struct {
	// Broker is tcp://host:port, mqtt://host:port or host:port.
	Broker   string
	ClientID string
	// Username and Password are sent unless Username is empty.
	Username, Password string
	// Version is 4 (MQTT 3.1.1, the default) or 5.
	Version byte
	// Window is how many messages may be without acknowledgement; 100 when 0.
	Window int
	// KeepAlive is 30 s when 0. A connection on which nothing comes back for
	// one and a half of it is dead.
	KeepAlive time.Duration
	// Once ends Run with an error when the connection ends, or cannot be made.
	Once bool
	// Outcome, when set, is told once of every message, in order of Publish,
	// from several goroutines but never from two at once. It must not call the
	// publisher.
	Outcome func(Outcome)
	// Logger is told of connections; nil: nobody.
	Logger *slog.Logger
}

// Outcome is what became of a message.
type Outcome struct {
	Tag uint64 // as given to Publish
	// Sent are the connections, counted from 1, on which it was sent.
	Sent []uint32
	// Acked says that the last send was acknowledged. It never is with QoS 0.
	Acked bool
	// Code is the reason code of an acknowledgement that was a refusal.
	Code byte
}

// Stats are counters since the start.
type Stats struct {
	Published    int64 // taken by Publish
	Acknowledged int64
	Refused      int64 // answered with a reason code of 0x80 or more
	Resent       int64 // sends beyond the first of a message
	InFlight     int64 // taken and not settled
	Connections  int64 // made so far
	Connected    bool
	LastError    string
}

// Publisher publishes. Publish and Drain are for one goroutine at a time; the
// other methods for any.
type Publisher struct {
	o     Options
	addr  string
	pause time.Duration // before the second attempt to connect

	report sync.Mutex // taken before mu is given back, so that outcomes keep their order

	mu    sync.Mutex
	space sync.Cond // the window moved, or the publisher ended
	work  sync.Cond // out has bytes, or the connection ended
	// The ring: messages [head, tail), numbered in order of Publish. The packet
	// id of message s is s%65535+1. All guarded by mu.
	ring             []message
	head, next, tail uint64 // next: the first one not sent on this connection
	limit            uint64 // this connection's window: Receive Maximum may be smaller than ours
	out              []byte // encoded for this connection, not yet written
	live             bool   // a connection is up
	leaving          bool   // the good-bye has set the connection's deadline
	ended            bool
	stats            Stats
}

// message is one place of the ring.
type message struct {
	packet []byte // the PUBLISH as sent; reused
	pid    int    // where the packet id stands in it; 0 with QoS 0
	sent   []uint32
	done   bool // nothing more to wait for
	acked  bool
	code   byte
	tag    uint64
}

// New checks the options. The publisher connects when Run runs.
func New(o Options) (*Publisher, error) {
	addr, err := address(o.Broker)
	if err != nil {
		return nil, err
	}
	if o.Version == 0 {
		o.Version = 4
	}
	if o.Window == 0 {
		o.Window = 100
	}
	if o.KeepAlive == 0 {
		o.KeepAlive = 30 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case o.Version != 4 && o.Version != 5:
		return nil, fmt.Errorf("MQTT version %d: use 4 (3.1.1) or 5", o.Version)
	case o.Window < 1 || o.Window > MaxWindow:
		return nil, fmt.Errorf("a window of %d messages: use 1 to %d", o.Window, MaxWindow)
	case o.ClientID == "" || len(o.ClientID) > 65535 || len(o.Username) > 65535 || len(o.Password) > 65535:
		return nil, errors.New("a publisher needs a client id, and no name or password is longer than 65,535 bytes")
	case o.KeepAlive < time.Second || o.KeepAlive > 65535*time.Second:
		return nil, fmt.Errorf("a keep-alive of %s: use 1s to 65535s", o.KeepAlive)
	}
	p := &Publisher{o: o, addr: addr, pause: minBackoff, ring: make([]message, o.Window), limit: uint64(o.Window)}
	p.space.L, p.work.L = &p.mu, &p.mu
	return p, nil
}

// address reads a broker's address.
func address(broker string) (string, error) {
	u := &url.URL{Host: broker}
	if strings.Contains(broker, "://") {
		var err error
		if u, err = url.Parse(broker); err != nil || u.Scheme != "tcp" && u.Scheme != "mqtt" {
			return "", fmt.Errorf("broker %.100q: want tcp://host:port", broker)
		}
	}
	host, port, err := net.SplitHostPort(u.Host)
	if err != nil && u.Port() == "" {
		host, port = u.Hostname(), "1883"
	}
	if host == "" || port == "" || u.Path != "" && u.Path != "/" {
		return "", fmt.Errorf("broker %.100q: want tcp://host:port", broker)
	}
	return net.JoinHostPort(host, port), nil
}

// Publish takes a message, QoS 0 or 1. It waits while the window is full, and
// copies what it is given. An error says that the message was not taken.
func (p *Publisher) Publish(ctx context.Context, topic string, payload []byte, qos byte, retain bool, tag uint64) error {
	if qos > 1 {
		return fmt.Errorf("QoS %d: use 0 or 1", qos)
	}
	if topic == "" || len(topic) > 65535 || len(payload) > maxPacket-len(topic)-4 {
		return fmt.Errorf("a topic of %d and a payload of %d bytes do not fit an MQTT packet", len(topic), len(payload))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.wait(ctx, func() bool { return p.tail-p.head < uint64(len(p.ring)) && len(p.out) < outLimit })
	if err != nil {
		return err
	}
	m := &p.ring[p.tail%uint64(len(p.ring))]
	m.packet, m.pid = AppendPublish(m.packet[:0], p.o.Version, topic, payload, qos, retain, packetID(p.tail))
	m.sent, m.done, m.acked, m.code, m.tag = nil, false, false, 0, tag
	p.tail++
	p.stats.Published++
	p.pump()
	return nil
}

// Drain waits until everything that Publish took is settled, or ctx ends.
func (p *Publisher) Drain(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.wait(ctx, func() bool { return p.head == p.tail })
}

// wait blocks on space until ok. Called with mu held.
func (p *Publisher) wait(ctx context.Context, ok func() bool) error {
	if ok() && !p.ended {
		return nil
	}
	stop := context.AfterFunc(ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.space.Broadcast()
	})
	defer stop()
	for {
		switch {
		case p.ended:
			return ErrClosed
		case ok():
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		}
		p.space.Wait()
	}
}

// pump encodes what may be sent. Called with mu held.
func (p *Publisher) pump() {
	if !p.live {
		return
	}
	before := len(p.out)
	for p.next < p.tail && p.next-p.head < p.limit && len(p.out) < outLimit {
		m := &p.ring[p.next%uint64(len(p.ring))]
		p.next++
		if m.done {
			continue
		}
		if len(m.sent) > 0 {
			p.stats.Resent++
		}
		m.sent = append(m.sent, uint32(p.stats.Connections))
		p.out = append(p.out, m.packet...)
		m.done = m.pid == 0
	}
	if before == 0 && len(p.out) > 0 {
		p.work.Signal()
	}
}

// settle marks the messages that acks name. Called with mu held.
func (p *Publisher) settle(acks []ack) {
	for _, a := range acks {
		at := (uint64(a.id) + 65535 - 1 - p.head%65535) % 65535 // [MQTT-2.2.1-3]: ids in flight are unique, so one place fits
		if a.id == 0 || p.head+at >= p.next {
			p.stats.LastError = fmt.Sprintf("an acknowledgement of packet %d, which is not in flight", a.id)
			continue
		}
		m := &p.ring[(p.head+at)%uint64(len(p.ring))]
		if m.done {
			continue
		}
		m.done, m.acked, m.code = true, a.code < 0x80, a.code
		if m.acked {
			p.stats.Acknowledged++
		} else {
			p.stats.Refused++
		}
	}
}

// advance takes settled messages off the head and reports them in order. It is
// called without locks.
func (p *Publisher) advance() {
	p.report.Lock()
	defer p.report.Unlock()
	p.mu.Lock()
	first := p.head
	var outcomes []Outcome
	for p.head < p.next && p.ring[p.head%uint64(len(p.ring))].done {
		m := &p.ring[p.head%uint64(len(p.ring))]
		if p.o.Outcome != nil {
			outcomes = append(outcomes, Outcome{m.tag, m.sent, m.acked, m.code})
		}
		p.head++
	}
	if p.head != first {
		p.pump()
		p.space.Broadcast()
	}
	p.mu.Unlock()
	for _, o := range outcomes {
		p.o.Outcome(o)
	}
}

// abandon ends the publisher: what is not settled is reported as it stands.
func (p *Publisher) abandon() {
	p.report.Lock()
	defer p.report.Unlock()
	p.mu.Lock()
	p.ended = true
	var outcomes []Outcome
	for ; p.head < p.tail; p.head++ {
		m := &p.ring[p.head%uint64(len(p.ring))]
		outcomes = append(outcomes, Outcome{m.tag, slices.Clone(m.sent), m.acked, m.code})
	}
	p.next = p.head
	p.space.Broadcast()
	p.mu.Unlock()
	for _, o := range outcomes {
		if p.o.Outcome != nil {
			p.o.Outcome(o)
		}
	}
}

// Stats reads the counters.
func (p *Publisher) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.InFlight, s.Connected = int64(p.tail-p.head), p.live
	return s
}

func packetID(n uint64) uint16 { return uint16(n%65535) + 1 }
