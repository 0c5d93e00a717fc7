package mqttfront

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/packetboat/packetboat/pkg/stream"
)

// Whatever the order in which messages are settled, and from how many
// goroutines: PUBACKs leave in the order of the PUBLISHes, each with its own
// result, none before its settle.
func TestAcksKeepOrder(t *testing.T) {
	h := newFake()
	h.publish = h.hold
	s := start(t, h, Options{MaxInflightMessages: 400})
	c := connect(t, s.addr, connectOptions{id: "a"})
	session := h.session(t, 0)
	done := 0
	rapid.Check(t, func(r *rapid.T) {
		n := rapid.IntRange(1, 150).Draw(r, "messages")
		codes := rapid.SliceOfN(rapid.SampledFrom([]byte{Success, NoMatchingSubscribers, QuotaExceeded, NotAuthorized}), n, n).Draw(r, "codes")
		seed := rapid.Uint64().Draw(r, "seed")
		for i := range n {
			c.publish("t", i+1, "x")
		}
		h.await(t, "all messages", func() bool { return len(session.settle) == done+n })
		h.mu.Lock()
		settles := session.settle[done : done+n]
		h.mu.Unlock()
		done += n
		rng := rand.New(rand.NewPCG(seed, 1))
		order := rng.Perm(n)
		const workers = 4
		for w := range workers {
			go func() {
				for i := w; i < n; i += workers {
					settles[order[i]](Result{Code: codes[order[i]]})
				}
			}()
		}
		for i := range n {
			c.expectAck(i+1, codes[i])
		}
	})
	if st := s.Stats(); st.InflightMessages != 0 || st.InflightBytes != 0 || st.SettledTwice != 0 {
		t.Errorf("after all was settled: %+v", st)
	}
}

// While the first is not settled, nothing is acknowledged; then all at once.
func TestAcksWaitForTheFirst(t *testing.T) {
	h := newFake()
	h.publish = h.hold
	s := start(t, h, Options{})
	c := connect(t, s.addr, connectOptions{id: "a", version: 4})
	for i := range 100 {
		c.publish("t", i+1, "x")
	}
	session := h.session(t, 0)
	h.await(t, "messages", func() bool { return len(session.settle) == 100 })
	for _, settle := range session.settle[1:] {
		settle(Result{})
	}
	c.ping() // the answer would stand behind the acknowledgements
	if got := s.Stats(); got.Acks != 0 || got.InflightMessages != 100 {
		t.Fatalf("acknowledged before the first was settled: %+v", got)
	}
	session.settle[0](Result{})
	for i := range 100 {
		c.expectAck(i+1, 0)
	}
	eventually(t, "the write is counted", func() bool { return s.Stats().AckWrites > 0 })
	if got := s.Stats(); got.Acks != 100 || got.AckWrites != 1 {
		t.Errorf("%d acknowledgements in %d writes, want 100 in 1", got.Acks, got.AckWrites)
	}
	session.settle[5](Result{Code: QuotaExceeded})
	c.ping() // nothing else came
	if n := s.Stats().SettledTwice; n != 1 {
		t.Errorf("settled twice: %d", n)
	}
}

func TestAckCarriesCodeAndProperties(t *testing.T) {
	user := []stream.Property{{Key: "pb-lost", Value: "1-7"}, {Key: "k", Value: ""}}
	h := newFake()
	h.publish = func(_ *fakeSession, _ *Publish, settle Settle) { settle(Result{Code: QuotaExceeded, User: user}) }
	s := start(t, h, Options{})
	want := append([]byte{0, 9, QuotaExceeded, byte(userSize(user))}, appendUser(nil, user)...)
	for name, tc := range map[string]struct {
		props []byte
		want  []byte
	}{
		"all":             {nil, want},
		"does not fit":    {[]byte{0x27, 0, 0, 0, 20}, []byte{0, 9, QuotaExceeded}}, // [MQTT-3.4.2-3]
		"no problem info": {[]byte{0x17, 0}, []byte{0, 9, QuotaExceeded}},           // [MQTT-3.1.2-29]
	} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, s.addr, connectOptions{id: name, props: tc.props})
			c.publish("t", 9, "x")
			if got := c.expect(typePuback << 4); !bytes.Equal(got, tc.want) {
				t.Errorf("PUBACK % x, want % x", got, tc.want)
			}
		})
	}
}

// An old client can only be told by closing: what came before is acknowledged,
// what came after is not.
func TestRefusalClosesOldClients(t *testing.T) {
	for _, r := range []Result{{Code: QuotaExceeded}, {Withhold: true}, {Code: UnspecifiedError, Withhold: true}} {
		for _, version := range []byte{4, 5} {
			if version == 5 && !r.Withhold {
				continue
			}
			t.Run(fmt.Sprintf("%+v/%d", r, version), func(t *testing.T) {
				h := newFake()
				h.publish = h.hold
				s := start(t, h, Options{})
				c := connect(t, s.addr, connectOptions{id: "a", version: version})
				for i := range 5 {
					c.publish("t", i+1, "x")
				}
				session := h.session(t, 0)
				h.await(t, "messages", func() bool { return len(session.settle) == 5 })
				for i := 4; i >= 0; i-- {
					if i == 2 {
						session.settle[i](r)
					} else {
						session.settle[i](Result{})
					}
				}
				c.expectAck(1, 0)
				c.expectAck(2, 0)
				if version == 5 {
					c.expectDisconnect(UnspecifiedError)
				} else {
					c.expectEnd()
				}
				h.await(t, "Close", func() bool { return session.closed == 1 })
				eventually(t, "room is given back", func() bool { return s.Stats().InflightBytes == 0 })
				eventually(t, "all is counted", func() bool { st := s.Stats(); return st.Acks == 2 && st.Refused+st.Withheld == 1 })
			})
		}
	}
}

