package publisher

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const cleanFlag = 2

func (f *fake) rec(id uint16)  { f.send(pubrec, 2, byte(id>>8), byte(id)) }
func (f *fake) comp(id uint16) { f.send(pubcomp, 2, byte(id>>8), byte(id)) }

// release reads one PUBREL and gives its packet id.
func (f *fake) release() uint16 {
	f.t.Helper()
	p := f.next()
	if p.first != pubrel|2 { // [MQTT-3.6.1-1]
		f.t.Fatalf("packet %x instead of a PUBREL", p.first)
	}
	return binary.BigEndian.Uint16(p.body)
}

// throwAway answers the connection by which MQTT 3.1.1 throws an old session away.
func (f *fake) throwAway() {
	f.t.Helper()
	if flags := f.accept(connack, 2, 0, 0); flags&cleanFlag == 0 {
		f.t.Fatalf("the first connection has flags %x", flags)
	}
	if p := f.next(); p.kind() != disconnect {
		f.t.Fatalf("packet %x", p.first)
	}
	f.conn.Close()
}

// A session goes on where its connection ended: the same ids, DUP, PUBREL where
// PUBREC came; and a session that the broker has lost is given up.
func TestSessionGoesOn(t *testing.T) {
	f, rec := newFake(t), &recorder{}
	p, stop := run(t, Options{Broker: f.ln.Addr().String(), Session: time.Hour, QoS: 2, Window: 10, Outcome: rec.add})
	f.throwAway()
	if flags := f.accept(connack, 2, 0, 0); flags&cleanFlag != 0 {
		t.Fatalf("the session begins with flags %x", flags)
	}
	mustPublish(t, p, 2, 1, 2, 3)
	ids := map[string]uint16{}
	for range 3 {
		payload, id := f.publish()
		ids[payload] = id
	}
	f.rec(ids["1"])
	if id := f.release(); id != ids["1"] {
		t.Fatalf("PUBREL of %d", id)
	}
	f.rec(ids["2"])
	f.release()
	f.conn.Close() // both PUBCOMPs are lost, and 3 may have arrived or not

	if flags := f.accept(connack, 2, 1, 0); flags&cleanFlag != 0 {
		t.Fatalf("the session goes on with flags %x", flags)
	}
	if a, b := f.release(), f.release(); a != ids["1"] || b != ids["2"] {
		t.Fatalf("PUBRELs of %d and %d: want the order of the messages", a, b)
	}
	f.comp(ids["1"])
	again := f.next()
	if again.first != publish|2<<1|8 || binary.BigEndian.Uint16(again.body[3:]) != ids["3"] {
		t.Fatalf("% x% x: want message 3 with DUP under its id", again.first, again.body)
	}
	f.conn.Close()

	f.accept(connack, 2, 0, 0) // the session is lost: 2 is the broker's, 3 is a new message
	again = f.next()
	if again.first != publish|2<<1 || string(again.body[5:]) != "3" {
		t.Fatalf("% x% x: want message 3 as a new one", again.first, again.body)
	}
	id := binary.BigEndian.Uint16(again.body[3:])
	f.rec(id)
	f.release()
	f.comp(id)
	if err := p.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := p.Stats()
	f.conn.Close()
	f.ln.Close()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	want := []Outcome{
		{Tag: 1, QoS: 2, Sent: []uint32{1}, Sessions: []uint32{1}, Acked: true},
		{Tag: 2, QoS: 2, Sent: []uint32{1}, Sessions: []uint32{1}, Acked: true},
		{Tag: 3, QoS: 2, Sent: []uint32{1, 2, 3}, Sessions: []uint32{1, 2}, Acked: true},
	}
	if fmt.Sprint(rec.all) != fmt.Sprint(want) {
		t.Errorf("outcomes\n%v, want\n%v", rec.all, want)
	}
	if s.Sessions != 2 || s.SessionsLost != 1 || s.Released != 2 || s.Resent != 2 || s.Acknowledged != 3 {
		t.Errorf("%+v", s)
	}
}

