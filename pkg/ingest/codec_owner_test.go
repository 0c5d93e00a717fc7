package ingest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/packetboat/packetboat/pkg/commitlog/logtest"
	"github.com/packetboat/packetboat/pkg/stream"
)

// gated is a decoder that waits in the middle of a batch.
type gated struct {
	decoder
	in, gate chan struct{}
}

func (g gated) Decode(packet []byte, device string) (stream.Batch, error) {
	g.in <- struct{}{}
	<-g.gate
	return g.decoder.Decode(packet, device)
}

// readyHub is a hub over a log in memory, in real time.
func readyHub(t *testing.T, plain bool) *hub {
	h := startHub(logtest.NewMem(1), Options{}, plain)
	t.Cleanup(func() { _ = h.stop() })
	for h.Ready() != nil {
		pause(time.Millisecond)
	}
	return h
}

// A second connection comes while the first one's batch is being decoded: it
// goes on behind that batch. What the first one still sends is not decoded.
func TestTakeoverWhileDecoding(t *testing.T) {
	h := readyHub(t, true)
	e := newSimEdge("truck", false)
	fill(e, "m", 5)
	id := e.mem.epochs[0].id
	g := gated{in: make(chan struct{}), gate: make(chan struct{})}
	h.newDecoder = func(state int, l learned) decoder {
		g.decoder = newPlainDecoder(state, l)
		return g
	}
	if err := e.connect(h.Ingest); err != nil {
		t.Fatal(err)
	}
	h.newDecoder = newPlainDecoder
	first, settled := e.conn, make(chan Outcome, 1)
	b := e.batch(&e.mem.epochs[0], rng(1, 2), none)
	packet, err := first.enc.Append(nil, &b)
	if err != nil {
		t.Fatal(err)
	}
	var submitting sync.WaitGroup
	submitting.Go(func() { first.session.Submit(packet, func(o Outcome) { settled <- o }) })
	<-g.in
	hello := e.hello()
	second := make(chan *simConn, 1)
	go func() {
		c, err := e.dial(h.Ingest, hello)
		if err != nil {
			t.Error(err)
		}
		second <- c
	}()
	for first.reason() == "" && len(second) == 0 { // it has begun: it waits for the decoder, or has overtaken it
		select {
		case g.gate <- struct{}{}:
		case <-time.After(time.Millisecond):
		}
	}
	submitting.Wait()
	c := <-second
	if at := e.codec.plain.at; c.welcome.Codec.At != at || !c.welcome.Codec.Resume || at.Bodies != 1 {
		t.Fatalf("granted %+v, want to go on at %+v", c.welcome.Codec, at)
	}
	<-settled // taken or refused: either is right
	late, out := e.batch(&e.mem.epochs[0], rng(3, 3), none), make(chan Outcome, 1)
	if packet, err = first.enc.Append(nil, &late); err != nil {
		t.Fatal(err)
	}
	first.session.Submit(packet, func(o Outcome) { out <- o })
	if o := <-out; o.Code != Refused || o.RetryAfter <= 0 {
		t.Fatalf("what came late: %+v", o)
	}
	if _, there := inTransit.LoadAndDelete(string(packet)); !there {
		t.Fatal("what came late was decoded")
	}
	e.adopt(c)
	if o := <-e.submit(id, rng(3, 5), none).out; o.Code != Settled {
		t.Fatalf("outcome %+v", o)
	}
	if err := exact(h.Ingest); err != nil {
		t.Fatal(err)
	}
	e.hangUp()
}

// Connections of one device take over from each other while they send: what was
// learned is used by one of them at a time, or the plain codec panics.
func TestOneOwnerAtATime(t *testing.T) {
	h := readyHub(t, true)
	var all sync.WaitGroup
	var mu sync.Mutex // of e.codec
	e := newSimEdge("truck", false)
	resumed := 0
	for range 4 {
		all.Go(func() {
			epoch := stream.NewEpoch()
			for n := range uint64(150) {
				mu.Lock()
				offer := e.codec.offer()
				mu.Unlock()
				s, w, err := h.Connect(context.Background(), Hello{Device: "truck", Version: 1, Codec: offer,
					Held: []stream.Held{{Epoch: epoch, Lane: stream.Normal, Current: true}}})
				if err != nil {
					continue // another one was faster
				}
				mu.Lock()
				enc := e.codec.goOn(w.Codec)
				resumed = e.codec.resumed
				mu.Unlock()
				for i := range uint64(4) {
					b := stream.Batch{ID: stream.ID{Epoch: epoch, Lane: stream.Normal}, First: 1 + n*4 + i, Head: 1 + n*4 + i, Floor: 1 + n*4 + i,
						Records: []stream.Record{{Seq: 1 + n*4 + i, Message: stream.Message{Topic: "t", QoS: 1}}}}
					mu.Lock()
					packet, _ := enc.Append(nil, &b)
					mu.Unlock()
					s.Submit(packet, func(Outcome) {})
				}
				if n%2 == 0 {
					s.Close()
				}
			}
		})
	}
	all.Wait()
	if resumed == 0 {
		t.Error("no session went on")
	}
	if err := exact(h.Ingest); err != nil {
		t.Error(err)
	}
}
