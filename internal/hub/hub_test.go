package hub

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/packetboat/packetboat/internal/httpapi"
	"github.com/packetboat/packetboat/internal/mqttfront"
	"github.com/packetboat/packetboat/internal/pki"
	"github.com/packetboat/packetboat/internal/wire"
	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var discard = slog.New(slog.DiscardHandler)

// running is a whole hub that runs, on sockets of its own.
type running struct {
	*Hub
	t      *testing.T
	cancel context.CancelFunc
	done   chan error
	client *httpapi.Client
}

func testConfig(dir string) Config {
	c := Defaults()
	c.DataDir = dir
	c.Listen = Listen{MQTT: "127.0.0.1:0", HTTP: "127.0.0.1:0"}
	c.Store.MinFree = -1 // not checked
	return c
}

func runHub(t *testing.T, c Config) *running {
	t.Helper()
	return runHubWith(t, c, discard)
}

func runHubWith(t *testing.T, c Config, log *slog.Logger) *running {
	t.Helper()
	h, err := Open(c, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Hub: h, t: t, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- h.Run(ctx) }()
	if r.client, err = httpapi.NewClient(h.HTTPAddr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.stop)
	await(t, "the hub to be ready", func() bool { return h.ingest.Ready() == nil })
	return r
}

// stop ends the hub and wants a clean end. It may be called twice.
func (r *running) stop() {
	r.t.Helper()
	r.client.Close()
	r.cancel()
	if err, ok := <-r.done; ok && err != nil {
		r.t.Errorf("the hub ended with %v", err)
	} else if ok {
		close(r.done)
	}
}

func (r *running) mqttAddr() net.Addr { return r.MQTTAddrs()[0] }

