package hostile

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// connects break what is said about connecting.
var connects = []Behaviour{
	{Name: "connect-flood", Breaks: "hundreds of clients that connect and leave at once", Legal: true, run: connectFlood},
	{Name: "same-id-flood", Breaks: "one client id from hundreds of connections", Legal: true, run: sameID},
	{Name: "wrong-passwords", Breaks: "hundreds of names and passwords that are wrong", run: wrongPasswords},
	{Name: "second-connect", Breaks: "a second CONNECT on a connection [MQTT-3.1.0-2]", run: each(func(t *tally, v byte) [][]byte {
		again := hello{id: t.id(0) + "b", version: v, user: t.t.Username, pass: t.t.Password}
		return [][]byte{again.packet(), slices.Concat([]byte{pingreq, 0}, again.packet())}
	})},
	{Name: "no-connect", Breaks: "a first packet that is no CONNECT [MQTT-3.1.0-1]", run: noConnect},
	{Name: "bad-connect", Breaks: "CONNECT with reserved flags, foreign names and versions", run: badConnect},
	{Name: "giant-will", Breaks: "wills and properties as large as a CONNECT can be", run: giantWill},
	{Name: "connection-churn", Breaks: "connections that are opened and reset without a byte", Legal: true, run: churn},
}

const flood = 300 // connections of one pass

func connectFlood(ctx context.Context, t *tally) {
	many(ctx, flood, 32, func(i int) {
		t.attempt(1)
		c, err := t.enter(ctx, hello{id: t.id(i), version: byte(4 + i%2)})
		if err != nil {
			return
		}
		t.answer("CONNACK 0x00")
		c.close()
	})
}

func sameID(ctx context.Context, t *tally) {
	many(ctx, flood, 16, func(i int) {
		t.attempt(1)
		c, err := t.enter(ctx, hello{id: t.id(0), version: byte(4 + i%2), persistent: i%3 == 0})
		if err != nil {
			return
		}
		defer c.close()
		if i%4 == 0 { // stays until somebody else comes
			c.listen(t.t.Patience/4, 1)
		}
	})
}

func wrongPasswords(ctx context.Context, t *tally) {
	many(ctx, flood, 16, func(i int) {
		c, err := t.open(ctx, t.t.Dial)
		if err != nil {
			return
		}
		defer c.close()
		t.attempt(1)
		user := t.t.Username
		if user == "" || i%2 == 0 {
			user = fmt.Sprintf("nobody-%d", i)
		}
		c.version = byte(4 + i%2)
		h := hello{id: t.id(i), version: c.version, user: user, pass: strings.Repeat("x", 1+i)}
		if err := c.send(h.packet()); err != nil {
			t.answer(ending(err))
			return
		}
		c.hear()
	})
}

// strangers sends each case on a connection of its own that says nothing else.
func (t *tally) strangers(ctx context.Context, cases [][]byte) {
	many(ctx, len(cases), 8, func(i int) {
		c, err := t.open(ctx, t.t.Dial)
		if err != nil {
			return
		}
		defer c.close()
		t.attempt(1)
		if err := c.send(cases[i]); err != nil {
			t.answer(ending(err))
		}
		c.hear()
	})
}

func noConnect(ctx context.Context, t *tally) {
	t.strangers(ctx, [][]byte{
		{pingreq, 0}, message(4, 0, "a", 0, nil, nil), message(4, 2, "a", 1, nil, nil), ask(4, 1, 1, "#"), {disconnect, 0},
		packet(connack, []byte{0, 0}), packet(auth), []byte("GET / HTTP/1.1\r\nHost: edge\r\n\r\n"), []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
	})
}

func badConnect(ctx context.Context, t *tally) {
	good := hello{id: t.id(0), version: 5, user: t.t.Username, pass: t.t.Password}
	change := func(at int, b byte) []byte { // of the variable header
		p := good.packet()
		p[headAt(p)+at] = b
		return p
	}
	t.strangers(ctx, [][]byte{
		change(7, 0x03),                // reserved flag
		change(7, 0x1A),                // QoS 3 will
		change(7, 0x40),                // a password without a name (MQTT 5 allows it, and then there is none)
		change(6, 9),                   // a version to come
		change(6, 0),                   // none
		change(2, 'X'),                 // another protocol
		change(1, 200),                 // a name beyond the packet
		packet(connect),                // nothing
		packet(connect|1, str("MQTT")), // reserved bits
		(&hello{version: 4, persistent: true}).packet(),                                                                // no id and a session [MQTT-3.1.3-8]
		(&hello{id: "x", version: 5, extra: []byte{0x21, 0, 0}}).packet(),                                              // Receive Maximum 0
		(&hello{id: "x", version: 5, extra: []byte{0x27, 0, 0, 0, 0}}).packet(),                                        // Maximum Packet Size 0
		(&hello{id: "x", version: 5, extra: []byte{0x21, 0, 9, 0x21, 0, 9}}).packet(),                                  // twice
		(&hello{id: "x", version: 5, extra: append([]byte{0x15}, str("PLAIN")...)}).packet(),                           // a method nobody knows
		(&hello{id: "x", version: 5, extra: append([]byte{0x16}, str("data")...)}).packet(),                            // data without a method
		(&hello{id: "x", version: 5, willTopic: "a/#", will: []byte("w")}).packet(),                                    // a will for a filter
		(&hello{id: "x", version: 5, willTopic: "$SYS/broker", will: []byte("w")}).packet(),                            // and for the server's topics
		(&hello{id: strings.Repeat("i", 65535), version: 4}).packet(),                                                  // all of an id
		(&hello{id: "a\x00b", version: 4}).packet(), (&hello{id: "a\xffb", version: 5}).packet(), change(8, 0xFF)[:20], // rubbish
	})
}

// headAt is where the variable header of a packet begins.
func headAt(p []byte) int {
	at := 2
	for p[at-1]&128 != 0 {
		at++
	}
	return at
}

func giantWill(ctx context.Context, t *tally) {
	var list [][]byte
	for _, size := range []int{60_000, 65_535} {
		for _, v := range []byte{4, 5} {
			h := hello{id: t.id(int(v)), version: v, user: t.t.Username, pass: t.t.Password, willTopic: t.t.Topic + "/will", will: make([]byte, size), willFlags: 0x28}
			list = append(list, h.packet())
		}
	}
	for _, n := range []int{1000, 20_000} {
		h := hello{id: t.id(n), version: 5, user: t.t.Username, pass: t.t.Password}
		for i := range n {
			h.extra = append(h.extra, userProperty(fmt.Sprint(i), "v")...)
		}
		list = append(list, h.packet())
	}
	one := hello{id: t.id(1), version: 5, user: t.t.Username, pass: t.t.Password, extra: userProperty(strings.Repeat("k", 65535), strings.Repeat("v", 65535))}
	t.strangers(ctx, append(list, one.packet()))
}

func churn(ctx context.Context, t *tally) {
	many(ctx, 2*flood, 16, func(int) {
		c, err := t.open(ctx, t.t.Dial)
		if err != nil {
			return
		}
		t.attempt(1)
		c.reset()
	})
}
