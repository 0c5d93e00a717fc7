package mqttfront

import (
	"bytes"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// What is wrong with a CONNECT is told to MQTT 5 clients, and ends older ones
// without a word. [MQTT-3.1.4-1,2] [MQTT-4.13.1-1]
func TestBadConnects(t *testing.T) {
	s := start(t, newFake(), Options{MinVersion: 3, FanOut: true})
	head := func(version, flags byte, props ...byte) []byte {
		b := append(str("MQTT"), version, flags, 0, 60)
		if version == 5 {
			b = append(appendVarint(b, len(props)), props...)
		}
		return b
	}
	id := str("id")
	for name, tc := range map[string]struct {
		packet []byte
		code   int // of CONNACK; -1: none
	}{
		"another protocol":            {packet(0x10, append(str("MQTX"), 4, 2, 0, 60), id), -1}, // [MQTT-3.1.2-1]
		"nothing":                     {packet(0x10), -1},
		"level 6":                     {packet(0x10, append(str("MQTT"), 6, 2, 0, 60), id), 1}, // [MQTT-3.1.2-2]
		"level 3 of MQTT":             {packet(0x10, append(str("MQTT"), 3, 2, 0, 60), id), 1},
		"level 4 of MQIsdp":           {packet(0x10, append(str("MQIsdp"), 4, 2, 0, 60), id), 1},
		"a bridge":                    {packet(0x10, append(str("MQTT"), 0x84, 2, 0, 60), id), 1},
		"header flags":                {packet(0x11, head(5, 2), id), -1}, // [MQTT-2.1.3-1]
		"reserved flag, 4":            {packet(0x10, head(4, 3), id), -1}, // [MQTT-3.1.2-3]
		"reserved flag, 5":            {packet(0x10, head(5, 3), id), MalformedPacketInt},
		"will QoS without will":       {packet(0x10, head(5, 2|8), id), MalformedPacketInt},  // [MQTT-3.1.2-11]
		"will retain without will":    {packet(0x10, head(5, 2|32), id), MalformedPacketInt}, // [MQTT-3.1.2-13]
		"will QoS 3":                  {packet(0x10, head(5, 2|4|24), id, []byte{0}, str("w"), str("x")), MalformedPacketInt},
		"password alone, 4":           {packet(0x10, head(4, 2|0x40), id, str("p")), -1}, // [MQTT-3.1.2-22] of 3.1.1
		"password alone, 5":           {packet(0x10, head(5, 2|0x40), id, str("p")), 0},
		"cut in the id":               {packet(0x10, head(5, 2), []byte{0, 9, 'i'}), MalformedPacketInt},
		"no user name":                {packet(0x10, head(5, 2|0x80), id), MalformedPacketInt}, // [MQTT-3.1.2-17]
		"something after it, 5":       {packet(0x10, head(5, 2), id, []byte{0}), MalformedPacketInt},
		"something after it, 4":       {packet(0x10, head(4, 2), id, []byte{0}), -1},
		"U+0000 in the id":            {packet(0x10, head(5, 2), str("a\x00b")), MalformedPacketInt}, // [MQTT-1.5.4-2]
		"surrogate in the id":         {packet(0x10, head(4, 2), str("\xed\xa0\x80")), -1},           // [MQTT-1.5.4-1]
		"user name is not UTF-8":      {packet(0x10, head(5, 2|0x80), id, str("\xff")), MalformedPacketInt},
		"empty id, 3.1":               {packet(0x10, append(str("MQIsdp"), 3, 2, 0, 60), str("")), 2},
		"empty id, 4, session":        {packet(0x10, head(4, 0), str("")), 2}, // [MQTT-3.1.3-8] of 3.1.1
		"empty id, 4":                 {packet(0x10, head(4, 2), str("")), 0}, // [MQTT-3.1.3-6]
		"empty id, 5, session":        {packet(0x10, head(5, 0), str("")), 0}, // [MQTT-3.1.3-6]
		"Receive Maximum 0":           {packet(0x10, head(5, 2, 0x21, 0, 0), id), ProtocolErrorInt},
		"Maximum Packet Size 0":       {packet(0x10, head(5, 2, 0x27, 0, 0, 0, 0), id), ProtocolErrorInt},
		"Request Problem Info 2":      {packet(0x10, head(5, 2, 0x17, 2), id), ProtocolErrorInt},
		"Request Response Info 2":     {packet(0x10, head(5, 2, 0x19, 2), id), ProtocolErrorInt},
		"expiry twice":                {packet(0x10, head(5, 2, 0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 1), id), ProtocolErrorInt},
		"topic alias in CONNECT":      {packet(0x10, head(5, 2, 0x23, 0, 1), id), MalformedPacketInt}, // 2.2.2.2
		"unknown property":            {packet(0x10, head(5, 2, 0x7f, 1), id), MalformedPacketInt},    // 2.2.2.2
		"property cut":                {packet(0x10, head(5, 2, 0x11, 0), id), MalformedPacketInt},
		"properties cut":              {packet(0x10, append(str("MQTT"), 5, 2, 0, 60, 9)), MalformedPacketInt},
		"authentication data alone":   {packet(0x10, head(5, 2, 0x16, 0, 1, 'x'), id), ProtocolErrorInt},
		"user properties":             {packet(0x10, head(5, 2, userProp("a", "1", "a", "1")...), id), 0},
		"will delay twice":            {packet(0x10, head(5, 2|4), id, []byte{10, 0x18, 0, 0, 0, 1, 0x18, 0, 0, 0, 1}, str("w"), str("x")), ProtocolErrorInt},
		"alias in a will":             {packet(0x10, head(5, 2|4), id, []byte{3, 0x23, 0, 1}, str("w"), str("x")), MalformedPacketInt}, // 2.2.2.2
		"will with format 2":          {packet(0x10, head(5, 2|4), id, []byte{2, 1, 2}, str("w"), str("x")), ProtocolErrorInt},
		"will with wildcard response": {packet(0x10, head(5, 2|4), id, append([]byte{6, 8}, str("a/#")...), str("w"), str("x")), ProtocolErrorInt},
		"will cut":                    {packet(0x10, head(5, 2|4), id, []byte{0}, str("w"), []byte{0, 9, 'x'}), MalformedPacketInt},
		"will without payload, 5":     {packet(0x10, head(5, 2|4), id, []byte{0}, str("w"), str("")), 0},
		"will without payload, 4":     {packet(0x10, head(4, 2|4|16), id, str("w"), str("")), 0},
		"will to $SYS":                {packet(0x10, head(5, 2|4), id, []byte{0}, str("$SYS/x"), str("x")), int(TopicNameInvalid)},
		"will to nothing":             {packet(0x10, head(5, 2|4), id, []byte{0}, str(""), str("x")), int(TopicNameInvalid)},
		"will to a filter":            {packet(0x10, head(4, 2|4), id, str("a/+"), str("x")), 3},
		"enhanced authentication":     {packet(0x10, head(5, 2, append([]byte{0x15}, str("X")...)...), id), int(BadAuthenticationMethod)},
		"a long id":                   {packet(0x10, head(5, 2), bytes.Repeat([]byte{0xff, 0xff}, 1), bytes.Repeat([]byte("i"), 65535)), 0},
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, s.addr)
			c.send(tc.packet)
			if tc.code < 0 {
				c.expectEnd()
				return
			}
			if body := c.expect(0x20); int(body[1]) != tc.code {
				t.Fatalf("CONNACK % x, want 0x%02x", body, tc.code)
			}
			if tc.code != 0 {
				c.expectEnd()
				return
			}
			c.ping()
		})
	}
}

