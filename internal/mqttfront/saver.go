package mqttfront

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"
)

// saveTick is how often what waits is looked at; a message is saved when it has
// waited for one to two ticks.
const saveTick = 100 * time.Millisecond

// What waits for the subscriber of a stored session is saved lazily: a message
// that is answered within saveTick costs no write at all; one that waits longer
// is written, without a sync of its own, and removed likewise.
//
// So a kill or a power cut may lose to a local subscriber (never to the log,
// which takes another way) what it had not answered and what was settled in the
// last two ticks and the Store's own delay, 300 ms in all; and it may repeat, with
// DUP and the identifier of the first time, QoS 1 messages that were answered in
// that time. A QoS 2 message is not repeated: before PUBLISH leaves a second time
// in another life of the front, its identifier was written with it; and when it
// was written, its PUBREC is synced before PUBREL leaves. A stop in order saves
// everything.

// saving is the part of an outbox that concerns the Store.
type saving struct {
	dirty bool     // in saver.dirty
	gone  []uint64 // saved once, not needed any more
}

// saver is the list of sessions that have something to save.
type saver struct {
	mu    sync.Mutex
	dirty []*session // guarded by mu
}

// unsaved notes that the Store does not have all of o. The caller holds s.mu.
func (o *outbox) unsaved() {
	if o.saving.dirty || !o.l.stores(o.s) {
		return
	}
	o.saving.dirty = true
	v := &o.l.saver
	v.mu.Lock()
	v.dirty = append(v.dirty, o.s)
	v.mu.Unlock()
}

// gone notes that slot n, which was saved, is done with.
func (o *outbox) gone(n uint64) {
	o.saving.gone = append(o.saving.gone, n)
	o.unsaved()
}

// stores reports whether s is kept in the Store.
func (l *local) stores(s *session) bool { return l.store != nil && s != nil && s.stored }

func outKey(session string, n uint64) string {
	const digits = "0123456789abcdef"
	b := append(make([]byte, 0, 3+len(session)+16), "m/"...)
	b = append(append(b, session...), '/')
	for shift := 60; shift >= 0; shift -= 4 {
		b = append(b, digits[n>>shift&15])
	}
	return string(b)
}

func numberOf(key string) (uint64, bool) {
	digits := key[strings.LastIndexByte(key, '/')+1:]
	if len(digits) != 16 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 16, 64)
	return n, err == nil && n < 1<<63
}

// changes gives what to save: what has waited since before the last tick, or all.
// more says that something is left for later.
func (o *outbox) changes(tick uint32, all bool) (out []Change, more bool) {
	for _, n := range o.saving.gone {
		out = append(out, Change{Key: outKey(o.s.key, n)})
	}
	o.saving.gone = nil
	clock, now := o.l.f.moment(), o.l.now()
	look := func(s *slot) {
		if s.saved || s.m == nil && !s.released {
			return
		}
		if !all && tick-s.born < 2 {
			more = true
			return
		}
		o.identify(s)
		s.saved = true
		out = append(out, Change{Key: outKey(o.s.key, s.n), Value: appendOutbound(s, clock, now)})
	}
	for i := range o.released {
		look(&o.released[i])
	}
	for i := range o.sent {
		look(&o.sent[i])
	}
	for i := range o.queue.all() {
		look(o.queue.at(i))
	}
	return out, more
}

// save is called at each tick, and once with all set at the end; done, if it is
// not nil, makes what the Store calls for each session.
func (v *saver) save(l *local, tick uint32, all bool, done func() func(error)) {
	v.mu.Lock()
	list := v.dirty
	v.dirty = nil
	v.mu.Unlock()
	var again []*session
	for _, s := range list {
		s.mu.Lock()
		o := &s.out
		var changes []Change
		more := false
		if !o.closed && l.stores(s) {
			changes, more = o.changes(tick, all)
		}
		l.saveChunks(changes, done) // in the lock: a later change of a key is saved later
		if o.saving.dirty = more; more {
			again = append(again, s)
		}
		s.mu.Unlock()
	}
	if len(again) > 0 {
		v.mu.Lock()
		v.dirty = append(v.dirty, again...)
		v.mu.Unlock()
	}
}

// saveChunk is what one Save has at least, in bytes, unless it is the last.
const saveChunk = 64 << 10

// saveChunks saves changes that need not become durable together: more than a
// little does not fit into a commit.
func (l *local) saveChunks(changes []Change, done func() func(error)) {
	size, from := 0, 0
	for i := range changes {
		size += len(changes[i].Key) + len(changes[i].Value)
		if size < saveChunk && i+1 < len(changes) {
			continue
		}
		var d func(error)
		if done != nil {
			d = done()
		}
		l.store.Save(changes[from:i+1], d)
		size, from = 0, i+1
	}
}

// saveReceived sees to it that the Store learns of a PUBREC. If it has the
// message, the PUBREL waits for that.
func (o *outbox) saveReceived(s *slot) {
	if !s.saved || !o.l.stores(o.s) {
		o.unsaved()
		return
	}
	s.syncing = true
	n, l, owner := s.n, o.l, o.s
	change := Change{Key: outKey(owner.key, n), Value: appendOutbound(s, o.l.f.moment(), o.l.now())}
	l.store.Save([]Change{change}, func(error) {
		// Also after an error: the client waits. Then exactly once holds for as
		// long as the front lives. Not here: the caller may hold the lock.
		l.f.tasks.start(func() {
			owner.mu.Lock()
			defer owner.mu.Unlock()
			for i := range owner.out.released {
				if s := &owner.out.released[i]; s.n == n {
					s.syncing = false
				}
			}
			owner.wake()
		})
	})
}

// farAway begins a session's packet identifiers at a random place when it is read
// from the Store: the client may remember some that were never saved.
func (o *outbox) farAway() {
	if o.lastID == 0 {
		o.lastID = uint16(rand.Uint32())
	}
}

// loadOutbound takes an m/ key of the Store; false: it cannot be read.
func (s *session) loadOutbound(key string, value []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := &s.out
	n, ok := numberOf(key)
	if !ok {
		return false
	}
	got, ok := decodeOutbound(value, o.l.f.moment(), o.l.now())
	if _, taken := o.ids[got.id]; !ok || taken {
		return false
	}
	got.n = n
	o.lastN = max(o.lastN, n)
	o.farAway()
	if o.ids == nil {
		o.ids = make(map[uint16]struct{})
	}
	o.ids[got.id] = struct{}{}
	if got.released {
		o.released = append(o.released, got)
		for i := len(o.released) - 1; i > 0 && o.released[i-1].n > n; i-- {
			o.released[i-1], o.released[i] = o.released[i], o.released[i-1]
		}
		return true
	}
	o.hold(got.m)
	o.queue.push(got)
	for i := o.queue.len() - 1; i > 0 && o.queue.at(i-1).n > n; i-- {
		*o.queue.at(i - 1), *o.queue.at(i) = *o.queue.at(i), *o.queue.at(i - 1)
	}
	return true
}
