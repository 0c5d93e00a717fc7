package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/packetboat/packetboat/internal/mqttfront"
	"github.com/packetboat/packetboat/internal/pki"
	"github.com/packetboat/packetboat/internal/wire"
	"github.com/packetboat/packetboat/pkg/codec"
	"github.com/packetboat/packetboat/pkg/ingest"
	"github.com/packetboat/packetboat/pkg/stream"
)

// bridge makes ingest sessions of MQTT connections: mqttfront knows no device,
// ingest knows no MQTT.
type bridge struct {
	ingest  *ingest.Ingest
	devices *devices
	trust   func() *pki.Trust // what certificates are believed now; nil, or gives nil: none
	log     *slog.Logger
	slow    *slowdown
	stats   bridgeStats
	comings comings

	checking sync.Mutex // one expel at a time

	mu       sync.Mutex
	sessions map[*session]struct{} // guarded by mu; those that are open
}

func newBridge(in *ingest.Ingest, d *devices, trust func() *pki.Trust, log *slog.Logger) *bridge {
	if trust == nil {
		trust = func() *pki.Trust { return nil }
	}
	return &bridge{ingest: in, devices: d, trust: trust, log: log, slow: newSlowdown(), sessions: map[*session]struct{}{}}
}

// bridgeStats counts what was refused before ingest saw it.
type bridgeStats struct {
	connects, expelled                           atomic.Int64
	badID, badSecret, badVersion, badHello, busy atomic.Int64
	badCertificate, notListed                    atomic.Int64
	foreignTopic, badQoS, foreignFilter          atomic.Int64
}

// Connect admits a device: its id, then its secret, then what it says of
// itself. A client that does not prove who it is learns nothing of any device.
func (b *bridge) Connect(ctx context.Context, p *mqttfront.Peer) (mqttfront.Session, mqttfront.Welcome, error) {
	p.Will = nil // nothing is published in a device's name but its batches
	hello, err := b.check(ctx, p)
	if err != nil {
		return nil, mqttfront.Welcome{}, err
	}
	p.User = nil // up to 60 kB of it, which p would keep as long as the connection lives
	hello.Origin = addr(p.Remote)
	hello.Revoke = func(reason string) { p.Disconnect(revokeCode(reason), reason) }
	ing, welcome, err := b.ingest.Connect(ctx, hello)
	if err != nil {
		return nil, mqttfront.Welcome{}, b.refusal(hello.Device, err)
	}
	b.stats.connects.Add(1)
	b.say("device connected", hello.Device, "remote", addr(p.Remote), "transport", p.Transport, "certificate", len(pki.DeviceOf(p.TLS)) > 0, "streams_held", len(hello.Held),
		"codec", max(welcome.Codec.Codec, codec.Rows).String(), "codec_state", welcome.Codec.State, "codec_resumed", welcome.Codec.Resume)
	s := &session{bridge: b, device: hello.Device, ingest: ing, peer: p, goodUntil: pki.GoodUntil(p.TLS),
		up: wire.UpTopic(hello.Device), down: strings.TrimSuffix(wire.UpTopic(hello.Device), "up") + "down"}
	b.mu.Lock()
	b.sessions[s] = struct{}{}
	b.mu.Unlock()
	return s, mqttfront.Welcome{
		ReceiveMaximum:    uint16(min(welcome.WindowMessages, 65535)),
		MaximumPacketSize: uint32(welcome.PacketBytes),
		User:              welcomeProperties(&welcome),
	}, nil
}

// welcomeProperties are the user properties of CONNACK.
func welcomeProperties(w *ingest.Welcome) []stream.Property {
	return slices.Concat([]stream.Property{wire.FormatLogID(w.Log)}, granted(w.Codec), wire.FormatCoverage(w.Coverage))
}

// granted is the answer to what an edge offers of codecs; none to an edge that
// offered nothing, or goes on as before.
func granted(g ingest.CodecGrant) []stream.Property {
	if g == (ingest.CodecGrant{}) {
		return nil
	}
	return []stream.Property{wire.FormatCodecGrant(wire.CodecGrant(g))}
}

// recheckEvery is how soon a connection ends whose device has lost its secret.
const recheckEvery = 5 * time.Second

// recheck ends, until ctx does, the connections of devices that would not be
// let in any more.
func (b *bridge) recheck(ctx context.Context) error {
	tick := time.NewTicker(recheckEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			b.expel()
		}
	}
}

