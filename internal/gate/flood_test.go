package gate

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener whose connections come from wherever a test says, without
// a network: time stands still while they talk.
type pipes struct {
	come chan net.Conn
	fail chan error
	done chan struct{}
	once sync.Once
}

func newPipes() *pipes {
	return &pipes{come: make(chan net.Conn, 4096), fail: make(chan error, 1), done: make(chan struct{})}
}

type from struct {
	net.Conn
	addr net.Addr
}

func (f from) RemoteAddr() net.Addr { return f.addr }

// dial gives the client's end of a connection from addr.
func (p *pipes) dial(addr string) net.Conn {
	client, server := net.Pipe()
	p.come <- from{server, &net.TCPAddr{IP: net.ParseIP(addr), Port: 1}}
	return client
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.come:
		return c, nil
	case err := <-p.fail:
		return nil, err
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// accepting collects what comes through, until the listener is closed.
type accepting struct {
	l    net.Listener
	done chan struct{}
	mu   sync.Mutex
	at   map[string][]time.Duration // by address: when, since the beginning
	all  []net.Conn
}

func accept(l net.Listener) *accepting {
	a := &accepting{l: l, done: make(chan struct{}), at: map[string][]time.Duration{}}
	began := time.Now()
	go func() {
		defer close(a.done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			a.mu.Lock()
			a.at[host] = append(a.at[host], time.Since(began))
			a.all = append(a.all, c)
			a.mu.Unlock()
		}
	}()
	return a
}

func (a *accepting) of(addr string) []time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.at[addr]
}

func (a *accepting) stop(t *testing.T) {
	t.Helper()
	if err := a.l.Close(); err != nil {
		t.Error(err)
	}
	<-a.done
	for _, c := range a.all {
		_ = c.Close()
	}
	if err := a.l.Close(); err != nil {
		t.Error("closed twice:", err)
	}
	if _, err := a.l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error("accept after Close:", err)
	}
}

// total is what became of all connections; none may be missing.
func total(s Stats) int64 {
	n := s.Accepted + s.Waiting + s.Handshaking
	for _, k := range s.Refused {
		n += k
	}
	return n
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{Rate: 10, Burst: 3})
		p := newPipes()
		a := accept(g.TCP(p))
		var clients []net.Conn
		for range 20 {
			clients = append(clients, p.dial("10.0.0.1"))
		}
		for _, want := range []struct {
			after time.Duration
			n     int
		}{{0, 3}, {50 * time.Millisecond, 3}, {60 * time.Millisecond, 4}, {500 * time.Millisecond, 9}, {2 * time.Second, 20}} {
			time.Sleep(want.after)
			synctest.Wait()
			if got := len(a.of("10.0.0.1")); got != want.n {
				t.Errorf("after another %s: %d accepted, want %d", want.after, got, want.n)
			}
		}
		if s := g.Stats(); s.Delayed != 17 || s.Accepted != 20 || s.Waiting != 0 {
			t.Errorf("%+v", s)
		}
		a.stop(t)
		for _, c := range clients {
			_ = c.Close()
		}
	})
}

// A thousand connections of one address: another one gets through as if they
// were not there, and what the first holds is bounded.
func TestOneAddressFloods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{Rate: 10, Burst: 1, PerAddress: 8, HandshakeTimeout: time.Hour})
		p := newPipes()
		a := accept(g.TCP(p))
		var clients []net.Conn
		for range 1000 {
			clients = append(clients, p.dial("10.0.0.1"))
		}
		synctest.Wait()
		if s := g.Stats(); s.Waiting < 7 || s.Waiting > 8 || s.Waiting+s.Refused[PerAddress] != 999 || s.Accepted != 1 { // the first may count while it is handed over
			t.Errorf("%+v", s)
		}
		for range 3 {
			clients = append(clients, p.dial("10.0.0.2"))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		// It waits for one of the other's each time.
		if got := a.of("10.0.0.2"); len(got) != 3 || got[2] > 700*time.Millisecond {
			t.Errorf("accepted at %v", got)
		}
		if s := g.Stats(); total(s) != s.Arrived {
			t.Errorf("%+v: %d are missing", s, s.Arrived-total(s))
		}
		a.stop(t)
		for _, c := range clients {
			_ = c.Close()
		}
	})
}

// The bound is on addresses from elsewhere, and for IPv6 on what one customer
// has.
func TestAddresses(t *testing.T) {
	g := New(Options{PerAddress: 2})
	defer func() { // after all is released
		if len(g.held) != 0 {
			t.Errorf("left behind: %v", g.held)
		}
	}()
	for _, c := range []struct {
		addr string
		key  string
		ok   bool // the third connection
	}{
		{"192.0.2.1", "192.0.2.1", false}, {"::ffff:192.0.2.2", "192.0.2.2", false}, {"2001:db8:1:2:3::4", "2001:db8:1:2::", false},
		{"127.0.0.9", "127.0.0.9", true}, {"::1", "::1", true},
	} {
		key := AddressOf(&net.TCPAddr{IP: net.ParseIP(c.addr)})
		if key != netip.MustParseAddr(c.key) {
			t.Errorf("%s counts as %s, want %s", c.addr, key, c.key)
		}
		for n := range 3 {
			if got := g.hold(key); got != (n < 2 || c.ok) {
				t.Errorf("%s, connection %d: %v", c.addr, n, got)
			} else if got {
				defer g.release(key)
			}
		}
	}
}

