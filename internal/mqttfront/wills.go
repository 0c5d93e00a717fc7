package mqttfront

import (
	"encoding/binary"
	"errors"
	"sync"
	"time"
)

// will is the last will of a connection.
type will struct {
	pub      Publish
	delay    time.Duration
	username string // as the Handler has left it, who may have proven another than CONNECT claims
	key      string // in the Store; empty: not there
	restored bool   // read from the Store: its connection ended with the process
}

// takeWill makes a will of what the Handler left of it.
func (c *conn) takeWill(h *hello, peer *Peer, s *session) *will {
	if peer.Will == nil {
		return nil
	}
	w := &will{pub: *peer.Will, delay: time.Duration(h.willDelay) * time.Second, username: peer.Username}
	w.pub.Will = true
	if c.f.o.Store != nil {
		w.key = "w/" + s.key
	}
	return w
}

// size is what the will costs in memory, roughly.
func (w *will) size() int {
	n := len(w.pub.Topic) + len(w.pub.Payload) + entryCost
	if p := w.pub.Properties; p != nil {
		n += len(p.ContentType) + len(p.ResponseTopic) + len(p.CorrelationData) + userSize(p.User)
	}
	return n
}

// storedAs is the change that keeps the will: version, delay in seconds, client
// id, user name, message.
func (w *will) storedAs(id string) Change {
	v := binary.BigEndian.AppendUint32([]byte{storeVersion}, uint32(w.delay/time.Second))
	v = appendString(appendString(v, id), w.username)
	return Change{Key: w.key, Value: appendStored(v, &w.pub)}
}

func decodeWill(key string, value []byte) (w *will, id string, ok bool) {
	r := propReader{b: value}
	version, delay := r.take(1), r.take(4)
	id, username := r.text(), r.text()
	if r.bad || version[0] != storeVersion || id == "" {
		return nil, "", false
	}
	w = &will{username: username, key: key, restored: true, delay: time.Duration(binary.BigEndian.Uint32(delay)) * time.Second}
	w.pub, ok = decodeStored(r.b)
	w.pub.Will = true
	return w, id, ok && !reservedTopic(w.pub.Topic)
}

// publishWill gives the will to the Session as a message that nobody awaits an
// acknowledgement of. It follows the last message of the reader.
func (c *conn) publishWill() {
	w := c.will
	c.will = nil
	c.f.n.wills.Add(1)
	e := c.acks.slot(c)
	e.pub, e.message, e.size = w.pub, true, w.size()
	if w.key != "" {
		e.pub.Save = []Change{{Key: w.key}}
	}
	c.bytes.Add(int64(e.size))
	c.f.bytes.Add(int64(e.size))
	c.acks.push(e)
	c.give(e, func(r Result) {
		if w.key != "" && r.Code >= UnspecifiedError && !r.Withhold {
			c.f.save([]Change{{Key: w.key}}, nil) // refused for good
		}
		e.settle(r)
	})
}

// dropWill forgets the will of a connection.
func (c *conn) dropWill() {
	if w := c.will; w != nil && w.key != "" {
		c.f.save([]Change{{Key: w.key}}, nil)
	}
	c.will = nil
}

// concludeWill decides over the will of a connection that has ended, and begins
// its delay if it has one. It reports whether the Session stays open for it. The
// connection owns its client id's seat.
func (c *conn) concludeWill(expiry time.Duration) (waits bool) {
	switch {
	case c.will == nil:
	case c.clean:
		c.dropWill() // [MQTT-3.14.4-3]
	case errors.Is(c.reason, errShutdown):
		c.will = nil // a stop is no failure of the client; what the Store has is for the next start
	default:
		// It is due when its delay has passed or the session ends, whichever
		// comes first. [MQTT-3.1.3-9]
		if delay := min(c.will.delay, expiry); delay > 0 && c.f.wills.wait(c, delay) {
			return true
		}
		c.publishWill()
	}
	return false
}

// Bounds of the wills whose delay runs. Beyond them a will is published without
// delay.
const (
	maxWaitingWills     = 1024
	maxWaitingWillBytes = 1 << 20
	// comeBack is what a client has, after a restart, to be back before its will
	// is published.
	comeBack = 10 * time.Second
)

