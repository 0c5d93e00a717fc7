package edge

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/gorilla/websocket"

	"github.com/packetboat/packetboat/internal/pki"
)

// webConn is the client's end of a WebSocket as a stream of bytes. The client
// holds the lock while it writes a packet.
type webConn struct {
	sync.Mutex
	*websocket.Conn
	rest bytes.Reader
}

func (c *webConn) Read(p []byte) (int, error) {
	for c.rest.Len() == 0 {
		kind, data, err := c.ReadMessage()
		if err != nil {
			return 0, io.EOF
		}
		if kind != websocket.BinaryMessage {
			return 0, errors.New("not a binary message")
		}
		c.rest.Reset(data)
	}
	return c.rest.Read(p)
}

func (c *webConn) Write(p []byte) (int, error) {
	if err := c.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (c *webConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// dial makes a connection to one of the edge's doors.
func dial(door string, addr net.Addr, conf *tls.Config) (net.Conn, error) {
	switch door {
	case "mqtt":
		return net.Dial("tcp", addr.String())
	case "mqtts":
		return tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", addr.String(), conf)
	}
	d := websocket.Dialer{Subprotocols: []string{"mqtt"}, TLSClientConfig: conf, HandshakeTimeout: patience}
	ws, resp, err := d.Dial(door+"://"+addr.String()+"/mqtt", nil)
	if resp != nil && resp.Body != nil {
		_ = resp.Body.Close()
	}
	if err != nil {
		return nil, err
	}
	return &webConn{Conn: ws}, nil
}

// client is a sensor that keeps what it receives.
type client struct {
	*paho.Client
	ended chan byte // reason code of the server's DISCONNECT
	mu    sync.Mutex
	got   []string // "topic=payload", guarded by mu
}

func (c *client) received() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.got, " ")
}

// connectOn brings a sensor in over conn; change may be nil.
func connectOn(t testing.TB, conn net.Conn, id string, change func(*paho.Connect)) (*client, error) {
	t.Helper()
	c := &client{ended: make(chan byte, 1)}
	c.Client = paho.NewClient(paho.ClientConfig{Conn: conn, ClientID: id,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(r paho.PublishReceived) (bool, error) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.got = append(c.got, r.Packet.Topic+"="+string(r.Packet.Payload))
			return true, nil
		}},
		OnServerDisconnect: func(d *paho.Disconnect) { c.ended <- d.ReasonCode },
		OnClientError:      func(error) {},
	})
	cp := &paho.Connect{ClientID: id, CleanStart: true, KeepAlive: 30}
	if change != nil {
		change(cp)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if ack, err := c.Connect(ctx, cp); err != nil {
		_ = conn.Close()
		if ack != nil {
			err = fmt.Errorf("refused with 0x%02x: %w", ack.ReasonCode, err)
		}
		return nil, err
	}
	t.Cleanup(func() { _ = c.Disconnect(&paho.Disconnect{}); <-c.Done() })
	return c, nil
}

func login(user, password string) func(*paho.Connect) {
	return func(cp *paho.Connect) {
		cp.Username, cp.UsernameFlag, cp.Password, cp.PasswordFlag = user, true, []byte(password), true
	}
}

// send publishes with QoS 1 and gives the reason code.
func (c *client) send(t testing.TB, topic, payload string) byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	resp, err := c.Publish(ctx, &paho.Publish{Topic: topic, QoS: 1, Payload: []byte(payload)})
	if resp == nil {
		t.Fatalf("publish to %s: %v", topic, err)
	}
	return resp.ReasonCode
}

func (c *client) subscribe(t testing.TB, filter string) byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ack, err := c.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: filter, QoS: 1}}})
	if ack == nil {
		t.Fatalf("subscribe to %s: %v", filter, err)
	}
	return ack.Reasons[0]
}

// await polls until holds.
func await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// doorsOf gives the four doors of an edge that has them all open.
func doorsOf(a Addrs) map[string]net.Addr {
	return map[string]net.Addr{"mqtt": a.MQTT, "mqtts": a.MQTTS, "ws": a.WS, "wss": a.WSS}
}

func openDoors(c *Config) {
	c.Listen.MQTT, c.Listen.MQTTS, c.Listen.WS, c.Listen.WSS = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
}

