package e2e

import (
	"context"
	"encoding/json"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session/state"
)

// mqttClient is a real MQTT 5 client: paho.golang, with a session that a test
// can take over a connection.
type mqttClient struct {
	*paho.Client
	t       *testing.T
	conn    net.Conn
	present bool // the edge goes on with a session

	came chan struct{} // a token when got has grown
	mu   sync.Mutex
	got  []string // guarded by mu: "topic payload" as they came
}

// connect makes a connection; change may say more than who the client is. An
// error is the edge's refusal.
func (e *edge) connect(id string, session *state.State, change func(*paho.Connect)) (*mqttClient, error) {
	t := e.w.t
	t.Helper()
	conn, err := net.Dial("tcp", e.mqtt)
	if err != nil {
		t.Fatal(err)
	}
	c := &mqttClient{t: t, conn: conn, came: make(chan struct{}, 1)}
	conf := paho.ClientConfig{ClientID: id, Conn: conn, PacketTimeout: patience, OnPublishReceived: []func(paho.PublishReceived) (bool, error){
		func(m paho.PublishReceived) (bool, error) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.got = append(c.got, m.Packet.Topic+" "+string(m.Packet.Payload))
			select {
			case c.came <- struct{}{}:
			default:
			}
			return true, nil
		},
	}}
	if session != nil {
		conf.Session = session
	}
	c.Client = paho.NewClient(conf)
	t.Cleanup(c.cut)
	hello := &paho.Connect{ClientID: id, CleanStart: session == nil, KeepAlive: 60, Properties: &paho.ConnectProperties{}}
	if session != nil {
		hour := uint32(3600)
		hello.Properties.SessionExpiryInterval = &hour
	}
	if change != nil {
		change(hello)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ack, err := c.Connect(ctx, hello)
	if err != nil {
		return nil, err
	}
	c.present = ack.SessionPresent
	return c, nil
}

func (e *edge) mustConnect(id string, session *state.State, change func(*paho.Connect)) *mqttClient {
	e.w.t.Helper()
	c, err := e.connect(id, session, change)
	if err != nil {
		e.w.t.Fatalf("connecting %s: %v", id, err)
	}
	return c
}

// cut ends the connection without a good-bye.
func (c *mqttClient) cut() { _ = c.conn.Close() }

// publish publishes and wants to be told so.
func (c *mqttClient) publish(p *paho.Publish) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := c.Publish(ctx, p); err != nil {
		c.t.Fatalf("publishing to %s: %v", p.Topic, err)
	}
}

func (c *mqttClient) subscribe(filter string, qos byte) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := c.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: filter, QoS: qos}}}); err != nil {
		c.t.Fatalf("subscribing to %s: %v", filter, err)
	}
}

func (c *mqttClient) messages() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.got)
}

// sees waits until all of these have come, and wants nothing else, in any order.
func (c *mqttClient) sees(want ...string) {
	c.t.Helper()
	slices.Sort(want)
	enough := time.After(patience)
	for late := false; !late && len(c.messages()) < len(want); {
		select {
		case <-c.came:
		case <-enough:
			late = true
		}
	}
	if got := slices.Sorted(slices.Values(c.messages())); !slices.Equal(got, want) {
		c.t.Fatalf("a subscriber got %q, want %q", got, want)
	}
}

// row is a record as packetboat-hub tail prints it.
type row struct {
	Topic, Payload string
	QoS            byte
	Properties     struct {
		ContentType     string `json:"content_type"`
		ResponseTopic   string `json:"response_topic"`
		CorrelationData []byte `json:"correlation_data_base64"`
		User            []struct{ Key, Value string }
		PayloadUTF8     bool `json:"payload_utf8"`
	}
}

// records gives what the hub's log holds of the topics of a filter.
func (w *world) records(filter string) (all []row) {
	w.t.Helper()
	out, code := w.command("packetboat-hub", "tail", "--topic", filter, "--hub", "http://"+w.hubHTTP)
	if code != 0 {
		w.t.Fatalf("packetboat-hub tail exits with %d:\n%s", code, out)
	}
	for line := range strings.Lines(out) {
		var r row
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			w.t.Fatalf("%v: %s", err, line)
		}
		all = append(all, r)
	}
	return all
}

// edgeStatus is what a test reads of packetboat-edge status --json.
type edgeStatus struct {
	NotReady []string `json:"not_ready"`
	Link     struct {
		State     string
		LastError string `json:"last_error"`
		Encoding  struct {
			Codec      string
			StateBytes float64 `json:"codec_state_bytes"`
		}
	}
	Messages struct {
		LostBy map[string]float64 `json:"lost_by"`
	}
	Journal struct {
		StateEntries int `json:"state_entries"`
	}
	Sensors struct {
		Clients, Sessions, Subscriptions, Retained float64
		Denied                                     map[string]float64
		BadLogins                                  float64 `json:"bad_logins"`
	}
}

func (e *edge) status() (s edgeStatus) {
	e.w.t.Helper()
	out, code := e.w.command("packetboat-edge", "status", "--json", "--url", "http://"+e.http)
	if err := json.Unmarshal([]byte(out), &s); err != nil || code != 0 {
		e.w.t.Fatalf("packetboat-edge status exits with %d: %v\n%s", code, err, out)
	}
	return s
}

// ago waits until a moment is so long ago.
func ago(t *testing.T, since time.Time, d time.Duration) {
	t.Helper()
	eventually(t, d.String()+" pass", func() bool { return time.Since(since) > d })
}
