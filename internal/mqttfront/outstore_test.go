package mqttfront

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/packetboat/packetboat/pkg/stream"
)

// SUBACK and UNSUBACK say what a restart will not change.
func TestSubscriptionsAreDurable(t *testing.T) {
	j := newJournal()
	s, _ := stored(t, j, Options{FanOut: true})
	c := connect(t, s.addr, persistent)
	j.setManual(true)
	c.send(packet(0x82, u16(1), []byte{0}, str("a"), []byte{1}, str("#b"), []byte{0}, str("$share/g/b"), []byte{2}, str("a"), []byte{2}))
	c.ping() // the answer would stand behind the SUBACK
	j.sync(1)
	c.expect(0x90)
	if got := j.keys("f/"); len(got) != 2 {
		t.Errorf("stored %q", got)
	}
	c.send(packet(0xA2, u16(2), []byte{0}, str("a"), str("c")))
	c.ping()
	c.Close()
	j = s.crash(j, 0) // the UNSUBSCRIBE with it
	s, _ = stored(t, j, Options{FanOut: true})
	eventually(t, "the Store is read", func() bool { return s.Stats().Subscriptions == 2 })
	j.setManual(false)
	there, c := present(t, s, persistent)
	if !there {
		t.Fatal("the session is gone")
	}
	for _, topic := range []string{"a", "b"} {
		c.tell(topic, "x", 2, 0)
		g := c.message()
		if g.qos != 2 || g.topic != topic {
			t.Errorf("got %+v", g)
		}
		c.answer(g)
	}
	c.send(packet(0xA2, u16(2), []byte{0}, str("a"), str("$share/g/b")))
	c.expect(0xB0)
	if got := j.keys("f/"); len(got) != 0 {
		t.Errorf("stored %q", got)
	}
}

// A SUBACK or UNSUBACK that the Store cannot stand for is not given.
func TestSubscriptionsAreNotAcknowledgedUnsaved(t *testing.T) {
	j := newJournal()
	s, _ := stored(t, j, Options{FanOut: true})
	for first, rest := range map[byte][]byte{0x82: {0}, 0xA2: nil} {
		c := connect(t, s.addr, persistent)
		j.setFail(errDisk)
		c.send(packet(first, u16(1), []byte{0}, str("a"), rest))
		c.expectDisconnect(UnspecifiedError)
		j.setFail(nil)
	}
}

// A client that wants no session costs the Store nothing, and one that ends
// leaves nothing behind.
func TestNothingIsStoredForNobody(t *testing.T) {
	j := newJournal()
	s, _ := stored(t, j, Options{FanOut: true})
	c := connect(t, s.addr, connectOptions{id: "clean"})
	c.subscribe(1, "t", 1)
	keep := connect(t, s.addr, persistent)
	keep.subscribe(1, "t", 2)
	keep.tell("t", "x", 2, 0)
	g, h := c.message(), keep.message()
	for range 3 {
		s.local.keep()
	}
	if m, f := j.keys("m/"), j.keys("f/"); len(m) != 1 || len(f) != 1 {
		t.Errorf("stored %q, %q", m, f)
	}
	c.answer(g)
	_ = h
	keep.disconnect(expiryProp(0)...)
	c.disconnect()
	eventually(t, "nothing is stored", func() bool { return len(j.keys("")) == 0 })
}

// What is answered in time is never written; what waits is, and is removed when
// it is answered.
func TestSavedLazily(t *testing.T) {
	j := newJournal()
	s, _ := stored(t, j, Options{FanOut: true})
	s.stopTicks()
	sub := connect(t, s.addr, persistent)
	sub.subscribe(1, "t", 2)
	pub := connect(t, s.addr, connectOptions{id: "pub"})
	for qos := range byte(3) {
		pub.tell("t", "quick", qos, 0)
		sub.answer(sub.message())
		sub.ping()
		for range 3 {
			s.local.keep()
		}
		if got := j.keys("m/"); len(got) != 0 {
			t.Errorf("QoS %d: stored %q", qos, got)
		}
	}
	for qos := byte(1); qos <= 2; qos++ {
		pub.tell("t", "slow", qos, 0)
		g := sub.message()
		s.local.keep()
		if got := j.keys("m/"); len(got) != 0 {
			t.Errorf("QoS %d: stored at once %q", qos, got)
		}
		s.local.keep()
		if got := j.keys("m/"); len(got) != 1 {
			t.Errorf("QoS %d: stored %q", qos, got)
		}
		sub.answer(g)
		sub.ping()
		s.local.keep()
		if got := j.keys("m/"); len(got) != 0 {
			t.Errorf("QoS %d: stored when answered %q", qos, got)
		}
	}
}

