package uplink

import (
	"crypto/rand"
	mathrand "math/rand/v2"
	"testing"
	"time"

	"github.com/packetboat/packetboat/internal/mqttfront"
	"github.com/packetboat/packetboat/internal/rig/badlink"
	"github.com/packetboat/packetboat/internal/wire"
	"github.com/packetboat/packetboat/pkg/stream"
)

// Refusals, undecodable batches, connections that break before and after a
// batch was taken, in any mixture: everything arrives once and in order.
func TestChaos(t *testing.T) {
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
		h.broken = func(*stream.Batch) bool { return unlucky(4) }
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
	for range 6 {
		_, _ = rand.Read(payload)
		if err := b.Append(stream.Normal, []stream.Message{{Topic: "t", Payload: payload, QoS: 1}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	o := quick("tcp://" + link.Addr())
	o.Lanes[stream.Normal] = BatchPolicy{Messages: 3, Bytes: 20_000, Age: time.Millisecond}
	o.ProgressTimeout = 100 * time.Millisecond
	u, _ := start(t, b, o)
	settled(t, h, b, 6)
	if s := u.Stats(); s.MessagesSettled == 0 {
		t.Errorf("nothing was settled by a PUBACK: %+v", s)
	}
}
