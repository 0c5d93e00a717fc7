package mqttfront

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// outClock is the time of an outbox under test.
type outClock struct{ t time.Time }

// newOutbox gives an outbox without a connection, whose Session allows all.
func newOutbox(o Options) (*outbox, *outClock) {
	f := &Front{o: o, n: counters{refusals: map[byte]int64{}, kinds: map[string]int64{}, dropped: map[string]int64{}}}
	f.local = newLocal(f)
	clock := &outClock{time.Now()}
	f.local.clock = func() time.Time { return clock.t }
	s := &session{f: f, id: "s", key: "0123456789abcdef", stored: o.Store != nil}
	s.initLocal()
	return &s.out, clock
}

// here lets the session have a connection, which resume and leave do not check.
func (o *outbox) here(version byte, window int, limit uint32, aliases uint16) {
	o.s.conn = &conn{session: quiet{}}
	o.resume(version, window, limit, aliases)
}

func (o *outbox) away() {
	o.s.conn = nil
	o.leave()
}

type quiet struct{}

func (quiet) Publish(*Publish, Settle)  {}
func (quiet) Subscribe(string) bool     { return true }
func (quiet) Deliver(topic string) bool { return !strings.HasPrefix(topic, "secret") }
func (quiet) Close(error)               {}

func (o *outbox) put(qos byte, topic, payload string, expiry uint32) bool {
	l := newLetter("p", &Publish{Topic: topic, Payload: []byte(payload), QoS: qos, Expiry: expiry}, o.l.now())
	return o.add(&outMessage{letter: l, qos: qos})
}

// got is one packet as the client reads it.
type got struct {
	kind, qos byte
	dup       bool
	id        uint16
	topic     string
	payload   string
	expiry    uint32
	code      byte
	retain    bool
	props     []byte
}

type fataler interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func parseOut(t fataler, b []byte, version byte) (out []got) {
	t.Helper()
	for len(b) > 0 {
		first, n, remaining, err := header(b)
		if err != nil || n == 0 || len(b) < n+remaining {
			t.Fatalf("not a packet: % x", b)
		}
		body := b[n : n+remaining]
		b = b[n+remaining:]
		g := got{kind: first >> 4}
		switch g.kind {
		case typePublish:
			raw, err := decodePublish(first, body, version)
			if err != nil {
				t.Fatal(err)
			}
			g.qos, g.dup, g.id, g.topic, g.payload = raw.qos, raw.dup, raw.packetID, string(raw.topic), string(raw.payload)
			if len(raw.props) >= 5 && raw.props[0] == propMessageExpiry {
				g.expiry = binary.BigEndian.Uint32(raw.props[1:])
			}
		case typePubrel:
			g.id = binary.BigEndian.Uint16(body)
			if len(body) > 2 {
				g.code = body[2]
			}
		default:
			t.Fatalf("packet type %d", g.kind)
		}
		out = append(out, g)
	}
	return out
}

// outModel is what a client may expect: every message of QoS 2 once, of QoS 1 at
// least once, of QoS 0 at most once, those of QoS 1 and 2 for the first time in
// order, never more than its window; what is repeated has DUP and its old
// identifier, and comes before anything new.
type outModel struct {
	window   int
	next     int            // to add
	first    int            // the newest of QoS 1 and 2 seen
	seen     map[int]bool   // completely delivered or begun
	plain    int            // the newest of QoS 0 seen
	open     map[uint16]int // unanswered, by identifier
	wire     map[uint16]bool
	owed     map[uint16]bool // to be repeated on this connection
	received []uint16        // PUBREC sent, PUBCOMP not; in order
	rels     []uint16        // PUBRELs expected, in order
}

func (m *outModel) take(t *rapid.T, g got) {
	n := 0
	fmt.Sscan(g.payload, &n)
	switch {
	case g.kind == typePubrel:
		if len(m.rels) == 0 || m.rels[0] != g.id {
			t.Fatalf("PUBREL %d, want %v", g.id, m.rels)
		}
		m.rels = m.rels[1:]
	case g.qos == 0:
		if n <= m.plain {
			t.Fatalf("QoS 0 message %d after %d", n, m.plain)
		}
		m.plain = n
	case g.dup:
		if m.open[g.id] != n || !m.owed[g.id] {
			t.Fatalf("message %d repeated as %d", n, g.id)
		}
		delete(m.owed, g.id)
		m.wire[g.id] = true
	default:
		if _, used := m.open[g.id]; used || slices.Contains(m.received, g.id) || g.id == 0 {
			t.Fatalf("identifier %d used twice", g.id)
		}
		if n <= m.first || len(m.owed) > 0 {
			t.Fatalf("message %d after %d, %d to repeat", n, m.first, len(m.owed))
		}
		m.first, m.open[g.id], m.wire[g.id], m.seen[n] = n, n, true, true
	}
	if len(m.wire) > m.window {
		t.Fatalf("%d on the way, the window is %d", len(m.wire), m.window)
	}
}