// records reads the whole log over HTTP: "device/seq=payload", in order.
func (r *running) records() (all []string) {
	r.t.Helper()
	for s, err := range r.client.Read(r.t.Context(), commitlog.Cursor{}, commitlog.Filter{}) {
		if err != nil {
			r.t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%s/%d=%s", s.Device, s.Seq, s.Payload))
	}
	return all
}

func (r *running) wantRecords(want ...string) {
	r.t.Helper()
	if got := r.records(); strings.Join(got, " ") != strings.Join(want, " ") {
		r.t.Errorf("the log holds %v, want %v", got, want)
	}
}

// A device's batches reach the log; after a restart it is told so, and what it
// sends again is not appended again.
func TestRoundTripAndRestart(t *testing.T) {
	dir := t.TempDir()
	h := runHub(t, testConfig(dir))
	epoch := stream.NewEpoch()
	d, ack := mustDial(t, h.mqttAddr(), hello{id: "truck-17", held: []stream.Held{{Epoch: epoch, Lane: stream.Normal, Current: true}}})
	id, err := wire.ParseLogID(properties(ack.Properties.User))
	if err != nil || id != h.store.ID() {
		t.Errorf("pb-log says %v (%v), the log is %v", id, err, h.store.ID())
	}
	if m := ack.Properties.ReceiveMaximum; m == nil || int(*m) != h.c.Limits.WindowMessages {
		t.Errorf("receive maximum %v", m)
	}
	if m := ack.Properties.MaximumPacketSize; m == nil || int64(*m) != int64(h.c.Limits.PacketBytes) {
		t.Errorf("maximum packet size %v", m)
	}
	d.send(batch(epoch, 1, 2))
	d.send(batch(epoch, 3, 1))
	h.wantRecords("truck-17/1=1", "truck-17/2=2", "truck-17/3=3")
	h.stop()

	h = runHub(t, testConfig(dir))
	held := []stream.Held{{Epoch: epoch, Lane: stream.Normal, Head: 4, Ranges: stream.NewRangeSet(stream.Range{First: 2, Last: 4}), Current: true, Answered: id}}
	d, ack = mustDial(t, h.mqttAddr(), hello{id: "truck-17", held: held})
	cov, err := wire.ParseCoverage(properties(ack.Properties.User))
	if err != nil || len(cov) != 1 || len(cov[0].Lanes) != 1 || !cov[0].Lanes[0].Settled.ContainsRange(stream.Range{First: 2, Last: 3}) {
		t.Errorf("coverage %+v %v", cov, err)
	}
	d.send(batch(epoch, 2, 3)) // 2 and 3 again
	h.wantRecords("truck-17/1=1", "truck-17/2=2", "truck-17/3=3", "truck-17/4=4")
	streams, err := h.client.Streams(t.Context(), "truck-17", 0)
	if err != nil || !streams.Connected || len(streams.Streams) != 1 || streams.Streams[0].In.Count != 4 || streams.CompleteToUS != 4000 {
		t.Errorf("streams %+v %v", streams, err)
	}
}

// Only the right secret lets a device in, and nobody learns which devices have
// one. A secret given while the hub runs counts at once.
func TestSecrets(t *testing.T) {
	c := testConfig(t.TempDir())
	h := runHub(t, c)
	mustDial(t, h.mqttAddr(), hello{id: "no-secret-yet"}) // loopback, and nobody has a secret

	secret, sum := pki.NewSecret()
	if _, err := pki.SetUser(c.DevicesPath(), "truck-17", sum); err != nil {
		t.Fatal(err)
	}
	mustDial(t, h.mqttAddr(), hello{id: "truck-17", secret: secret})
	wrong, _ := pki.NewSecret()
	type answer struct {
		code   byte
		reason string
	}
	var answers []answer
	for _, bad := range []hello{{id: "truck-17", secret: wrong}, {id: "truck-99", secret: wrong}, {id: "truck-99", secret: secret}} {
		d, ack, err := dial(t, h.mqttAddr(), bad)
		if err == nil {
			d.t.Fatalf("%+v got in", bad)
		}
		answers = append(answers, answer{ack.ReasonCode, ack.Properties.ReasonString})
	}
	for _, a := range answers {
		if a != answers[0] || a.code != mqttfront.BadUsernameOrPassword {
			t.Errorf("answers differ, or are not 0x86: %+v", answers)
		}
	}
	for _, bad := range []struct {
		hello
		code byte
	}{
		{hello{id: "truck-17"}, mqttfront.NotAuthorized},
		{hello{id: "truck-99"}, mqttfront.NotAuthorized},
		{hello{id: "truck-99", username: "truck-17", secret: secret}, mqttfront.BadUsernameOrPassword},
		{hello{id: "truck-17", username: "truck-99", secret: secret}, mqttfront.BadUsernameOrPassword},
		{hello{id: "", secret: secret}, mqttfront.ClientIDNotValid},
		{hello{id: "truck 17", secret: secret}, mqttfront.ClientIDNotValid},
		{hello{id: "truck-17", secret: secret, user: []stream.Property{{Key: "x", Value: "y"}}}, mqttfront.UnsupportedProtocolVersion},
		{hello{id: "truck-17", secret: secret, user: []stream.Property{{Key: wire.PropVersion, Value: "2"}}}, mqttfront.UnsupportedProtocolVersion},
		{hello{id: "truck-17", secret: secret, user: []stream.Property{wire.FormatVersion(), {Key: wire.PropHeld, Value: "nonsense"}}}, mqttfront.ProtocolError},
	} {
		_, ack, err := dial(t, h.mqttAddr(), bad.hello)
		if err == nil || ack == nil || ack.ReasonCode != bad.code {
			t.Errorf("%+v: %+v %v, want 0x%02x", bad.hello, ack, err, bad.code)
		}
	}
	if err := pki.RemoveUser(c.DevicesPath(), "truck-17"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := dial(t, h.mqttAddr(), hello{id: "truck-17", secret: wrong}); err != nil {
		t.Errorf("with no secret left on loopback: %v", err)
	}
}

// A device may publish and listen below its own id only, at QoS 1 only; the
// rest is refused, counted, and leaves no trace at another device.
func TestForeignTopics(t *testing.T) {
	h := runHub(t, testConfig(t.TempDir()))
	d, ack := mustDial(t, h.mqttAddr(), hello{id: "a"})
	mustDial(t, h.mqttAddr(), hello{id: "b"})
	epoch := stream.NewEpoch()
	packet := d.encode(batch(epoch, 1, 1))
	for _, topic := range []string{wire.UpTopic("b"), "pb/1/a/up/x", "pb/1/a/down", "pb/2/a/up", "car/speed"} {
		if code, _, lost := d.publish(topic, packet); lost || code != mqttfront.NotAuthorized {
			t.Errorf("PUBLISH to %s: 0x%02x, connection lost %v", topic, code, lost)
		}
	}
	for filter, ok := range map[string]bool{"pb/1/a/down/#": true, "pb/1/a/down/config": true, "pb/1/b/down/#": false, "#": false, "pb/1/+/down/#": false, "pb/1/a/up": false, "pb/1/a/downer": false} {
		err := d.subscribe(filter)
		if (err == nil) != ok {
			t.Errorf("SUBSCRIBE to %s: %v", filter, err)
		}
	}
	// The session is as good as before.
	if code, _, lost := d.publish(wire.UpTopic("a"), packet); lost || code != 0 {
		t.Errorf("own batch: 0x%02x, connection lost %v", code, lost)
	}
	h.wantRecords("a/1=1")
	if s := &h.bridge.stats; s.foreignTopic.Load() != 5 || s.foreignFilter.Load() != 5 {
		t.Errorf("counted %d topics and %d filters", s.foreignTopic.Load(), s.foreignFilter.Load())
	}

	if q := ack.Properties.MaximumQoS; q == nil || *q != 1 {
		t.Errorf("maximum QoS announced: %v", q)
	}
	d.publishQoS2(wire.UpTopic("a"))
	if code := d.disconnected(); code != mqttfront.QoSNotSupported {
		t.Errorf("QoS 2: DISCONNECT 0x%02x", code)
	}
}

// What cannot be decoded is answered 0x99, and the connection goes on with a
// batch that is marked reset.
func TestBadBatch(t *testing.T) {
	h := runHub(t, testConfig(t.TempDir()))
	d, _ := mustDial(t, h.mqttAddr(), hello{id: "a"})
	epoch := stream.NewEpoch()
	if code, _, lost := d.publish(wire.UpTopic("a"), []byte("no batch")); lost || code != mqttfront.PayloadFormatInvalid {
		t.Errorf("0x%02x, connection lost %v", code, lost)
	}
	d.enc.Reset()
	d.send(batch(epoch, 1, 1))
	h.wantRecords("a/1=1")
}

// A hub whose data is gone gives a device that was answered by the old log a
// new one: what the device holds comes in, what it holds no more is on record
// as settled elsewhere, nothing waits for ever.
func TestWipedHub(t *testing.T) {
	epoch := stream.NewEpoch()
	h := runHub(t, testConfig(t.TempDir()))
	d, _ := mustDial(t, h.mqttAddr(), hello{id: "ship", held: []stream.Held{{Epoch: epoch, Lane: stream.Normal, Current: true}}})
	d.send(batch(epoch, 1, 3))
	before := h.store.ID()
	h.stop()

	h = runHub(t, testConfig(filepath.Join(t.TempDir(), "wiped")))
	held := []stream.Held{{Epoch: epoch, Lane: stream.Normal, Head: 5, Ranges: stream.NewRangeSet(stream.Range{First: 4, Last: 5}), Current: true, Answered: before}}
	d, ack := mustDial(t, h.mqttAddr(), hello{id: "ship", held: held})
	if id, err := wire.ParseLogID(properties(ack.Properties.User)); err != nil || id.Name == before.Name {
		t.Errorf("the new log is called %v %v, the old one %v", id, err, before)
	}
	d.send(batch(epoch, 4, 2))
	h.wantRecords("ship/4=4", "ship/5=5")
	s, err := h.client.Streams(t.Context(), "ship", 0)
	if err != nil || len(s.Streams) != 1 {
		t.Fatalf("%+v %v", s, err)
	}
	if st := s.Streams[0]; st.OutThere.Count != 0 || st.LostBy["other_log"] != 3 || st.In.Count != 2 {
		t.Errorf("stream %+v", st)
	}
}
