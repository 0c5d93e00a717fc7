package mqttfront

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// The tests of this file pin what mochi-mqtt does where we do it ourselves, or
// look first, for that very reason. One that fails after an upgrade says that the
// reason is gone: then ask whether our code can go too.

func mochiIndex(filters ...string) *mqtt.TopicsIndex {
	x := mqtt.NewTopicsIndex()
	for i, f := range filters {
		x.Subscribe(fmt.Sprint("c", i), packets.Subscription{Filter: f})
	}
	return x
}

// Why topics.go is not mochi's TopicsIndex.
func TestMochiTopicsIndex(t *testing.T) {
	t.Run("does not match +/# with its parent", func(t *testing.T) {
		if !matches("+/#", "a") { // 4.7.1.2
			t.Fatal("we do not either")
		}
		if n := len(mochiIndex("+/#").Subscribers("a").Subscriptions); n != 0 {
			t.Errorf("it does: %d", n)
		}
	})
	t.Run("hides only $SYS from wildcards", func(t *testing.T) {
		if matches("#", "$other/x") { // [MQTT-4.7.2-1]
			t.Fatal("we do not hide it either")
		}
		x := mochiIndex()
		x.RetainMessage(packets.Packet{TopicName: "$other/x", Payload: []byte("x"), FixedHeader: packets.FixedHeader{Retain: true}})
		if n := len(x.Messages("#")); n != 1 {
			t.Errorf("# finds %d retained messages of $other/x", n)
		}
		if n := len(mochiIndex("$share/g/#").Subscribers("$SYS/x").Shared); n != 1 {
			t.Errorf("$share/g/# is found %d times for $SYS/x", n)
		}
	})
	t.Run("is read while it changes", func(t *testing.T) {
		x := mochiIndex("a")
		field := reflect.ValueOf(x).Elem().FieldByName("root").Elem().FieldByName("Mutex")
		changes := (*sync.Mutex)(unsafe.Pointer(field.UnsafeAddr()))
		changes.Lock() // as Subscribe does for all of its steps
		defer changes.Unlock()
		found := make(chan int)
		go func() { found <- len(x.Subscribers("a").Subscriptions) }()
		select {
		case <-found:
		case <-time.After(patience):
			t.Error("it is not: Subscribers waits")
		}
	})
	t.Run("copies at each step", func(t *testing.T) {
		const n = 1000
		x, own := mochiIndex(), newTopics()
		for i := range n {
			x.Subscribe(fmt.Sprint(i), packets.Subscription{Filter: "a/b"})
			own.add(&subscription{filter: "a/b"}, nil, maxFilterWeight, nil)
		}
		var f found
		own.match("a/b", &f)
		if got := testing.AllocsPerRun(10, func() { own.match("a/b", &f) }); got != 0 || len(f.subs) != n {
			t.Fatalf("ours allocates %v times for %d subscribers", got, len(f.subs))
		}
		if got := testing.AllocsPerRun(10, func() { x.Subscribers("a/b") }); got < n {
			t.Errorf("%v allocations for %d subscribers", got, n)
		}
	})
	t.Run("costs 640 bytes a level", func(t *testing.T) {
		const n, of = 400, 50
		var keep []any
		cost := func(fill func(filter string)) int {
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			for i := range n {
				fill(fmt.Sprint(i, strings.Repeat("/x", of-1)))
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			return (int(after.HeapAlloc) - int(before.HeapAlloc)) / (n * of)
		}
		x, own := mochiIndex(), newTopics()
		keep = append(keep, x, own)
		theirs := cost(func(f string) { x.Subscribe("c", packets.Subscription{Filter: f}) })
		ours := cost(func(f string) { own.add(&subscription{filter: f}, nil, maxFilterWeight, nil) })
		t.Logf("ours %d, mochi's %d bytes", ours, theirs)
		if theirs < 2*ours {
			t.Errorf("a level costs %d bytes, ours %d", theirs, ours)
		}
		runtime.KeepAlive(keep)
	})
}

// Why its decoders see nothing that check, checkFilters and checkProps did not
// pass.
func TestMochiDecoders(t *testing.T) {
	head := func(flags byte, props ...byte) []byte {
		return slices.Concat(str("MQTT"), []byte{5, flags, 0, 60}, appendVarint(nil, len(props)), props)
	}
	id := str("id")
	for name, body := range map[string][]byte{
		"property twice":          slices.Concat(head(2, 0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 2), id),
		"Receive Maximum 0":       slices.Concat(head(2, 0x21, 0, 0), id),
		"Request Problem Info 2":  slices.Concat(head(2, 0x17, 2), id),
		"something after it":      slices.Concat(head(2), id, []byte{0}),
		"user name is not UTF-8":  slices.Concat(head(2|0x80), id, str("\xff")),
		"wildcard response topic": slices.Concat(head(2|4), id, []byte{4, 8}, str("#"), str("w"), str("x")),
	} {
		p := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connect, Remaining: len(body)}}
		if err := p.ConnectDecode(bytes.Clone(body)); err != nil {
			t.Errorf("CONNECT, %s: mochi refuses it: %v", name, err)
		}
		if _, err := decodeConnect(body); err == nil {
			t.Errorf("CONNECT, %s: we take it", name)
		}
	}
	for name, body := range map[string][]byte{
		"identifier twice": slices.Concat(u16(1), []byte{4, propSubID, 1, propSubID, 2}, str("t"), []byte{0}),
		"reserved bits":    slices.Concat(u16(1), []byte{0}, str("t"), []byte{0xc0}),
		"id 0, no filter":  slices.Concat(u16(0), []byte{0}),
		"no options":       slices.Concat(u16(1), []byte{0}, str("t")),
	} {
		p := packets.Packet{ProtocolVersion: 5, FixedHeader: packets.FixedHeader{Type: packets.Subscribe}}
		func() {
			defer func() {
				if panicked := recover() != nil; panicked != (name == "no options") {
					t.Errorf("SUBSCRIBE, %s: panic is %v", name, panicked)
				}
			}()
			if err := p.SubscribeDecode(body); err != nil {
				t.Errorf("SUBSCRIBE, %s: mochi refuses it: %v", name, err)
			}
		}()
		if _, err := filtersOf(0x82, body, 5); err == nil {
			t.Errorf("SUBSCRIBE, %s: we take it", name)
		}
	}
	p := packets.Packet{ProtocolVersion: 5, FixedHeader: packets.FixedHeader{Type: packets.Disconnect, Remaining: 1}}
	if err := p.DisconnectDecode([]byte{4}); err != nil || p.ReasonCode != 0 {
		t.Errorf("a DISCONNECT of one byte is read as %d, %v", p.ReasonCode, err)
	}
	if d, err := decodeDisconnect([]byte{4}, 5); err != nil || d.code != 4 {
		t.Errorf("we read a DISCONNECT of one byte as %d, %v", d.code, err)
	}
}

