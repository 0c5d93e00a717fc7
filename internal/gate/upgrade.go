package gate

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// maxRequest bounds a WebSocket request, headers included, in bytes.
const maxRequest = 8 << 10

// WebSocketOptions say whose requests are taken.
type WebSocketOptions struct {
	// AllowedOrigins are the sites whose pages may connect, as
	// "https://display.example:8443"; "*" lets every page in. Without any, only
	// pages of the very host that is connected to may, named by its address or,
	// over TLS, by a name: a browser connects to
	// whatever a page tells it to, from inside the vehicle's network, without
	// asking who sits in front of it. Clients that are no browsers send no
	// Origin and are not concerned.
	AllowedOrigins []string
}

// CheckOrigin says what is wrong with an entry of AllowedOrigins.
func CheckOrigin(text string) error {
	if text == "*" {
		return nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%.100q is no origin: want http://host[:port] or https://host[:port], or *", text)
	}
	return nil
}

// upgrader does the server's side of a WebSocket handshake.
type upgrader struct {
	origins []string // in lower case
	readers sync.Pool
}

func newUpgrader(o WebSocketOptions) *upgrader {
	u := &upgrader{}
	for _, origin := range o.AllowedOrigins {
		u.origins = append(u.origins, strings.ToLower(origin))
	}
	u.readers.New = func() any { return bufio.NewReaderSize(nil, 2<<10) }
	return u
}

// shake does the handshakes of a connection: TLS first if conf is not nil.
func (u *upgrader) shake(raw net.Conn, conf *tls.Config) (net.Conn, error) {
	c := raw
	var secure *tlsConn
	if conf != nil {
		t, err := shakeTLS(raw, conf)
		if err != nil {
			return nil, err
		}
		c, secure = t, t
	}
	early, err := u.upgrade(c)
	if err != nil {
		if secure != nil {
			_ = secure.CloseWrite() // an HTTP answer is whole only with TLS's own end
		}
		return nil, fmt.Errorf("WebSocket handshake: %w", err)
	}
	w := &wsConn{raw: c, early: early}
	if secure != nil {
		return &wssConn{wsConn: w, tls: secure}, nil
	}
	return w, nil
}

// upgrade reads the request and answers it. early is what the client sent
// behind it already.
func (u *upgrader) upgrade(c net.Conn) (early []byte, err error) {
	limited := &io.LimitedReader{R: c, N: maxRequest}
	br := u.readers.Get().(*bufio.Reader)
	br.Reset(limited)
	defer func() {
		br.Reset(nil)
		u.readers.Put(br)
	}()
	r, err := http.ReadRequest(br)
	if err != nil {
		return nil, u.unread(c, limited, err)
	}
	_, secure := c.(*tlsConn)
	if bad := u.check(r, c.LocalAddr(), secure); bad != nil {
		return nil, bad.answer(c)
	}
	early, _ = br.Peek(br.Buffered()) // no more than what is there: no error
	early = bytes.Clone(early)
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	_, err = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Accept: "+base64.StdEncoding.EncodeToString(sum[:])+"\r\n\r\n") // [MQTT-6.0.0-4]
	return early, err
}

// unread sorts a request that could not be read.
func (u *upgrader) unread(c net.Conn, limited *io.LimitedReader, err error) error {
	var n net.Error
	switch {
	case limited.N <= 0:
		return (&badRequest{http.StatusRequestHeaderFieldsTooLarge, TooLarge, fmt.Sprintf("a request has at most %d bytes", maxRequest)}).answer(c)
	case errors.As(err, &n), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return err // gone, or too slow
	}
	return (&badRequest{http.StatusBadRequest, WebSocket, "this is no HTTP request; here is MQTT over WebSocket"}).answer(c)
}

// badRequest is a request that is refused.
type badRequest struct {
	status int
	reason string
	text   string
}

// answer tells the client and gives the error that counts.
func (b *badRequest) answer(c net.Conn) error {
	more := ""
	if b.status == http.StatusUpgradeRequired {
		more = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
	}
	// A client that is gone learns nothing; the reason stays the same.
	_, _ = fmt.Fprintf(c, "HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n%sContent-Length: %d\r\n\r\n%s\n",
		b.status, http.StatusText(b.status), more, len(b.text)+1, b.text)
	return &refusal{b.reason, errors.New(b.text)}
}

// check says why a request is not taken; nil: it is. [RFC 6455, 4.2.1]
func (u *upgrader) check(r *http.Request, local net.Addr, secure bool) *badRequest {
	refuse := func(status int, text string) *badRequest { return &badRequest{status, WebSocket, text} }
	key, err := base64.StdEncoding.DecodeString(r.Header.Get("Sec-WebSocket-Key"))
	switch {
	case r.URL.Path != "/mqtt" && r.URL.Path != "/":
		return refuse(http.StatusNotFound, "MQTT over WebSocket is at /mqtt")
	case r.Method != http.MethodGet || !r.ProtoAtLeast(1, 1) || r.Host == "" || r.ContentLength != 0:
		return refuse(http.StatusBadRequest, "a WebSocket request is a GET of HTTP/1.1 with a Host and no body")
	case !slices.Contains(tokens(r, "Connection"), "upgrade") || !slices.Contains(tokens(r, "Upgrade"), "websocket"):
		return refuse(http.StatusUpgradeRequired, "here is MQTT over WebSocket, and nothing else")
	case r.Header.Get("Sec-WebSocket-Version") != "13":
		return refuse(http.StatusUpgradeRequired, "want Sec-WebSocket-Version 13")
	case err != nil || len(key) != 16:
		return refuse(http.StatusBadRequest, "Sec-WebSocket-Key is not 16 bytes in base64")
	case !slices.Contains(tokens(r, "Sec-WebSocket-Protocol"), "mqtt"): // [MQTT-6.0.0-3]
		return refuse(http.StatusBadRequest, "want the subprotocol mqtt")
	case !u.mayCome(r, local, secure):
		return &badRequest{http.StatusForbidden, Origin, "pages of this origin may not connect; the list of allowed origins (listen.ws_origins) names those that may"}
	}
	return nil
}

// tokens are the elements of a comma-separated header, in lower case.
func tokens(r *http.Request, header string) (all []string) {
	for _, line := range r.Header.Values(header) {
		for t := range strings.SplitSeq(line, ",") {
			all = append(all, strings.ToLower(strings.TrimSpace(t)))
		}
	}
	return all
}

// mayCome decides about the page that a browser names.
func (u *upgrader) mayCome(r *http.Request, local net.Addr, secure bool) bool {
	origins := r.Header.Values("Origin")
	if len(origins) == 0 {
		return true
	}
	origin := strings.ToLower(origins[0])
	if len(origins) > 1 {
		return false
	}
	if slices.Contains(u.origins, "*") || slices.Contains(u.origins, origin) {
		return true
	}
	from, err := url.Parse(origin)
	if err != nil || from.Host == "" || len(u.origins) > 0 {
		return false
	}
	if !strings.EqualFold(from.Host, r.Host) {
		return false
	}
	// The same host, says the page; but whose site it is may let its name point
	// here. An address means what it says, and over TLS the browser has seen a
	// certificate for the name; to this machine itself only names come that can
	// mean nothing else.
	host := from.Hostname()
	ip, err := netip.ParseAddr(host)
	if t, ok := local.(*net.TCPAddr); ok && t.IP.IsLoopback() {
		return host == "localhost" || err == nil && ip.IsLoopback()
	}
	return err == nil || secure
}
