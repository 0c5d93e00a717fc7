package mqttfront

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/packetboat/packetboat/pkg/stream"
)

// Each limit of the table can be hit, and is counted under its name.
func TestLimits(t *testing.T) {
	hits := map[string]struct {
		o   Options
		hit func(t *testing.T, s *server)
	}{
		"clients": {Options{MaxClients: 1}, func(t *testing.T, s *server) {
			connect(t, s.addr, connectOptions{id: "a"})
			dial(t, s.addr).send2(connectPacket(connectOptions{id: "b"}))
		}},
		"strangers": {Options{MaxClients: 1}, func(t *testing.T, s *server) {
			for range 17 {
				dial(t, s.addr)
			}
		}},
		"stranger_bytes": {Options{}, func(t *testing.T, s *server) {
			b := connectPacket(connectOptions{id: "half", user: strings.Repeat("u", 60_000), password: strings.Repeat("p", 60_000)})
			for range 2 * maxStrangerBytes / len(b) {
				dial(t, s.addr).send2(b[:len(b)-1])
			}
		}},
		"connect_size": {Options{}, func(t *testing.T, s *server) { dial(t, s.addr).send2([]byte{0x10, 0xff, 0xff, 0x7f}) }},
		"connect_time": {Options{ConnectTimeout: 20 * time.Millisecond}, func(t *testing.T, s *server) { dial(t, s.addr) }},
		"hello_bytes": {Options{}, func(t *testing.T, s *server) {
			for i := range maxHelloBytes/60_000 + 2 {
				dial(t, s.addr).send2(connectPacket(connectOptions{id: fmt.Sprint(i), willTopic: "w", will: strings.Repeat("x", 62_000)}))
			}
		}},
		"lingering": {Options{MaxClients: 1}, func(t *testing.T, s *server) {
			for range 20 {
				c := dial(t, s.addr)
				c.send2([]byte{typePingreq << 4, 0})
				c.expectEnd()
			}
		}},
		"packet_size": {Options{MaxPacketSize: 100}, func(t *testing.T, s *server) {
			c := connect(t, s.addr, connectOptions{id: "a"})
			c.publish("t", 1, strings.Repeat("x", 100))
		}},
		"control_size": {Options{}, func(t *testing.T, s *server) {
			connect(t, s.addr, connectOptions{id: "a"}).send([]byte{typeSubscribe<<4 | 2, 0xff, 0xff, 0x7f})
		}},
		"keep_alive": {Options{MaxKeepAlive: 9 * time.Second}, func(t *testing.T, s *server) { connect(t, s.addr, connectOptions{id: "a", keepAlive: 10}) }},
		"receive_maximum": {Options{MaxInflightMessages: 1}, func(t *testing.T, s *server) {
			s.h.publish = s.h.hold
			c := connect(t, s.addr, connectOptions{id: "a"})
			c.publish("t", 1, "x")
			c.publish("t", 2, "x")
		}},
		"inflight": {Options{MaxInflightMessages: 1}, func(t *testing.T, s *server) {
			s.h.publish = s.h.hold
			c := connect(t, s.addr, connectOptions{id: "a", version: 4})
			c.publish("t", 1, "x")
			c.publish("t", 2, "x")
		}},
		"inflight_total": {Options{MaxTotalBytes: 500}, func(t *testing.T, s *server) {
			s.h.publish = s.h.hold
			c := connect(t, s.addr, connectOptions{id: "a", version: 4})
			c.publish("t", 1, "x")
			c.publish("t", 2, "x")
		}},
		"partial": {Options{MaxTotalBytes: 1, MaxPacketSize: 100_000}, func(t *testing.T, s *server) {
			for i := range 6 {
				c := connect(t, s.addr, connectOptions{id: fmt.Sprint(i)})
				c.send2(c.publishPacket("t", 1, 0, strings.Repeat("x", 99_000))[:98_000])
			}
		}},
		"packet_time": {Options{}, func(t *testing.T, s *server) {
			connect(t, s.addr, connectOptions{id: "a", keepAlive: 1}).send([]byte{typePublish << 4})
		}},
		"topic_memory": {Options{}, func(t *testing.T, s *server) {
			for i := range maxTopicMemory/50_000 + 2 {
				connect(t, s.addr, connectOptions{id: fmt.Sprint(i)}).publish(strings.Repeat("x", 60_000), 0, "x", propTopicAlias, 0, 1)
			}
		}},
		"unreleased": {Options{MaxInflightMessages: 1}, func(t *testing.T, s *server) {
			c := connect(t, s.addr, connectOptions{id: "a", version: 4})
			for i := range 3 {
				c.send2(c.qos2(i+1, "x", 0))
			}
		}},
		"unreleased_bytes": {Options{MaxQueuedBytes: 5000, FanOut: true}, func(t *testing.T, s *server) {
			connect(t, s.addr, connectOptions{id: "s"}).subscribe(1, "t", 0)
			c := connect(t, s.addr, connectOptions{id: "a"})
			for i := range 3 {
				c.send2(c.qos2(i+1, strings.Repeat("x", 2500), 0))
			}
		}},
		"alias": {Options{}, func(t *testing.T, s *server) {
			connect(t, s.addr, connectOptions{id: "a"}).publish("t", 0, "x", propTopicAlias, 0, maxAliases+1)
		}},
		"alias_bytes": {Options{}, func(t *testing.T, s *server) {
			c := connect(t, s.addr, connectOptions{id: "a"})
			for i := range byte(2) {
				c.publish(strings.Repeat("x", 40_000), 0, "x", propTopicAlias, 0, i+1)
			}
		}},
		"write_time":  {Options{WriteTimeout: 20 * time.Millisecond, MaxInflightMessages: 60000, MaxInflightBytes: 1 << 30}, func(t *testing.T, s *server) { neverReads(t, s, 60_000) }},
		"write_queue": {Options{WriteTimeout: time.Minute}, func(t *testing.T, s *server) { neverReads(t, s, 1000) }},
		"sessions": {Options{MaxSessions: 1}, func(t *testing.T, s *server) {
			connect(t, s.addr, persistent)
			o := persistent
			o.id = "other"
			dial(t, s.addr).send2(connectPacket(o))
		}},
		"session_expiry": {Options{MaxSessionExpiry: time.Second}, func(t *testing.T, s *server) { connect(t, s.addr, persistent) }},
		"waiting_wills": {Options{}, func(t *testing.T, s *server) {
			for i := range maxWaitingWillBytes/60_000 + 2 {
				o := persistent
				o.id, o.willTopic, o.will, o.willProps = fmt.Sprint(i), "w", strings.Repeat("x", 60_000), []byte{propWillDelay, 0, 0, 0, 60}
				connect(t, s.addr, o).Close()
			}
		}},
		"subscriptions": {Options{FanOut: true, MaxSubscriptions: 1}, func(t *testing.T, s *server) {
			c := connect(t, s.addr, connectOptions{id: "a"})
			c.subscribe(1, "a", 0)
			c.subscribe(2, "b", 0)
		}},
		"filter": {Options{FanOut: true}, func(t *testing.T, s *server) {
			c := connect(t, s.addr, connectOptions{id: "a"})
			for i := range 5 {
				c.subscribe(1, fmt.Sprint(i)+strings.Repeat("x", 60_000), 0)
			}
		}},
		"topic_levels": {Options{FanOut: true, MaxTopicLevels: 3}, func(t *testing.T, s *server) { connect(t, s.addr, connectOptions{id: "a"}).subscribe(1, "a/b/c/d", 0) }},
		"filter_levels": {Options{FanOut: true, MaxTopicLevels: 60_000, MaxSubscriptions: 60_000}, func(t *testing.T, s *server) {
			c := connect(t, s.addr, connectOptions{id: "a"})
			for i := range 3 {
				c.subscribe(1, fmt.Sprint(i)+strings.Repeat("/", 30_000), 0)
			}
		}},
		"fan_out_queue": {Options{FanOut: true, MaxPacketSize: 16 << 20, MaxInflightBytes: 1 << 30, MaxTotalBytes: 1 << 30}, func(t *testing.T, s *server) {
			connect(t, s.addr, connectOptions{id: "s"}).subscribe(1, "other", 0)
			connect(t, s.addr, connectOptions{id: "a"}).publish("t", 0, strings.Repeat("x", 9<<20))
		}},
		"queued_messages": {Options{FanOut: true, MaxQueuedMessages: 1}, func(t *testing.T, s *server) {
			c := connect(t, s.addr, persistent)
			c.subscribe(1, "t", 1)
			c.disconnect()
			p := connect(t, s.addr, connectOptions{id: "p"})
			for i := range 3 {
				p.publish("t", i+1, "x")
			}
		}},
		"queued_bytes": {Options{FanOut: true, MaxQueuedBytes: 20_000}, func(t *testing.T, s *server) {
			c := connect(t, s.addr, persistent)
			c.subscribe(1, "t", 1)
			c.disconnect()
			p := connect(t, s.addr, connectOptions{id: "p"})
			for i := range 5 {
				p.publish("t", i+1, strings.Repeat("x", 9000))
			}
		}},
		"retained": {Options{FanOut: true, MaxRetained: 1}, func(t *testing.T, s *server) {
			p := connect(t, s.addr, connectOptions{id: "p"})
			for i := range 2 {
				p.send(p.publishPacket(fmt.Sprint(i), 0, flagRetain, "x"))
			}
		}},
		"retained_bytes": {Options{FanOut: true, MaxRetainedBytes: 2000}, func(t *testing.T, s *server) {
			p := connect(t, s.addr, connectOptions{id: "p"})
			p.send(p.publishPacket("t", 0, flagRetain, strings.Repeat("x", 3000)))
		}},
		"peer_packet": {Options{FanOut: true}, func(t *testing.T, s *server) {
			c := connect(t, s.addr, connectOptions{id: "a", props: []byte{propMaxPacketSize, 0, 0, 0, 50}})
			c.subscribe(1, "t", 0)
			c.publish("t", 0, strings.Repeat("x", 60))
		}},
	}
	table := LimitTable()
	for _, info := range table {
		t.Run(info.Name, func(t *testing.T) {
			h, ok := hits[info.Name]
			if !ok {
				t.Fatal("nobody knows how to hit it")
			}
			s := start(t, newFake(), h.o)
			if n := s.Stats().Limits[info.Name]; n != 0 {
				t.Fatalf("counted %d before anything happened", n)
			}
			h.hit(t, s)
			eventually(t, "the hit is counted", func() bool { return s.Stats().Limits[info.Name] > 0 })
			if info.Bounds == "" || info.Default == "" || info.Then == "" || info.Why == "" {
				t.Errorf("%+v says too little", info)
			}
		})
	}
	if len(hits) != len(table) {
		t.Errorf("%d limits are hit, the table has %d", len(hits), len(table))
	}
}

// neverReads is a client that sends so many messages, and then PINGREQs for as
// long as it can, and does not read.
func neverReads(t *testing.T, s *server, messages int) {
	big := []stream.Property{{Key: "k", Value: strings.Repeat("v", 60000)}}
	s.h.publish = func(_ *fakeSession, _ *Publish, settle Settle) { settle(Result{User: big}) }
	c := connect(t, s.addr, connectOptions{id: "a"})
	if err := c.Conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	b := []byte(strings.Repeat(string([]byte{typePingreq << 4, 0}), 1000))
	go func() {
		for i := 1; ; i++ {
			b := b
			if i < messages {
				b = c.publishPacket("t", i, 0, "x")
			}
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	}()
}
