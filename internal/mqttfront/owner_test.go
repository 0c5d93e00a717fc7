package mqttfront

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// keptBy asks for a session that outlives its connection.
func keptBy(id, user string) connectOptions {
	return connectOptions{id: id, user: user, persist: true, props: expiryProp(60)}
}

// A session is its user's: nobody else gets it, ends it, or takes its connection
// over, whether its client is here or away, and whatever CONNECT asks for.
func TestSessionsBelongToUsers(t *testing.T) {
	for _, users := range [][2]string{{"owner", "other"}, {"owner", ""}, {"", "other"}} {
		owner, other := users[0], users[1]
		for _, where := range []string{"here", "here, clean", "away", "away, after a restart"} {
			t.Run(fmt.Sprintf("%q %q %s", owner, other, where), func(t *testing.T) {
				j := newJournal()
				s, _ := stored(t, j, Options{FanOut: true})
				o := keptBy("id", owner)
				if where == "here, clean" {
					o.persist, o.props = false, nil
				}
				c := connect(t, s.addr, o)
				if strings.HasPrefix(where, "away") {
					c.disconnect()
					eventually(t, "it is away", func() bool { return s.Clients() == 0 })
				}
				if where == "away, after a restart" {
					j = s.crash(j, 0)
					s, _ = stored(t, j, Options{FanOut: true})
				}
				for _, theirs := range []connectOptions{keptBy("id", other), {id: "id", user: other}} {
					if code, _ := dial(t, s.addr).connect(theirs); code != NotAuthorized {
						t.Errorf("another user: CONNACK 0x%02x", code)
					}
					theirs.version = 4
					if code, _ := dial(t, s.addr).connect(theirs); code != 5 {
						t.Errorf("another user, 3.1.1: CONNACK 0x%02x", code)
					}
				}
				if st := s.Stats(); st.ProtocolErrors["foreign_session"] != 4 || st.Refusals[NotAuthorized] != 4 || st.TakeOvers != 0 {
					t.Errorf("%+v", st)
				}
				if strings.HasPrefix(where, "here") {
					c.ping()
					return
				}
				if was, _ := present(t, s, keptBy("id", owner)); !was {
					t.Error("the owner's session is gone")
				}
			})
		}
	}
}

// A session that a version stored which did not keep users is the first one's who
// comes, and his from then on.
func TestSessionWithoutUserIsAdopted(t *testing.T) {
	const key = "0123456789abcdef"
	j := newJournal()
	j.durable["s/"+key] = append([]byte{storeVersion, 0, 0, 0, 60}, "id"...)
	s, _ := stored(t, j, Options{})
	was, c := present(t, s, keptBy("id", "first"))
	if !was {
		t.Fatal("the session is not there")
	}
	c.disconnect()
	eventually(t, "it is away", func() bool { return s.Clients() == 0 })
	j = s.crash(j, 0)
	s, _ = stored(t, j, Options{})
	if code, _ := dial(t, s.addr).connect(keptBy("id", "second")); code != NotAuthorized {
		t.Errorf("another user: CONNACK 0x%02x", code)
	}
	if was, _ := present(t, s, keptBy("id", "first")); !was {
		t.Error("the session is gone")
	}
}

// knowing is a fakeHandler that knows its users.
type knowing struct {
	*fakeHandler
	mu    sync.Mutex
	users []string
}

func (k *knowing) UserExists(user string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Contains(k.users, user)
}

// What a user left who is not there any more keeps nobody from a client id: the
// session ends, and the next user begins a new one.
func TestSessionOfAUserWhoIsGone(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{FanOut: true})
	k := &knowing{fakeHandler: h, users: []string{"old", "new"}}
	s.handler = k
	connect(t, s.addr, keptBy("id", "old")).disconnect()
	eventually(t, "it is away", func() bool { return s.Clients() == 0 })
	if code, _ := dial(t, s.addr).connect(keptBy("id", "new")); code != NotAuthorized {
		t.Fatalf("while the user exists: CONNACK 0x%02x", code)
	}
	k.mu.Lock()
	k.users = []string{"new"}
	k.mu.Unlock()
	if was, _ := present(t, s, keptBy("id", "new")); was {
		t.Error("the new user got the old one's session")
	}
	if n := s.Stats().Sessions; n != 1 {
		t.Errorf("%d sessions", n)
	}
}

