package uplink

import (
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/packetboat/packetboat/internal/mqttfront"
	"github.com/packetboat/packetboat/internal/rig/badlink"
	"github.com/packetboat/packetboat/internal/wire"
	"github.com/packetboat/packetboat/pkg/stream"
)

// start runs an uplink until the test ends.
func start(t testing.TB, b Buffer, o Options) (u *Uplink, stop func()) {
	u = New(b, o)
	u.distrust = backoff{min: 5 * time.Millisecond, max: 10 * time.Millisecond}
	return u, runUntilEnd(t, u.Run)
}

func TestDeliversAllLanesOnceAndInOrder(t *testing.T) {
	h, b := newHub(t), openBuffer(t)
	for i, lane := range stream.Lanes {
		accept(t, b, lane, i*1000, 300)
	}
	o := quick(h.url())
	o.Secret = func() ([]byte, error) { return []byte("secret"), nil }
	u, stop := start(t, b, o)
	settled(t, h, b, 900)
	for i, lane := range stream.Lanes { // and while it runs
		accept(t, b, lane, 10_000+i*1000, 100)
	}
	settled(t, h, b, 1200)
	eventually(t, "the last PUBACK", func() bool { return u.Stats().MessagesSettled == 1200 })
	s := u.Stats()
	if s.State != Up || s.Hub != h.url() || s.Log != h.log || s.Connects != 1 || s.MessagesSent != 1200 || s.BatchesSettled != s.BatchesSent ||
		s.BytesSent == 0 || s.BytesReceived == 0 || s.LastRoundTrip <= 0 || s.LastError != "" || s.WindowBatches < 1 || s.PacketLimit < 1 {
		t.Errorf("%+v", s)
	}
	if h.doubles != 0 {
		t.Errorf("%d doubles", h.doubles)
	}
	p := h.peers[0]
	if p.ClientID != device || p.Username != device || string(p.Password) != "secret" || !p.CleanStart || p.KeepAlive != 30 {
		t.Errorf("CONNECT %+v", p)
	}
	if v, err := wire.ParseVersion(p.User); err != nil || v != wire.Version {
		t.Errorf("version %d, %v", v, err)
	}
	if held, err := wire.ParseHeld(p.User); err != nil || len(held) == 0 {
		t.Errorf("held %v, %v", held, err)
	}
	stop()
	if s := u.Stats(); s.State != Down || s.InFlightBatches != 0 {
		t.Errorf("after the stop: %+v", s)
	}
}

// A PUBACK that is lost costs no resend: the welcome says what is settled.
func TestLostAcknowledgements(t *testing.T) {
	h, b := newHub(t), openBuffer(t)
	taken := 0
	h.do(func() {
		h.answer = func(_ *stream.Batch, settle mqttfront.Settle) bool {
			if taken++; taken == 3 { // in the log, and the connection breaks
				settle(mqttfront.Result{Withhold: true})
				h.answer = nil
			} else {
				settle(mqttfront.Result{})
			}
			return true
		}
	})
	accept(t, b, stream.Normal, 0, 200)
	u, _ := start(t, b, quick(h.url()))
	settled(t, h, b, 200)
	if h.doubles != 0 || h.connects < 2 {
		t.Errorf("%d doubles, %d connections", h.doubles, h.connects)
	}
	if s := u.Stats(); s.ConnectionsLost == 0 || s.LastError == "" {
		t.Errorf("%+v", s)
	}
}

// Refusals cost time, not order.
func TestRefusedBatchesComeAgainInOrder(t *testing.T) {
	h, b := newHub(t), openBuffer(t)
	n := 0
	h.do(func() {
		h.welcome.ReceiveMaximum = 4                    // so that more waits than is in flight
		h.delay = func() time.Duration { return h.lag } // of what follows a refused batch
		h.answer = func(_ *stream.Batch, settle mqttfront.Settle) bool {
			if n++; n%3 == 1 && n < 30 {
				return refuse(settle, codeQuota, wire.FormatRetryAfter(time.Millisecond))
			}
			settle(mqttfront.Result{})
			return true
		}
	})
	for i, lane := range stream.Lanes {
		accept(t, b, lane, i*1000, 300)
	}
	u, _ := start(t, b, quick(h.url()))
	settled(t, h, b, 900)
	if s := u.Stats(); s.BatchesRefused == 0 || s.MessagesResent == 0 || h.doubles != 0 || s.Connects != 1 {
		t.Errorf("%d doubles, %+v", h.doubles, s)
	}
}

