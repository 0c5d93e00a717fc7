// Package gate is what a stranger meets before MQTT: it accepts connections at
// a bounded rate, does their TLS and WebSocket handshakes, a bounded number at
// a time, and hands over those that are done.
//
// It promises that Accept never waits for a slow stranger, that a flood from
// one address leaves room for the others, that what a stranger makes us hold is
// bounded in bytes and time, that every connection it closes is counted under
// one of Reasons, and that Close of a listener ends all that hangs on it. It
// knows no MQTT, reads no files and asks nobody for a name: certificates are
// the tls.Config's business.
package gate

import (
	"container/list"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// The reasons for which a connection is closed before it is handed over. The
// set is closed.
const (
	PerAddress   = "per_address"    // its address holds Options.PerAddress already
	Waited       = "waited"         // its turn came too late for anybody to be there still
	Left         = "left"           // it went by itself
	Timeout      = "timeout"        // not done within Options.HandshakeTimeout
	Crowded      = "crowded"        // slow, while others waited for its place
	TooLarge     = "too_large"      // more bytes than a handshake needs
	NotTLS       = "not_tls"        // something else than TLS on a TLS port
	TLS          = "tls"            // any other fault in TLS: no common version, cipher …
	ClientAlert  = "client_alert"   // the client refused: often it does not trust our certificate
	NoClientCert = "no_client_cert" // it brought none, and one is required
	ClientCert   = "client_cert"    // its certificate is expired, or of another authority
	Revoked      = "revoked"        // its certificate is on a revocation list
	WebSocket    = "websocket"      // not a WebSocket request for MQTT
	Origin       = "origin"         // a page of another site
	Stopped      = "stopped"        // the listener was closed
)

// Reasons lists the reasons of Stats.Refused.
var Reasons = []string{PerAddress, Waited, Left, Timeout, Crowded, TooLarge, NotTLS, TLS, ClientAlert, NoClientCert, ClientCert, Revoked, WebSocket, Origin, Stopped}

// Options of a Gate. The zero value of a field means what its comment says.
type Options struct {
	// Rate is how many connections are accepted per second, over all listeners
	// of the gate and before any handshake; what comes beyond it waits. 0: no
	// bound.
	Rate float64
	// Burst is how many of them may come at once; 0: Rate, at least 1.
	Burst int
	// PerAddress bounds the connections of one IP address (IPv6: one /64) that
	// have not been handed over; further ones are closed. It has to be large
	// enough for a fleet behind one address that comes back at the same moment,
	// and small beside Waiting. This machine's own addresses are not bounded: a
	// proxy may stand there. 0: no bound.
	PerAddress int
	// Waiting bounds the connections of one listener that wait for their turn;
	// further ones wait in the kernel. 0: the larger of 256 and 4 × PerAddress.
	Waiting int
	// Handshakes bounds the handshakes at a time, TLS and WebSocket, over all
	// listeners. When all places are taken and somebody waits, one that is not
	// done after a quarter of HandshakeTimeout is closed. 0: 64.
	Handshakes int
	// HandshakeTimeout bounds a handshake, and the wait for one. 0: 10 s.
	HandshakeTimeout time.Duration
	// Logger; nil discards.
	Logger *slog.Logger
}

const (
	leastWaiting = 256
	// handshakeBytes bounds what is read of a client before its TLS handshake is
	// done; crypto/tls alone would hold 256 KiB of certificates.
	handshakeBytes = 64 << 10
	// linger is how long a refused client may take to read why.
	linger = 500 * time.Millisecond
)

func (o Options) withDefaults() Options {
	if o.Burst <= 0 {
		o.Burst = max(1, int(o.Rate))
	}
	if o.Waiting <= 0 {
		o.Waiting = max(leastWaiting, 4*o.PerAddress)
	}
	if o.Handshakes <= 0 {
		o.Handshakes = 64
	}
	if o.HandshakeTimeout <= 0 {
		o.HandshakeTimeout = 10 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Gate is shared by the listeners of a door. Its methods may be called from any
// goroutine.
type Gate struct {
	o     Options
	slots chan struct{} // a token for each handshake under way
	n     counters
	log   refusalLog

	mu      sync.Mutex
	bucket  bucket             // guarded by mu
	held    map[netip.Addr]int // guarded by mu; not handed over, by address
	running *list.List         // guarded by mu; of *handshake, the oldest first
}

// New makes a gate.
func New(o Options) *Gate {
	o = o.withDefaults()
	g := &Gate{o: o, slots: make(chan struct{}, o.Handshakes), held: map[netip.Addr]int{}, running: list.New()}
	g.bucket = newBucket(o.Rate, o.Burst, time.Now())
	g.n.refused = make(map[string]*atomic.Int64, len(Reasons))
	for _, r := range Reasons {
		g.n.refused[r] = new(atomic.Int64)
	}
	g.log = refusalLog{log: o.Logger, last: map[string]time.Time{}, quiet: map[string]int{}}
	return g
}

// TCP lets connections of l through the gate. The gate owns l from now on; the
// listener that it returns has to be closed, also when nobody called Accept.
func (g *Gate) TCP(l net.Listener) net.Listener {
	return newListener(g, l, "tcp", nil)
}

// TLS lets connections of l through the gate once their handshake is done.
// They have the methods of *tls.Conn.
func (g *Gate) TLS(l net.Listener, c *tls.Config) net.Listener {
	return newListener(g, l, "tls", func(raw net.Conn) (net.Conn, error) { return shakeTLS(raw, c) })
}

// WebSocket lets MQTT over WebSocket through the gate; with a TLS configuration
// over TLS, with nil over plain TCP. The connections carry the bytes of MQTT:
// what is written becomes a binary message, what is read comes from however
// many. Those over TLS have the method ConnectionState.
func (g *Gate) WebSocket(l net.Listener, c *tls.Config, o WebSocketOptions) net.Listener {
	u := newUpgrader(o)
	if c == nil {
		return newListener(g, l, "ws", func(raw net.Conn) (net.Conn, error) { return u.shake(raw, nil) })
	}
	return newListener(g, l, "wss", func(raw net.Conn) (net.Conn, error) { return u.shake(raw, c) })
}

// Stats says what a gate has done since it was made and what it holds now.
type Stats struct {
	// Gauges.
	Waiting     int64 // connections that wait for their turn
	Handshaking int64 // handshakes under way

	Arrived  int64 // connections taken from the kernel
	Accepted int64 // of them, handed over
	// Delayed counts connections that had to wait because of Options.Rate,
	// FullHandshakes those that had to because of Options.Handshakes.
	Delayed, FullHandshakes int64
	// Refused counts those closed; it has a key for each of Reasons.
	Refused map[string]int64
}

type counters struct {
	waiting, handshaking, arrived, accepted, delayed, full atomic.Int64

	refused map[string]*atomic.Int64 // constant; a key for each of Reasons
}

// Stats gives a snapshot. Its values are read one after the other.
func (g *Gate) Stats() Stats {
	s := Stats{
		Waiting: g.n.waiting.Load(), Handshaking: g.n.handshaking.Load(), Arrived: g.n.arrived.Load(), Accepted: g.n.accepted.Load(),
		Delayed: g.n.delayed.Load(), FullHandshakes: g.n.full.Load(), Refused: make(map[string]int64, len(Reasons)),
	}
	for r, n := range g.n.refused {
		s.Refused[r] = n.Load()
	}
	return s
}

// refuse counts a connection that is closed, and says so.
func (g *Gate) refuse(reason string, remote net.Addr, transport string, err error) {
	g.n.refused[reason].Add(1)
	g.log.line(reason, remote, transport, err)
}

// hold notes a connection of an address; false: it has too many.
func (g *Gate) hold(a netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.o.PerAddress > 0 && g.held[a] >= g.o.PerAddress && !a.IsLoopback() {
		return false
	}
	g.held[a]++
	return true
}

func (g *Gate) release(a netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held[a]--; g.held[a] <= 0 {
		delete(g.held, a)
	}
}

// AddressOf is the address that shares are counted by: of IPv6 the /64, which
// one customer has to himself.
func AddressOf(a net.Addr) netip.Addr {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	ip, _ := netip.AddrFromSlice(t.IP)
	ip = ip.Unmap()
	if ip.Is6() && !ip.IsLoopback() {
		if p, err := ip.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return ip
}

// refusalLog writes at most one line per second and reason: strangers decide
// how many there would be.
type refusalLog struct {
	log *slog.Logger

	mu    sync.Mutex
	last  map[string]time.Time // guarded by mu; by reason
	quiet map[string]int       // guarded by mu; lines left out since
}

func (r *refusalLog) line(reason string, remote net.Addr, transport string, err error) {
	if reason == Stopped {
		return
	}
	now := time.Now()
	r.mu.Lock()
	if last, ok := r.last[reason]; ok && now.Sub(last) < time.Second {
		r.quiet[reason]++
		r.mu.Unlock()
		return
	}
	quiet := r.quiet[reason]
	r.last[reason], r.quiet[reason] = now, 0
	r.mu.Unlock()
	level := slog.LevelInfo
	if reason == Left {
		level = slog.LevelDebug // port scans and health checks
	}
	args := []any{"reason", reason, "transport", transport, "remote", remote.String(), "left_out", quiet}
	if err != nil {
		args = append(args, "error", err)
	}
	r.log.Log(context.Background(), level, "connection closed before MQTT", args...)
}