// A will acts in the name that the Handler found proven, also after a restart,
// and a client of another user does not make it undone.
func TestWillHasTheProvenUser(t *testing.T) {
	j := newJournal()
	s, h := stored(t, j, Options{})
	h.connect = func(_ context.Context, p *Peer) (Welcome, error) {
		p.Username = strings.TrimPrefix(p.Username, "claimed-")
		return Welcome{}, nil
	}
	connect(t, s.addr, connectOptions{id: "a", user: "claimed-", willTopic: "will", will: "a"})
	connect(t, s.addr, connectOptions{id: "b", user: "claimed-gps", willTopic: "will", will: "b"})
	j = s.crash(j, 0)
	s, h = stored(t, j, Options{})
	connect(t, s.addr, connectOptions{id: "b", user: "other"})
	s.wills.tick(time.Now().Add(comeBack + time.Second))
	if want := []string{"b/gps: will=b", "a/: will=a"}; !slices.Equal(h.orphans, want) {
		t.Errorf("wills %q, want %q", h.orphans, want)
	}
}

// Sessions left behind keep nobody out. When there are too many, the user who has
// the most that are away loses the one away for the longest; who has no more than
// another loses his own.
func TestMaxSessions(t *testing.T) {
	j := newJournal()
	s, _ := stored(t, j, Options{MaxSessions: 6, FanOut: true})
	leave := func(id, user string) {
		t.Helper()
		c := connect(t, s.addr, keptBy(id, user))
		c.subscribe(1, "x", 0)
		c.send(c.qos2(1, "x", 0))
		c.expectAnswer(typePubrec, 1, 0)
		clients := s.Clients()
		c.disconnect()
		eventually(t, "it is away", func() bool { return s.Clients() == clients-1 })
	}
	sessions := func() string {
		s.seats.mu.Lock()
		defer s.seats.mu.Unlock()
		var ids []string
		for id, at := range s.seats.m {
			if at.session != nil {
				ids = append(ids, id)
			}
		}
		slices.Sort(ids)
		return strings.Join(ids, " ")
	}
	leave("honest", "sensor")
	connect(t, s.addr, keptBy("here", "sensor"))
	for i := range 10 {
		leave(fmt.Sprint("hoard", i), "guest")
	}
	if got, want := sessions(), "here hoard6 hoard7 hoard8 hoard9 honest"; got != want {
		t.Errorf("after the hoard: %s, want %s", got, want)
	}
	leave("new", "third")
	leave("new2", "sensor")
	if got, want := sessions(), "here hoard8 hoard9 honest new new2"; got != want {
		t.Errorf("after newcomers: %s, want %s", got, want)
	}
	leave("hoardA", "guest") // has as many as the sensors
	if got, want := sessions(), "here hoard9 hoardA honest new new2"; got != want {
		t.Errorf("after one more: %s, want %s", got, want)
	}
	if n := s.Stats().Limits["sessions"]; n != 9 {
		t.Errorf("counted %d", n)
	}
	eventually(t, "those that ended are not stored", func() bool { return len(j.keys("s/")) == 6 })
}

// When all clients are here, one more that wants its session kept is told, and
// one that wants none is let in.
func TestMaxSessionsAllHere(t *testing.T) {
	s := start(t, newFake(), Options{MaxSessions: 1})
	connect(t, s.addr, keptBy("a", "x"))
	if code, _ := dial(t, s.addr).connect(keptBy("b", "y")); code != QuotaExceeded {
		t.Errorf("CONNACK 0x%02x", code)
	}
	connect(t, s.addr, connectOptions{id: "c"}).ping()
}
