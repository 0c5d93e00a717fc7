package mqttfront

import "time"

const (
	// maxOutInflight bounds the QoS 1 and 2 messages on the way to a subscriber
	// that it has not answered; its Receive Maximum may be lower.
	maxOutInflight = 64
	// maxPlainBytes bounds the QoS 0 messages that wait for a subscriber to read.
	maxPlainBytes = 1 << 20
)

// outbox is what is on its way to one subscriber, as a state machine without
// goroutine or socket: messages that wait, messages that were sent and not
// answered, and the QoS 2 messages whose release is not completed. All of it is
// guarded by the mu of the session.
//
// Packet identifiers are the server's own: they have nothing to do with those of
// the client's PUBLISHes. One is given when a message is sent for the first time,
// or when it is written to the Store, and never changes after that.
type outbox struct {
	l *local
	s *session

	closed  bool   // the session has ended
	present bool   // a connection serves the session
	version byte   // of the connection, like all up to aliases
	window  int    // QoS 1 and 2 messages that the client takes at a time
	busy    int    // those of them that left on this connection
	limit   uint32 // bytes of a packet; 0: none
	aliases outAliases

	lastID     uint16
	lastN      uint64
	ids        map[uint16]struct{} // in use
	sent       []slot              // PUBLISH left at some time, no answer yet; in that order
	resend     int                 // the last of them that have not left on this connection
	released   []slot              // PUBREC came, PUBCOMP not yet; in the order of PUBREC
	releases   int                 // the first of them whose PUBREL left on this connection
	queue      fifo[slot]          // QoS 1 and 2, not sent on any connection since the front started
	plain      fifo[slot]          // QoS 0
	plainBytes int
	bytes      int // of all slots

	replay replay
	saving saving
}

// slot is a message's place in an outbox.
type slot struct {
	m        *outMessage // nil: released, or given up while the client has it
	n        uint64      // in the order of arrival; names it in the Store
	born     uint32      // saver's tick
	id       uint16      // 0: none yet
	qos      byte
	saved    bool // it is in the Store
	wire     bool // PUBLISH left on this connection
	dup      bool // PUBLISH may have left before
	syncing  bool // the Store is not through with the PUBREC yet
	released bool
}

// add queues a message. dropped says that something did not fit, and was
// counted: a QoS 0 message for a client that does not read, else the oldest of
// those that wait. The oldest, because what waits is telemetry: the newest tells
// how things are.
func (o *outbox) add(m *outMessage) (dropped bool) {
	if o.closed {
		return false
	}
	if m.qos == 0 {
		if !o.present {
			return false // [MQTT-3.1.2-5] asks for QoS 1 and 2 only
		}
		if o.plainBytes >= maxPlainBytes {
			o.l.dropped("slow_subscriber", limitQueuedMessages)
			return true
		}
		o.lastN++
		o.plainBytes += m.cost()
		o.hold(m)
		o.plain.push(slot{m: m, n: o.lastN})
		return false
	}
	o.lastN++
	o.hold(m)
	o.queue.push(slot{m: m, n: o.lastN, qos: m.qos, born: o.l.tick.Load()})
	o.unsaved()
	for o.queue.len() > o.l.maxQueued {
		o.dropOldest("queued_messages", limitQueuedMessages)
		dropped = true
	}
	return dropped
}

// dropOldest gives up the message that waits longest, if one does.
func (o *outbox) dropOldest(reason string, l limit) bool {
	if o.queue.len() == 0 {
		return false
	}
	s := o.queue.pop()
	o.finish(&s)
	o.l.dropped(reason, l)
	return true
}

// giveUp frees the memory of the oldest message that was sent and not answered.
// While the client may still answer it, its identifier and its place in the
// window stay taken.
func (o *outbox) giveUp(reason string, l limit) bool {
	for i := range o.sent {
		s := &o.sent[i]
		if s.m == nil {
			continue
		}
		o.l.dropped(reason, l)
		if s.wire && o.present {
			o.letGo(s)
			return true
		}
		o.removeSent(i)
		return true
	}
	return false
}

func (o *outbox) hold(m *outMessage) {
	o.bytes += m.cost()
	o.l.hold(m)
}

// letGo frees the message of a slot that stays, and removes it from the Store.
func (o *outbox) letGo(s *slot) {
	if s.m != nil {
		o.bytes -= s.m.cost()
		o.l.release(s.m)
		s.m = nil
	}
	if s.saved {
		s.saved = false
		o.gone(s.n)
	}
}

// finish is letGo for a slot that goes, with its identifier.
func (o *outbox) finish(s *slot) {
	o.letGo(s)
	if s.id != 0 {
		delete(o.ids, s.id)
	}
}

