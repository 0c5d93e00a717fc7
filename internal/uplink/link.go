package uplink

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.golang/paho"

	"github.com/packetboat/packetboat/internal/wire"
	"github.com/packetboat/packetboat/pkg/buffer"
	"github.com/packetboat/packetboat/pkg/stream"
)

// Times of a link.
const (
	stopGrace   = 2 * time.Second  // for PUBACKs at a clean stop
	refusePause = 30 * time.Second // after a refusal that says nothing of when
)

// flight is a batch that waits for its PUBACK. The records are the buffer's to
// keep.
type flight struct {
	id      stream.ID
	first   uint64
	records int
	losses  []stream.Range
	bytes   int
	sent    time.Time
	fresh   bool // sent self-contained
	learned bool // has a body by the learning codec
	// session counts the codec's sessions on this connection, bodies the bodies
	// in this one behind the batch; 0: none.
	session int
	bodies  uint64
}

// lane is a link's view of one lane.
type lane struct {
	inFlight int
	// blocked: a batch was refused; nothing is sent before all that is in
	// flight is answered, so that the order stays.
	blocked bool
	// most bounds the messages of the next batch, below the policy while the
	// hub cannot take what the policy allows.
	most int
	// tight: a batch exceeded the hub's packet limit; most grows by small steps.
	tight bool
	// probe: losses may wait although no message does.
	probe bool
}

// link is one connection. Everything in it belongs to the goroutine that runs
// it; PUBACKs reach it through the session.
type link struct {
	u       *Uplink
	conn    *packetConn
	client  *paho.Client
	session *session
	pending atomic.Int64 // batches in flight, for the pinger
	welcome welcome

	topic   string
	aliased bool // the hub knows the alias
	encoder *wire.Encoder
	buf     []byte

	mode  mode // as granted
	state int  // limit of the session in use
	// batchState is the limit of what a self-contained batch takes.
	batchState int
	sessions   int  // begun on this connection: batches that were marked reset
	begun      int  // the last of them that had a body of the codec
	distrust   bool // rows, although more is granted

	flights  map[uint16]*flight
	bytes    int // of all flights
	lanes    [len(stream.Lanes) + 1]lane
	shares   shares
	drain    bool        // a batch was not decodable: all lanes are blocked
	suspect  stream.Lane // whose batch is sent first after that; 0: none
	pause    time.Time   // nothing is sent before
	progress time.Time   // the last PUBACK, or when the first batch took off
	settled  bool        // some batch was settled
}

func newLink(u *Uplink, conn *packetConn) *link {
	l := &link{u: u, conn: conn, topic: wire.UpTopic(u.o.Device), flights: make(map[uint16]*flight)}
	l.session = newSession(&l.pending)
	l.client = paho.NewClient(paho.ClientConfig{
		Conn: conn, Session: l.session, PacketTimeout: u.o.ConnectTimeout,
		PingHandler: &pinger{conn: conn, inFlight: &l.pending},
		AuthHandler: noAuth{},
		// Nothing is subscribed to: what comes all the same is dropped.
		OnPublishReceived:  []func(paho.PublishReceived) (bool, error){func(paho.PublishReceived) (bool, error) { return true, nil }},
		OnServerDisconnect: func(*paho.Disconnect) {}, // the session has it already
	})
	return l
}

// noAuth answers extended authentication, which was not asked for; without it
// paho would follow a nil pointer.
type noAuth struct{}

func (noAuth) Authenticate(*paho.Auth) *paho.Auth { return &paho.Auth{ReasonCode: 0x18} }
func (noAuth) Authenticated()                     {}

// begin prepares for the first batch, after the welcome.
func (l *link) begin() {
	l.mode = mode{l.u.o.Codec, l.u.o.CodecState}.within(l.welcome.codecs)
	l.batchState = l.mode.state
	if l.batchState == 0 {
		l.batchState = l.u.o.CodecState
	}
	l.encode(l.u.resume(l.welcome.codecs, l.mode))
	for _, id := range stream.Lanes {
		l.u.rhythms[id].forget(l.u.buf.Unsent(id).Messages)
		l.lanes[id] = lane{most: l.u.o.Lanes[id].Messages, probe: true}
	}
}

