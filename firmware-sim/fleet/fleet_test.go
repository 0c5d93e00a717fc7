package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
	"go.uber.org/goleak"

	"github.com/packetboat/packetboat/firmware-sim/signals"
	"github.com/packetboat/packetboat/internal/rig/receipts"
	"github.com/packetboat/packetboat/internal/rig/recording"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// broker is mochi, which notes what was published to it.
type broker struct {
	mqtt.HookBase
	t    *testing.T
	addr string
	srv  *mqtt.Server

	mu  sync.Mutex
	got map[string][]receipts.Hash // guarded by mu; by topic
	n   int                        // guarded by mu
}

func (b *broker) Provides(what byte) bool {
	return what == mqtt.OnConnectAuthenticate || what == mqtt.OnACLCheck || what == mqtt.OnPublish
}
func (b *broker) OnConnectAuthenticate(*mqtt.Client, packets.Packet) bool { return true }
func (b *broker) OnACLCheck(*mqtt.Client, string, bool) bool              { return true }
func (b *broker) OnPublish(_ *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.got[pk.TopicName] = append(b.got[pk.TopicName], receipts.HashOf(pk.Payload))
	b.n++
	return pk, nil
}

func (b *broker) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.n
}

func (b *broker) start() {
	b.t.Helper()
	addr := "127.0.0.1:0"
	if b.addr != "" {
		addr = b.addr
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		b.t.Fatal(err)
	}
	b.addr = ln.Addr().String()
	b.srv = mqtt.New(&mqtt.Options{Logger: slog.New(slog.DiscardHandler)})
	if err := errors.Join(b.srv.AddHook(b, nil), b.srv.AddListener(listeners.NewNet("t", ln)), b.srv.Serve()); err != nil {
		b.t.Fatal(err)
	}
}

func newBroker(t *testing.T) *broker {
	b := &broker{t: t, got: map[string][]receipts.Hash{}}
	b.start()
	t.Cleanup(func() { closeBroker(b.srv) })
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

func readReceipts(t *testing.T, path string) (all []receipts.Receipt, unfinished int) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := receipts.NewReader(f, path)
	for r.Next() {
		all = append(all, *r.Receipt())
	}
	if r.Err() != nil {
		t.Fatal(r.Err())
	}
	return all, r.Unfinished()
}

// Through restarts of the broker every message gets one receipt, what was
// acknowledged had arrived, and nothing arrived more often than it was sent.
func TestReceiptsThroughRestarts(t *testing.T) {
	b := newBroker(t)
	path := filepath.Join(t.TempDir(), "receipts")
	w, err := receipts.Append(path)
	if err != nil {
		t.Fatal(err)
	}
	var clients []Client
	for i := range 3 {
		name := fmt.Sprint("dev-", i)
		d, err := signals.New(signals.Options{Profile: "steady", Name: name, Seed: 1, Start: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, Client{ID: name, Source: FromDevice(d, 60*time.Second)}) // 6,000 messages
	}
	f, err := New(clients, Options{Broker: b.addr, QoS: 1, Window: 50, Receipts: w})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- f.Run(t.Context()) }()
	for restart := range 3 {
		for b.count() < 3000*(restart+1) {
			time.Sleep(100 * time.Microsecond) // poll; ends with the test's deadline
		}
		b.srv.Close()
		b.start()
	}
	if err := errors.Join(<-done, w.Close()); err != nil {
		t.Fatal(err)
	}
	all, unfinished := readReceipts(t, path)
	if len(all) != 18_000 || unfinished != 0 {
		t.Fatalf("%d receipts, %d runs unfinished", len(all), unfinished)
	}
	n := map[string]uint64{}
	retried := 0
	for _, r := range all {
		if n[r.Topic]++; r.N != n[r.Topic] || !r.Acked || !strings.HasPrefix(r.Topic, r.Client+"/") {
			t.Fatalf("receipt %d of its topic: %+v", n[r.Topic], r)
		}
		times := 0
		for _, h := range b.got[r.Topic] {
			if h == r.Hash {
				times++
			}
		}
		if times < 1 || times > r.Tries {
			t.Fatalf("%+v arrived %d times", r, times)
		}
		if r.Tries > 1 {
			retried++
		}
	}
	if s := f.Stats(); s.Acknowledged != 18_000 || s.InFlight != 0 || s.Connections < 6 || s.Resent == 0 || retried == 0 {
		t.Errorf("%+v, %d messages sent again", s, retried)
	}
}

func TestStopsInOrder(t *testing.T) {
	b := newBroker(t)
	path := filepath.Join(t.TempDir(), "receipts")
	w, err := receipts.Append(path)
	if err != nil {
		t.Fatal(err)
	}
	d, err := signals.New(signals.Options{Profile: "car", Name: "car-1", Seed: 1, Start: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	f, err := New([]Client{{ID: "car-1", Source: FromDevice(d, 0)}}, Options{Broker: b.addr, QoS: 1, Receipts: w})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	for b.count() < 500 {
		time.Sleep(100 * time.Microsecond)
	}
	cancel()
	if err := errors.Join(<-done, w.Close()); err != nil {
		t.Fatal(err)
	}
	all, _ := readReceipts(t, path)
	if s := f.Stats(); int64(len(all)) != s.Published || s.Acknowledged != s.Published || s.Clients != 1 {
		t.Errorf("%d receipts, %+v", len(all), s)
	}
}

func TestErrorsEndTheRun(t *testing.T) {
	b := newBroker(t)
	bad := errors.New("line 3")
	source := func(yield func(recording.Message, error) bool) {
		_ = yield(recording.Message{Topic: "t"}, nil) && yield(recording.Message{}, bad)
	}
	f, err := New([]Client{{ID: "x", Source: source}}, Options{Broker: b.addr})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Run(t.Context()); !errors.Is(err, bad) {
		t.Error(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	one := func(yield func(recording.Message, error) bool) { yield(recording.Message{Topic: "t"}, nil) }
	f, err = New([]Client{{ID: "x", Source: one}}, Options{Broker: ln.Addr().String(), QoS: 1, Drain: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "1 messages were not acknowledged within 20ms") {
		t.Error(err)
	}
	for _, o := range []Options{{Broker: "x:1", QoS: 3}, {Broker: "x:1", Mix: []byte{1, 3}}, {Broker: "x:1", Speed: -1}, {Broker: "http://x"}} {
		if _, err := New([]Client{{ID: "x", Source: one}}, o); err == nil {
			t.Errorf("%+v passes", o)
		}
	}
}
