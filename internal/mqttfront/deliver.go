package mqttfront

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// limitNone stands for what is dropped without any limit being hit.
const limitNone limit = -1

// local is what the front keeps for local subscribers. Its locks are taken in
// this order: session.mu, topics.mu, kept.mu; none of them while a Store or a
// Session is called, but for Store.Save and Session.Deliver, which do not block.
type local struct {
	f         *Front
	store     Store
	topics    *topics
	kept      *kept
	maxQueued int   // messages of one session
	maxBytes  int64 // of all
	clock     func() time.Time

	messages atomic.Int64 // that wait in all outboxes
	bytes    atomic.Int64 // of them, a letter that waits in many counted once
	tick     atomic.Uint32
	noTicks  atomic.Bool // tests: keep is called by them alone
	saver    saver

	mu       sync.Mutex
	sessions map[*session]struct{} // guarded by mu
	back     []returned            // guarded by mu
	returns  chan struct{}         // a token: look at back
}

// returned is a message of a shared subscription that looks for another member.
type returned struct {
	m    *outMessage
	from *session
}

func newLocal(f *Front) *local {
	o := &f.o
	or := func(v, d int64) int64 {
		if v <= 0 {
			return d
		}
		return v
	}
	return &local{
		f: f, store: o.Store, topics: newTopics(),
		kept:      newKept(int(or(int64(o.MaxRetained), 10_000)), or(o.MaxRetainedBytes, 32<<20), int(or(int64(o.MaxTopicLevels), 64))),
		maxQueued: min(int(or(int64(o.MaxQueuedMessages), 1000)), 50_000), // far fewer than packet identifiers
		maxBytes:  or(o.MaxQueuedBytes, 16<<20),
		clock:     time.Now, sessions: make(map[*session]struct{}), returns: make(chan struct{}, 1),
	}
}

func (l *local) now() time.Time { return l.clock() }

// dropped counts a message that a subscriber does not get, or that is not
// retained. The reasons are queue_full (the fan-out lags behind), slow_subscriber
// (QoS 0, not read), queued_messages and undelivered_full (bounds of what waits
// for one, and for all), expired, too_large (for the client), not_allowed (by the
// Session), no_member (of a shared subscription is left), retained_full.
func (l *local) dropped(reason string, hit limit) {
	l.f.n.fanDropped(reason)
	if hit != limitNone {
		l.f.n.limit(hit)
	}
}

// strayAck counts an acknowledgement of a message that is not on its way.
func (l *local) strayAck() { l.f.n.protocol("stray_ack") }

func (l *local) hold(m *outMessage) {
	n := int64(slotCost)
	if m.holders.Add(1) == 1 {
		n += int64(m.size())
	}
	l.messages.Add(1)
	l.bytes.Add(n)
}

func (l *local) release(m *outMessage) {
	n := int64(slotCost)
	if m.holders.Add(-1) == 0 {
		n += int64(m.size())
	}
	l.messages.Add(-1)
	l.bytes.Add(-n)
}

// allowed asks the Session whether its client may see topic. The caller holds
// s.mu.
func (l *local) allowed(s *session, topic string) bool {
	return s.conn != nil && s.conn.session.Deliver(topic)
}

// again wakes the writer of s although nothing new came. The caller holds s.mu.
func (l *local) again(s *session) { s.wake() }

// others reports whether g has a member besides s.
func (l *local) others(g *group, s *session) bool {
	l.topics.mu.RLock()
	defer l.topics.mu.RUnlock()
	for _, m := range g.members {
		if m.s != s {
			return true
		}
	}
	return false
}

// giveBack lets messages of shared subscriptions look for another member.
func (l *local) giveBack(from *session, list []*outMessage) {
	if len(list) == 0 {
		return
	}
	l.mu.Lock()
	for _, m := range list {
		l.back = append(l.back, returned{m, from})
	}
	l.mu.Unlock()
	select {
	case l.returns <- struct{}{}:
	default:
	}
}

// initLocal prepares the outbound half of a new session (also of one that was
// read from the Store), before anybody else sees it.
func (s *session) initLocal() {
	l := s.f.local
	s.out.l, s.out.s = l, s
	l.mu.Lock()
	l.sessions[s] = struct{}{}
	l.mu.Unlock()
}

// dropSubscriptions ends the outbound half of a session that ends, and returns
// the changes that remove it from the Store. It locks s.mu itself.
func (f *Front) dropSubscriptions(s *session) []Change {
	l := f.local
	l.mu.Lock()
	delete(l.sessions, s)
	l.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Change
	for _, sub := range s.subs.filters {
		l.topics.remove(sub)
		if s.stored && l.store != nil {
			out = append(out, Change{Key: filterKey(s.key, sub.filter)})
		}
	}
	s.subs.filters, s.subs.bytes = nil, 0
	s.out.close()
	for _, n := range s.out.saving.gone {
		out = append(out, Change{Key: outKey(s.key, n)})
	}
	s.out.saving.gone = nil
	return out
}

// The gauges of Stats.
func (l *local) subscriptions() int64            { return l.topics.count.Load() }
func (l *local) retained() int64                 { return int64(l.kept.count()) }
func (l *local) queued() (messages, bytes int64) { return l.messages.Load(), l.bytes.Load() }

