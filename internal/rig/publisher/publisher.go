// Package publisher is a lean MQTT publisher, 3.1.1 and 5, over TCP, TLS and
// WebSocket, that behaves as a careful sensor does: it keeps a window of
// messages in flight, connects again when the connection ends, and sends again,
// in order, what was not acknowledged.
//
// It promises that a message leaves the window only when it was acknowledged,
// that the messages of one publisher go out in the order of Publish, and that
// each gets one Outcome, which says on which connections it was sent and
// whether it was acknowledged. With Options.Session it keeps its session over
// connections as MQTT wants it: packet ids and states stay, a PUBLISH is sent
// again with DUP under its id, a PUBREL likewise, and a session that the broker
// has lost is given up. It does not subscribe and keeps nothing on disk.
package publisher

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
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
	// Broker is tcp://, tls://, ws:// or wss:// and host:port, for WebSockets
	// with a path where it is not /mqtt; or host:port for TCP. mqtt:// and
	// mqtts:// mean tcp:// and tls://.
	Broker string
	// TLS is for tls:// and wss://; nil: the system's authorities.
	TLS      *tls.Config
	ClientID string
	// Username and Password are sent unless Username is empty.
	Username, Password string
	// Version is 4 (MQTT 3.1.1, the default) or 5.
	Version byte
	// QoS is the highest that will be published: a broker that announces less
	// ends Run with an error. 0: nothing is checked.
	QoS byte
	// Session is how long the broker is to keep the session when the connection
	// has ended, in whole seconds (MQTT 3.1.1 cannot say how long). 0: every
	// connection is a session of its own.
	Session time.Duration
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
	QoS byte
	// Sent are the connections, counted from 1, on which it was sent.
	Sent []uint32
	// Sessions are the sessions, counted from 1, in which a QoS 2 message was
	// sent. More than one says that the broker lost a session that held it.
	Sessions []uint32
	// Acked says that it was acknowledged: with QoS 1 the last send, with QoS 2
	// by PUBREC, from which on it is the broker's. It never is with QoS 0.
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
	Released     int64 // PUBRELs sent again on a later connection
	InFlight     int64 // taken and not settled
	Connections  int64 // made so far
	Sessions     int64 // begun so far; without Options.Session one for each connection
	SessionsLost int64 // of Options.Session: the broker had forgotten it
	Connected    bool
	LastError    string
}

// Publisher publishes. Publish and Drain are for one goroutine at a time; the
// other methods for any.
type Publisher struct {
	o     Options
	at    target
	pause time.Duration // before the second attempt to connect

	report sync.Mutex // taken before mu is given back, so that outcomes keep their order

	mu    sync.Mutex
	space sync.Cond // the window moved, or the publisher ended
	work  sync.Cond // out has bytes, or the connection ended
	// The ring: messages [head, tail), numbered in order of Publish. The packet
	// id of message s is s%65535+1. All guarded by mu.
	ring             []message
	head, next, tail uint64 // next: the first one not looked at on this connection
	limit            uint64 // this connection's window: Receive Maximum may be smaller than ours
	out              []byte // encoded for this connection, not yet written
	live             bool   // a connection is up
	leaving          bool   // the good-bye has set the connection's deadline
	ended            bool
	session          uint32 // the one that lasts, counted from 1
	kept             bool   // of Options.Session: both sides know it
	stats            Stats
}

// New checks the options. The publisher connects when Run runs.
func New(o Options) (*Publisher, error) {
	at, err := parseTarget(o.Broker)
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
	case o.QoS > 2:
		return nil, fmt.Errorf("QoS %d: use 0, 1 or 2", o.QoS)
	case o.Session < 0 || o.Session%time.Second != 0 || o.Session > math.MaxUint32*time.Second:
		return nil, fmt.Errorf("a session of %s: use whole seconds, up to %d", o.Session, uint32(math.MaxUint32))
	case o.Window < 1 || o.Window > MaxWindow:
		return nil, fmt.Errorf("a window of %d messages: use 1 to %d", o.Window, MaxWindow)
	case o.ClientID == "" || len(o.ClientID) > 65535 || len(o.Username) > 65535 || len(o.Password) > 65535:
		return nil, errors.New("a publisher needs a client id, and no name or password is longer than 65,535 bytes")
	case o.KeepAlive < time.Second || o.KeepAlive > 65535*time.Second:
		return nil, fmt.Errorf("a keep-alive of %s: use 1s to 65535s", o.KeepAlive)
	}
	p := &Publisher{o: o, at: at, pause: minBackoff, ring: make([]message, o.Window), limit: uint64(o.Window)}
	p.space.L, p.work.L = &p.mu, &p.mu
	return p, nil
}

// Publish takes a message. It waits while the window is full, and copies what
// it is given. An error says that the message was not taken.
func (p *Publisher) Publish(ctx context.Context, topic string, payload []byte, qos byte, retain bool, tag uint64) error {
	if qos > 2 {
		return fmt.Errorf("QoS %d: use 0, 1 or 2", qos)
	}
	if topic == "" || len(topic) > 65535 || len(payload) > maxPacket-len(topic)-5 {
		return fmt.Errorf("a topic of %d and a payload of %d bytes do not fit an MQTT packet", len(topic), len(payload))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.wait(ctx, func() bool { return p.tail-p.head < uint64(len(p.ring)) && len(p.out) < outLimit })
	if err != nil {
		return err
	}
	m := &p.ring[p.tail%uint64(len(p.ring))]
	packet, _ := AppendPublish(m.packet[:0], p.o.Version, topic, payload, qos, retain, packetID(p.tail))
	*m = message{packet: packet, qos: qos, tag: tag}
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

// Stats reads the counters.
func (p *Publisher) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.InFlight, s.Connected = int64(p.tail-p.head), p.live
	return s
}

func packetID(n uint64) uint16 { return uint16(n%65535) + 1 }
