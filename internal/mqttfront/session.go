package mqttfront

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// session is what MQTT calls a session: the state of one client id, which lives
// on while the client is away for as long as it asked for. Its outbound half
// (subs, out) is in subscribe.go and outbox.go.
type session struct {
	f      *Front
	id     string // client id
	user   string // whose it is; seat's owner, and seats.mu to read it without one
	owned  bool   // user is known: it was stored by a version that keeps users; likewise
	key    string // names it in the Store: 16 hex digits
	stored bool   // there may be keys of it in the Store; constant

	mu       sync.Mutex
	ended    bool                 // nothing is kept any more; guarded by mu
	conn     *conn                // nil while the client is away; guarded by mu
	expiry   time.Duration        // how long it outlives its connection; guarded by mu
	away     time.Time            // since when, while conn is nil; guarded by mu
	received map[uint16]*received // see qos2.go; guarded by mu

	subs subscriptions // guarded by mu
	out  outbox        // guarded by mu
}

func (f *Front) newSession(id, user string, expiry time.Duration) *session {
	s := &session{f: f, id: id, user: user, owned: true, key: newKey(), stored: f.o.Store != nil && expiry > 0, expiry: expiry, away: time.Now()}
	s.begin()
	return s
}

// begin counts in a session that nobody else sees yet.
func (s *session) begin() {
	s.f.helloBytes.Add(idSize(s.id) + idSize(s.user))
	s.initLocal()
}

// adopt gives a session without a known user to that of c, which owns its seat.
func (s *session) adopt(c *conn) (adopted bool) {
	if s.owned {
		return false
	}
	s.user, s.owned = c.user, true
	s.f.helloBytes.Add(idSize(s.user))
	return true
}

// idSize is what a client id or user name takes beyond what every one may have.
func idSize(id string) int64 { return int64(max(0, len(id)-plainID)) }

func newKey() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// wake sees to it that what was added to out is sent. The caller holds mu.
func (s *session) wake() {
	if s.conn != nil {
		s.conn.kick()
	}
}

// seat is the place of one client id. Whoever owns it may begin and end the
// session there; there is one owner at a time.
type seat struct {
	owner   *conn    // nil: free
	session *session // nil: none
}

// seats are the client ids that are connected or have a session.
type seats struct {
	mu       sync.Mutex
	m        map[string]*seat // guarded by mu
	sessions atomic.Int64     // of m
	tickets  atomic.Uint64
}

var (
	errTakenOver  = errors.New("another connection of the client took over")
	errShutdown   = errors.New("server is shutting down")
	errClientLeft = errors.New("client disconnected")
	errSlowLeave  = errors.New("the client's older connection does not end")
	errForeign    = errors.New("the client id belongs to a session of another user")
)

// claim makes c the owner of its client id's seat. An older connection that owns
// it is ended, and waited for: only when its reader has stopped, everything that
// it took has reached its Session. A younger one wins. Of another user's client
// id nothing is ended, unless that user is gone.
func (c *conn) claim() error {
	t := &c.f.seats
	timer := time.NewTimer(c.f.o.ConnectTimeout)
	defer timer.Stop()
	for {
		t.mu.Lock()
		at := t.m[c.id]
		if at == nil {
			at = &seat{}
			t.m[c.id] = at
		}
		old := at.owner
		if foreign := at.foreign(c); foreign {
			s := at.session
			t.mu.Unlock()
			if old != nil || !c.f.abandoned(s) {
				return errForeign
			}
			c.f.evict(s)
			continue
		}
		if old == nil {
			at.owner = c
			c.claimed = true
			t.mu.Unlock()
			return nil
		}
		t.mu.Unlock()
		if old.ticket > c.ticket {
			return errTakenOver
		}
		if !old.ending.Load() {
			c.f.n.takeOvers.Add(1)
			old.end(errTakenOver, SessionTakenOver, "session taken over") // [MQTT-3.1.4-3]
		}
		select {
		case <-old.left:
		case <-c.gone:
			return errEnded
		case <-timer.C:
			return errSlowLeave
		}
	}
}

// foreign reports whether the seat is another user's. A connection that is
// leaving says nothing: whether a session stays will be seen. The caller holds mu
// of the seats.
func (at *seat) foreign(c *conn) bool {
	switch {
	case at.owner != nil:
		return at.owner.user != c.user && !at.owner.ending.Load()
	case at.session != nil:
		return at.session.owned && at.session.user != c.user
	}
	return false
}

// abandoned reports whether nobody can come as the user of s any more: then it
// belongs to nobody, and must not keep others from its client id.
func (f *Front) abandoned(s *session) bool {
	h, ok := f.handler.(UserHandler)
	return ok && !h.UserExists(s.user)
}

// vacate gives the seat back. Another connection of the client may come then.
func (c *conn) vacate() {
	if c.claimed {
		t := &c.f.seats
		t.mu.Lock()
		at := t.m[c.id]
		at.owner = nil
		if at.session == nil {
			delete(t.m, c.id)
		}
		t.mu.Unlock()
		c.claimed = false
	}
	close(c.left)
}

