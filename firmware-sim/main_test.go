package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
	"go.uber.org/goleak"

	"github.com/packetboat/packetboat/firmware-sim/prove"
	"github.com/packetboat/packetboat/internal/cli"
	"github.com/packetboat/packetboat/internal/httpapi"
	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/commitlog/logtest"
	"github.com/packetboat/packetboat/pkg/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// boat stands for edge, link and hub: a broker that notes what is published to
// it, and a hub's API over a log that a test fills with it.
type boat struct {
	mqtt.HookBase
	broker string
	hub    string
	log    *logtest.Mem

	mu  sync.Mutex
	got []stream.Message // guarded by mu
}

func (b *boat) Provides(what byte) bool {
	return what == mqtt.OnConnectAuthenticate || what == mqtt.OnACLCheck || what == mqtt.OnPublish
}
func (b *boat) OnConnectAuthenticate(*mqtt.Client, packets.Packet) bool { return true }
func (b *boat) OnACLCheck(*mqtt.Client, string, bool) bool              { return true }
func (b *boat) OnPublish(_ *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.got = append(b.got, stream.Message{Topic: pk.TopicName, Payload: bytes.Clone(pk.Payload), Time: int64(len(b.got)), QoS: pk.FixedHeader.Qos})
	return pk, nil
}

func newBoat(t *testing.T) *boat {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &boat{broker: "tcp://" + ln.Addr().String(), log: logtest.NewMem(1)}
	srv := mqtt.New(&mqtt.Options{Logger: slog.New(slog.DiscardHandler)})
	if err := errors.Join(srv.AddHook(b, nil), srv.AddListener(listeners.NewNet("t", ln)), srv.Serve()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeBroker(srv) })
	api := httptest.NewServer(httpapi.New(httpapi.Options{Log: b.log}))
	t.Cleanup(api.Close)
	b.hub = api.URL
	return b
}

// closeBroker closes mochi when its clients have gone: while one goes, mochi's
// Close can wait for its own lock for ever (GetByListener takes it twice).
func closeBroker(srv *mqtt.Server) {
	for _, c := range srv.Clients.GetAll() {
		for !c.Closed() {
			runtime.Gosched()
		}
	}
	srv.Close()
}

// fill appends what was published to the log, after change had its way.
func (b *boat) fill(t *testing.T, change func([]stream.Message) []stream.Message) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	owner, err := b.log.Acquire(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	id := stream.ID{Device: "truck", Epoch: stream.NewEpoch(), Lane: stream.Normal}
	seq := uint64(0)
	for batch := range slices.Chunk(change(slices.Clone(b.got)), 1000) {
		e := commitlog.Entry{ID: id, Current: id.Epoch}
		for _, m := range batch {
			seq++
			e.Records = append(e.Records, stream.Record{Seq: seq, Message: m})
		}
		e.Head = seq
		if err := owner.Append(t.Context(), []commitlog.Entry{e}); err != nil {
			t.Fatal(err)
		}
	}
}

// sim runs the program.
func sim(t *testing.T, want int, args ...string) string {
	t.Helper()
	var out, errOut bytes.Buffer
	if got := run(args, &out, &errOut); got != want {
		t.Fatalf("packetboat-sim %s exits with %d, want %d\n%s%s", strings.Join(args, " "), got, want, out.String(), errOut.String())
	}
	return out.String() + errOut.String()
}

// Sensors and recordings go through a broker into a log, and verify says
// whether all of it arrived.
func TestFromSensorsToTheProof(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "drive.csv")
	if err := os.WriteFile(file, []byte("Time,Speed,Gear\n0,1.5,1\n0.001,1.5,1\n0.002,2.5,1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func([]stream.Message) []stream.Message
		code   int
		kind   prove.Kind
	}{
		"clean":   {func(m []stream.Message) []stream.Message { return m }, cli.OK, ""},
		"removed": {func(m []stream.Message) []stream.Message { return slices.Delete(m, 40, 41) }, cli.Failed, prove.Missing},
		"doubled": {func(m []stream.Message) []stream.Message { return slices.Insert(m, 40, m[39]) }, cli.Failed, prove.Double},
		"changed": {func(m []stream.Message) []stream.Message { m[40].Payload = []byte("{}"); return m }, cli.Failed, prove.Unexpected},
		"swapped": {swapWithin, cli.Failed, prove.OutOfOrder},
	} {
		for _, qos := range []string{"1", "2", "1,2"} {
			t.Run(name+" QoS "+qos, func(t *testing.T) {
				b := newBoat(t)
				receipts := filepath.Join(t.TempDir(), "receipts")
				out := sim(t, cli.OK, "sensors", "--broker", b.broker, "--profile", "steady", "--clients", "2", "--rate", "2000", "--duration", "100ms", "--receipts", receipts, "-q", "--qos", qos)
				if !strings.Contains(out, "200 messages sent, 200 acknowledged, 0 sent again, 2 connections") {
					t.Fatal(out)
				}
				sim(t, cli.OK, "replay", file, "--speed", "max", "--broker", b.broker, "--mqtt", "5", "--receipts", receipts, "-q")
				b.fill(t, c.change)
				args := []string{"verify", "--receipts", receipts, "--hub", b.hub}
				out = sim(t, c.code, args...)
				if c.kind != "" && !strings.Contains(out, string(c.kind)+": steady-1-") {
					t.Errorf("no example of %s:\n%s", c.kind, out)
				}
				if got := strings.Contains(out, "hint: what is still on its way"); (c.kind == prove.Missing) != got && c.kind != prove.Unexpected {
					t.Errorf("the hint to wait: %v\n%s", got, out)
				}
				var r prove.Report
				if err := json.NewDecoder(strings.NewReader(sim(t, c.code, append(args, "--json")...))).Decode(&r); err != nil {
					t.Fatal(err)
				}
				if r.Messages != 206 || r.Topics != 22 || r.OK() != (c.code == cli.OK) || (r.QoS2.Messages > 0) != strings.Contains(qos, "2") {
					t.Errorf("%+v", r)
				}
			})
		}
	}
}