// A sensor at any door is acknowledged and seen by those at the others; over TLS
// it acts under the name of its certificate.
func TestDoors(t *testing.T) {
	c, a := testConfig(t), newAuthority(t, t.TempDir())
	a.server(t, "edge")
	gps, _ := a.client(t, "gps")
	openDoors(&c)
	c.Sensors.TLS = a.files("edge")
	c.Sensors.ACLFile = write(t, filepath.Join(t.TempDir(), "acl"), "topic write plain/#\ntopic read #\nuser gps\ntopic write gps/#\ntopic read #\n")
	r := begin(t, c)
	anonymous, certified := &tls.Config{RootCAs: a.roots()}, &tls.Config{RootCAs: a.roots(), Certificates: []tls.Certificate{gps}}
	clients := map[string]*client{}
	for door, addr := range doorsOf(r.Addrs) {
		conn, err := dial(door, addr, certified)
		if err != nil {
			t.Fatalf("%s: %v", door, err)
		}
		if clients[door], err = connectOn(t, conn, "c-"+door, nil); err != nil {
			t.Fatalf("%s: %v", door, err)
		}
		if code := clients[door].subscribe(t, "#"); code != 1 {
			t.Errorf("%s: subscription answered with 0x%02x", door, code)
		}
	}
	for door, x := range clients {
		own, other := "plain/", "gps/"
		if strings.HasSuffix(door, "s") && door != "ws" {
			own, other = other, own
		}
		if code := x.send(t, own+door, "1"); code != 0 {
			t.Errorf("%s: publish to its own topic: 0x%02x", door, code)
		}
		if code := x.send(t, other+door, "1"); code != 0x87 {
			t.Errorf("%s: publish to the other's topic: 0x%02x", door, code)
		}
	}
	for door, x := range clients {
		await(t, door+" sees all four", func() bool { return strings.Count(x.received(), "=1") == 4 })
	}
	conn, err := dial("mqtts", r.MQTTS, anonymous)
	if err != nil {
		t.Fatal(err)
	}
	nameless, err := connectOn(t, conn, "nameless", nil)
	if err != nil {
		t.Fatal(err)
	}
	if code := nameless.send(t, "plain/tls", "1"); code != 0 {
		t.Errorf("TLS without a certificate: 0x%02x", code)
	}
	s := r.status(t)
	if s.Messages.Accepted != 5 || s.Sensors.Clients != 5 || s.Sensors.Subscriptions != 4 || s.Sensors.Denied["publish"] != 4 {
		t.Errorf("%+v, %+v", s.Messages, s.Sensors)
	}
	if log := r.log.String(); !strings.Contains(log, `msg="acl denies a sensor" part=sensors what=publish client=c-mqtts user=gps topic=plain/mqtts`) {
		t.Error("no line about a denial")
	}
}

