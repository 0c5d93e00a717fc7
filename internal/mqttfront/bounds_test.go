package mqttfront

import (
	"fmt"
	"strings"
	"testing"
)

// The topics behind a connection's aliases are bounded in bytes.
func TestAliasBytes(t *testing.T) {
	s := start(t, newFake(), Options{})
	c := connect(t, s.addr, connectOptions{id: "a"})
	for i := range 3 { // setting one anew costs nothing
		c.publish(strings.Repeat("x", 40_000), i+1, "", propTopicAlias, 0, 1)
		c.expectAck(i+1, 0)
	}
	c.publish(strings.Repeat("y", 40_000), 4, "", propTopicAlias, 0, 2)
	c.expectDisconnect(QuotaExceeded)
}

// The topics that a connection remembers are bounded in bytes.
func TestTopicBytes(t *testing.T) {
	var r reader
	for i := range 2000 {
		topic := fmt.Sprint(i, strings.Repeat("x", i%600))
		for range 2 {
			if got, err := r.topic([]byte(topic)); err != nil || got != topic {
				t.Fatalf("topic %q: %v", got, err)
			}
		}
		n := 0
		for topic := range r.topics {
			n += len(topic)
		}
		if n != r.topicBytes || n > maxTopicBytes || len(r.topics) > maxTopics {
			t.Fatalf("%d topics of %d bytes, counted %d", len(r.topics), n, r.topicBytes)
		}
	}
}

// What all connections remember of topics is bounded, is given back, and leaves
// each room for aliases of its own.
func TestTopicMemory(t *testing.T) {
	var memory topicMemory
	var all []*reader
	for memory.bytes.Load() < maxTopicMemory-maxTopicBytes {
		r := &reader{memory: &memory}
		all = append(all, r)
		for i := range maxTopics {
			if _, err := r.topic([]byte(fmt.Sprint(i, strings.Repeat("x", 50)))); err != nil {
				t.Fatal(err)
			}
		}
	}
	late := &reader{memory: &memory}
	all = append(all, late)
	for i := range maxTopics {
		topic := fmt.Sprint(i, strings.Repeat("x", 400))
		if got, err := late.topic([]byte(topic)); err != nil || got != topic {
			t.Fatalf("topic %q: %v", got, err)
		}
	}
	if n := memory.bytes.Load(); n > maxTopicMemory || !late.crowded {
		t.Errorf("%d bytes remembered", n)
	}
	for i := range uint16(maxAliases) {
		if _, err := late.resolve([]byte(fmt.Sprint(i, strings.Repeat("a", 50))), &publishProps{hasAlias: true, alias: i + 1}); err != nil {
			t.Fatalf("alias %d: %v", i+1, err)
		}
	}
	for _, r := range all {
		r.forget()
	}
	if n := memory.bytes.Load(); n != 0 {
		t.Errorf("%d bytes are charged for nothing", n)
	}
}

// Large CONNECTs of clients that are not let in yet are bounded together, and
// the room comes back.
func TestStrangersAreBounded(t *testing.T) {
	s := start(t, newFake(), Options{})
	held := func() int64 { _, bytes := s.strangers.count(); return bytes }
	half := connectPacket(connectOptions{id: "half", user: strings.Repeat("u", 60_000), password: strings.Repeat("p", 60_000)})
	half = half[:len(half)-1]
	var all []*raw
	for s.Stats().Limits["stranger_bytes"] == 0 {
		if len(all) > 2*maxStrangerBytes/len(half) {
			t.Fatal("no bound")
		}
		c := dial(t, s.addr)
		all = append(all, c)
		c.send2(half)
		n := int64(len(all))
		eventually(t, "the connection is there", func() bool { return s.Stats().Accepted == n })
	}
	if n := held(); n > maxStrangerBytes+2*maxConnect {
		t.Errorf("%d bytes of strangers", n)
	}
	for _, c := range all {
		c.Close()
	}
	eventually(t, "the room is back", func() bool { return held() == 0 })
	c := dial(t, s.addr)
	if code, _ := c.connect(connectOptions{id: "a", user: strings.Repeat("u", 60_000)}); code != 0 {
		t.Errorf("CONNACK 0x%02x", code)
	}
	eventually(t, "one that is let in is no stranger", func() bool { return held() == 0 })
}
