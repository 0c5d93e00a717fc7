package uplink

import (
	"bytes"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/packetboat/packetboat/internal/wire"
	"github.com/packetboat/packetboat/pkg/stream"
)

// impostor listens where a hub should be: the first connection it treats by a
// script, all later ones lead to a real hub.
func impostor(t *testing.T, real string, script func(net.Conn)) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	keep := func(c net.Conn) {
		mu.Lock()
		defer mu.Unlock()
		conns = append(conns, c)
	}
	all.Go(func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			keep(c)
			if n == 0 {
				all.Go(func() { script(c) })
				continue
			}
			hub, err := net.Dial("tcp", real)
			if err != nil {
				t.Error(err)
				return
			}
			keep(hub)
			pipe := func(to, from net.Conn) {
				_, _ = io.Copy(to, from)
				_, _ = to.Close(), from.Close()
			}
			all.Go(func() { pipe(hub, c) })
			all.Go(func() { pipe(c, hub) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return l.Addr().String()
}

// greeting is a CONNACK that an uplink accepts.
func greeting(change func(*packets.Connack)) []byte {
	log := stream.LogID{Name: stream.NewEpoch(), Incarnation: stream.NewEpoch()}
	alias := uint16(1)
	c := &packets.Connack{Properties: &packets.Properties{TopicAliasMaximum: &alias}}
	p := wire.FormatLogID(log)
	c.Properties.User = append(c.Properties.User, packets.User{Key: p.Key, Value: p.Value})
	if change != nil {
		change(c)
	}
	var b bytes.Buffer
	_, _ = c.WriteTo(&b)
	return b.Bytes()
}

func puback(id uint16, user ...packets.User) []byte {
	var b bytes.Buffer
	_, _ = (&packets.Puback{PacketID: id, Properties: &packets.Properties{User: user}}).WriteTo(&b)
	return b.Bytes()
}

// read takes one packet of the uplink's.
func read(c net.Conn) *packets.ControlPacket {
	p, err := packets.ReadPacket(c)
	if err != nil {
		return &packets.ControlPacket{Content: &packets.Publish{}}
	}
	return p
}

// nextPublish takes packets up to the next PUBLISH.
func nextPublish(c net.Conn) *packets.Publish {
	for {
		if p, ok := read(c).Content.(*packets.Publish); ok {
			return p
		}
	}
}

func write(c net.Conn, b []byte) { _, _ = c.Write(b) }

// Whatever a hub does, the uplink neither crashes, nor believes it, nor gives
// up: with a real one everything arrives once, and the operator is told.
func TestHostileHubs(t *testing.T) {
	hang := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	for name, c := range map[string]struct {
		script func(net.Conn)
		says   string // part of the error
	}{
		"closes at once":         {func(c net.Conn) { read(c); _ = c.Close() }, "hub closed the connection"},
		"never answers CONNECT":  {hang, "did not answer CONNECT"},
		"never reads":            {func(net.Conn) {}, "did not answer CONNECT"},
		"hangs after CONNACK":    {func(c net.Conn) { read(c); write(c, greeting(nil)); hang(c) }, "acknowledged none of"},
		"half a CONNACK":         {func(c net.Conn) { read(c); write(c, greeting(nil)[:9]); _ = c.Close() }, "hub closed"},
		"half a CONNACK for now": {func(c net.Conn) { read(c); write(c, greeting(nil)[:9]); hang(c) }, "did not answer CONNECT"},
		"a CONNACK of 256 MB":    {func(c net.Conn) { read(c); write(c, []byte{0x20, 0xff, 0xff, 0xff, 0x7f, 0, 0}); hang(c) }, "malformed or oversized"},
		"a PUBLISH instead":      {func(c net.Conn) { read(c); write(c, []byte{0x30, 4, 0, 1, 'a', 0}); hang(c) }, "unexpected packet"},
		"not MQTT":               {func(c net.Conn) { read(c); write(c, []byte("HTTP/1.1 400 Bad Request\r\n\r\n")); hang(c) }, "hub"},
		"an AUTH instead":        {func(c net.Conn) { read(c); write(c, []byte{0xf0, 2, 0x18, 0}); hang(c) }, "hub"},
		"a CONNACK after an AUTH": {func(c net.Conn) {
			read(c)
			write(c, greeting(func(k *packets.Connack) { k.Properties.AuthMethod = "x" }))
			hang(c)
		}, "acknowledged none of"},
		"no log": {func(c net.Conn) {
			read(c)
			write(c, greeting(func(k *packets.Connack) { k.Properties.User = nil }))
			hang(c)
		}, "no pb-log"},
		"bad coverage": {func(c net.Conn) {
			read(c)
			write(c, greeting(func(k *packets.Connack) {
				k.Properties.User = append(k.Properties.User, packets.User{Key: wire.PropCoverage, Value: "x"})
			}))
			hang(c)
		}, "pb-coverage"},
		"a session nobody asked for": {func(c net.Conn) {
			read(c)
			write(c, greeting(func(k *packets.Connack) { k.SessionPresent = true }))
			hang(c)
		}, "session is present"},
		"QoS 0 only": {func(c net.Conn) {
			read(c)
			write(c, greeting(func(k *packets.Connack) { zero := byte(0); k.Properties.MaximumQOS = &zero }))
			hang(c)
		}, "QoS 1 is not allowed"},
		"a PUBACK out of nothing": {func(c net.Conn) { read(c); write(c, append(greeting(nil), puback(999)...)); hang(c) }, "not in flight"},
		"a PUBACK twice": {func(c net.Conn) {
			read(c)
			write(c, greeting(nil))
			refusal := []byte{0x40, 3, 0, byte(nextPublish(c).PacketID), codeQuota}
			write(c, append(refusal, refusal...))
			hang(c)
		}, "not in flight"},
		"half a PUBACK": {func(c net.Conn) { read(c); write(c, append(greeting(nil), 0x40, 2, 0)); _ = c.Close() }, "hub"},
		"a PUBACK of nonsense": {func(c net.Conn) {
			read(c)
			write(c, greeting(nil))
			write(c, puback(nextPublish(c).PacketID, packets.User{Key: wire.PropLost, Value: "nonsense"}))
			hang(c)
		}, "does not follow the link protocol"},
		"a second CONNACK":   {func(c net.Conn) { read(c); write(c, greeting(nil)); write(c, greeting(nil)); hang(c) }, "hub"},
		"a PUBREC":           {func(c net.Conn) { read(c); write(c, append(greeting(nil), 0x50, 2, 0, 1)); hang(c) }, "answers nothing"},
		"a QoS 1 PUBLISH":    {func(c net.Conn) { read(c); write(c, append(greeting(nil), 0x32, 6, 0, 1, 'a', 0, 1, 0)); hang(c) }, "answers nothing"},
		"a packet of type 0": {func(c net.Conn) { read(c); write(c, append(greeting(nil), 0, 0)); hang(c) }, "hub"},
		"DISCONNECT":         {func(c net.Conn) { read(c); write(c, append(greeting(nil), 0xe0, 2, codeShuttingDown, 0)); hang(c) }, "shutting down"},
	} {
		t.Run(name, func(t *testing.T) {
			h, b := newHub(t), openBuffer(t)
			accept(t, b, stream.Normal, 0, 50)
			o := quick("tcp://" + impostor(t, h.addr, c.script))
			o.ConnectTimeout, o.ProgressTimeout = 300*time.Millisecond, 300*time.Millisecond
			u, _ := start(t, b, o)
			settled(t, h, b, 50)
			s := u.Stats()
			if !strings.Contains(s.LastError, c.says) || s.Connects < 1 {
				t.Errorf("%q, want %q; %+v", s.LastError, c.says, s)
			}
			if s := b.Stats(); s.Settled != 50 || h.doubles != 0 {
				t.Errorf("%d doubles, %+v", h.doubles, s)
			}
		})
	}
}