// MQTT 5 begins a session with clean start, says how long it is to last, and
// ends it with the good-bye.
func TestSessionOfMQTT5(t *testing.T) {
	f := newFake(t)
	p, stop := run(t, Options{Broker: f.ln.Addr().String(), Version: 5, Session: 2 * time.Minute, QoS: 2})
	if flags := f.accept(connack, 3, 0, 0, 0); flags&cleanFlag == 0 {
		t.Fatalf("the session begins with flags %x", flags)
	}
	mustPublish(t, p, 2, 1, 2)
	f.next()
	f.next()
	f.send(pubrec, 3, 0, 1, 0x97) // a refusal ends the message without PUBREL [MQTT-4.3.3-4]
	f.send(pubrec, 2, 0, 2)
	if id := f.release(); id != 2 {
		t.Fatalf("PUBREL of %d", id)
	}
	f.send(pubrec, 2, 0, 9) // of nothing
	if unknown := f.next(); unknown.first != pubrel|2 || !slices.Equal(unknown.body, []byte{0, 9, 0x92}) {
		t.Fatalf("% x % x", unknown.first, unknown.body)
	}
	f.send(pubcomp, 3, 0, 2, 0x92)
	if err := p.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := p.Stats(); s.Refused != 1 || s.Acknowledged != 1 {
		t.Errorf("%+v", s)
	}
	done := make(chan error, 1)
	go func() { done <- stop() }()
	if bye := f.next(); bye.first != disconnect || !slices.Equal(bye.body, []byte{0, 5, 0x11, 0, 0, 0, 0}) {
		t.Fatalf("% x % x", bye.first, bye.body)
	}
	f.conn.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// A session of another life would take new messages for old ones.
func TestForeignSessionIsRefused(t *testing.T) {
	for name, first := range map[string]func(f *fake){
		"3.1.1": func(f *fake) { f.throwAway(); f.accept(connack, 2, 1, 0) },
		"5":     func(f *fake) { f.accept(connack, 3, 1, 0, 0) },
	} {
		f := newFake(t)
		version := byte(4)
		if name == "5" {
			version = 5
		}
		p, err := New(Options{Broker: f.ln.Addr().String(), ClientID: "s", Version: version, Session: time.Hour, Once: true})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- p.Run(t.Context()) }()
		first(f)
		if err := <-done; err == nil || p.Stats().Connections != 0 {
			t.Errorf("%s: %v, %+v", name, err, p.Stats())
		}
	}
}

func TestBrokerWithoutQoS2(t *testing.T) {
	f := newFake(t)
	p, err := New(Options{Broker: f.ln.Addr().String(), ClientID: "s", Version: 5, QoS: 2})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- p.Run(t.Context()) }()
	f.accept(connack, 5, 0, 0, 2, 0x24, 1)
	var refused *QoSError
	if err := <-done; !errors.As(err, &refused) || *refused != (QoSError{2, 1}) {
		t.Error(err)
	}
}

// exactly is a broker that keeps QoS 2 sessions, or loses them, and cuts
// connections anywhere; it judges what the publisher does.
type exactly struct {
	*fake
	rt       *rapid.T
	held     map[uint16]string // ids of the session, with their payloads
	session  uint32
	conn     uint32
	taken    map[string][]uint32 // by payload: the sessions in which it was taken
	order    []string            // of this session
	lossless bool
}

// await reports whether a packet comes; none does when all is settled.
func (b *exactly) await(settled func() bool) bool {
	for !settled() {
		_ = b.fake.conn.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := b.r.Peek(1); err == nil {
			_ = b.fake.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
			return true
		}
	}
	return false
}

