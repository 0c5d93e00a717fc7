package hub

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/packetboat/packetboat/internal/mqttfront"
	"github.com/packetboat/packetboat/internal/pki"
	"github.com/packetboat/packetboat/internal/wire"
	"github.com/packetboat/packetboat/pkg/stream"
)

// A client without an id is given one by MQTT; that names no device.
func TestNoClientID(t *testing.T) {
	h := runHub(t, testConfig(t.TempDir()))
	_, ack, err := dial(t, h.mqttAddr(), hello{})
	if err == nil || ack == nil || ack.ReasonCode != mqttfront.ClientIDNotValid {
		t.Errorf("%+v %v, want 0x85", ack, err)
	}
	if n := len(h.ingest.Devices()); n != 0 {
		t.Errorf("%d devices are known", n)
	}
}

// A device whose secret was taken away, or replaced, is disconnected; others
// stay.
func TestRemovedDeviceIsExpelled(t *testing.T) {
	c := testConfig(t.TempDir())
	secrets := map[string]string{}
	set := func(id string) {
		secret, sum := pki.NewSecret()
		if _, err := pki.SetUser(c.DevicesPath(), id, sum); err != nil {
			t.Fatal(err)
		}
		secrets[id] = secret
	}
	for _, id := range []string{"removed", "replaced", "stays"} {
		set(id)
	}
	h := runHub(t, c)
	connect := func(id string) *device {
		d, _ := mustDial(t, h.mqttAddr(), hello{id: id, secret: secrets[id]})
		d.send(batch(stream.NewEpoch(), 1, 1)) // it is let in, on both sides
		return d
	}
	removed, replaced, stays := connect("removed"), connect("replaced"), connect("stays")
	h.bridge.expel()
	if n := h.bridge.stats.expelled.Load(); n != 0 {
		t.Fatalf("%d are expelled though nothing changed", n)
	}
	if err := pki.RemoveUser(c.DevicesPath(), "removed"); err != nil {
		t.Fatal(err)
	}
	set("replaced")
	h.bridge.expel()
	for _, d := range []*device{removed, replaced} {
		if code := d.disconnected(); code != mqttfront.NotAuthorized {
			t.Errorf("%s: DISCONNECT 0x%02x", d.id, code)
		}
	}
	stays.send(batch(stream.NewEpoch(), 2, 1))
	connect("replaced")
	await(t, "the others to be gone", func() bool {
		h.bridge.mu.Lock()
		defer h.bridge.mu.Unlock()
		return len(h.bridge.sessions) == 2
	})
	if n := h.bridge.stats.expelled.Load(); n != 2 {
		t.Errorf("%d counted", n)
	}
}

// The look at the devices comes by itself.
func TestRecheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		devices, err := openDevices(deviceRules{path: t.TempDir() + "/none", max: 10, certificates: true}, discard)
		if err != nil {
			t.Fatal(err)
		}
		b := newBridge(nil, devices, nil, discard)
		told := make(chan byte, 1)
		b.sessions[&session{device: "a", peer: &mqttfront.Peer{Disconnect: func(code byte, _ string) { told <- code }}}] = struct{}{}
		p := start(t.Context(), "device check", func(err error) { t.Error(err) }, b.recheck)
		began := time.Now()
		if code := <-told; code != mqttfront.NotAuthorized || time.Since(began) != recheckEvery {
			t.Errorf("0x%02x after %s", code, time.Since(began))
		}
		if err := p.stop(); err != nil {
			t.Error(err)
		}
	})
}

// QoS 0 has no acknowledgement to promise anything with: such a batch is left.
func TestBatchWithoutAcknowledgement(t *testing.T) {
	h := runHub(t, testConfig(t.TempDir()))
	d, _ := mustDial(t, h.mqttAddr(), hello{id: "a"})
	epoch := stream.NewEpoch()
	d.publishQoS0(wire.UpTopic("a"), d.encode(batch(epoch, 1, 2)))
	d.enc.Reset()
	d.send(batch(epoch, 3, 1))
	h.wantRecords("a/3=3")
	if n := h.bridge.stats.badQoS.Load(); n != 1 {
		t.Errorf("%d counted", n)
	}
}

// Nobody but the device itself sends in its name: its will is no batch.
func TestWillIsNoBatch(t *testing.T) {
	h := runHub(t, testConfig(t.TempDir()))
	d, _ := mustDial(t, h.mqttAddr(), hello{id: "a", will: []byte("no batch")})
	_ = d.conn.Close()
	await(t, "the session to end", func() bool { return h.ingest.Stats().Sessions == 0 })
	if s := h.ingest.Stats(); s.Bad != 0 {
		t.Errorf("%d bad batches", s.Bad)
	}
}

// An edge that holds more epochs than CONNECT takes says so; what it left out is
// not called absent.
func TestMoreHeld(t *testing.T) {
	h := runHub(t, testConfig(t.TempDir()))
	epoch, current := stream.NewEpoch(), stream.NewEpoch()
	now := stream.Held{Epoch: current, Lane: stream.Normal, Current: true}
	all := []stream.Held{{Epoch: epoch, Lane: stream.Normal, Head: 4, Ranges: stream.NewRangeSet(stream.Range{First: 1, Last: 4})}, now}
	absent := func() uint64 { return h.ingest.Devices()[0].Absent }
	d, _ := mustDial(t, h.mqttAddr(), hello{id: "a", held: all})
	d.send(batch(epoch, 1, 1))
	d.send(&stream.Batch{ID: stream.ID{Epoch: epoch, Lane: stream.Normal}, First: 2, Head: 4, Floor: 2})
	more := append([]stream.Property{wire.FormatVersion()}, wire.FormatHeld([]stream.Held{now})...)
	mustDial(t, h.mqttAddr(), hello{id: "a", user: append(more, stream.Property{Key: wire.PropHeld, Value: "more"})})
	if n := absent(); n != 0 {
		t.Errorf("%d are called absent", n)
	}
	mustDial(t, h.mqttAddr(), hello{id: "a", user: more})
	if n := absent(); n != 3 {
		t.Errorf("%d are called absent, want 3", n)
	}
}
