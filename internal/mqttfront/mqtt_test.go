package mqttfront

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/packetboat/packetboat/pkg/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen.
const patience = 10 * time.Second

// fakeHandler lets everybody in and records what it gets.
type fakeHandler struct {
	connect func(ctx context.Context, p *Peer) (Welcome, error)
	publish func(s *fakeSession, p *Publish, settle Settle)
	allow   func(filter string) bool

	mu       sync.Mutex
	cond     *sync.Cond
	sessions []*fakeSession
	orphans  []string // wills from before the start; guarded by mu
}

type fakeSession struct {
	h      *fakeHandler
	peer   *Peer
	got    []Publish // guarded by h.mu
	settle []Settle  // guarded by h.mu: those not yet called
	closed int       // guarded by h.mu
	reason error     // guarded by h.mu
}

func newFake() *fakeHandler {
	h := &fakeHandler{}
	h.cond = sync.NewCond(&h.mu)
	h.publish = func(_ *fakeSession, _ *Publish, settle Settle) { settle(Result{}) }
	return h
}

// hold keeps settles for the test to call.
func (h *fakeHandler) hold(s *fakeSession, _ *Publish, settle Settle) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.settle = append(s.settle, settle)
	h.cond.Broadcast()
}

func (h *fakeHandler) Connect(ctx context.Context, p *Peer) (Session, Welcome, error) {
	var w Welcome
	if h.connect != nil {
		var err error
		if w, err = h.connect(ctx, p); err != nil {
			return nil, w, err
		}
	}
	s := &fakeSession{h: h, peer: p}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sessions = append(h.sessions, s)
	h.cond.Broadcast()
	return s, w, nil
}

func (s *fakeSession) Publish(p *Publish, settle Settle) {
	s.h.mu.Lock()
	if s.closed > 0 {
		panic("Publish after Close")
	}
	s.got = append(s.got, Publish{Expiry: p.Expiry, Topic: p.Topic, Payload: append([]byte(nil), p.Payload...), QoS: p.QoS, Retain: p.Retain, Dup: p.Dup, Will: p.Will, Properties: p.Properties})
	s.h.cond.Broadcast()
	s.h.mu.Unlock()
	s.h.publish(s, p, settle)
}

func (s *fakeSession) Subscribe(filter string) bool { return s.h.allow == nil || s.h.allow(filter) }
func (s *fakeSession) Deliver(string) bool          { return true }

func (s *fakeSession) Close(reason error) {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	s.closed++
	s.reason = reason
	s.h.cond.Broadcast()
}

// await waits until ok holds; it is called with the handler locked.
func (h *fakeHandler) await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	late := false
	timer := time.AfterFunc(patience, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		late = true
		h.cond.Broadcast()
	})
	defer timer.Stop()
	h.mu.Lock()
	defer h.mu.Unlock()
	for !ok() {
		if late {
			t.Fatalf("still waiting: %s", what)
		}
		h.cond.Wait()
	}
}

// session waits for the n-th session, from 0.
func (h *fakeHandler) session(t testing.TB, n int) *fakeSession {
	t.Helper()
	h.await(t, "a session", func() bool { return len(h.sessions) > n })
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.sessions[n]
}

func (s *fakeSession) messages(t testing.TB, n int) []Publish {
	t.Helper()
	s.h.await(t, "messages", func() bool { return len(s.got) >= n })
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	return append([]Publish(nil), s.got...)
}

// eventually polls a condition that nothing announces.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("still waiting: %s", what)
		}
		<-tick.C
	}
}

type server struct {
	*Front
	addr string
	h    *fakeHandler
	stop func() error
}