const (
	MalformedPacketInt = int(MalformedPacket)
	ProtocolErrorInt   = int(ProtocolError)

	propWillDelay      = packets.PropWillDelayInterval
	propMaxPacketSize  = packets.PropMaximumPacketSize
	propReceiveMaximum = packets.PropReceiveMaximum
)

// CONNACK has what is needed even when the client takes only small packets, and
// leaves out what does not fit. [MQTT-3.1.2-24] [MQTT-3.2.2-19,20]
func TestConnackFits(t *testing.T) {
	user := userProp("key", "value")
	for limit := range uint32(120) {
		a := connack{version: 5, present: true, limit: limit, receiveMaximum: 9, maxPacket: 9, assignedID: "assigned", reason: "because", user: fromPairs("key", "value")}
		b := a.append(nil)
		first, n, remaining, err := header(b)
		switch {
		case limit > 0 && len(b) > int(limit):
			t.Fatalf("limit %d: % x", limit, b)
		case len(b) == 0 && limit > 0 && limit < 24:
		case err != nil || first != 0x20 || n+remaining != len(b):
			t.Fatalf("limit %d: % x", limit, b)
		case !bytes.Contains(b, []byte("assigned")) || !bytes.Contains(b, []byte{0x21, 0, 9}):
			t.Fatalf("limit %d: % x", limit, b)
		case (limit == 0 || limit > 100) && (!bytes.Contains(b, user) || !bytes.Contains(b, []byte("because"))):
			t.Fatalf("limit %d: % x", limit, b)
		}
	}
}

