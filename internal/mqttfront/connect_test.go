package mqttfront

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/packetboat/packetboat/pkg/stream"
)

// welcoming answers with a fixed Welcome.
type welcoming struct {
	h *fakeHandler
	w Welcome
}

func (h welcoming) Connect(ctx context.Context, p *Peer) (Session, Welcome, error) {
	s, _, err := h.h.Connect(ctx, p)
	return s, h.w, err
}

func TestConnack(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{MaxInflightMessages: 99, MaxPacketSize: 70000})
	s.handler = welcoming{h, Welcome{ReceiveMaximum: 17, User: []stream.Property{{Key: "pb-log", Value: "x"}}}}
	c := dial(t, s.addr)
	code, body := c.connect(connectOptions{keepAlive: 60})
	if code != Success {
		t.Fatalf("code 0x%02x", code)
	}
	for what, want := range map[string][]byte{
		"Receive Maximum":     {0x21, 0, 17},
		"Maximum Packet Size": {0x27, 0, 1, 0x11, 0x70},
		"Topic Alias Maximum": {0x22, 0, maxAliases},
		"user property":       userProp("pb-log", "x"),
		"assigned client id":  append([]byte{0x12}, str(h.session(t, 0).peer.ClientID)...),
	} {
		if bytes.Count(body, want) != 1 {
			t.Errorf("%s: % x does not stand once in % x", what, want, body)
		}
	}
	if p := h.session(t, 0).peer; p.ClientID == "" || p.Version != 5 || p.KeepAlive != 60 || !p.CleanStart || p.TLS != nil || p.Remote.String() != c.LocalAddr().String() {
		t.Errorf("peer %+v", p)
	}
}

func TestPeer(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{MinVersion: 3, FanOut: true})
	for _, version := range []byte{3, 4, 5} {
		o := connectOptions{id: "truck", version: version, user: "u", password: "p\x00w", persist: true, willTopic: "w", will: "gone", willFlags: 1<<3 | 1<<5}
		if version == 5 {
			o.props = userProp("k", "v")
		}
		connect(t, s.addr, o)
		p := h.session(t, int(version)-3).peer
		if p.Version != version || p.Username != "u" || string(p.Password) != "p\x00w" || p.CleanStart || p.ClientID != "truck" {
			t.Errorf("peer %+v", p)
		}
		if p.Will == nil || p.Will.Topic != "w" || string(p.Will.Payload) != "gone" || p.Will.QoS != 1 || !p.Will.Retain || !p.Will.Will {
			t.Errorf("will %+v", p.Will)
		}
		if version == 5 && (len(p.User) != 1 || p.User[0] != stream.Property{Key: "k", Value: "v"}) {
			t.Errorf("user properties %v", p.User)
		}
	}
}

// A refusal is one CONNACK in the client's own words, and then the end.
func TestRefusal(t *testing.T) {
	h := newFake()
	refusal := &Refusal{Code: UseAnotherServer, Reason: "moved", ServerReference: "hub2:1884", User: []stream.Property{{Key: "pb-retry-after", Value: "5"}}}
	err := error(refusal)
	h.connect = func(context.Context, *Peer) (Welcome, error) { return Welcome{}, err }
	s := start(t, h, Options{})
	c := dial(t, s.addr)
	// A client that does not wait for the answer must not lose it to a reset.
	c.version = 5
	c.send(append(connectPacket(connectOptions{id: "a"}), c.publishPacket("t", 1, 0, strings.Repeat("x", 20000))...))
	body := c.expect(0x20)
	for what, want := range map[string][]byte{
		"code": {0, UseAnotherServer}, "reason": append([]byte{0x1F}, str("moved")...),
		"server reference": append([]byte{0x1C}, str("hub2:1884")...), "user property": userProp("pb-retry-after", "5"),
	} {
		if !bytes.Contains(body, want) {
			t.Errorf("%s: no % x in % x", what, want, body)
		}
	}
	c.expectEnd()
	for code, old := range map[byte]byte{
		UseAnotherServer: 3, ServerBusy: 3, QuotaExceeded: 3, BadUsernameOrPassword: 4, NotAuthorized: 5, ClientIDNotValid: 2, UnsupportedProtocolVersion: 1,
	} {
		refusal = &Refusal{Code: code}
		err = refusal
		c := dial(t, s.addr)
		if got, _ := c.connect(connectOptions{id: "a", version: 4}); got != old {
			t.Errorf("code 0x%02x became %d, want %d", code, got, old)
		}
		c.expectEnd()
	}
	err = errors.New("database password is hunter2")
	c = dial(t, s.addr)
	if got, body := c.connect(connectOptions{id: "a"}); got != ServerUnavailable || bytes.Contains(body, []byte("hunter2")) {
		t.Errorf("code 0x%02x, % x", got, body)
	}
	c.expectEnd()
	if st := s.Stats(); st.Refusals[UseAnotherServer] != 2 || st.Connects != 0 || st.Clients != 0 {
		t.Errorf("%+v", st)
	}
}