// identify gives a slot its packet identifier.
func (o *outbox) identify(s *slot) {
	if s.id != 0 {
		return
	}
	if o.ids == nil {
		o.ids = make(map[uint16]struct{}, 4)
	}
	for { // far more identifiers exist than a session may use
		o.lastID++
		if _, used := o.ids[o.lastID]; !used && o.lastID != 0 {
			break
		}
	}
	s.id = o.lastID
	o.ids[s.id] = struct{}{}
}

// take appends whole packets that may leave now, until about room bytes were
// appended (the last packet may exceed it). If at least room bytes were
// appended, there may be more: the writer takes again after its write.
func (o *outbox) take(buf []byte, room int) []byte {
	if !o.present || o.resend+len(o.released)-o.releases+o.queue.len()+o.plain.len()+len(o.replay.work) == 0 {
		return buf
	}
	end := len(buf) + room
	o.replay.budget = replayBudget
	now := o.l.now()
	for o.resend > 0 && o.busy < o.window && len(buf) < end { // [MQTT-4.4.0-1] [MQTT-4.6.0-1]
		buf = o.sendAgain(buf, now)
	}
	// In the order of the PUBRECs. [MQTT-4.6.0-4]
	for o.releases < len(o.released) && !o.released[o.releases].syncing && len(buf) < end {
		buf = appendPubrel(buf, o.released[o.releases].id)
		o.releases++
	}
	for len(buf) < end {
		open := o.resend == 0 && o.busy < o.window && len(o.sent)+len(o.released) < maxOutInflight
		var more bool
		if buf, more = o.sendNext(buf, open, now); !more {
			break
		}
	}
	return buf
}

// sendAgain repeats the first PUBLISH that has not left on this connection.
func (o *outbox) sendAgain(buf []byte, now time.Time) []byte {
	i := len(o.sent) - o.resend
	s := &o.sent[i]
	s.dup = true // [MQTT-3.3.1-1]
	buf, ok := o.publish(buf, s, now)
	if !ok {
		o.removeSent(i)
		return buf
	}
	s.wire = true
	o.busy++
	o.resend--
	return buf
}

// sendNext sends one message that has not been sent: a retained one that was
// asked for, else the oldest that waits; while the window is not open only those
// of QoS 0. more is false if there is none.
func (o *outbox) sendNext(buf []byte, open bool, now time.Time) (_ []byte, more bool) {
	if o.replay.asked != o.replay.answered {
		return buf, false // nothing new overtakes a SUBACK
	}
	m, blocked := o.nextRetained(open, now)
	if m != nil {
		o.lastN++
		s := slot{m: m, n: o.lastN, qos: m.qos, born: o.l.tick.Load()}
		o.hold(m)
		if m.qos > 0 {
			o.unsaved()
		}
		return o.sendFirst(buf, s, now), true
	}
	// What waits goes in the order of arrival, but QoS 0 does not wait for the
	// window, and a retained message is not overtaken by a newer one of its QoS.
	queued := o.queue.len() > 0 && open && !blocked
	if o.plain.len() > 0 && (!queued || o.plain.at(0).n < o.queue.at(0).n) {
		s := o.plain.pop()
		o.plainBytes -= s.m.cost()
		return o.sendFirst(buf, s, now), true
	}
	if !queued {
		return buf, false
	}
	return o.sendFirst(buf, o.queue.pop(), now), true
}

// sendFirst sends s, which is in none of the lists.
func (o *outbox) sendFirst(buf []byte, s slot, now time.Time) []byte {
	if s.m.expired(now) {
		o.l.dropped("expired", limitNone) // [MQTT-3.3.2-5]
		o.finish(&s)
		return buf
	}
	if s.qos > 0 {
		o.identify(&s)
	}
	buf, ok := o.publish(buf, &s, now)
	if !ok || s.qos == 0 {
		o.finish(&s)
		return buf
	}
	s.wire = true
	o.busy++
	o.sent = append(o.sent, s)
	return buf
}

// publish appends the PUBLISH of s. Not ok: the client may not have it, or not
// take it; what is too large counts as sent. [MQTT-3.1.2-25]
func (o *outbox) publish(buf []byte, s *slot, now time.Time) (_ []byte, ok bool) {
	if s.m == nil {
		return buf, false
	}
	if !o.l.allowed(o.s, s.m.topic) {
		o.l.dropped("not_allowed", limitNone)
		return buf, false
	}
	p := publication{outMessage: s.m, version: o.version, id: s.id, dup: s.dup, expiry: s.m.remaining(now)}
	p.alias, p.known = o.aliases.of(s.m.topic)
	if o.limit > 0 && uint32(p.packetSize()) > o.limit {
		if !p.known {
			p.alias = 0
		}
		if uint32(p.packetSize()) > o.limit {
			o.l.dropped("too_large", limitPeerPacket)
			return buf, false
		}
	}
	if p.alias > 0 && !p.known {
		o.aliases.learn(s.m.topic)
	}
	return p.append(buf), true
}