// When the Store has a QoS 2 message, PUBREL leaves only when the Store knows of
// the PUBREC: or a restart would send the message again.
func TestPubrelWaitsForTheStore(t *testing.T) {
	j := newJournal()
	s, _ := stored(t, j, Options{FanOut: true})
	s.stopTicks()
	sub := connect(t, s.addr, persistent)
	sub.subscribe(1, "t", 2)
	connect(t, s.addr, connectOptions{id: "pub"}).tell("t", "x", 2, 0)
	g := sub.message()
	s.local.keep()
	s.local.keep()
	if got := j.keys("m/"); len(got) != 1 {
		t.Fatalf("stored %q", got)
	}
	j.setManual(true)
	sub.send(packet(typePubrec<<4, u16(int(g.id))))
	sub.ping() // PUBREL would leave with this answer
	sub.ping()
	j.sync(1)
	sub.expect(typePubrel<<4 | 2)
}

// stopTicks leaves local.keep to the test.
func (s *server) stopTicks() { s.local.noTicks.Store(true) }

// A stop in order loses nothing of what waits: not messages that were never sent,
// nor those on their way, nor the state of QoS 2.
func TestStopSavesWhatWaits(t *testing.T) {
	j := newJournal()
	s, _ := stored(t, j, Options{FanOut: true})
	o := persistent
	o.props = append(expiryProp(60), propReceiveMaximum, 0, 3)
	sub := connect(t, s.addr, o)
	sub.subscribeWith("t", 2, 77)
	pub := connect(t, s.addr, connectOptions{id: "pub"})
	for i, qos := range []byte{1, 2, 2, 1, 2} {
		pub.tell("t", fmt.Sprint(i), qos, 0)
	}
	for range 3 {
		sub.message()
	}
	sub.send(packet(typePubrec<<4, u16(2)))
	sub.expect(typePubrel<<4 | 2)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	s, _ = stored(t, j, Options{FanOut: true})
	if n := s.Stats().QueuedMessages; n != 0 {
		t.Logf("%d wait before the client is here", n)
	}
	sub = connect(t, s.addr, o)
	if body := sub.expect(typePubrel<<4 | 2); !bytes.Equal(body, u16(2)) {
		t.Errorf("PUBREL % x", body)
	}
	for _, want := range []got{{qos: 1, id: 1, payload: "0", dup: true}, {qos: 2, id: 3, payload: "2", dup: true}, {qos: 1, payload: "3", dup: true}} {
		g := sub.message()
		if g.qos != want.qos || g.payload != want.payload || g.dup != want.dup || want.id != 0 && g.id != want.id || !bytes.Contains(g.props, []byte{propSubID, 77}) {
			t.Errorf("got %+v, want %+v", g, want)
		}
	}
	sub.send(packet(typePubcomp<<4, u16(2)))
	sub.send(packet(typePuback<<4, u16(1)))
	g := sub.message()
	if g.payload != "4" || g.qos != 2 {
		t.Errorf("got %+v", g)
	}
}