func (m *outModel) done(id uint16) {
	delete(m.open, id)
	delete(m.wire, id)
	delete(m.owed, id)
}

func (m *outModel) away() {
	clear(m.wire)
	m.owed = map[uint16]bool{}
	for id := range m.open {
		m.owed[id] = true
	}
	m.rels = slices.Clone(m.received)
}

func TestOutboxAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 20).Draw(t, "queue")
		o, clock := newOutbox(Options{MaxQueuedMessages: limit})
		m := &outModel{seen: map[int]bool{}, open: map[uint16]int{}, wire: map[uint16]bool{}, owed: map[uint16]bool{}}
		added, version := map[int]bool{}, byte(5)
		connect := func() {
			m.window = rapid.IntRange(1, 80).Draw(t, "window")
			o.here(version, m.window, 0, 0)
			m.window = min(m.window, maxOutInflight)
		}
		qosOf := map[int]byte{}
		ack := func(id uint16) {
			var reply []byte
			var err *wireError
			switch n, open := m.open[id]; {
			case open && qosOf[n] == 1:
				_, err = o.acked(typePuback, id, 0)
				m.done(id)
			case open:
				code := rapid.SampledFrom([]byte{0, 0, 0x10, 0x97}).Draw(t, "code")
				_, err = o.acked(typePubrec, id, code)
				wire := m.wire[id]
				m.done(id)
				if code < 0x80 {
					m.received, m.rels = append(m.received, id), append(m.rels, id)
					if wire {
						m.wire[id] = true
					}
				}
			case slices.Contains(m.received, id) && !slices.Contains(m.rels, id):
				_, err = o.acked(typePubcomp, id, 0)
				m.received = slices.DeleteFunc(m.received, func(x uint16) bool { return x == id })
				delete(m.wire, id)
			case !open && !slices.Contains(m.received, id):
				if reply, err = o.acked(typePubrec, id, 0); !slices.Equal(reply, []byte{0x62, 3, byte(id >> 8), byte(id), 0x92}) {
					t.Fatalf("PUBREC of nothing is answered % x", reply)
				}
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		connect()
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				m.next++
				q := byte(rapid.IntRange(0, 2).Draw(t, "qos"))
				qosOf[m.next] = q
				o.put(q, "t", fmt.Sprint(m.next), uint32(rapid.SampledFrom([]int{0, 0, 5}).Draw(t, "expiry")))
				added[m.next] = q > 0
			},
			"take": func(t *rapid.T) {
				for _, g := range parseOut(t, o.take(nil, rapid.IntRange(1, 200).Draw(t, "room")), version) {
					m.take(t, g)
				}
			},
			"ack": func(t *rapid.T) {
				if !o.present {
					return
				}
				ids := slices.Clone(m.received)
				for id := range m.wire {
					ids = append(ids, id)
				}
				ids = append(ids, 60000)
				slices.Sort(ids)
				ack(rapid.SampledFrom(ids).Draw(t, "id"))
			},
			"break": func(t *rapid.T) {
				if o.present {
					o.away()
					m.away()
				} else {
					connect()
				}
			},
			"wait": func(t *rapid.T) { clock.t = clock.t.Add(2 * time.Second) },
			"":     func(t *rapid.T) { checkOutbox(t, o) },
		})
		// In the end everything was delivered, or dropped and counted.
		if !o.present {
			connect()
		}
		for range 20000 {
			for _, g := range parseOut(t, o.take(nil, 1000), version) {
				m.take(t, g)
			}
			if o.waiting() == 0 {
				break
			}
			for id := range m.wire {
				ack(id)
				break
			}
			for _, id := range m.received {
				ack(id)
				break
			}
		}
		lost := 0
		for n, counts := range added {
			if counts && !m.seen[n] {
				lost++
			}
		}
		d := o.l.f.n.dropped
		if o.waiting() != 0 || o.l.bytes.Load() != 0 || o.l.messages.Load() != 0 || o.bytes != 0 || len(o.ids) != 0 || int64(lost) > d["queued_messages"]+d["expired"] {
			t.Fatalf("%d wait, %d bytes, %d identifiers, %d lost, dropped %v", o.waiting(), o.l.bytes.Load(), len(o.ids), lost, d)
		}
	})
}

