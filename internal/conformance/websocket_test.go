package conformance

import (
	"context"
	"errors"

	"github.com/gorilla/websocket"

	"github.com/packetboat/packetboat/internal/rig/rawmqtt"
)

// overWebSocket gives the check an edge that also listens for WebSockets.
func overWebSocket(t *T) string {
	t.Helper()
	if mosquittoInstead() {
		t.Skip("mosquitto is started without WebSockets")
	}
	ws := freePort(t.T)
	t.own("listen: {mqtt: 'MQTT_ADDR', http: 'HTTP_ADDR', ws: '" + ws + "'}")
	return "ws://" + ws + "/mqtt"
}

func (t *T) dialWS(target string, protocols ...string) *rawmqtt.WebSocket {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	w, _, err := rawmqtt.DialWebSocket(ctx, target, nil, protocols...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

// Packets in pieces, many in one message, and a text message, which is the end.
func webSocketFrames(t *T) {
	target := overWebSocket(t)
	w := t.dialWS(target, "mqtt")
	c := t.speak(w, t.v)
	var b []byte
	for _, p := range []packet{t.connectPacket(), &rawmqtt.Subscribe{ID: 1, Filters: []rawmqtt.Filter{{Filter: "a", Options: 1}}}, &rawmqtt.Publish{Topic: "a", QoS: 1, ID: 2, Payload: []byte("x")}} {
		b = p.Append(b, t.v)
		c.Announce(p)
	}
	for len(b) > 0 { // 1, 2, 3 … bytes a message, and the rest in one
		n := min(len(b), 7)
		c.sendBytes(b[:n])
		b = b[n:]
	}
	c.connack()
	expect[*rawmqtt.Suback](c)
	c.nextID = 2
	c.want("a", "x")
	c.send(&rawmqtt.Pingreq{}, &rawmqtt.Pingreq{}, message("a", 0, "y"), &rawmqtt.Pingreq{})
	c.want("a", "y")
	for range 3 {
		expect[*rawmqtt.Pingresp](c)
	}
	if err := w.WriteMessage(websocket.TextMessage, rawmqtt.Encode(&rawmqtt.Pingreq{}, t.v)); err != nil {
		t.Fatal(err)
	}
	for {
		p, err := c.Next(c.until)
		if errors.Is(err, rawmqtt.ErrClosed) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := p.(*rawmqtt.Pingresp); ok {
			t.Fatal("a text message is answered")
		}
	}
}

// The subprotocol is mqtt; without it there is no MQTT.
func webSocketProtocol(t *T) {
	target := overWebSocket(t)
	if got := t.dialWS(target, "something", "mqtt").Subprotocol(); got != "mqtt" {
		t.Fatalf("subprotocol %q", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	w, r, err := rawmqtt.DialWebSocket(ctx, target, nil)
	if err != nil {
		t.Logf("without a subprotocol: %v", err)
		return
	}
	defer w.Close()
	if w.Subprotocol() != "" {
		t.Fatalf("subprotocol %q that nobody offered (%s)", w.Subprotocol(), r.Status)
	}
}