// Retained messages outlive a restart, with their origin and what is left of
// their time; those that were cleared or have expired do not.
func TestRetainedOutliveARestart(t *testing.T) {
	j := newJournal()
	wall := int64(1e15)
	o := Options{FanOut: true, Now: func() stream.Moment { return stream.Moment{Time: wall, Quality: stream.TimeLocal} }}
	s, _ := stored(t, j, o)
	pub := connect(t, s.addr, connectOptions{id: "pub"})
	pub.tell("r/kept", "1", 1, flagRetain, userProp("k", "v")...)
	pub.tell("r/two", "2", 2, flagRetain)
	pub.tell("r/plain", "3", 0, flagRetain)
	pub.tell("r/cleared", "4", 1, flagRetain)
	pub.tell("r/cleared", "", 2, flagRetain)
	pub.tell("r/short", "5", 1, flagRetain, propMessageExpiry, 0, 0, 0, 9)
	pub.tell("r/long", "6", 1, flagRetain, propMessageExpiry, 0, 0, 1, 0)
	pub.ping()
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if got := j.keys("r/"); len(got) != 5 {
		t.Errorf("stored %q", got)
	}
	wall += 100e6
	s, _ = stored(t, j, o)
	pub = connect(t, s.addr, connectOptions{id: "pub"})
	pub.subscribe(1, "r/#", 1<<2) // no local: nothing of its own
	pub.ping()
	sub := connect(t, s.addr, connectOptions{id: "sub"})
	sub.subscribe(1, "r/#", 2)
	for _, want := range []got{{topic: "r/kept", payload: "1", qos: 1}, {topic: "r/long", payload: "6", qos: 1, expiry: 156}, {topic: "r/plain", payload: "3"}, {topic: "r/two", payload: "2", qos: 2}} {
		g := sub.message()
		if g.topic != want.topic || g.payload != want.payload || g.qos != want.qos || g.expiry != want.expiry || !g.retain || g.dup {
			t.Errorf("got %+v, want %+v", g, want)
		}
		if g.topic == "r/kept" && !bytes.Equal(g.props, userProp("k", "v")) {
			t.Errorf("properties % x", g.props)
		}
	}
	eventually(t, "what has expired is removed", func() bool { return len(j.keys("r/")) == 4 && s.Stats().Retained == 4 })
}

// A retained message and the message itself are durable together; of one that is
// refused, or not meant for subscribers, nothing is retained.
func TestRetainedIsDurableWithItsMessage(t *testing.T) {
	j := newJournal()
	s, h := stored(t, j, Options{FanOut: true})
	pub := connect(t, s.addr, connectOptions{id: "pub"})
	pub.tell("r", "old", 1, flagRetain)
	j.setManual(true)
	pub.send(pub.publishPacket("r", 1, flagRetain, "new"))
	pub.ping()
	j.mu.Lock()
	if q := j.queue; len(q) != 1 || q[0].payload != "new" || len(q[0].changes) != 1 || q[0].changes[0].Key != "r/r" {
		t.Errorf("in one write: %+v", q)
	}
	j.mu.Unlock()
	sub := connect(t, s.addr, connectOptions{id: "sub"})
	sub.subscribe(1, "r", 0)
	if g := sub.message(); g.payload != "old" {
		t.Errorf("before it is settled: %+v", g)
	}
	j.setManual(false)
	j.sync(9)
	pub.expectAck(1, 0)
	if g := sub.message(); g.payload != "new" {
		t.Errorf("got %+v", g)
	}
	for _, r := range []Result{{Code: QuotaExceeded}, {NoFanOut: true}} {
		h.publish = func(_ *fakeSession, p *Publish, settle Settle) {
			if r.NoFanOut {
				j.Save(p.Save, nil) // as promised
			}
			settle(r)
		}
		pub.send(pub.publishPacket("r", 1, flagRetain, "never"))
		pub.expectAck(1, r.Code)
		eventually(t, "the Store has what is retained", func() bool {
			j.mu.Lock()
			defer j.mu.Unlock()
			l, ok := decodeRetained(j.durable["r/r"], stream.Moment{}, time.Now())
			return ok && string(l.payload) == "new"
		})
		sub.subscribe(1, "r", 0)
		if g := sub.message(); g.payload != "new" {
			t.Errorf("got %+v", g)
		}
	}
}

// receiver is a QoS 2 client that keeps its session and takes each identifier
// for one message until it is released (Method B of 4.3.3).
type receiver struct {
	*raw
	open  map[uint16]string
	times map[string]int
	mixed map[string]bool // came under an identifier that was another's
}

func (r *receiver) connect(t testing.TB, s *server) {
	r.raw = connect(t, s.addr, persistent)
}

// read handles what has come; answers says how many of the next answers leave.
func (r *receiver) read(answers int) {
	r.send([]byte{typePingreq << 4, 0})
	for {
		first, body := r.raw.read()
		var reply []byte
		switch first >> 4 {
		case typePingresp:
			return
		case typePublish:
			g := parseOut(r.t, packet(first, body), 5)[0]
			if was, known := r.open[g.id]; !known {
				r.open[g.id] = g.payload
				r.times[g.payload]++
			} else if was != g.payload {
				r.mixed[g.payload] = true
			}
			reply = packet(typePubrec<<4, u16(int(g.id)))
		case typePubrel:
			delete(r.open, binary.BigEndian.Uint16(body))
			reply = packet(typePubcomp<<4, body[:2])
		}
		if answers--; answers >= 0 {
			r.send(reply)
		}
	}
}