func TestVersions(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{MinVersion: 5})
	for version, want := range map[byte]byte{3: 1, 4: 1, 5: 0, 6: 1} {
		c := dial(t, s.addr)
		if code, _ := c.connect(connectOptions{id: "a", version: version}); code != want {
			t.Errorf("version %d: CONNACK 0x%02x, want 0x%02x", version, code, want)
		}
		if want != 0 {
			c.expectEnd()
		}
	}
	// [MQTT-3.1.3-8] of 3.1.1: no id and a session to keep.
	s = start(t, h, Options{})
	c := dial(t, s.addr)
	if code, _ := c.connect(connectOptions{version: 4, persist: true}); code != 2 {
		t.Errorf("no client id, no clean session: CONNACK 0x%02x, want 2", code)
	}
}

// Nobody can hold a connection without saying who he is.
func TestBeforeConnect(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{ConnectTimeout: 100 * time.Millisecond})
	for name, send := range map[string][]byte{
		"silence":         nil,
		"half a CONNECT":  connectPacket(connectOptions{id: "a"})[:5],
		"not CONNECT":     {0xC0, 0},
		"a huge CONNECT":  {0x10, 0xff, 0xff, 0xff, 0x7f, 0},
		"no length":       {0x10, 0xff, 0xff, 0xff, 0xff, 0xff},
		"another program": []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, s.addr)
			c.send(send)
			c.expectEnd()
		})
	}
	eventually(t, "all are gone", func() bool { st := s.Stats(); return st.Connections == 0 && st.ConnectsFailed == 6 })
}

// Handler.Connect is bounded.
func TestConnectTimeout(t *testing.T) {
	h := newFake()
	h.connect = func(ctx context.Context, _ *Peer) (Welcome, error) {
		<-ctx.Done()
		return Welcome{}, &Refusal{Code: ServerBusy}
	}
	s := start(t, h, Options{ConnectTimeout: time.Second})
	c := dial(t, s.addr)
	if code, _ := c.connect(connectOptions{id: "a"}); code != ServerBusy {
		t.Errorf("code 0x%02x", code)
	}
}

// What is not served is refused in words, not left to a time-out.
func TestUnsupportedConnect(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{FanOut: true})
	for name, tc := range map[string]struct {
		o    connectOptions
		want byte
	}{
		"enhanced authentication": {connectOptions{props: append([]byte{0x15}, str("SCRAM-SHA-256")...)}, BadAuthenticationMethod},
	} {
		o := tc.o
		o.id = "a"
		c := dial(t, s.addr)
		if code, _ := c.connect(o); code != tc.want {
			t.Errorf("%s: CONNACK 0x%02x, want 0x%02x", name, code, tc.want)
		}
		c.expectEnd()
	}
	c := connect(t, s.addr, connectOptions{id: "a"})
	c.send(packet(typeAuth<<4, []byte{0x18, 0}))
	c.expectDisconnect(ProtocolError)
}

// CONNECT has a limit of its own: what a device holds may be longer than any
// message.
func TestLongConnect(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{MaxPacketSize: 1000})
	c := dial(t, s.addr)
	if code, _ := c.connect(connectOptions{id: "a", props: bytes.Repeat(userProp("pb-held", strings.Repeat("x", 1000)), 100)}); code != 0 {
		t.Fatalf("CONNACK 0x%02x", code)
	}
	if n := len(h.session(t, 0).peer.User); n != 100 {
		t.Errorf("%d user properties", n)
	}
	c.ping()
}

func TestMaxClients(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{MaxClients: 2})
	connect(t, s.addr, connectOptions{id: "a"})
	connect(t, s.addr, connectOptions{id: "b"})
	eventually(t, "both are in", func() bool { return s.Clients() == 2 })
	c := dial(t, s.addr)
	if code, _ := c.connect(connectOptions{id: "c"}); code != ServerBusy {
		t.Errorf("v5: 0x%02x", code)
	}
	c = dial(t, s.addr)
	if code, _ := c.connect(connectOptions{id: "c", version: 4}); code != 3 {
		t.Errorf("v3.1.1: 0x%02x", code)
	}
}

// Connections that say nothing are bounded apart from clients: the oldest has to
// go, and who speaks comes in.
func TestSilentStrangers(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{MaxClients: 2})
	connect(t, s.addr, connectOptions{id: "a"})
	first := dial(t, s.addr)
	eventually(t, "it is there", func() bool { return s.Stats().Strangers == 1 })
	for range 100 {
		dial(t, s.addr).send2(connectPacket(connectOptions{id: "never"})[:9])
	}
	first.expectEnd()
	eventually(t, "all are there", func() bool { return s.Stats().Accepted == 102 })
	eventually(t, "the others had to go", func() bool { st := s.Stats(); return st.Strangers <= 16 && st.Connections <= 17 })
	connect(t, s.addr, connectOptions{id: "b"}).ping()
	if n := s.Stats().Limits["strangers"]; n < 101-16 {
		t.Errorf("counted %d", n)
	}
}

