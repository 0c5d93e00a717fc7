package uplink

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/packetboat/packetboat/internal/mqttfront"
	"github.com/packetboat/packetboat/internal/wire"
	"github.com/packetboat/packetboat/pkg/codec"
	"github.com/packetboat/packetboat/pkg/stream"
)

// offered is what the hub has heard of codecs in the last CONNECT.
func (h *testHub) offered() (o wire.CodecOffer, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return wire.ParseCodecOffer(h.peers[len(h.peers)-1].User)
}

// cut ends the connection in use and waits for the next one.
func cut(t *testing.T, h *testHub, u *Uplink) {
	t.Helper()
	before := u.Stats().Connects
	h.do(func() { h.peers[len(h.peers)-1].Disconnect(codeShuttingDown, "for a test") })
	eventually(t, "the next connection", func() bool { s := u.Stats(); return s.Connects > before && s.State == Up })
}

// A session goes on over connections that break while nothing is on the way.
func TestSessionIsResumed(t *testing.T) {
	h, b := newHub(t), openBuffer(t)
	u, _ := start(t, b, quick(h.url()))
	for i := range 5 {
		accept(t, b, stream.Normal, i*100, 60)
		accept(t, b, stream.Bulk, i*100, 60)
		settled(t, h, b, (i+1)*120)
		cut(t, h, u)
	}
	accept(t, b, stream.Normal, 900, 20)
	settled(t, h, b, 620)
	s := u.Stats()
	if s.SessionsFresh != 1 || s.SessionsResumed != 5 || h.resumes != 5 || s.BatchesBad != 0 || s.Codec != "learning" || s.MessagesResent != 0 {
		t.Errorf("the hub resumed %d: %+v", h.resumes, s)
	}
	if s.BodyBytes <= 0 || s.PayloadBytes <= s.BodyBytes || s.BytesSent <= s.PayloadBytes || s.CodecStateBytes <= 0 {
		t.Errorf("bytes: %+v", s)
	}
	if o, ok := h.offered(); !ok || !o.Resume || o.Codec != codec.Learning || o.Last == 0 || o.Oldest >= o.Last {
		t.Errorf("offered %+v", o)
	}
}