// recipient is one session that gets a message, with what its matching
// subscriptions say together.
type recipient struct {
	s           *session
	qos         byte
	asPublished bool
	ids         []uint32
}

// distributor gives messages to sessions. Fan-out goroutine only.
type distributor struct {
	l     *local
	found found
	to    []recipient
	round uint64
	group []*subscription
	// plain are the messages that most subscribers get: by QoS and retain flag.
	plain [3][2]*outMessage
}

// fanLetter is a letter to distribute; made when the first subscriber is found.
type fanLetter struct {
	item *fanItem
	l    *letter
}

func (f *fanLetter) get(now time.Time) *letter {
	if f.l == nil {
		f.l = newLetter(f.item.origin, &f.item.pub, now)
	}
	return f.l
}

// distribute gives a settled message to all whose filters match: one copy for a
// session, however many of its filters do, at the highest QoS and with all
// identifiers; and one for each shared subscription.
func (d *distributor) distribute(item *fanItem) {
	d.l.topics.match(item.pub.Topic, &d.found)
	if len(d.found.subs)+len(d.found.groups) == 0 {
		return
	}
	lt := fanLetter{item, item.kept}
	now := d.l.now()
	d.gather(item)
	for i := range d.to {
		r := &d.to[i]
		m := d.message(lt.get(now), r.qos, r.asPublished, r.ids)
		r.s.mu.Lock()
		r.s.out.add(m)
		r.s.wake()
		r.s.mu.Unlock()
		*r = recipient{}
	}
	for _, g := range d.found.groups {
		d.give(g, lt.get(now), item.number, nil)
	}
	d.plain = [3][2]*outMessage{}
	clear(d.found.subs)
	clear(d.found.groups)
	d.l.relieve()
}

// gather merges the subscriptions found into recipients.
func (d *distributor) gather(item *fanItem) {
	d.to = d.to[:0]
	d.round++
	change := item.change()
	for _, sub := range d.found.subs {
		if sub.noLocal && sub.s.id == item.origin {
			continue // [MQTT-3.8.3-3]
		}
		if sub.before.covers(item.number, change) {
			continue
		}
		at := &sub.s.subs.gather
		if at.round != d.round {
			at.round, at.index = d.round, len(d.to)
			d.to = append(d.to, recipient{s: sub.s})
		}
		r := &d.to[at.index]
		r.qos = max(r.qos, min(sub.qos, item.pub.QoS)) // [MQTT-3.8.4-8]
		r.asPublished = r.asPublished || sub.asPublished
		if sub.identifier > 0 {
			r.ids = append(r.ids, sub.identifier) // [MQTT-3.3.4-4]
		}
	}
}

// message makes what a subscriber gets of a letter, or takes what another gets.
func (d *distributor) message(l *letter, qos byte, asPublished bool, ids []uint32) *outMessage {
	retain := asPublished && l.retain // [MQTT-3.3.1-12,13]
	if len(ids) > 0 {
		return &outMessage{letter: l, qos: qos, retain: retain, ids: ids}
	}
	at := &d.plain[qos][0]
	if retain {
		at = &d.plain[qos][1]
	}
	if *at == nil {
		*at = &outMessage{letter: l, qos: qos, retain: retain}
	}
	return *at
}

// give sends a message to one member of a shared subscription, in turn: to one
// that is connected and has room, else to one that is connected, else to one
// that is away. number is the message's among those offered; except is the one
// that gave it back.
func (d *distributor) give(g *group, l *letter, number uint64, except *session) {
	d.group = d.l.topics.membersOf(g, d.group[:0])
	defer clear(d.group)
	for _, willing := range [...]func(*outbox, byte) bool{(*outbox).hasRoom, (*outbox).isPresent, (*outbox).isAway} {
		for i := range d.group {
			at := (g.next + i) % len(d.group)
			if sub := d.group[at]; sub.s != except && !sub.before.covers(number, 0) && d.try(sub, l, willing) {
				g.next = at + 1
				return
			}
		}
	}
	if except != nil {
		d.l.dropped("no_member", limitNone)
	}
}

func (d *distributor) try(sub *subscription, l *letter, willing func(*outbox, byte) bool) bool {
	s := sub.s
	s.mu.Lock()
	defer s.mu.Unlock()
	o := &s.out
	qos := min(sub.qos, l.qos)
	if o.closed || !willing(o, qos) || o.present && !d.l.allowed(s, l.topic) {
		return false
	}
	o.add(&outMessage{letter: l, qos: qos, retain: sub.asPublished && l.retain, ids: sub.ids(), group: sub.group})
	s.wake()
	return true
}

// anyMember is the number of a message that is for whoever is a member now.
const anyMember = math.MaxUint64

// giveAgain finds new members for what was given back.
func (d *distributor) giveAgain() {
	d.l.mu.Lock()
	list := d.l.back
	d.l.back = nil
	d.l.mu.Unlock()
	for _, r := range list {
		d.give(r.m.group, r.m.letter, anyMember, r.from)
	}
}

func (o *outbox) isPresent(byte) bool { return o.present }

func (o *outbox) isAway(qos byte) bool { return !o.present && qos > 0 }
