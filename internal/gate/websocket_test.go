package gate

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
)

// served gives a listener for WebSocket whose connections echo.
func served(t testing.TB, g *Gate, conf *tls.Config, o WebSocketOptions) net.Listener {
	t.Helper()
	l := closing(t, g.WebSocket(listenTCP(t), conf, o))
	echo(t, l)
	return l
}

func gorilla(t testing.TB, l net.Listener, d websocket.Dialer, scheme string, header http.Header) *websocket.Conn {
	t.Helper()
	if d.Subprotocols == nil {
		d.Subprotocols = []string{"other", "mqtt"}
	}
	d.EnableCompression = true // offered, not taken
	c, answer, err := d.Dial(scheme+"://"+l.Addr().String()+"/mqtt", header)
	if err != nil {
		t.Fatal(err)
	}
	if got := answer.Header; got.Get("Sec-WebSocket-Protocol") != "mqtt" || got.Get("Sec-WebSocket-Extensions") != "" || got.Get("Set-Cookie") != "" {
		t.Errorf("answered with %v", got)
	}
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Messages of all sizes, in one frame or many, with Pings between them, over
// both kinds of sockets.
func TestGorilla(t *testing.T) {
	cert, pool := certificate(t)
	for _, scheme := range []string{"ws", "wss"} {
		var conf *tls.Config
		if scheme == "wss" {
			conf = &tls.Config{Certificates: []tls.Certificate{cert}}
		}
		g := New(Options{})
		l := served(t, g, conf, WebSocketOptions{})
		c := gorilla(t, l, websocket.Dialer{TLSClientConfig: &tls.Config{RootCAs: pool}, WriteBufferSize: 1000}, scheme, nil)
		pongs := make(chan string, 100)
		c.SetPongHandler(func(text string) error { pongs <- text; return nil })
		for _, size := range []int{1, 125, 126, 127, 4095, 65535, 65536, wholeMessage - 1, wholeMessage, wholeMessage + 1, 1 << 20} {
			sent := bytes.Repeat([]byte{byte(size), 1, 2, 3, 4, 5, 6}, size/7+1)[:size]
			if err := c.WriteControl(websocket.PingMessage, []byte(fmt.Sprint(size)), time.Now().Add(20*time.Second)); err != nil {
				t.Fatal(err)
			}
			wrote := make(chan error, 1)
			go func() { wrote <- c.WriteMessage(websocket.BinaryMessage, sent) }() // longer than a buffer: in fragments
			var got []byte
			for len(got) < size {
				kind, part, err := c.ReadMessage()
				if err != nil || kind != websocket.BinaryMessage {
					t.Fatalf("%s, %d bytes: %d %v", scheme, size, kind, err)
				}
				got = append(got, part...)
			}
			if err := <-wrote; err != nil || !bytes.Equal(got, sent) {
				t.Fatalf("%s: %d bytes came back changed, %v", scheme, size, err)
			}
		}
		if first := <-pongs; first != "1" {
			t.Errorf("pong %q", first)
		}
		_ = c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(4001, "bye"), time.Now().Add(20*time.Second))
		if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, 4001) {
			t.Errorf("%s: the answer to Close: %v", scheme, err)
		}
		if s := g.Stats(); s.Accepted != 1 {
			t.Errorf("%+v", s)
		}
	}
}

// rawClient speaks HTTP and frames by hand.
type rawClient struct {
	net.Conn
	*bufio.Reader
}

func (c rawClient) Read(p []byte) (int, error) { return c.Reader.Read(p) }

const hello = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n"