// A batch that the hub cannot decode, for whatever reason, is sent again
// self-contained, and so is what followed it.
func TestOutOfStepRecovers(t *testing.T) {
	h, b := newHub(t), openBuffer(t)
	n := 0
	h.do(func() { h.broken = func(*stream.Batch) bool { n++; return n%7 == 3 && n < 40 } })
	for i, lane := range stream.Lanes {
		accept(t, b, lane, i*1000, 300)
	}
	u, _ := start(t, b, quick(h.url()))
	settled(t, h, b, 900)
	if s := u.Stats(); s.BatchesBad == 0 || s.Quarantined != 0 || s.Connects != 1 || h.doubles != 0 {
		t.Errorf("%+v", s)
	}
}

// One message that the hub cannot decode is found, given up, and declared; the
// rest arrives.
func TestPoisonIsQuarantined(t *testing.T) {
	h, b := newHub(t), openBuffer(t)
	h.do(func() {
		h.broken = func(b *stream.Batch) bool {
			for i := range b.Records {
				if string(b.Records[i].Payload) == "message 47" {
					return true
				}
			}
			return false
		}
	})
	accept(t, b, stream.Normal, 0, 100)
	accept(t, b, stream.Bulk, 1000, 100)
	u, _ := start(t, b, quick(h.url()))
	settled(t, h, b, 200)
	if r := h.reasons(); len(r) != 1 || r[stream.Quarantined] != 1 {
		t.Errorf("lost %v", r)
	}
	if s := u.Stats(); s.Quarantined != 1 || !strings.Contains(s.LastError, "quarantined") {
		t.Errorf("%+v", s)
	}
}