// A QoS 0 message is settled too, and nothing is sent for it.
func TestQoS0IsSettled(t *testing.T) {
	h := newFake()
	h.publish = h.hold
	s := start(t, h, Options{})
	for _, version := range []byte{4, 5} {
		c := connect(t, s.addr, connectOptions{id: "a", version: version})
		c.publish("t", 0, "x")
		session := h.session(t, int(version)-4)
		h.await(t, "message", func() bool { return len(session.settle) == 1 })
		session.settle[0](Result{Code: QuotaExceeded})
		c.ping()
		if st := s.Stats(); st.InflightBytes != 0 || st.Acks != 0 {
			t.Errorf("%+v", st)
		}
	}
}

// A client that does not read its acknowledgements is closed, not waited for.
func TestAckWriteFails(t *testing.T) {
	h := newFake()
	big := []stream.Property{{Key: "k", Value: strings.Repeat("v", 60000)}}
	h.publish = func(_ *fakeSession, _ *Publish, settle Settle) { settle(Result{User: big}) }
	s := start(t, h, Options{WriteTimeout: 50 * time.Millisecond, MaxInflightMessages: 60000, MaxInflightBytes: 1 << 30})
	c := connect(t, s.addr, connectOptions{id: "a"})
	if err := c.Conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	go func() {
		for i := 1; i < 60000; i++ {
			if _, err := c.Write(c.publishPacket("t", i, 0, "x")); err != nil {
				return
			}
		}
	}()
	session := h.session(t, 0)
	h.await(t, "Close", func() bool { return session.closed == 1 })
	if session.reason == nil || !strings.Contains(session.reason.Error(), "write to client") {
		t.Errorf("closed because of %v", session.reason)
	}
	if st := s.Stats(); st.AckFailures != 1 {
		t.Errorf("%d failed writes, want 1", st.AckFailures)
	}
}

// What is settled after its client has gone is counted and lets go.
func TestSettleAfterTheEnd(t *testing.T) {
	h := newFake()
	h.publish = h.hold
	s := start(t, h, Options{})
	c := connect(t, s.addr, connectOptions{id: "a"})
	for i := range 40 {
		c.publish("t", i+1, "x")
	}
	session := h.session(t, 0)
	h.await(t, "messages", func() bool { return len(session.settle) == 40 })
	c.Close()
	h.await(t, "Close", func() bool { return session.closed == 1 })
	for _, settle := range session.settle[:20] {
		settle(Result{})
	}
	eventually(t, "half is let go", func() bool { return s.Stats().InflightBytes == 20*int64(9+entryCost) })
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	for _, settle := range session.settle[20:] {
		settle(Result{}) // after Run: must be harmless
	}
}

func TestEncodePuback(t *testing.T) {
	if got := appendAck(nil, typePuback<<4, 4, 0x0102, 0, nil, 0); !bytes.Equal(got, []byte{0x40, 2, 1, 2}) {
		t.Errorf("% x", got)
	}
	if got := appendAck(nil, typePuback<<4, 5, 0x0102, 0x10, nil, 0); !bytes.Equal(got, []byte{0x40, 3, 1, 2, 0x10}) {
		t.Errorf("% x", got)
	}
	long := []stream.Property{{Key: "k", Value: strings.Repeat("v", 200)}}
	got := appendAck(nil, typePuback<<4, 5, 1, 0, long, 0)
	first, n, remaining, err := header(got)
	if err != nil || first != 0x40 || n+remaining != len(got) {
		t.Fatalf("header of % x: %d %d %v", got[:8], n, remaining, err)
	}
	limit := uint32(len(got))
	if fits := appendAck(nil, typePuback<<4, 5, 1, 0, long, limit); len(fits) != len(got) {
		t.Errorf("properties left out although they fit")
	}
	if cut := appendAck(nil, typePuback<<4, 5, 1, 0, long, limit-1); len(cut) != 5 {
		t.Errorf("% x is larger than the client takes", cut)
	}
}

// What a Session was given stays as it was until it is settled, whatever the
// connection reads meanwhile; subscribers get it unchanged after that.
func TestPayloadIsKept(t *testing.T) {
	h := newFake()
	var mu sync.Mutex
	var held []*Publish
	h.publish = func(s *fakeSession, p *Publish, settle Settle) {
		mu.Lock()
		held = append(held, p)
		mu.Unlock()
		h.hold(s, p, settle)
	}
	s := start(t, h, Options{FanOut: true})
	c := connect(t, s.addr, connectOptions{id: "c"})
	c.subscribe(1, "t", 0)
	sizes := []int{1, 60, slabBytes/4 - 1, slabBytes / 4, slabBytes/4 + 1, 30_000}
	const n = 120
	payload := func(i int) string { return strings.Repeat(string(rune('a'+i%26)), sizes[i%len(sizes)]) }
	for i := range n {
		c.publish("t", i+1, payload(i))
	}
	session := h.session(t, 0)
	h.await(t, "messages", func() bool { return len(session.settle) == n })
	mu.Lock()
	for i, p := range held {
		if string(p.Payload) != payload(i) || p.Topic != "t" {
			t.Fatalf("message %d of %d bytes changed while it waited", i, len(p.Payload))
		}
	}
	mu.Unlock()
	for i, settle := range session.settle {
		settle(Result{})
		for acked, got := false, false; !acked || !got; {
			first, body := c.read()
			switch first {
			case typePuback << 4:
				acked = true
			case 0x30:
				got = true
				if string(body[4:]) != payload(i) {
					t.Fatalf("message %d changed on its way to a subscriber", i)
				}
			}
		}
	}
}