func rawDial(t testing.TB, l net.Listener, request string) (rawClient, *http.Response) {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	r := rawClient{c, bufio.NewReader(c)}
	answer, err := http.ReadResponse(r.Reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r, answer
}

func TestRequests(t *testing.T) {
	g := New(Options{})
	l := served(t, g, nil, WebSocketOptions{AllowedOrigins: []string{"https://Display.example:8443"}})
	own := served(t, g, nil, WebSocketOptions{})
	all := served(t, g, nil, WebSocketOptions{AllowedOrigins: []string{"*"}})
	host := own.Addr().String()
	for _, c := range []struct {
		what    string
		l       net.Listener
		request string
		status  int
	}{
		{"good", l, hello + "\r\n", 101},
		{"at the root", l, strings.Replace(hello, "/mqtt", "/", 1) + "\r\n", 101},
		{"elsewhere", l, strings.Replace(hello, "/mqtt", "/other", 1) + "\r\n", 404},
		{"POST", l, strings.Replace(hello, "GET", "POST", 1) + "\r\n", 400},
		{"HTTP/1.0", l, strings.Replace(hello, "HTTP/1.1", "HTTP/1.0", 1) + "\r\n", 400},
		{"a body", l, hello + "Content-Length: 5\r\n\r\nhello", 400},
		{"no upgrade", l, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 426},
		{"version 8", l, strings.Replace(hello, "Version: 13", "Version: 8", 1) + "\r\n", 426},
		{"short key", l, strings.Replace(hello, "dGhlIHNhbXBsZSBub25jZQ==", "dGhl", 1) + "\r\n", 400},
		{"no subprotocol", l, strings.Replace(hello, "Sec-WebSocket-Protocol: mqtt\r\n", "", 1) + "\r\n", 400},
		{"other subprotocol", l, strings.Replace(hello, ": mqtt", ": mqttish, soap", 1) + "\r\n", 400},
		{"rubbish", l, "\x10\x20\x00\x04MQTT\r\n\r\n", 400},
		{"giant headers", l, hello + "X: " + strings.Repeat("x", maxRequest) + "\r\n\r\n", 431},
		{"the named page", l, hello + "Origin: https://display.example:8443\r\n\r\n", 101},
		{"another page", l, hello + "Origin: https://evil.example\r\n\r\n", 403},
		{"two pages", all, hello + "Origin: https://a\r\nOrigin: https://b\r\n\r\n", 403},
		{"any page", all, hello + "Origin: https://evil.example\r\n\r\n", 101},
		{"a page of this host", own, strings.Replace(hello, "localhost", host, 1) + "Origin: http://" + host + "\r\n\r\n", 101},
		{"a page of this host by name", own, strings.Replace(hello, "localhost", "localhost:8083", 1) + "Origin: http://localhost:8083\r\n\r\n", 101},
		{"a page of another port", own, strings.Replace(hello, "localhost", host, 1) + "Origin: http://127.0.0.1:1\r\n\r\n", 403},
		{"a name made to point here", own, strings.Replace(hello, "localhost", "evil.example", 1) + "Origin: http://evil.example\r\n\r\n", 403},
		{"no page", own, hello + "Origin: null\r\n\r\n", 403},
	} {
		r, answer := rawDial(t, c.l, c.request)
		if answer.StatusCode != c.status {
			t.Errorf("%s: %s", c.what, answer.Status)
		}
		if c.status != 101 {
			text, err := io.ReadAll(answer.Body)
			if err != nil || len(text) < 10 || !answer.Close {
				t.Errorf("%s: answered %q, %v", c.what, text, err)
			}
		} else if got := answer.Header.Get("Sec-WebSocket-Accept"); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" { // of RFC 6455, 1.3
			t.Errorf("%s: accept %q", c.what, got)
		}
		_ = r.Close()
	}
	await(t, "the counters", func() bool {
		s := g.Stats()
		return s.Refused[Origin] == 5 && s.Refused[WebSocket] == 10 && s.Refused[TooLarge] == 1 && total(s) == s.Arrived
	})
}

// Faults in the frames end the connection with their status; what came before
// is delivered.
func TestFrameFaults(t *testing.T) {
	l := served(t, New(Options{}), nil, WebSocketOptions{})
	mask := [4]byte{1, 2, 3, 4}
	for _, c := range []struct {
		what   string
		frame  []byte
		status string
	}{
		{"text", clientFrame(0x81, []byte("x"), mask, 0), "\x03\xeb"},
		{"not masked", []byte{0x82, 1, 'x'}, "\x03\xea"},
		{"close", clientFrame(0x88, nil, mask, 0), "\x03\xe8"},
	} {
		r, answer := rawDial(t, l, hello+"\r\n")
		if answer.StatusCode != 101 {
			t.Fatal(answer.Status)
		}
		if _, err := r.Write(append(clientFrame(0x82, []byte("first"), mask, 0), c.frame...)); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		closeFrame := "\x88\x02" + c.status
		// The echo and the Close frame are written by two goroutines' turns.
		if text := string(got); err != nil || !strings.HasSuffix(text, closeFrame) {
			t.Errorf("%s: got %q, %v", c.what, got, err)
		}
	}
}