// Why a string is cut, and a packet measured, before it goes to a client.
func TestMochiEncoders(t *testing.T) {
	p := packets.Packet{ProtocolVersion: 5, FixedHeader: packets.FixedHeader{Type: packets.Connack}, Mods: packets.Mods{MaxSize: 30}}
	p.Properties.AssignedClientID, p.Properties.ReasonString = "0123456789", "0123456789"
	var b bytes.Buffer
	if err := p.ConnackEncode(&b); err != nil || b.Len() <= 30 {
		t.Errorf("CONNACK has %d of 30 bytes, %v", b.Len(), err)
	}
	p.Properties = packets.Properties{ServerReference: strings.Repeat("x", 1<<16)}
	b.Reset()
	if err := p.ConnackEncode(&b); err != nil || b.Len() < 1<<16 || !bytes.Contains(b.Bytes(), []byte{packets.PropServerReference, 0, 0, 'x'}) {
		t.Errorf("a string of 64 KiB is written with its right length, or not at all: %v", err)
	}
	a := connack{version: 5, serverReference: strings.Repeat("x", 1<<16), reason: strings.Repeat("ü", 1000)[1:], user: fromPairs(strings.Repeat("k", 1<<16), "v")}
	out := a.append(nil)
	var again packets.Packet
	again.ProtocolVersion, again.FixedHeader.Type = 5, packets.Connack
	_, n, _, _ := header(out)
	if err := again.ConnackDecode(out[n:]); err != nil || len(again.Properties.ServerReference) != maxString || len(again.Properties.User) != 1 {
		t.Errorf("ours: %v", err)
	}
}

