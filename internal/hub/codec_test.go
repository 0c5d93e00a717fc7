package hub

import (
	"fmt"
	"strings"
	"testing"

	"github.com/eclipse/paho.golang/paho"

	"github.com/packetboat/packetboat/internal/config"
	"github.com/packetboat/packetboat/internal/mqttfront"
	"github.com/packetboat/packetboat/internal/wire"
	"github.com/packetboat/packetboat/pkg/codec"
	"github.com/packetboat/packetboat/pkg/stream"
)

// grantOf reads pb-codec of a CONNACK.
func grantOf(ack *paho.Connack) (wire.CodecGrant, bool) {
	return wire.ParseCodecGrant(properties(ack.Properties.User))
}

// learn makes the device's encoder what the hub granted, going on with a session
// if there is one.
func (d *device) learn(g wire.CodecGrant, session *codec.Encoder) {
	d.enc = wire.NewEncoder(wire.EncoderOptions{Codec: g.Codec, State: g.State, Session: session})
}

// offerOf is what an edge offers that keeps a session.
func offerOf(s *codec.Encoder) *wire.CodecOffer {
	return &wire.CodecOffer{Codec: codec.Learning, Resume: true, Oldest: s.Oldest(), Last: s.Position().Bodies}
}

// A device learns, its connection breaks with an acknowledgement under way, and
// the next one goes on where the hub stands; a connection that offers nothing
// gets none, and what was kept is gone then.
func TestCodecSessionOutlivesConnection(t *testing.T) {
	h := runHub(t, testConfig(t.TempDir()))
	epoch := stream.NewEpoch()
	d, ack := mustDial(t, h.mqttAddr(), hello{id: "truck", codec: &wire.CodecOffer{Codec: codec.Learning + 1}})
	g, ok := grantOf(ack)
	if want := (wire.CodecGrant{Codec: codec.Learning, State: codec.DefaultState}); !ok || g != want {
		t.Fatalf("granted %+v %v, want %+v", g, ok, want)
	}
	d.learn(g, nil)
	d.send(batch(epoch, 1, 3))
	d.send(batch(epoch, 4, 3))
	stood := d.enc.Session().Position()
	d.encode(batch(epoch, 7, 3)) // never arrives
	session := d.enc.Session()
	d.bye()

	// The second connection may come before the hub has noticed that the first
	// one is gone: it takes over then.
	d, ack = mustDial(t, h.mqttAddr(), hello{id: "truck", codec: offerOf(session)})
	if g, ok = grantOf(ack); !ok || !g.Resume || g.At != stood || g.State != codec.DefaultState {
		t.Fatalf("granted %+v %v, the hub stood at %+v", g, ok, stood)
	}
	if err := session.GoBack(g.At); err != nil {
		t.Fatal(err)
	}
	d.learn(g, session)
	packet := d.encode(batch(epoch, 7, 3))
	if d.enc.Bodies() != 3 {
		t.Fatalf("%d bodies", d.enc.Bodies())
	}
	if code, _, _ := d.publish(wire.UpTopic("truck"), packet); code != 0 {
		t.Fatalf("PUBACK 0x%02x", code)
	}
	h.wantRecords("truck/1=1", "truck/2=2", "truck/3=3", "truck/4=4", "truck/5=5", "truck/6=6", "truck/7=7", "truck/8=8", "truck/9=9")
	if s, err := h.client.Status(t.Context()); err != nil || s.Codec.Sessions != 1 || s.Codec.Resumed != 1 || s.Codec.Fresh != 1 || s.Codec.StateBytes == 0 || s.Codec.Kept != 0 {
		t.Errorf("status %+v %v", s.Codec, err)
	}
	if _, text := get(t, "http://"+h.HTTPAddr().String()+"/api/v1/devices"); !strings.Contains(text, fmt.Sprintf(`"codec":{"name":%q,"limit_bytes":%d,"state_bytes":`, codec.Learning, codec.DefaultState)) {
		t.Errorf("devices: %s", text)
	}
	d.bye()

	// An older edge under the same id.
	d, ack = mustDial(t, h.mqttAddr(), hello{id: "truck"})
	if g, ok := grantOf(ack); ok {
		t.Errorf("an edge that offers nothing got %+v", g)
	}
	d.send(batch(epoch, 10, 1))
	d.bye()
	_, ack = mustDial(t, h.mqttAddr(), hello{id: "truck", codec: offerOf(session)})
	if g, ok := grantOf(ack); !ok || g.Resume || g.State != codec.DefaultState {
		t.Errorf("granted %+v %v", g, ok)
	}
	_, text := get(t, "http://"+h.HTTPAddr().String()+"/metrics")
	for _, want := range []string{
		"packetboat_hub_codec_sessions 1", "packetboat_hub_codec_resumed_sessions_total 1", "packetboat_hub_codec_kept_sessions 0", "packetboat_hub_codec_kept_bytes 0",
		`packetboat_hub_codec_dropped_sessions_total{reason="unwanted"} 1`, `packetboat_hub_codec_dropped_sessions_total{reason="expired"} 0`,
	} {
		if !strings.Contains(text, "\n"+want+"\n") {
			t.Errorf("the scrape lacks %q", want)
		}
	}
}

