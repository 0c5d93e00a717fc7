package edge

import (
	"context"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"

	"github.com/packetboat/packetboat/internal/mqttfront"
	"github.com/packetboat/packetboat/internal/wire"
	"github.com/packetboat/packetboat/pkg/codec"
	"github.com/packetboat/packetboat/pkg/stream"
)

// miniHub takes every batch and remembers what was in it.
type miniHub struct {
	t   testing.TB
	log stream.LogID
	old bool // knows no codec but rows

	mu      sync.Mutex
	records []stream.Record // guarded by mu
	losses  []stream.Loss   // guarded by mu
}

func (h *miniHub) Connect(_ context.Context, p *mqttfront.Peer) (mqttfront.Session, mqttfront.Welcome, error) {
	w := mqttfront.Welcome{User: []stream.Property{wire.FormatLogID(h.log)}}
	d := wire.DecoderOptions{}
	if o, ok := wire.ParseCodecOffer(p.User); ok && !h.old {
		g := wire.CodecGrant{Codec: o.Codec, State: codec.DefaultState}
		d.State = g.State
		w.User = append(w.User, wire.FormatCodecGrant(g))
	}
	return &miniSession{h, wire.NewDecoder(d)}, w, nil
}

type miniSession struct {
	h   *miniHub
	dec *wire.Decoder
}

func (s *miniSession) Publish(p *mqttfront.Publish, settle mqttfront.Settle) {
	b, err := s.dec.Decode(p.Payload, "truck-17")
	if err != nil {
		s.h.t.Error(err)
		settle(mqttfront.Result{Code: mqttfront.PayloadFormatInvalid})
		return
	}
	s.h.mu.Lock()
	s.h.records = append(s.h.records, b.Records...)
	s.h.losses = append(s.h.losses, b.Losses...)
	s.h.mu.Unlock()
	settle(mqttfront.Result{})
}

func (*miniSession) Subscribe(string) bool { return true }
func (*miniSession) Deliver(string) bool   { return true }
func (*miniSession) Close(error)           {}

// begin serves at addr, an address that was free a moment ago.
func (h *miniHub) begin(t *testing.T, addr string) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	front := mqttfront.New(h, mqttfront.Options{Listeners: []net.Listener{l}, MinVersion: 5, MaxPacketSize: 1 << 20})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- front.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// What a sensor says about its message arrives with it. A message whose time
// passes while there is no hub becomes a loss, and the hub is told.
func TestPropertiesAndExpiry(t *testing.T) {
	c := testConfig(t)
	r := begin(t, c)
	conn, err := dial("mqtt", r.MQTT, nil)
	if err != nil {
		t.Fatal(err)
	}
	x, err := connectOn(t, conn, "gps", nil)
	if err != nil {
		t.Fatal(err)
	}
	send := func(p *paho.Publish) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		p.QoS = 1
		if resp, err := x.Publish(ctx, p); err != nil || resp.ReasonCode != 0 {
			t.Fatalf("publish: %+v, %v", resp, err)
		}
	}
	second, hour, utf8 := uint32(1), uint32(3600), byte(1)
	send(&paho.Publish{Topic: "short", Payload: []byte("1"), Properties: &paho.PublishProperties{MessageExpiry: &second}})
	send(&paho.Publish{Topic: "long", Payload: []byte("2"), Properties: &paho.PublishProperties{MessageExpiry: &hour}})
	send(&paho.Publish{Topic: "full", Payload: []byte("{}"), Properties: &paho.PublishProperties{
		ContentType: "application/json", ResponseTopic: "answers/gps", CorrelationData: []byte{0, 1, 0xff}, PayloadFormat: &utf8,
		User: paho.UserProperties{{Key: "unit", Value: "m/s"}, {Key: "unit", Value: "again"}, {Key: "", Value: ""}},
	}})
	// Its time is up when somebody wants to send it, or its room.
	sent := time.Now()
	await(t, "its second has passed", func() bool { return time.Since(sent) > 1100*time.Millisecond })
	hub := &miniHub{t: t, log: stream.LogID{Name: stream.NewEpoch(), Incarnation: stream.NewEpoch()}}
	hub.begin(t, c.Hub.URLs[0][len("tcp://"):])
	s := r.eventually(t, "all is settled", func(s *Status) bool { return s.Messages.Settled == 2 })
	if s.Messages.Accepted != 3 || s.Messages.LostBy["expired"] != 1 || s.Messages.Lost != 1 || s.Messages.Queued+s.Messages.InFlight != 0 || !s.Messages.ConservationOK {
		t.Errorf("%+v", s.Messages)
	}
	if len(s.Losses) != 1 || s.Losses[0].Reason != stream.Expired || s.Losses[0].First != 1 {
		t.Errorf("%+v", s.Losses)
	}
	if _, body := get(t, r.base+"/metrics"); !strings.Contains(body, `packetboat_edge_lost_messages_total{reason="expired"} 1`+"\n") || !strings.Contains(body, "packetboat_edge_expired_messages_total 1\n") {
		t.Error("the metrics do not name the expired message")
	}
	hub.mu.Lock()
	defer hub.mu.Unlock()
	if len(hub.records) != 2 || len(hub.losses) == 0 || hub.losses[0].Reason != stream.Expired {
		t.Fatalf("records %+v, losses %+v", hub.records, hub.losses)
	}
	if m := hub.records[0]; m.Seq != 2 || m.Topic != "long" || !m.Properties.IsZero() || m.Expiry != 0 {
		t.Errorf("%+v", m)
	}
	want := &stream.Properties{ContentType: "application/json", ResponseTopic: "answers/gps", CorrelationData: []byte{0, 1, 0xff}, PayloadUTF8: true,
		User: []stream.Property{{Key: "unit", Value: "m/s"}, {Key: "unit", Value: "again"}, {}}}
	if m := hub.records[1]; m.Topic != "full" || string(m.Payload) != "{}" || !reflect.DeepEqual(m.Properties, want) {
		t.Errorf("%+v, properties %+v", m, m.Properties)
	}
}
