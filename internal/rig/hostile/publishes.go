package hostile

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// publishes break what is said about messages.
var publishes = []Behaviour{
	{Name: "topic-alias", Breaks: "alias 0, never announced, beyond the maximum, twice [MQTT-3.3.2-8]", run: each(func(t *tally, v byte) [][]byte {
		if v != 5 {
			return nil
		}
		alias := func(n int) []byte { return append([]byte{0x23}, u16(n)...) }
		topic := t.t.Topic + "/alias"
		return [][]byte{
			message(5, 2, topic, 1, alias(0), nil), message(5, 2, "", 1, alias(7), nil), message(5, 2, "", 1, nil, nil),
			message(5, 2, topic, 1, alias(65535), nil), message(5, 0, topic, 0, slices.Concat(alias(1), alias(2)), nil),
		}
	})},
	{Name: "bad-publish", Breaks: "QoS 3, id 0, wildcards and no topic, DUP with QoS 0, properties of other packets", run: each(badPublishes)},
	{Name: "sys-topics", Breaks: "messages to $SYS and $share", run: each(func(t *tally, v byte) [][]byte {
		return [][]byte{
			message(v, 0, "$SYS/broker/uptime", 0, nil, []byte("0")), message(v, 2, "$SYS/broker/uptime", 1, nil, []byte("0")),
			message(v, 3, "$SYS/x", 1, nil, nil), message(v, 2, "$share/g/t", 1, nil, nil), message(v, 2, "$", 1, nil, nil),
		}
	})},
	{Name: "deep-topics", Breaks: "topics and filters of thousands of levels", run: each(func(t *tally, v byte) [][]byte {
		deep := t.t.Topic + strings.Repeat("/a", 5000)
		empty := strings.Repeat("/", 60_000)
		return [][]byte{
			message(v, 3, deep, 1, nil, []byte("x")), message(v, 2, empty, 1, nil, []byte("x")), ask(v, 1, 1, deep), ask(v, 1, 1, empty),
			ask(v, 1, 1, strings.Repeat("+/", 30_000)+"#"),
		}
	})},
	{Name: "too-large", Breaks: "PUBLISH beyond the Maximum Packet Size [MQTT-3.2.2-15]", run: each(func(t *tally, v byte) [][]byte {
		return [][]byte{message(v, 2, t.t.Topic+"/large", 1, nil, make([]byte, 400<<10)), message(v, 0, t.t.Topic+"/large", 0, nil, make([]byte, 4<<20))}
	})},
	{Name: "huge-length", Breaks: "a remaining length of 256 MB, or of five bytes", run: hugeLength},
	{Name: "giant-properties", Breaks: "a PUBLISH of nothing but user properties", run: each(func(t *tally, v byte) [][]byte {
		if v != 5 {
			return nil
		}
		var list [][]byte
		for _, n := range []int{5000, 40_000} {
			var p []byte
			for i := range n {
				p = append(p, userProperty(fmt.Sprint(i), "")...)
			}
			list = append(list, message(5, 2, t.t.Topic+"/props", 1, p, nil))
		}
		return append(list, message(5, 2, t.t.Topic+"/props", 1, userProperty(strings.Repeat("k", 65535), strings.Repeat("v", 65535)), nil))
	})},
	{Name: "reused-ids", Breaks: "packet ids that are in flight already [MQTT-2.2.1-3]", run: each(reusedIDs)},
	{Name: "receive-maximum", Breaks: "more in flight than the server takes [MQTT-3.3.4-9]", run: receiveMaximum},
	{Name: "publish-flood", Breaks: "messages as fast as they go, and the answers are never read", Legal: true, run: publishFlood},
}

