package publisher

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a broker under the test's control, one connection after the other.
type fake struct {
	t    *testing.T
	ln   net.Listener
	conn net.Conn
	r    *bufio.Reader
}

func newFake(t *testing.T) *fake {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return &fake{t: t, ln: ln}
}

// accept takes a connection, answers its CONNECT and gives the flags of that.
func (f *fake) accept(connack ...byte) (flags byte) {
	f.t.Helper()
	var err error
	if f.conn, err = f.ln.Accept(); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { f.conn.Close() })
	_ = f.conn.SetDeadline(time.Now().Add(20 * time.Second))
	f.r = bufio.NewReader(f.conn)
	p := f.next()
	if p.kind() != connect {
		f.t.Fatalf("first packet %x", p.first)
	}
	f.send(connack...)
	return p.body[7]
}

func (f *fake) send(b ...byte) {
	f.t.Helper()
	if _, err := f.conn.Write(b); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fake) next() packet {
	f.t.Helper()
	p, _, err := readPacket(f.r, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	return p
}

// publish reads one PUBLISH (3.1.1) and gives its payload and packet id.
func (f *fake) publish() (payload string, id uint16) {
	f.t.Helper()
	p := f.next()
	if p.kind() != publish {
		f.t.Fatalf("packet %x", p.first)
	}
	n := 2 + int(binary.BigEndian.Uint16(p.body))
	if p.first&6 != 0 {
		id = binary.BigEndian.Uint16(p.body[n:])
		n += 2
	}
	return string(p.body[n:]), id
}

func (f *fake) ack(id uint16) { f.send(puback, 2, byte(id>>8), byte(id)) }

type recorder struct {
	mu  sync.Mutex
	all []Outcome
}

func (r *recorder) add(o Outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, o)
}

// run runs a publisher until stop is called.
func run(t *testing.T, o Options) (p *Publisher, stop func() error) {
	t.Helper()
	if o.ClientID == "" {
		o.ClientID = "s"
	}
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	p.pause = time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { _ = stop() })
	return p, stop
}

func mustPublish(t *testing.T, p *Publisher, qos byte, tags ...uint64) {
	t.Helper()
	for _, tag := range tags {
		if err := p.Publish(t.Context(), "t", fmt.Append(nil, tag), qos, false, tag); err != nil {
			t.Fatal(err)
		}
	}
}

// What was not acknowledged goes out again, in order and before what is new;
// the outcomes say on which connections.
func TestResendAfterTheConnectionEnds(t *testing.T) {
	f, rec := newFake(t), &recorder{}
	p, stop := run(t, Options{Broker: f.ln.Addr().String(), Window: 4, Outcome: rec.add})
	mustPublish(t, p, 1, 1, 2, 3)
	f.accept(connack, 2, 0, 0)
	for i := 1; i <= 3; i++ {
		if got, id := f.publish(); got != fmt.Sprint(i) {
			t.Fatalf("message %d is %q", i, got)
		} else if i == 1 {
			f.ack(id)
		}
	}
	mustPublish(t, p, 1, 4, 5) // 5 needs the place of 1: so the acknowledgement was seen
	f.conn.Close()
	f.accept(connack, 2, 0, 0)
	for i := 2; i <= 5; i++ {
		got, id := f.publish()
		if got != fmt.Sprint(i) {
			t.Fatalf("again: message %d is %q", i, got)
		}
		if i < 5 {
			f.ack(id)
		}
	}
	for p.Stats().InFlight > 1 {
		time.Sleep(time.Millisecond) // poll; ends with the test's deadline
	}
	f.conn.Close()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if err := p.Publish(t.Context(), "t", nil, 1, false, 0); !errors.Is(err, ErrClosed) {
		t.Errorf("publish after the end: %v", err)
	}
	var got []string
	for _, o := range rec.all {
		got = append(got, fmt.Sprint(o.Tag, o.Sent[0], o.Acked))
	}
	// 4 and 5 may have gone out before the first connection ended, or not
	if len(got) != 5 || got[0] != "1 1 true" || got[1] != "2 1 true" || got[2] != "3 1 true" || !rec.all[3].Acked || rec.all[4].Acked {
		t.Errorf("outcomes %v", got)
	}
	if !slices.Equal(rec.all[1].Sent, []uint32{1, 2}) || rec.all[4].Sent[len(rec.all[4].Sent)-1] < 2 {
		t.Errorf("sent %v, %v", rec.all[1].Sent, rec.all[4].Sent)
	}
}

