package mqttfront

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// Acknowledgements of what was never sent, in any order, harm nobody: each is
// ignored, answered, or ends the connection that it came by.
func TestHostileAcks(t *testing.T) {
	s := start(t, newFake(), Options{FanOut: true})
	good := connect(t, s.addr, connectOptions{id: "good"})
	good.subscribe(1, "t", 2)
	for round := range 20 {
		rng := rand.New(rand.NewPCG(1, uint64(round)))
		bad := connect(t, s.addr, connectOptions{id: "bad", version: byte(4 + round%2)})
		bad.subscribe(1, "t", 2)
		pub := connect(t, s.addr, connectOptions{id: "pub"})
		for i := range 3 {
			pub.tell("t", fmt.Sprint(i), byte(i), 0)
		}
		var b []byte
		for range 500 {
			kind := []byte{typePuback << 4, typePubrec << 4, typePubcomp << 4}[rng.IntN(3)]
			b = append(b, packet(kind, u16(1+rng.IntN(3+round)))...)
		}
		bad.send2(append(b, typePingreq<<4, 0))
		for {
			if first, _, err := bad.next(); err != nil || first>>4 == typePingresp {
				break
			}
		}
		bad.Close()
		for i := range 3 {
			g := good.message()
			if g.payload != fmt.Sprint(i) {
				t.Fatalf("round %d: %+v", round, g)
			}
			good.answer(g)
		}
		good.ping()
	}
	if st := s.Stats(); st.ProtocolErrors["stray_ack"] == 0 || st.ProtocolErrors["panic"] != 0 {
		t.Errorf("%v", st.ProtocolErrors)
	}
	eventually(t, "nothing is left of the bad one", func() bool { return s.Stats().QueuedMessages == 0 })
}

// Who asks for a PUBREL again and again and does not read is ended, and costs no
// more than the queue of answers.
func TestHostilePubrecFlood(t *testing.T) {
	s := start(t, newFake(), Options{FanOut: true})
	c := connect(t, s.addr, connectOptions{id: "bad"})
	_ = c.SetWriteDeadline(time.Now().Add(6 * patience))
	b := bytes.Repeat(packet(typePubrec<<4, u16(7)), 1000)
	for s.Clients() == 1 {
		if _, err := c.Write(b); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("no bound")
		}
	}
	if s.n.limits[limitWriteQueue].Load() == 0 {
		t.Error("the limit is not counted")
	}
}

// A client with all the filters that match everything gets one copy; what it may
// not have is refused one by one, however many it asks for at once.
func TestSubscribeToEverything(t *testing.T) {
	s := start(t, newFake(), Options{FanOut: true})
	c := connect(t, s.addr, connectOptions{id: "c"})
	var filters []byte
	for i := range 64 {
		for _, last := range []string{"#", "+"} {
			filters = append(append(filters, str(strings.Repeat("+/", i)+last)...), 0)
		}
	}
	c.send(packet(0x82, u16(1), []byte{0}, filters))
	codes := c.expect(0x90)[3:]
	if !bytes.Equal(codes, make([]byte, 128)) {
		t.Errorf("SUBACK % x", codes)
	}
	for _, topic := range []string{"a", "a/b/c", strings.Repeat("/", 63), strings.Repeat("x/", 40) + "x"} {
		c.tell(topic, "x", 1, 0)
		if g := c.message(); g.topic != topic {
			t.Errorf("got %+v", g)
		}
		c.ping()
	}
	n := 0
	for filters = filters[:0]; len(filters) < 120_000; n++ {
		filters = append(append(filters, str(fmt.Sprint("x", n))...), 0)
	}
	c.send(packet(0x82, u16(2), []byte{0}, filters))
	codes = c.expect(0x90)[3:]
	if !bytes.Equal(codes[:128], make([]byte, 128)) || !bytes.Equal(codes[128:], bytes.Repeat([]byte{QuotaExceeded}, n-128)) {
		t.Errorf("%d codes of %d filters, %d granted", len(codes), n, bytes.Count(codes, []byte{0}))
	}
	c.disconnect()
	eventually(t, "nothing is left", func() bool { return s.Stats().Subscriptions == 0 })
}

// A subscriber that never reads nor answers holds no more than it may, at any
// QoS; the others get everything.
func TestNeverReads(t *testing.T) {
	const bound = 2 << 20
	s := start(t, newFake(), Options{FanOut: true, MaxQueuedBytes: bound, MaxQueuedMessages: 500})
	for qos := range byte(3) {
		c := connect(t, s.addr, connectOptions{id: fmt.Sprint("never", qos)})
		if err := c.Conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
			t.Fatal(err)
		}
		c.subscribe(1, "#", qos)
	}
	good := connect(t, s.addr, connectOptions{id: "good"})
	good.subscribe(1, "#", 1)
	pub := connect(t, s.addr, connectOptions{id: "pub"})
	payload := strings.Repeat("x", 10_000)
	for i := range 1500 {
		pub.tell(fmt.Sprint("t/", i%7), payload, byte(1+i%2), 0)
		g := good.message()
		if g.topic != fmt.Sprint("t/", i%7) || len(g.payload) != len(payload) {
			t.Fatalf("message %d: topic %s", i, g.topic)
		}
		good.answer(g)
		if _, bytes := s.local.queued(); bytes > bound+20_000 {
			t.Fatalf("%d bytes wait", bytes)
		}
	}
	if d := s.Stats().FanOutDropped; d["undelivered_full"] == 0 {
		t.Errorf("dropped %v", d)
	}
}
