package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"go.uber.org/goleak"

	"github.com/packetboat/packetboat/internal/cli"
	"github.com/packetboat/packetboat/internal/config"
	"github.com/packetboat/packetboat/internal/pki"
	"github.com/packetboat/packetboat/internal/uplink"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds a hang; it judges no speed.
const patience = 60 * time.Second

// deadHub is an address at which nothing listens.
func deadHub(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "tcp://" + l.Addr().String()
}

func testConfig(t *testing.T) Config {
	t.Helper()
	c := Defaults()
	c.Device, c.DataDir = "truck-17", filepath.Join(t.TempDir(), "data")
	c.Listen.MQTT, c.Listen.HTTP = "127.0.0.1:0", "127.0.0.1:0"
	c.Hub.URLs = []string{deadHub(t)}
	c.Buffer.MaxBytes = 32 << 20
	return c
}

// running is an edge in this process.
type running struct {
	Addrs
	base string
	stop func() error // waits for the end; may be called again
	log  *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

var errTestStop = errors.New("the test is over")

func begin(t *testing.T, c Config) *running {
	t.Helper()
	r := &running{log: &lockedBuffer{}}
	ctx, cancel := context.WithCancelCause(context.Background())
	ready, done := make(chan Addrs, 1), make(chan struct{})
	var err error
	go func() {
		defer close(done)
		err = Run(ctx, c, slog.New(slog.NewTextHandler(r.log, nil)), func(a Addrs) { ready <- a })
	}()
	r.stop = func() error {
		cancel(errTestStop)
		<-done
		return err
	}
	t.Cleanup(func() {
		_ = r.stop()
		if t.Failed() {
			t.Log(r.log.String())
		}
	})
	select {
	case r.Addrs = <-ready:
	case <-done:
		t.Fatalf("the edge ended: %v", err)
	case <-time.After(patience):
		t.Fatal("the edge is never ready")
	}
	if r.HTTP != nil {
		r.base = "http://" + r.HTTP.String()
	}
	return r
}

func (r *running) status(t *testing.T) *Status {
	t.Helper()
	s, err := Ask(context.Background(), r.base)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// eventually polls until the status is as wanted.
func (r *running) eventually(t *testing.T, what string, holds func(*Status) bool) *Status {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); ; <-tick.C {
		s := r.status(t)
		if holds(s) {
			return s
		}
		if time.Now().After(end) {
			t.Fatalf("never: %s; last %+v", what, s)
		}
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp, err := client.Get(url)
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

// sensor connects a real client; user may be empty.
func sensor(t *testing.T, addr net.Addr, id, user, password string) (*paho.Client, *paho.Connack, error) {
	t.Helper()
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	c := paho.NewClient(paho.ClientConfig{Conn: conn, ClientID: id})
	cp := &paho.Connect{ClientID: id, CleanStart: true, KeepAlive: 30}
	if user != "" {
		cp.Username, cp.UsernameFlag, cp.Password, cp.PasswordFlag = user, true, []byte(password), true
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ack, err := c.Connect(ctx, cp)
	if err != nil {
		_ = conn.Close()
		return nil, ack, err
	}
	t.Cleanup(func() { _ = c.Disconnect(&paho.Disconnect{}); <-c.Done() })
	return c, ack, nil
}

func publish(t *testing.T, c *paho.Client, topic, payload string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	resp, err := c.Publish(ctx, &paho.Publish{Topic: topic, QoS: 1, Payload: []byte(payload)})
	if err != nil || resp.ReasonCode != 0 {
		t.Fatalf("publish %s: %+v, %v", topic, resp, err)
	}
}

// What was acknowledged is counted, and is there after a restart, though no hub
// ever answered.
func TestAcknowledgedSurvivesARestart(t *testing.T) {
	c := testConfig(t)
	c.Lanes = []Lane{{Name: "urgent", Filters: []string{"alarm/#"}}, {Name: "drop", Filters: []string{"debug/#"}}}
	r := begin(t, c)
	if code, body := get(t, r.base+"/readyz"); code != 200 {
		t.Fatalf("readyz: %d %s", code, body)
	}
	s, _, err := sensor(t, r.MQTT, "gps", "", "")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		publish(t, s, "engine/rpm", fmt.Sprint(i))
	}
	publish(t, s, "alarm/oil", "hot")
	publish(t, s, "debug/x", "y")
	st := r.status(t)
	if st.Messages.Accepted != 21 || st.Messages.Queued+st.Messages.InFlight != 21 || st.Messages.Dropped != 1 || !st.Messages.ConservationOK {
		t.Errorf("messages %+v", st.Messages)
	}
	if st.Lanes[0].Messages != 1 || st.Lanes[1].Messages != 20 || st.Lanes[2].Messages != 0 || st.Lanes[1].Oldest.IsZero() {
		t.Errorf("lanes %+v", st.Lanes)
	}
	if !st.Ready || st.Device != "truck-17" || st.Sensors.Clients != 1 || st.Link.Hub != c.Hub.URLs[0] {
		t.Errorf("status %+v", st)
	}
	r.eventually(t, "the link tells what is wrong", func(s *Status) bool {
		return s.Link.State != uplink.Up && strings.Contains(s.Link.LastError, "refused")
	})
	if err := r.stop(); err != nil {
		t.Fatalf("a stop with a backlog: %v", err)
	}
	checkStopOrder(t, r.log.String())

	r = begin(t, c)
	st = r.status(t)
	if st.Messages.Accepted != 21 || st.Messages.Queued+st.Messages.InFlight != 21 || st.Lanes[0].Messages != 1 || st.Journal.Epochs < 2 {
		t.Errorf("after a restart: %+v, %+v", st.Messages, st.Journal)
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
}

// checkStopOrder wants the parts stopped in reverse, with the reason on each line.
func checkStopOrder(t *testing.T, log string) {
	t.Helper()
	var got []string
	for line := range strings.Lines(log) {
		if _, rest, ok := strings.Cut(line, "msg=stopping part="); ok {
			name, rest, _ := strings.Cut(rest, " ")
			got = append(got, name)
			if !strings.Contains(rest, `reason="the test is over"`) {
				t.Errorf("no reason in %q", line)
			}
		}
	}
	if want := "[notifications sensors files uplink http buffer]"; fmt.Sprint(got) != want {
		t.Errorf("stopped %v, want %s", got, want)
	}
}

func TestMetricsAndHealth(t *testing.T) {
	r := begin(t, testConfig(t))
	s, _, err := sensor(t, r.MQTT, "gps", "", "")
	if err != nil {
		t.Fatal(err)
	}
	publish(t, s, "a", "b")
	code, body := get(t, r.base+"/metrics")
	if code != 200 {
		t.Fatalf("metrics: %d %s", code, body)
	}
	for _, want := range []string{
		"packetboat_edge_accepted_messages_total 1\n", "packetboat_edge_settled_messages_total 0\n",
		`packetboat_edge_lost_messages_total{reason="evicted"} 0` + "\n", `packetboat_edge_backlog_messages{lane="normal"} 1` + "\n",
		`packetboat_edge_backlog_bytes{lane="bulk"} 0` + "\n", `packetboat_edge_backlog_oldest_seconds{lane="normal"} `,
		"packetboat_edge_link_up 0\n", "packetboat_edge_conservation_ok 1\n", "packetboat_edge_ready 1\n", "packetboat_edge_build_info{", "go_goroutines ",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q", want)
		}
	}
	if problems, err := promlint.New(strings.NewReader(body)).Lint(); err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, body := get(t, r.base+path); code != 200 || body != "ok\n" {
			t.Errorf("%s: %d %q", path, code, body)
		}
	}
}

func TestUsers(t *testing.T) {
	c := testConfig(t)
	file := filepath.Join(t.TempDir(), "users")
	secret, sum := pki.NewSecret()
	if _, err := pki.SetUser(file, "gps", sum); err != nil {
		t.Fatal(err)
	}
	c.Sensors.UsersFile = file
	r := begin(t, c)
	for _, x := range []struct {
		user, password string
		in             bool
	}{{"gps", secret, true}, {"gps", "wrong", false}, {"radar", secret, false}, {"", "", false}} {
		if _, _, err := sensor(t, r.MQTT, "s", x.user, x.password); (err == nil) != x.in {
			t.Errorf("user %q: %v", x.user, err)
		}
	}
	// The file is followed.
	other, sum := pki.NewSecret()
	if _, err := pki.SetUser(file, "radar", sum); err != nil {
		t.Fatal(err)
	}
	if _, _, err := sensor(t, r.MQTT, "s2", "radar", other); err != nil {
		t.Error(err)
	}
	// A broken file is said, and keeps nobody out.
	if err := os.WriteFile(file, []byte("rubbish\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := sensor(t, r.MQTT, "s3", "radar", other); err != nil {
		t.Error(err)
	}
	if code, body := get(t, r.base+"/readyz"); code != 503 || !strings.HasPrefix(body, "users: ") {
		t.Errorf("readyz: %d %q", code, body)
	}
}

func TestStartErrors(t *testing.T) {
	c := testConfig(t)
	r := begin(t, c)
	run := func(c Config) error {
		return Run(context.Background(), c, slog.New(slog.DiscardHandler), func(Addrs) { t.Error("it runs") })
	}
	if err := run(c); cli.ExitCode(err) != cli.Locked {
		t.Errorf("locked: code %d, %v", cli.ExitCode(err), err)
	}
	taken := c
	taken.DataDir = filepath.Join(t.TempDir(), "other")
	taken.Listen.MQTT = r.MQTT.String()
	if err := run(taken); cli.ExitCode(err) != cli.Listen || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("mqtt port taken: code %d, %v", cli.ExitCode(err), err)
	}
	taken.Listen.MQTT, taken.Listen.WS = "127.0.0.1:0", r.MQTT.String()
	if err := run(taken); cli.ExitCode(err) != cli.Listen || !strings.Contains(fmt.Sprint(err), r.MQTT.String()) {
		t.Errorf("ws port taken: code %d, %v", cli.ExitCode(err), err)
	}
	taken.Listen.WS, taken.Listen.HTTP = Off, r.HTTP.String()
	if err := run(taken); cli.ExitCode(err) != cli.Listen {
		t.Errorf("http port taken: code %d, %v", cli.ExitCode(err), err)
	}
	// The failed start left nothing behind: the directory can be used.
	taken.Listen.HTTP = Off
	if again := begin(t, taken); again.HTTP != nil || again.stop() != nil {
		t.Error("the directory of a failed start cannot be used")
	}
	file := taken
	file.DataDir = filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file.DataDir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(file); cli.ExitCode(err) != cli.Operator {
		t.Errorf("a file in the way: code %d, %v", cli.ExitCode(err), err)
	}
}

// A part that fails ends the others, and its error ends the program.
func TestAFailedPartStopsAll(t *testing.T) {
	p := newParts(slog.New(slog.DiscardHandler))
	var order []string
	wait := func(name string) func(context.Context) error {
		return func(ctx context.Context) error {
			<-ctx.Done()
			order = append(order, name) // stop waits for one after the other
			return nil
		}
	}
	boom, fail := errors.New("boom"), make(chan struct{})
	p.start("first", wait("first"))
	p.start("second", func(context.Context) error { <-fail; return boom })
	p.start("third", wait("third"))
	close(fail)
	x := <-p.failed
	if x.name != "second" {
		t.Errorf("%s failed", x.name)
	}
	if err := p.stop(boom); !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
	if fmt.Sprint(order) != "[third first]" {
		t.Errorf("stopped %v", order)
	}
	p.start("idle", func(context.Context) error { return nil })
	if x = <-p.failed; x == nil {
		t.Error("a part that just ends is not noticed")
	}
	<-x.done
	if x.err == nil {
		t.Error("a part that just ends has no error")
	}
	_ = p.stop(boom)
}

func TestStatusMatchesItsDocumentation(t *testing.T) {
	r := begin(t, testConfig(t))
	code, body := get(t, r.base+"/api/v1/status")
	if code != 200 {
		t.Fatal(code, body)
	}
	doc, err := os.ReadFile("../../docs/operations/edge.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range config.Describe(Defaults(), EnvPrefix) {
		if !strings.Contains(string(doc), "`"+k.Name+"`") {
			t.Errorf("the manual does not name %s", k.Name)
		}
	}
	for line := range strings.Lines(body) {
		key, _, ok := strings.Cut(strings.TrimSpace(line), `": `)
		if key = strings.TrimPrefix(key, `"`); ok && !strings.Contains(string(doc), "`"+key+"`") {
			t.Errorf("the manual does not explain %s of the status", key)
		}
	}
	_, body = get(t, r.base+"/metrics")
	for line := range strings.Lines(body) {
		if name, ok := strings.CutPrefix(line, "# TYPE packetboat_edge_"); ok {
			if name, _, _ = strings.Cut(name, " "); !strings.Contains(string(doc), "`"+name+"`") {
				t.Errorf("the manual does not explain the metric %s", name)
			}
		}
	}
}
