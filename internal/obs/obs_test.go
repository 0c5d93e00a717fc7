package obs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLogger(t *testing.T) {
	var b bytes.Buffer
	log := NewLogger(&b, LogConfig{Level: Level(slog.LevelWarn), Format: JSON})
	log.Info("dropped")
	log.Warn("kept", "lane", "bulk")
	var line map[string]any
	if err := json.Unmarshal(b.Bytes(), &line); err != nil || line["msg"] != "kept" || line["lane"] != "bulk" {
		t.Errorf("%q: %v", b.String(), err)
	}
	b.Reset()
	NewLogger(&b, DefaultLog()).Info("kept", "n", 1)
	if !strings.HasSuffix(b.String(), "level=INFO msg=kept n=1\n") {
		t.Errorf("%q", b.String())
	}
	for _, name := range []string{"debug", "info", "warn", "error"} {
		var l Level
		if err := l.UnmarshalText([]byte(name)); err != nil {
			t.Error(err)
		}
		if back, _ := l.MarshalText(); string(back) != name {
			t.Errorf("%s comes back as %s", name, back)
		}
	}
	var l Level
	var f Format
	if l.UnmarshalText([]byte("INFO")) == nil || f.UnmarshalText([]byte("xml")) == nil {
		t.Error("an unknown level or format is accepted")
	}
}

func TestMetrics(t *testing.T) {
	m := NewMetrics("packetboat_test")
	var n atomic.Int64
	m.Register(func(e *Emit) {
		v := float64(n.Add(1))
		e.Counter("things_total", "Things done.", v, "lane", "bulk")
		e.Counter("things_total", "Things done.", v+1, "lane", "urgent")
		e.Gauge("level_bytes", "A level.", 7)
	})
	want := `# HELP packetboat_test_level_bytes A level.
# TYPE packetboat_test_level_bytes gauge
packetboat_test_level_bytes 7
# HELP packetboat_test_things_total Things done.
# TYPE packetboat_test_things_total counter
packetboat_test_things_total{lane="bulk"} 1
packetboat_test_things_total{lane="urgent"} 2
`
	if err := testutil.GatherAndCompare(m.Gatherer(), strings.NewReader(want), "packetboat_test_level_bytes", "packetboat_test_things_total"); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.GatherAndLint(m.Gatherer()); err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
}

func get(t *testing.T, base, path string) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	resp, err := client.Get(base + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestServe(t *testing.T) {
	var h Health
	var disk atomic.Bool
	h.Ready("disk", func() error {
		if disk.Load() {
			return nil
		}
		return errors.New("no space left")
	})
	h.Alive("loop", func() error { return nil })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, Mux(NewMetrics("packetboat_test"), &h), slog.New(slog.DiscardHandler)) }()
	base := "http://" + l.Addr().String()
	if code, body := get(t, base, "/healthz"); code != 200 || body != "ok\n" {
		t.Errorf("healthz: %d %q", code, body)
	}
	if code, body := get(t, base, "/readyz"); code != 503 || body != "disk: no space left\n" {
		t.Errorf("readyz: %d %q", code, body)
	}
	disk.Store(true)
	if code, body := get(t, base, "/readyz"); code != 200 || body != "ok\n" {
		t.Errorf("readyz: %d %q", code, body)
	}
	if code, body := get(t, base, "/metrics"); code != 200 || !strings.Contains(body, "packetboat_test_build_info{") || !strings.Contains(body, "go_goroutines") {
		t.Errorf("metrics: %d, %d bytes", code, len(body))
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("still listening")
	}
}

func TestServeTellsOfADeadListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := Serve(context.Background(), l, http.NewServeMux(), slog.New(slog.DiscardHandler)); err == nil {
		t.Error("no error")
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &limited{Listener: inner, slots: make(chan struct{}, 1), closed: make(chan struct{})}
	for range 2 {
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	first, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	second := make(chan net.Conn)
	go func() {
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		second <- c
	}()
	select {
	case <-second:
		t.Error("two connections at once")
	case <-time.After(20 * time.Millisecond): // both are there: without a bound it is immediate
	}
	first.Close()
	first.Close() // gives back one slot, not two
	c := <-second
	if len(l.slots) != 1 {
		t.Errorf("%d slots are taken", len(l.slots))
	}
	ended := make(chan error)
	go func() {
		_, err := l.Accept()
		ended <- err
	}()
	l.Close()
	if err := <-ended; err == nil {
		t.Error("a closed listener accepts")
	}
	c.Close()
}

// systemd is the receiving side of the notification protocol.
func systemd(t *testing.T) (recv func() string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "n")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return func() string {
		t.Helper()
		buf := make([]byte, 4096)
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
}

func TestNotify(t *testing.T) {
	recv := systemd(t)
	n := NewNotify(slog.New(slog.DiscardHandler))
	n.Ready("serving")
	n.Status("busy")
	n.Stopping("signal")
	for _, want := range []string{"READY=1\nSTATUS=serving", "STATUS=busy", "STOPPING=1\nSTATUS=signal"} {
		if got := recv(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	t.Setenv("WATCHDOG_USEC", "20000")
	t.Setenv("WATCHDOG_PID", "")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	sick := make(chan bool, 1)
	sick <- true
	go func() {
		defer close(done)
		n.Watchdog(ctx, func() error {
			select {
			case <-sick:
				return errors.New("sick once")
			default:
				return nil
			}
		})
	}()
	for range 2 {
		if got := recv(); got != "WATCHDOG=1" {
			t.Errorf("got %q", got)
		}
	}
	cancel()
	<-done
}

func TestNotifyWithoutSystemd(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "")
	n := NewNotify(slog.New(slog.DiscardHandler))
	n.Ready("x")
	n.Watchdog(context.Background(), func() error { t.Error("asked"); return nil })
}

func TestVersion(t *testing.T) {
	b := Version()
	if b.Version == "" || !strings.HasPrefix(b.Go, "go") || !strings.Contains(b.String(), b.Platform) {
		t.Errorf("%+v: %s", b, b)
	}
	if got := (Build{Version: "1.2", Revision: "0123456789abcdef", Modified: true, Go: "go1", Platform: "p"}).String(); got != "1.2 0123456789ab+ (go1, p)" {
		t.Error(got)
	}
}