// The connection breaks at every batch in turn, once before it was taken and
// once after: the session goes on, nothing is lost, and nothing comes twice.
func TestSessionSurvivesLossesAnywhere(t *testing.T) {
	for _, taken := range []bool{false, true} {
		t.Run(fmt.Sprintf("taken %v", taken), func(t *testing.T) {
			h, b := newHub(t), openBuffer(t)
			n, breaks := 0, 0
			h.do(func() {
				h.welcome.ReceiveMaximum = 4 // so that some are decoded behind the one that breaks
				h.answer = func(_ *stream.Batch, settle mqttfront.Settle) bool {
					if n++; n > breaks+1 && breaks < 12 { // the second batch, then the third, …
						n = 0
						breaks++
						settle(mqttfront.Result{Withhold: true})
						return taken
					}
					settle(mqttfront.Result{})
					return true
				}
			})
			accept(t, b, stream.Normal, 0, 2000)
			u, _ := start(t, b, quick(h.url()))
			settled(t, h, b, 2000)
			s := u.Stats()
			h.do(func() {
				if breaks != 12 || h.doubles != 0 || h.resumes != 12 {
					t.Errorf("%d breaks, %d doubles, %d resumed", breaks, h.doubles, h.resumes)
				}
			})
			if s.SessionsFresh != 1 || s.SessionsResumed != 12 || s.BatchesBad != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// Whatever a hub says that is not so, and whatever it forgets, costs a fresh
// session and nothing else.
func TestSessionBeginsAnewWhereInDoubt(t *testing.T) {
	for name, change := range map[string]func(*testHub){
		"the hub forgot":           func(h *testHub) { h.current = nil },
		"another digest":           func(h *testHub) { h.lie = func(p *codec.Position) { p.Digest++ } },
		"further than was sent":    func(h *testHub) { h.lie = func(p *codec.Position) { p.Bodies += 1000 } },
		"before the beginning":     func(h *testHub) { h.lie = func(p *codec.Position) { p.Bodies = 0 } },
		"less state than it began": func(h *testHub) { h.state = codec.MinState },
		"no state any more":        func(h *testHub) { h.state = 0 },
		"an older hub took over":   func(h *testHub) { h.old = true },
	} {
		t.Run(name, func(t *testing.T) {
			h, b := newHub(t), openBuffer(t)
			u, _ := start(t, b, quick(h.url()))
			accept(t, b, stream.Normal, 0, 200)
			settled(t, h, b, 200)
			h.do(func() { change(h) })
			cut(t, h, u)
			accept(t, b, stream.Normal, 200, 200)
			settled(t, h, b, 400)
			if s := u.Stats(); s.SessionsResumed != 0 || s.BatchesBad != 0 || s.Quarantined != 0 || h.doubles != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// An older hub answers nothing to the offer and gets rows.
func TestOlderHubGetsRows(t *testing.T) {
	h, b := newHub(t), openBuffer(t)
	h.do(func() {
		h.old = true
		h.broken = func(*stream.Batch) bool { return false }
	})
	u, _ := start(t, b, quick(h.url()))
	accept(t, b, stream.Normal, 0, 100)
	settled(t, h, b, 100)
	cut(t, h, u)
	accept(t, b, stream.Normal, 100, 100)
	settled(t, h, b, 200)
	if s := u.Stats(); s.Codec != "rows" || s.SessionsFresh+s.SessionsResumed+s.BatchesSelfContained != 0 || s.BatchesBad != 0 || s.CodecStateBytes != 0 {
		t.Errorf("%+v", s)
	}
	if o, ok := h.offered(); !ok || o.Resume {
		t.Errorf("offered %+v", o)
	}
}

// An edge that is told to send rows says nothing of codecs, as an older one.
func TestRowsAsOlderEdge(t *testing.T) {
	h, b := newHub(t), openBuffer(t)
	o := quick(h.url())
	o.Codec = codec.Rows
	u, _ := start(t, b, o)
	accept(t, b, stream.Normal, 0, 100)
	settled(t, h, b, 100)
	if s := u.Stats(); s.Codec != "rows" || s.SessionsFresh != 0 {
		t.Errorf("%+v", s)
	}
	if o, ok := h.offered(); ok {
		t.Errorf("offered %+v", o)
	}
}

// A hub without room for a session gets batches that stand for themselves.
func TestSelfContainedFromTheWelcome(t *testing.T) {
	h, b := newHub(t), openBuffer(t)
	h.do(func() { h.state = 0 })
	u, _ := start(t, b, quick(h.url()))
	accept(t, b, stream.Normal, 0, 200)
	settled(t, h, b, 200)
	cut(t, h, u)
	accept(t, b, stream.Normal, 200, 100)
	settled(t, h, b, 300)
	s := u.Stats()
	if s.Codec != "learning, self-contained" || s.BatchesSelfContained != s.BatchesSent || s.SessionsFresh+s.SessionsResumed != 0 || s.BatchesBad != 0 {
		t.Errorf("%+v", s)
	}
	if o, ok := h.offered(); !ok || o.Resume {
		t.Errorf("offered %+v", o)
	}
}

// A hub that gives a session up in the middle is heeded at once: nothing is
// quarantined, and nothing is sent as it was before.
func TestHubGivesTheSessionUp(t *testing.T) {
	for _, c := range []struct {
		state int
		want  string
	}{{0, "learning, self-contained"}, {codec.MinState, "learning"}} {
		h, b := newHub(t), openBuffer(t)
		u, _ := start(t, b, quick(h.url()))
		accept(t, b, stream.Normal, 0, 200)
		settled(t, h, b, 200)
		h.do(func() { h.lower = &c.state })
		accept(t, b, stream.Normal, 200, 100)
		accept(t, b, stream.Bulk, 300, 100)
		settled(t, h, b, 400)
		accept(t, b, stream.Normal, 400, 100) // it stays so
		settled(t, h, b, 500)
		s := u.Stats()
		if s.Codec != c.want || s.GrantsLowered != 1 || s.BatchesBad == 0 || s.Quarantined+s.CodecDistrusted != 0 || s.Connects != 1 || h.doubles != 0 {
			t.Errorf("%d: %+v", c.state, s)
		}
		if (s.BatchesSelfContained > 0) != (c.state == 0) || s.SessionsFresh != map[int]int64{0: 1, codec.MinState: 2}[c.state] {
			t.Errorf("%d: %+v", c.state, s)
		}
	}
}

// What a hub can never decode although it was begun afresh goes as rows, before
// a single message is given up.
func TestCodecIsDistrusted(t *testing.T) {
	h, b := newHub(t), openBuffer(t)
	h.do(func() { h.cannot = true })
	u := New(b, quick(h.url()))
	runUntilEnd(t, u.Run)
	for i, lane := range stream.Lanes {
		accept(t, b, lane, i*1000, 200)
	}
	settled(t, h, b, 600)
	cut(t, h, u) // it stays so for a while, also on the next connection
	accept(t, b, stream.Normal, 5000, 100)
	settled(t, h, b, 700)
	s := u.Stats()
	if s.CodecDistrusted != 1 || s.Quarantined != 0 || s.Codec != "rows" || h.doubles != 0 {
		t.Errorf("%+v", s)
	}
	if in, lost := h.count(); in != 700 || lost != 0 {
		t.Errorf("%d in the log, %d lost", in, lost)
	}
}

// A message that went as rows because it fits no other way, and that the hub
// cannot decode, says nothing of the learning codec.
func TestRowsAreNoReasonForDistrust(t *testing.T) {
	h, b := newHub(t), openBuffer(t)
	block := make([]byte, 4096)
	chance := rand.New(rand.NewPCG(1, 2))
	for i := range block {
		block[i] = byte(chance.Uint32())
	}
	h.do(func() {
		h.welcome.MaximumPacketSize = 5000
		h.broken = func(b *stream.Batch) bool { return len(b.Records) > 0 && len(b.Records[0].Payload) > 5000 }
	})
	if err := b.Append(stream.Normal, []stream.Message{{Topic: "t", Payload: bytes.Repeat(block, 8), QoS: 1}}, nil); err != nil {
		t.Fatal(err)
	}
	u, _ := start(t, b, quick(h.url()))
	eventually(t, "quarantine", func() bool { return u.Stats().Quarantined == 1 })
	if s := u.Stats(); s.CodecDistrusted != 0 || s.TooLarge != 0 {
		t.Errorf("%+v", s)
	}
}

// After that while the codec is tried again.
func TestCodecIsTrustedAgain(t *testing.T) {
	h, b := newHub(t), openBuffer(t)
	h.do(func() { h.cannot = true })
	u, _ := start(t, b, quick(h.url()))
	accept(t, b, stream.Normal, 0, 50)
	settled(t, h, b, 50)
	h.do(func() { h.cannot = false })
	n := 50
	eventually(t, "a session", func() bool {
		accept(t, b, stream.Normal, n, 1)
		n++
		return u.Stats().Codec == "learning" && u.Stats().SessionsFresh > 1
	})
	settled(t, h, b, n)
	if s := u.Stats(); s.CodecDistrusted == 0 || s.Quarantined != 0 || s.Connects != 1 {
		t.Errorf("%+v", s)
	}
}

// Two hubs take turns: each time a fresh session, and never a batch in vain.
func TestSessionsOverTwoHubs(t *testing.T) {
	h1, h2, b := newHub(t), newHub(t), openBuffer(t)
	h2.log = h1.log // of one region
	u, _ := start(t, b, quick(h1.url(), h2.url()))
	n := 0
	for i := range 4 {
		h, next := h1, h2
		if i%2 == 1 {
			h, next = h2, h1
		}
		eventually(t, "connection", func() bool { s := u.Stats(); return s.State == Up && s.Hub == h.url() })
		accept(t, b, stream.Normal, n, 100)
		n += 100
		eventually(t, "delivery", func() bool { s := b.Stats(); return s.Queued+s.InFlight == 0 })
		h.do(func() {
			h.connect = func(*mqttfront.Peer) error {
				return &mqttfront.Refusal{Code: codeUseAnother, ServerReference: next.addr}
			}
			h.peers[len(h.peers)-1].Disconnect(codeShuttingDown, "for a test")
		})
		next.do(func() { next.connect = nil })
	}
	in1, _ := h1.count()
	in2, _ := h2.count()
	s := u.Stats()
	if in1+in2 != n || s.SessionsResumed != 0 || s.SessionsFresh != 4 || s.BatchesBad != 0 {
		t.Errorf("%d and %d of %d: %+v", in1, in2, n, s)
	}
}

// What was learned is kept as long as was asked for, and not longer.
func TestSessionIsForgotten(t *testing.T) {
	h, b := newHub(t), openBuffer(t)
	o := quick(h.url())
	o.CodecKeep = -1
	u, _ := start(t, b, o)
	accept(t, b, stream.Normal, 0, 50)
	settled(t, h, b, 50)
	cut(t, h, u)
	if o, ok := h.offered(); !ok || o.Resume {
		t.Errorf("offered %+v", o)
	}
	e := codec.NewEncoder(codec.MinState)
	if _, err := e.Append(nil, []stream.Record{{Seq: 1, Message: stream.Message{Topic: "a"}}}, 0); err != nil {
		t.Fatal(err)
	}
	x, now := New(b, quick(h.url())), time.Now()
	x.memory = memory{session: e, state: codec.MinState, until: now.Add(time.Hour)}
	if o, ok := x.offer(now.Add(time.Hour)); !ok || !o.Resume || o.Last != 1 {
		t.Errorf("within the hour: %+v", o)
	}
	if o, ok := x.offer(now.Add(time.Hour + 1)); !ok || o.Resume || x.memory.session != nil {
		t.Errorf("after the hour: %+v", o)
	}
}

// What is kept takes no memory for longer than it should where no hub is reached,
// and what is not kept is not shown.
func TestSessionIsForgottenWithoutAHub(t *testing.T) {
	h, b := newHub(t), openBuffer(t)
	o := quick(h.url())
	o.CodecKeep = -1
	u, _ := start(t, b, o)
	accept(t, b, stream.Normal, 0, 50)
	settled(t, h, b, 50)
	if u.Stats().CodecStateBytes == 0 {
		t.Error("nothing was learned")
	}
	h.do(func() {
		h.connect = func(*mqttfront.Peer) error { return &mqttfront.Refusal{Code: codeBusy} }
		h.peers[0].Disconnect(codeShuttingDown, "for a test")
	})
	eventually(t, "nothing kept", func() bool { s := u.Stats(); return s.State != Up && s.CodecStateBytes == 0 })

	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := nobody.Close(); err != nil {
		t.Fatal(err)
	}
	x := New(b, quick("tcp://"+nobody.Addr().String()))
	x.remember(memory{session: codec.NewEncoder(codec.MinState), state: codec.MinState, until: time.Now().Add(time.Hour)})
	for _, kept := range []bool{true, false} {
		if err := x.connection(t.Context(), x.target()); err == nil {
			t.Fatal("connected to nobody")
		}
		if there := x.memory.session != nil; there != kept || (x.Stats().CodecStateBytes > 0) != kept {
			t.Errorf("kept %v with %d bytes, want %v", there, x.Stats().CodecStateBytes, kept)
		}
		x.memory.until = time.Now().Add(-1)
	}
}

// Packets that were too large cost no session.
func TestPacketLimitKeepsTheSession(t *testing.T) {
	h, b := newHub(t), openBuffer(t)
	h.do(func() { h.welcome.MaximumPacketSize = 300 })
	accept(t, b, stream.Normal, 0, 2000)
	u, _ := start(t, b, quick(h.url()))
	settled(t, h, b, 2000)
	if s := u.Stats(); s.SessionsFresh != 1 || s.TooLarge != 0 || s.BatchesBad != 0 {
		t.Errorf("%+v", s)
	}
}