// checkOutbox checks what must hold between any two calls.
func checkOutbox(t *rapid.T, o *outbox) {
	bytes, busy, ids := 0, 0, map[uint16]bool{}
	for _, list := range [][]slot{o.sent, o.released, o.queue.all(), o.plain.all()} {
		for _, s := range list {
			if s.m != nil {
				bytes += s.m.cost()
			}
			if s.wire {
				busy++
			}
			if s.id != 0 {
				ids[s.id] = true
			}
		}
	}
	if bytes != o.bytes || busy != o.busy || len(ids) != len(o.ids) || o.queue.len() > o.l.maxQueued || o.resend > len(o.sent) || o.releases > len(o.released) || int64(o.waiting()-len(o.released)) != o.l.messages.Load() {
		t.Fatalf("bytes %d (%d), on the way %d (%d), identifiers %d (%d), %d wait, counted %d", o.bytes, bytes, o.busy, busy, len(o.ids), len(ids), o.waiting(), o.l.messages.Load())
	}
}

func TestOutboxDropsTheOldest(t *testing.T) {
	o, _ := newOutbox(Options{MaxQueuedMessages: 3})
	for i := range 5 {
		if dropped := o.put(1, "t", fmt.Sprint(i), 0); dropped != (i >= 3) {
			t.Errorf("message %d: dropped %v", i, dropped)
		}
	}
	o.put(0, "t", "not for one that is away", 0)
	o.here(4, 0, 0, 0)
	var payloads string
	for _, g := range parseOut(t, o.take(nil, 1000), 4) {
		payloads += g.payload
	}
	if payloads != "234" || o.l.f.n.dropped["queued_messages"] != 2 || o.l.f.n.limits[limitQueuedMessages].Load() != 2 {
		t.Errorf("got %s, dropped %v", payloads, o.l.f.n.dropped)
	}
}

func TestOutboxExpiry(t *testing.T) {
	o, clock := newOutbox(Options{})
	o.put(1, "t", "a", 1)
	o.put(2, "t", "b", 6)
	o.put(1, "t", "c", 0)
	clock.t = clock.t.Add(2500 * time.Millisecond)
	o.here(5, 0, 0, 0)
	out := parseOut(t, o.take(nil, 1000), 5)
	if len(out) != 2 || out[0].payload != "b" || out[0].expiry != 4 || out[1].expiry != 0 {
		t.Fatalf("got %+v", out)
	}
	// What was begun in time goes on.
	clock.t = clock.t.Add(time.Minute)
	o.away()
	o.here(5, 0, 0, 0)
	if out := parseOut(t, o.take(nil, 1000), 5); len(out) != 2 || !out[0].dup || out[0].expiry != 1 {
		t.Fatalf("got %+v", out)
	}
	o.put(1, "t", "d", 1)
	o.away()
	clock.t = clock.t.Add(time.Minute)
	o.expire(clock.t)
	if n := o.queue.len(); n != 0 || o.l.f.n.dropped["expired"] != 2 {
		t.Errorf("%d wait, dropped %v", n, o.l.f.n.dropped)
	}
}

// Nothing that the client must not see, or that is larger than it takes, leaves;
// neither blocks what comes after. [MQTT-3.1.2-24]
func TestOutboxKeepsBack(t *testing.T) {
	o, _ := newOutbox(Options{})
	o.here(5, 1, 49, 0)
	o.put(1, "t", strings.Repeat("x", 60), 0)
	o.put(2, "secret", "x", 0)
	o.put(0, "secret", "x", 0)
	o.put(2, "t", strings.Repeat("x", 41), 0) // 49 bytes
	o.put(0, "t", "end", 0)
	out := parseOut(t, o.take(nil, 1000), 5)
	if len(out) != 2 || len(out[0].payload) != 41 || out[1].payload != "end" {
		t.Fatalf("got %+v", out)
	}
	o.away()
	o.here(5, 1, 48, 0)
	if out := o.take(nil, 1000); len(out) != 0 || len(o.sent) != 0 {
		t.Errorf("resent % x, %d wait", out, len(o.sent))
	}
	if d := o.l.f.n.dropped; d["too_large"] != 2 || d["not_allowed"] != 2 {
		t.Errorf("dropped %v", d)
	}
}

