package mqttfront

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// A SUBSCRIBE or UNSUBSCRIBE that breaks the rules ends the connection, MQTT 5
// with the reason. [MQTT-3.8.1-1] [MQTT-3.8.3-1,2,4,5] [MQTT-3.10.1-1] [MQTT-3.10.3-1,2]
func TestFilterViolations(t *testing.T) {
	s := start(t, newFake(), Options{FanOut: true})
	id := u16(1)
	for name, tc := range map[string]struct {
		five []byte // of MQTT 5, nil: none
		old  []byte // of 3.1.1, likewise
		code byte
	}{
		"no options":              {packet(0x82, id, []byte{0}, str("t")), packet(0x82, id, str("t")), MalformedPacket},
		"no filter":               {packet(0x82, id, []byte{0}), packet(0x82, id), ProtocolError},
		"no filter, UNSUBSCRIBE":  {packet(0xA2, id, []byte{0}), packet(0xA2, id), ProtocolError},
		"nothing":                 {packet(0x82), packet(0x82), MalformedPacket},
		"filter cut":              {packet(0xA2, id, []byte{0, 0, 3, 'x'}), packet(0xA2, id, []byte{0, 3, 'x'}), MalformedPacket},
		"property length of five": {packet(0x82, id, []byte{0x80, 0x80, 0x80, 0x80, 0x80}), nil, MalformedPacket},
		"properties cut":          {packet(0x82, id, []byte{9, 0x26}), nil, MalformedPacket},
		"flags":                   {packet(0x80, id, []byte{0}, str("t"), []byte{0}), packet(0x80, id, str("t"), []byte{0}), MalformedPacket},
		"flags, UNSUBSCRIBE":      {packet(0xA3, id, []byte{0}, str("t")), packet(0xA3, id, str("t")), MalformedPacket},
		"packet identifier 0":     {packet(0x82, u16(0), []byte{0}, str("t"), []byte{0}), packet(0xA2, u16(0), str("t")), ProtocolError},
		"not UTF-8":               {packet(0x82, id, []byte{0}, str("\xff"), []byte{0}), packet(0x82, id, str("\xed\xa0\x80"), []byte{0}), MalformedPacket},
		"U+0000":                  {packet(0xA2, id, []byte{0}, str("a\x00")), packet(0xA2, id, str("a\x00")), MalformedPacket},
		"QoS 3":                   {packet(0x82, id, []byte{0}, str("t"), []byte{3}), packet(0x82, id, str("t"), []byte{3}), ProtocolError},
		"retain handling 3":       {packet(0x82, id, []byte{0}, str("t"), []byte{0x30}), nil, ProtocolError},
		"reserved bits":           {packet(0x82, id, []byte{0}, str("t"), []byte{0x40}), packet(0x82, id, str("t"), []byte{0x04}), MalformedPacket},
		"no local, shared":        {packet(0x82, id, []byte{0}, str("$share/g/t"), []byte{4}), nil, ProtocolError},
		"identifier 0":            {packet(0x82, id, []byte{2, propSubID, 0}, str("t"), []byte{0}), nil, ProtocolError},
		"identifier twice":        {packet(0x82, id, []byte{4, propSubID, 1, propSubID, 1}, str("t"), []byte{0}), nil, ProtocolError},
		"identifier, UNSUBSCRIBE": {packet(0xA2, id, []byte{2, propSubID, 1}, str("t")), nil, MalformedPacket},
		"foreign property":        {packet(0x82, id, []byte{2, propPayloadFormat, 1}, str("t"), []byte{0}), nil, MalformedPacket},
		"one bad of two":          {packet(0x82, id, []byte{0}, str("t"), []byte{0}, str("u"), []byte{0xff}), packet(0x82, id, str("t"), []byte{0}, str("u"), []byte{0xff}), MalformedPacket},
	} {
		t.Run(name, func(t *testing.T) {
			for version, p := range map[byte][]byte{5: tc.five, 4: tc.old} {
				if p == nil {
					continue
				}
				c := connect(t, s.addr, connectOptions{id: name, version: version})
				c.send(p)
				if version == 5 {
					c.expectDisconnect(tc.code)
				} else {
					c.expectEnd()
				}
			}
		})
	}
	if st := s.Stats(); st.ProtocolErrors["panic"] != 0 || st.Subscriptions != 0 {
		t.Errorf("%d panics, %d subscriptions", st.ProtocolErrors["panic"], st.Subscriptions)
	}
}

