package soak

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/packetboat/packetboat/firmware-sim/proc"
	"github.com/packetboat/packetboat/internal/httpapi"
	"github.com/packetboat/packetboat/internal/rig/hostile"
)

const device = "soak"

// world is a hub and an edge as real processes, with all doors of the edge open.
type world struct {
	dir                              string
	edgePath, hubPath                string
	hubMQTT, hubHTTP                 string
	mqtt, mqtts, ws, http            string // of the edge
	honestPassword, strangerPassword string
	cert                             *proc.Certificate
	client                           *httpapi.Client
	hub                              *proc.Process

	mu      sync.Mutex
	edge    *proc.Process // guarded by mu
	killing bool          // guarded by mu: edge is ended, or about to be
	kills   int           // guarded by mu
}

// build finds the programs and makes the folder.
func build(ctx context.Context, o Options) (*world, error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("finding the folder: %w", err)
	}
	w := &world{dir: dir}
	for _, name := range []string{"receipts", "hub-data", "edge-data", "hub.log", "edge.log", "edge.yaml", "users", "acl", "server.pem", "server-key.pem"} {
		if err := os.RemoveAll(w.path(name)); err != nil {
			return nil, fmt.Errorf("emptying the folder: %w", err)
		}
	}
	if err := os.MkdirAll(w.path("bin"), 0o755); err != nil {
		return nil, fmt.Errorf("making the folder: %w", err)
	}
	if o.Bin != "" { // a bare name would be looked for elsewhere
		if o.Bin, err = filepath.Abs(o.Bin); err != nil {
			return nil, fmt.Errorf("finding the programs: %w", err)
		}
	}
	if w.edgePath, w.hubPath, err = proc.Programs(ctx, o.Bin, w.path("bin")); err != nil {
		return nil, err
	}
	ports, err := proc.FreePorts(6)
	if err != nil {
		return nil, err
	}
	w.hubMQTT, w.hubHTTP, w.mqtt, w.mqtts, w.ws, w.http = ports[0], ports[1], ports[2], ports[3], ports[4], ports[5]
	return w, w.configure(ctx)
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// configure writes the edge's configuration: two accounts, one of which is in
// wrong hands, and topics that the other cannot see.
func (w *world) configure(ctx context.Context) (err error) {
	for name, password := range map[string]*string{"honest": &w.honestPassword, "guest": &w.strangerPassword} {
		out, err := exec.CommandContext(ctx, w.edgePath, "user", "add", name, "--file", w.path("users")).Output()
		if err != nil {
			return fmt.Errorf("making an account: %w", err)
		}
		*password = strings.TrimSpace(string(out))
	}
	if w.cert, err = proc.NewCertificate(w.dir); err != nil {
		return err
	}
	acl := "user honest\ntopic readwrite #\n\nuser guest\ntopic readwrite hostile/#\n"
	if err := os.WriteFile(w.path("acl"), []byte(acl), 0o600); err != nil {
		return fmt.Errorf("writing the topic list: %w", err)
	}
	text := fmt.Sprintf(`device: %s
data_dir: %s
listen: {mqtt: %q, mqtts: %q, ws: %q, http: %q}
sensors:
  users_file: %s
  acl_file: %s
  tls: {cert_file: %s, key_file: %s}
lanes:
  - {name: drop, filters: ["hostile/unread/#"]}
hub: {urls: ["tcp://%s"]}
`, device, w.path("edge-data"), w.mqtt, w.mqtts, w.ws, w.http, w.path("users"), w.path("acl"), w.cert.File, w.cert.Key, w.hubMQTT)
	if err := os.WriteFile(w.path("edge.yaml"), []byte(text), 0o600); err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	if out, err := exec.CommandContext(ctx, w.edgePath, "config", "check", "--config", w.path("edge.yaml")).CombinedOutput(); err != nil {
		return fmt.Errorf("checking the configuration: %w\n%s", err, out)
	}
	return nil
}

// start starts both, the hub first.
func (w *world) start(ctx context.Context) (err error) {
	w.hub, err = proc.Start("packetboat-hub", w.path("hub.log"), w.hubPath, "run", "--data-dir", w.path("hub-data"), "--listen", w.hubMQTT, "--http", w.hubHTTP)
	if err != nil {
		return err
	}
	if err := w.hub.Await(ctx, func() bool { return proc.Ready(ctx, w.hubHTTP) }); err != nil {
		return err
	}
	if w.client, err = httpapi.NewClient("http://" + w.hubHTTP); err != nil {
		return err
	}
	return w.startEdge(ctx)
}

func (w *world) startEdge(ctx context.Context) error {
	p, err := proc.Start("packetboat-edge", w.path("edge.log"), w.edgePath, "run", "--config", w.path("edge.yaml"))
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.edge, w.killing = p, false
	w.mu.Unlock()
	return p.Await(ctx, func() bool { return proc.Ready(ctx, w.http) && proc.Dials(w.mqtt) })
}

// running is the edge, and how often it was killed before it.
func (w *world) running() (*proc.Process, int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.edge, w.kills
}

// died reports whether the edge ended and nobody of us had killed it.
func (w *world) died() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.edge.Done():
		return !w.killing
	default:
		return false
	}
}

// killEdge ends the edge as a power cut does, as far as a process can, and
// starts it again.
func (w *world) killEdge(ctx context.Context) error {
	w.mu.Lock()
	p := w.edge
	w.killing = true
	w.kills++
	w.mu.Unlock()
	p.Kill()
	return w.startEdge(ctx)
}

func (w *world) end() {
	p, _ := w.running()
	p.Kill()
	w.hub.Kill()
	if w.client != nil {
		w.client.Close()
	}
	proc.CloseIdle()
}

// target is the edge as a stranger on another machine reaches it, with the
// account that was stolen.
func (w *world) target() hostile.Target {
	dial := func(addr string) hostile.Dial {
		return func(ctx context.Context) (net.Conn, error) {
			d := net.Dialer{Timeout: 5 * time.Second}
			if runtime.GOOS == "linux" { // all of 127/8 is here
				d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 66)}
			}
			return d.DialContext(ctx, "tcp", addr)
		}
	}
	return hostile.Target{Dial: dial(w.mqtt), DialTLS: dial(w.mqtts), DialWebSocket: dial(w.ws), Username: "guest", Password: w.strangerPassword}
}
