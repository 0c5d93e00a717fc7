package uplink

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// writes is a connection that keeps what each Write was given.
type writes struct {
	net.Conn
	all [][]byte
}

func (w *writes) Write(b []byte) (int, error) {
	w.all = append(w.all, bytes.Clone(b))
	return len(b), nil
}
func (w *writes) SetWriteDeadline(time.Time) error { return nil }
func (w *writes) Close() error                     { return nil }

// A packet is one write, however many pieces paho makes of it; only one that is
// larger than a TLS record takes more.
func TestOneWriteOfAPacket(t *testing.T) {
	for size, want := range map[int]int{10: 1, 5000: 1, writeChunk + 1: 2} {
		w := &writes{}
		p := newPacketConn(w, time.Second)
		publish := &packets.Publish{Topic: "pb/1/a/up", QoS: 1, PacketID: 7, Payload: make([]byte, size), Properties: &packets.Properties{}}
		if _, err := publish.WriteTo(p); err != nil {
			t.Fatal(err)
		}
		var all []byte
		for _, b := range w.all {
			all = append(all, b...)
		}
		if len(w.all) != want {
			t.Errorf("a packet of %d bytes is %d writes", len(all), len(w.all))
		}
		back, err := packets.ReadPacket(bytes.NewReader(all))
		if err != nil || len(back.Content.(*packets.Publish).Payload) != size {
			t.Errorf("read back: %v", err)
		}
	}
}

// script is a connection that reads what it was given.
type script struct {
	net.Conn
	io.Reader
}

func (s script) Read(b []byte) (int, error) { return s.Reader.Read(b) }
func (script) Close() error                 { return nil }

func TestHeadersAreCheckedBeforePahoSeesThem(t *testing.T) {
	pingresp := []byte{0xd0, 0}
	big := append([]byte{0x30, 0x80, 0x80, 0x10}, make([]byte, maxInbound)...) // 256 KiB, the most
	for name, c := range map[string]struct {
		in      []byte
		packets int
		bad     bool
	}{
		"nothing":             {nil, 0, false},
		"two packets":         {append(pingresp, pingresp...), 2, false},
		"256 MB":              {append(pingresp, 0x30, 0xff, 0xff, 0xff, 0x7f), 1, true},
		"a byte too much":     {[]byte{0x30, 0x81, 0x80, 0x10}, 0, true},
		"as much as may be":   {big, 1, false},
		"a length of 5 bytes": {[]byte{0x30, 0x80, 0x80, 0x80, 0x80, 0x01}, 0, true},
		"an endless length":   {bytes.Repeat([]byte{0xff}, 100), 0, true},
		"half a packet":       {[]byte{0x40, 2, 0}, 0, false},
		"half a header":       {[]byte{0x40}, 0, false},
	} {
		p := newPacketConn(script{Reader: bytes.NewReader(c.in)}, time.Second)
		n := 0
		var err error
		for err == nil {
			if n < c.packets && name == "as much as may be" {
				_, err = io.CopyN(io.Discard, p, int64(len(c.in)))
			} else {
				_, err = packets.ReadPacket(p)
			}
			if err == nil {
				n++
			}
		}
		if n != c.packets || errors.Is(p.err(), errHeader) != c.bad || p.err() == nil {
			t.Errorf("%s: %d packets, %v, %v", name, n, err, p.err())
		}
	}
}

// A peer that reads nothing does not hold a writer for ever.
func TestWriteHasADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer b.Close()
		p := newPacketConn(a, time.Minute)
		began := time.Now()
		if _, err := packets.NewControlPacket(packets.PINGREQ).WriteTo(p); err != nil {
			t.Fatal(err) // the error shows at the next write
		}
		if d := time.Since(began); d != time.Minute || p.err() == nil {
			t.Errorf("after %v: %v", d, p.err())
		}
		if _, err := packets.NewControlPacket(packets.PINGREQ).WriteTo(p); err == nil {
			t.Error("written after an error")
		}
	})
}

func TestHurryCutsAWriteShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer b.Close()
		p := newPacketConn(a, time.Hour)
		began := time.Now()
		time.AfterFunc(time.Second, func() { p.hurry(time.Now().Add(2 * time.Second)) })
		_, _ = packets.NewControlPacket(packets.PINGREQ).WriteTo(p)
		if d := time.Since(began); d != 3*time.Second || p.err() == nil {
			t.Errorf("after %v: %v", d, p.err())
		}
	})
}

// The pinger keeps an idle connection alive, finds a silent peer out, and
// leaves a busy connection to the sender.
func TestPinger(t *testing.T) {
	for _, c := range []struct {
		name     string
		answers  bool
		inFlight int64
		dies     bool
	}{{"answers", true, 0, false}, {"silent", false, 0, true}, {"silent but busy", false, 1, false}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := net.Pipe()
				p := newPacketConn(a, time.Minute)
				var pings atomic.Int64
				go func() { // the hub
					for {
						if _, err := packets.ReadPacket(b); err != nil {
							return
						}
						if pings.Add(1); c.answers {
							_, _ = packets.NewControlPacket(packets.PINGRESP).WriteTo(b)
						}
					}
				}()
				go func() { // paho's reader
					for {
						if _, err := packets.ReadPacket(p); err != nil {
							return
						}
					}
				}()
				var inFlight atomic.Int64
				inFlight.Store(c.inFlight)
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
				defer cancel()
				g := &pinger{conn: p, inFlight: &inFlight}
				g.PacketSent()
				began := time.Now()
				err := g.Run(ctx, p, 30)
				if c.dies != errors.Is(err, errSilent) || c.dies && time.Since(began) > 90*time.Second {
					t.Errorf("after %v: %v", time.Since(began), err)
				}
				if !c.dies && err != nil || c.answers && pings.Load() < 19 {
					t.Errorf("%d pings in 10 minutes: %v", pings.Load(), err)
				}
				_, _ = a.Close(), b.Close()
			})
		})
	}
}

// Whatever bytes a hub sends, paho's reader behind ours does not panic.
func FuzzInbound(f *testing.F) {
	f.Add(greeting(nil))
	f.Add(puback(1, packets.User{Key: "pb-lost", Value: "1-2"}))
	f.Add([]byte{0xe0, 2, codeShuttingDown, 0})
	f.Add([]byte{0x30, 7, 0, 1, 'a', 3, 0x23, 0, 1})
	f.Fuzz(func(t *testing.T, in []byte) {
		p := newPacketConn(script{Reader: bytes.NewReader(in)}, time.Second)
		for range 10 {
			packet, err := packets.ReadPacket(p)
			if err != nil {
				return
			}
			if c, ok := packet.Content.(*packets.Connack); ok {
				_, _ = readWelcome(paho.ConnackFromPacketConnack(c))
			}
		}
	})
}