func TestSubscribeIsAsked(t *testing.T) {
	h := newFake()
	h.allow = func(filter string) bool { return strings.HasPrefix(filter, "own/") }
	s := start(t, h, Options{FanOut: true})
	for _, version := range []byte{4, 5} {
		c := connect(t, s.addr, connectOptions{id: "c", version: version})
		refused := func(code byte) byte {
			if version == 4 {
				return 0x80 // [MQTT-3.9.3-2] of 3.1.1
			}
			return code
		}
		for filter, want := range map[string]byte{
			"own/#": 0, "own/+/x": 0, "own/" + strings.Repeat("x", 65_000): 0,
			"other": refused(NotAuthorized), "#": refused(NotAuthorized), "$SYS/#": refused(NotAuthorized),
			"$share/g/own/#": 0, "$share/g/other": refused(NotAuthorized), "$SHARE/g/other": refused(NotAuthorized),
			"$share/own": refused(TopicFilterInvalid), "$share//own/a": refused(TopicFilterInvalid), "$share/g+/own/a": refused(TopicFilterInvalid), "$share/g/": refused(TopicFilterInvalid),
			"": refused(TopicFilterInvalid), "own/#/x": refused(TopicFilterInvalid), "own/a+": refused(TopicFilterInvalid), "own/a#": refused(TopicFilterInvalid),
			"own" + strings.Repeat("/", 64): refused(QuotaExceeded), "own" + strings.Repeat("/", 63): 0,
		} {
			if got := c.subscribe(3, filter, 0); got != want {
				t.Errorf("version %d, %.40q: SUBACK 0x%02x, want 0x%02x", version, filter, got, want)
			}
		}
	}
	c := connect(t, s.addr, connectOptions{id: "many"})
	for i := range 256 {
		if got := c.subscribe(1, fmt.Sprint("own/", i), 0); got != 0 {
			t.Fatalf("subscription %d: 0x%02x", i, got)
		}
	}
	if got := c.subscribe(1, "own/more", 0); got != QuotaExceeded {
		t.Errorf("one too many: 0x%02x", got)
	}
	if got := c.subscribe(1, "own/3", 0); got != 0 {
		t.Errorf("one it has already: 0x%02x", got)
	}
	for _, l := range []limit{limitSubscriptions, limitTopicLevels} {
		if s.n.limits[l].Load() == 0 {
			t.Errorf("limit %s was hit and not counted", limitTexts[l].name)
		}
	}
}

// Several filters get one answer, in their order; so does UNSUBSCRIBE.
// [MQTT-3.8.4-5,6] [MQTT-3.10.4-4,6] [MQTT-3.9.3-1] [MQTT-3.11.3-1,2]
func TestManyFilters(t *testing.T) {
	s := start(t, newFake(), Options{FanOut: true})
	for _, version := range []byte{4, 5} {
		c := connect(t, s.addr, connectOptions{id: "c", version: version})
		var props []byte
		if version == 5 {
			props = append(appendVarint(nil, len(userProp("k", "v"))), userProp("k", "v")...)
		}
		c.send(packet(0x82, u16(0x1234), props, str("a"), []byte{2}, str("b/#"), []byte{1}, str("#b"), []byte{0}, str("a"), []byte{0}))
		want := []byte{0x12, 0x34, 2, 1, 0x80, 0}
		if version == 5 {
			want = []byte{0x12, 0x34, 0, 2, 1, TopicFilterInvalid, 0}
		}
		if body := c.expect(0x90); !bytes.Equal(body, want) {
			t.Errorf("SUBACK % x, want % x", body, want)
		}
		c.send(packet(0xA2, u16(0xffff), props, str("b/#"), str("unknown"), str("#b"), str("b/#")))
		want = []byte{0xff, 0xff}
		if version == 5 {
			want = []byte{0xff, 0xff, 0, 0, noSubscriptionExisted, TopicFilterInvalid, noSubscriptionExisted}
		}
		if body := c.expect(0xB0); !bytes.Equal(body, want) {
			t.Errorf("UNSUBACK % x, want % x", body, want)
		}
		if n := s.Stats().Subscriptions; n != 1 {
			t.Errorf("%d subscriptions, want 1", n)
		}
		// The last of two options of one filter holds. [MQTT-3.8.4-3]
		c.publish("b/x", 0, "nobody")
		c.publish("a", 1, "x")
		c.expectAck(1, 0)
		c.expect(0x30)
		c.send([]byte{0xE0, 0})
		c.expectEnd()
		eventually(t, "the session is gone", func() bool { return s.Stats().Subscriptions == 0 })
	}
}

