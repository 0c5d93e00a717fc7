// Package proc runs the real programs for demos and measurements: it builds
// them, starts them on free ports, waits until they are ready, reads their
// metrics, and ends them.
//
// It promises that a process it started is ended and waited for by Stop or
// Kill, by its handle and never by a name. It gives no meaning to what the
// programs say.
package proc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process is a running program. Its methods may be called from any goroutine.
type Process struct {
	Name string
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed once it has ended
	err  error         // set before done is closed
}

// Start runs the program at path, its output appended to the file log.
func Start(name, log, path string, args ...string) (*Process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening the log of %s: %w", name, err)
	}
	p := &Process{Name: name, cmd: exec.Command(path, args...), log: log, done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("starting %s: %w", name, err), out.Close())
	}
	go func() {
		p.err = errors.Join(p.cmd.Wait(), out.Close())
		close(p.done)
	}()
	return p, nil
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Kill ends the process as kill -9 does, and waits for it. Killing one that
// has ended, or nil, does nothing.
func (p *Process) Kill() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Kill() // the only error: it has ended
	<-p.done
}

// stopWait is how long a process may take to end in order.
const stopWait = 15 * time.Second

// Stop asks the process to end, waits, and gives its error if it did not end
// in order. Stopping nil does nothing.
func (p *Process) Stop() error {
	if p == nil {
		return nil
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // the only error: it has ended
	select {
	case <-p.done:
		if p.err != nil {
			return fmt.Errorf("%s: %w\n%s", p.Name, p.err, p.Tail())
		}
		return nil
	case <-time.After(stopWait):
		p.Kill()
		return fmt.Errorf("%s did not stop within %s\n%s", p.Name, stopWait, p.Tail())
	}
}

// Tail is the end of the log, for messages.
func (p *Process) Tail() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-8):], "\n")
}

// Await polls ready until it holds, for half a minute at most. It ends early
// when the process does.
func (p *Process) Await(ctx context.Context, ready func() bool) error {
	limit := time.After(30 * time.Second)
	for !ready() {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-p.done:
			return fmt.Errorf("%s ended: %w\n%s", p.Name, p.err, p.Tail())
		case <-limit:
			return fmt.Errorf("%s is not ready\n%s", p.Name, p.Tail())
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// FreePorts gives loopback addresses that nobody listened on a moment ago.
func FreePorts(n int) (addrs []string, err error) {
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("looking for a free port: %w", err)
		}
		defer ln.Close() // after all are taken, so that they differ
		addrs = append(addrs, ln.Addr().String())
	}
	return addrs, nil
}

// Programs finds packetboat-edge and packetboat-hub: in dir where it is given,
// beside this program, or built from this module's source into buildDir.
func Programs(ctx context.Context, dir, buildDir string) (edge, hub string, err error) {
	if dir == "" {
		if self, err := os.Executable(); err == nil {
			dir = filepath.Dir(self)
		}
		if !exists(filepath.Join(dir, "packetboat-edge")) || !exists(filepath.Join(dir, "packetboat-hub")) {
			dir = buildDir
			if err := build(ctx, dir); err != nil {
				return "", "", err
			}
		}
	}
	return filepath.Join(dir, "packetboat-edge"), filepath.Join(dir, "packetboat-hub"), nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func build(ctx context.Context, dir string) error {
	mod, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return fmt.Errorf("looking for the source: %w", err)
	}
	root := filepath.Dir(strings.TrimSpace(string(mod)))
	if !exists(filepath.Join(root, "cmd", "edge")) {
		return errors.New("neither packetboat-edge and packetboat-hub nor their source are here: say where with --bin, or run from the repository")
	}
	return Build(ctx, root, dir, map[string]string{"packetboat-edge": "./cmd/edge", "packetboat-hub": "./cmd/hub"})
}

// Ready asks an HTTP address whether its program is ready.
func Ready(ctx context.Context, addr string) bool {
	body, err := get(ctx, "http://"+addr+"/readyz")
	return err == nil && body != nil
}

// Dials reports whether somebody accepts connections at addr.
func Dials(addr string) bool {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return false
	}
	_ = c.Close() // it was only a look
	return true
}

// Metrics reads a program's metrics; what has labels is summed up.
func Metrics(ctx context.Context, addr string) (map[string]float64, error) {
	body, err := get(ctx, "http://"+addr+"/metrics")
	if err != nil {
		return nil, fmt.Errorf("reading metrics: %w", err)
	}
	sums := map[string]float64{}
	s := bufio.NewScanner(strings.NewReader(string(body)))
	for s.Scan() {
		line := s.Text()
		at := strings.LastIndexByte(line, ' ')
		if at < 0 || strings.HasPrefix(line, "#") {
			continue
		}
		name, _, _ := strings.Cut(line[:at], "{")
		if v, err := strconv.ParseFloat(line[at+1:], 64); err == nil {
			sums[name] += v
		}
	}
	return sums, nil
}

var client = &http.Client{Timeout: 5 * time.Second}

func get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	if err == nil && res.StatusCode != http.StatusOK {
		err = errors.New(res.Status)
	}
	return body, err
}

// CloseIdle closes the connections that Ready and Metrics keep.
func CloseIdle() { client.CloseIdleConnections() }
