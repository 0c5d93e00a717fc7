package hostile

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/packetboat/packetboat/internal/mqttfront"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open is a handler that lets everybody in and acknowledges everything.
type open struct{}

func (open) Connect(context.Context, *mqttfront.Peer) (mqttfront.Session, mqttfront.Welcome, error) {
	return open{}, mqttfront.Welcome{}, nil
}
func (open) Publish(_ *mqttfront.Publish, settle mqttfront.Settle) { settle(mqttfront.Result{}) }
func (open) Subscribe(string) bool                                 { return true }
func (open) Deliver(string) bool                                   { return true }
func (open) Close(error)                                           {}

// counted notes what its connections do: who dials for a test may ask how many
// are still open.
type counted struct {
	net.Conn
	open *atomic.Int64
	once sync.Once
}

func (c *counted) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}

func dialer(addr string, open *atomic.Int64) Dial {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		open.Add(1)
		return &counted{Conn: c, open: open}, nil
	}
}

func front(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := mqttfront.New(open{}, mqttfront.Options{Listeners: []net.Listener{l}, FanOut: true, ConnectTimeout: time.Second})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return l.Addr().String()
}

// Every behaviour comes to an end at a real server, has tried what it is there
// for, and leaves no connection behind.
func TestBehavioursEnd(t *testing.T) {
	addr := front(t)
	for _, b := range Behaviours(Target{}) {
		var left atomic.Int64
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		r := b.Run(ctx, Target{Dial: dialer(addr, &left), Patience: 20 * time.Millisecond, Seed: 1})
		cancel()
		t.Logf("%-22s %6d attempts, %5d connections, %9d bytes, %.1fs: %s", b.Name, r.Attempts, r.Connections, r.Bytes, r.Took.Seconds(), r.Summary(5))
		if r.Attempts == 0 || r.Connections == 0 || r.Behaviour != b.Name || b.Breaks == "" {
			t.Errorf("%s: %+v", b.Name, r)
		}
		if n := left.Load(); n != 0 {
			t.Errorf("%s leaves %d connections open", b.Name, n)
		}
	}
}

// A server that takes everything and says nothing holds no behaviour up beyond
// its context.
func TestSilentServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var first sync.Once
	talked := make(chan struct{})
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				_, _ = io.ReadFull(c, make([]byte, 1))
				first.Do(func() { close(talked) })
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
			})
		}
	})
	var left atomic.Int64
	dial := dialer(l.Addr().String(), &left)
	target := Target{Dial: dial, DialTLS: dial, DialWebSocket: dial, Patience: 10 * time.Millisecond}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for _, b := range Behaviours(target) {
		all.Go(func() { b.Run(ctx, target) })
	}
	<-talked
	cancel()
	all.Wait()
	if n := left.Load(); n != 0 {
		t.Errorf("%d connections are open", n)
	}
	_ = l.Close()
	wg.Wait()
}

// Without a listener for them, the behaviours that need one are not there; with
// it they are.
func TestDoorsNeedListeners(t *testing.T) {
	plain := len(Behaviours(Target{}))
	dial := func(context.Context) (net.Conn, error) { return nil, io.EOF }
	if all := len(Behaviours(Target{Dial: dial, DialTLS: dial, DialWebSocket: dial})); all != plain+len(doors) {
		t.Errorf("%d behaviours, %d without TLS and WebSocket", all, plain)
	}
	seen := map[string]bool{}
	for _, b := range Behaviours(Target{DialTLS: dial, DialWebSocket: dial}) {
		if seen[b.Name] {
			t.Errorf("two behaviours are called %s", b.Name)
		}
		seen[b.Name] = true
	}
}

// The packets that are meant to be good are what MQTT says.
func TestPackets(t *testing.T) {
	for name, c := range map[string]struct{ got, want []byte }{
		"connect 3.1.1": {(&hello{id: "a", version: 4, keepAlive: 30}).packet(), []byte("\x10\x0d\x00\x04MQTT\x04\x02\x00\x1e\x00\x01a")},
		"connect 5 with all": {(&hello{id: "a", version: 5, persistent: true, user: "u", pass: "p", willTopic: "w", will: []byte("x"), willFlags: 0x28, willProps: []byte{1, 1}}).packet(),
			[]byte("\x10\x22\x00\x04MQTT\x05\xec\x00\x00\x05\x11\xff\xff\xff\xfe\x00\x01a\x02\x01\x01\x00\x01w\x00\x01x\x00\x01u\x00\x01p")},
		"publish 5":     {message(5, 2, "t", 7, nil, []byte("x")), []byte("\x32\x07\x00\x01t\x00\x07\x00x")},
		"publish QoS 0": {message(4, 1, "t", 7, nil, []byte("x")), []byte("\x31\x04\x00\x01tx")},
		"subscribe":     {ask(5, 1, 2, "t", "u"), []byte("\x82\x0b\x00\x01\x00\x00\x01t\x02\x00\x01u\x02")},
		"long":          {packet(publish, make([]byte, 200))[:3], []byte{0x30, 0xC8, 0x01}},
	} {
		if !bytes.Equal(c.got, c.want) {
			t.Errorf("%s: %q, want %q", name, c.got, c.want)
		}
	}
}
