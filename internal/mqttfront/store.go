package mqttfront

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// What the Store holds, by key:
//
//	s/<session>             a session: version 2, expiry in seconds (4 bytes), user
//	                        (2 + n), client id; version 1 has no user
//	q/<session>/<id>        a received QoS 2 identifier, 4 hex digits: version, and
//	                        the message if local subscribers wait for its release
//	f/<session>/<filter>    a subscription
//	m/<session>/<n>         a message that waits for a subscriber
//	r/<topic>               a retained message
//	w/<session>             a will
//
// A session has a random name of 16 hex digits, so that what a session that has
// ended left behind can never be taken for its successor's.
const (
	storeVersion   = 1
	sessionVersion = 2
)

var receivedValue = []byte{storeVersion}

var errStoreTimeout = errors.New("the store does not answer")

// storedAs is the change that keeps the session itself.
func (s *session) storedAs(expiry time.Duration) Change {
	v := binary.BigEndian.AppendUint32([]byte{sessionVersion}, uint32(expiry/time.Second))
	return Change{Key: "s/" + s.key, Value: append(appendString(v, s.user), s.id...)}
}

func (s *session) receivedKey(id uint16) string { return fmt.Sprintf("q/%s/%04x", s.key, id) }

func (s *session) expiresAfter() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.expiry
}

// save gives changes to the Store. done, which may be nil, is called at once
// when there is nothing to wait for.
func (f *Front) save(changes []Change, done func(error)) {
	if f.o.Store == nil || len(changes) == 0 {
		if done != nil {
			done(nil)
		}
		return
	}
	if done == nil {
		f.o.Store.Save(changes, nil)
		return
	}
	f.o.Store.Save(changes, func(err error) {
		if err != nil {
			f.n.storeErrors.Add(1)
		}
		done(err)
	})
}

// saveNow saves changes and waits until they are durable.
func (c *conn) saveNow(changes []Change) error {
	if c.f.o.Store == nil || len(changes) == 0 {
		return nil
	}
	done := make(chan error, 1)
	c.f.save(changes, func(err error) { done <- err })
	timer := time.NewTimer(c.f.o.ConnectTimeout)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-c.gone:
		return errEnded
	case <-timer.C:
		return errStoreTimeout
	}
}

// loading is what is read from the Store until all of it is there: keys come in
// no order.
type loading struct {
	f        *Front
	sessions map[string]*session // by key
	rest     []Change            // what belongs to a session, or is a will
	bad      []Change            // to be removed
}

// load reads the Store. What cannot be read, or belongs to nothing, is removed
// and counted: it never stops a start.
func (f *Front) load() error {
	if f.o.Store == nil {
		return nil
	}
	l := &loading{f: f, sessions: make(map[string]*session)}
	err := f.o.Store.Load(func(key string, value []byte) bool {
		l.add(key, value)
		return true
	})
	if err != nil {
		return fmt.Errorf("load sessions: %w", err)
	}
	l.finish()
	return nil
}

// add takes one key.
func (l *loading) add(key string, value []byte) {
	if len(key) < 3 || key[1] != '/' {
		l.drop(key)
		return
	}
	switch key[0] {
	case 'r':
		if l.f.fan == nil || !l.f.local.loadRetained(key, value) {
			l.drop(key)
		}
	case 's':
		if !l.addSession(key[2:], value) {
			l.drop(key)
		}
	case 'q', 'f', 'm', 'w':
		l.rest = append(l.rest, Change{Key: key, Value: append([]byte(nil), value...)})
	default:
		l.drop(key)
	}
}

func (l *loading) drop(key string) {
	l.f.n.loadDropped.Add(1)
	l.bad = append(l.bad, Change{Key: key})
}

func (l *loading) addSession(key string, value []byte) bool {
	r := propReader{b: value}
	head := r.take(5)
	if r.bad || !validKey(key) || head[0] < storeVersion || head[0] > sessionVersion {
		return false
	}
	var user string
	owned := head[0] == sessionVersion
	if owned {
		user = r.text()
	}
	seconds := binary.BigEndian.Uint32(head[1:])
	if id := r.b; r.bad || seconds == 0 || len(id) == 0 || !validString(id) || len(id) > 65535 {
		return false // it was to end with its connection
	}
	s := &session{
		f: l.f, id: string(r.b), user: user, owned: owned, key: key, stored: true,
		expiry: min(time.Duration(seconds)*time.Second, l.f.o.MaxSessionExpiry), away: time.Now(),
	}
	s.begin()
	l.sessions[key] = s
	return true
}

func validKey(key string) bool {
	if len(key) != 16 || strings.ToLower(key) != key {
		return false
	}
	_, err := hex.DecodeString(key)
	return err == nil
}

// finish puts together what was read.
func (l *loading) finish() {
	for _, key := range slices.Sorted(maps.Keys(l.sessions)) {
		l.seat(l.sessions[key])
	}
	// In their order, as messages must be.
	slices.SortFunc(l.rest, func(a, b Change) int { return cmp.Compare(a.Key, b.Key) })
	for _, kind := range "qfmw" { // subscriptions before messages
		for _, c := range l.rest {
			if rune(c.Key[0]) == kind && !l.addRest(c) {
				l.drop(c.Key)
			}
		}
	}
	for chunk := range slices.Chunk(l.bad, 256) {
		l.f.save(chunk, nil)
	}
	if n := len(l.bad); n > 0 {
		l.f.log.Warn("stored state was dropped that cannot be read or belongs to nothing", "keys", n)
	}
}

// seat puts a session on its seat, unless a damaged Store has another for the
// same client.
func (l *loading) seat(s *session) {
	t := &l.f.seats
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.m[s.id] != nil {
		delete(l.sessions, s.key)
		l.drop("s/" + s.key)
		return
	}
	at := &seat{}
	t.m[s.id] = at
	t.put(at, s)
}

// addRest takes what is not a session; false: it cannot be read, or belongs to
// nothing.
func (l *loading) addRest(c Change) bool {
	key, rest, _ := strings.Cut(c.Key[2:], "/")
	if c.Key[0] == 'w' {
		w, id, ok := decodeWill(c.Key, c.Value)
		if !ok || !validKey(key) || rest != "" {
			return false
		}
		l.f.restoreWill(w, id)
		return true
	}
	s := l.sessions[key]
	if s == nil {
		return false
	}
	switch c.Key[0] {
	case 'q':
		return s.loadReceived(rest, c.Value)
	case 'f':
		return s.loadSubscription(c.Key, c.Value)
	}
	return s.loadOutbound(c.Key, c.Value)
}

func (s *session) loadReceived(id string, value []byte) bool {
	b, err := hex.DecodeString(id)
	if err != nil || len(b) != 2 || b[0]|b[1] == 0 || len(value) < 1 || value[0] != storeVersion {
		return false
	}
	r := &received{state: idKept}
	if len(value) > 1 {
		p, ok := decodeStored(value[1:])
		if !ok {
			return false
		}
		if s.f.fan != nil && s.f.hold(&p) {
			r.pub = &p
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.received == nil {
		s.received = make(map[uint16]*received)
	}
	s.received[binary.BigEndian.Uint16(b)] = r
	return true
}