// A client that takes packets of any size is told so much. A number of 32 bits is
// none of int everywhere.
func TestLargestLimit(t *testing.T) {
	a := connack{version: 5, limit: math.MaxUint32, reason: "because"}
	if b := a.append(nil); !bytes.Contains(b, []byte("because")) {
		t.Errorf("CONNACK % x", b)
	}
	if b := appendAck(nil, typePuback<<4, 5, 1, Success, fromPairs("key", "value"), math.MaxUint32); !bytes.Contains(b, []byte("value")) {
		t.Errorf("PUBACK % x", b)
	}
	s := start(t, newFake(), Options{FanOut: true})
	c := connect(t, s.addr, connectOptions{id: "a", props: []byte{propMaxPacketSize, 0xff, 0xff, 0xff, 0xff}})
	if got := c.subscribe(1, "t", 0); got != 0 {
		t.Errorf("SUBACK 0x%02x", got)
	}
	c.publish("t", 0, "x")
	c.expect(0x30)
}

// An answer that nothing makes shorter stays away when it is too long, and a
// reason is never cut within a character. [MQTT-3.1.2-24] [MQTT-1.5.4-1]
func TestAnswersFit(t *testing.T) {
	for limit, want := range map[uint32]int{0: 45, 45: 45, 44: 0} {
		c := &conn{version: 5, peerPacket: limit}
		if b := c.ackOfFilters(typeSuback, 1, make([]byte, 40)); len(b) != want {
			t.Errorf("limit %d: SUBACK of %d bytes", limit, len(b))
		}
	}
	long := "x" + strings.Repeat("ü", maxReason)
	a := connack{version: 5, reason: long}
	for _, b := range [][]byte{a.append(nil), appendDisconnect(nil, ServerBusy, long, 0)} {
		if i := bytes.IndexByte(b, packets.PropReasonString); !validString(b[i+3:]) || len(b[i+3:]) != maxReason-1 {
			t.Errorf("% x", b)
		}
	}
	for limit, want := range map[uint32][]byte{0: {0xE0, 6, 0x89, 4, 0x1f, 0, 1, 'r'}, 8: {0xE0, 6, 0x89, 4, 0x1f, 0, 1, 'r'}, 7: {0xE0, 2, 0x89, 0}, 4: {0xE0, 2, 0x89, 0}, 3: nil} {
		if b := appendDisconnect(nil, ServerBusy, "r", limit); !bytes.Equal(b, want) {
			t.Errorf("limit %d: % x", limit, b)
		}
	}
}

// A property is taken where mochi, too, says that it may stand, and nowhere else.
func TestPlacesOfProperties(t *testing.T) {
	values := map[propKind][]byte{kindFlag: {1}, kindTwo: {0, 1}, kindFour: {0, 0, 0, 1}, kindVar: {1}, kindData: str("x"), kindText: str("x"), kindTopic: str("x"), kindPair: {0, 0, 0, 0}}
	for in, at := range map[uint16]byte{
		inWill: packets.WillProperties, inConnect: packets.Connect, inAck: packets.Puback, inSubscribe: packets.Subscribe, inUnsubscribe: packets.Unsubscribe, inDisconnect: packets.Disconnect,
	} {
		for id, rule := range propRules {
			if rule.in == 0 {
				continue
			}
			b := append([]byte{byte(1 + len(values[rule.kind])), byte(id)}, values[rule.kind]...)
			_, theirs := new(packets.Properties).Decode(at, bytes.NewBuffer(b))
			if ours := checkAll(b, in); (ours == nil) != (theirs == nil) {
				t.Errorf("property 0x%02x in packet %d: we say %v, mochi %v", id, at, ours, theirs)
			}
		}
	}
}

// What is said nothing of, and what MQTT 3.1 does not know.
func TestUnsaid(t *testing.T) {
	for want, props := range map[bool][]byte{false: nil, true: {packets.PropRequestProblemInfo, 0}} {
		if h, err := decodeConnect(connectPacket(connectOptions{id: "a", version: 5, props: props})[2:]); err != nil || h.noProblemInfo != want || h.receiveMaximum != 65535 {
			t.Errorf("%+v, %v", h, err)
		}
	}
	for version, want := range map[byte]byte{3: 0, 4: 1} {
		a := connack{version: version, present: true}
		if b := a.append(nil); b[2] != want {
			t.Errorf("version %d: % x", version, b)
		}
	}
}

// Lengths that are claimed and not there cost no memory. Each packet is refused.
func TestClaimsCostNothing(t *testing.T) {
	decode := func(body []byte) {
		if _, err := decodeConnect(body); err == nil {
			t.Errorf("% x is a CONNECT", body)
		}
		for _, first := range []byte{0x82, 0xA2} {
			if _, err := filtersOf(first, body, 5); err == nil {
				t.Errorf("% x is a list of filters", body)
			}
		}
		if _, err := decodeDisconnect(body, 5); err == nil {
			t.Errorf("% x is a DISCONNECT", body)
		}
	}
	for _, body := range [][]byte{
		{0xff, 0xff},
		slices.Concat(str("MQTT"), []byte{5, 2, 0, 60, 0xff, 0xff, 0xff, 0x7f, 0x26, 0xff, 0xff}),
		slices.Concat(str("MQTT"), []byte{5, 2 | 4, 0, 60, 0}, str("id"), []byte{0}, str("w"), []byte{0xff, 0xff, 'x'}),
		{0, 1, 0xff, 0xff, 0xff, 0x7f, 0x26, 0xff, 0xff, 0xff},
		{0, 1, 0, 0xff, 0xff, 't'},
	} {
		const runs = 1000
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range runs {
			decode(body)
		}
		runtime.ReadMemStats(&after)
		if n := (after.TotalAlloc - before.TotalAlloc) / runs; n > 4<<10 {
			t.Errorf("% x costs %d bytes", body, n)
		}
	}
}

