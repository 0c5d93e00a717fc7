package badlink

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second // deadline of what must happen; never what is measured

// echo is a target that sends back what it gets, and closes in order.
func echo(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			})
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return ln.Addr().String()
}

// start runs a link to target until the test ends.
func start(t *testing.T, o Options) *Link {
	t.Helper()
	o.Listen = "127.0.0.1:0"
	l, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l
}

func dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

func roundTrip(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, len(text))
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != text {
		t.Fatalf("sent %q, got back %q: %v", text, buf, err)
	}
}

// eventually polls cond until it holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(time.Millisecond) // a poll with a deadline, not a guess at how long it takes
	}
}

func TestBytesPassUnchanged(t *testing.T) {
	for name, c := range map[string]Conditions{
		"perfect": {},
		"bad":     {RateUp: 20 << 20, RateDown: 20 << 20, Delay: time.Millisecond, Jitter: time.Millisecond, Loss: 0.02, Stall: time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			l := start(t, Options{Target: echo(t), Conditions: c, Seed: 7})
			data := make([]byte, 1<<20)
			rng := rand.NewChaCha8([32]byte{1})
			_, _ = rng.Read(data)
			conn := dial(t, l.Addr())
			var wg sync.WaitGroup
			defer wg.Wait()
			wg.Go(func() {
				if _, err := conn.Write(data); err != nil {
					t.Error(err)
				}
				_ = conn.CloseWrite()
			})
			back, err := io.ReadAll(conn) // ends: the close goes through both ways
			if err != nil || !bytes.Equal(back, data) {
				t.Fatalf("%d bytes came back of %d: %v", len(back), len(data), err)
			}
			if s := l.Stats(); s.BytesUp != int64(len(data)) || s.BytesDown != int64(len(data)) || s.Accepted != 1 {
				t.Errorf("counted %+v", s)
			}
			eventually(t, "connection forgotten", func() bool { return l.Stats().Connections == 0 })
		})
	}
}

func TestBlackHoleFreezesAndThaws(t *testing.T) {
	l := start(t, Options{Target: echo(t)})
	old := dial(t, l.Addr())
	roundTrip(t, old, "before")
	before := Stats{}
	eventually(t, "all is counted", func() bool {
		before = l.Stats()
		return before.BytesUp == int64(len("before")) && before.BytesDown == before.BytesUp
	})
	if err := l.Cut(BlackHole); err != nil {
		t.Fatal(err)
	}
	fresh := dial(t, l.Addr()) // accepted
	for _, c := range []*net.TCPConn{old, fresh} {
		if _, err := io.WriteString(c, "lost?"); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "second connection accepted", func() bool { return l.Stats().Accepted == 2 })
	if err := old.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := old.Read(make([]byte, 8)); !isTimeout(err) {
		t.Fatalf("read %d bytes, %v through a black hole", n, err)
	}
	if after := l.Stats(); after.BytesUp != before.BytesUp || after.BytesDown != before.BytesDown {
		t.Fatalf("bytes flowed: %+v then %+v", before, after)
	}
	if err := l.Cut(Up); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*net.TCPConn{old, fresh} {
		_ = c.SetDeadline(time.Now().Add(patience))
		buf := make([]byte, 5)
		if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "lost?" {
			t.Fatalf("after the hole: %q %v", buf, err)
		}
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// mustEnd dials addr and sees the connection end: while dialling, as some
// systems show an early reset, or at the first read.
func mustEnd(t *testing.T, addr string) {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		if isTimeout(err) || errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("dial: %v", err)
		}
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Fatalf("the connection survives: %v", err)
	}
}

func TestRefuseAndReset(t *testing.T) {
	l := start(t, Options{Target: echo(t)})
	old := dial(t, l.Addr())
	roundTrip(t, old, "before")
	if err := l.Cut(Refuse); err != nil {
		t.Fatal(err)
	}
	if _, err := old.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Fatalf("an old connection survives refuse: %v", err)
	}
	if c, err := net.Dial("tcp", l.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("dial gives %v, %v", c, err)
	}
	if err := l.Cut(Reset); err != nil {
		t.Fatal(err)
	}
	mustEnd(t, l.Addr())
	if err := l.Cut(Up); err != nil {
		t.Fatal(err)
	}
	roundTrip(t, dial(t, l.Addr()), "after")
}

func TestTargetNotThere(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	l := start(t, Options{Target: ln.Addr().String()})
	mustEnd(t, l.Addr())
	eventually(t, "counted", func() bool { return l.Stats().Unreachable == 1 })
}

func TestControlAddress(t *testing.T) {
	l := start(t, Options{Target: echo(t)})
	srv := httptest.NewServer(l.Handler())
	defer srv.Close()
	defer http.DefaultClient.CloseIdleConnections()
	post := func(query string, want int) (s status) {
		t.Helper()
		resp, err := http.Post(srv.URL+"/?"+query, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != want {
			t.Fatalf("%s: %s", query, resp.Status)
		}
		if want == http.StatusOK {
			if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
				t.Fatal(err)
			}
		}
		return s
	}
	if s := post("cut=blackhole&rate-up=2000&delay=5ms", 200); s.Conditions.Cut != BlackHole || s.Conditions.RateUp != 2000 || s.Conditions.Delay != 5*time.Millisecond {
		t.Errorf("conditions %+v", s.Conditions)
	}
	post("cut=gone", 400)
	post("speed=9", 400)
	if got := l.Conditions(); got.Cut != BlackHole || got.RateUp != 2000 || got.RateDown != 0 {
		t.Errorf("after bad requests: %+v", got)
	}
	post("up&rate=%zz", 400)
	if s := post("up&rate=0&rate-down=7&", 200); s.Conditions.Cut != Up || s.Conditions.RateUp != 0 || s.Conditions.RateDown != 7 {
		t.Errorf("a cut by its name, then changes in their order: %+v", s.Conditions)
	}
}

func TestScheduleIsFollowed(t *testing.T) {
	s, err := ParseSchedule("0s:rate=5000, 1ms:cut=refuse ,2ms:up,3ms:rate-down=6000")
	if err != nil {
		t.Fatal(err)
	}
	l := start(t, Options{Target: echo(t), Schedule: s})
	eventually(t, "schedule done", func() bool {
		c := l.Conditions()
		return c.Cut == Up && c.RateUp == 5000 && c.RateDown == 6000
	})
	roundTrip(t, dial(t, l.Addr()), "hi")
}

func TestCloseWithoutRun(t *testing.T) {
	l, err := New(Options{Listen: "127.0.0.1:0", Target: "127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("tcp", l.Addr()); err == nil {
		t.Fatal("the address is still taken")
	}
}