// What is granted is the QoS that is spoken here.
func TestGrantedQoS(t *testing.T) {
	s := start(t, newFake(), Options{FanOut: true, MaxQoS: 1})
	c := connect(t, s.addr, connectOptions{id: "c"})
	if got := c.subscribe(1, "t", 2); got != 1 {
		t.Errorf("granted %d", got)
	}
	c.publish("t", 1, "x")
	c.expectAck(1, 0)
	c.expect(0x32)
}

// The filters of all clients are bounded together, and come back.
func TestFiltersAreBounded(t *testing.T) {
	s := start(t, newFake(), Options{FanOut: true})
	deep := strings.Repeat("/", 62)
	code, clients := byte(0), 0
	for ; code != QuotaExceeded; clients++ {
		if clients > 2*maxFilterWeight/64/256 {
			t.Fatal("no bound")
		}
		c := connect(t, s.addr, connectOptions{id: fmt.Sprint("c", clients)})
		for j := 0; j < 256 && code == 0; j++ {
			code = c.subscribe(1, fmt.Sprint(j)+deep, 0)
		}
		defer c.Close()
	}
	if s.n.limits[limitFilterLevels].Load() == 0 {
		t.Error("the limit is not counted")
	}
	s.mu.Lock()
	for c := range s.conns {
		c.wake()
		c.endLost(errEnded)
	}
	s.mu.Unlock()
	eventually(t, "all are gone", func() bool { return s.Stats().Subscriptions == 0 })
	if w := s.local.topics.weight; w != 0 || len(s.local.topics.children) != 0 {
		t.Errorf("weight %d, %d nodes are left", w, len(s.local.topics.children))
	}
}

// Whatever a SUBSCRIBE or UNSUBSCRIBE holds: it is refused, or its filters are
// UTF-8 and their options lawful. What our check passes mochi's decoder takes, and
// there is no filter that was not sent.
func FuzzFilters(f *testing.F) {
	f.Add(byte(0x82), byte(5), append(append(u16(1), 2, propSubID, 7), append(str("a/#"), 1)...))
	f.Add(byte(0xA2), byte(4), append(u16(1), str("$share/g/+")...))
	f.Add(byte(0x82), byte(5), append(append(u16(1), 5, propUser, 0, 0, 0, 0), append(str(""), 0)...))
	f.Fuzz(func(t *testing.T, first, version byte, body []byte) {
		version = 4 + version%2
		kind, least := byte(typeUnsubscribe), 2
		if first&0x80 != 0 {
			kind, least = typeSubscribe, 3
		}
		first = kind<<4 | first&0x0f
		p, err := filtersOf(first, body, version)
		if wrong := checkFilters(first, body, version); (wrong == nil) != (err == nil) {
			t.Fatalf("the check says %v, the decoder %v", wrong, err)
		}
		if err != nil {
			return
		}
		size := 2
		for _, sub := range p.Filters {
			size += least + len(sub.Filter)
			if !validString([]byte(sub.Filter)) || sub.Qos > 2 || sub.RetainHandling > 2 || version < 5 && (sub.NoLocal || sub.RetainAsPublished) ||
				sub.NoLocal && isShared(sub.Filter) || sub.Identifier < 0 || sub.Identifier > maxSubID {
				t.Fatalf("%+v", sub)
			}
			if _, plain := splitShare(sub.Filter); validShare(sub.Filter) && ValidFilter(plain) {
				index := newTopics()
				entered := &subscription{filter: sub.Filter, s: &session{}}
				index.add(entered, nil, 1<<20, nil)
				index.remove(entered)
				if len(index.children)+index.weight+index.root.literals != 0 {
					t.Fatalf("filter %q is left", sub.Filter)
				}
			}
		}
		if size > len(body) || len(p.Filters) == 0 || p.PacketID == 0 {
			t.Fatalf("%d bytes were read from %d: %+v", size, len(body), p)
		}
	})
}
