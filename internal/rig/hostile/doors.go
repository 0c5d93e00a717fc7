package hostile

import (
	"context"
	"time"
)

// doors break what comes before MQTT.
var doors = []Behaviour{
	{Name: "tls-half-hello", Breaks: "TLS handshakes that stop in the middle", Slow: true, run: halfHello, needs: func(t *Target) Dial { return t.DialTLS }},
	{Name: "tls-rubbish", Breaks: "MQTT and noise where TLS is spoken", run: tlsRubbish, needs: func(t *Target) Dial { return t.DialTLS }},
	{Name: "ws-slow-headers", Breaks: "WebSocket requests with one byte a second", Slow: true, run: slowHeaders, needs: func(t *Target) Dial { return t.DialWebSocket }},
	{Name: "ws-rubbish", Breaks: "requests that are no WebSocket, giant headers, text frames", run: wsRubbish, needs: func(t *Target) Dial { return t.DialWebSocket }},
}

// clientHello is the begin of a TLS 1.2 record that says it has 512 bytes.
var clientHello = append([]byte{0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xFC, 0x03, 0x03}, make([]byte, 100)...)

func halfHello(ctx context.Context, t *tally) {
	ctx, cancel := context.WithTimeout(ctx, slowMost)
	defer cancel()
	many(ctx, 100, 100, func(i int) {
		c, err := t.open(ctx, t.t.DialTLS)
		if err != nil {
			return
		}
		defer c.close()
		t.attempt(1)
		if err := c.send(clientHello[:1+i]); err != nil {
			t.answer(ending(err))
			return
		}
		if i%2 == 0 {
			c.reset()
			return
		}
		c.listen(slowMost, 10)
	})
}

func tlsRubbish(ctx context.Context, t *tally) {
	many(ctx, 50, 8, func(i int) {
		c, err := t.open(ctx, t.t.DialTLS)
		if err != nil {
			return
		}
		defer c.close()
		t.attempt(1)
		said := (&hello{id: "x", version: 4}).packet()
		if i%2 == 0 {
			said = make([]byte, 1+i*10)
		}
		_ = c.send(said) // the answer tells
		c.hear()
	})
}

func slowHeaders(ctx context.Context, t *tally) {
	ctx, cancel := context.WithTimeout(ctx, slowMost)
	defer cancel()
	many(ctx, 50, 50, func(int) {
		c, err := t.open(ctx, t.t.DialWebSocket)
		if err != nil {
			return
		}
		defer c.close()
		t.attempt(1)
		for _, b := range []byte("GET /mqtt HTTP/1.1\r\nHost: edge\r\nUpgrade: websocket\r\n") {
			if err := c.send([]byte{b}); err != nil {
				t.answer(ending(err))
				return
			}
			if !c.listenQuietly(time.Second) {
				t.answer("closed")
				return
			}
		}
	})
}

const upgrade = "GET /mqtt HTTP/1.1\r\nHost: edge\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

func wsRubbish(ctx context.Context, t *tally) {
	giant := make([]byte, 256<<10)
	for i := range giant {
		giant[i] = 'x'
	}
	cases := [][]byte{
		(&hello{id: "x", version: 4}).packet(), []byte("GET / HTTP/1.1\r\nHost: edge\r\n\r\n"), []byte("POST /mqtt HTTP/1.1\r\nHost: edge\r\nContent-Length: 1000000000\r\n\r\n"),
		[]byte(upgrade + "\r\n"), // no subprotocol
		[]byte(upgrade + "Sec-WebSocket-Protocol: other\r\n\r\n"), append([]byte("GET /mqtt HTTP/1.1\r\nX: "), giant...),
		[]byte(upgrade + "Sec-WebSocket-Protocol: mqtt\r\n\r\n\x81\x85\x00\x00\x00\x00hello"),                            // a text frame [MQTT-6.0.0-1]
		[]byte(upgrade + "Sec-WebSocket-Protocol: mqtt\r\n\r\n\x82\x05hello"),                                            // without a mask
		[]byte(upgrade + "Sec-WebSocket-Protocol: mqtt\r\n\r\n\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00"), // 2^63 bytes
	}
	many(ctx, len(cases), 4, func(i int) {
		c, err := t.open(ctx, t.t.DialWebSocket)
		if err != nil {
			return
		}
		defer c.close()
		t.attempt(1)
		_ = c.send(cases[i]) // the answer tells
		buf := make([]byte, 64)
		_ = c.SetReadDeadline(time.Now().Add(5 * t.t.Patience))
		n, err := c.r.Read(buf)
		switch {
		case err != nil:
			t.answer(ending(err))
		case n >= 12:
			t.answer(string(buf[:12]))
		default:
			t.answer("bytes")
		}
	})
}