// Bytes right behind the request are the first of the stream.
func TestEarlyBytes(t *testing.T) {
	l := served(t, New(Options{}), nil, WebSocketOptions{})
	r, answer := rawDial(t, l, hello+"\r\n"+string(clientFrame(0x82, []byte("early"), [4]byte{9, 8, 7, 6}, 0)))
	if answer.StatusCode != 101 {
		t.Fatal(answer.Status)
	}
	got := make([]byte, 7)
	if _, err := io.ReadFull(r, got); err != nil || string(got) != "\x82\x05early" {
		t.Errorf("got %q, %v", got, err)
	}
}

// pair is a connection of each side, without echo.
func pair(t *testing.T) (client *websocket.Conn, server net.Conn) {
	t.Helper()
	l := closing(t, New(Options{}).WebSocket(listenTCP(t), nil, WebSocketOptions{}))
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- c
	}()
	client = gorilla(t, l, websocket.Dialer{}, "ws", nil)
	server = <-accepted
	t.Cleanup(func() { _ = server.Close() })
	return client, server
}

// A read that ran into its deadline, in the middle of a frame too, may be
// repeated: the front wakes its readers like that.
func TestReadAfterDeadline(t *testing.T) {
	client, server := pair(t)
	raw := client.NetConn()
	frame := clientFrame(0x82, []byte("hello"), [4]byte{5, 6, 7, 8}, 1)
	buf := make([]byte, 100)
	var got []byte
	for _, b := range frame {
		_ = server.SetReadDeadline(time.Unix(1, 0))
		if n, err := server.Read(buf); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("%d bytes, %v", n, err)
		}
		_ = server.SetReadDeadline(time.Time{})
		if _, err := raw.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
		if b == frame[len(frame)-1] || len(got) > 0 {
			n, err := server.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, buf[:n]...)
			continue
		}
		// One byte of a header gives nothing; wait until it is taken.
		w := server.(*wsConn)
		have := func() int {
			w.rmu.Lock()
			defer w.rmu.Unlock()
			if w.dec.inside {
				return -1
			}
			return w.dec.have
		}
		before := have()
		await(t, "a byte", func() bool {
			_ = server.SetReadDeadline(time.Now().Add(time.Millisecond))
			n, _ := server.Read(buf)
			got = append(got, buf[:n]...)
			return have() != before || n > 0
		})
	}
	if string(got) != "hello" {
		t.Errorf("got %q", got)
	}
}

// After CloseWrite the client reads all and a Close frame, and can still be
// heard.
func TestCloseWrite(t *testing.T) {
	client, server := pair(t)
	if _, err := io.WriteString(server, "bye"); err != nil {
		t.Fatal(err)
	}
	if err := server.(*wsConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := io.WriteString(server, "more"); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("wrote %d after CloseWrite, %v", n, err)
	}
	if err := client.WriteMessage(websocket.BinaryMessage, []byte("last")); err != nil {
		t.Fatal(err)
	}
	if _, got, err := client.ReadMessage(); err != nil || string(got) != "bye" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, _, err := client.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("got %v", err)
	}
	if got, err := io.ReadAll(server); err != nil || string(got) != "last" {
		t.Errorf("the server reads %q, %v", got, err)
	}
	if n, err := server.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("after the end: %d, %v", n, err)
	}
	// Close, and a client that goes without a word.
	client, server = pair(t)
	_ = server.Close()
	if _, _, err := client.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("after Close: %v", err)
	}
	client, server = pair(t)
	raw := client.NetConn()
	_, _ = raw.Write(clientFrame(0x82, []byte("half a frame"), [4]byte{}, 0)[:9])
	_ = raw.Close()
	if got, err := io.ReadAll(server); !errors.Is(err, io.ErrUnexpectedEOF) || string(got) != "hal" {
		t.Errorf("half a frame: %q, %v", got, err)
	}
}

