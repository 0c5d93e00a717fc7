package hostile

import (
	"bytes"
	"context"
	"math/rand/v2"
)

// rubbish is what nobody meant.
var rubbish = []Behaviour{
	{Name: "utf8", Breaks: "strings that are not UTF-8, with U+0000 or surrogates [MQTT-1.5.4-1, 2]", run: each(func(t *tally, v byte) [][]byte {
		var list [][]byte
		for _, s := range []string{"\xff\xfe", "a\x00b", "\xed\xa0\x80", "\xc0\xaf", "\xf8\x88\x80\x80\x80", "ok/\x80", "\xf4\x90\x80\x80"} {
			list = append(list, message(v, 2, s, 1, nil, nil), ask(v, 1, 1, s))
			if v == 5 {
				list = append(list, message(5, 2, t.t.Topic, 1, userProperty(s, "v"), nil), message(5, 2, t.t.Topic, 1, append([]byte{0x03}, str(s)...), nil))
			}
		}
		return list
	})},
	{Name: "random-bytes", Breaks: "bytes that are nothing, before and after CONNECT", run: randomBytes},
	{Name: "mutated", Breaks: "good packets with bytes changed, cut and doubled", run: mutated},
}

func randomBytes(ctx context.Context, t *tally) {
	r := t.random()
	var cases [][]byte
	for range 100 {
		cases = append(cases, noise(r, 1+r.IntN(2000)))
	}
	t.strangers(ctx, cases[:50])
	each(func(_ *tally, v byte) [][]byte {
		if v == 4 {
			return cases[50:75]
		}
		return cases[75:]
	})(ctx, t)
}

func noise(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func mutated(ctx context.Context, t *tally) {
	r := t.random()
	var before [][]byte
	for range 60 {
		h := hello{id: t.id(0), version: byte(4 + r.IntN(2)), user: t.t.Username, pass: t.t.Password, willTopic: t.t.Topic + "/will", will: []byte("gone")}
		before = append(before, mutate(r, h.packet()))
	}
	t.strangers(ctx, before)
	each(func(t *tally, v byte) (list [][]byte) {
		good := [][]byte{
			message(v, 2, t.t.Topic+"/m", 1, nil, []byte("payload")), message(v, 5, t.t.Topic+"/m", 2, nil, []byte("payload")), ask(v, 3, 1, t.t.Topic+"/+", "#"),
			packet(pubrel, u16(2)), packet(unsubscribe, u16(4), props(), str("#"))[:6], {pingreq, 0}, packet(puback, u16(1)),
		}
		for range 40 {
			var b []byte
			for range 1 + r.IntN(4) {
				b = append(b, good[r.IntN(len(good))]...)
			}
			list = append(list, mutate(r, b))
		}
		return list
	})(ctx, t)
}

// mutate changes b a little: bits, bytes, a piece cut out or doubled.
func mutate(r *rand.Rand, b []byte) []byte {
	b = bytes.Clone(b)
	for range 1 + r.IntN(3) {
		at := r.IntN(len(b))
		switch r.IntN(5) {
		case 0:
			b[at] ^= 1 << r.IntN(8)
		case 1:
			b[at] = byte(r.Uint32())
		case 2:
			b = append(b[:at:at], b[min(at+1+r.IntN(4), len(b)):]...)
		case 3:
			b = append(b[:at:at], append(noise(r, 1+r.IntN(4)), b[at:]...)...)
		case 4:
			b = append(b, b[at:]...)
		}
		if len(b) == 0 {
			b = []byte{0}
		}
	}
	return b
}
