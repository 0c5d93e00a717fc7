package publisher

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
)

// allow lets every client do everything.
type allow struct{ mqtt.HookBase }

func (*allow) Provides(b byte) bool {
	return b == mqtt.OnConnectAuthenticate || b == mqtt.OnACLCheck
}
func (*allow) OnConnectAuthenticate(*mqtt.Client, packets.Packet) bool { return true }
func (*allow) OnACLCheck(*mqtt.Client, string, bool) bool              { return true }

// closeBroker closes mochi when its clients have gone: while one goes, mochi's
// Close can wait for its own lock for ever (GetByListener takes it twice).
func closeBroker(srv *mqtt.Server) {
	for _, c := range srv.Clients.GetAll() {
		for !c.Closed() && !c.Net.Inline {
			runtime.Gosched()
		}
	}
	srv.Close()
}

// doors stand before a TCP broker: TLS that wants a client certificate, and
// WebSockets, which cut the broker's bytes into messages of one.
type doors struct {
	tcp, tls, ws, wss string
	client            *tls.Config
}

func openDoors(t *testing.T, tcp string) doors {
	t.Helper()
	plain, secure := httptest.NewServer(webDoor(tcp)), httptest.NewUnstartedServer(webDoor(tcp))
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // a client that hangs up
	secure.StartTLS()
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	pool := x509.NewCertPool()
	pool.AddCert(secure.Certificate())
	own := secure.TLS.Certificates // the only certificate around is good for both ends
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	over := tls.NewListener(ln, &tls.Config{Certificates: own, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS12})
	var wg sync.WaitGroup
	t.Cleanup(func() { over.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := over.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { pipe(c, tcp) })
		}
	})
	return doors{
		tcp: "tcp://" + tcp, tls: "tls://" + ln.Addr().String(), ws: "ws" + strings.TrimPrefix(plain.URL, "http"), wss: "wss" + strings.TrimPrefix(secure.URL, "https"),
		client: &tls.Config{RootCAs: pool, Certificates: own, MinVersion: tls.VersionTLS12},
	}
}

// pipe carries bytes both ways until one side ends.
func pipe(c net.Conn, tcp string) {
	defer c.Close()
	b, err := net.Dial("tcp", tcp)
	if err != nil {
		return
	}
	defer b.Close()
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(b, c); b.Close() })
	_, _ = io.Copy(c, b)
	c.Close()
	wg.Wait()
}

func webDoor(tcp string) http.Handler {
	up := websocket.Upgrader{Subprotocols: []string{"mqtt"}}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/mqtt" {
			http.NotFound(w, r)
			return
		}
		ws, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer ws.Close()
		b, err := net.Dial("tcp", tcp)
		if err != nil {
			return
		}
		defer b.Close()
		var wg sync.WaitGroup
		wg.Go(func() {
			one := make([]byte, 1)
			for {
				if _, err := b.Read(one); err != nil || ws.WriteMessage(websocket.BinaryMessage, one) != nil {
					_ = ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Time{})
					ws.Close()
					return
				}
			}
		})
		for {
			kind, payload, err := ws.ReadMessage()
			if err != nil || kind != websocket.BinaryMessage {
				break
			}
			if _, err := b.Write(payload); err != nil {
				break
			}
		}
		b.Close()
		wg.Wait()
	})
}

// Against a broker that others wrote: everything arrives, in order, with its
// bytes, whatever the version, the QoS, the size and the transport.
func TestAgainstMochi(t *testing.T) {
	srv := mqtt.New(&mqtt.Options{InlineClient: true, Logger: slog.New(slog.DiscardHandler)})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(srv.AddHook(new(allow), nil), srv.AddListener(listeners.NewNet("t", ln)), srv.Serve()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeBroker(srv) })
	d := openDoors(t, ln.Addr().String())
	for i, c := range []struct {
		version byte
		session time.Duration
		broker  string
	}{
		{4, 0, d.tcp}, {5, 0, d.tcp}, {4, time.Hour, d.tls}, {5, time.Hour, d.tls}, {4, time.Hour, d.ws}, {5, 0, d.wss},
	} {
		t.Run(fmt.Sprintf("version %d session %s %s", c.version, c.session, c.broker), func(t *testing.T) {
			var mu sync.Mutex
			var got []string
			name := fmt.Sprint("s", i)
			err = srv.Subscribe(name+"/#", 1, func(_ *mqtt.Client, _ packets.Subscription, pk packets.Packet) {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, fmt.Sprint(pk.TopicName, pk.FixedHeader.Qos, string(pk.Payload)))
			})
			if err != nil {
				t.Fatal(err)
			}
			p, stop := run(t, Options{Broker: c.broker, TLS: d.client, ClientID: name, Version: c.version, Session: c.session, QoS: 2, Window: 50})
			var want []string
			for i := range 2000 {
				payload := bytes.Repeat([]byte{byte('a' + i%26)}, i%300)
				topic, qos := fmt.Sprint(name, "/", i%7), byte(i%3)
				want = append(want, fmt.Sprint(topic, qos, string(payload)))
				if err := p.Publish(t.Context(), topic, payload, qos, false, uint64(i)); err != nil {
					t.Fatal(err)
				}
			}
			if err := p.Drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			if s := p.Stats(); s.Acknowledged != 1333 || s.Resent+s.Released != 0 || s.Connections != 1 {
				t.Errorf("%+v", s)
			}
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			arrived := func() int { mu.Lock(); defer mu.Unlock(); return len(got) }
			for end := time.Now().Add(20 * time.Second); arrived() < len(want) && time.Now().Before(end); {
				runtime.Gosched()
			}
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(got, want) {
				t.Fatalf("%d messages arrived of %d, or another order", len(got), len(want))
			}
		})
	}
}

// What is wrong at a door is said, and is no reason to hang.
func TestDoorsThatDoNotOpen(t *testing.T) {
	d := openDoors(t, "127.0.0.1:1") // nobody is behind them
	for name, o := range map[string]Options{
		"unknown authority": {Broker: d.tls},
		"web authority":     {Broker: d.wss},
		"no WebSocket":      {Broker: d.ws + "/other"},
		"nobody behind":     {Broker: d.ws},
	} {
		o.ClientID, o.Once = "s", true
		p, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Run(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "connecting s to ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