// waitingWills are the wills whose delay runs. Their Sessions are not closed
// yet. One for each client id.
type waitingWills struct {
	mu    sync.Mutex
	m     map[string]waitingWill // guarded by mu
	bytes int                    // of m; guarded by mu
}

type waitingWill struct {
	c   *conn
	due time.Time
}

// wait lets the delay of c's will begin; false: there is no room for it. c owns
// its seat.
func (w *waitingWills) wait(c *conn, delay time.Duration) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	size := c.will.size()
	if len(w.m) >= maxWaitingWills || w.bytes+size > maxWaitingWillBytes {
		c.f.n.limit(limitWaitingWills)
		return false
	}
	w.m[c.id] = waitingWill{c, time.Now().Add(delay)}
	w.bytes += size
	return true
}

// restore lets a client that was connected before a restart come back.
func (w *waitingWills) restore(c *conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if old := w.take(c.id); old != nil { // a damaged Store
		old.dropWill()
	}
	w.bytes += c.will.size()
	w.m[c.id] = waitingWill{c, time.Now().Add(max(c.will.delay, comeBack))}
}

// take removes the will of id, if there is one. The caller holds mu.
func (w *waitingWills) take(id string) (c *conn) {
	if e, ok := w.m[id]; ok {
		c = e.c
		w.bytes -= c.will.size()
		delete(w.m, id)
	}
	return c
}

// ended is called when a session has ended: the will that waits is due at once.
// [MQTT-3.1.3-9] One from before a restart waits on: its client may be about to
// come back.
func (w *waitingWills) ended(id string) {
	w.mu.Lock()
	var old *conn
	if e, ok := w.m[id]; ok && !e.c.will.restored {
		old = w.take(id)
	}
	w.mu.Unlock()
	if old != nil {
		old.publishWill()
		old.session.Close(old.reason)
	}
}

// comesBack drops the will that waits for c's client to be back. Another user's
// with its client id, which then has no session, is due.
func (w *waitingWills) comesBack(c *conn) {
	w.mu.Lock()
	old := w.take(c.id)
	w.mu.Unlock()
	if old == nil {
		return
	}
	if old.will.username == c.user {
		old.dropWill()
	} else {
		old.publishWill()
	}
	old.session.Close(old.reason)
}

// tick publishes what is due.
func (w *waitingWills) tick(now time.Time) {
	for _, c := range w.all(func(e waitingWill) bool { return !now.Before(e.due) }) {
		c.publishWill()
		c.session.Close(c.reason)
	}
}

// stop lets go of all of them. What the Store has is for the next start.
func (w *waitingWills) stop() {
	for _, c := range w.all(func(waitingWill) bool { return true }) {
		c.session.Close(c.reason)
	}
}

// all takes out those for which ok holds.
func (w *waitingWills) all(ok func(e waitingWill) bool) (out []*conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, e := range w.m {
		if ok(e) {
			out = append(out, w.take(id))
		}
	}
	return out
}

// restoreWill lets a will wait whose connection was open, or whose delay ran,
// when the process ended.
func (f *Front) restoreWill(w *will, id string) {
	h, ok := f.handler.(WillHandler)
	if !ok {
		f.n.willsDropped.Add(1)
		f.save([]Change{{Key: w.key}}, nil)
		return
	}
	c := newConn(f, nil) // nobody reads or writes it
	c.id, c.will, c.reason = id, w, errShutdown
	c.session = orphan{h: h, id: id, username: w.username}
	c.endOnce.Do(func() { c.ending.Store(true) })
	f.wills.restore(c)
}

// orphan is the Session of a will whose connection ended with the process.
type orphan struct {
	h            WillHandler
	id, username string
}

func (o orphan) Publish(p *Publish, settle Settle) { o.h.Will(p, o.id, o.username, settle) }
func (o orphan) Subscribe(string) bool             { return false }
func (o orphan) Deliver(string) bool               { return false }
func (o orphan) Close(error)                       {}