// expel asks for every open connection what was asked when it came.
func (b *bridge) expel() {
	b.checking.Lock()
	defer b.checking.Unlock()
	b.mu.Lock()
	open := slices.Collect(maps.Keys(b.sessions))
	b.mu.Unlock()
	trust, now := b.trust(), time.Now()
	for _, s := range open {
		what := "secret"
		err := s.checkCertificate(trust, now)
		switch {
		case err != nil:
			what = "certificate"
		case b.devices.admit(claimOf(s.peer)) == admitted:
			continue
		}
		b.stats.expelled.Add(1)
		b.log.Info("device may not connect any more", "device", s.device, "not_accepted", what, "error", err)
		s.peer.Disconnect(mqttfront.NotAuthorized, "the device's "+what+" is not accepted any more")
	}
}

// claimOf is what a client says it is, and what it shows for it.
func claimOf(p *mqttfront.Peer) claim {
	return claim{id: p.ClientID, secret: p.Password, from: p.Remote, tls: p.TLS}
}

// checkCertificate looks whether the certificate that a connection came with
// would be accepted still. It is verified anew only when the authorities or the
// revocation lists have changed. bridge.checking is held.
func (s *session) checkCertificate(trust *pki.Trust, now time.Time) error {
	switch {
	case trust == nil || s.goodUntil.IsZero():
		return nil
	case now.After(s.goodUntil):
		return fmt.Errorf("the certificate ended at %s", s.goodUntil)
	case trust == s.trust:
		return nil
	}
	if err := trust.Check(s.peer.TLS); err != nil {
		return err
	}
	s.trust = trust
	return nil
}

// refuseClaim answers a client that did not prove who it is. What it is told
// depends on what it sent alone, not on which devices there are.
func (b *bridge) refuseClaim(ctx context.Context, p *mqttfront.Peer, v verdict) error {
	r := &mqttfront.Refusal{Code: mqttfront.NotAuthorized, Reason: "device id and secret are not accepted"}
	switch v {
	case wrongName:
		b.stats.badCertificate.Add(1)
		r.Reason = "the certificate does not name this client id"
	case notListed:
		b.stats.notListed.Add(1)
		r.Reason = "the device of this certificate is not listed here"
	case wrongSecret:
		b.stats.badSecret.Add(1)
		r.Code = mqttfront.BadUsernameOrPassword
		b.slow.wait(ctx, p.Remote)
	default:
		b.stats.badSecret.Add(1)
	}
	return r
}

// check reads CONNECT. The order matters: nothing behind the secret is looked
// at for a client that does not have it.
func (b *bridge) check(ctx context.Context, p *mqttfront.Peer) (h ingest.Hello, err error) {
	refuse := func(n *atomic.Int64, code byte, reason string, err error) error {
		n.Add(1)
		if err != nil { // the front logs the rest
			b.log.Debug("connect is malformed", "client_id", clip(p.ClientID), "remote", addr(p.Remote), "error", err)
		}
		return &mqttfront.Refusal{Code: code, Reason: reason}
	}
	if p.Assigned { // an id that the front made up names no device
		return h, refuse(&b.stats.badID, mqttfront.ClientIDNotValid, "the client id must be the device id", nil)
	}
	if err := stream.CheckDeviceID(p.ClientID); err != nil {
		return h, refuse(&b.stats.badID, mqttfront.ClientIDNotValid, stream.ErrDeviceID.Error(), nil)
	}
	if p.Username != "" && p.Username != p.ClientID {
		return h, refuse(&b.stats.badSecret, mqttfront.BadUsernameOrPassword, "the user name must be the client id", nil)
	}
	if v := b.devices.admit(claimOf(p)); v != admitted {
		return h, b.refuseClaim(ctx, p, v)
	}
	version, err := wire.ParseVersion(p.User)
	if err != nil || version < 1 || version > ingest.Version {
		return h, refuse(&b.stats.badVersion, mqttfront.UnsupportedProtocolVersion, "this hub speaks pb-version 1", err)
	}
	held, err := wire.ParseHeld(p.User)
	if err != nil {
		return h, refuse(&b.stats.badHello, mqttfront.ProtocolError, "pb-held is malformed", err)
	}
	codecs, _ := wire.ParseCodecOffer(p.User) // none, or not readable: rows, that every hub takes
	return ingest.Hello{
		Device: p.ClientID, Version: version, Held: held, Partial: wire.HeldIsPartial(p.User), Codec: ingest.CodecOffer(codecs),
	}, nil
}