// A client that may be told gets the server's keep alive; others keep theirs.
func TestMaxKeepAlive(t *testing.T) {
	s := start(t, newFake(), Options{MaxKeepAlive: 60 * time.Second})
	for _, tc := range []struct {
		version byte
		asked   int
		told    bool
	}{{5, 120, true}, {5, 60, false}, {5, 0, false}, {4, 120, false}} {
		c := dial(t, s.addr)
		_, body := c.connect(connectOptions{id: "a", version: tc.version, keepAlive: tc.asked})
		if got := bytes.Contains(body, []byte{packets.PropServerKeepAlive, 0, 60}); got != tc.told {
			t.Errorf("%+v: CONNACK % x", tc, body)
		}
	}
	if n := s.Stats().Limits["keep_alive"]; n != 1 {
		t.Errorf("counted %d", n)
	}
}

// What comes with CONNECT is handled in order after it. [MQTT-3.1.4-5]
func TestNoWaitForConnack(t *testing.T) {
	s := start(t, newFake(), Options{})
	for _, version := range []byte{4, 5} {
		c := dial(t, s.addr)
		c.version = version
		b := append(connectPacket(connectOptions{id: "a", version: version}), c.publishPacket("t", 1, 0, "x")...)
		c.send(append(b, typePingreq<<4, 0))
		c.expect(0x20)
		for range 2 {
			if first, _ := c.read(); first != typePuback<<4 && first != typePingresp<<4 {
				t.Errorf("got 0x%02x", first)
			}
		}
	}
}

// Packets that no client may send, or with wrong flags, end the connection.
// [MQTT-2.1.3-1] [MQTT-3.1.0-2]
func TestForbiddenPackets(t *testing.T) {
	s := start(t, newFake(), Options{FanOut: true})
	for name, tc := range map[string]struct {
		packet []byte
		code   byte
	}{
		"type 0":            {[]byte{0, 0}, ProtocolError},
		"CONNACK":           {[]byte{0x20, 2, 0, 0}, ProtocolError},
		"SUBACK":            {[]byte{0x90, 3, 0, 1, 0}, ProtocolError},
		"UNSUBACK":          {[]byte{0xB0, 3, 0, 1, 0}, ProtocolError},
		"PINGRESP":          {[]byte{0xD0, 0}, ProtocolError},
		"AUTH":              {packet(0xF0, []byte{0x18, 0}), ProtocolError},                          // [MQTT-4.12.0-7]
		"PUBREL flags":      {[]byte{0x60, 2, 0, 1}, MalformedPacket},                                // [MQTT-3.6.1-1]
		"SUBSCRIBE flags":   {packet(0x80, u16(1), []byte{0}, str("t"), []byte{0}), MalformedPacket}, // [MQTT-3.8.1-1]
		"PINGREQ flags":     {[]byte{0xC1, 0}, MalformedPacket},
		"PINGREQ body":      {[]byte{0xC0, 1, 0}, MalformedPacket},
		"DISCONNECT flags":  {[]byte{0xE1, 0}, MalformedPacket}, // [MQTT-3.14.1-1]
		"DISCONNECT props":  {packet(0xE0, []byte{0, 3, 0x1C, 0, 0}), MalformedPacket},
		"DISCONNECT cut":    {packet(0xE0, []byte{0, 9, 0x1F}), MalformedPacket},
		"PUBREL id 0":       {[]byte{0x62, 2, 0, 0}, ProtocolError},
		"PUBREL short":      {[]byte{0x62, 1, 0}, MalformedPacket},
		"PUBACK properties": {packet(0x40, []byte{0, 1, 0, 4, 0x11, 0, 0, 0}), MalformedPacket},
		"PUBACK too long":   {packet(0x40, []byte{0, 1, 0, 0, 7}), MalformedPacket},
	} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, s.addr, connectOptions{id: "a"})
			c.send(tc.packet)
			c.expectDisconnect(tc.code)
			c = connect(t, s.addr, connectOptions{id: "a", version: 4})
			c.send(tc.packet)
			c.expectEnd()
		})
	}
}
