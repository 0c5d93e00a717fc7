package mqttfront

import "bytes"

// The front is a QoS 2 receiver of Method A (MQTT 5, 4.3.3): a message is given
// to the Session when its PUBLISH comes, together with its packet identifier,
// which is kept until the client releases it. Both become durable together. A
// PUBLISH with an identifier that is kept is the same message again. Local
// subscribers, and the retained messages, get it when it is released; when the
// session ends before that, they do not. Identifiers of QoS 1 messages are not
// looked at: each PUBLISH of those is a message.

// received is a packet identifier that a client has used for a QoS 2 message
// and not released; guarded by the mu of its session.
type received struct {
	state   byte
	by      *conn    // whose Receive Maximum it uses
	pub     *Publish // for local subscribers; nil: none wants it
	waiters []*entry // what is answered when state changes
}

// The states of a received identifier.
const (
	idPending   = iota // its message is not settled
	idKept             // its message is taken
	idReleasing        // PUBREL has come; that it is forgotten is not durable yet
)

// publishOnce gives the QoS 2 message of e to the Session, unless it was there
// before.
func (c *conn) publishOnce(e *entry) {
	s := c.s
	s.mu.Lock()
	r := s.received[e.packetID]
	answer := Result{}
	switch {
	case r == nil && len(s.received) >= c.f.maxUnreleased():
		c.f.n.limit(limitUnreleased)
		answer.Code = QuotaExceeded
	case r == nil:
		s.receive(e)
		s.mu.Unlock()
		if !c.holdForRelease(e) {
			s.mu.Lock()
			s.forget(e.packetID, e.received)
			s.mu.Unlock()
			answer.Code = QuotaExceeded
			c.acks.push(e)
			e.settle(answer)
			return
		}
		c.acks.push(e)
		c.give(e, e.settleOnce)
		return
	case r.state == idPending:
		c.repeated(e, r)
		r.waiters = append(r.waiters, e)
		c.acks.push(e)
		s.mu.Unlock()
		return
	case r.state == idReleasing:
		answer.Code = PacketIdentifierInUse
	default:
		c.repeated(e, r)
	}
	s.mu.Unlock()
	c.acks.push(e)
	e.settle(answer)
}

// repeated says that e is a message that was there before. The caller holds mu.
func (c *conn) repeated(e *entry, r *received) {
	e.message = false
	c.messages.Add(-1)
	if r.by == c && e.counted {
		c.quota.Add(-1) // counted already
		e.counted = false
	}
	r.by = c
	c.f.n.repeats.Add(1)
}

// receive notes the identifier of e. The caller holds mu.
func (s *session) receive(e *entry) {
	r := &received{by: e.c}
	e.received = r
	if s.received == nil {
		s.received = make(map[uint16]*received)
	}
	s.received[e.packetID] = r
}

// holdForRelease keeps what local subscribers will get, and adds to the message
// what has to be durable with it. It reports whether there is room.
func (c *conn) holdForRelease(e *entry) bool {
	p := &e.pub
	wanted := c.f.fan != nil && c.f.fan.wants(p)
	if wanted {
		held := *p
		held.Payload = bytes.Clone(p.Payload) // not its neighbours in the reader's slab
		if !c.f.hold(&held) {
			return false
		}
		e.received.pub = &held
	}
	if c.s.stored {
		value := receivedValue
		if wanted && (p.Retain || c.f.local.awaited(p.Topic)) {
			value = appendStored([]byte{storeVersion}, p)
		}
		p.Save = []Change{{Key: c.s.receivedKey(e.packetID), Value: value}}
	}
	return true
}

// hold counts in a message that waits for its release.
func (f *Front) hold(p *Publish) bool {
	if f.held.Add(heldSize(p)) > f.o.MaxQueuedBytes {
		f.held.Add(-heldSize(p))
		f.n.limit(limitUnreleasedBytes)
		return false
	}
	return true
}

func heldSize(p *Publish) int64 {
	w := will{pub: *p}
	return int64(w.size())
}

