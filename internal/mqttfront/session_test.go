package mqttfront

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func (c *raw) disconnect(props ...byte) {
	c.t.Helper()
	b := []byte{typeDisconnect << 4, 0}
	if len(props) > 0 {
		b = packet(typeDisconnect<<4, []byte{0, byte(len(props))}, props)
	}
	c.send(b)
	c.expectEnd()
}

func expiryProp(seconds uint32) []byte {
	return []byte{propSessionExpiry, byte(seconds >> 24), byte(seconds >> 16), byte(seconds >> 8), byte(seconds)}
}

// present connects and tells whether the session was there. [MQTT-3.2.2-2,3]
func present(t *testing.T, s *server, o connectOptions) (bool, *raw) {
	t.Helper()
	c := dial(t, s.addr)
	code, body := c.connect(o)
	if code != 0 {
		t.Fatalf("CONNACK 0x%02x", code)
	}
	return body[0] == 1, c
}

func TestSessions(t *testing.T) {
	s := start(t, newFake(), Options{MaxSessionExpiry: time.Hour})
	for name, tc := range map[string]struct {
		first, second connectOptions
		leave         func(c *raw)
		want          bool
	}{
		"5, kept":                 {connectOptions{persist: true, props: expiryProp(60)}, connectOptions{persist: true}, func(c *raw) { c.disconnect() }, true},
		"5, clean start, kept":    {connectOptions{props: expiryProp(60)}, connectOptions{persist: true}, func(c *raw) { c.disconnect() }, true}, // [MQTT-3.1.2-5]
		"5, no expiry":            {connectOptions{persist: true}, connectOptions{persist: true}, func(c *raw) { c.disconnect() }, false},
		"5, dropped at the end":   {connectOptions{persist: true, props: expiryProp(60)}, connectOptions{persist: true}, func(c *raw) { c.disconnect(expiryProp(0)...) }, false},
		"5, raised at the end":    {connectOptions{persist: true, props: expiryProp(0xFFFFFFFE)}, connectOptions{persist: true}, func(c *raw) { c.disconnect(expiryProp(0xFFFFFFFF)...) }, true},
		"5, clean start":          {connectOptions{persist: true, props: expiryProp(60)}, connectOptions{}, func(c *raw) { c.disconnect() }, false}, // [MQTT-3.1.2-4]
		"5, taken over":           {connectOptions{persist: true, props: expiryProp(60)}, connectOptions{persist: true}, func(*raw) {}, true},
		"5, taken over, expiry 0": {connectOptions{persist: true}, connectOptions{persist: true}, func(*raw) {}, false},
		"4, kept":                 {connectOptions{version: 4, persist: true}, connectOptions{version: 4, persist: true}, func(c *raw) { c.disconnect() }, true}, // [MQTT-3.1.2-4] of 3.1.1
		"4, clean":                {connectOptions{version: 4}, connectOptions{version: 4, persist: true}, func(c *raw) { c.disconnect() }, false},
		"4, then clean":           {connectOptions{version: 4, persist: true}, connectOptions{version: 4}, func(c *raw) { c.disconnect() }, false},
		"4, then 5":               {connectOptions{version: 4, persist: true}, connectOptions{persist: true}, func(c *raw) { c.disconnect() }, true},
	} {
		t.Run(name, func(t *testing.T) {
			tc.first.id, tc.second.id = name, name
			was, c := present(t, s, tc.first)
			if was {
				t.Error("a session was there before the first connection")
			}
			tc.leave(c)
			if got, _ := present(t, s, tc.second); got != tc.want {
				t.Errorf("session present: %v, want %v", got, tc.want)
			}
		})
	}
}

// An expiry interval that was 0 stays so. [MQTT-3.14.2-2]
func TestDisconnectCannotKeepTheSession(t *testing.T) {
	s := start(t, newFake(), Options{})
	c := connect(t, s.addr, connectOptions{id: "a", persist: true})
	c.send(packet(typeDisconnect<<4, []byte{0, 5}, expiryProp(9)))
	c.expectDisconnect(ProtocolError)
}

// CONNACK says what expiry a client gets when it is not what it asked for.
func TestSessionExpiryIsBounded(t *testing.T) {
	s := start(t, newFake(), Options{MaxSessionExpiry: 300 * time.Second})
	for asked, told := range map[uint32]bool{300: false, 301: true, 0xFFFFFFFF: true, 0: false} {
		c := dial(t, s.addr)
		_, body := c.connect(connectOptions{id: "a", persist: true, props: expiryProp(asked)})
		if got := bytes.Contains(body, expiryProp(300)); got != told {
			t.Errorf("asked for %d: CONNACK % x", asked, body)
		}
	}
	if n := s.Stats().Limits["session_expiry"]; n != 2 {
		t.Errorf("counted %d", n)
	}
}