// start runs a front on a port of its own until the test ends.
func start(t testing.TB, h *fakeHandler, o Options) *server {
	t.Helper()
	s := begin(t, h, o)
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// begin runs a front that the caller stops.
func begin(t testing.TB, h *fakeHandler, o Options) *server {
	t.Helper()
	if len(o.Listeners) == 0 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		o.Listeners = []net.Listener{l}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(logWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
		if _, plain := t.(*testing.T); !plain {
			o.Logger = nil
		}
	}
	f := New(h, o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	var once sync.Once
	s := &server{Front: f, addr: o.Listeners[0].Addr().String(), h: h}
	var result error
	s.stop = func() error {
		once.Do(func() {
			cancel()
			select {
			case result = <-done:
			case <-time.After(patience):
				result = errors.New("Run does not end")
			}
		})
		return result
	}
	return s
}

type logWriter struct{ t testing.TB }

func (w logWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", b[:len(b)-1])
	return len(b), nil
}

// raw is a client that sends and receives bytes.
type raw struct {
	net.Conn
	t       testing.TB
	br      *bufio.Reader
	version byte
}

func dial(t testing.TB, addr string) *raw {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return newRaw(t, c)
}

func newRaw(t testing.TB, c net.Conn) *raw {
	return &raw{Conn: c, t: t, br: bufio.NewReaderSize(c, 64<<10)}
}

// packet makes a control packet.
func packet(first byte, body ...[]byte) []byte {
	n := 0
	for _, b := range body {
		n += len(b)
	}
	out := appendVarint([]byte{first}, n)
	for _, b := range body {
		out = append(out, b...)
	}
	return out
}

func str(s string) []byte { return appendString(nil, s) }
func u16(n int) []byte    { return binary.BigEndian.AppendUint16(nil, uint16(n)) }

// connectOptions fill in a CONNECT.
type connectOptions struct {
	id        string
	version   byte // default 5
	persist   bool
	keepAlive int
	user      string
	password  string
	props     []byte
	willTopic string
	will      string
	willFlags byte // QoS and retain
	willProps []byte
}

func connectPacket(o connectOptions) []byte {
	if o.version == 0 {
		o.version = 5
	}
	var flags byte
	if !o.persist {
		flags |= 2
	}
	name := str("MQTT")
	if o.version == 3 {
		name = str("MQIsdp")
	}
	payload := str(o.id)
	if o.willTopic != "" {
		flags |= 4 | o.willFlags
		if o.version >= 5 {
			payload = append(appendVarint(payload, len(o.willProps)), o.willProps...)
		}
		payload = append(append(payload, str(o.willTopic)...), str(o.will)...)
	}
	if o.user != "" {
		flags |= 0x80
		payload = append(payload, str(o.user)...)
	}
	if o.password != "" {
		flags |= 0x40
		payload = append(payload, str(o.password)...)
	}
	head := append(append(name, o.version, flags), u16(o.keepAlive)...)
	if o.version >= 5 {
		head = append(appendVarint(head, len(o.props)), o.props...)
	}
	return packet(typeConnect<<4, head, payload)
}

// connect connects and demands success.
func connect(t testing.TB, addr string, o connectOptions) *raw {
	t.Helper()
	c := dial(t, addr)
	code, _ := c.connect(o)
	if code != 0 {
		t.Fatalf("CONNACK with code 0x%02x", code)
	}
	return c
}

func (c *raw) connect(o connectOptions) (code byte, body []byte) {
	c.t.Helper()
	if o.version == 0 {
		o.version = 5
	}
	c.version = o.version
	c.send(connectPacket(o))
	first, body := c.read()
	if first != 0x20 || len(body) < 2 {
		c.t.Fatalf("answer to CONNECT: 0x%02x % x", first, body)
	}
	return body[1], body
}

func (c *raw) send(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// next reads a packet; an error when the connection ends.
func (c *raw) next() (first byte, body []byte, err error) {
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if first, err = c.br.ReadByte(); err != nil {
		return 0, nil, err
	}
	n, err := binary.ReadUvarint(c.br)
	if err != nil {
		return 0, nil, err
	}
	body = make([]byte, n)
	_, err = io.ReadFull(c.br, body)
	return first, body, err
}

func (c *raw) read() (byte, []byte) {
	c.t.Helper()
	first, body, err := c.next()
	if err != nil {
		c.t.Fatalf("read a packet: %v", err)
	}
	return first, body
}

// expect reads a packet of a type.
func (c *raw) expect(first byte) []byte {
	c.t.Helper()
	got, body := c.read()
	if got != first {
		c.t.Fatalf("got packet 0x%02x % x, want type 0x%02x", got, body, first)
	}
	return body
}

// expectEnd demands that the connection ends without a packet.
func (c *raw) expectEnd() {
	c.t.Helper()
	if first, body, err := c.next(); err == nil {
		c.t.Fatalf("got packet 0x%02x % x, want the end", first, body)
	} else if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		c.t.Fatal("connection stays open")
	}
}

// expectDisconnect demands a DISCONNECT with a code, and then the end.
func (c *raw) expectDisconnect(code byte) {
	c.t.Helper()
	if body := c.expect(typeDisconnect << 4); len(body) == 0 || body[0] != code {
		c.t.Fatalf("DISCONNECT % x, want code 0x%02x", body, code)
	}
	c.expectEnd()
}

// expectAck demands a PUBACK.
func (c *raw) expectAck(id int, code byte) {
	c.t.Helper()
	body := c.expect(typePuback << 4)
	got := byte(0)
	if len(body) > 2 {
		got = body[2]
	}
	if int(binary.BigEndian.Uint16(body)) != id || got != code {
		c.t.Fatalf("PUBACK % x, want id %d code 0x%02x", body, id, code)
	}
}

// publish sends a PUBLISH; id 0 means QoS 0.
func (c *raw) publish(topic string, id int, payload string, props ...byte) {
	c.t.Helper()
	c.send(c.publishPacket(topic, id, 0, payload, props...))
}

func (c *raw) publishPacket(topic string, id int, flags byte, payload string, props ...byte) []byte {
	b := str(topic)
	if id > 0 {
		if flags&6 == 0 {
			flags |= 2
		}
		b = append(b, u16(id)...)
	}
	if c.version >= 5 {
		b = append(appendVarint(b, len(props)), props...)
	}
	return packet(typePublish<<4|flags, b, []byte(payload))
}

func (c *raw) subscribe(id int, filter string, options byte) (code byte) {
	c.t.Helper()
	b := u16(id)
	if c.version >= 5 {
		b = append(b, 0)
	}
	c.send(packet(typeSubscribe<<4|2, b, str(filter), []byte{options}))
	body := c.expect(0x90)
	if int(binary.BigEndian.Uint16(body)) != id {
		c.t.Fatalf("SUBACK % x, want id %d", body, id)
	}
	return body[len(body)-1]
}

// ping demands that the connection lives, and that all before it was handled.
func (c *raw) ping() {
	c.t.Helper()
	c.send([]byte{typePingreq << 4, 0})
	c.expect(0xD0)
}

func userProp(kv ...string) (b []byte) {
	for i := 0; i < len(kv); i += 2 {
		b = appendUser(b, []stream.Property{{Key: kv[i], Value: kv[i+1]}})
	}
	return b
}

func fromPairs(kv ...string) (out []stream.Property) {
	for i := 0; i < len(kv); i += 2 {
		out = append(out, stream.Property{Key: kv[i], Value: kv[i+1]})
	}
	return out
}