// settleOnce is the Settle of a QoS 2 message.
func (e *entry) settleOnce(result Result) {
	if !e.claim() {
		return
	}
	s, r := e.c.s, e.received
	s.mu.Lock()
	waiters := r.waiters
	r.waiters = nil
	if result.NoFanOut {
		s.letGo(r)
	}
	if result.Withhold || result.Code >= UnspecifiedError {
		s.forget(e.packetID, r)
	} else {
		r.state = idKept
	}
	s.mu.Unlock()
	e.result(result)
	for _, w := range waiters {
		w.settle(result)
	}
}

// forget takes an identifier off, and what it holds. The caller holds mu.
func (s *session) forget(id uint16, r *received) {
	s.letGo(r)
	if s.received[id] == r {
		delete(s.received, id)
	}
}

// letGo forgets what waits for the release. The caller holds mu.
func (s *session) letGo(r *received) {
	if r.pub != nil {
		s.f.held.Add(-heldSize(r.pub))
		r.pub = nil
	}
}

// pubrel releases an identifier. PUBCOMP follows when that is durable.
func (c *conn) pubrel(body []byte) *wireError {
	id, _, err := decodeAck(body, c.version)
	if err != nil {
		return err
	}
	if err := c.admitBytes(entryCost); err != nil {
		return err
	}
	e := c.acks.slot(c)
	e.kind, e.packetID, e.size = answerPubcomp, id, entryCost
	s := c.s
	s.mu.Lock()
	r := s.received[id]
	if r != nil {
		e.counted = r.by == c && c.version >= 5
		r.by = nil
	}
	c.acks.push(e)
	switch {
	case r == nil:
		s.mu.Unlock()
		e.settle(Result{Code: PacketIdentifierNotFound})
	case r.state == idPending:
		s.mu.Unlock()
		e.settle(Result{Withhold: true})
		return &wireError{ProtocolError, "protocol", "PUBREL before PUBREC"} // [MQTT-4.3.3-8]
	case r.state == idReleasing:
		r.waiters = append(r.waiters, e)
		s.mu.Unlock()
	default:
		r.state = idReleasing
		r.waiters = append(r.waiters, e)
		pub := r.pub
		s.mu.Unlock()
		c.forgetReceived(e, id, r, pub)
	}
	return nil
}

// forgetReceived makes it durable that an identifier is forgotten, and, in the
// same commit, that its message is retained.
func (c *conn) forgetReceived(e *entry, id uint16, r *received, pub *Publish) {
	s := c.s
	var changes []Change
	if s.stored {
		changes = append(changes, Change{Key: s.receivedKey(id)})
	}
	retains := pub != nil && pub.Retain
	if pub != nil {
		e.pub, e.released, e.retains = *pub, true, retains
	}
	if retains {
		changes = append(changes, c.f.local.retainChange(c.id, &e.pub)...)
	}
	c.f.save(changes, func(err error) { s.released(id, r, err) })
	if retains {
		c.f.local.retainHanded(pub.Topic)
	}
}

// released answers PUBRELs when it is durable that id is forgotten, or cannot
// be: then the client has to send PUBREL again.
func (s *session) released(id uint16, r *received, err error) {
	s.mu.Lock()
	waiters := r.waiters
	r.waiters = nil
	if err == nil {
		s.forget(id, r)
	} else {
		r.state = idKept
	}
	s.mu.Unlock()
	for _, w := range waiters {
		w.settle(Result{Withhold: err != nil})
	}
}

// maxUnreleased bounds the identifiers of one session: what one connection may
// have in flight, twice, since a new connection begins to count anew.
func (f *Front) maxUnreleased() int { return min(2*f.o.MaxInflightMessages, 65535) }

// unreleased is the number of identifiers of all sessions.
func (f *Front) unreleased() (n int64) {
	t := &f.seats
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, at := range t.m {
		if s := at.session; s != nil {
			s.mu.Lock()
			n += int64(len(s.received))
			s.mu.Unlock()
		}
	}
	return n
}
