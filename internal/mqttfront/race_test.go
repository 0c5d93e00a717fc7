package mqttfront

import (
	"context"
	"sync/atomic"
	"testing"
	"time"
)

// gatedStore holds back what removes a session, or everything.
type gatedStore struct {
	*journal
	all  bool
	held chan struct{} // closed when something is held back
	open chan struct{}
}

func (s *gatedStore) Save(changes []Change, done func(error)) {
	for _, c := range changes {
		if s.all || c.Value == nil && c.Key[0] == 's' {
			select {
			case <-s.held:
			default:
				close(s.held)
			}
			if s.all {
				return // never answers
			}
			<-s.open
		}
	}
	s.journal.Save(changes, done)
}

func newGated(all bool) *gatedStore {
	return &gatedStore{journal: newJournal(), all: all, held: make(chan struct{}), open: make(chan struct{})}
}

// While a session is ended nobody gets it, nor begins another in its place.
func TestEvictedSessionIsNotTaken(t *testing.T) {
	j := newGated(false)
	s := start(t, newFake(), Options{Store: j})
	c := connect(t, s.addr, persistent)
	c.disconnect()
	eventually(t, "it is away", func() bool { return s.Clients() == 0 })
	done := make(chan struct{})
	go func() {
		s.expireSessions(time.Now().Add(time.Hour))
		close(done)
	}()
	<-j.held
	back := dial(t, s.addr)
	back.send(connectPacket(persistent))
	eventually(t, "it waits for its seat", func() bool { return s.seats.tickets.Load() == 2 })
	if n := s.Clients(); n != 0 {
		t.Errorf("%d clients are in", n)
	}
	close(j.open)
	<-done
	if body := back.expect(typeConnack << 4); body[0] != 0 || body[1] != 0 {
		t.Errorf("CONNACK % x, want a new session", body)
	}
	if n := len(j.keys("s/")); n != 1 {
		t.Errorf("%d sessions stored", n)
	}
}

// A Store that does not answer does not keep the front from stopping, nor a
// client waiting for ever.
func TestStoreDoesNotAnswer(t *testing.T) {
	j := newGated(true)
	h := newFake()
	s := begin(t, h, Options{Store: j, ConnectTimeout: time.Hour, drain: time.Millisecond})
	dial(t, s.addr).send2(connectPacket(persistent))
	<-j.held
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	j = newGated(true)
	s = start(t, h, Options{Store: j, ConnectTimeout: 50 * time.Millisecond})
	c := dial(t, s.addr)
	if code, _ := c.connect(persistent); code != ServerUnavailable {
		t.Errorf("CONNACK 0x%02x", code)
	}
	h.await(t, "Close of both", func() bool { return len(h.sessions) == 2 && h.sessions[0].closed == 1 && h.sessions[1].closed == 1 })
}

// Who has sent CONNECT does not have to go for those who say nothing; when all
// have, a newcomer has to.
func TestSpokenStrangersStay(t *testing.T) {
	h := newFake()
	release := make(chan struct{})
	h.connect = func(ctx context.Context, p *Peer) (Welcome, error) {
		select {
		case <-release:
		case <-ctx.Done():
		}
		return Welcome{}, nil
	}
	s := start(t, h, Options{MaxClients: 40})
	var all []*raw
	for i := range s.maxStrangers() {
		c := dial(t, s.addr)
		c.version = 5
		c.send(connectPacket(connectOptions{id: string(rune('A' + i))}))
		all = append(all, c)
	}
	eventually(t, "all have spoken", func() bool {
		s.strangers.mu.Lock()
		defer s.strangers.mu.Unlock()
		return s.strangers.n == len(all) && len(s.strangers.mute) == 0
	})
	dial(t, s.addr).expectEnd()
	close(release)
	for _, c := range all {
		c.expect(typeConnack << 4)
		c.ping()
	}
}

// lateStore keeps what it is given, and answers one Save, once armed, only when
// the test does.
type lateStore struct {
	*journal
	armed atomic.Bool
	late  chan func(error)
}

func (s *lateStore) Save(changes []Change, done func(error)) {
	if done != nil && s.armed.CompareAndSwap(true, false) {
		defer func(done func(error)) { s.late <- done }(done)
		done = nil
	}
	s.journal.Save(changes, done)
}

// A client that is taken over while its CONNECT is being stored leaves nothing of
// it behind: no will that was never in force, no other expiry of the session.
func TestTakenOverWhileStored(t *testing.T) {
	for name, first := range map[string]bool{"new session": false, "session that was there": true} {
		t.Run(name, func(t *testing.T) {
			j := &lateStore{journal: newJournal(), late: make(chan func(error), 1)}
			s := start(t, newFake(), Options{Store: j})
			if first {
				connect(t, s.addr, persistent).disconnect()
			}
			o := persistent
			o.props, o.willTopic, o.will = nil, "will", "never in force"
			j.armed.Store(true)
			old := dial(t, s.addr)
			old.send2(connectPacket(o))
			done := <-j.late
			was, c := present(t, s, persistent)
			if was != first {
				t.Errorf("session present: %v", was)
			}
			done(nil)
			old.Close()
			c.disconnect()
			if n := j.keys("w/"); len(n) != 0 {
				t.Errorf("wills stored: %q", n)
			}
			s, _ = stored(t, s.crash(j.journal, 0), Options{})
			if was, _ := present(t, s, persistent); !was {
				t.Error("the session is gone after a restart")
			}
		})
	}
}