// close ends the connection at once and waits for paho's goroutines.
func (l *link) close() {
	_ = l.conn.Close()
	<-l.client.Done()
}

// run sends and settles until the connection ends, which the error explains, or
// ctx does (nil).
func (l *link) run(ctx context.Context) error {
	defer l.close()
	defer context.AfterFunc(ctx, func() { l.conn.hurry(time.Now().Add(stopGrace)) })()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if err := l.takeAcks(); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return l.stop()
		}
		if l.done() {
			return l.lost()
		}
		wait, err := l.send(ctx)
		if err != nil {
			return err
		}
		if d, err := l.watch(); err != nil {
			return err
		} else {
			wait = min(wait, d)
		}
		l.u.observe(l)
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case <-l.client.Done():
		case <-l.session.news:
		case <-l.u.buf.Ready():
			l.listen(time.Now())
			for i := range l.lanes {
				l.lanes[i].probe = true
			}
		case <-timer.C:
		}
	}
}

func (l *link) done() bool {
	select {
	case <-l.client.Done():
		return true
	default:
		return l.session.farewell() != nil || l.conn.err() != nil
	}
}

// lost says why the connection ended: by the hub's own word if there is one.
func (l *link) lost() error {
	if d := l.session.farewell(); d != nil {
		var reason, reference string
		var user []stream.Property
		if p := d.Properties; p != nil {
			reason, reference = p.ReasonString, p.ServerReference
			for _, x := range p.User {
				user = append(user, stream.Property{Key: x.Key, Value: x.Value})
			}
		}
		return refused(d.ReasonCode, reason, reference, user, l.u.o.Device)
	}
	if err := l.conn.err(); err != nil {
		return err
	}
	return errors.New("connection to the hub ended")
}

// watch notices a hub that takes batches and answers none. Each time that
// happens in a row the next connection waits longer: it may be the link that is
// slow.
func (l *link) watch() (time.Duration, error) {
	if len(l.flights) == 0 {
		return time.Hour, nil
	}
	limit := l.u.o.ProgressTimeout << min(l.u.stalls, 4)
	if d := limit - time.Since(l.progress); d > 0 {
		return d, nil
	}
	l.u.stalls++
	return 0, &ending{what: fmt.Sprintf("hub acknowledged none of %d batches in %s", len(l.flights), limit)}
}

// stop ends the connection in order: what is in flight gets a moment to be
// answered, what waits stays in the buffer.
func (l *link) stop() error {
	until := time.NewTimer(stopGrace)
	defer until.Stop()
	for len(l.flights) > 0 && !l.done() {
		select {
		case <-l.session.news:
		case <-l.client.Done():
		case <-until.C:
			return l.disconnect()
		}
		if err := l.takeAcks(); err != nil {
			return nil // the stop goes on
		}
	}
	return l.disconnect()
}

func (l *link) disconnect() error {
	_ = l.client.Disconnect(&paho.Disconnect{}) // the connection is over in any case
	return nil
}