// Without a certificate there is no way in where one is required, with a revoked
// one neither; what is turned away is counted by reason, and renewals count at
// once.
func TestCertificates(t *testing.T) {
	c, a := testConfig(t), newAuthority(t, t.TempDir())
	first := a.server(t, "edge")
	gps, gpsCert := a.client(t, "gps")
	radar, _ := a.client(t, "radar")
	c.Listen.MQTT, c.Listen.MQTTS = Off, "127.0.0.1:0"
	c.Sensors.TLS = a.files("edge")
	c.Sensors.TLS.ClientAuth = pki.AuthRequired
	r := begin(t, c)
	if r.MQTT != nil {
		t.Error("the plain door is open")
	}
	with := func(certs ...tls.Certificate) (*client, *tls.Conn, error) {
		conn, err := dial("mqtts", r.MQTTS, &tls.Config{RootCAs: a.roots(), Certificates: certs})
		if err != nil {
			return nil, nil, err
		}
		x, err := connectOn(t, conn, "c", nil)
		return x, conn.(*tls.Conn), err
	}
	if _, _, err := with(); err == nil {
		t.Error("in without a certificate")
	}
	stranger, _ := newAuthority(t, t.TempDir()).client(t, "gps")
	if _, _, err := with(stranger); err == nil {
		t.Error("in with a certificate of another authority")
	}
	in, conn, err := with(gps)
	if err != nil {
		t.Fatal(err)
	}
	if got := conn.ConnectionState().PeerCertificates[0]; !got.Equal(first) {
		t.Error("another certificate than the edge's")
	}
	a.revoke(t, gpsCert)
	select {
	case code := <-in.ended:
		if code != 0x87 {
			t.Errorf("revoked: DISCONNECT 0x%02x", code)
		}
	case <-time.After(patience):
		t.Fatal("a revoked certificate stays connected")
	}
	if _, _, err := with(gps); err == nil {
		t.Error("in with a revoked certificate")
	}
	second := a.server(t, "edge")
	_, conn, err = with(radar)
	if err != nil {
		t.Fatal(err)
	}
	if got := conn.ConnectionState().PeerCertificates[0]; !got.Equal(second) {
		t.Error("a renewed certificate is not used")
	}
	s := r.eventually(t, "what was turned away is counted", func(s *Status) bool {
		n := s.Sensors.TurnedAway
		return n["no_client_cert"] == 1 && n["client_cert"] == 1 && n["revoked"] == 1
	})
	if len(s.Sensors.Certificates) != 2 || s.Sensors.Certificates[0].Name != "sensors" || s.Sensors.Certificates[0].NotAfter.Before(time.Now()) {
		t.Errorf("certificates %+v", s.Sensors.Certificates)
	}
	_, body := get(t, r.base+"/metrics")
	for _, want := range []string{`packetboat_edge_listener_refused_connections_total{reason="revoked"} 1` + "\n", "packetboat_edge_revoked_certificates 1\n",
		fmt.Sprintf("packetboat_edge_certificate_expiry_timestamp_seconds{certificate=%q} ", "sensors"), "packetboat_edge_sensor_certificate_connects_total 2\n"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q", want)
		}
	}
	// Files that do not fit together leave the last good ones in force, and say so.
	if err := os.Remove(filepath.Join(a.dir, "edge-key.pem")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := with(radar); err != nil {
		t.Errorf("without the key file: %v", err)
	}
	if code, body := get(t, r.base+"/readyz"); code != 503 || !strings.HasPrefix(body, "sensors.tls: ") {
		t.Errorf("readyz: %d %q", code, body)
	}
}

