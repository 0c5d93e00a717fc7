package publisher

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

// target is where a publisher connects, and how.
type target struct {
	secure bool
	web    bool
	addr   string // host:port
	path   string // of a WebSocket
}

// schemes are what an address may begin with, and the ports they mean.
var schemes = map[string]struct {
	secure, web bool
	port        string
}{
	"tcp": {port: "1883"}, "mqtt": {port: "1883"},
	"tls": {secure: true, port: "8883"}, "mqtts": {secure: true, port: "8883"},
	"ws": {web: true, port: "8083"}, "wss": {secure: true, web: true, port: "8084"},
}

// parseTarget reads a broker's address.
func parseTarget(broker string) (target, error) {
	bad := fmt.Errorf("broker %.100q: want tcp://, tls://, ws:// or wss:// and host:port", broker)
	text := broker
	if !strings.Contains(text, "://") {
		text = "tcp://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return target{}, bad
	}
	s, ok := schemes[u.Scheme]
	host, port := u.Hostname(), u.Port()
	if port == "" && broker == text {
		port = s.port
	}
	path := strings.TrimSuffix(u.Path, "/")
	if s.web && path == "" {
		path = "/mqtt"
	}
	if !ok || host == "" || port == "" || u.User != nil || u.RawQuery != "" || !s.web && path != "" {
		return target{}, bad
	}
	return target{secure: s.secure, web: s.web, addr: net.JoinHostPort(host, port), path: path}, nil
}

// dial makes a connection to the broker, handshakes included.
func (p *Publisher) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshake)
	defer cancel()
	if p.at.web {
		return p.dialWeb(ctx)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.at.addr)
	if err != nil || !p.at.secure {
		return conn, err
	}
	c := p.o.TLS.Clone()
	if c == nil {
		c = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if c.ServerName == "" {
		c.ServerName, _, _ = net.SplitHostPort(p.at.addr)
	}
	over := tls.Client(conn, c)
	if err := over.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return over, nil
}

// dialWeb makes a WebSocket connection with the subprotocol of MQTT.
func (p *Publisher) dialWeb(ctx context.Context) (net.Conn, error) {
	u := url.URL{Scheme: "ws", Host: p.at.addr, Path: p.at.path}
	if p.at.secure {
		u.Scheme = "wss"
	}
	d := websocket.Dialer{Subprotocols: []string{"mqtt"}, TLSClientConfig: p.o.TLS.Clone(), HandshakeTimeout: handshake} // [MQTT-6.0.0-3]
	ws, res, err := d.DialContext(ctx, u.String(), nil)
	if errors.Is(err, websocket.ErrBadHandshake) && res != nil {
		return nil, fmt.Errorf("the broker answers %s instead of a WebSocket", http.StatusText(res.StatusCode))
	}
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(maxIncoming)
	if got := ws.Subprotocol(); got != "mqtt" {
		return nil, errors.Join(fmt.Errorf("the broker speaks the WebSocket subprotocol %.20q, not mqtt", got), ws.Close())
	}
	return &webConn{Conn: ws}, nil
}

// webConn carries a byte stream in binary messages [MQTT-6.0.0-1]. One
// goroutine may read while another writes, and any may close it.
type webConn struct {
	*websocket.Conn
	r io.Reader // of the message that is being read; nil: none
}

func (c *webConn) Read(b []byte) (int, error) {
	for {
		if c.r == nil {
			kind, r, err := c.NextReader()
			if err != nil {
				if websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseGoingAway) {
					err = io.EOF
				}
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				return 0, errors.New("a WebSocket message that is not binary") // [MQTT-6.0.0-1]
			}
			c.r = r
		}
		n, err := c.r.Read(b)
		if errors.Is(err, io.EOF) {
			c.r, err = nil, nil
			if n == 0 {
				continue
			}
		}
		return n, err
	}
}

func (c *webConn) Write(b []byte) (int, error) {
	if err := c.WriteMessage(websocket.BinaryMessage, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (c *webConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}