// waiting is what is not answered yet, by all subscribers.
func (s *server) waiting() (n int) {
	for _, x := range s.local.all() {
		x.mu.Lock()
		n += x.out.waiting()
		x.mu.Unlock()
	}
	return n
}

// Whatever is lost in crashes, and however connections end, a QoS 2 message
// reaches a subscriber that keeps its session at most once; and once, if no crash
// came before it was saved.
func TestOutboundModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		j := newJournal()
		begun := func() *server {
			h := newFake()
			h.publish = j.take
			s := begin(t, h, Options{FanOut: true, Store: j, drain: time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
			s.stopTicks()
			return s
		}
		s := begun()
		r := &receiver{open: map[uint16]string{}, times: map[string]int{}, mixed: map[string]bool{}}
		r.connect(t, s)
		if code := r.subscribe(1, "t", 2); code != 2 {
			rt.Fatalf("SUBACK %d", code)
		}
		pub := connect(t, s.addr, connectOptions{id: "pub"})
		sent, forgiven := []string{}, map[string]bool{}
		again := func() {
			s = begun()
			r.connect(t, s)
			pub = connect(t, s.addr, connectOptions{id: "pub"})
		}
		check := func() {
			for p, n := range r.times {
				if n > 1 {
					rt.Fatalf("message %s came %d times", p, n)
				}
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"publish": func(rt *rapid.T) {
				p := fmt.Sprint(len(sent))
				sent = append(sent, p)
				j.setManual(false)
				pub.tell("t", p, 2, 0)
				j.setManual(true)
				eventually(t, "it is distributed", func() bool { return s.fan.bytes.Load() == 0 })
			},
			"read": func(rt *rapid.T) { r.read(rapid.IntRange(0, 20).Draw(rt, "answers")) },
			"tick": func(rt *rapid.T) { s.local.keep() },
			"sync": func(rt *rapid.T) { j.sync(rapid.IntRange(1, 4).Draw(rt, "records")) },
			"break": func(rt *rapid.T) {
				r.Close()
				r.connect(t, s)
			},
			"crash": func(rt *rapid.T) {
				if rapid.IntRange(0, 2).Draw(rt, "really") > 0 {
					return
				}
				// What is not saved may be gone.
				saved := map[string]bool{}
				j.mu.Lock()
				for k, v := range j.durable {
					if k[0] != 'm' {
						continue
					}
					if got, ok := decodeOutbound(v, stream.Moment{}, time.Now()); ok && got.m != nil {
						saved[string(got.m.payload)] = true
					}
				}
				j.mu.Unlock()
				for _, p := range sent {
					if !saved[p] {
						forgiven[p] = true
					}
				}
				r.Close()
				pub.Close()
				j = s.crash(j, rapid.IntRange(0, j.pending()).Draw(rt, "kept"))
				again()
			},
			"stop": func(rt *rapid.T) {
				if rapid.IntRange(0, 2).Draw(rt, "really") > 0 {
					return
				}
				r.Close()
				pub.Close()
				j.setManual(false)
				if err := s.stop(); err != nil {
					rt.Fatal(err)
				}
				j.sync(j.pending())
				again()
			},
			"": func(rt *rapid.T) { check() },
		})
		j.setManual(false)
		j.sync(j.pending())
		r.Close()
		r.connect(t, s)
		eventually(t, "all is answered", func() bool {
			r.read(1 << 30)
			return s.waiting() == 0
		})
		check()
		for _, p := range sent {
			if r.times[p] == 0 && !forgiven[p] && !r.mixed[p] {
				rt.Fatalf("message %s never came; sent %q, came %v, may be lost %v", p, sent, slices.Sorted(maps.Keys(r.times)), forgiven)
			}
		}
		if n := s.Stats().QueuedMessages; n != 0 {
			rt.Fatalf("%d wait", n)
		}
		r.Close()
		pub.Close()
		if err := s.stop(); err != nil {
			rt.Fatal(err)
		}
		j.sync(j.pending())
		if got := j.keys("m/"); len(got) != 0 {
			rt.Fatalf("stored %q", got)
		}
	})
}
