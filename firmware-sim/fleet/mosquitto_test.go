package fleet

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/packetboat/packetboat/firmware-sim/signals"
	"github.com/packetboat/packetboat/internal/rig/badlink"
	"github.com/packetboat/packetboat/internal/rig/receipts"
)

// mosquitto is the broker of the field, with a folder for its sessions.
type mosquitto struct {
	t    *testing.T
	path string
	conf string
	addr string
	cmd  *exec.Cmd
}

func newMosquitto(t *testing.T) *mosquitto {
	t.Helper()
	m := &mosquitto{t: t}
	for _, name := range []string{"mosquitto", "/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/opt/homebrew/sbin/mosquitto"} {
		if path, err := exec.LookPath(name); err == nil {
			m.path = path
			break
		}
	}
	if m.path == "" {
		t.Skip("NOT TESTED: mosquitto is not installed, so QoS 2 sensors are not tried against it (Debian: apt install mosquitto)")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.addr = ln.Addr().String()
	ln.Close() // it cannot be handed over
	_, port, _ := net.SplitHostPort(m.addr)
	dir := t.TempDir()
	m.conf = filepath.Join(dir, "mosquitto.conf")
	// Of a 3.1.1 client that has more in flight than max_inflight_messages,
	// mosquitto 2.0 loses QoS 2 messages that it has acknowledged.
	text := fmt.Sprintf("listener %s 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location %s/\nmax_queued_messages 0\nmax_inflight_messages 100\n", port, dir)
	if os.Geteuid() == 0 {
		text += "user root\n" // else it gives up its rights, and its folder with them
	}
	if err := os.WriteFile(m.conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	m.start()
	t.Cleanup(m.stop)
	return m
}

func (m *mosquitto) start() {
	m.t.Helper()
	m.cmd = exec.Command(m.path, "-c", m.conf)
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		if c, err := net.Dial("tcp", m.addr); err == nil {
			c.Close()
			return
		}
	}
	m.t.Fatal("mosquitto does not listen")
}

// stop has it write its sessions down.
func (m *mosquitto) stop() {
	_ = m.cmd.Process.Signal(syscall.SIGTERM)
	_ = m.cmd.Wait()
}

// reader is mosquitto_sub with a session of its own; it notes what it gets.
type reader struct {
	mu  sync.Mutex
	got map[string][]receipts.Hash // guarded by mu; by topic
	n   int                        // guarded by mu
}

func (m *mosquitto) read() *reader {
	m.t.Helper()
	r := &reader{got: map[string][]receipts.Hash{}}
	host, port, _ := net.SplitHostPort(m.addr)
	cmd := exec.Command("mosquitto_sub", "-h", host, "-p", port, "-c", "-i", "reader", "-q", "2", "-t", "#", "-F", "%t %p")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if errors.Is(err, exec.ErrNotFound) {
		m.t.Skip("NOT TESTED: mosquitto_sub is not there to read what mosquitto got (Debian: apt install mosquitto-clients)")
	}
	if err != nil {
		m.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for s := bufio.NewScanner(out); s.Scan(); {
			topic, payload, _ := strings.Cut(s.Text(), " ")
			r.mu.Lock()
			r.got[topic] = append(r.got[topic], receipts.HashOf([]byte(payload)))
			r.n++
			r.mu.Unlock()
		}
	}()
	m.t.Cleanup(func() { _ = cmd.Process.Kill(); <-done; _ = cmd.Wait() })
	return r
}

func (r *reader) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n
}

// Against mosquitto, through cuts and a restart of it: what QoS 2 sensors send
// arrives exactly once and in order, although much of it is sent again.
func TestExactlyOnceAgainstMosquitto(t *testing.T) {
	for _, version := range []byte{4, 5} {
		t.Run(fmt.Sprint("version ", version), func(t *testing.T) {
			m := newMosquitto(t)
			out := m.read()
			link, err := badlink.New(badlink.Options{Listen: "127.0.0.1:0", Target: m.addr, Conditions: badlink.Conditions{Delay: time.Millisecond}})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			linkDone := make(chan error, 1)
			go func() { linkDone <- link.Run(ctx) }()
			defer func() { cancel(); <-linkDone }()

			path := filepath.Join(t.TempDir(), "receipts")
			w, err := receipts.Append(path)
			if err != nil {
				t.Fatal(err)
			}
			const sensors, each = 3, 2000
			var clients []Client
			for i := range sensors {
				name := fmt.Sprint("dev-", i)
				d, err := signals.New(signals.Options{Profile: "steady", Name: name, Seed: 1, Start: time.Now()})
				if err != nil {
					t.Fatal(err)
				}
				clients = append(clients, Client{ID: name, Source: FromDevice(d, each/100*time.Second)})
			}
			f, err := New(clients, Options{Broker: link.Addr(), QoS: 2, Version: version, Window: 50, Receipts: w})
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- f.Run(ctx) }()
			for cut := range 12 {
				poll(t, "messages arrive", func() bool { return out.count() >= sensors*each/15*(cut+1) })
				if cut == 6 {
					m.stop()
					m.start()
					continue
				}
				if err := errors.Join(link.Cut(badlink.Reset), link.Cut(badlink.Up)); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(<-done, w.Close()); err != nil {
				t.Fatal(err)
			}
			poll(t, "all have arrived", func() bool { return out.count() >= sensors*each })
			m.judge(path, f, out)
		})
	}
}

// judge holds the receipts against what arrived.
func (m *mosquitto) judge(path string, f *Fleet, out *reader) {
	m.t.Helper()
	all, unfinished := readReceipts(m.t, path)
	want := map[string][]receipts.Hash{}
	again := 0
	for _, r := range all {
		if !r.Acked || r.QoS != 2 || len(r.Sessions) != 1 {
			m.t.Fatalf("%+v", r)
		}
		if r.Tries > 1 {
			again++
		}
		want[r.Topic] = append(want[r.Topic], r.Hash)
	}
	out.mu.Lock()
	defer out.mu.Unlock()
	for topic, hashes := range want {
		if fmt.Sprint(out.got[topic]) != fmt.Sprint(hashes) {
			m.t.Errorf("%s: %d arrived of %d, or in another order", topic, len(out.got[topic]), len(hashes))
		}
	}
	s := f.Stats()
	if len(all) != out.n || unfinished > 0 || again == 0 || s.SessionsLost > 0 || s.InFlight > 0 {
		m.t.Errorf("%d receipts, %d arrived, %d sent again, %+v", len(all), out.n, again, s)
	}
	m.t.Logf("%d messages, %d of them sent again, %d PUBRELs sent again, %d connections", len(all), again, s.Released, s.Connections)
}

func poll(t *testing.T, what string, holds func() bool) {
	t.Helper()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for end := time.Now().Add(60 * time.Second); !holds(); <-look.C {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}
