package rawmqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 10 * time.Second

// pair is a Conn and the server's end of it.
func pair(t *testing.T) (*Conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	nc, err := Dial(t.Context(), "tcp://"+l.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := NewConn(nc, V5)
	t.Cleanup(func() { c.Close(); server.Close() })
	return c, server
}

func TestConn(t *testing.T) {
	c, server := pair(t)
	if err := c.Send(&Connect{ClientID: "a", CleanStart: true}, Raw(Encode(&Subscribe{ID: 3, Filters: []Filter{{"t", 0}}}, V5))); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 64)
	if n, err := io.ReadAtLeast(server, b, 20); err != nil || b[0] != 0x10 {
		t.Fatalf("the server reads % x, %v", b[:n], err)
	}
	answer := append(Encode(&Connack{}, V5), Encode(&Suback{ID: 3, Codes: []byte{0}}, V5)...)
	answer = append(answer, Encode(&Publish{Topic: "t", Payload: make([]byte, 100_000)}, V5)...)
	go func() {
		for len(answer) > 0 { // in bits of every size
			n := min(len(answer), 1+len(answer)/3)
			if _, err := server.Write(answer[:n]); err != nil {
				return
			}
			answer = answer[n:]
		}
		server.Close()
	}()
	for _, want := range []Type{CONNACK, SUBACK, PUBLISH} {
		p, err := c.Next(patience)
		if err != nil || p.Type() != want {
			t.Fatalf("got %v, %v, want %s", p, err, want)
		}
	}
	if p, err := c.Next(patience); !errors.Is(err, ErrClosed) {
		t.Errorf("after the end: %v, %v", p, err)
	}
	if trace := c.Trace(); !strings.Contains(trace, "-> CONNECT") || !strings.Contains(trace, "<- PUBLISH") {
		t.Errorf("trace:\n%s", trace)
	}
}

func TestConnJudges(t *testing.T) {
	c, server := pair(t)
	if _, err := c.Next(time.Millisecond); !errors.Is(err, ErrNothing) {
		t.Errorf("an idle server: %v", err)
	}
	if _, err := server.Write([]byte{0xD0, 0}); err != nil {
		t.Fatal(err)
	}
	p, err := c.Next(patience)
	if v, ok := errors.AsType[*Violation](err); !ok || v.Clause != "[MQTT-3.2.0-1]" || p == nil {
		t.Errorf("PINGRESP first: %v, %v", p, err)
	}
	if _, err := server.Write([]byte{0xD1, 0}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Next(patience); err == nil {
		t.Error("flags 1 are accepted")
	}
	if _, err := server.Write([]byte{0x30, 50, 0}); err != nil {
		t.Fatal(err)
	}
	server.Close()
	if _, err := c.Next(patience); err == nil || errors.Is(err, ErrClosed) {
		t.Errorf("half a packet: %v", err)
	}
}

// echo is a WebSocket server that sends back what comes, in messages of kind.
func echo(kind int, protocols ...string) http.Handler {
	up := websocket.Upgrader{Subprotocols: protocols}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		_, b, err := c.ReadMessage()
		if err != nil {
			return
		}
		for len(b) > 0 { // frames are not packets
			n := min(3, len(b))
			if c.WriteMessage(kind, b[:n]) != nil {
				return
			}
			b = b[n:]
		}
		_, _, _ = c.ReadMessage()
	})
}

func TestWebSocket(t *testing.T) {
	for _, kind := range []int{websocket.BinaryMessage, websocket.TextMessage} {
		s := httptest.NewTLSServer(echo(kind, "mqtt"))
		defer s.Close()
		conf := s.Client().Transport.(*http.Transport).TLSClientConfig
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		nc, err := Dial(ctx, "wss"+strings.TrimPrefix(s.URL, "https"), conf)
		if err != nil {
			t.Fatal(err)
		}
		if got := nc.(*WebSocket).Subprotocol(); got != "mqtt" {
			t.Errorf("subprotocol %q", got)
		}
		c := NewConn(nc, V5)
		if err := c.Send(Raw(Encode(&Connack{}, V5)), Raw{0xE0, 0}); err != nil {
			t.Fatal(err)
		}
		_, err = c.Next(patience)
		v, bad := errors.AsType[*Violation](err)
		if kind == websocket.TextMessage && (!bad || v.Clause != "[MQTT-6.0.0-1]") {
			t.Errorf("text message: %v", err)
		}
		if kind == websocket.BinaryMessage && (!bad || v.Clause != "[MQTT-3.1.0-1]") {
			t.Errorf("CONNACK without CONNECT: %v", err)
		}
		c.Close()
	}
}

func TestDialErrors(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, target := range []string{"udp://127.0.0.1:1", "://", "tcp://127.0.0.1:1", "ws://127.0.0.1:1", "tls://127.0.0.1:1"} {
		if c, err := Dial(ctx, target, &tls.Config{MinVersion: tls.VersionTLS12}); err == nil {
			c.Close()
			t.Errorf("%s was dialled", target)
		}
	}
}
