package mqttfront

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// hooked is a listener whose connections call hook within each Write.
type hooked struct {
	net.Listener
	hook func(b []byte)
}

type hookedConn struct {
	net.Conn
	hook func(b []byte)
}

func (l hooked) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return hookedConn{c, l.hook}, err
}

func (c hookedConn) Write(b []byte) (int, error) {
	c.hook(b)
	return c.Conn.Write(b)
}

// A client that has its CONNACK is told why its connection ends, also when that is
// decided while CONNACK is written: DISCONNECT follows, and does not overtake.
// [MQTT-3.1.4-3] [MQTT-3.14.0-1] [MQTT-4.13.2-1]
func TestEndWhileConnackIsWritten(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := newFake()
	var once atomic.Bool
	s := start(t, h, Options{Listeners: []net.Listener{hooked{l, func(b []byte) {
		if b[0] == typeConnack<<4 && once.CompareAndSwap(false, true) {
			h.session(t, 0).peer.Disconnect(AdministrativeAction, "now")
		}
	}}}})
	c := connect(t, s.addr, connectOptions{id: "a"})
	c.expectDisconnect(AdministrativeAction)
	eventually(t, "it is gone", func() bool { return s.Clients() == 0 && s.Stats().Connections == 0 })
	connect(t, s.addr, connectOptions{id: "a"}).ping()
}

// A client that is ended before its CONNACK gets neither that nor DISCONNECT.
func TestEndBeforeConnack(t *testing.T) {
	h := newFake()
	h.connect = func(_ context.Context, p *Peer) (Welcome, error) {
		p.Disconnect(AdministrativeAction, "now")
		return Welcome{}, nil
	}
	s := start(t, h, Options{})
	c := dial(t, s.addr)
	c.send(connectPacket(connectOptions{id: "a"}))
	c.expectEnd()
	eventually(t, "it is gone", func() bool { return s.Clients() == 0 && s.Stats().Connections == 0 })
}

// A CONNACK that the client cannot take is not sent: the connection ends with one
// that it can, or in silence, before anything is done in its name.
func TestConnackTooLarge(t *testing.T) {
	s := start(t, newFake(), Options{})
	old := connect(t, s.addr, connectOptions{id: "a", persist: true, props: expiryProp(60)})
	for limit, answered := range map[byte]bool{4: false, 5: true, 10: true} {
		c := dial(t, s.addr)
		c.version = 5
		c.send(connectPacket(connectOptions{id: "a", props: []byte{propMaxPacketSize, 0, 0, 0, limit}}))
		if answered {
			if body := c.expect(typeConnack << 4); body[1] != PacketTooLarge {
				t.Errorf("limit %d: CONNACK % x", limit, body)
			}
		}
		c.expectEnd()
	}
	old.ping() // nobody took its session over
	if st := s.Stats(); st.Limits["peer_packet"] != 3 || st.Refusals[PacketTooLarge] != 3 {
		t.Errorf("%+v", st)
	}
}

// piped gives a front one end of a pipe for each dial; synctest knows pipes.
type piped struct {
	conns chan net.Conn
	done  chan struct{}
}

func newPiped() *piped { return &piped{make(chan net.Conn), make(chan struct{})} }

func (p *piped) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *piped) Close() error   { close(p.done); return nil }
func (p *piped) Addr() net.Addr { return &net.TCPAddr{} }

func (p *piped) dial(t *testing.T) *raw {
	a, b := net.Pipe()
	p.conns <- b
	c := newRaw(t, a)
	c.version = 5
	return c
}

// trickle sends packet at a pace, and tells how long the connection took it.
func trickle(c *raw, packet []byte, each int, every time.Duration) (took time.Duration, whole bool) {
	begun := time.Now()
	for len(packet) > 0 {
		n := min(each, len(packet))
		if _, err := c.Write(packet[:n]); err != nil {
			return time.Since(begun), false
		}
		if packet = packet[n:]; len(packet) > 0 {
			time.Sleep(every) // of synctest's clock
		}
	}
	return time.Since(begun), true
}

// A packet that trickles in is no sign of life; a large one over a slow link is.
func TestSlowPacket(t *testing.T) {
	for name, tc := range map[string]struct {
		keepAlive, size, each int
		every                 time.Duration
		whole                 bool
		least, most           time.Duration
	}{
		"a byte each second":             {2, 1000, 1, time.Second, false, 3 * time.Second, 5 * time.Second},
		"a byte each second, for ever":   {0, 1000, 1, time.Second, false, time.Minute, 63 * time.Second},
		"100 bytes each second":          {10, 100_000, 100, time.Second, false, 15 * time.Second, 120 * time.Second},
		"a satellite":                    {10, 200_000, 250, time.Second, true, 799 * time.Second, 801 * time.Second},
		"a satellite without keep alive": {0, 200_000, 250, time.Second, true, 799 * time.Second, 801 * time.Second},
		"a pause in the middle":          {60, 200, 100, 80 * time.Second, true, 80 * time.Second, 80 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newPiped()
				s := begin(t, newFake(), Options{Listeners: []net.Listener{l}})
				c := l.dial(t)
				answers := make(chan byte, 100)
				c.send(connectPacket(connectOptions{id: "a", keepAlive: tc.keepAlive}))
				c.expect(typeConnack << 4)
				defer func() {
					c.Close()
					if err := s.stop(); err != nil {
						t.Error(err)
					}
					synctest.Wait()
				}()
				go func() {
					defer close(answers)
					for {
						_ = c.SetReadDeadline(time.Time{})
						first, err := c.br.ReadByte()
						if err != nil {
							return
						}
						answers <- first
						n, _ := c.br.ReadByte()
						_, _ = c.br.Discard(int(n))
					}
				}()
				p := c.publishPacket("t", 1, 0, strings.Repeat("x", tc.size-10))
				took, whole := trickle(c, p, tc.each, tc.every)
				if whole != tc.whole || took < tc.least || took > tc.most {
					t.Errorf("whole: %v, after %v", whole, took)
				}
				want := int64(1)
				if tc.whole {
					want = 0
					if first := <-answers; first != typePuback<<4 {
						t.Errorf("got 0x%02x", first)
					}
					if tc.keepAlive > 0 { // the deadline of the packet is not that of the next
						time.Sleep(time.Duration(tc.keepAlive) * time.Second)
					} else {
						time.Sleep(time.Hour)
					}
					c.send([]byte{typePingreq << 4, 0})
					if first := <-answers; first != typePingresp<<4 {
						t.Errorf("got 0x%02x", first)
					}
				}
				if n := s.Stats().Limits["packet_time"]; n != want {
					t.Errorf("counted %d", n)
				}
			})
		})
	}
}