// A right that is taken away ends what a connected sensor sees and publishes; a
// user that is removed is disconnected.
func TestRightsAreTakenAway(t *testing.T) {
	c := testConfig(t)
	dir := t.TempDir()
	c.Sensors.UsersFile = filepath.Join(dir, "users")
	passwords := map[string]string{}
	for _, name := range []string{"gps", "display"} {
		text, sum := pki.NewSecret()
		if _, err := pki.SetUser(c.Sensors.UsersFile, name, sum); err != nil {
			t.Fatal(err)
		}
		passwords[name] = text
	}
	rules := "user gps\ntopic write gps/#\nuser display\ntopic read gps/#\n"
	c.Sensors.ACLFile = write(t, filepath.Join(dir, "acl"), rules)
	r := begin(t, c)
	in := func(name string) *client {
		conn, err := dial("mqtt", r.MQTT, nil)
		if err != nil {
			t.Fatal(err)
		}
		x, err := connectOn(t, conn, name, login(name, passwords[name]))
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	gps, display := in("gps"), in("display")
	if code := display.subscribe(t, "gps/#"); code != 1 {
		t.Fatalf("subscription: 0x%02x", code)
	}
	if code := display.subscribe(t, "other/#"); code != 0x87 {
		t.Errorf("a subscription that can never see anything: 0x%02x", code)
	}
	if code := gps.send(t, "gps/a", "1"); code != 0 {
		t.Fatalf("publish: 0x%02x", code)
	}
	await(t, "the display sees it", func() bool { return display.received() == "gps/a=1" })

	// What may be seen.
	write(t, c.Sensors.ACLFile, "user gps\ntopic write gps/#\nuser display\ntopic read gps/public\n")
	await(t, "the change is in force", func() bool { return strings.Contains(r.log.String(), "acl changed") })
	for i := range 3 {
		if code := gps.send(t, "gps/a", fmt.Sprint(i)); code != 0 {
			t.Fatalf("publish: 0x%02x", code)
		}
	}
	gps.send(t, "gps/public", "1")
	await(t, "the display sees what it may", func() bool { return display.received() == "gps/a=1 gps/public=1" })

	// What may be published.
	write(t, c.Sensors.ACLFile, "user gps\ntopic read gps/#\n")
	await(t, "it may not publish any more", func() bool { return gps.send(t, "gps/a", "2") == 0x87 })

	// A broken file changes nothing and is said.
	write(t, c.Sensors.ACLFile, "rubbish\n")
	await(t, "the file is said to be bad", func() bool {
		code, body := get(t, r.base+"/readyz")
		return code == 503 && strings.HasPrefix(body, "acl: ")
	})
	if code := gps.send(t, "gps/a", "2"); code != 0x87 {
		t.Errorf("a broken file lets everybody publish: 0x%02x", code)
	}

	// Who may be there at all.
	if err := pki.RemoveUser(c.Sensors.UsersFile, "display"); err != nil {
		t.Fatal(err)
	}
	select {
	case code := <-display.ended:
		if code != 0x87 {
			t.Errorf("DISCONNECT 0x%02x", code)
		}
	case <-time.After(patience):
		t.Fatal("a removed user stays connected")
	}
	select {
	case code := <-gps.ended:
		t.Errorf("another user is disconnected with 0x%02x", code)
	default:
	}
}

// A will that the ACL does not allow refuses the connection.
func TestForbiddenWill(t *testing.T) {
	c := testConfig(t)
	c.Sensors.ACLFile = write(t, filepath.Join(t.TempDir(), "acl"), "topic write a\n")
	r := begin(t, c)
	for topic, in := range map[string]bool{"a": true, "b": false} {
		conn, err := dial("mqtt", r.MQTT, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = connectOn(t, conn, "c", func(cp *paho.Connect) { cp.WillMessage = &paho.WillMessage{Topic: topic, Payload: []byte("x"), QoS: 1} })
		if (err == nil) != in || err != nil && !strings.Contains(err.Error(), "0x87") {
			t.Errorf("a will on %s: %v", topic, err)
		}
	}
}

// Users, ACL and certificates change all the time, and nothing that was
// acknowledged or should have been is missing.
func TestReloadsUnderLoad(t *testing.T) {
	c, a := testConfig(t), newAuthority(t, t.TempDir())
	a.server(t, "edge")
	gps, _ := a.client(t, "gps")
	openDoors(&c)
	c.Sensors.TLS = a.files("edge")
	dir := t.TempDir()
	c.Sensors.UsersFile = filepath.Join(dir, "users")
	secret, sum := pki.NewSecret()
	if _, err := pki.SetUser(c.Sensors.UsersFile, "radar", sum); err != nil {
		t.Fatal(err)
	}
	rules := "user gps\ntopic write s/#\nuser radar\ntopic write s/#\n"
	c.Sensors.ACLFile = write(t, filepath.Join(dir, "acl"), rules)
	r := begin(t, c)
	var wg sync.WaitGroup
	const each = 200
	for door, addr := range doorsOf(r.Addrs) {
		wg.Go(func() {
			conf, change := &tls.Config{RootCAs: a.roots()}, login("radar", secret)
			if door == "mqtts" || door == "wss" {
				conf.Certificates, change = []tls.Certificate{gps}, nil
			}
			for i := 0; i < each; i += 20 { // connections come and go meanwhile
				conn, err := dial(door, addr, conf)
				if err != nil {
					t.Errorf("%s: %v", door, err)
					return
				}
				x, err := connectOn(t, conn, fmt.Sprint(door, i), change)
				if err != nil {
					t.Errorf("%s: %v", door, err)
					return
				}
				for j := range 20 {
					if code := x.send(t, "s/"+door, fmt.Sprint(i+j)); code != 0 {
						t.Errorf("%s: 0x%02x", door, code)
						return
					}
				}
			}
		})
	}
	stop := make(chan struct{})
	changes := make(chan int)
	go func() {
		n := 0
		defer func() { changes <- n }()
		for ; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			a.server(t, "edge")
			a.revoke(t)
			write(t, c.Sensors.ACLFile+".new", rules+fmt.Sprintf("topic read x/%d\n", n))
			if err := os.Rename(c.Sensors.ACLFile+".new", c.Sensors.ACLFile); err != nil {
				t.Error(err)
			}
			_, other := pki.NewSecret()
			if _, err := pki.SetUser(c.Sensors.UsersFile, fmt.Sprint("other", n%10), other); err != nil {
				t.Error(err)
			}
		}
	}()
	wg.Wait()
	close(stop)
	if n := <-changes; n == 0 {
		t.Error("nothing changed meanwhile")
	}
	s := r.status(t)
	if s.Messages.Accepted != 4*each || !s.Messages.ConservationOK || s.Sensors.BadLogins != 0 || len(s.Sensors.TurnedAway) != 0 {
		t.Errorf("%+v, %+v", s.Messages, s.Sensors)
	}
}