// swapWithin exchanges the payloads of two neighbours of one topic.
func swapWithin(m []stream.Message) []stream.Message {
	for j := 41; j < len(m); j++ {
		if m[j].Topic == m[40].Topic {
			m[40].Payload, m[j].Payload = m[j].Payload, m[40].Payload
			break
		}
	}
	return m
}

func TestUsageErrors(t *testing.T) {
	text := filepath.Join(t.TempDir(), "notes.txt")
	if err := os.WriteFile(text, []byte("dear diary\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		code int
		args string
	}{
		{cli.Usage, "sensors --profile train"}, {cli.Usage, "sensors --clients 0"}, {cli.Usage, "sensors --qos 3"}, {cli.Usage, "sensors --qos 1,x"}, {cli.Usage, "sensors --cert-file x"}, {cli.Usage, "sensors --ca-file /nowhere/ca.pem"}, {cli.Usage, "sensors --mqtt 3"},
		{cli.Usage, "sensors --broker http://x"}, {cli.Usage, "sensors --duration -1s"}, {cli.Usage, "sensors --window 0x"}, {cli.Usage, "replay"},
		{cli.Usage, "replay x --speed fast"}, {cli.Usage, "replay x --speed 0"}, {cli.Failed, "replay /nowhere/x.csv"}, {cli.Failed, "replay " + text},
		{cli.Usage, "link --to nothing"}, {cli.Usage, "link --cut gone"}, {cli.Usage, "link --schedule 10s"}, {cli.Listen, "link --listen 256.0.0.1:1"},
		{cli.Usage, "verify"}, {cli.Failed, "verify --receipts /nowhere/receipts"}, {cli.Usage, "verify --receipts x --hub http://["}, {cli.Usage, "bogus"},
		{cli.Failed, "bench --broker 127.0.0.1:1 --messages 20"}, {cli.Failed, "demo --pace 1ms --out " + t.TempDir()}, {cli.Failed, "bench-edge --rounds 0"},
		{cli.Usage, "bench-link --rounds 0"}, {cli.Usage, "bench-link --json --markdown"}, {cli.Usage, "bench-link --short --data x"}, {cli.Usage, "bench-link --only submarine"},
		{cli.Failed, "bench-link --data /nowhere"}, {cli.Usage, "bench-link --data " + t.TempDir()},
	} {
		if out := sim(t, c.code, strings.Fields(c.args)...); !strings.HasPrefix(out, "packetboat-sim: ") {
			t.Errorf("%s: %s", c.args, out)
		}
	}
	if out := sim(t, cli.OK, "version"); !strings.HasPrefix(out, "packetboat-sim ") {
		t.Error(out)
	}
}

func TestBench(t *testing.T) {
	b := newBoat(t)
	if out := sim(t, cli.OK, "bench", "--broker", b.broker, "--messages", "500"); strings.Count(out, "\n") != 3 {
		t.Error(out)
	}
	var r []map[string]any
	if err := json.Unmarshal([]byte(sim(t, cli.OK, "bench", "--broker", b.broker, "--messages", "500", "--connections", "2", "--json")), &r); err != nil || len(r) != 1 || r[0]["messages"] != 500.0 {
		t.Errorf("%v %v", r, err)
	}
	for d, want := range map[time.Duration]string{1234567: "1.23ms", 999: "999ns", 98765 * time.Microsecond: "98.8ms"} {
		if got := short(d); got != want {
			t.Errorf("%d: %s, want %s", d, got, want)
		}
	}
}

// What replay reads is measured, and a folder without recordings says what to do.
func TestBenchLink(t *testing.T) {
	if out := sim(t, cli.OK, "bench-link", "--quiet", "--rounds", "1", "--messages", "500"); !strings.Contains(out, "made-up ship, JSON per signal") {
		t.Error(out)
	}
	dir := t.TempDir()
	if out := sim(t, cli.Usage, "bench-link", "--data", dir); !strings.Contains(out, "no recordings in "+dir+"\nhint: ") {
		t.Error(out)
	}
	var lines strings.Builder
	for i := range 300 {
		fmt.Fprintf(&lines, "{\"t\":%d.5,\"topic\":\"truck/speed\",\"payload\":\"%d\"}\n", i, i/3)
	}
	if err := os.WriteFile(filepath.Join(dir, "drive.ndjson"), []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := sim(t, cli.OK, "bench-link", "--data", dir, "--markdown", "-q"); !strings.Contains(out, "| drive.ndjson, as recorded | 300 | ") {
		t.Error(out)
	}
}

// The link carries, and its control address cuts it.
func TestLink(t *testing.T) {
	b := newBoat(t)
	c := linkCommand()
	pr, pw := io.Pipe()
	c.SetErr(pw)
	c.SetOut(io.Discard)
	c.SetArgs([]string{"--listen", "127.0.0.1:0", "--to", strings.TrimPrefix(b.broker, "tcp://")})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.ExecuteContext(ctx) }()
	var addr string
	if _, err := fmt.Fscan(pr, &addr); err != nil {
		t.Fatal(err)
	}
	drained := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, pr); close(drained) }()
	sim(t, cli.OK, "bench", "--broker", addr, "--messages", "100")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	pw.Close()
	<-drained
}