func TestWindowAndReceiveMaximum(t *testing.T) {
	f := newFake(t)
	p, _ := run(t, Options{Broker: "tcp://" + f.ln.Addr().String(), Window: 10, Version: 5})
	mustPublish(t, p, 1, 1, 2, 3, 4, 5)
	f.accept(connack, 6, 0, 0, 3, 0x21, 0, 2) // Receive Maximum 2
	f.next()
	f.next()
	_ = f.conn.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
	if _, err := f.r.Peek(1); err == nil {
		t.Fatal("a third message beyond the Receive Maximum")
	}
	_ = f.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	f.send(puback, 3, 0, 1, 0x97) // a refusal ends the message too
	f.next()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	mustPublish(t, p, 1, 6, 7, 8, 9, 10, 11)
	if err := p.Publish(ctx, "t", nil, 1, false, 12); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("the eleventh unacknowledged message: %v", err)
	}
	if s := p.Stats(); s.Refused != 1 || s.InFlight != 10 {
		t.Errorf("%+v", s)
	}
}

func TestRefusedForGood(t *testing.T) {
	for _, c := range []struct{ version, code byte }{{4, 5}, {5, 0x87}} {
		f := newFake(t)
		p, err := New(Options{Broker: f.ln.Addr().String(), ClientID: "s", Version: c.version})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- p.Run(t.Context()) }()
		f.accept(connack, 3, 0, c.code, 0)
		var refused *RefusedError
		if err := <-done; !errors.As(err, &refused) || refused.Code != c.code {
			t.Errorf("version %d: %v", c.version, err)
		}
	}
}

func TestOnceEndsWithTheConnection(t *testing.T) {
	f := newFake(t)
	p, err := New(Options{Broker: f.ln.Addr().String(), ClientID: "s", Once: true})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- p.Run(t.Context()) }()
	f.accept(connack, 2, 0, 0)
	f.conn.Close()
	if err := <-done; err == nil {
		t.Error("no error")
	}
	if err := p.Publish(t.Context(), "t", nil, 1, false, 0); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

func TestHostileBrokers(t *testing.T) {
	for name, bytes := range map[string][]byte{
		"ack of nothing": {puback, 2, 0, 9}, "ack of zero": {puback, 2, 0, 0}, "short ack": {puback, 1, 0},
		"huge": {puback, 0xff, 0xff, 0xff, 0x7f}, "endless length": {puback, 0xff, 0xff, 0xff, 0xff, 1}, "disconnect": {disconnect, 0},
	} {
		t.Run(name, func(t *testing.T) {
			f, rec := newFake(t), &recorder{}
			p, stop := run(t, Options{Broker: f.ln.Addr().String(), Outcome: rec.add})
			f.accept(connack, 2, 0, 0)
			mustPublish(t, p, 1, 1)
			f.publish()
			f.send(bytes...)
			f.conn.Close()
			f.accept(connack, 2, 0, 0)
			if got, id := f.publish(); got != "1" {
				t.Fatalf("resent %q", got)
			} else {
				f.ack(id)
			}
			if err := p.Drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := stop(); err != nil || len(rec.all) != 1 || !rec.all[0].Acked || len(rec.all[0].Sent) != 2 {
				t.Errorf("%v, outcomes %v", err, rec.all)
			}
		})
	}
}

func TestBadOptions(t *testing.T) {
	for _, o := range []Options{
		{Broker: "", ClientID: "a"}, {Broker: "http://a:1", ClientID: "a"}, {Broker: "tcp://a:1/x", ClientID: "a"}, {Broker: "a:1"},
		{Broker: "a:1", ClientID: "a", Window: MaxWindow + 1}, {Broker: "a:1", ClientID: "a", Version: 3}, {Broker: "a:1", ClientID: "a", KeepAlive: time.Millisecond},
		{Broker: "a:1", ClientID: "a", QoS: 3}, {Broker: "a:1", ClientID: "a", Session: time.Millisecond}, {Broker: "a:1", ClientID: "a", Session: -time.Second},
		{Broker: "tls://a:1/x", ClientID: "a"}, {Broker: "ws://u@a:1", ClientID: "a"}, {Broker: "ws://a:1?x", ClientID: "a"}, {Broker: "a", ClientID: "a"},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v passes", o)
		}
	}
	for in, want := range map[string]target{
		"tcp://a": {addr: "a:1883"}, "mqtt://[::1]:7/": {addr: "[::1]:7"}, "b:9": {addr: "b:9"}, "mqtts://a": {secure: true, addr: "a:8883"},
		"tls://a:5": {secure: true, addr: "a:5"}, "ws://a": {web: true, addr: "a:8083", path: "/mqtt"}, "wss://a:1/x/": {web: true, secure: true, addr: "a:1", path: "/x"},
	} {
		if got, err := parseTarget(in); got != want {
			t.Errorf("%s: %+v %v", in, got, err)
		}
	}
}

