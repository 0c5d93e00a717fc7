package mqttfront

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/packetboat/packetboat/pkg/stream"
)

// Where QoS 2 is not spoken it is refused in the client's own words, never
// half-served.
func TestMaxQoS1(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{MaxQoS: 1})
	qos2 := func(c *raw) []byte {
		b := append(str("t"), u16(1)...)
		if c.version == 5 {
			b = append(b, 0)
		}
		return packet(0x34, b, []byte("x"))
	}
	c := dial(t, s.addr)
	if _, body := c.connect(connectOptions{id: "a"}); !bytes.Contains(body, []byte{0x24, 1}) {
		t.Errorf("CONNACK % x does not say Maximum QoS 1", body)
	}
	c.send(qos2(c))
	c.expectDisconnect(QoSNotSupported)
	c = connect(t, s.addr, connectOptions{id: "a", version: 4})
	c.send(qos2(c))
	c.expectEnd()
	for version, want := range map[byte]byte{4: 5, 5: QoSNotSupported} {
		c := dial(t, s.addr)
		if code, _ := c.connect(connectOptions{id: "w", version: version, willTopic: "w", will: "x", willFlags: 2 << 3}); code != want {
			t.Errorf("QoS 2 will of version %d: CONNACK 0x%02x, want 0x%02x", version, code, want)
		}
		c.expectEnd()
	}
	if n := s.Stats().ProtocolErrors["qos2"]; n != 2 {
		t.Errorf("counted %d, want 2", n)
	}
	if len(h.session(t, 0).got)+len(h.session(t, 1).got) != 0 {
		t.Error("a QoS 2 message reached the session")
	}
}

// What is below $SYS and $share is not taken, and ends no connection; other
// topics that begin with $ are topics.
func TestReservedTopics(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{})
	for n, version := range []byte{4, 5} {
		c := connect(t, s.addr, connectOptions{id: "a", version: version})
		code := TopicNameInvalid
		if version < 5 {
			code = Success
		}
		for i, topic := range []string{"$SYS/broker", "$share/g/t", "$SYS"} {
			c.publish(topic, 0, "x")
			c.publish(topic, i+1, "x") // in order with what is accepted
			c.publish("$mine/x", 100+i, "x")
			c.expectAck(i+1, code)
			c.expectAck(100+i, Success)
			c.send(c.publishPacket(topic, 200, 4, "x"))
			c.expect(typePubrec << 4)
		}
		c.ping()
		for _, p := range h.session(t, n).messages(t, 3) {
			if p.Topic != "$mine/x" {
				t.Errorf("topic %q reached the session", p.Topic)
			}
		}
	}
	if n := s.Stats().ProtocolErrors["reserved_topic"]; n != 18 {
		t.Errorf("counted %d", n)
	}
}

func TestTopics(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{})
	for _, tc := range []struct {
		version byte
		topic   string
		id      int
		code    byte
	}{
		{5, "a/+/b", 1, TopicNameInvalid}, {5, "#", 0, TopicNameInvalid}, {4, "a/#", 1, 0},
		{5, "", 1, ProtocolError}, {4, "", 1, 0},
		{5, "a\x00b", 1, MalformedPacket}, {5, "\xff", 0, MalformedPacket}, {4, "\xed\xa0\x80", 1, 0},
	} {
		c := connect(t, s.addr, connectOptions{id: "b", version: tc.version})
		c.publish(tc.topic, tc.id, "x")
		if tc.version == 5 {
			c.expectDisconnect(tc.code)
		} else {
			c.expectEnd()
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.sessions {
		for _, p := range s.got {
			t.Errorf("topic %q reached the session", p.Topic)
		}
	}
}

func TestTopicAlias(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{})
	alias := func(n byte) []byte { return []byte{propTopicAlias, 0, n} }
	c := connect(t, s.addr, connectOptions{id: "a"})
	c.publish("one", 1, "x", alias(1)...)
	c.publish("two", 2, "x", alias(maxAliases)...)
	c.publish("", 3, "x", alias(1)...)
	c.publish("", 4, "x", alias(maxAliases)...)
	c.publish("three", 5, "x", alias(1)...) // given anew
	c.publish("", 6, "x", alias(1)...)
	got := ""
	for _, p := range h.session(t, 0).messages(t, 6) {
		got += p.Topic + " "
	}
	if got != "one two one two three three " {
		t.Errorf("topics %q", got)
	}
	for n, code := range map[byte]byte{0: TopicAliasInvalid, maxAliases + 1: TopicAliasInvalid, 9: ProtocolError} {
		c := connect(t, s.addr, connectOptions{id: "b"})
		topic := "t"
		if n == 9 {
			topic = "" // not known on this connection
		}
		c.publish(topic, 1, "x", alias(n)...)
		c.expectDisconnect(code)
	}
}