// send sends what is due while the window has room. It returns how long until
// something may be due.
func (l *link) send(ctx context.Context) (time.Duration, error) {
	for ctx.Err() == nil && !l.done() {
		now := time.Now()
		if l.distrust && !now.Before(l.u.distrusted) {
			l.encode(memory{})
		}
		// A batch that is marked reset is decoded whatever was refused before it:
		// to keep the order it leaves when all before it is answered.
		if len(l.flights) >= l.welcome.window || l.drain || l.encoder.Fresh() && len(l.flights) > 0 {
			return time.Hour, nil // a PUBACK comes first
		}
		if d := l.pause.Sub(now); d > 0 {
			return d, nil
		}
		wait := time.Hour
		id, ok := l.shares.pick(func(id stream.Lane) bool { return l.due(id, now, &wait) })
		if !ok {
			return wait, nil
		}
		if err := l.sendFrom(id); err != nil {
			return 0, err
		}
		if err := l.takeAcks(); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

// due reports whether a batch of the lane should leave now, and otherwise
// shortens wait to when it should.
func (l *link) due(id stream.Lane, now time.Time, wait *time.Duration) bool {
	switch la := &l.lanes[id]; {
	case la.blocked, id != stream.Urgent && len(l.flights) >= l.welcome.window-l.reserve():
		return false
	case l.suspect != 0:
		return l.suspect == id
	default:
		b, r := l.u.buf.Unsent(id), l.u.rhythms[id]
		r.look(b.Messages, now)
		switch d := l.u.o.Lanes[id].wait(b, now, r); {
		case d > 0:
			*wait = min(*wait, d)
			return false
		case d < 0:
			return la.probe
		}
		return true
	}
}

// listen notes what has arrived.
func (l *link) listen(now time.Time) {
	for _, id := range stream.Lanes {
		l.u.rhythms[id].look(l.u.buf.Unsent(id).Messages, now)
	}
}

// requeue gives a batch back to the buffer, which is no arrival.
func (l *link) requeue(id stream.ID, first uint64) {
	l.u.buf.Requeue(id, first)
	r := l.u.rhythms[id.Lane]
	r.seen = max(r.seen, l.u.buf.Unsent(id.Lane).Messages)
}

// reserve is the part of the window that only urgent batches use: they need not
// wait for a PUBACK behind bulk.
func (l *link) reserve() int { return min(l.welcome.window/4, 1) }

// sendFrom sends the next batch of a lane, if there is one.
func (l *link) sendFrom(id stream.Lane) error {
	la := &l.lanes[id]
	limit := buffer.Limit{Messages: la.most, Bytes: l.u.o.Lanes[id].Bytes}
	b, ok, err := l.u.buf.Next(id, limit)
	if err != nil {
		return fmt.Errorf("take a batch from the buffer: %w", err)
	}
	l.suspect = 0
	if !ok {
		la.probe = false
		return nil
	}
	l.u.rhythms[id].took(len(b.Records))
	b.Flags |= stream.FIFO
	fresh := l.encoder.Fresh()
	packet, err := l.encoder.Append(l.buf[:0], &b)
	if err != nil && l.encoder.Fresh() != fresh { // once more, from the beginning
		l.requeue(b.ID, b.First)
		return nil
	}
	if err != nil {
		return l.unfit(&b, err)
	}
	l.buf = packet
	return l.publish(&b, packet)
}

func (l *link) publish(b *stream.Batch, packet []byte) error {
	p := &paho.Publish{QoS: 1, Topic: l.topic, Payload: packet, Properties: &paho.PublishProperties{}}
	if l.welcome.alias {
		one := uint16(1)
		p.Properties.TopicAlias = &one
		if l.aliased {
			p.Topic = ""
		}
	}
	if len(l.flights) == 0 {
		l.progress = time.Now()
	}
	f := &flight{
		id: b.ID, first: b.First, records: len(b.Records), bytes: len(packet),
		sent: time.Now(), fresh: l.encoder.WasFresh(), learned: l.encoder.WasLearned(),
		bodies: l.encoder.Bodies(),
	}
	if f.fresh {
		l.sessions++
	}
	f.session = l.sessions
	for _, loss := range b.Losses {
		f.losses = append(f.losses, loss.Range)
	}
	// The write may block; what it cannot finish in time closes the connection.
	if _, err := l.client.PublishWithOptions(context.Background(), p, paho.PublishOptions{Method: paho.PublishMethod_AsyncSend}); err != nil {
		if e := l.conn.err(); e != nil {
			err = e
		}
		return fmt.Errorf("send a batch: %w", err)
	}
	l.aliased = true
	l.flights[l.session.lastID()] = f
	l.lanes[b.ID.Lane].inFlight++
	l.bytes += f.bytes
	if cap(l.buf) > 1<<20 {
		l.buf = nil
	}
	l.u.count(func(s *Stats) {
		s.BatchesSent++
		s.MessagesSent += int64(len(b.Records))
		s.LossesDeclared += int64(len(b.Losses))
		s.PayloadBytes += int64(len(packet))
		s.BodyBytes += int64(l.encoder.BodyBytes())
		switch {
		case !f.learned:
		case l.state == 0:
			s.BatchesSelfContained++
		case f.bodies == 1 && l.begun != f.session:
			s.SessionsFresh++
			l.begun = f.session
		}
	})
	return nil
}