// refusal tells a device why ingest does not take it.
func (b *bridge) refusal(device string, err error) error {
	var busy *ingest.BusyError
	switch {
	case errors.As(err, &busy):
		b.stats.busy.Add(1)
		code := mqttfront.ServerBusy
		if busy.Reason == ingest.BusyBudget {
			code = mqttfront.QuotaExceeded
		}
		return &mqttfront.Refusal{Code: code, Reason: "busy: " + busy.Reason.String(), User: []stream.Property{wire.FormatRetryAfter(busy.RetryAfter)}}
	case errors.Is(err, ingest.ErrHello):
		b.stats.badHello.Add(1)
		b.log.Debug("connect is malformed", "client_id", device, "error", err)
		return &mqttfront.Refusal{Code: mqttfront.ProtocolError, Reason: "what the device says it holds is not valid"}
	}
	return err // the front says "unavailable" and keeps the text to itself
}

// session is one admitted connection.
type session struct {
	bridge   *bridge
	device   string
	ingest   *ingest.Session
	peer     *mqttfront.Peer
	up, down string

	// What its certificate was checked with last; nil: in the handshake, and much
	// may have been revoked until CONNECT came. Guarded by bridge.checking.
	trust     *pki.Trust
	goodUntil time.Time // the end of its certificate; zero: it has none
}

// Publish hands a batch to ingest. Everything but a QoS 1 PUBLISH to the
// device's own topic is refused and counted.
func (s *session) Publish(p *mqttfront.Publish, settle mqttfront.Settle) {
	switch {
	case p.Topic != s.up:
		s.refuse(&s.bridge.stats.foreignTopic, "foreign topic", p.Topic)
		settle(mqttfront.Result{Code: mqttfront.NotAuthorized})
	case p.QoS != 1:
		// Nothing could be promised for it: QoS 0 has no acknowledgement.
		s.refuse(&s.bridge.stats.badQoS, "batch is not QoS 1", p.Topic)
		settle(mqttfront.Result{Code: mqttfront.QoSNotSupported})
	default:
		s.ingest.Submit(p.Payload, func(o ingest.Outcome) { settle(result(o)) })
	}
}

// Subscribe lets a device listen below its own id only.
func (s *session) Subscribe(filter string) bool {
	if filter == s.down || strings.HasPrefix(filter, s.down+"/") {
		return true
	}
	s.refuse(&s.bridge.stats.foreignFilter, "foreign topic filter", filter)
	return false
}

// Deliver is never asked: nothing is fanned out here.
func (s *session) Deliver(string) bool { return false }

// refuse counts, and logs at debug level: a device may do it at any rate.
func (s *session) refuse(n *atomic.Int64, why, topic string) {
	n.Add(1)
	s.bridge.log.Debug("refused", "device", s.device, "reason", why, "topic", clip(topic))
}

// Close ends the ingest session; what is pending is still settled.
func (s *session) Close(reason error) {
	s.bridge.mu.Lock()
	delete(s.bridge.sessions, s)
	s.bridge.mu.Unlock()
	s.ingest.Close()
	s.bridge.say("device disconnected", s.device, "reason", reason)
}

// say writes that a device comes or goes, which it may do at any rate.
func (b *bridge) say(msg, device string, args ...any) {
	level, leftOut := b.comings.level(device, time.Now())
	if leftOut > 0 {
		args = append(args, "left_out", leftOut)
	}
	b.log.Log(context.Background(), level, msg, append([]any{"device", device}, args...)...)
}

// result is a PUBACK of an outcome.
func result(o ingest.Outcome) mqttfront.Result {
	switch o.Code {
	case ingest.Settled:
		return mqttfront.Result{Code: mqttfront.Success, User: wire.FormatAnswer(o.Lost, o.In)}
	case ingest.Refused:
		return mqttfront.Result{Code: mqttfront.QuotaExceeded, User: []stream.Property{wire.FormatRetryAfter(o.RetryAfter)}}
	}
	return mqttfront.Result{Code: mqttfront.PayloadFormatInvalid, User: granted(o.Codec)}
}

// revokeCode is the DISCONNECT code for the reason of a revocation.
func revokeCode(reason string) byte {
	switch reason {
	case ingest.RevokedTakeover.String():
		return mqttfront.SessionTakenOver
	case ingest.RevokedWindow.String():
		return mqttfront.ReceiveMaximumExceeded
	case ingest.RevokedStopped.String():
		return mqttfront.ServerShuttingDown
	}
	return mqttfront.ServerBusy // the shard's ownership or the log's incarnation changed: come again
}

// clip bounds what a log line repeats of what a client sent.
func clip(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:80], "") + "…"
	}
	return s
}

func addr(a net.Addr) string {
	if a == nil {
		return ""
	}
	return a.String()
}