// Sessions end when their time has passed, and not before.
func TestSessionsExpire(t *testing.T) {
	j := newJournal()
	s, _ := stored(t, j, Options{})
	for i, seconds := range []uint32{5, 50} {
		o := connectOptions{id: fmt.Sprint(i), persist: true, props: expiryProp(seconds)}
		connect(t, s.addr, o).disconnect()
	}
	connect(t, s.addr, connectOptions{id: "here", persist: true, props: expiryProp(5)})
	eventually(t, "two are away", func() bool {
		return len(s.awaySessions(func(*session) bool { return true })) == 2
	})
	now := time.Now()
	s.expireSessions(now.Add(4 * time.Second))
	if n := s.Stats().Sessions; n != 3 {
		t.Fatalf("%d sessions before anything is due", n)
	}
	s.expireSessions(now.Add(6 * time.Second))
	if n := s.Stats().Sessions; n != 2 || len(j.keys("s/")) != 2 {
		t.Errorf("%d sessions, stored %q", n, j.keys("s/"))
	}
	s.expireSessions(now.Add(51 * time.Second))
	if n := s.Stats().Sessions; n != 1 || len(j.keys("s/")) != 1 {
		t.Errorf("%d sessions, stored %q", n, j.keys("s/"))
	}
}

// A client that comes when its session's time is over, but before anybody cleared
// it away, gets a new one. [MQTT-3.1.2-23]
func TestSessionOutlived(t *testing.T) {
	s, _ := stored(t, newJournal(), Options{})
	o := connectOptions{id: "late", persist: true, props: expiryProp(50)}
	for _, c := range []struct {
		away    time.Duration
		present byte
	}{{49 * time.Second, 1}, {50 * time.Second, 0}} {
		connect(t, s.addr, o).disconnect()
		away := func() []*session { return s.awaySessions(func(*session) bool { return true }) }
		eventually(t, "it is away", func() bool { return len(away()) == 1 })
		old := away()[0]
		old.mu.Lock()
		old.away = time.Now().Add(-c.away)
		old.mu.Unlock()
		k := dial(t, s.addr)
		if _, body := k.connect(o); body[0] != c.present {
			t.Errorf("away for %s of 50 s: session present %d, want %d", c.away, body[0], c.present)
		}
		k.disconnect()
	}
}

// The expiry that a DISCONNECT gives holds after a restart, too; a bound that is
// lower then cuts it.
func TestExpiryOfDisconnectIsStored(t *testing.T) {
	j := newJournal()
	s, _ := stored(t, j, Options{})
	connect(t, s.addr, persistent).disconnect(expiryProp(7)...)
	for _, c := range []struct{ bound, want time.Duration }{{time.Minute, 7 * time.Second}, {3 * time.Second, 3 * time.Second}} {
		j = s.crash(j, 0)
		s, _ = stored(t, j, Options{MaxSessionExpiry: c.bound})
		eventually(t, "the session is there", func() bool { return s.Stats().Sessions == 1 })
		s.awaySessions(func(s *session) bool {
			if s.expiry != c.want {
				t.Errorf("expires after %s, want %s", s.expiry, c.want)
			}
			return false
		})
	}
}

// What long client ids and wills take is bounded, and given back.
func TestHelloBytes(t *testing.T) {
	j := newJournal()
	s, _ := stored(t, j, Options{})
	long := persistent
	long.id, long.user = strings.Repeat("i", 10_000), strings.Repeat("u", 10_000)
	long.willTopic, long.will = "w", strings.Repeat("w", 10_000)
	connect(t, s.addr, long).disconnect()
	const kept = 2 * (10_000 - plainID)
	eventually(t, "id and user alone are counted", func() bool { return s.helloBytes.Load() == kept })
	j = s.crash(j, 0)
	s, _ = stored(t, j, Options{})
	eventually(t, "they are after a restart", func() bool { return s.helloBytes.Load() == kept })
	long.persist, long.props = false, nil
	connect(t, s.addr, long).disconnect()
	eventually(t, "nothing is", func() bool { return s.helloBytes.Load() == 0 })
}

// A session that is to be kept is on flash before CONNACK says so; when it
// cannot be, the client is told.
func TestSessionIsStoredBeforeConnack(t *testing.T) {
	j := newJournal()
	s, h := stored(t, j, Options{})
	j.setFail(errDisk)
	c := dial(t, s.addr)
	if code, _ := c.connect(persistent); code != ServerUnavailable {
		t.Errorf("CONNACK 0x%02x", code)
	}
	c.expectEnd()
	session := h.session(t, 0)
	h.await(t, "Close", func() bool { return session.closed == 1 })
	connect(t, s.addr, connectOptions{id: "clean"}) // wants nothing of the disk
	j.setFail(nil)
	connect(t, s.addr, persistent)
	if n := len(j.keys("s/")); n != 1 {
		t.Errorf("%d sessions stored", n)
	}
}

