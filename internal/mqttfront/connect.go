package mqttfront

import (
	"context"
	"errors"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/packetboat/packetboat/pkg/stream"
)

// admit asks the Handler whether the client may come in. It runs in mochi's
// OnConnectAuthenticate, on the connection's goroutine; when it says no it has
// answered already.
func (c *conn) admit(cl *mqtt.Client, pk packets.Packet) bool {
	c.cl, c.id, c.version = cl, cl.ID, cl.Properties.ProtocolVersion
	c.keepAlive = time.Duration(cl.State.Keepalive) * time.Second
	props := &cl.Properties.Props
	c.peerPacket = props.MaximumPacketSize
	c.noProblemInfo = props.RequestProblemInfoFlag && props.RequestProblemInfo == 0
	peer := c.peer(pk)
	if props.AuthenticationMethod != "" {
		c.refuse(&Refusal{Code: BadAuthenticationMethod, Reason: "enhanced authentication is not supported"}) // [MQTT-4.12.0-1]
		return false
	}
	session, welcome, err := c.ask(peer)
	if err != nil {
		c.refuse(err)
		return false
	}
	c.session, c.welcome = session, welcome
	c.will = takeWill(peer.Will, pk)
	// The will is ours alone: mochi would give it to subscribers before anybody
	// settled it, and forgets it when a takeover meets it between two reads.
	cl.Properties.Will = mqtt.Will{}
	// Without aliases towards the client: mochi believes an alias to be known
	// also when it dropped the message that brought it, and resends messages
	// without topic after the connection that knew the alias has ended.
	cl.Properties.Props.TopicAliasMaximum = 0
	c.bound(welcome)
	return true
}

func (c *conn) peer(pk packets.Packet) *Peer {
	p := &Peer{
		ClientID: c.id, Assigned: pk.Connect.ClientIdentifier == "", Username: string(pk.Connect.Username), Password: pk.Connect.Password,
		Version: c.version, CleanStart: pk.Connect.Clean, KeepAlive: pk.Connect.Keepalive,
		User: fromUser(pk.Properties.User), Remote: c.RemoteAddr(), TLS: c.tlsState(),
	}
	p.Disconnect = func(code byte, reason string) {
		c.end(&disconnected{code, reason}, code, reason)
	}
	if pk.Connect.WillFlag {
		p.Will = willOf(pk)
	}
	return p
}

// ask calls the Handler with a context that ends with the connection.
func (c *conn) ask(p *Peer) (Session, Welcome, error) {
	if p.Will != nil {
		if err := checkTopic([]byte(p.Will.Topic)); err != nil || p.Will.Topic[0] == '$' {
			return nil, Welcome{}, &Refusal{Code: TopicNameInvalid, Reason: "the will's topic is not for clients"}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.f.o.ConnectTimeout)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-c.gone:
			cancel()
		case <-ctx.Done():
		}
	}()
	c.calling = true
	session, welcome, err := c.f.handler.Connect(ctx, p)
	c.calling = false
	cancel()
	<-watched
	return session, welcome, err
}

// bound sets the limits of an admitted client.
func (c *conn) bound(w Welcome) {
	c.maxMessages = c.f.o.MaxInflightMessages
	c.maxBytes = int64(c.f.o.MaxInflightBytes)
	c.receiveMaximum = c.maxMessages
	if w.ReceiveMaximum > 0 {
		c.receiveMaximum = min(c.receiveMaximum, int(w.ReceiveMaximum))
	}
	c.welcome.ReceiveMaximum = uint16(c.receiveMaximum)
	if c.welcome.MaximumPacketSize == 0 || c.welcome.MaximumPacketSize > c.f.o.MaxPacketSize {
		c.welcome.MaximumPacketSize = c.f.o.MaxPacketSize
	}
	if w.ReceiveMaximum > 0 && w.MaximumPacketSize > 0 && c.version >= 5 {
		// What was granted never stops the reader.
		c.maxBytes = max(c.maxBytes, int64(c.receiveMaximum)*(int64(c.welcome.MaximumPacketSize)+entryCost))
	}
}

// refuse answers CONNECT in the words of the client's version. mochi's own
// answer, which would follow, finds the connection closed.
func (c *conn) refuse(err error) {
	var r *Refusal
	if !errors.As(err, &r) {
		c.f.log.Error("client not admitted", "client", c.id, "remote", c.RemoteAddr().String(), "error", err)
		r = &Refusal{Code: ServerUnavailable, Reason: "server unavailable"}
	} else {
		c.f.log.Info("client refused", "client", c.id, "remote", c.RemoteAddr().String(), "code", r.Code, "reason", r.Reason)
	}
	c.f.n.refusal(r.Code)
	_ = c.cl.WritePacket(packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Connack},
		ReasonCode:  r.Code,
		Properties:  packets.Properties{ReasonString: r.Reason, ServerReference: r.ServerReference, User: toUser(r.User)},
	})
	c.cl.Stop(r)
}

