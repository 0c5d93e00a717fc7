package mqttfront

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"

	"github.com/packetboat/packetboat/pkg/stream"
)

// A real client sees what it should: CONNACK, reason codes and properties of
// PUBACK, aliases, subscriptions, DISCONNECT.
func TestPaho(t *testing.T) {
	h := newFake()
	h.publish = func(_ *fakeSession, p *Publish, settle Settle) {
		go func() {
			if p.Topic == "refused" {
				settle(Result{Code: QuotaExceeded, User: []stream.Property{{Key: "pb-retry-after", Value: "50"}}})
				return
			}
			settle(Result{User: []stream.Property{{Key: "pb-lost", Value: "3"}}})
		}()
	}
	s := start(t, h, Options{FanOut: true, MaxInflightMessages: 10})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	nc, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	received := make(chan string, 100)
	gone := make(chan *paho.Disconnect, 1)
	c := paho.NewClient(paho.ClientConfig{
		Conn: nc, PacketTimeout: patience,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
			received <- p.Packet.Topic + "=" + string(p.Packet.Payload)
			return true, nil
		}},
		OnServerDisconnect: func(d *paho.Disconnect) { gone <- d },
	})
	ack, err := c.Connect(ctx, &paho.Connect{ClientID: "paho", KeepAlive: 30, CleanStart: true})
	if err != nil {
		t.Fatal(err)
	}
	if p := ack.Properties; *p.ReceiveMaximum != 10 || *p.MaximumPacketSize != 256<<10 || p.MaximumQoS != nil || *p.TopicAliasMaximum != maxAliases {
		t.Errorf("CONNACK %+v", p)
	}
	if _, err := c.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "a/#", QoS: 1}}}); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		alias := uint16(1)
		p := &paho.Publish{Topic: "a/b", QoS: 1, Payload: fmt.Append(nil, i), Properties: &paho.PublishProperties{TopicAlias: &alias}}
		if i > 0 {
			p.Topic = ""
		}
		r, err := c.Publish(ctx, p)
		if err != nil || r.ReasonCode != 0 || r.Properties.User.Get("pb-lost") != "3" {
			t.Fatalf("publish %d: %v %+v", i, err, r)
		}
		select {
		case got := <-received:
			if want := fmt.Sprint("a/b=", i); got != want {
				t.Fatalf("received %s, want %s", got, want)
			}
		case <-ctx.Done():
			t.Fatal("nothing received")
		}
	}
	r, err := c.Publish(ctx, &paho.Publish{Topic: "refused", QoS: 1})
	if r == nil || r.ReasonCode != QuotaExceeded || r.Properties.User.Get("pb-retry-after") != "50" {
		t.Fatalf("refused: %v %+v", err, r)
	}
	h.session(t, 0).peer.Disconnect(UseAnotherServer, "moved")
	select {
	case d := <-gone:
		if d.ReasonCode != UseAnotherServer || d.Properties.ReasonString != "moved" {
			t.Errorf("DISCONNECT %+v", d)
		}
	case <-time.After(patience):
		t.Error("no DISCONNECT")
	}
	<-c.Done()
}