// After a restart the sessions are there, and their time begins anew; those that
// were to end with their connection are not.
func TestSessionsOutliveARestart(t *testing.T) {
	j := newJournal()
	s, _ := stored(t, j, Options{})
	for _, version := range []byte{4, 5} {
		o := persistentOf(version)
		o.id = fmt.Sprint(version)
		c := connect(t, s.addr, o)
		c.send(c.qos2(1, o.id, 0))
		c.expectAnswer(typePubrec, 1, 0)
	}
	o := persistent
	o.id = "last time"
	connect(t, s.addr, o).disconnect()
	o.props = nil
	if was, _ := present(t, s, o); !was {
		t.Error("not present")
	}
	connect(t, s.addr, connectOptions{id: "clean"})
	j = s.crash(j, 0)
	s, _ = stored(t, j, Options{})
	eventually(t, "sessions", func() bool { return s.Stats().Sessions == 2 && s.Stats().Unreleased == 2 })
	for _, version := range []byte{4, 5} {
		o := persistentOf(version)
		o.id = fmt.Sprint(version)
		was, c := present(t, s, o)
		if !was {
			t.Errorf("version %d: not present", version)
		}
		c.send(c.qos2(1, o.id, flagDup))
		c.expectAnswer(typePubrec, 1, 0)
	}
	if got := j.messages(); len(got) != 2 {
		t.Errorf("taken %q", got)
	}
	eventually(t, "what is not needed is removed", func() bool { return len(j.keys("s/")) == 2 })
	if n := s.Stats().LoadDropped; n != 1 {
		t.Errorf("dropped %d keys", n)
	}
}

// Rubbish in the Store never stops a start, and is removed.
func TestStoreRubbish(t *testing.T) {
	const key = "0123456789abcdef"
	j := newJournal()
	good := (&session{id: "good", key: key}).storedAs(time.Minute)
	w := &will{key: "w/" + key, pub: Publish{Topic: "w", Payload: []byte("x")}}
	for _, c := range []Change{
		good, {Key: "q/" + key + "/0007", Value: []byte{storeVersion}},
		{Key: "", Value: []byte("x")}, {Key: "s", Value: nil}, {Key: "x/y", Value: []byte("z")},
		{Key: "s/short", Value: good.Value}, {Key: "s/0123456789ABCDEF", Value: good.Value}, {Key: "s/ffffffffffffffff", Value: []byte{1, 2}},
		{Key: "s/fffffffffffffff0", Value: good.Value}, // the same client again
		{Key: "s/fffffffffffffff1", Value: append([]byte{9}, good.Value[1:]...)}, {Key: "s/fffffffffffffff2", Value: []byte{1, 0, 0, 0, 9, 0xff}},
		{Key: "q/" + key, Value: []byte{1}}, {Key: "q/" + key + "/0000", Value: []byte{1}}, {Key: "q/" + key + "/xyz1", Value: []byte{1}},
		{Key: "q/" + key + "/0001", Value: []byte{}}, {Key: "q/" + key + "/0002", Value: []byte{1, 0x30}}, {Key: "q/ffffffffffffffff/0001", Value: []byte{1}},
		{Key: "f/" + key + "/a+", Value: []byte{1}}, {Key: "f/" + key + "/a", Value: nil}, {Key: "f/none", Value: []byte{1}},
		{Key: "m/" + key + "/1", Value: []byte{1}}, {Key: "m/" + key + "/0000000000000001", Value: []byte{1, 2, 3}},
		{Key: "r/a", Value: []byte{1}}, {Key: "r/", Value: nil}, {Key: "r/a/#", Value: []byte{1, 0x31, 0}},
		{Key: "w/" + key[1:] + "0", Value: []byte{1}}, {Key: "w/x", Value: w.storedAs("id").Value}, {Key: "w/" + key, Value: w.storedAs("").Value},
	} {
		j.durable[c.Key] = c.Value
		if c.Value == nil {
			j.durable[c.Key] = []byte{}
		}
	}
	all := len(j.durable)
	s, _ := stored(t, j, Options{FanOut: true})
	o := persistent
	o.id = "good"
	if was, c := present(t, s, o); !was {
		t.Error("the good session is not there")
	} else {
		c.send(c.qos2(7, "x", flagDup))
		c.expectAnswer(typePubrec, 7, 0)
	}
	if len(j.messages()) != 0 {
		t.Error("the good identifier is not there")
	}
	eventually(t, "the rest is removed", func() bool { return len(j.keys("")) == 2 })
	if n := s.Stats().LoadDropped; n != int64(all-2) {
		t.Errorf("dropped %d keys of %d, 2 are good", n, all)
	}
}