func TestOversized(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{MaxPacketSize: 50_000})
	for _, version := range []byte{4, 5} {
		c := connect(t, s.addr, connectOptions{id: "a", version: version})
		most := 50_000 - (4 + 2 + 1 + 2) // header, topic, id
		if version == 5 {
			most-- // properties
		}
		c.publish("t", 1, strings.Repeat("x", most))
		c.expectAck(1, 0)
		session := h.session(t, 2*(int(version)-4))
		if got := session.messages(t, 1)[0]; len(got.Payload) != most {
			t.Errorf("%d bytes arrived", len(got.Payload))
		}
		c.send(c.publishPacket("t", 2, 0, strings.Repeat("x", most+1))[:10]) // the header says it
		if version == 5 {
			c.expectDisconnect(PacketTooLarge)
		} else {
			c.expectEnd()
		}
		c = connect(t, s.addr, connectOptions{id: "a", version: version})
		c.send([]byte{typeSubscribe<<4 | 2, 0xff, 0xff, 0x7f}) // 2 MiB
		if version == 5 {
			c.expectDisconnect(PacketTooLarge)
		} else {
			c.expectEnd()
		}
	}
	if n := s.Stats().ProtocolErrors["packet_too_large"]; n != 4 {
		t.Errorf("counted %d", n)
	}
}

func TestMalformed(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{})
	for name, tc := range map[string]struct {
		packet []byte
		code   byte
	}{
		"QoS 3":            {packet(0x36, str("t"), u16(1), []byte{0}), MalformedPacket},
		"DUP with QoS 0":   {packet(0x38, str("t"), []byte{0}), MalformedPacket},
		"id 0":             {packet(0x32, str("t"), u16(0), []byte{0}), ProtocolError},
		"no topic":         {packet(0x30, []byte{0}), MalformedPacket},
		"topic cut":        {packet(0x30, []byte{0, 9, 'x'}), MalformedPacket},
		"no properties":    {packet(0x32, str("t"), u16(1)), MalformedPacket},
		"properties cut":   {packet(0x30, str("t"), []byte{5, 1, 0}), MalformedPacket},
		"property cut":     {packet(0x30, str("t"), []byte{2, 2, 0}), MalformedPacket},
		"unknown property": {packet(0x30, str("t"), []byte{2, 0x7e, 0}), ProtocolError},
		"subscription id":  {packet(0x30, str("t"), []byte{2, 0x0b, 1}), ProtocolError},
		"property twice":   {packet(0x30, str("t"), []byte{4, 1, 1, 1, 1}), ProtocolError},
		"format 2":         {packet(0x30, str("t"), []byte{2, 1, 2}), ProtocolError},
		"length of five":   {[]byte{0x30, 0x80, 0x80, 0x80, 0x80, 1}, MalformedPacket},
		"second CONNECT":   {connectPacket(connectOptions{id: "a"}), ProtocolError},
	} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, s.addr, connectOptions{id: "a"})
			c.send(tc.packet)
			c.expectDisconnect(tc.code)
		})
	}
}