// connack completes a CONNACK that mochi is about to encode.
func (c *conn) connack(cl *mqtt.Client, pk packets.Packet) packets.Packet {
	version := c.version
	if c.cl == nil { // refused by mochi before the Handler was asked
		version = pk.ProtocolVersion
		if version < 5 && cl.Properties.Props.AssignedClientID != "" && !cl.Properties.Clean {
			pk.ReasonCode = ClientIDNotValid // [MQTT-3.1.3-8] of 3.1.1
		}
		c.f.n.refusal(pk.ReasonCode)
	}
	if version < 3 || version > 5 {
		pk.ReasonCode = 1 // [MQTT-3.1.2-2], in a form that every version has
		return pk
	}
	if version < 5 {
		pk.ReasonCode = connackV3(pk.ReasonCode)
		return pk
	}
	if pk.ReasonCode >= UnspecifiedError {
		pk.Properties.ReceiveMaximum = 0
		return pk
	}
	p := &pk.Properties
	p.ReceiveMaximum = c.welcome.ReceiveMaximum
	p.MaximumPacketSize = c.welcome.MaximumPacketSize
	p.TopicAliasMaximum = maxAliases
	p.MaximumQos, p.MaximumQosFlag = 1, true
	if !c.f.o.FanOut {
		p.RetainAvailable, p.RetainAvailableFlag = 0, true
	}
	p.User = toUser(c.welcome.User)
	return pk
}

// establish makes way for the new connection of a client: it ends an older one
// without waiting for it. Until settleIn, no other connection of that client
// comes or goes.
func (c *conn) establish(cl *mqtt.Client, clean bool) {
	c.lockStripe()
	cl.State.Inflight.ResetSendQuota(0) // see settleIn
	if old, ok := c.f.engine.Clients.Get(cl.ID); ok {
		c.succeed(old, clean)
	}
	c.f.wills.returned(cl.ID, clean)
}

// The successors of a connection.
const (
	successorNone    = iota
	successorResumed // a connection that resumed the session
	successorClean   // one that began a new session
)

// succeed ends the connection of old, if it lives, and tells it what became of
// its session.
func (c *conn) succeed(old *mqtt.Client, clean bool) {
	oc, ok := old.Net.Conn.(*conn)
	if !ok {
		return
	}
	oc.successor = successorResumed
	if clean {
		oc.successor = successorClean
	}
	c.dropTooLarge(old)
	if !oc.ending.Load() {
		c.f.n.takeOvers.Add(1)
		oc.end(errTakenOver, SessionTakenOver, "session taken over")
		old.Stop(packets.ErrSessionTakenOver)
	}
}

// settleIn opens the door for PUBLISHes.
func (c *conn) settleIn(cl *mqtt.Client) {
	// mochi's own send window may dead-lock (Inflight.NextImmediate takes its
	// read lock twice); without quota it never looks. deliverable bounds it.
	cl.State.Inflight.ResetSendQuota(0)
	c.unlockStripe()
	_ = c.strangerBytes(0)
	_ = c.Conn.SetReadDeadline(time.Time{})
	c.open.Store(true)
	c.f.n.clients.Add(1)
	c.f.n.connects.Add(1)
	if c.f.stopping.Load() {
		c.wake()
	}
}

// wake ends a read that waits.
func (c *conn) wake() { _ = c.Conn.SetReadDeadline(time.Unix(1, 0)) }

func (c *conn) lockStripe() {
	c.stripe = c.f.stripeOf(c.id)
	c.stripe.Lock()
}

func (c *conn) unlockStripe() {
	if c.stripe != nil {
		c.stripe.Unlock()
		c.stripe = nil
	}
}

// disconnected is the reason of a connection that Peer.Disconnect ended.
type disconnected struct {
	code   byte
	reason string
}

func (d *disconnected) Error() string { return "disconnected by the server: " + d.reason }

var (
	errTakenOver  = errors.New("another connection of the client took over")
	errShutdown   = errors.New("server is shutting down")
	errClientLeft = errors.New("client disconnected")
)

func fromUser(u []packets.UserProperty) []stream.Property {
	var out []stream.Property
	for _, p := range u {
		out = append(out, stream.Property{Key: p.Key, Value: p.Val})
	}
	return out
}

func toUser(u []stream.Property) []packets.UserProperty {
	var out []packets.UserProperty
	for _, p := range u {
		out = append(out, packets.UserProperty{Key: p.Key, Val: p.Value})
	}
	return out
}