func badPublishes(t *tally, v byte) [][]byte {
	topic := t.t.Topic + "/bad"
	list := [][]byte{
		message(v, 6, topic, 1, nil, nil), message(v, 2, topic, 0, nil, nil), message(v, 4, topic, 0, nil, nil),
		message(v, 2, t.t.Topic+"/#", 1, nil, nil), message(v, 2, t.t.Topic+"/+/x", 1, nil, nil), message(v, 8, topic, 0, nil, nil),
		packet(publish), packet(publish|2, str(topic)), packet(publish, u16(500), []byte("short")),
	}
	if v == 4 {
		return append(list, message(4, 2, "", 1, nil, nil))
	}
	return append(list,
		message(5, 2, topic, 1, []byte{0x0B, 1}, nil),                               // a subscription identifier
		message(5, 2, topic, 1, []byte{0x21, 0, 1}, nil),                            // Receive Maximum
		message(5, 2, topic, 1, []byte{0x01, 2}, nil),                               // payload format 2
		message(5, 2, topic, 1, append([]byte{0x08}, str("a/#")...), nil),           // a response to a filter
		message(5, 2, topic, 1, []byte{0x02, 0, 0, 0, 1, 0x02, 0, 0, 0, 1}, nil),    // twice
		packet(publish|2, str(topic), u16(1), []byte{0xFF, 0xFF, 0xFF, 0xFF, 0x7F}), // a property length of five bytes
		packet(publish|2, str(topic), u16(1), []byte{0x7F}, []byte("short")),        // and one beyond the packet
	)
}

func reusedIDs(t *tally, v byte) [][]byte {
	topic := t.t.Topic + "/ids"
	var same, both []byte
	for i := range 200 {
		same = append(same, message(v, 4, topic, 7, nil, fmt.Append(nil, "other ", i))...)
		both = append(both, message(v, 2+byte(i%2)*2, topic, 7, nil, fmt.Append(nil, i))...)
	}
	return [][]byte{same, both, slices.Concat(same[:len(same)/2], ask(v, 7, 1, topic), both)}
}

func hugeLength(ctx context.Context, t *tally) {
	huge := []byte{0xFF, 0xFF, 0xFF, 0x7F}
	megabyte := make([]byte, 1<<20)
	t.strangers(ctx, [][]byte{
		append([]byte{connect}, huge...), slices.Concat([]byte{connect}, huge, str("MQTT"), megabyte), {connect, 0xFF, 0xFF, 0xFF, 0xFF, 1},
		slices.Concat([]byte{publish}, huge, megabyte), {0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF},
	})
	each(func(t *tally, v byte) [][]byte {
		topic := str(t.t.Topic + "/huge")
		return [][]byte{
			slices.Concat([]byte{publish | 2}, huge, topic, u16(1), megabyte, megabyte, megabyte), append([]byte{publish}, huge...),
			slices.Concat([]byte{subscribe}, huge, u16(1)), {publish, 0xFF, 0xFF, 0xFF, 0xFF, 1}, append([]byte{pingreq}, huge...),
		}
	})(ctx, t)
}

// receiveMaximum sends QoS 2 messages and never releases one: they stay in
// flight, however fast the server is.
func receiveMaximum(ctx context.Context, t *tally) {
	each(func(t *tally, v byte) [][]byte {
		var two []byte
		for id := 1; id <= 65535; id++ {
			two = append(two, message(v, 4, t.t.Topic+"/w", id, nil, nil)...)
		}
		return [][]byte{two}
	})(ctx, t)
}

// publishFlood never reads: the server's answers pile up in its sockets.
func publishFlood(ctx context.Context, t *tally) {
	many(ctx, 4, 4, func(i int) {
		c, err := t.enter(ctx, hello{id: t.id(i), version: byte(4 + i%2), keepAlive: 10})
		if err != nil {
			return
		}
		defer c.close()
		if tcp, ok := c.Conn.(interface{ SetReadBuffer(int) error }); ok {
			_ = tcp.SetReadBuffer(4096)
		}
		var block []byte
		at := []int{}
		for j := range 100 {
			at = append(at, len(block))
			block = append(block, message(c.version, 2, t.t.Topic+"/flood", j+1, nil, make([]byte, 200))...)
		}
		idAt := headAt(block) + 2 + len(t.t.Topic+"/flood")
		for n := range 300 {
			for j, a := range at {
				binary.BigEndian.PutUint16(block[a+idAt:], uint16((n*100+j)%65535+1))
			}
			t.attempt(len(at))
			if err := c.send(block); err != nil {
				t.answer("writing: " + ending(err))
				return
			}
		}
		c.listen(t.t.Patience, 100_000)
	})
}