// Strangers who say nothing take all places; an honest client gets one as soon
// as one of them had a quarter of the time, and strangers in crowds pass.
func TestSilentStrangers(t *testing.T) {
	cert, pool := certificate(t)
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{Handshakes: 16, PerAddress: 1000, HandshakeTimeout: 8 * time.Second})
		p := newPipes()
		a := accept(g.TLS(p, &tls.Config{Certificates: []tls.Certificate{cert}}))
		var silent []net.Conn
		for i := range 1000 {
			silent = append(silent, p.dial(fmt.Sprintf("10.0.0.%d", i%4)))
		}
		synctest.Wait()
		if s := g.Stats(); s.Handshaking != 16 {
			t.Fatalf("%+v", s)
		}
		began := time.Now()
		honest := tls.Client(p.dial("192.0.2.7"), &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"})
		if err := honest.Handshake(); err != nil {
			t.Fatalf("%v after %s: %+v", err, time.Since(began), g.Stats())
		}
		if waited := time.Since(began); waited > 2100*time.Millisecond {
			t.Errorf("the honest client waited %s", waited)
		}
		synctest.Wait()
		if len(a.of("192.0.2.7")) != 1 {
			t.Error("the honest client was not accepted")
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		s := g.Stats()
		if s.Waiting+s.Handshaking != 0 || s.Refused[Crowded] == 0 || s.Refused[Timeout] == 0 || s.Refused[Waited] == 0 || total(s) != s.Arrived || s.Arrived != 1001 {
			t.Errorf("%+v", s)
		}
		a.stop(t)
		for _, c := range append(silent, honest) {
			_ = c.Close()
		}
	})
}

// Close ends those who wait, those in a handshake and those nobody accepts.
func TestCloseEndsAll(t *testing.T) {
	cert, pool := certificate(t)
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{Handshakes: 2})
		p := newPipes()
		l := g.TLS(p, &tls.Config{Certificates: []tls.Certificate{cert}})
		first := tls.Client(p.dial("10.0.0.1"), &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"})
		other := newPipes()
		unused := g.TCP(other)
		clients := []net.Conn{first, other.dial("10.0.0.1")}
		go func() { _ = first.Handshake() }()
		if _, err := l.Accept(); err != nil {
			t.Fatal(err)
		}
		done := tls.Client(p.dial("10.0.0.1"), &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"})
		if err := done.Handshake(); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			clients = append(clients, p.dial("10.0.0.2"))
		}
		synctest.Wait()
		if s := g.Stats(); s.Handshaking != 1 || s.Waiting != 4 {
			t.Errorf("%+v", s)
		}
		for _, l := range []net.Listener{l, unused} {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
		s := g.Stats()
		if s.Handshaking+s.Waiting != 0 || total(s) != s.Arrived || s.Refused[Stopped] != 6 || len(g.held) != 0 {
			t.Errorf("%+v, held %v", s, g.held)
		}
		if _, err := done.Read(make([]byte, 1)); err == nil {
			t.Error("a connection that nobody accepted lives")
		}
		for _, c := range append(clients, done) {
			_ = c.Close()
		}
		for len(other.come) > 0 {
			_ = (<-other.come).Close()
		}
	})
}

// What the kernel says reaches who accepts, and the listener goes on.
func TestAcceptErrors(t *testing.T) {
	g := New(Options{})
	p := newPipes()
	l := g.TCP(p)
	trouble := errors.New("too many open files")
	p.fail <- trouble
	if _, err := l.Accept(); !errors.Is(err, trouble) {
		t.Errorf("got %v", err)
	}
	c := p.dial("10.0.0.1")
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = c.Close(), s.Close()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// Strangers do not decide how much is logged.
func TestRefusalsAreLoggedOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		g := New(Options{Logger: slog.New(slog.NewTextHandler(&out, nil))})
		remote := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 7}
		for range 2 {
			for range 500 {
				g.refuse(NotTLS, remote, "tls", errors.New("rubbish"))
			}
			g.refuse(Origin, remote, "ws", nil)
			g.refuse(Left, remote, "tls", nil)
			time.Sleep(time.Second)
		}
		if text := out.String(); strings.Count(text, "\n") != 4 || !strings.Contains(text, "left_out=499") || !strings.Contains(text, "remote=10.0.0.1:7") {
			t.Errorf("logged:\n%s", text)
		}
		if s := g.Stats(); s.Refused[NotTLS] != 1000 || s.Refused[Origin] != 2 || s.Refused[Left] != 2 {
			t.Errorf("%+v", s)
		}
	})
}