func TestDisconnect(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{})
	for _, version := range []byte{4, 5} {
		c := connect(t, s.addr, connectOptions{id: "a", version: version})
		session := h.session(t, int(version)-4)
		c.ping()
		session.peer.Disconnect(UseAnotherServer, "shard moved")
		session.peer.Disconnect(ServerBusy, "again")
		if version == 5 {
			c.expectDisconnect(UseAnotherServer)
		} else {
			c.expectEnd()
		}
		h.await(t, "Close", func() bool { return session.closed == 1 })
		if !strings.Contains(session.reason.Error(), "shard moved") {
			t.Errorf("closed because of %v", session.reason)
		}
	}
}

// The second connection of a client ends the first, and does not wait for what
// the first has in flight.
func TestTakeOver(t *testing.T) {
	h := newFake()
	h.publish = h.hold
	s := start(t, h, Options{MaxInflightMessages: 2})
	for _, version := range []byte{4, 5} {
		n := 2 * (int(version) - 4)
		id := string('a' + rune(version))
		old := connect(t, s.addr, connectOptions{id: id, version: version})
		for i := range 3 - int(version-4) { // the old reader stalls (3.1.1)
			old.publish("t", i+1, "x")
		}
		first := h.session(t, n)
		h.await(t, "messages", func() bool { return len(first.settle) == 2 })
		c := connect(t, s.addr, connectOptions{id: id, version: version})
		c.publish("t", 1, "y")
		second := h.session(t, n+1)
		h.await(t, "the new session's message", func() bool { return len(second.settle) == 1 })
		second.settle[0](Result{})
		c.expectAck(1, 0)
		if version == 5 {
			old.expectDisconnect(SessionTakenOver)
		} else {
			old.expectEnd()
		}
		h.await(t, "Close of the first", func() bool { return first.closed == 1 })
		if !errors.Is(first.reason, errTakenOver) || second.closed != 0 {
			t.Errorf("closed because of %v; second closed %d times", first.reason, second.closed)
		}
		first.settle[0](Result{})
		first.settle[1](Result{})
		c.ping()
	}
	if st := s.Stats(); st.TakeOvers != 2 || st.Clients != 2 {
		t.Errorf("%+v", st)
	}
}

// However many connect at the same time under one name: one stays, the table
// knows it, and every session is closed once.
func TestTakeOverStorm(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{FanOut: true})
	const n = 40
	var wg sync.WaitGroup
	var mu sync.Mutex
	var live []*raw
	for range n {
		wg.Go(func() {
			c := dial(t, s.addr)
			if _, err := c.Write(connectPacket(connectOptions{id: "same"})); err != nil {
				return
			}
			c.version = 5
			first, _, err := c.next()
			if err != nil || first != 0x20 {
				return // taken over before its CONNACK
			}
			mu.Lock()
			live = append(live, c)
			mu.Unlock()
		})
	}
	wg.Wait()
	closed := func() (n int) {
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, s := range h.sessions {
			n += s.closed
		}
		return n
	}
	eventually(t, "all but one are closed", func() bool { return closed() == n-1 && s.Clients() == 1 })
	answered := 0
	for _, c := range live {
		c.send2(packet(typeSubscribe<<4|2, u16(7), []byte{0}, str("t"), []byte{0}))
		for {
			first, _, err := c.next()
			if err != nil {
				break
			}
			if first == 0x90 {
				answered++
				c.publish("t", 0, "to myself")
				c.expect(0x30) // the table knows this one, not another
				break
			}
		}
	}
	if answered != 1 {
		t.Errorf("%d connections live", answered)
	}
}

// send2 sends what may fail.
func (c *raw) send2(b []byte) { _, _ = c.Write(b) }

func TestTLS(t *testing.T) {
	cert := selfSigned(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := newFake()
	s := start(t, h, Options{ConnectTimeout: 2 * time.Second, Listeners: []net.Listener{tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}})}})
	c := dial(t, s.addr)
	silent := dial(t, s.addr) // a handshake that never comes
	c.Conn = tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true})
	c.br.Reset(c.Conn)
	if code, _ := c.connect(connectOptions{id: "a"}); code != 0 {
		t.Fatalf("code 0x%02x", code)
	}
	if p := h.session(t, 0).peer; p.TLS == nil || !p.TLS.HandshakeComplete {
		t.Errorf("TLS state %+v", p.TLS)
	}
	c.publish("t", 1, "x")
	c.expectAck(1, 0)
	silent.expectEnd()
	h.session(t, 0).peer.Disconnect(ServerBusy, "")
	c.expectDisconnect(ServerBusy)
}

// willless takes wills away.
type willless struct{ h *fakeHandler }

func (h willless) Connect(ctx context.Context, p *Peer) (Session, Welcome, error) {
	p.Will = nil
	return h.h.Connect(ctx, p)
}
