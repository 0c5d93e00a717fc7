package uplink

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/packetboat/packetboat/internal/mqttfront"
	"github.com/packetboat/packetboat/internal/wire"
	"github.com/packetboat/packetboat/pkg/buffer"
	"github.com/packetboat/packetboat/pkg/codec"
	"github.com/packetboat/packetboat/pkg/stream"
	pb "github.com/packetboat/packetboat/proto/packetboat/v1"
)

const device = "truck-17"

// kept is what a test hub has of one stream.
type kept struct {
	payloads map[uint64][]byte
	order    []uint64
	lost     map[uint64]stream.Reason
}

// testHub is a hub with the real front and wire, and maps for a log. It follows
// the rules of the link: coverage in its welcome, out of step after a batch
// that does not decode, and a refused batch refuses what follows in its lane.
type testHub struct {
	t    testing.TB
	addr string
	log  stream.LogID

	mu       sync.Mutex
	streams  map[stream.ID]*kept
	doubles  int
	batches  int
	connects int
	resumes  int // codec sessions that went on
	peers    []*mqttfront.Peer

	// The behaviour; guarded by mu. connect may refuse. broken makes a batch
	// undecodable. answer may refuse a decoded batch or hold its PUBACK; true: taken.
	connect func(*mqttfront.Peer) error
	welcome mqttfront.Welcome
	broken  func(*stream.Batch) bool
	reset   bool // whether the batch that broken looks at is marked so
	answer  func(*stream.Batch, mqttfront.Settle) bool
	forget  bool                  // names no epoch
	old     bool                  // knows no codec but rows
	state   int                   // granted to codec sessions; 0: none is kept
	lie     func(*codec.Position) // about where a resumed session stands
	cannot  bool                  // decode what the learning codec makes
	lower   *int                  // gives the session up, and grants so much from now on
	current *hubSession
	delay   func() time.Duration // of each PUBACK
	lag     time.Duration        // for delay: 10 ms while a batch is refused for another one
}

func newHub(t testing.TB) *testHub {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &testHub{
		t: t, addr: l.Addr().String(), streams: make(map[stream.ID]*kept),
		log: stream.LogID{Name: stream.NewEpoch(), Incarnation: stream.NewEpoch()}, state: codec.DefaultState,
	}
	front := mqttfront.New(h, mqttfront.Options{Listeners: []net.Listener{l}, MinVersion: 5, MaxPacketSize: 1 << 20})
	runUntilEnd(t, front.Run)
	return h
}

