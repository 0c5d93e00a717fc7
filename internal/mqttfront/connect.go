package mqttfront

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// What a CONNECT may leave in memory: that much each, and beyond it that much of
// all.
const (
	plainID       = 256
	plainWill     = 1 << 10
	maxHelloBytes = 16 << 20
)

// greet reads CONNECT and lets the client in, or refuses it. It reports whether
// the client is in.
func (c *conn) greet() bool {
	body, ok := c.readConnect()
	if !ok {
		return false
	}
	c.f.strangers.spoke(c)
	h, err := decodeConnect(body)
	c.version = h.version
	if err == nil {
		err = c.checkHello(&h)
	}
	if err != nil {
		c.refuseHello(&h, err)
		return false
	}
	peer := c.peer(&h)
	refusal := c.checkWill(&h)
	if refusal == nil {
		refusal = c.roomFor(&h)
	}
	if refusal != nil {
		c.refuse(refusal)
		return false
	}
	if c.f.n.clients.Load() >= int64(c.f.o.MaxClients) && !c.f.connected(c.id) {
		c.refuse(c.f.tooManyClients())
		return false
	}
	session, welcome, failed := c.ask(peer)
	if failed != nil {
		c.refuse(failed)
		return false
	}
	c.session, c.welcome, c.user = session, welcome, peer.Username
	if failed = c.establish(&h, peer); failed != nil {
		c.refuse(failed)
		return false
	}
	return true
}

// readConnect reads until CONNECT is whole.
func (c *conn) readConnect() (body []byte, ok bool) {
	for {
		if c.fill() != nil {
			return nil, false
		}
		first, body, err := c.nextPacket()
		if err == nil && body != nil && first&15 != 0 {
			err = malformed("fixed header has wrong flags") // [MQTT-2.1.3-1]
		}
		if err != nil {
			_ = c.protocolError(err)
			return nil, false
		}
		if body != nil {
			return body, true
		}
	}
}

// checkHello refuses what no Handler is asked about.
func (c *conn) checkHello(h *hello) *wireError {
	c.peerPacket, c.noProblemInfo = h.maxPacket, h.noProblemInfo
	c.askedExpiry = h.sessionExpiry
	c.id = h.id
	switch {
	case h.version < c.f.o.MinVersion:
		return &wireError{UnsupportedProtocolVersion, "version", fmt.Sprintf("protocol level %d is not spoken here", h.version)}
	case h.enhancedAuth:
		return &wireError{BadAuthenticationMethod, "auth", "enhanced authentication is not supported"} // [MQTT-4.12.0-1]
	case h.id == "" && (h.version == 3 || h.version == 4 && !h.clean):
		return &wireError{ClientIDNotValid, "client_id", "a session that is to be kept needs a client id"} // [MQTT-3.1.3-8] of 3.1.1
	}
	if c.id == "" {
		c.id = "auto-" + newKey() + newKey() // [MQTT-3.1.3-6]
	}
	return nil
}

// refuseHello answers a CONNECT that breaks the protocol. Before MQTT 5 that is
// mostly silence. [MQTT-3.1.4-1]
func (c *conn) refuseHello(h *hello, err *wireError) {
	c.f.n.protocol(err.kind)
	if h.version < 5 && err.code != UnsupportedProtocolVersion && err.code != ClientIDNotValid {
		c.f.n.refusal(err.code)
		c.f.note(c, err.kind, "client refused", "error", err.text)
		c.endQuietly(err)
		return
	}
	c.refuse(&Refusal{Code: err.code, Reason: err.text})
}

// checkWill refuses a will that could never be published.
func (c *conn) checkWill(h *hello) *Refusal {
	w := h.will
	if w == nil {
		return nil
	}
	if err := checkTopic([]byte(w.Topic)); err != nil || w.Topic == "" || reservedTopic(w.Topic) {
		return &Refusal{Code: TopicNameInvalid, Reason: "the will's topic is not for clients"}
	}
	switch {
	case w.QoS > c.f.o.MaxQoS:
		return &Refusal{Code: QoSNotSupported, Reason: "will with QoS 2, which is not spoken here"} // [MQTT-3.2.2-12]
	case w.Retain && c.f.fan == nil:
		return &Refusal{Code: RetainNotSupported, Reason: "retained messages are not kept here"} // [MQTT-3.2.2-13]
	}
	return nil
}

func (f *Front) tooManyClients() *Refusal {
	f.n.limit(limitClients)
	return &Refusal{Code: ServerBusy, Reason: fmt.Sprintf("%d clients are connected, which is the limit", f.o.MaxClients)}
}

