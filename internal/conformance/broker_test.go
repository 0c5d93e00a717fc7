package conformance

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/packetboat/packetboat/firmware-sim/proc"
)

// patience is how long what must happen may take on a busy machine. It bounds a
// hang; it judges no speed.
const patience = 20 * time.Second

var edgeBinary, hubBinary string

func TestMain(m *testing.M) {
	flag.Parse()
	if p := flag.Lookup("test.parallel"); p != nil && p.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = p.Value.Set("16") // the checks wait more than they compute
	}
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	edgeBinary, hubBinary = os.Getenv("PACKETBOAT_CONFORMANCE_EDGE"), os.Getenv("PACKETBOAT_CONFORMANCE_HUB")
	if mosquittoInstead() {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "packetboat-conformance")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	programs := map[string]string{}
	for path, pkg := range map[*string]string{&edgeBinary: "./cmd/edge", &hubBinary: "./cmd/hub"} {
		if *path == "" {
			*path = filepath.Join(dir, filepath.Base(pkg))
			programs[filepath.Base(pkg)] = pkg
		}
	}
	if err := proc.Build(context.Background(), filepath.Join("..", ".."), dir, programs); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

var lookAtSources = sync.OnceValue(func() error { return proc.LookAtSources(filepath.Join("..", "..")) })

func mosquittoInstead() bool { return os.Getenv("PACKETBOAT_CONFORMANCE_MOSQUITTO") != "" }

// broker is a server that runs until its test ends.
type broker struct {
	t    *testing.T
	addr string // host:port of plain MQTT
	dir  string
	log  string
	args []string
	http string // of an edge
	cmd  *exec.Cmd
	done chan struct{}
}

// newBroker starts an edge with default settings, or mosquitto. more is YAML that
// is added to the edge's configuration.
func newBroker(t *testing.T, more ...string) *broker {
	t.Helper()
	if err := lookAtSources(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	b := &broker{t: t, addr: freePort(t), dir: dir, log: filepath.Join(dir, "log")}
	if mosquittoInstead() {
		b.mosquitto()
	} else {
		b.http = freePort(t)
		conf := fmt.Sprintf("device: truck\ndata_dir: %s\nhub: {urls: ['tcp://%s']}\n", filepath.Join(dir, "data"), freePort(t))
		conf += strings.Join(more, "\n")
		if !strings.Contains(conf, "listen:") {
			conf += fmt.Sprintf("\nlisten: {mqtt: '%s', http: '%s'}\n", b.addr, b.http)
		} else {
			conf = strings.NewReplacer("MQTT_ADDR", b.addr, "HTTP_ADDR", b.http).Replace(conf)
		}
		b.write("edge.yaml", conf)
		b.args = []string{edgeBinary, "run", "--config", filepath.Join(dir, "edge.yaml")}
	}
	b.run()
	return b
}

// newHub starts a hub that lets in devices without a secret.
func newHub(t *testing.T) *broker {
	t.Helper()
	if err := lookAtSources(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	b := &broker{t: t, addr: freePort(t), http: freePort(t), dir: dir, log: filepath.Join(dir, "log")}
	b.write("hub.yaml", fmt.Sprintf("data_dir: %s\nlisten: {mqtt: '%s', http: '%s'}\n", filepath.Join(dir, "data"), b.addr, b.http))
	b.args = []string{hubBinary, "run", "--config", filepath.Join(dir, "hub.yaml")}
	b.run()
	return b
}

// run starts the server until the test ends.
func (b *broker) run() {
	b.t.Helper()
	b.t.Cleanup(func() {
		b.kill()
		if b.t.Failed() {
			b.t.Logf("the server's log:\n%s", tail(b.log))
		}
	})
	b.start()
}

func (b *broker) mosquitto() {
	exe, err := exec.LookPath("mosquitto")
	if err != nil {
		exe = "/usr/sbin/mosquitto"
	}
	_, port, _ := net.SplitHostPort(b.addr)
	b.write("mosquitto.conf", fmt.Sprintf("listener %s 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location %s/\nautosave_interval 1\nuser root\n", port, b.dir))
	b.args = []string{exe, "-c", filepath.Join(b.dir, "mosquitto.conf")}
}

func (b *broker) write(name, text string) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// start starts the server and waits until it listens.
func (b *broker) start() {
	b.t.Helper()
	f, err := os.OpenFile(b.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	b.cmd = exec.Command(b.args[0], b.args[1:]...)
	b.cmd.Stdout, b.cmd.Stderr, b.cmd.Dir = f, f, b.dir
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	done, cmd := make(chan struct{}), b.cmd
	b.done = done
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	eventually(b.t, "the server listens", func() bool {
		select {
		case <-done:
			b.t.Fatalf("the server ended: %v\n%s", cmd.ProcessState, tail(b.log))
		default:
		}
		return b.ready()
	})
}

func (b *broker) ready() bool {
	if b.http != "" {
		r, err := http.Get("http://" + b.http + "/readyz")
		if err != nil {
			return false
		}
		defer r.Body.Close()
		_, _ = io.Copy(io.Discard, r.Body)
		return r.StatusCode == http.StatusOK
	}
	c, err := net.Dial("tcp", b.addr)
	if err == nil {
		c.Close()
	}
	return err == nil
}

// kill is kill -9; nothing happens to a server that has ended.
func (b *broker) kill() {
	if b.cmd == nil || b.cmd.Process == nil {
		return
	}
	_ = b.cmd.Process.Kill()
	<-b.done
}

// crash is kill -9; mosquitto, which promises nothing then, ends in order.
func (b *broker) crash() {
	b.t.Helper()
	if mosquittoInstead() {
		b.stop()
		return
	}
	b.kill()
}

// stop asks for an orderly end.
func (b *broker) stop() {
	_ = b.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-b.done:
	case <-time.After(patience):
		b.t.Fatal("the server does not end")
	}
}

func tail(path string) string {
	b, _ := os.ReadFile(path)
	if len(b) > 3000 {
		b = b[len(b)-3000:]
	}
	return string(b)
}

// eventually polls until what holds; a test waits for conditions, not for time.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