// An offer that cannot be read is as good as none.
func TestCodecOfferThatCannotBeRead(t *testing.T) {
	h := runHub(t, testConfig(t.TempDir()))
	for _, offer := range []string{"", "2;s=9-1", "rubbish", "999"} {
		d, ack := mustDial(t, h.mqttAddr(), hello{id: "truck", user: []stream.Property{wire.FormatVersion(), {Key: wire.PropCodec, Value: offer}}})
		if g, ok := grantOf(ack); ok {
			t.Errorf("%q was granted %+v", offer, g)
		}
		d.bye()
	}
}

// With codec.state_bytes: 0 nothing is kept, and a batch that needs what was
// before it is told so.
func TestSelfContainedOnly(t *testing.T) {
	c := testConfig(t.TempDir())
	c.Codec.StateBytes = 0
	h := runHub(t, c)
	epoch := stream.NewEpoch()
	d, ack := mustDial(t, h.mqttAddr(), hello{id: "truck", codec: &wire.CodecOffer{Codec: codec.Learning, Resume: true, Oldest: 1, Last: 9}})
	g, ok := grantOf(ack)
	if want := (wire.CodecGrant{Codec: codec.Learning}); !ok || g != want {
		t.Fatalf("granted %+v %v, want %+v", g, ok, want)
	}
	d.learn(g, nil)
	d.send(batch(epoch, 1, 2))
	d.send(batch(epoch, 3, 2))
	d.learn(wire.CodecGrant{Codec: codec.Learning, State: codec.DefaultState}, nil) // against the grant
	d.send(batch(epoch, 5, 1))                                                      // marked reset
	if code, props, _ := d.publish(wire.UpTopic("truck"), d.encode(batch(epoch, 6, 1))); code != mqttfront.PayloadFormatInvalid {
		t.Errorf("PUBACK 0x%02x %v", code, props)
	}
	s, err := h.client.Status(t.Context())
	if err != nil || s.Codec.SelfContained != 3 || s.Codec.Sessions != 0 || s.Codec.StateBytes != 0 {
		t.Errorf("status %+v %v", s.Codec, err)
	}
}

// A session that there is no room for is given up: its batch is taken, the next
// one is told how to go on, and nothing is lost.
func TestCodecSessionWithoutRoom(t *testing.T) {
	c := testConfig(t.TempDir())
	c.Codec.StateBytes, c.Codec.TotalBytes = config.Bytes(codec.MinState), config.Bytes(codec.MinState)
	h := runHub(t, c)
	epoch := stream.NewEpoch()
	join := func(id string) (*device, wire.CodecGrant) {
		d, ack := mustDial(t, h.mqttAddr(), hello{id: id, codec: &wire.CodecOffer{Codec: codec.Learning}})
		g, ok := grantOf(ack)
		if !ok {
			t.Fatal("no answer to the offer")
		}
		d.learn(g, nil)
		return d, g
	}
	var devices []*device // nothing is learned yet, so each is granted the least there is
	for i := range 30 {
		d, g := join(fmt.Sprint("d", i))
		if g.State != codec.MinState {
			t.Fatalf("granted %+v", g)
		}
		devices = append(devices, d)
	}
	records, gaveUp := 0, 0
	send := func(d *device, b *stream.Batch) {
		t.Helper()
		code, props, _ := d.publish(wire.UpTopic(d.id), d.encode(b))
		if code == mqttfront.PayloadFormatInvalid {
			g, ok := wire.ParseCodecGrant(props)
			if want := (wire.CodecGrant{Codec: codec.Learning}); !ok || g != want {
				t.Fatalf("PUBACK 0x99 %v", props)
			}
			gaveUp++
			d.learn(g, nil)
			code, _, _ = d.publish(wire.UpTopic(d.id), d.encode(b))
		}
		if code != 0 {
			t.Fatalf("PUBACK 0x%02x", code)
		}
		records += len(b.Records)
	}
	n := uint64(0)
	for ; gaveUp == 0 && n < 100; n++ {
		for _, d := range devices {
			b := batch(epoch, n+1, 1)
			b.Records[0].Topic = fmt.Sprint("car/", n) // something to learn
			send(d, b)
		}
	}
	for _, d := range devices { // a heartbeat, by which the last ones are told
		send(d, batch(epoch, n+1, 0))
	}
	if gaveUp == 0 {
		t.Fatal("there was room for all")
	}
	if _, g := join("late"); g != (wire.CodecGrant{Codec: codec.Learning}) {
		t.Errorf("granted %+v", g)
	}
	s, err := h.client.Status(t.Context())
	if err != nil || s.Codec.Dropped["no_room"] != int64(gaveUp) || s.Codec.StateBytes > int64(c.Codec.TotalBytes) {
		t.Errorf("status %+v %v, %d were given up", s.Codec, err, gaveUp)
	}
	if n := len(h.records()); n != records {
		t.Errorf("%d records, want %d", n, records)
	}
}
