package mqttfront

import (
	"context"
	"fmt"
	"net"
	"testing"

	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session/state"
)

// pahoClient connects a real client; what it gets goes to the channel.
func pahoClient(t *testing.T, ctx context.Context, addr, id string, session *state.State) (*paho.Client, net.Conn, chan *paho.Publish) {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan *paho.Publish, 2000)
	cfg := paho.ClientConfig{
		Conn: nc, PacketTimeout: patience,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
			got <- p.Packet
			return true, nil
		}},
	}
	if session != nil {
		cfg.Session = session
	}
	c := paho.NewClient(cfg)
	expiry := uint32(60)
	ack, err := c.Connect(ctx, &paho.Connect{ClientID: id, KeepAlive: 30, CleanStart: session == nil, Properties: &paho.ConnectProperties{SessionExpiryInterval: &expiry}})
	if err != nil || ack.ReasonCode != 0 {
		t.Fatalf("connect: %v %+v", err, ack)
	}
	return c, nc, got
}

// A real subscriber gets each message once, at each QoS, with its properties and
// identifiers; after its connection broke, also what was sent meanwhile.
func TestPahoSubscriber(t *testing.T) {
	s := start(t, newFake(), Options{FanOut: true})
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	pub, _, _ := pahoClient(t, ctx, s.addr, "pub", nil)
	publish := func(topic, payload string, qos byte, retain bool) {
		t.Helper()
		expiry := uint32(100)
		if _, err := pub.Publish(ctx, &paho.Publish{Topic: topic, QoS: qos, Retain: retain, Payload: []byte(payload), Properties: &paho.PublishProperties{
			ContentType: "text", ResponseTopic: "answer", CorrelationData: []byte{0, 1}, MessageExpiry: &expiry, User: paho.UserProperties{{Key: "k", Value: "v"}},
		}}); err != nil {
			t.Fatal(err)
		}
	}
	publish("r/kept", "kept", 2, true)
	session := state.NewInMemory()
	sub, nc, got := pahoClient(t, ctx, s.addr, "sub", session)
	id := 42
	if _, err := sub.Subscribe(ctx, &paho.Subscribe{
		Properties:    &paho.SubscribeProperties{SubscriptionIdentifier: &id},
		Subscriptions: []paho.SubscribeOptions{{Topic: "r/#", QoS: 2}, {Topic: "$share/g/s/+", QoS: 1}},
	}); err != nil {
		t.Fatal(err)
	}
	expect := func(topic, payload string, qos byte, retain bool) {
		t.Helper()
		select {
		case p := <-got:
			q := p.Properties
			if p.Topic != topic || string(p.Payload) != payload || p.QoS != qos || p.Retain != retain || q.ContentType != "text" || q.ResponseTopic != "answer" ||
				string(q.CorrelationData) != "\x00\x01" || q.User.Get("k") != "v" || q.MessageExpiry == nil || *q.MessageExpiry > 100 || *q.MessageExpiry < 50 || q.SubscriptionIdentifier == nil || *q.SubscriptionIdentifier != id {
				t.Errorf("got %+v %+v, want %s=%s at QoS %d", p, q, topic, payload, qos)
			}
		case <-ctx.Done():
			t.Fatalf("%s=%s did not come", topic, payload)
		}
	}
	expect("r/kept", "kept", 2, true)
	for i := range 300 {
		qos := byte(i % 3)
		publish(fmt.Sprint("r/", i), fmt.Sprint(i), qos, false)
		expect(fmt.Sprint("r/", i), fmt.Sprint(i), qos, false)
	}
	publish("s/x", "shared", 2, false)
	expect("s/x", "shared", 1, false)
	eventually(t, "all are answered", func() bool { return s.Stats().QueuedMessages == 0 })
	_ = nc.Close()
	<-sub.Done()
	eventually(t, "it is away", func() bool { return s.Clients() == 1 })
	for i := range 300 {
		publish("r/while/away", fmt.Sprint(i), byte(i%3), false)
	}
	eventually(t, "they wait", func() bool { return s.Stats().QueuedMessages == 200 })
	sub, _, got = pahoClient(t, ctx, s.addr, "sub", session)
	for i := range 300 {
		if qos := byte(i % 3); qos > 0 {
			expect("r/while/away", fmt.Sprint(i), qos, false)
		}
	}
	eventually(t, "all are answered", func() bool { return s.Stats().QueuedMessages == 0 })
	if _, err := sub.Unsubscribe(ctx, &paho.Unsubscribe{Topics: []string{"r/#", "$share/g/s/+"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := sub.Subscribe(ctx, &paho.Subscribe{
		Properties:    &paho.SubscribeProperties{SubscriptionIdentifier: &id},
		Subscriptions: []paho.SubscribeOptions{{Topic: "end", QoS: 0}},
	}); err != nil {
		t.Fatal(err)
	}
	publish("r/x", "nobody", 2, false)
	publish("end", "end", 1, false)
	expect("end", "end", 0, false)
	for _, c := range []*paho.Client{sub, pub} {
		if err := c.Disconnect(&paho.Disconnect{}); err != nil {
			t.Error(err)
		}
		<-c.Done()
	}
}