// resume is called, with session.conn set, when a connection takes the session
// over, and for the first one. maxPacket 0: no limit. aliases is the client's
// Topic Alias Maximum.
func (o *outbox) resume(version byte, receiveMax int, maxPacket uint32, aliases uint16) {
	o.present, o.version, o.limit = true, version, maxPacket
	o.window = maxOutInflight
	if receiveMax > 0 {
		o.window = min(o.window, receiveMax)
	}
	o.aliases = outAliases{max: min(int(aliases), maxOutAliases)}
	o.again()
	if o.waiting() > 0 {
		o.unsaved() // the session may be a stored one only now
	}
}

// again lets everything that is not answered be sent again.
func (o *outbox) again() {
	keep := o.sent[:0]
	for i := range o.sent {
		s := o.sent[i]
		if s.m == nil { // nobody will answer it any more
			o.finish(&s)
			continue
		}
		s.wire = false
		keep = append(keep, s)
	}
	clear(o.sent[len(keep):])
	o.sent = keep
	for i := range o.released {
		o.released[i].wire = false
	}
	o.busy, o.resend, o.releases = 0, len(o.sent), 0
}

// leave is called when that connection ends, with session.conn nil.
func (o *outbox) leave() {
	if !o.present {
		return
	}
	o.present = false
	o.aliases = outAliases{}
	if len(o.ids) == 0 {
		o.ids = nil
	}
	o.again()
	o.replay.left()
	var back []*outMessage
	for o.plain.len() > 0 {
		s := o.plain.pop()
		if s.m.group != nil {
			back = append(back, s.m)
		}
		o.finish(&s)
	}
	o.plainBytes = 0
	back = o.unsentOf(nil, back)
	o.l.giveBack(o.s, back)
}

// unsentOf takes the messages out of the queue that came by a shared
// subscription and have other members to go to: those of g, or of any if g is nil.
func (o *outbox) unsentOf(g *group, back []*outMessage) []*outMessage {
	any := false
	for _, s := range o.queue.all() {
		any = any || s.m.group != nil && (g == nil || s.m.group == g)
	}
	if !any {
		return back
	}
	var rest fifo[slot]
	for o.queue.len() > 0 {
		s := o.queue.pop()
		if s.m.group == nil || g != nil && s.m.group != g || !o.l.others(s.m.group, o.s) {
			rest.push(s)
			continue
		}
		back = append(back, s.m)
		o.finish(&s)
	}
	o.queue = rest
	return back
}

// close ends the outbox with its session. What was sent of shared subscriptions
// with QoS 1 and not answered goes to other members, too; what is QoS 2 must
// not. [MQTT-4.8.2-5]
func (o *outbox) close() {
	o.leave()
	o.closed = true
	back := o.unsentOf(nil, nil)
	for i := range o.sent {
		s := &o.sent[i]
		if s.m != nil && s.m.group != nil && s.qos == 1 {
			back = append(back, s.m)
		}
		o.finish(s)
	}
	for i := range o.released {
		o.finish(&o.released[i])
	}
	for o.queue.len() > 0 {
		s := o.queue.pop()
		o.finish(&s)
	}
	o.sent, o.released, o.resend, o.releases, o.replay = nil, nil, 0, 0, replay{}
	o.l.giveBack(o.s, back)
}

// expire drops what waits and has expired.
func (o *outbox) expire(now time.Time) {
	late := 0
	for i := range o.queue.all() {
		if s := o.queue.at(i); s.m.expired(now) {
			late++
		}
	}
	if late == 0 {
		return
	}
	var rest fifo[slot]
	for o.queue.len() > 0 {
		s := o.queue.pop()
		if s.m.expired(now) {
			o.l.dropped("expired", limitNone)
			o.finish(&s)
			continue
		}
		rest.push(s)
	}
	o.queue = rest
}

// waiting is the number of messages that are not answered yet.
func (o *outbox) waiting() int {
	return len(o.sent) + len(o.released) + o.queue.len() + o.plain.len()
}

// hasRoom reports whether a message that is added leaves at once, as far as the
// window goes.
func (o *outbox) hasRoom(qos byte) bool {
	if qos == 0 {
		return o.present && o.plainBytes < maxPlainBytes
	}
	return o.present && o.queue.len()+len(o.sent)+len(o.released) < o.window
}