// serve is one connection; it ends after so many packets, or when all is
// settled.
func (b *exactly) serve(packets int, settled func() bool) {
	b.conn++
	present := byte(0)
	if b.conn > 1 && (b.lossless || rapid.IntRange(0, 3).Draw(b.rt, "keeps the session") > 0) {
		present = 1
	} else {
		b.held, b.order = map[uint16]string{}, nil
		b.session++
	}
	b.accept(connack, 3, present, 0, 0)
	defer b.fake.conn.Close()
	seen := map[uint16]bool{} // on this connection
	for ; packets > 0 && b.await(settled); packets-- {
		p, _, err := readPacket(b.r, nil)
		if err != nil {
			b.rt.Fatal(err)
		}
		answer := rapid.Bool().Draw(b.rt, "cut before the answer")
		switch p.kind() {
		case publish:
			id := binary.BigEndian.Uint16(p.body[3:])
			payload := string(p.body[6:])
			before, held := b.held[id]
			switch {
			case seen[id]:
				b.rt.Fatalf("packet %d twice on one connection", id)
			case held && before != payload:
				b.rt.Fatalf("message %s under the id of %s, which is not released", payload, before)
			case held && p.first&8 == 0:
				b.rt.Fatalf("message %s again without DUP", payload)
			}
			seen[id] = true
			if !held {
				b.held[id] = payload
				b.taken[payload] = append(b.taken[payload], b.session)
				b.order = append(b.order, payload)
			}
			if answer {
				b.send(pubrec, 2, byte(id>>8), byte(id))
			}
		case pubrel:
			id := binary.BigEndian.Uint16(p.body)
			if _, held := b.held[id]; !held && present == 0 {
				b.rt.Fatalf("PUBREL of %d, which is not held", id)
			}
			delete(b.held, id)
			if answer {
				b.send(pubcomp, 2, byte(id>>8), byte(id))
			}
		default:
			b.rt.Fatalf("packet %x", p.first)
		}
		if !answer {
			return
		}
	}
}

// However connections break and whatever the broker forgets: within a session
// each message is one message, in order, and the outcomes say in which sessions
// it was sent.
func TestSessionsAgainstARandomBroker(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rec := &recorder{}
		b := &exactly{fake: newFake(t), rt: rt, taken: map[string][]uint32{}, lossless: rapid.Bool().Draw(rt, "no session is lost")}
		total := rapid.IntRange(1, 30).Draw(rt, "messages")
		p, stop := run(t, Options{
			Broker: b.ln.Addr().String(), Version: 5, Session: time.Hour, QoS: 2,
			Window: rapid.IntRange(1, 12).Draw(rt, "window"), Outcome: rec.add,
		})
		var wg sync.WaitGroup
		wg.Go(func() { mustPublish(t, p, 2, seq(total)...) })
		settled := func() bool { s := p.Stats(); return s.Published == int64(total) && s.InFlight == 0 }
		for !settled() {
			b.serve(rapid.IntRange(1, 2*total).Draw(rt, "packets"), settled)
			b.inOrder()
		}
		wg.Wait()
		s := p.Stats()
		b.ln.Close()
		if err := stop(); err != nil {
			rt.Fatal(err)
		}
		if len(rec.all) != total || b.lossless && s.SessionsLost+int64(b.session)-1 != 0 {
			rt.Fatalf("%d outcomes of %d, %+v", len(rec.all), total, s)
		}
		for i, o := range rec.all {
			taken := b.taken[fmt.Sprint(i+1)]
			if o.Tag != uint64(i+1) || !o.Acked || len(taken) == 0 || !slices.IsSorted(o.Sessions) || !slices.IsSorted(o.Sent) {
				rt.Fatalf("%+v, taken in %v", o, taken)
			}
			if slices.Sort(taken); len(slices.Compact(taken)) != len(b.taken[fmt.Sprint(i+1)]) {
				rt.Fatalf("message %d taken twice in one session: %v", i+1, taken)
			}
			for _, session := range taken {
				if !slices.Contains(o.Sessions, session) {
					rt.Fatalf("taken in session %d, sent in %v", session, o.Sessions)
				}
			}
		}
	})
}

// inOrder holds what was taken in the session against the order of Publish.
func (b *exactly) inOrder() {
	for i := 1; i < len(b.order); i++ {
		var x, y int
		if _, err := fmt.Sscan(b.order[i-1], &x); err != nil {
			b.rt.Fatal(err)
		}
		if _, err := fmt.Sscan(b.order[i], &y); err != nil || x >= y {
			b.rt.Fatalf("taken in the order %v", b.order)
		}
	}
}
