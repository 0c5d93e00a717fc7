package rawmqtt

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// Dial connects to tcp://, tls://, ws:// or wss:// host:port. conf is for tls and
// wss; nil takes the system's authorities.
func Dial(ctx context.Context, target string, conf *tls.Config) (net.Conn, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, fmt.Errorf("reading the address: %w", err)
	}
	switch u.Scheme {
	case "tcp":
		return (&net.Dialer{}).DialContext(ctx, "tcp", u.Host)
	case "tls":
		return (&tls.Dialer{Config: conf}).DialContext(ctx, "tcp", u.Host)
	case "ws", "wss":
		c, _, err := DialWebSocket(ctx, target, conf, "mqtt")
		if err != nil {
			return nil, err
		}
		return c, nil
	}
	return nil, fmt.Errorf("dialling %s: scheme %q is none of tcp, tls, ws, wss", target, u.Scheme)
}

// DialWebSocket connects and offers subprotocols. The response is there whenever
// the server gave one, also with an error.
func DialWebSocket(ctx context.Context, target string, conf *tls.Config, protocols ...string) (*WebSocket, *http.Response, error) {
	d := websocket.Dialer{Subprotocols: protocols, TLSClientConfig: conf}
	c, r, err := d.DialContext(ctx, target, nil)
	if err != nil {
		return nil, r, fmt.Errorf("opening a WebSocket: %w", err)
	}
	return &WebSocket{Conn: c}, r, nil
}

// WebSocket is MQTT over a WebSocket: what is written goes out as one binary
// message, what comes is the bytes of the binary messages, in a row.
type WebSocket struct {
	*websocket.Conn
	r  io.Reader  // of the message that is read
	mu sync.Mutex // held while a message is written
}

// Read implements net.Conn. A message that is not binary is a *Violation.
func (w *WebSocket) Read(b []byte) (int, error) {
	for {
		if w.r == nil {
			kind, r, err := w.NextReader()
			if err != nil {
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				return 0, broken("[MQTT-6.0.0-1]", "a WebSocket message that is not binary")
			}
			w.r = r
		}
		n, err := w.r.Read(b)
		if err == io.EOF {
			w.r, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// Write implements net.Conn.
func (w *WebSocket) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.WriteMessage(websocket.BinaryMessage, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// SetDeadline implements net.Conn.
func (w *WebSocket) SetDeadline(t time.Time) error {
	if err := w.SetReadDeadline(t); err != nil {
		return err
	}
	return w.SetWriteDeadline(t)
}