// runUntilEnd runs f until the test ends, and waits for it.
func runUntilEnd(t testing.TB, f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func (h *testHub) url() string { return "tcp://" + h.addr }

// do changes the behaviour.
func (h *testHub) do(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

func (h *testHub) Connect(_ context.Context, p *mqttfront.Peer) (mqttfront.Session, mqttfront.Welcome, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.connects++
	h.peers = append(h.peers, p)
	if h.connect != nil {
		if err := h.connect(p); err != nil {
			return nil, mqttfront.Welcome{}, err
		}
	}
	held, err := wire.ParseHeld(p.User)
	if err != nil {
		h.t.Error(err)
	}
	w := h.welcome
	w.User = append(w.User, wire.FormatLogID(h.log))
	if !h.forget {
		w.User = append(w.User, wire.FormatCoverage(h.coverage(held))...)
	}
	s := &hubSession{h: h, dec: wire.NewDecoder(wire.DecoderOptions{}), refusing: make(map[stream.Lane]uint64)}
	if offer, ok := wire.ParseCodecOffer(p.User); ok && !h.old {
		w.User = append(w.User, wire.FormatCodecGrant(h.grant(s, offer)))
	}
	h.current = s
	return s, w, nil
}

// grant gives s a decoder as the offer asks for; h.mu is held.
func (h *testHub) grant(s *hubSession, o wire.CodecOffer) wire.CodecGrant {
	g, d := wire.CodecGrant{Codec: codec.Learning, State: h.state}, wire.DecoderOptions{State: h.state}
	if last := h.current; last != nil {
		last.gone = true // what it still reads counts for nothing
		if kept := last.dec.Session(); kept != nil && o.Resume && h.state > 0 {
			if at := kept.Position(); at.Bodies >= o.Oldest && at.Bodies <= o.Last {
				g.Resume, g.At, d.Session = true, at, kept
				h.resumes++
			}
		}
	}
	if g.Resume && h.lie != nil {
		h.lie(&g.At)
	}
	s.dec = wire.NewDecoder(d)
	return g
}

// coverage is what the hub has of the epochs held; h.mu is held.
func (h *testHub) coverage(held []stream.Held) (cov []stream.EpochCoverage) {
	seen := make(map[stream.Epoch]bool)
	for _, x := range held {
		if seen[x.Epoch] {
			continue
		}
		seen[x.Epoch] = true
		c := stream.EpochCoverage{Epoch: x.Epoch}
		for _, lane := range stream.Lanes {
			k := h.streams[stream.ID{Device: device, Epoch: x.Epoch, Lane: lane}]
			if k == nil {
				continue
			}
			l := stream.LaneCoverage{Lane: lane}
			for n := range k.payloads {
				l.Settled.Add(stream.Range{First: n, Last: n})
			}
			for n := range k.lost {
				l.Settled.Add(stream.Range{First: n, Last: n})
				l.Lost.Add(stream.Range{First: n, Last: n})
			}
			c.Lanes = append(c.Lanes, l)
		}
		if len(c.Lanes) > 0 {
			cov = append(cov, c)
		}
	}
	return cov
}

type hubSession struct {
	h        *testHub
	dec      *wire.Decoder
	gone     bool                   // a later connection of the device took over
	say      []stream.Property      // to what cannot be decoded
	refusing map[stream.Lane]uint64 // by lane: the first number refused; the reader's own
}

func (s *hubSession) Subscribe(string) bool { return false }
func (s *hubSession) Deliver(string) bool   { return false }
func (s *hubSession) Close(error)           {}

func (s *hubSession) Publish(p *mqttfront.Publish, settle mqttfront.Settle) {
	h := s.h
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.gone {
		return
	}
	h.batches++
	if h.delay != nil {
		now := settle
		settle = func(r mqttfront.Result) { time.AfterFunc(h.delay(), func() { now(r) }) }
	}
	if p.Topic != wire.UpTopic(device) || p.QoS != 1 {
		h.t.Errorf("published to %q with QoS %d", p.Topic, p.QoS)
	}
	if h.lower != nil {
		s.dec = wire.NewDecoder(wire.DecoderOptions{State: *h.lower})
		s.say = []stream.Property{wire.FormatCodecGrant(wire.CodecGrant{Codec: codec.Learning, State: *h.lower})}
		h.lower = nil
	}
	b, err := s.dec.Decode(p.Payload, device)
	var m pb.Batch
	if err := proto.Unmarshal(p.Payload, &m); err != nil {
		h.t.Error(err)
	}
	h.reset = m.GetReset_()
	if err == nil && h.cannot && len(m.GetBody()) > 0 && m.GetCount() == 0 { // the learning codec's
		_, err = s.dec.Decode([]byte{0xff}, device)
	}
	if err == nil && h.broken != nil && h.broken(&b) {
		_, err = s.dec.Decode([]byte{0xff}, device)
	}
	if err != nil {
		settle(mqttfront.Result{Code: codePayload, User: s.say})
		return
	}
	if b.Flags&stream.FIFO == 0 {
		h.t.Error("a batch without the FIFO flag")
	}
	if first, ok := s.refusing[b.ID.Lane]; ok && first != firstOf(&b) {
		h.lag = 10 * time.Millisecond
		defer func() { h.lag = 0 }()
		settle(mqttfront.Result{Code: codeQuota, User: []stream.Property{wire.FormatRetryAfter(time.Millisecond)}})
		return
	}
	delete(s.refusing, b.ID.Lane)
	if h.answer != nil && !h.answer(&b, settle) {
		s.refusing[b.ID.Lane] = firstOf(&b)
		return
	}
	h.keep(&b)
	if h.answer == nil {
		settle(mqttfront.Result{})
	}
}

// firstOf is the lowest number that a batch settles.
func firstOf(b *stream.Batch) uint64 {
	if len(b.Losses) > 0 && (len(b.Records) == 0 || b.Losses[0].First < b.First) {
		return b.Losses[0].First
	}
	return b.First
}

// keep appends a batch to the log; h.mu is held.
func (h *testHub) keep(b *stream.Batch) {
	k := h.streams[b.ID]
	if k == nil {
		k = &kept{payloads: make(map[uint64][]byte), lost: make(map[uint64]stream.Reason)}
		h.streams[b.ID] = k
	}
	for _, l := range b.Losses {
		for n := l.First; n <= l.Last; n++ {
			if _, in := k.payloads[n]; !in {
				k.lost[n] = l.Reason
			}
		}
	}
	for i := range b.Records {
		r := &b.Records[i]
		if before, ok := k.payloads[r.Seq]; ok {
			if h.doubles++; !bytes.Equal(before, r.Payload) {
				h.t.Errorf("number %d of %s came with two contents", r.Seq, b.ID)
			}
			continue
		}
		if n := len(k.order); n > 0 && k.order[n-1] > r.Seq {
			h.t.Errorf("number %d of %s came after %d", r.Seq, b.ID, k.order[n-1])
		}
		k.payloads[r.Seq] = r.Payload
		k.order = append(k.order, r.Seq)
	}
}

// refuse settles with a refusal; it is for answer.
func refuse(settle mqttfront.Settle, code byte, user ...stream.Property) bool {
	settle(mqttfront.Result{Code: code, User: user})
	return false
}

// count is how many messages the hub has, and how many were declared lost.
func (h *testHub) count() (in, lost int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, k := range h.streams {
		in += len(k.payloads)
		lost += len(k.lost)
	}
	return in, lost
}

// reasons counts what was declared lost by reason.
func (h *testHub) reasons() map[stream.Reason]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := make(map[stream.Reason]int)
	for _, k := range h.streams {
		for _, r := range k.lost {
			n[r]++
		}
	}
	return n
}

// openBuffer opens a real buffer on a real disk.
func openBuffer(t testing.TB) *buffer.Buffer {
	t.Helper()
	b, err := buffer.Open(buffer.Options{Dir: t.TempDir(), MaxBytes: 64 << 20, LazySync: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	runUntilEnd(t, b.Run)
	return b
}

// accept appends n messages and waits until they are synced.
func accept(t testing.TB, b *buffer.Buffer, lane stream.Lane, from, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range n {
		wg.Add(1)
		m := stream.Message{Topic: fmt.Sprintf("t/%d", i%7), Time: int64(from+i) * 1000, Payload: fmt.Appendf(nil, "message %d", from+i), QoS: 1, Quality: stream.TimeLocal}
		if err := b.Append(lane, []stream.Message{m}, func(_ stream.Position, err error) {
			if err != nil {
				t.Error(err)
			}
			wg.Done()
		}); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
}

// eventually waits until cond holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

// quick are options under which tests need not wait.
func quick(urls ...string) Options {
	at := BatchPolicy{Messages: 20, Bytes: 4096, Age: 10 * time.Millisecond}
	return Options{
		Device: device, URLs: urls, BackoffMin: time.Millisecond, BackoffMax: 20 * time.Millisecond,
		Lanes: map[stream.Lane]BatchPolicy{stream.Urgent: {Messages: 20, Bytes: 4096, Age: -1}, stream.Normal: at, stream.Bulk: at},
	}
}

// settled waits until the hub has n messages, and the edge knows.
func settled(t testing.TB, h *testHub, b *buffer.Buffer, n int) {
	t.Helper()
	eventually(t, "delivery", func() bool {
		in, lost := h.count()
		s := b.Stats()
		return in+lost >= n && s.Queued == 0 && s.InFlight == 0
	})
	if in, lost := h.count(); in+lost != n {
		t.Fatalf("the hub has %d messages and %d losses of %d", in, lost, n)
	}
	if s := b.Stats(); !s.ConservationOK {
		t.Errorf("the buffer's books: %+v", s)
	}
}