// A client that asks for Pongs and reads none loses its connection, and blocks
// nobody for longer than a control frame may take.
func TestPingsOfASlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe() // has no buffer: what is not read blocks
		c := &wsConn{raw: server}
		go func() {
			_, _ = client.Write(clientFrame(0x89, []byte("p"), [4]byte{}, 0))
			_, _ = client.Write(clientFrame(0x82, []byte("x"), [4]byte{}, 0))
		}()
		began := time.Now()
		buf := make([]byte, 10)
		if n, err := c.Read(buf); n != 1 || err != nil || time.Since(began) > controlTimeout {
			t.Errorf("%d, %v after %s", n, err, time.Since(began))
		}
		if _, err := c.Write([]byte("y")); !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, net.ErrClosed) {
			t.Errorf("the stream is broken and says %v", err)
		}
		_, _ = client.Close(), c.Close()
	})
}

// Slow requests end in time and hold up nobody.
func TestSlowRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{Handshakes: 4, HandshakeTimeout: 4 * time.Second})
		p := newPipes()
		a := accept(g.WebSocket(p, nil, WebSocketOptions{}))
		var clients []net.Conn
		for range 3 {
			c := p.dial("10.0.0.1")
			clients = append(clients, c)
			go func() { // a header each second
				for i := 0; ; i++ {
					if _, err := fmt.Fprintf(c, "X-%d: y\r\n", i); err != nil {
						return
					}
					time.Sleep(time.Second)
				}
			}()
		}
		synctest.Wait()
		honest := p.dial("10.0.0.2")
		began := time.Now()
		go func() { _, _ = io.WriteString(honest, hello+"\r\n") }()
		answer, err := http.ReadResponse(bufio.NewReader(honest), nil)
		if err != nil || answer.StatusCode != 101 || time.Since(began) > 0 {
			t.Errorf("%v %v after %s", answer, err, time.Since(began))
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if s := g.Stats(); s.Refused[Timeout]+s.Refused[WebSocket] != 3 || s.Handshaking != 0 {
			t.Errorf("%+v", s)
		}
		a.stop(t)
		for _, c := range append(clients, honest) {
			_ = c.Close()
		}
	})
}

// A page that floods the door with requests changes nothing for a TLS stranger
// either: rubbish, half a hello, another protocol.
func TestRubbishOnTLS(t *testing.T) {
	cert, _ := certificate(t)
	g := New(Options{})
	l := closing(t, g.TLS(listenTCP(t), &tls.Config{Certificates: []tls.Certificate{cert}}))
	echo(t, l)
	for _, bytes := range []string{"GET / HTTP/1.1\r\n\r\n", "\x10\x20\x00\x04MQTT\x05\x02\x00\x3c", "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03", "\x16\x03\x01\x40\x00\x01\xff\xff\xff", ""} {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, bytes)
		if bytes == "" || bytes[0] == 0x16 { // nothing more comes
			_ = c.(*net.TCPConn).CloseWrite()
		}
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		_, _ = io.Copy(io.Discard, c)
		_ = c.Close()
	}
	await(t, "the counters", func() bool { s := g.Stats(); return s.Arrived == 5 && total(s) == 5 && s.Accepted+s.Handshaking == 0 })
	if s := g.Stats(); s.Refused[NotTLS] != 2 || s.Refused[Left]+s.Refused[TLS] != 3 {
		t.Errorf("%+v", s)
	}
}

// Memory of an idle WebSocket connection beside its socket: measured, not
// guessed.
func BenchmarkIdleWebSocket(b *testing.B) {
	request := []byte(hello + "\r\n")
	u := newUpgrader(WebSocketOptions{})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	all := make([]net.Conn, 0, b.N)
	for b.Loop() {
		c, err := u.shake(&script{in: request}, nil)
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, c)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(len(all)), "B/conn")
	runtime.KeepAlive(all)
}

// script is a connection that brings in and swallows what is written.
type script struct {
	net.Conn
	in []byte
}

func (s *script) Read(p []byte) (int, error) {
	n := copy(p, s.in)
	if s.in = s.in[n:]; n == 0 {
		return 0, io.EOF
	}
	return n, nil
}
func (s *script) Write(p []byte) (int, error) { return len(p), nil }
func (s *script) LocalAddr() net.Addr         { return nil }
