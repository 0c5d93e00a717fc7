package uplink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho/log"
	pahosession "github.com/eclipse/paho.golang/paho/session"

	"github.com/packetboat/packetboat/pkg/stream"
)

// session is paho's session manager, one for each connection. It stores
// nothing, so paho sends nothing again: what a connection leaves unanswered
// goes back to the buffer and is encoded anew. It gives out packet ids and
// collects PUBACKs for the link, which asks for them.
type session struct {
	inFlight *atomic.Int64 // batches, shared with the pinger

	news chan struct{} // capacity 1: there are acks, or the hub said goodbye

	mu      sync.Mutex
	next    uint16          // the id given out last
	ids     map[uint16]bool // in flight
	acks    []ack           // in the order of arrival
	goodbye *packets.Disconnect
	bad     error // the hub broke the protocol
}

// ack is a PUBACK.
type ack struct {
	id   uint16
	code byte
	user []stream.Property
	at   time.Time
}

var _ pahosession.SessionManager = (*session)(nil)

func newSession(inFlight *atomic.Int64) *session {
	return &session{inFlight: inFlight, news: make(chan struct{}, 1), ids: make(map[uint16]bool)}
}

func (s *session) tell() {
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// take gives the PUBACKs since the last call; bad is the hub's breach of the
// protocol, if there was one.
func (s *session) take() (acks []ack, bad error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	acks, s.acks = s.acks, nil
	return acks, s.bad
}

// farewell is the hub's DISCONNECT, nil if there was none.
func (s *session) farewell() *packets.Disconnect {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.goodbye
}

// lastID is the id that AddToSession gave out last. Only the sender, whose
// publish led there, may ask.
func (s *session) lastID() uint16 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next
}

// AddToSession gives a packet its id.
func (s *session) AddToSession(_ context.Context, p pahosession.Packet, _ chan<- packets.ControlPacket) error {
	if p.Type() != packets.PUBLISH {
		return errors.New("only PUBLISH is sent on this connection")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ids) == 1<<16-1 {
		return pahosession.ErrPacketIdentifiersExhausted
	}
	for {
		if s.next++; s.next != 0 && !s.ids[s.next] {
			break
		}
	}
	s.ids[s.next] = true
	s.inFlight.Store(int64(len(s.ids)))
	p.SetIdentifier(s.next)
	return nil
}

// PacketReceived takes PUBACKs. Anything else with a packet id answers nothing
// that was sent.
func (s *session) PacketReceived(p *packets.ControlPacket, _ chan<- *packets.Publish) error {
	defer s.tell()
	s.mu.Lock()
	defer s.mu.Unlock()
	puback, ok := p.Content.(*packets.Puback)
	switch {
	case s.bad != nil:
	case !ok:
		s.bad = fmt.Errorf("hub sent a packet of type %d, which answers nothing", p.Type)
	case !s.ids[puback.PacketID]:
		s.bad = fmt.Errorf("hub acknowledged packet %d, which is not in flight", puback.PacketID)
	default:
		a := ack{id: puback.PacketID, code: puback.ReasonCode, at: time.Now()}
		if puback.Properties != nil {
			for _, u := range puback.Properties.User {
				a.user = append(a.user, stream.Property{Key: u.Key, Value: u.Value})
			}
		}
		delete(s.ids, a.id)
		s.inFlight.Store(int64(len(s.ids)))
		s.acks = append(s.acks, a)
	}
	return nil
}

// ConnectionLost keeps the hub's DISCONNECT.
func (s *session) ConnectionLost(d *packets.Disconnect) error {
	s.mu.Lock()
	if d != nil && s.goodbye == nil {
		s.goodbye = d
	}
	s.mu.Unlock()
	s.tell()
	return nil
}

// ConAckReceived implements session.SessionManager; a session does not outlive
// its connection.
func (s *session) ConAckReceived(io.Writer, *packets.Connect, *packets.Connack) error { return nil }

// Ack implements session.SessionManager; there are no inbound publishes.
func (s *session) Ack(*packets.Publish) error { return nil }

// Close implements session.SessionManager.
func (s *session) Close() error { return nil }

// SetErrorLogger implements session.SessionManager.
func (s *session) SetErrorLogger(log.Logger) {}

// SetDebugLogger implements session.SessionManager.
func (s *session) SetDebugLogger(log.Logger) {}
