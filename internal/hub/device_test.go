package hub

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"

	"github.com/packetboat/packetboat/internal/wire"
	"github.com/packetboat/packetboat/pkg/stream"
)

// device is a real MQTT 5 client that speaks the link protocol by hand.
type device struct {
	t      *testing.T
	id     string
	conn   net.Conn
	client *paho.Client
	enc    *wire.Encoder
	left   chan byte // reason code of the hub's DISCONNECT
}

// hello is what a device says in CONNECT.
type hello struct {
	id, username, secret string
	held                 []stream.Held
	codec                *wire.CodecOffer  // nil: an older edge
	user                 []stream.Property // instead of version, held and codec
	will                 []byte            // to be published to the topic of batches
}

// dial connects; err is nil only when the hub said welcome.
func dial(t *testing.T, to net.Addr, h hello) (*device, *paho.Connack, error) {
	t.Helper()
	conn, err := net.Dial("tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	return dialOver(t, conn, h)
}

func dialOver(t *testing.T, conn net.Conn, h hello) (*device, *paho.Connack, error) {
	t.Helper()
	d := &device{t: t, id: h.id, conn: conn, enc: wire.NewEncoder(wire.EncoderOptions{}), left: make(chan byte, 1)}
	d.client = paho.NewClient(paho.ClientConfig{
		// A packet is several writes, and over TLS a PINGREQ could come between them.
		Conn: packets.NewThreadSafeConn(conn), PacketTimeout: 30 * time.Second,
		OnServerDisconnect: func(p *paho.Disconnect) { d.left <- p.ReasonCode },
	})
	props := h.user
	if props == nil {
		props = append([]stream.Property{wire.FormatVersion()}, wire.FormatHeld(h.held)...)
		if h.codec != nil {
			props = append(props, wire.FormatCodecOffer(*h.codec))
		}
	}
	cp := &paho.Connect{ClientID: h.id, KeepAlive: 30, CleanStart: true, Properties: &paho.ConnectProperties{RequestProblemInfo: true}}
	for _, p := range props {
		cp.Properties.User.Add(p.Key, p.Value)
	}
	if h.username != "" {
		cp.Username, cp.UsernameFlag = h.username, true
	}
	if h.secret != "" {
		cp.Username, cp.UsernameFlag, cp.Password, cp.PasswordFlag = h.id, true, []byte(h.secret), true
		if h.username != "" {
			cp.Username = h.username
		}
	}
	if h.will != nil {
		cp.WillMessage = &paho.WillMessage{Topic: wire.UpTopic(h.id), QoS: 1, Payload: h.will}
		cp.WillProperties = &paho.WillProperties{}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ack, err := d.client.Connect(ctx, cp)
	if err != nil {
		_ = conn.Close()
		return nil, ack, err
	}
	t.Cleanup(d.bye)
	return d, ack, nil
}

// mustDial connects or ends the test.
func mustDial(t *testing.T, to net.Addr, h hello) (*device, *paho.Connack) {
	t.Helper()
	d, ack, err := dial(t, to, h)
	if err != nil {
		t.Fatalf("connecting %s: %v (%+v)", h.id, err, ack)
	}
	return d, ack
}

// bye ends the connection and waits for the client's goroutines.
func (d *device) bye() {
	_ = d.client.Disconnect(&paho.Disconnect{})
	<-d.client.Done()
}

// batch makes a batch of n records from first on.
func batch(e stream.Epoch, first uint64, n int) *stream.Batch {
	b := &stream.Batch{ID: stream.ID{Epoch: e, Lane: stream.Normal}, First: first, Head: first + uint64(n) - 1, Floor: first, Oldest: int64(first) * 1000}
	for i := range n {
		seq := first + uint64(i)
		b.Records = append(b.Records, stream.Record{Seq: seq, Message: stream.Message{
			Topic: "car/speed", Payload: []byte{byte('0' + seq%10)}, Time: int64(seq) * 1000, Quality: stream.TimeLocal, QoS: 1}})
	}
	return b
}

func (d *device) encode(b *stream.Batch) []byte {
	d.t.Helper()
	packet, err := d.enc.Append(nil, b)
	if err != nil {
		d.t.Fatal(err)
	}
	return packet
}

// publish sends a packet and gives the PUBACK's reason code and properties;
// lost says that the connection ended first.
func (d *device) publish(topic string, packet []byte) (code byte, props []stream.Property, lost bool) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() { // the client forgets who waits for a PUBACK when its connection ends
		select {
		case <-d.client.Done():
			cancel()
		case <-ctx.Done():
		}
	})
	res, err := d.client.Publish(ctx, &paho.Publish{QoS: 1, Topic: topic, Payload: packet})
	if res == nil {
		if errors.Is(err, context.DeadlineExceeded) {
			d.t.Errorf("no PUBACK in time")
		}
		return 0, nil, true
	}
	if res.Properties != nil {
		props = properties(res.Properties.User)
	}
	return res.ReasonCode, props, false
}

// send publishes a batch to the device's own topic and wants it settled.
func (d *device) send(b *stream.Batch) {
	d.t.Helper()
	code, props, lost := d.publish(wire.UpTopic(d.id), d.encode(b))
	if lost || code != 0 {
		d.t.Fatalf("batch %d-%d of %s: PUBACK 0x%02x %v (connection lost: %v)", b.First, b.Last(), d.id, code, props, lost)
	}
}

// publishQoS0 writes a PUBLISH that is not acknowledged.
func (d *device) publishQoS0(topic string, packet []byte) {
	d.t.Helper()
	p := &packets.Publish{Topic: topic, Payload: packet, Properties: &packets.Properties{}}
	if _, err := p.WriteTo(d.conn); err != nil {
		d.t.Fatal(err)
	}
}

// publishQoS2 writes a QoS 2 PUBLISH, which the client itself would refuse.
func (d *device) publishQoS2(topic string) {
	d.t.Helper()
	p := &packets.Publish{Topic: topic, QoS: 2, PacketID: 7, Payload: []byte("x"), Properties: &packets.Properties{}}
	if _, err := p.WriteTo(d.conn); err != nil {
		d.t.Fatal(err)
	}
}

// disconnected waits for the hub's DISCONNECT.
func (d *device) disconnected() byte {
	d.t.Helper()
	select {
	case code := <-d.left:
		return code
	case <-time.After(30 * time.Second):
		d.t.Fatal("the hub did not disconnect")
		return 0
	}
}

func properties(user paho.UserProperties) (props []stream.Property) {
	for _, p := range user {
		props = append(props, stream.Property{Key: p.Key, Value: p.Value})
	}
	return props
}

func (d *device) subscribe(filter string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_, err := d.client.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: filter, QoS: 1}}})
	return err
}

// await polls a condition; the deadline is only there to end a broken test.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
