package hub

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/packetboat/packetboat/internal/mqttfront"
	"github.com/packetboat/packetboat/internal/wire"
	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/commitlog/logtest"
	"github.com/packetboat/packetboat/pkg/ingest"
	"github.com/packetboat/packetboat/pkg/stream"
)

// slowHub is the MQTT side of a hub, over a log in memory that a test can make
// slow, or put back to a backup.
type slowHub struct {
	mem    *logtest.Mem
	bridge *bridge
	addr   net.Addr
	stop   func()
}

func runSlowHub(t *testing.T, mem *logtest.Mem, o ingest.Options) *slowHub {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	h := &slowHub{mem: mem}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.addr = l.Addr()
	secrets, err := openDevices(deviceRules{path: t.TempDir() + "/devices", max: 10}, log)
	if err != nil {
		t.Fatal(err)
	}
	in := ingest.New(h.mem, o)
	h.bridge = newBridge(in, secrets, nil, log)
	front := mqttfront.New(h.bridge, mqttfront.Options{Listeners: []net.Listener{l}, MinVersion: 5, MaxPacketSize: 1 << 20, ConnectTimeout: 30 * time.Second})
	ctx, cancel := context.WithCancel(context.Background())
	none := func(err error) { t.Error(err) }
	taking, serving := start(ctx, "ingest", none, in.Run), start(ctx, "mqtt", none, front.Run)
	h.stop = sync.OnceFunc(func() {
		cancel()
		h.mem.Inject(nil)
		for _, p := range []*part{serving, taking} {
			if err := p.stop(); err != nil {
				t.Error(err)
			}
		}
	})
	t.Cleanup(h.stop)
	await(t, "ingest to be ready", func() bool { return in.Ready() == nil })
	return h
}

// hold makes the log wait in the next append of records, until release. held
// is closed when one waits.
func (h *slowHub) hold() (held chan struct{}, release func()) {
	held, gate := make(chan struct{}), make(chan struct{})
	var once sync.Once
	h.mem.Inject(func(_ int, group []commitlog.Entry) logtest.Outcome {
		for i := range group {
			if len(group[i].Records) > 0 {
				once.Do(func() { close(held) })
				<-gate
				break
			}
		}
		return logtest.Commit
	})
	return held, sync.OnceFunc(func() { close(gate) })
}

// records gives the sequence numbers in the log, in order.
func (h *slowHub) records(t *testing.T) string {
	t.Helper()
	var all []string
	for s, err := range h.mem.Read(t.Context(), commitlog.Cursor{}, commitlog.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprint(s.Seq))
	}
	return strings.Join(all, " ")
}

// A second connection of a device takes over while a batch of the first one is
// on its way into the log: it is let in only when that is decided, and is told
// so. Nothing is appended twice, and the first connection learns why it ended.
func TestTakeoverWithBatchesPending(t *testing.T) {
	h := runSlowHub(t, logtest.NewMem(1), ingest.Options{ConnectWait: 30 * time.Second})
	epoch := stream.NewEpoch()
	held := func(last uint64) []stream.Held {
		return []stream.Held{{Epoch: epoch, Lane: stream.Normal, Head: last, Ranges: stream.NewRangeSet(stream.Range{First: 1, Last: last}), Current: true}}
	}
	first, _ := mustDial(t, h.addr, hello{id: "truck", held: held(3)})
	waiting, release := h.hold()
	t.Cleanup(release)
	pending := make(chan struct{})
	packet := first.encode(batch(epoch, 1, 3))
	go func() {
		defer close(pending)
		first.publish(wire.UpTopic("truck"), packet) // acknowledged or cut off: both are right
	}()
	<-waiting

	type welcomed struct {
		d   *device
		cov []stream.EpochCoverage
	}
	second := make(chan welcomed, 1)
	go func() {
		d, ack, err := dial(t, h.addr, hello{id: "truck", held: held(3)})
		if err != nil {
			t.Errorf("the second connection: %v", err)
			close(second)
			return
		}
		cov, err := wire.ParseCoverage(properties(ack.Properties.User))
		if err != nil {
			t.Error(err)
		}
		second <- welcomed{d, cov}
	}()
	if code := first.disconnected(); code != mqttfront.SessionTakenOver {
		t.Errorf("the first connection: DISCONNECT 0x%02x", code)
	}
	<-pending
	select {
	case <-second:
		t.Fatal("the second connection was let in before the batch was decided")
	default:
	}
	release()
	w, ok := <-second
	if !ok {
		return
	}
	if len(w.cov) != 1 || len(w.cov[0].Lanes) != 1 || w.cov[0].Lanes[0].Settled.String() != "1-3" {
		t.Errorf("the second connection is told %+v, want 1-3 settled", w.cov)
	}
	w.d.send(batch(epoch, 2, 3)) // 2 and 3 again, as an edge that was told less would
	if got := h.records(t); got != "1 2 3 4" {
		t.Errorf("the log holds %s", got)
	}
}