// sit puts s on the seat of c, which owns it; nil: none.
func (c *conn) sit(s *session) {
	t := &c.f.seats
	t.mu.Lock()
	defer t.mu.Unlock()
	t.put(t.m[c.id], s)
}

// put puts s on a seat. The caller holds mu.
func (t *seats) put(at *seat, s *session) {
	if at.session != nil {
		t.sessions.Add(-1)
	}
	if s != nil {
		t.sessions.Add(1)
	}
	at.session = s
}

// sitting is the session on the seat of c, which owns it.
func (c *conn) sitting() *session {
	t := &c.f.seats
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.m[c.id].session
}

// end forgets all that s holds, here and in the Store. Whoever calls owns its
// seat, and takes it off there. A will that waits is due. [MQTT-3.1.3-9]
func (s *session) end() {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return
	}
	s.ended = true
	s.f.helloBytes.Add(-idSize(s.id) - idSize(s.user))
	var changes []Change
	if s.stored {
		changes = append(changes, Change{Key: "s/" + s.key})
		for id := range s.received {
			changes = append(changes, Change{Key: s.receivedKey(id)})
		}
	}
	for _, r := range s.received {
		s.letGo(r)
	}
	s.received = nil
	s.mu.Unlock()
	changes = append(changes, s.f.dropSubscriptions(s)...)
	if s.stored {
		// Not in one piece, which might be too large; what a crash leaves over
		// belongs to nothing, since the session itself goes first.
		for chunk := range slices.Chunk(changes, 256) {
			s.f.save(chunk, nil)
		}
	}
	s.f.wills.ended(s.id)
}

// expireSessions ends the sessions of clients that are away for too long, by
// the monotonic clock.
func (f *Front) expireSessions(now time.Time) {
	for _, s := range f.awaySessions(func(s *session) bool { return now.Sub(s.away) >= s.expiry }) {
		f.evict(s)
	}
}

// outlived reports whether the time of a session has come that nobody has
// cleared away yet.
func (s *session) outlived(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn == nil && now.Sub(s.away) >= s.expiry
}

// awaySessions are those whose clients are away and for which ok holds; ok is
// called with mu of the session held.
func (f *Front) awaySessions(ok func(s *session) bool) (out []*session) {
	t := &f.seats
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, at := range t.m {
		if s := at.session; at.owner == nil && s != nil {
			s.mu.Lock()
			if s.conn == nil && ok(s) {
				out = append(out, s)
			}
			s.mu.Unlock()
		}
	}
	return out
}

// evict ends a session whose client is away, if it still is.
func (f *Front) evict(s *session) bool {
	t := &f.seats
	owner := &conn{f: f, id: s.id, left: make(chan struct{})} // a client that comes now waits for it
	t.mu.Lock()
	at := t.m[s.id]
	if at == nil || at.owner != nil || at.session != s {
		t.mu.Unlock()
		return false // it is back
	}
	at.owner, owner.claimed = owner, true
	owner.ending.Store(true)
	t.put(at, nil)
	t.mu.Unlock()
	s.end()
	owner.vacate()
	return true
}

// roomForSession reports whether another session of user may be kept. When there
// are too many, one whose client is away has to go: so nobody can keep others
// out by leaving sessions behind.
func (f *Front) roomForSession(user string) bool {
	for f.seats.sessions.Load() >= int64(f.o.MaxSessions) {
		f.n.limit(limitSessions)
		s := f.surplus(user)
		if s == nil {
			return false
		}
		if f.evict(s) {
			f.log.Debug("session ended, there are too many", "client", s.id, "user", s.user)
		}
	}
	return true
}

// surplus is the session that goes when one more of user is too many: of the user
// who has the most that are away, the new one counted in, that which is away for
// the longest. So a user takes from another only while that one has more than he.
// nil: all clients are here.
func (f *Front) surplus(user string) *session {
	type candidate struct {
		s    *session
		user string
		away time.Time
	}
	var list []candidate
	count := make(map[string]int)
	f.awaySessions(func(s *session) bool {
		list = append(list, candidate{s, s.user, s.away})
		count[s.user]++
		return false
	})
	if len(list) == 0 {
		return nil
	}
	if count[user] > 0 {
		count[user]++
	}
	return slices.MaxFunc(list, func(a, b candidate) int {
		return cmp.Or(
			cmp.Compare(count[a.user], count[b.user]),
			cmp.Compare(btoi(a.user == user), btoi(b.user == user)),
			b.away.Compare(a.away),
		)
	}).s
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// setExpiry is what a DISCONNECT may say.
func (c *conn) setExpiry(seconds uint32) {
	s := c.s
	s.mu.Lock()
	s.expiry = c.f.boundExpiry(seconds)
	if s.expiry > 0 && s.stored {
		c.f.save([]Change{s.storedAs(s.expiry)}, nil)
	}
	s.mu.Unlock()
}

// boundExpiry gives the session expiry that a client gets.
func (f *Front) boundExpiry(seconds uint32) time.Duration {
	asked := time.Duration(seconds) * time.Second
	if asked > f.o.MaxSessionExpiry || seconds == 0xFFFFFFFF {
		f.n.limit(limitSessionExpiry)
		return f.o.MaxSessionExpiry
	}
	return asked
}