// A Store that cannot be read is for an operator to look at.
func TestStoreFails(t *testing.T) {
	s := begin(t, newFake(), Options{Store: brokenStore{newJournal()}})
	if err := s.stop(); err == nil || !strings.Contains(err.Error(), "disk is gone") {
		t.Errorf("Run: %v", err)
	}
}

type brokenStore struct{ *journal }

func (brokenStore) Load(func(string, []byte) bool) error { return errDisk }

// The successor gets the session when the reader of the connection before has
// stopped: no message is taken by both, nor lost between them.
func TestTakeOverRaces(t *testing.T) {
	j := newJournal()
	s, h := stored(t, j, Options{FanOut: true})
	const n, each = 8, 30
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			for k := range each {
				c := dial(t, s.addr)
				c.version = 5
				b := connectPacket(persistent)
				for id := 1; id <= 5; id++ {
					b = append(b, c.qos2(id, fmt.Sprint(i, k, id), 0)...)
					b = append(b, pubrelPacket(id)...)
				}
				c.send2(append(b, c.publishPacket("t", 9, 0, "q1")...))
				if k%3 == 0 {
					_, _, _ = c.next()
				}
				if k%2 == 0 {
					c.Close()
				}
			}
		})
	}
	wg.Wait()
	eventually(t, "all have come", func() bool { st := s.Stats(); return st.Accepted == n*each && st.Strangers == 0 })
	c := connect(t, s.addr, connectOptions{id: "dev"})
	c.ping()
	c.disconnect()
	eventually(t, "all have left", func() bool {
		st := s.Stats()
		return st.Clients == 0 && st.Sessions == 0 && st.InflightBytes == 0 && st.Unreleased == 0
	})
	eventually(t, "nothing is stored", func() bool { return len(j.keys("")) == 0 })
	h.await(t, "Close of all", func() bool {
		return !slices.ContainsFunc(h.sessions, func(s *fakeSession) bool { return s.closed != 1 })
	})
}

// A connection that does not end does not keep its successor waiting for ever.
func TestTakeOverIsBounded(t *testing.T) {
	h := newFake()
	blocked, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	h.publish = func(_ *fakeSession, _ *Publish, settle Settle) {
		once.Do(func() { close(blocked) })
		<-release // breaks the contract
		settle(Result{})
	}
	s := start(t, h, Options{ConnectTimeout: 50 * time.Millisecond})
	old := connect(t, s.addr, connectOptions{id: "a"})
	old.publish("t", 1, "x")
	<-blocked
	c := dial(t, s.addr)
	if code, _ := c.connect(connectOptions{id: "a"}); code != ServerBusy {
		t.Errorf("CONNACK 0x%02x", code)
	}
	close(release)
	eventually(t, "the old one is gone", func() bool { return s.Clients() == 0 })
	connect(t, s.addr, connectOptions{id: "a"})
}

// Of two connections that come together the later one stays.
func TestLaterConnectionWins(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{})
	young := connect(t, s.addr, connectOptions{id: "a"})
	old := newConn(s.Front, young.Conn)
	old.id = "a" // its ticket is lower than any other
	if err := old.claim(); err != errTakenOver {
		t.Errorf("an older connection: %v", err)
	}
	young.ping()
}

// tasks.stop waits for what was started, and nothing starts after it.
func TestTasksStop(t *testing.T) {
	var tasks tasks
	release, done := make(chan struct{}), make(chan struct{})
	ran := false
	tasks.start(func() { <-release; ran = true })
	stopped := make(chan struct{})
	go func() { tasks.stop(); close(stopped) }()
	eventually(t, "stop has begun", func() bool {
		tasks.mu.Lock()
		defer tasks.mu.Unlock()
		return tasks.stopped
	})
	tasks.start(func() { close(done) })
	select {
	case <-stopped:
		t.Fatal("stop did not wait")
	default:
	}
	close(release)
	<-stopped
	if !ran {
		t.Error("the task did not end before stop")
	}
	select {
	case <-done:
		t.Error("a task was started after stop")
	default:
	}
}

// The Store is asked before anybody is let in.
func TestLoadBeforeAccept(t *testing.T) {
	j := newJournal()
	release := make(chan struct{})
	f := begin(t, newFake(), Options{Store: slowStore{j, release}})
	c := dial(t, f.addr)
	c.send2(connectPacket(connectOptions{id: "a"}))
	if n := f.Stats().Accepted; n != 0 {
		t.Errorf("%d connections accepted", n)
	}
	close(release)
	c.expect(typeConnack << 4)
	if err := f.stop(); err != nil {
		t.Error(err)
	}
}

type slowStore struct {
	*journal
	release chan struct{}
}

func (s slowStore) Load(yield func(string, []byte) bool) error {
	<-s.release
	return s.journal.Load(yield)
}