// Bytes arrive as they please.
func TestFragments(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{})
	c := connect(t, s.addr, connectOptions{id: "a"})
	var b []byte
	for i := range 20 {
		b = append(b, c.publishPacket("topic/x", i+1, 0, strings.Repeat("p", i*20))...)
		b = append(b, typePingreq<<4, 0)
	}
	go func() {
		for i := range b {
			if _, err := c.Write(b[i : i+1]); err != nil {
				return
			}
		}
	}()
	acks, pings := 0, 0
	for acks < 20 || pings < 20 {
		switch first, _ := c.read(); first {
		case 0x40:
			acks++
		case 0xD0:
			pings++
		}
	}
	for i, p := range h.session(t, 0).messages(t, 20) {
		if len(p.Payload) != i*20 {
			t.Errorf("message %d has %d bytes", i, len(p.Payload))
		}
	}
}

func TestProperties(t *testing.T) {
	h := newFake()
	s := start(t, h, Options{})
	c := connect(t, s.addr, connectOptions{id: "a"})
	props := []byte{propPayloadFormat, 1, propMessageExpiry, 0, 0, 0, 9}
	props = append(append(props, propContentType), str("json")...)
	props = append(append(props, propResponseTopic), str("r")...)
	props = append(append(props, propCorrelationData), str("\x00\xff")...)
	props = append(props, userProp("a", "1", "a", "2", "", "")...)
	c.publish("t", 1, "x", props...)
	c.publish("t", 2, "x", propMessageExpiry, 0, 0, 0, 9)
	got := h.session(t, 0).messages(t, 2)
	p := got[0].Properties
	want := stream.Properties{ContentType: "json", ResponseTopic: "r", CorrelationData: []byte("\x00\xff"), PayloadUTF8: true,
		User: []stream.Property{{Key: "a", Value: "1"}, {Key: "a", Value: "2"}, {}}}
	if p == nil || p.ContentType != want.ContentType || p.ResponseTopic != want.ResponseTopic || !bytes.Equal(p.CorrelationData, want.CorrelationData) ||
		p.PayloadUTF8 != want.PayloadUTF8 || len(p.User) != 3 || p.User[0] != want.User[0] || p.User[1] != want.User[1] || p.User[2] != want.User[2] {
		t.Errorf("properties %+v, want %+v", p, want)
	}
	if got[1].Properties != nil {
		t.Errorf("properties %+v of a message that has none worth keeping", got[1].Properties)
	}
}

// The log never shows a payload or a password.
func TestLogIsClean(t *testing.T) {
	var mu sync.Mutex
	var log bytes.Buffer
	h := newFake()
	s := start(t, h, Options{FanOut: true, Logger: slog.New(slog.NewTextHandler(lockedWriter{&mu, &log}, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	c := connect(t, s.addr, connectOptions{id: "a", user: "u", password: "hunter2", willTopic: "w", will: "hunter2"})
	c.publish("t", 1, "hunter2")
	c.expectAck(1, 0)
	c.send(connectPacket(connectOptions{id: "a", user: "u", password: "hunter2"})) // mochi logs the packet
	c.expectDisconnect(ProtocolError)
	c = connect(t, s.addr, connectOptions{id: "b"})
	c.send(packet(typeSubscribe<<4|2, u16(1), []byte{0}, str("hunter2/\xff"), []byte{0}))
	c.expectDisconnect(MalformedPacket)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if !strings.Contains(log.String(), "client broke the protocol") {
		t.Errorf("the line is not there:\n%s", log.String())
	}
	if strings.Contains(log.String(), "hunter2") || strings.Contains(log.String(), "104 117 110") {
		t.Errorf("the log tells:\n%s", log.String())
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	b  *bytes.Buffer
}

func (w lockedWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(b)
}
