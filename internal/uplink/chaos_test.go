package uplink

import (
	"crypto/rand"
	mathrand "math/rand/v2"
	"testing"
	"time"

	"github.com/packetboat/packetboat/internal/mqttfront"
	"github.com/packetboat/packetboat/internal/rig/badlink"
	"github.com/packetboat/packetboat/internal/wire"
	"github.com/packetboat/packetboat/pkg/codec"
	"github.com/packetboat/packetboat/pkg/stream"
)

// Refusals, undecodable batches, connections that break before and after a
// batch was taken, in any mixture: everything arrives once and in order.
func TestChaos(t *testing.T) {
	chaos(t, func(h *testHub, _ *mathrand.Rand, unlucky func(int) bool) {
		h.broken = func(*stream.Batch) bool { return unlucky(4) }
	})
}

// The same while a codec session is in use all the time: what is marked reset can
// be decoded, so the edge never goes over to rows; hubs grant more and less,
// forget, and say what is not so.
func TestChaosOfSessions(t *testing.T) {
	states := []int{0, codec.MinState, codec.DefaultState}
	u := chaos(t, func(h *testHub, dice *mathrand.Rand, unlucky func(int) bool) {
		h.welcome.ReceiveMaximum = 8
		h.broken = func(*stream.Batch) bool { return !h.reset && unlucky(2) }
		busy := h.connect
		h.connect = func(p *mqttfront.Peer) error {
			if h.lie = nil; dice.IntN(4) == 0 {
				h.state = states[dice.IntN(len(states))]
			}
			switch {
			case unlucky(10):
				h.current = nil
			case unlucky(10):
				h.lie = func(p *codec.Position) { p.Bodies -= min(p.Bodies, dice.Uint64N(3)) }
			}
			return busy(p)
		}
		answer := h.answer
		h.answer = func(b *stream.Batch, settle mqttfront.Settle) bool {
			if n := dice.IntN(h.state + 1); unlucky(2) {
				if n < codec.MinState {
					n = 0
				}
				h.state, h.lower = n, &n
			}
			if unlucky(6) { // another break, more often than there are refusals
				settle(mqttfront.Result{Withhold: true})
				return true
			}
			return answer(b, settle)
		}
	})
	s := u.Stats()
	t.Logf("%d sessions begun, %d resumed, %d batches self-contained, %d grants lowered, %d batches bad",
		s.SessionsFresh, s.SessionsResumed, s.BatchesSelfContained, s.GrantsLowered, s.BatchesBad)
	if s.CodecDistrusted != 0 {
		t.Errorf("%+v", s)
	}
}

// chaos makes trouble, and what more says, and wants everything settled.
func chaos(t *testing.T, more func(h *testHub, dice *mathrand.Rand, unlucky func(percent int) bool)) *Uplink {
	seed := mathrand.Uint64()
	t.Logf("seed %d", seed)
	dice := mathrand.New(mathrand.NewPCG(seed, 1))
	h, b := newHub(t), openBuffer(t)
	trouble := 0
	unlucky := func(percent int) bool { // guarded by h.mu, as all behaviour
		if trouble > 150 || dice.IntN(100) >= percent {
			return false
		}
		trouble++
		return true
	}
	h.do(func() {
		h.delay = func() time.Duration { return time.Duration(dice.IntN(4000)) * time.Microsecond }
		h.answer = func(b *stream.Batch, settle mqttfront.Settle) bool {
			switch {
			case unlucky(8):
				return refuse(settle, codeQuota, wire.FormatRetryAfter(time.Millisecond))
			case unlucky(3): // not taken
				settle(mqttfront.Result{Withhold: true})
				return false
			case unlucky(3): // taken
				settle(mqttfront.Result{Withhold: true})
			default:
				settle(mqttfront.Result{})
			}
			return true
		}
		h.connect = func(*mqttfront.Peer) error {
			if unlucky(20) {
				return &mqttfront.Refusal{Code: codeBusy, User: []stream.Property{wire.FormatRetryAfter(time.Millisecond)}}
			}
			return nil
		}
		more(h, dice, unlucky)
	})
	u, _ := start(t, b, quick(h.url()))
	total := 0
	for i := range 20 {
		for j, lane := range stream.Lanes {
			accept(t, b, lane, i*1000+j*100, 50)
			total += 50
		}
	}
	settled(t, h, b, total)
	if s := u.Stats(); h.doubles != 0 || s.Quarantined != 0 || s.EpochsStale != 0 {
		t.Errorf("%d doubles, %+v", h.doubles, s)
	}
	h.do(func() {
		if trouble < 10 {
			t.Errorf("only %d times trouble in %d batches", trouble, h.batches)
		}
	})
	return u
}

// A link on which a batch takes longer than the edge waits for a PUBACK: it
// learns to wait.
func TestSlowLink(t *testing.T) {
	h, b := newHub(t), openBuffer(t)
	link, err := badlink.New(badlink.Options{Listen: "127.0.0.1:0", Target: h.addr, Conditions: badlink.Conditions{RateUp: 20_000}})
	if err != nil {
		t.Fatal(err)
	}
	runUntilEnd(t, link.Run)
	payload := make([]byte, 3000) // incompressible: three of them take 0.45 s
	o := quick("tcp://" + link.Addr())
	o.Lanes[stream.Normal] = BatchPolicy{Messages: 3, Bytes: 20_000, Age: time.Millisecond}
	o.ProgressTimeout = 100 * time.Millisecond
	u, _ := start(t, b, o)
	n := 0
	// The hub's welcome settles batches too: there are more, until a PUBACK does.
	eventually(t, "a PUBACK", func() bool {
		if s := b.Stats(); s.Queued+s.InFlight == 0 {
			for range 3 {
				_, _ = rand.Read(payload)
				if err := b.Append(stream.Normal, []stream.Message{{Topic: "t", Payload: payload, QoS: 1}}, nil); err != nil {
					t.Fatal(err)
				}
				n++
			}
		}
		return u.Stats().MessagesSettled > 0
	})
	settled(t, h, b, n)
}
