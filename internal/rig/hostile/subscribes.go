package hostile

import (
	"context"
	"fmt"
	"slices"
)

// acknowledgements break the order of answers.
var acknowledgements = []Behaviour{
	{Name: "qos2-order", Breaks: "PUBREL before PUBLISH, PUBREC for nothing, PUBCOMP first [MQTT-4.3.3]", run: each(func(t *tally, v byte) [][]byte {
		two := message(v, 4, t.t.Topic+"/two", 5, nil, []byte("x"))
		return [][]byte{
			packet(pubrel, u16(5)), packet(pubrec, u16(9)), packet(pubcomp, u16(9)), packet(pubrel, u16(0)), packet(pubrel&0xF0, u16(5)),
			slices.Concat(packet(pubrel, u16(5)), two, packet(pubrel, u16(5)), packet(pubrel, u16(5))),
			slices.Concat(two, packet(pubcomp, u16(5)), packet(pubrel, u16(5))), slices.Concat(two, packet(pubrec, u16(5))),
		}
	})},
	{Name: "acks-for-nothing", Breaks: "thousands of acknowledgements of what was never sent [MQTT-4.3.2-5]", run: each(func(_ *tally, v byte) [][]byte {
		var acks, recs, comps []byte
		for id := range 5000 {
			acks, recs, comps = append(acks, packet(puback, u16(id))...), append(recs, packet(pubrec, u16(id+1))...), append(comps, packet(pubcomp, u16(id+1))...)
		}
		return [][]byte{acks, recs, comps, packet(puback), packet(puback, []byte{1}), packet(puback|2, u16(1)), packet(puback, u16(1), []byte{0x55, 9, 9})}
	})},
	{Name: "servers-packets", Breaks: "packets that only a server sends, and packets that do not exist", run: each(func(t *tally, v byte) [][]byte {
		return [][]byte{
			packet(connack, []byte{0, 0}), packet(suback, u16(1), []byte{0}), packet(unsuback, u16(1)), {pingresp, 0}, {0, 0}, {pingreq, 1, 0},
			{pingreq | 5, 0}, packet(auth, []byte{0x18, 0}), packet(disconnect | 1), packet(disconnect, []byte{4, 5, 0x11, 0, 0, 0, 9}),
		}
	})},
}

// subscriptions break what is said about subscribing.
var subscriptions = []Behaviour{
	{Name: "subscribe-everything", Breaks: "everything, thousands of filters, all of it shared", Legal: true, run: everything},
	{Name: "bad-subscribe", Breaks: "no filter, bad filters and options, id 0 [MQTT-3.8.3-2, 4.7.1]", run: each(func(t *tally, v byte) [][]byte {
		list := [][]byte{
			ask(v, 0, 1, "a"), ask(v, 1, 1), ask(v, 1, 3, "a"), ask(v, 1, 0xC1, "a"), ask(v, 1, 1, "a/#/b"), ask(v, 1, 1, "a#"), ask(v, 1, 1, "+a/b"),
			ask(v, 1, 1, ""), packet(subscribe&0xF0, u16(1), str("a"), []byte{1}), packet(unsubscribe, u16(1)), packet(unsubscribe&0xF0, u16(1), str("a")),
			ask(v, 1, 1, "$SYS/#", "$share/g", "$share//t", "$share/+/t"), packet(subscribe, u16(1), str("a")),
		}
		if v == 5 {
			list = append(list, ask(5, 1, 0x31, "a"), ask(5, 1, 0x05, "$share/g/a"), packet(subscribe, u16(1), []byte{2, 0x0B, 0}, str("a"), []byte{1}))
		}
		return list
	})},
	{Name: "never-reads", Breaks: "subscribers to everything that never read", Legal: true, run: neverReads},
	{Name: "never-acknowledges", Breaks: "QoS 1 and 2 subscribers that never acknowledge", Legal: true, run: neverAcknowledges},
}

func everything(ctx context.Context, t *tally) {
	many(ctx, 4, 4, func(i int) {
		c, err := t.enter(ctx, hello{id: t.id(i), version: byte(4 + i%2), keepAlive: 30})
		if err != nil {
			return
		}
		defer c.close()
		packets := [][]byte{ask(c.version, 1, 0, "#", "+/#", "+/+/#", "$SYS/#", "$share/g/#", "$share/h/+/#")}
		for n := range 30 {
			var filters []string
			for f := range 100 {
				filters = append(filters, fmt.Sprintf("%s/%d/+/%d/#", t.t.Topic, n, f))
			}
			packets = append(packets, ask(c.version, n+2, 0, filters...))
		}
		t.attempt(len(packets))
		if err := c.send(packets...); err != nil {
			t.answer("writing: " + ending(err))
		}
		c.hear()
	})
}

// neverReads asks for its own large messages and reads none of them.
func neverReads(ctx context.Context, t *tally) {
	many(ctx, 4, 4, func(i int) {
		c, err := t.enter(ctx, hello{id: t.id(i), version: byte(4 + i%2), keepAlive: 10})
		if err != nil {
			return
		}
		defer c.close()
		t.attempt(1)
		topic := fmt.Sprintf("%s/unread/%d", t.t.Topic, i)
		if err := c.send(ask(c.version, 1, byte(i%3), topic)); err != nil {
			t.answer("writing: " + ending(err))
			return
		}
		p, err := t.enter(ctx, hello{id: t.id(i) + "p", version: 4, keepAlive: 10})
		if err != nil {
			return
		}
		defer p.close()
		big := message(4, 0, topic, 0, nil, make([]byte, 32<<10))
		for range 200 { // 6 MB for each: more than sockets hold
			if err := p.send(big); err != nil {
				t.answer("publisher writing: " + ending(err))
				return
			}
		}
		p.listen(t.t.Patience, 10)
		if !wait(ctx, t.t.Patience) {
			return
		}
		c.listen(t.t.Patience/2, 1000) // whatever is left: the server's patience may have ended first
	})
}

// neverAcknowledges reads, and leaves everything unanswered.
func neverAcknowledges(ctx context.Context, t *tally) {
	many(ctx, 4, 4, func(i int) {
		c, err := t.enter(ctx, hello{id: t.id(i), version: byte(4 + i%2), keepAlive: 10})
		if err != nil {
			return
		}
		defer c.close()
		t.attempt(1)
		topic := fmt.Sprintf("%s/unanswered/%d", t.t.Topic, i)
		stream := ask(c.version, 1, byte(1+i/2%2), topic)
		for n := range 3000 {
			stream = append(stream, message(c.version, 2, topic, n%60_000+1, nil, make([]byte, 100))...)
		}
		if err := c.send(stream); err != nil {
			t.answer("writing: " + ending(err))
		}
		c.listen(t.t.Patience, 10_000)
	})
}