// Batches shrink to the hub's packet limit; what exceeds it alone is given up.
func TestPacketLimit(t *testing.T) {
	h, b := newHub(t), openBuffer(t)
	h.do(func() { h.welcome.MaximumPacketSize = 1500 })
	accept(t, b, stream.Normal, 0, 50)
	large := make([]byte, 2000)
	_, _ = rand.Read(large)
	if err := b.Append(stream.Normal, []stream.Message{{Topic: "large", Payload: large, QoS: 1}}, nil); err != nil {
		t.Fatal(err)
	}
	some := make([]byte, 400) // three of them fit
	for range 20 {
		_, _ = rand.Read(some)
		if err := b.Append(stream.Normal, []stream.Message{{Topic: "some", Payload: some, QoS: 1}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	accept(t, b, stream.Normal, 100, 50)
	u, _ := start(t, b, quick(h.url()))
	settled(t, h, b, 121)
	if r := h.reasons(); len(r) != 1 || r[stream.RefusedByLog] != 1 {
		t.Errorf("lost %v", r)
	}
	if s := u.Stats(); s.TooLarge != 1 || s.PacketLimit != 1500 || s.ConnectionsLost != 0 {
		t.Errorf("%+v", s)
	}
}

// The window is the hub's: no more batches are in flight than it grants.
func TestWindow(t *testing.T) {
	h, b := newHub(t), openBuffer(t)
	var held []mqttfront.Settle
	most := 0
	h.do(func() {
		h.welcome.ReceiveMaximum = 3
		h.answer = func(_ *stream.Batch, settle mqttfront.Settle) bool {
			held = append(held, settle)
			most = max(most, len(held))
			return true
		}
	})
	accept(t, b, stream.Normal, 0, 100)
	accept(t, b, stream.Urgent, 100, 100)
	u, _ := start(t, b, quick(h.url()))
	eventually(t, "a full window", func() bool { return u.Stats().InFlightBatches == 3 })
	for in := 0; in < 200; in, _ = h.count() {
		h.do(func() {
			for _, settle := range held {
				settle(mqttfront.Result{})
			}
			held = held[:0]
		})
		eventually(t, "the next batch", func() bool { in, _ = h.count(); return in == 200 || u.Stats().InFlightBatches > 0 })
	}
	h.do(func() {
		for _, settle := range held {
			settle(mqttfront.Result{})
		}
	})
	settled(t, h, b, 200)
	if most > 3 {
		t.Errorf("%d batches in flight of 3", most)
	}
}

// The log's answers reach the ledger: what it counts as lost is not settled as
// delivered.
func TestLogCountsAsLost(t *testing.T) {
	h, b := newHub(t), openBuffer(t)
	h.do(func() {
		h.answer = func(b *stream.Batch, settle mqttfront.Settle) bool {
			lost := stream.NewRangeSet(stream.Range{First: 5, Last: 6})
			settle(mqttfront.Result{User: wire.FormatAnswer(stream.Collect(lost.Within(stream.Range{First: b.First, Last: b.Last()})), stream.RangeSet{})})
			return true
		}
	})
	accept(t, b, stream.Normal, 0, 20)
	start(t, b, quick(h.url()))
	settled(t, h, b, 20)
	if s := b.Stats(); s.Lost[stream.RefusedByLog] != 2 || s.Settled != 18 {
		t.Errorf("%+v", s)
	}
}

// An epoch that its log has forgotten is given up; one that no log knows is sent.
func TestStaleEpoch(t *testing.T) {
	h, b := newHub(t), openBuffer(t)
	accept(t, b, stream.Normal, 0, 10)
	_, stop := start(t, b, quick(h.url()))
	settled(t, h, b, 10)
	stop()
	accept(t, b, stream.Normal, 10, 5) // of an epoch that the log has answered for
	h.do(func() { h.forget, h.streams = true, make(map[stream.ID]*kept) })
	u, _ := start(t, b, quick(h.url()))
	eventually(t, "giving up", func() bool { return b.Stats().Lost[stream.Stale] == 5 })
	eventually(t, "the count", func() bool { return u.Stats().EpochsStale == 1 })
	accept(t, b, stream.Normal, 20, 5) // of the new epoch
	settled(t, h, b, 5)
	if s := b.Stats(); s.Lost[stream.Stale] != 5 {
		t.Errorf("%+v", s)
	}
}

// Another log, or another life of it, knows nothing of the epoch: that is no
// reason to give it up.
func TestAnotherLogIsNoReasonToGiveUp(t *testing.T) {
	h, b := newHub(t), openBuffer(t)
	accept(t, b, stream.Normal, 0, 10)
	_, stop := start(t, b, quick(h.url()))
	settled(t, h, b, 10)
	stop()
	accept(t, b, stream.Normal, 10, 5)
	h.do(func() {
		h.forget, h.streams = true, make(map[stream.ID]*kept)
		h.log.Incarnation = stream.NewEpoch()
	})
	u, _ := start(t, b, quick(h.url()))
	settled(t, h, b, 5)
	if s := u.Stats(); s.EpochsStale != 0 {
		t.Errorf("%+v", s)
	}
}

func TestRedirects(t *testing.T) {
	h1, h2, b := newHub(t), newHub(t), openBuffer(t)
	to := func(h *testHub) func(*mqttfront.Peer) error {
		return func(*mqttfront.Peer) error {
			return &mqttfront.Refusal{Code: codeUseAnother, ServerReference: h.addr}
		}
	}
	h1.do(func() { h1.connect = to(h2) })
	accept(t, b, stream.Normal, 0, 10)
	u, stop := start(t, b, quick(h1.url()))
	settled(t, h2, b, 10)
	if s := u.Stats(); s.Redirects != 1 || s.Hub != h2.url() {
		t.Errorf("%+v", s)
	}
	stop()
	// Two that refer to each other: two in a row are followed, then it waits.
	h2.do(func() { h2.connect = to(h1) })
	o := quick(h1.url())
	o.BackoffMin, o.BackoffMax = time.Minute, time.Minute
	u, _ = start(t, b, o)
	eventually(t, "waiting", func() bool { return u.Stats().State == Waiting })
	if s := u.Stats(); s.Redirects != 2 || !strings.Contains(s.LastError, "refer to each other") {
		t.Errorf("%+v", s)
	}
}

func TestMovedWhileConnected(t *testing.T) {
	h1, h2, b := newHub(t), newHub(t), openBuffer(t)
	u, _ := start(t, b, quick(h1.url(), h2.url()))
	eventually(t, "connection", func() bool { return u.Stats().State == Up })
	h1.do(func() { h1.peers[0].Disconnect(codeTakenOver, "for a test") })
	accept(t, b, stream.Normal, 0, 10)
	settled(t, h2, b, 10) // the next of the list
	if s := u.Stats(); !strings.Contains(s.LastError, "took over") || !strings.Contains(s.LastError, "second edge") {
		t.Errorf("%+v", s)
	}
}

func TestBusyHubIsAskedLater(t *testing.T) {
	h, b := newHub(t), openBuffer(t)
	h.do(func() {
		h.connect = func(*mqttfront.Peer) error {
			h.connect = nil
			return &mqttfront.Refusal{Code: codeBusy, User: []stream.Property{wire.FormatRetryAfter(300 * time.Millisecond)}}
		}
	})
	began := time.Now()
	u, _ := start(t, b, quick(h.url()))
	eventually(t, "waiting", func() bool { return u.Stats().State == Waiting || u.Stats().Connects > 0 })
	if s := u.Stats(); s.State == Waiting && s.RetryAt.IsZero() {
		t.Errorf("%+v", s)
	}
	eventually(t, "connection", func() bool { return u.Stats().State == Up })
	if d := time.Since(began); d < 300*time.Millisecond {
		t.Errorf("asked to wait 300 ms, came after %v", d)
	}
}

func TestWrongSecretHasAHint(t *testing.T) {
	h, b := newHub(t), openBuffer(t)
	h.do(func() {
		h.connect = func(*mqttfront.Peer) error { return &mqttfront.Refusal{Code: codePassword, Reason: "unknown device"} }
	})
	u, _ := start(t, b, quick(h.url()))
	eventually(t, "the error", func() bool { return strings.Contains(u.Stats().LastError, "device add") })
	o := quick(h.url())
	o.Secret = func() ([]byte, error) { return nil, errors.New("no such file") }
	u, _ = start(t, b, o)
	eventually(t, "the error", func() bool { return strings.Contains(u.Stats().LastError, "no such file") })
}

// A stop waits for what is in flight, but not for long, and keeps the backlog.
func TestStop(t *testing.T) {
	for _, answers := range []bool{true, false} {
		h, b := newHub(t), openBuffer(t)
		var held []mqttfront.Settle
		h.do(func() {
			h.welcome.ReceiveMaximum = 2
			h.answer = func(_ *stream.Batch, settle mqttfront.Settle) bool { held = append(held, settle); return true }
		})
		accept(t, b, stream.Normal, 0, 100)
		u, stop := start(t, b, quick(h.url()))
		eventually(t, "a full window", func() bool { return u.Stats().InFlightBatches == 2 })
		if answers {
			go func() {
				// The stop has begun when the uplink sends nothing more.
				h.do(func() {
					for _, settle := range held {
						settle(mqttfront.Result{})
					}
				})
			}()
		}
		began := time.Now()
		stop()
		if d := time.Since(began); d > stopGrace+5*time.Second {
			t.Errorf("stopped after %v", d)
		}
		s := b.Stats()
		if s.InFlight != 0 || s.Queued == 0 || !answers && s.Queued != 100 {
			t.Errorf("answers %v: %+v", answers, s)
		}
		h.do(func() { // the front waits for them
			for _, settle := range held {
				settle(mqttfront.Result{Withhold: true})
			}
		})
	}
}

// A link that swallows everything is noticed, and all arrives once it is back.
func TestBlackHole(t *testing.T) {
	h, b := newHub(t), openBuffer(t)
	link, err := badlink.New(badlink.Options{Listen: "127.0.0.1:0", Target: h.addr})
	if err != nil {
		t.Fatal(err)
	}
	runUntilEnd(t, link.Run)
	o := quick("tcp://" + link.Addr())
	o.ProgressTimeout, o.ConnectTimeout, o.KeepAlive = 200*time.Millisecond, 200*time.Millisecond, time.Second
	accept(t, b, stream.Normal, 0, 50)
	u, _ := start(t, b, o)
	settled(t, h, b, 50)
	for i, cut := range []badlink.Cut{badlink.BlackHole, badlink.Reset, badlink.Refuse} {
		lost := u.Stats().ConnectionsLost
		if err := link.Cut(cut); err != nil {
			t.Fatal(err)
		}
		accept(t, b, stream.Normal, 100*(i+1), 50)
		eventually(t, "noticing", func() bool { return u.Stats().ConnectionsLost > lost })
		if err := link.Cut(badlink.Up); err != nil {
			t.Fatal(err)
		}
		settled(t, h, b, 50*(i+2))
	}
}

// An idle connection that has died is noticed by its pings.
func TestIdleBlackHole(t *testing.T) {
	h, b := newHub(t), openBuffer(t)
	link, err := badlink.New(badlink.Options{Listen: "127.0.0.1:0", Target: h.addr})
	if err != nil {
		t.Fatal(err)
	}
	runUntilEnd(t, link.Run)
	o := quick("tcp://" + link.Addr())
	o.KeepAlive, o.ConnectTimeout = time.Second, 200*time.Millisecond
	u, _ := start(t, b, o)
	eventually(t, "connection", func() bool { return u.Stats().State == Up })
	if err := link.Cut(badlink.BlackHole); err != nil {
		t.Fatal(err)
	}
	eventually(t, "noticing", func() bool { return u.Stats().ConnectionsLost > 0 })
}