// While the first connection's batches stay undecided for too long, the second
// one is asked to come again, with a time.
func TestTakeoverIsBusy(t *testing.T) {
	h := runSlowHub(t, logtest.NewMem(1), ingest.Options{ConnectWait: 50 * time.Millisecond})
	epoch := stream.NewEpoch()
	first, _ := mustDial(t, h.addr, hello{id: "truck"})
	waiting, release := h.hold()
	t.Cleanup(release)
	pending := make(chan struct{})
	packet := first.encode(batch(epoch, 1, 1))
	go func() {
		defer close(pending)
		first.publish(wire.UpTopic("truck"), packet)
	}()
	<-waiting
	_, ack, err := dial(t, h.addr, hello{id: "truck"})
	if err == nil || ack == nil || ack.ReasonCode != mqttfront.ServerBusy {
		t.Fatalf("%+v %v, want 0x89", ack, err)
	}
	if d, ok := wire.RetryAfter(properties(ack.Properties.User)); !ok || d <= 0 || d > wire.MaxRetryAfter {
		t.Errorf("pb-retry-after %v %v", d, ok)
	}
	release()
	<-pending
	await(t, "the pending batch to be in", func() bool { return h.records(t) == "1" })
	d, _ := mustDial(t, h.addr, hello{id: "truck"})
	d.send(batch(epoch, 1, 2))
	if got := h.records(t); got != "1 2" {
		t.Errorf("the log holds %s", got)
	}
}

// A log that rejects is answered with 0x97 and a time; the batch comes in when
// it is sent again.
func TestRefusedBatch(t *testing.T) {
	h := runSlowHub(t, logtest.NewMem(1), ingest.Options{})
	epoch := stream.NewEpoch()
	d, _ := mustDial(t, h.addr, hello{id: "truck"})
	h.mem.Inject(func(_ int, group []commitlog.Entry) logtest.Outcome {
		if len(group) > 0 {
			return logtest.NoSpace
		}
		return logtest.Commit
	})
	code, props, lost := d.publish(wire.UpTopic("truck"), d.encode(batch(epoch, 1, 2)))
	if lost || code != mqttfront.QuotaExceeded {
		t.Fatalf("PUBACK 0x%02x, connection lost %v", code, lost)
	}
	if wait, ok := wire.RetryAfter(props); !ok || wait <= 0 {
		t.Errorf("pb-retry-after %v %v", wait, ok)
	}
	h.mem.Inject(nil)
	d.send(batch(epoch, 1, 2))
	if got := h.records(t); got != "1 2" {
		t.Errorf("the log holds %s", got)
	}
}

// A log that was put back to a backup has lost what a device no longer holds:
// that is declared, and what it still holds comes in.
func TestRestoredLog(t *testing.T) {
	h := runSlowHub(t, logtest.NewMem(1), ingest.Options{})
	epoch := stream.NewEpoch()
	d, ack := mustDial(t, h.addr, hello{id: "truck", held: []stream.Held{{Epoch: epoch, Lane: stream.Normal, Current: true}}})
	d.send(batch(epoch, 1, 2))
	backup := h.mem.Backup()
	d.send(batch(epoch, 3, 2))
	before, err := wire.ParseLogID(properties(ack.Properties.User))
	if err != nil {
		t.Fatal(err)
	}
	h.stop()
	h.mem.Restore(backup)
	h = runSlowHub(t, h.mem, ingest.Options{})
	held := []stream.Held{{Epoch: epoch, Lane: stream.Normal, Head: 6, Ranges: stream.NewRangeSet(stream.Range{First: 5, Last: 6}), Current: true, Answered: before}}
	again, ack := mustDial(t, h.addr, hello{id: "truck", held: held})
	after, err := wire.ParseLogID(properties(ack.Properties.User))
	if err != nil || after.Name != before.Name || after.Incarnation == before.Incarnation {
		t.Errorf("the log was %v and is %v (%v)", before, after, err)
	}
	again.send(batch(epoch, 5, 2))
	if got := h.records(t); got != "1 2 5 6" {
		t.Errorf("the log holds %s", got)
	}
	cov, err := h.mem.Coverage(t.Context(), "truck")
	if err != nil {
		t.Fatal(err)
	}
	if l := cov.Lane(stream.ID{Epoch: epoch, Lane: stream.Normal}); l == nil || l.LostBy[stream.LogRestored] != 2 || !l.Complete() {
		t.Errorf("coverage %+v", l)
	}
}

func TestOutcomesAndRevocations(t *testing.T) {
	var lost stream.RangeSet
	lost.Add(stream.Range{First: 4, Last: 5})
	r := result(ingest.Outcome{Code: ingest.Settled, Lost: lost})
	got, in, err := wire.ParseAnswer(r.User)
	if err != nil || r.Code != mqttfront.Success || got.String() != "4-5" || !in.IsEmpty() {
		t.Errorf("%+v: lost %s in %s %v", r, got.String(), in.String(), err)
	}
	for reason, want := range map[string]byte{"taken over": mqttfront.SessionTakenOver, "window exceeded": mqttfront.ReceiveMaximumExceeded,
		"hub stopping": mqttfront.ServerShuttingDown, "shard lost": mqttfront.ServerBusy, "log restored": mqttfront.ServerBusy} {
		if got := revokeCode(reason); got != want {
			t.Errorf("%s: 0x%02x, want 0x%02x", reason, got, want)
		}
	}
}