// failing refuses every PUBLISH with an error.
type failing struct{ mqtt.HookBase }

func (*failing) Provides(b byte) bool {
	return b == mqtt.OnPublish || b == mqtt.OnConnectAuthenticate || b == mqtt.OnACLCheck
}
func (*failing) OnConnectAuthenticate(*mqtt.Client, packets.Packet) bool { return true }
func (*failing) OnACLCheck(*mqtt.Client, string, bool) bool              { return true }
func (*failing) OnPublish(_ *mqtt.Client, p packets.Packet) (packets.Packet, error) {
	if p.TopicName == "refused" {
		return p, errors.New("disk full")
	}
	return p, nil
}

// Why mochi's server engine is not run. It is called in a bubble, in which an
// hour is nothing and what waits for ever is seen to.
func TestMochiEngine(t *testing.T) {
	serve := func(t *testing.T) (*mqtt.Server, net.Conn) {
		s := mqtt.New(&mqtt.Options{Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), InlineClient: true})
		if err := s.AddHook(new(failing), nil); err != nil {
			t.Fatal(err)
		}
		if err := s.Serve(); err != nil {
			t.Fatal(err)
		}
		client, server := net.Pipe()
		go s.EstablishConnection("pipe", server)
		return s, client
	}
	ask := func(t *testing.T, c net.Conn, b []byte, answer ...byte) {
		t.Helper()
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(answer))
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, answer) {
			t.Fatalf("got % x, %v, want % x", got, err, answer)
		}
	}
	hello := connectPacket(connectOptions{id: "a", version: 4, keepAlive: 0})
	v4 := raw{version: 4}
	t.Run("Close waits for strangers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, stranger := serve(t)
			synctest.Wait()
			closed := make(chan struct{})
			go func() { s.Close(); close(closed) }()
			select {
			case <-closed:
				t.Error("Close has returned")
			case <-time.After(time.Hour):
			}
			stranger.Close()
			<-closed
		})
	})
	t.Run("a PUBLISH that failed is acknowledged as stored", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, c := serve(t)
			ask(t, c, hello, 0x20, 2, 0, 0)
			ask(t, c, v4.publishPacket("refused", 7, 0, "x"), 0x40, 2, 0, 7)
			c.Close()
			s.Close()
		})
	})
	t.Run("packet identifiers of both directions are one map", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, c := serve(t)
			ask(t, c, hello, 0x20, 2, 0, 0)
			ask(t, c, packet(0x82, u16(1), str("t"), []byte{1}), 0x90, 3, 0, 1, 1)
			if err := s.Publish("t", []byte("x"), false, 1); err != nil {
				t.Fatal(err)
			}
			ask(t, c, nil, 0x32, 6, 0, 1, 't', 0, 1, 'x') // it is not acknowledged
			client, _ := s.Clients.Get("a")
			before := client.State.Inflight.Len()
			ask(t, c, v4.publishPacket("other", 1, 0, "y"), 0x40, 2, 0, 1)
			synctest.Wait()
			if after := client.State.Inflight.Len(); before != 1 || after != 0 {
				t.Errorf("%d messages in flight became %d: it is not forgotten", before, after)
			}
			c.Close()
			s.Close()
		})
	})
}
