package uplink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/eclipse/paho.golang/paho"

	"github.com/packetboat/packetboat/internal/wire"
	"github.com/packetboat/packetboat/pkg/buffer"
	"github.com/packetboat/packetboat/pkg/stream"
)

// maxWindow is the most batches in flight, whatever a hub grants.
const maxWindow = 1024

// welcome is what a hub said in CONNACK.
type welcome struct {
	log      stream.LogID
	coverage []stream.EpochCoverage
	window   int // batches
	packet   int // bytes of a PUBLISH; 0: no limit
	alias    bool
	codecs   wire.CodecGrant // zero: rows
}

// dial opens a connection to t: TCP, then TLS where t asks for it.
func (u *Uplink) dial(ctx context.Context, t target) (*packetConn, error) {
	dialer := net.Dialer{KeepAlive: u.o.KeepAlive}
	raw, err := dialer.DialContext(ctx, "tcp", t.addr)
	if err != nil {
		return nil, fmt.Errorf("connect to the hub: %w", err)
	}
	limitUnsent(raw)
	var c net.Conn = meter{raw, &u.bytesIn, &u.bytesOut}
	if !t.tls {
		return newPacketConn(c, u.o.ProgressTimeout), nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if u.o.TLSConfig != nil {
		if config, err = u.o.TLSConfig(); err != nil {
			_ = raw.Close()
			return nil, fmt.Errorf("prepare TLS: %w", err)
		}
		config = config.Clone()
	}
	if config.ServerName == "" {
		config.ServerName = t.host
	}
	secure := tls.Client(c, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("agree on TLS with the hub: %w", err)
	}
	return newPacketConn(secure, u.o.ProgressTimeout), nil
}

// open connects to t, hears its welcome and tells the buffer what it says.
// The link's client must be closed by the caller.
func (u *Uplink) open(ctx context.Context, t target) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, u.o.ConnectTimeout)
	defer cancel()
	conn, err := u.dial(ctx, t)
	if err != nil {
		return nil, err
	}
	// A write that hangs must not outlast ctx.
	defer context.AfterFunc(ctx, func() { conn.hurry(time.Now()) })()
	l := newLink(u, conn)
	held := wire.FormatHeld(u.buf.Held())
	request, err := u.connectPacket(held)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	// paho waits for CONNACK under its own time-out, which ctx ends sooner.
	answer, err := l.client.Connect(ctx, request)
	if err != nil {
		return nil, u.connectError(answer, conn, err)
	}
	l.welcome, err = readWelcome(answer)
	if err == nil {
		err = u.greet(l.welcome, held)
	}
	if err != nil {
		l.close()
		return nil, err
	}
	l.begin()
	return l, nil
}

func (u *Uplink) connectPacket(held []stream.Property) (*paho.Connect, error) {
	zero, receive, packet := uint32(0), uint16(16), uint32(maxInbound)
	c := &paho.Connect{
		ClientID: u.o.Device, CleanStart: true, KeepAlive: uint16(u.o.KeepAlive / time.Second),
		Properties: &paho.ConnectProperties{
			SessionExpiryInterval: &zero, ReceiveMaximum: &receive, MaximumPacketSize: &packet, RequestProblemInfo: true,
		},
	}
	said := []stream.Property{wire.FormatVersion()}
	if o, ok := u.offer(time.Now()); ok {
		said = append(said, wire.FormatCodecOffer(o))
	}
	for _, p := range append(said, held...) {
		c.Properties.User.Add(p.Key, p.Value)
	}
	if u.o.Secret == nil {
		return c, nil
	}
	secret, err := u.o.Secret()
	if err != nil {
		return nil, &ending{what: fmt.Sprintf("read the device's secret: %v", err), slow: true, err: err}
	}
	c.UsernameFlag, c.Username, c.PasswordFlag, c.Password = true, u.o.Username, true, secret
	return c, nil
}

// connectError says why there is no connection.
func (u *Uplink) connectError(answer *paho.Connack, conn *packetConn, err error) error {
	if answer != nil && answer.ReasonCode >= 0x80 {
		var reason, reference string
		var user []stream.Property
		if p := answer.Properties; p != nil {
			reason, reference, user = p.ReasonString, p.ServerReference, properties(p.User)
		}
		return refused(answer.ReasonCode, reason, reference, user, u.o.Device)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return &ending{what: fmt.Sprintf("hub did not answer CONNECT within %s", u.o.ConnectTimeout), hint: "is this port a packetboat-hub's?", err: err}
	}
	if e := conn.err(); e != nil {
		err = e
	}
	return fmt.Errorf("wait for the hub's welcome: %w", err)
}

func properties(p paho.UserProperties) []stream.Property {
	all := make([]stream.Property, len(p))
	for i := range p {
		all[i] = stream.Property{Key: p[i].Key, Value: p[i].Value}
	}
	return all
}

func readWelcome(c *paho.Connack) (w welcome, err error) {
	p := c.Properties
	if p == nil {
		p = &paho.ConnackProperties{}
	}
	w = welcome{window: maxWindow, alias: p.TopicAliasMaximum != nil && *p.TopicAliasMaximum > 0}
	user := properties(p.User)
	w.codecs, _ = wire.ParseCodecGrant(user) // none is an older hub
	if w.log, err = wire.ParseLogID(user); err == nil {
		w.coverage, err = wire.ParseCoverage(user)
	}
	switch {
	case err != nil:
	case p.MaximumQoS != nil && *p.MaximumQoS == 0:
		err = errors.New("QoS 1 is not allowed")
	case c.SessionPresent:
		err = errors.New("a session is present although none was asked for")
	case p.ReceiveMaximum != nil:
		w.window = min(max(int(*p.ReceiveMaximum), 1), maxWindow)
	}
	if p.MaximumPacketSize != nil {
		w.packet = int(min(*p.MaximumPacketSize, 1<<28))
	}
	if err != nil {
		return w, &ending{what: fmt.Sprintf("hub's welcome does not follow the link protocol: %v", err), hint: "is this port a packetboat-hub's?", slow: true, err: err}
	}
	return w, nil
}

// greet tells the buffer what the log knows, before a byte is sent: what is
// settled, and which epochs it has forgotten. asked is what was said in CONNECT.
func (u *Uplink) greet(w welcome, asked []stream.Property) error {
	named := make(map[stream.Epoch]bool)
	for _, e := range w.coverage {
		named[e.Epoch] = true
		lanes := e.Lanes
		if len(lanes) == 0 { // known, and nothing said: it has answered all the same
			lanes = []stream.LaneCoverage{{Lane: stream.Normal}}
		}
		for _, l := range lanes {
			a := buffer.Answer{By: w.log, Settled: l.Settled, Lost: l.Lost}
			if err := u.buf.Settle(stream.ID{Epoch: e.Epoch, Lane: l.Lane}, a); err != nil {
				return fmt.Errorf("take over what the hub has settled: %w", err)
			}
		}
	}
	held, err := wire.ParseHeld(asked)
	if err != nil {
		return fmt.Errorf("read what was said in CONNECT: %w", err)
	}
	for _, h := range held {
		if h.Answered != w.log || named[h.Epoch] {
			continue
		}
		named[h.Epoch] = true // each epoch once
		u.o.Logger.Warn("epoch given up: the hub's log has forgotten it", "epoch", h.Epoch.String(), "log", w.log.String())
		if err := u.buf.GiveUp(h.Epoch, stream.Stale); err != nil {
			return fmt.Errorf("give up a stale epoch: %w", err)
		}
		u.count(func(s *Stats) { s.EpochsStale++ })
	}
	return nil
}