// The client's mistakes end its connection, or are answered; none of them harms.
func TestOutboxWrongAcks(t *testing.T) {
	o, _ := newOutbox(Options{})
	o.here(5, 0, 0, 0)
	o.put(1, "t", "1", 0)
	o.put(2, "t", "2", 0)
	o.take(nil, 1000)
	for _, tc := range []struct {
		kind byte
		id   uint16
	}{{typePubrec, 1}, {typePubcomp, 1}, {typePuback, 2}, {typePubcomp, 2}, {typePuback, 0}} {
		if _, err := o.acked(tc.kind, tc.id, 0); err == nil || err.code != ProtocolError {
			t.Errorf("%+v: %v", tc, err)
		}
	}
	for _, kind := range []byte{typePuback, typePubcomp} {
		if reply, err := o.acked(kind, 99, 0); err != nil || reply != nil {
			t.Errorf("unknown identifier: % x, %v", reply, err)
		}
	}
	if n := len(o.sent); n != 2 {
		t.Errorf("%d on the way", n)
	}
	ack := func(kind byte, id uint16) []byte {
		reply, err := o.acked(kind, id, 0)
		if err != nil {
			t.Fatal(err)
		}
		return reply
	}
	ack(typePubrec, 2)
	if out := o.take(nil, 1000); !slices.Equal(out, []byte{0x62, 2, 0, 2}) {
		t.Errorf("PUBREL % x", out)
	}
	if reply := ack(typePubrec, 2); !slices.Equal(reply, []byte{0x62, 2, 0, 2}) { // [MQTT-4.3.3-5]
		t.Errorf("second PUBREC is answered % x", reply)
	}
	if _, err := o.acked(typePuback, 2, 0); err == nil {
		t.Error("PUBACK after PUBREC is taken")
	}
	ack(typePubcomp, 2)
	ack(typePubcomp, 2)
	ack(typePuback, 1)
	ack(typePuback, 1)
	if o.waiting() != 0 || o.busy != 0 || o.l.f.n.kinds["stray_ack"] != 4 {
		t.Errorf("%d wait, %d on the way, %v", o.waiting(), o.busy, o.l.f.n.kinds)
	}
	o.version = 4
	if reply := ack(typePubrec, 7); !slices.Equal(reply, []byte{0x62, 2, 0, 7}) {
		t.Errorf("3.1.1: PUBREC of nothing is answered % x", reply)
	}
}

// The first topics get the aliases that the client allows; a new connection
// begins anew.
func TestOutboxAliases(t *testing.T) {
	o, _ := newOutbox(Options{})
	for i, aliases := range []uint16{1, 0, 2} {
		o.here(5, 0, 0, aliases)
		if i == 0 {
			for qos := range byte(3) {
				o.put(qos, "one", "x", 0)
			}
			o.put(1, "two", "x", 0)
		}
		topics := ""
		for _, g := range parseOut(t, o.take(nil, 1000), 5) {
			topics += g.topic + ","
		}
		want := []string{"one,,,two,", "one,one,two,", "one,,two,"}[i]
		if topics != want {
			t.Errorf("connection %d: topics %s, want %s", i, topics, want)
		}
		o.away()
	}
}

// What the client has and does not answer may be given up, but its identifier
// and its place in the window stay taken as long as the connection lives.
func TestOutboxGivesUp(t *testing.T) {
	o, _ := newOutbox(Options{})
	o.here(5, 2, 0, 0)
	for i := range 4 {
		o.put(2, "t", fmt.Sprint(i), 0)
	}
	o.put(0, "t", "x", 0)
	o.take(nil, 5)
	o.take(nil, 1000)
	for o.lose("undelivered_full", limitQueuedBytes) {
	}
	if o.l.bytes.Load() != 0 || o.busy != 2 || len(o.ids) != 2 {
		t.Fatalf("%d bytes, %d on the way", o.l.bytes.Load(), o.busy)
	}
	o.put(1, "t", "new", 0)
	if out := o.take(nil, 1000); len(out) != 0 {
		t.Errorf("beyond the window: % x", out)
	}
	if _, err := o.acked(typePubrec, 1, 0); err != nil {
		t.Fatal(err)
	}
	o.away()
	o.here(5, 2, 0, 0)
	out := parseOut(t, o.take(nil, 1000), 5)
	if len(out) != 2 || out[0].kind != typePubrel || out[0].id != 1 || out[1].payload != "new" {
		t.Errorf("got %+v", out)
	}
}