// Whatever a broker does, the outcomes come once each, in order, and an
// acknowledged one was acknowledged on the last connection it names.
func TestAgainstARandomBroker(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f, rec := newFake(t), &recorder{}
		total := rapid.IntRange(1, 60).Draw(rt, "messages")
		p, stop := run(t, Options{Broker: f.ln.Addr().String(), Window: rapid.IntRange(1, 20).Draw(rt, "window"), Outcome: rec.add})
		ackedOn := map[string]uint32{}
		var wg sync.WaitGroup
		wg.Go(func() { mustPublish(t, p, 1, seq(total)...) })
		for conn := uint32(1); len(ackedOn) < total; conn++ {
			f.accept(connack, 2, 0, 0)
			take := rapid.IntRange(0, total).Draw(rt, "acks on this connection")
			for range min(take, total-len(ackedOn)) {
				payload, id := f.publish()
				if want := fmt.Sprint(len(ackedOn) + 1); payload != want {
					rt.Fatalf("connection %d: got %s, want %s", conn, payload, want)
				}
				ackedOn[payload] = conn
				f.ack(id)
			}
			for p.Stats().Acknowledged < int64(len(ackedOn)) {
				time.Sleep(50 * time.Microsecond) // poll
			}
			f.conn.Close()
		}
		wg.Wait()
		if err := p.Drain(t.Context()); err != nil {
			rt.Fatal(err)
		}
		f.ln.Close()
		if err := stop(); err != nil {
			rt.Fatal(err)
		}
		if len(rec.all) != total {
			rt.Fatalf("%d outcomes of %d", len(rec.all), total)
		}
		for i, o := range rec.all {
			if o.Tag != uint64(i+1) || !o.Acked || o.Sent[len(o.Sent)-1] != ackedOn[fmt.Sprint(i+1)] || !slices.IsSorted(o.Sent) {
				rt.Fatalf("outcome %d: %+v, acknowledged on %d", i, o, ackedOn[fmt.Sprint(i+1)])
			}
		}
	})
}

func seq(n int) (s []uint64) {
	for i := range n {
		s = append(s, uint64(i+1))
	}
	return s
}

// Whatever the bytes, the parser ends without a panic and within its bound.
func FuzzReadPacket(f *testing.F) {
	f.Add([]byte{connack, 6, 0, 0, 3, 0x21, 0, 2})
	f.Add([]byte{puback, 2, 0, 1, puback, 3, 0, 2, 0x97})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReader(bytes.NewReader(b))
		var buf []byte
		for {
			p, rest, err := readPacket(r, buf)
			if err != nil {
				return
			}
			if buf = rest; len(buf) > maxIncoming {
				t.Fatal(len(buf))
			}
			_, _ = parseAck(p)
			if w, err := parseConnack(5, p); err == nil && w.receiveMaximum == 0 {
				t.Fatal("a Receive Maximum of zero")
			}
		}
	})
}

func BenchmarkPublish(b *testing.B) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	go sink(ln)
	p, err := New(Options{Broker: ln.Addr().String(), ClientID: "b", Window: 1000})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error)
	go func() { done <- p.Run(ctx) }()
	payload := make([]byte, 60)
	for b.Loop() {
		if err := p.Publish(ctx, "v/s1/temp", payload, 1, false, 0); err != nil {
			b.Fatal(err)
		}
	}
	_ = p.Drain(ctx)
	cancel()
	<-done
}

// sink acknowledges everything at once.
func sink(ln net.Listener) {
	conn, err := ln.Accept()
	if err != nil {
		return
	}
	defer conn.Close()
	r := bufio.NewReaderSize(conn, 64<<10)
	w := bufio.NewWriterSize(conn, 64<<10)
	var buf []byte
	for {
		var p packet
		if p, buf, err = readPacket(r, buf); err != nil {
			return
		}
		switch p.kind() {
		case connect:
			_, err = w.Write([]byte{connack, 2, 0, 0})
		case publish:
			n := 2 + int(binary.BigEndian.Uint16(p.body))
			_, err = w.Write([]byte{puback, 2, p.body[n], p.body[n+1]})
		}
		if r.Buffered() == 0 {
			err = errors.Join(err, w.Flush())
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				return
			}
		}
	}
}
