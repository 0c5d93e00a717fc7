package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/packetboat/packetboat/firmware-sim/proc"
)

// patience is how long a condition may take on a busy machine before a test
// calls it never. It bounds a hang; it judges no speed.
const patience = 90 * time.Second

var bin string // folder with the three binaries

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "packetboat-e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	programs := map[string]string{"packetboat-edge": "./cmd/edge", "packetboat-hub": "./cmd/hub", "packetboat-sim": "./firmware-sim"}
	if err := proc.Build(context.Background(), filepath.Join("..", ".."), dir, programs); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	bin = dir
	return m.Run()
}

var lookAtSources = sync.OnceValue(func() error { return proc.LookAtSources(filepath.Join("..", "..")) })

// process is a binary that runs; its test ends it.
type process struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

func start(t *testing.T, logs, name string, args ...string) *process {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(logs, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fmt.Fprintf(f, "--- %s %s\n", name, strings.Join(args, " "))
	exe, _, _ := strings.Cut(name, "@") // "packetboat-edge@clone" runs packetboat-edge
	c := exec.Command(filepath.Join(bin, exe), args...)
	c.Stdout, c.Stderr = f, f
	c.Dir = logs
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, name: name, cmd: c, log: f.Name(), done: make(chan struct{})}
	go func() {
		_ = c.Wait()
		close(p.done)
	}()
	t.Cleanup(p.kill)
	return p
}

// kill is kill -9; nothing happens to a process that has ended.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// stop asks for an orderly end and wants exit code 0.
func (p *process) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatalf("%s had ended before: %v\n%s", p.name, err, tail(p.log))
	}
	p.wait(0)
}

// wait waits for the end and wants an exit code.
func (p *process) wait(code int) {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatalf("%s does not end\n%s", p.name, tail(p.log))
	}
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		p.t.Fatalf("%s exits with %d, want %d\n%s", p.name, got, code, tail(p.log))
	}
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func tail(path string) string {
	b, _ := os.ReadFile(path)
	if len(b) > 4000 {
		b = b[len(b)-4000:]
	}
	return string(b)
}

// eventually polls until what holds; a test waits for conditions, not for time.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		if _, given := ports.LoadOrStore(l.Addr().String(), true); !given {
			return l.Addr().String()
		}
	}
}

// ports are those that freePort gave: the kernel may give one twice.
var ports sync.Map

// world is a folder, ports, and what runs on them.
type world struct {
	t                *testing.T
	dir              string
	hubMQTT, hubHTTP string
	hubURL           string            // what edges dial: the hub, or a bad link before it
	otherHubs        []string          // URLs that edges dial when that one is gone
	hubTLS           string            // hub.tls of edges, indented
	more, hubMore    map[string]string // by edge: further configuration, and of its hub, indented
	hub              *process
	receipts         string
}

// newWorld starts a hub.
func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldWith(t, "")
}

// newWorldWith starts a hub with further configuration.
func newWorldWith(t *testing.T, hub string) *world {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Fatal("the edge and the hub run on Linux and macOS")
	}
	if err := lookAtSources(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	w := &world{t: t, dir: dir, hubMQTT: freePort(t), hubHTTP: freePort(t), receipts: filepath.Join(dir, "receipts"), more: map[string]string{}, hubMore: map[string]string{}}
	w.hubURL = "tcp://" + w.hubMQTT
	t.Cleanup(func() {
		if t.Failed() {
			logs, _ := filepath.Glob(filepath.Join(dir, "*.log"))
			for _, l := range logs {
				t.Logf("%s:\n%s", filepath.Base(l), tail(l))
			}
		}
	})
	w.write("hub.yaml", fmt.Sprintf("data_dir: %s\nlisten:\n  mqtt: %s\n  http: %s\n%s", w.path("hub-data"), w.hubMQTT, w.hubHTTP, hub))
	w.startHub()
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) write(name, text string) {
	w.t.Helper()
	if err := os.WriteFile(w.path(name), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) startHub() {
	w.t.Helper()
	w.hub = start(w.t, w.dir, "packetboat-hub", "run", "--config", w.path("hub.yaml"))
	ready(w.t, w.hub, w.hubHTTP)
}

// edge is an edge agent with its own folder and ports.
type edge struct {
	*process
	w          *world
	name, data string
	mqtt, http string
}

// newEdge starts an edge with device id "truck" whose files lie in data.
func (w *world) newEdge(name, data string) *edge {
	w.t.Helper()
	return w.newDevice("truck", name, data)
}

// newDevice starts an edge with another device id.
func (w *world) newDevice(device, name, data string) *edge {
	w.t.Helper()
	e := &edge{w: w, name: name, data: w.path(data), mqtt: freePort(w.t), http: freePort(w.t)}
	urls := strings.Join(append([]string{w.hubURL}, w.otherHubs...), ", ")
	w.write(name+".yaml", fmt.Sprintf("device: %s\ndata_dir: %s\nlisten:\n  mqtt: %s\n  http: %s\nhub:\n  urls: [%s]\n%s%s%s", device, e.data, e.mqtt, e.http, urls, w.hubTLS, w.hubMore[name], w.more[name]))
	e.start()
	return e
}

func (e *edge) start() {
	e.w.t.Helper()
	e.process = start(e.w.t, e.w.dir, "packetboat-edge@"+e.name, "run", "--config", e.w.path(e.name+".yaml"))
	ready(e.w.t, e.process, e.http)
}

func ready(t *testing.T, p *process, addr string) {
	t.Helper()
	eventually(t, p.name+" is ready", func() bool {
		if p.ended() {
			t.Fatalf("%s ended\n%s", p.name, tail(p.log))
		}
		r, err := http.Get("http://" + addr + "/readyz")
		if err != nil {
			return false
		}
		defer r.Body.Close()
		_, _ = io.Copy(io.Discard, r.Body)
		return r.StatusCode == http.StatusOK
	})
}

// metric sums the samples of a metric, 0 while nobody answers.
func metric(addr, name string) (sum float64) {
	r, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		return 0
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name); ok && (rest[0] == ' ' || rest[0] == '{') {
			var v float64
			if _, err := fmt.Sscan(rest[strings.LastIndexByte(rest, ' ')+1:], &v); err == nil {
				sum += v
			}
		}
	}
	return sum
}