func (c *conn) peer(h *hello) *Peer {
	p := &Peer{
		ClientID: c.id, Assigned: h.id == "", Username: h.username, Password: h.password,
		Version: c.version, CleanStart: h.clean, KeepAlive: h.keepAlive,
		User: h.user, Will: h.will, Remote: c.RemoteAddr(), TLS: c.tlsState(), Transport: c.transport(),
	}
	p.Disconnect = func(code byte, reason string) {
		c.end(&disconnected{code, reason}, code, reason)
	}
	return p
}

// ask calls the Handler with a context that ends with the connection.
func (c *conn) ask(p *Peer) (Session, Welcome, error) {
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

// establish finds or makes the session of a client that the Handler has let in,
// and says so.
func (c *conn) establish(h *hello, peer *Peer) error {
	c.bound(c.welcome)
	expiry := c.askedSessionExpiry(h)
	ack := c.connack(h, expiry, c.boundKeepAlive(h.keepAlive))
	if len(ack.append(nil)) == 0 { // [MQTT-3.1.2-24]
		c.f.n.limit(limitPeerPacket)
		return &Refusal{Code: PacketTooLarge, Reason: "CONNACK does not fit into the client's Maximum Packet Size"}
	}
	c.ticket = c.f.seats.tickets.Add(1)
	switch err := c.claim(); {
	case errors.Is(err, errForeign):
		c.f.n.protocol("foreign_session")
		return &Refusal{Code: NotAuthorized, Reason: err.Error()}
	case errors.Is(err, errTakenOver):
		return &Refusal{Code: ServerBusy, Reason: "another connection of the client came later"}
	case errors.Is(err, errSlowLeave):
		return &Refusal{Code: ServerBusy, Reason: err.Error()}
	case err != nil:
		return err
	}
	if c.f.n.clients.Add(1) > int64(c.f.o.MaxClients) {
		c.f.n.clients.Add(-1)
		return c.f.tooManyClients()
	}
	present, err := c.takeSession(h, peer, expiry)
	if err != nil {
		c.f.n.clients.Add(-1)
		return err
	}
	ack.present = present
	c.f.strangers.leave(c)
	c.reader.accounted = 0
	c.writeConnack(ack.append(nil))
	c.s.mu.Lock()
	c.s.conn = c
	c.open.Store(true)
	c.s.out.resume(c.version, int(h.receiveMaximum), h.maxPacket, h.aliases)
	c.s.mu.Unlock()
	c.kick()
	c.f.n.connects.Add(1)
	c.setReadDeadline(time.Now())
	return nil
}

// writeConnack writes the first packet to a client, which nothing may overtake:
// meanwhile c's goroutine is the writer. [MQTT-3.2.0-1] Whoever ends the connection
// comes either before, and there is no CONNACK, or after: then DISCONNECT follows
// it, written by the writer that starts here.
func (c *conn) writeConnack(ack []byte) {
	if !c.writer.CompareAndSwap(writerIdle, writerRunning) {
		return // only an end starts a writer before that
	}
	_ = c.Conn.SetWriteDeadline(time.Now().Add(c.f.o.WriteTimeout))
	c.outMu.Lock()
	c.greeted = !c.outClosed
	c.outMu.Unlock()
	if c.greeted {
		if _, err := c.Conn.Write(ack); err != nil {
			c.endLost(fmt.Errorf("write to client: %w", err))
		}
	}
	if !c.writer.CompareAndSwap(writerRunning, writerIdle) {
		c.f.tasks.start(c.runWriter)
	}
}

// hasConnack reports whether CONNACK is on its way.
func (c *conn) hasConnack() bool {
	c.outMu.Lock()
	defer c.outMu.Unlock()
	return c.greeted
}

// takeSession puts a session on the seat of c, and makes durable what of it
// must be before CONNACK.
func (c *conn) takeSession(h *hello, peer *Peer, expiry time.Duration) (present bool, err error) {
	s := c.sitting()
	if s != nil && (h.clean || s.outlived(time.Now())) { // [MQTT-3.1.2-4], [MQTT-3.1.2-23]
		c.sit(nil)
		s.end()
		s = nil
	}
	var changes []Change
	present = s != nil
	if !present {
		if expiry > 0 && !c.f.roomForSession(c.user) {
			return false, &Refusal{Code: QuotaExceeded, Reason: fmt.Sprintf("the clients of %d sessions are connected, which is the limit", c.f.o.MaxSessions)}
		}
		s = c.f.newSession(c.id, c.user, expiry)
	}
	if adopted := s.adopt(c); s.stored && (adopted || !present || s.expiresAfter() != expiry) {
		changes = append(changes, s.storedAs(expiry))
	}
	c.f.wills.comesBack(c)
	c.will = c.takeWill(h, peer, s)
	if c.will != nil && c.f.o.Store != nil {
		changes = append(changes, c.will.storedAs(c.id))
	}
	if err := c.saveNow(changes); err != nil {
		// What was not answered for may be kept all the same.
		c.dropWill()
		switch {
		case !present:
			s.end()
		case s.stored:
			c.f.save([]Change{s.storedAs(s.expiresAfter())}, nil)
		}
		return false, fmt.Errorf("store the session: %w", err)
	}
	s.mu.Lock()
	s.expiry = expiry
	s.mu.Unlock()
	c.s = s
	c.sit(s)
	return present, nil
}

// roomFor counts in what a CONNECT leaves in memory for as long as the client is
// connected, beyond what every client may have; serve counts it out. The client
// id is the session's.
func (c *conn) roomFor(h *hello) *Refusal {
	n := int64(max(0, len(h.username)-plainID))
	if h.will != nil {
		n += int64(max(0, (&will{pub: *h.will}).size()-plainWill))
	}
	id := idSize(h.id)
	if n+id > 0 && c.f.helloBytes.Add(n)+id > maxHelloBytes {
		c.f.helloBytes.Add(-n)
		c.f.n.limit(limitHelloBytes)
		return &Refusal{Code: QuotaExceeded, Reason: "long client ids and wills take too much memory"}
	}
	c.helloBytes = n
	return nil
}

// askedSessionExpiry is the expiry that the client gets.
func (c *conn) askedSessionExpiry(h *hello) time.Duration {
	if c.version >= 5 {
		return c.f.boundExpiry(h.sessionExpiry)
	}
	if h.clean {
		return 0 // [MQTT-3.1.2-6] of 3.1.1
	}
	return c.f.o.MaxSessionExpiry
}

// boundKeepAlive sets the keep alive, and returns the one that the client has
// to be told of, 0: its own. A client before MQTT 5 cannot be told.
func (c *conn) boundKeepAlive(asked uint16) uint16 {
	c.keepAlive = time.Duration(asked) * time.Second
	most := c.f.o.MaxKeepAlive
	if most <= 0 || c.keepAlive <= most || c.version < 5 {
		return 0
	}
	c.f.n.limit(limitKeepAlive)
	c.keepAlive = max(most.Truncate(time.Second), time.Second)
	return uint16(c.keepAlive / time.Second)
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

// connack makes the CONNACK of a client that is let in; whether a session is
// present is said later.
func (c *conn) connack(h *hello, expiry time.Duration, keepAlive uint16) connack {
	a := connack{version: c.version, limit: c.peerPacket}
	if c.version >= 5 {
		w := &c.welcome
		a.receiveMaximum, a.maxPacket, a.topicAliases = w.ReceiveMaximum, w.MaximumPacketSize, maxAliases
		a.noQoS2, a.noRetain = c.f.o.MaxQoS < 2, c.f.fan == nil
		a.keepAlive, a.user = keepAlive, w.User
		if h.id == "" {
			a.assignedID = c.id // [MQTT-3.1.3-7]
		}
		if expiry != time.Duration(h.sessionExpiry)*time.Second {
			a.hasExpiry, a.expiry = true, uint32(expiry/time.Second)
		}
	}
	return a
}

// refuse answers CONNECT in the words of the client's version, and ends the
// connection.
func (c *conn) refuse(err error) {
	var r *Refusal
	if !errors.As(err, &r) {
		c.f.note(c, "unavailable", "client not admitted", "error", err)
		r = &Refusal{Code: ServerUnavailable, Reason: "server unavailable"}
	} else {
		c.f.note(c, fmt.Sprintf("refused_0x%02x", r.Code), "client refused", "code", fmt.Sprintf("0x%02x", r.Code), "reason", r.Reason)
	}
	c.f.n.refusal(r.Code)
	a := connack{version: c.version, code: r.Code, limit: c.peerPacket, reason: r.Reason, serverReference: r.ServerReference, user: r.User}
	c.send(a.append(nil))
	c.endQuietly(r)
}

// connected reports whether a connection owns the seat of a client id.
func (f *Front) connected(id string) bool {
	t := &f.seats
	t.mu.Lock()
	defer t.mu.Unlock()
	at := t.m[id]
	return at != nil && at.owner != nil
}

// disconnected is the reason of a connection that Peer.Disconnect ended.
type disconnected struct {
	code   byte
	reason string
}

func (d *disconnected) Error() string { return "disconnected by the server: " + d.reason }
