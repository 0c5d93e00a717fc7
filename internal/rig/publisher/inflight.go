package publisher

import (
	"fmt"
	"slices"
)

// message is one place of the ring.
type message struct {
	packet   []byte // the PUBLISH as sent; reused
	qos      byte
	state    state
	session  uint32 // the latest in which it was sent; 0: none
	sent     []uint32
	sessions []uint32 // of QoS 2
	acked    bool
	code     byte
	tag      uint64
}

// state of a message in flight.
type state byte

const (
	waiting  state = iota // for PUBACK or PUBREC, or to be sent at all
	received              // PUBREC came; a PUBREL is due or on its way
	done                  // nothing more to wait for
)

func (p *Publisher) place(n uint64) *message { return &p.ring[n%uint64(len(p.ring))] }

// pump encodes what may be sent. Called with mu held.
func (p *Publisher) pump() {
	if !p.live {
		return
	}
	before := len(p.out)
	for p.next < p.tail && p.next-p.head < p.limit && len(p.out) < outLimit {
		n := p.next
		p.next++
		switch m := p.place(n); m.state {
		case waiting:
			p.send(m)
		case received: // [MQTT-4.4.0-1]
			p.out = appendRelease(p.out, p.o.Version, packetID(n), 0)
			p.stats.Released++
		}
	}
	if before == 0 && len(p.out) > 0 {
		p.work.Signal()
	}
}

// send encodes a message for this connection. Called with mu held.
func (p *Publisher) send(m *message) {
	const dup = 0x08
	m.packet[0] &^= dup
	if m.qos > 0 && m.session == p.session {
		m.packet[0] |= dup // [MQTT-3.3.1-1]
	}
	if len(m.sent) > 0 {
		p.stats.Resent++
	}
	m.sent = append(m.sent, uint32(p.stats.Connections))
	if m.qos == 2 && m.session != p.session {
		m.sessions = append(m.sessions, p.session)
	}
	m.session = p.session
	p.out = append(p.out, m.packet...)
	if m.qos == 0 {
		m.state = done
	}
}

// find gives the message in flight with a packet id, nil for none, and its
// place. Called with mu held.
func (p *Publisher) find(id uint16) (*message, uint64) {
	n := p.head + (uint64(id)+65535-1-p.head%65535)%65535 // [MQTT-2.2.1-3]: ids in flight are unique, so one place fits
	if id == 0 || n >= p.tail {
		return nil, 0
	}
	if m := p.place(n); m.qos > 0 && m.session == p.session {
		return m, n
	}
	return nil, 0
}

// settle does what acks say. Called with mu held.
func (p *Publisher) settle(acks []ack) {
	before := len(p.out)
	for _, a := range acks {
		m, n := p.find(a.id)
		if m == nil || m.state == done {
			p.stray(a)
			continue
		}
		switch {
		case a.kind == puback && m.qos == 1:
			p.finish(m, a.code)
		case a.kind == pubrec && m.state == received: // it was sent again in answer to our DUP
			p.out = appendRelease(p.out, p.o.Version, a.id, 0) // [MQTT-4.3.3-4]
		case a.kind == pubrec && m.qos == 2 && a.code >= 0x80:
			p.finish(m, a.code)
		case a.kind == pubrec && m.qos == 2:
			m.state, m.acked = received, true
			p.stats.Acknowledged++
			if n < p.next { // else pump comes by
				p.out = appendRelease(p.out, p.o.Version, a.id, 0) // [MQTT-4.3.3-4]
			}
		case a.kind == pubcomp && m.state == received:
			m.state = done
		default:
			p.stats.LastError = fmt.Sprintf("a packet of type %d for packet %d, which is a QoS %d message that does not wait for it", a.kind>>4, a.id, m.qos)
		}
	}
	if before == 0 && len(p.out) > 0 {
		p.work.Signal()
	}
}

// stray answers for a packet id that is not in flight. Called with mu held.
func (p *Publisher) stray(a ack) {
	if a.kind == pubrec && a.code < 0x80 {
		p.out = appendRelease(p.out, p.o.Version, a.id, 0x92) // the broker waits for one
	}
	if a.kind != pubcomp {
		p.stats.LastError = fmt.Sprintf("an acknowledgement of packet %d, which is not in flight", a.id)
	}
}

// finish settles a message with its only or its refusing acknowledgement.
// Called with mu held.
func (p *Publisher) finish(m *message, code byte) {
	m.state, m.acked, m.code = done, code < 0x80, code
	if m.acked {
		p.stats.Acknowledged++
	} else {
		p.stats.Refused++
	}
}

// begin makes the new connection the one to send on: from the head, again.
// present says that it goes on with the session of the last one. Without it
// that session's state is void [MQTT-3.2.2-5]: what PUBREC acknowledged is the
// broker's, and what it did not is a new message under the old id.
func (p *Publisher) begin(limit uint64, present bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.Connections++
	if !present {
		if p.kept {
			p.stats.SessionsLost++
		}
		p.session++
		p.stats.Sessions++
		p.kept = p.o.Session > 0
		for n := p.head; n < p.tail; n++ {
			if m := p.place(n); m.state == received {
				m.state = done
			}
		}
	}
	p.live, p.out, p.next = true, p.out[:0], p.head
	p.limit = min(limit, uint64(len(p.ring)))
	p.pump()
	p.space.Broadcast()
}

func (p *Publisher) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.live, p.out, p.next = false, p.out[:0], p.head
	p.work.Broadcast()
	p.space.Broadcast()
}

// advance takes settled messages off the head and reports them in order. It is
// called without locks.
func (p *Publisher) advance() {
	p.report.Lock()
	defer p.report.Unlock()
	p.mu.Lock()
	first := p.head
	var outcomes []Outcome
	for p.head < p.next && p.place(p.head).state == done {
		if p.o.Outcome != nil {
			outcomes = append(outcomes, p.place(p.head).outcome())
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

// outcome gives its slices away: a place of the ring makes new ones.
func (m *message) outcome() Outcome {
	return Outcome{Tag: m.tag, QoS: m.qos, Sent: m.sent, Sessions: m.sessions, Acked: m.acked, Code: m.code}
}

// abandon ends the publisher: what is not settled is reported as it stands.
func (p *Publisher) abandon() {
	p.report.Lock()
	defer p.report.Unlock()
	p.mu.Lock()
	p.ended = true
	var outcomes []Outcome
	for ; p.head < p.tail; p.head++ {
		o := p.place(p.head).outcome()
		o.Sent, o.Sessions = slices.Clone(o.Sent), slices.Clone(o.Sessions)
		outcomes = append(outcomes, o)
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