func (e *edge) accepted() float64 { return metric(e.http, "packetboat_edge_accepted_messages_total") }
func (e *edge) settled() float64  { return metric(e.http, "packetboat_edge_settled_messages_total") }
func (e *edge) lost() float64     { return metric(e.http, "packetboat_edge_lost_messages_total") }
func (e *edge) backlog() float64  { return metric(e.http, "packetboat_edge_backlog_messages") }

// drained waits until the edge has nothing left to answer for.
func (e *edge) drained() {
	e.w.t.Helper()
	eventually(e.w.t, e.name+" is drained", func() bool {
		if e.ended() {
			e.w.t.Fatalf("%s ended\n%s", e.process.name, tail(e.log))
		}
		a := e.accepted()
		return a > 0 && e.backlog() == 0 && e.settled()+e.lost() >= a
	})
}

// sensors starts the simulator against an edge; rate is messages/s in all.
func (w *world) sensors(e *edge, seed int, rate int, extra ...string) *process {
	w.t.Helper()
	args := append([]string{"sensors", "--broker", "tcp://" + e.mqtt, "--profile", "steady", "--clients", "4", "--qos", "1",
		"--rate", fmt.Sprint(rate), "--seed", fmt.Sprint(seed), "--receipts", w.receipts}, extra...)
	return start(w.t, w.dir, "packetboat-sim@"+fmt.Sprint(seed), args...)
}

// command runs a binary to its end and returns what it prints.
func (w *world) command(name string, args ...string) (string, int) {
	w.t.Helper()
	c := exec.Command(filepath.Join(bin, name), args...)
	c.Dir = w.dir
	var out, errOut bytes.Buffer
	c.Stdout, c.Stderr = &out, &errOut
	err := c.Run()
	if c.ProcessState == nil {
		w.t.Fatal(err)
	}
	if errOut.Len() > 0 {
		w.t.Logf("%s %s: %s", name, strings.Join(args, " "), errOut.String())
	}
	return out.String(), c.ProcessState.ExitCode()
}

// proven runs both verifiers against the running hub and wants both clean, and
// that it understood every batch.
func (w *world) proven() {
	w.t.Helper()
	if bad := metric(w.hubHTTP, "packetboat_hub_bad_batches_total"); bad != 0 {
		w.t.Errorf("the hub could not decode %.0f batches", bad)
	}
	if out, code := w.command("packetboat-sim", "verify", "--receipts", w.receipts, "--hub", "http://"+w.hubHTTP); code != 0 {
		w.t.Errorf("packetboat-sim verify exits with %d:\n%s", code, out)
	} else {
		w.t.Logf("packetboat-sim verify:\n%s", out)
	}
	w.audited()
}

// audited runs the hub's verifier only.
func (w *world) audited() string {
	w.t.Helper()
	out, code := w.command("packetboat-hub", "verify", "--hub", "http://"+w.hubHTTP)
	if code != 0 {
		w.t.Errorf("packetboat-hub verify exits with %d:\n%s", code, out)
	}
	return out
}

// copyDir copies a folder as `cp -a` would, without times.
func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}
