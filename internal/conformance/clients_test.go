package conformance

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"

	"github.com/packetboat/packetboat/firmware-sim/proc"
	"github.com/packetboat/packetboat/internal/rig/rawmqtt"
)

// doors are the addresses of an edge that listens in every way.
type doors struct {
	*broker
	mqtts, ws, wss string
	ca             string // file
	roots          *tls.Config
}

func allDoors(t *testing.T) *doors {
	t.Helper()
	if mosquittoInstead() {
		t.Skip("mosquitto is started with one listener")
	}
	cert, err := proc.NewCertificate(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	d := &doors{mqtts: freePort(t), ws: freePort(t), wss: freePort(t), ca: cert.File, roots: cert.Client}
	d.broker = newBroker(t, fmt.Sprintf("listen: {mqtt: 'MQTT_ADDR', http: 'HTTP_ADDR', mqtts: '%s', ws: '%s', wss: '%s'}\nsensors: {tls: {cert_file: '%s', key_file: '%s'}}", d.mqtts, d.ws, d.wss, cert.File, cert.Key))
	return d
}

func (d *doors) targets() map[string]string {
	return map[string]string{"tcp": "tcp://" + d.addr, "tls": "tls://" + d.mqtts, "ws": "ws://" + d.ws + "/mqtt", "wss": "wss://" + d.wss + "/mqtt"}
}

// TestTransports: the same conversation over all four, both versions.
func TestTransports(t *testing.T) {
	d := allDoors(t)
	for name, target := range d.targets() {
		for _, version := range []byte{v4, v5} {
			t.Run(name+"/"+versionName(version), func(t *testing.T) {
				c := newT(t, d.broker, version)
				nc, err := rawmqtt.Dial(t.Context(), target, d.roots)
				if err != nil {
					t.Fatal(err)
				}
				x := c.speak(nc, version)
				x.send(c.connectPacket(will(theWill(c, "over "+name, 2))))
				x.connack()
				x.subscribe(c.topic("#"), 2)
				for qos := range byte(3) {
					payload := strings.Repeat(name, 30_000)
					x.publish(message(c.topic("a"), qos, payload))
					x.want(c.topic("a"), payload)
				}
				sub := c.watch()
				x.drop()
				sub.want(c.topic("w"), "over "+name)
			})
		}
	}
}

// TestPahoGolang: the Go client of Eclipse Paho over all transports.
func TestPahoGolang(t *testing.T) {
	d := allDoors(t)
	for name, target := range d.targets() {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
			defer cancel()
			nc, err := rawmqtt.Dial(ctx, target, d.roots)
			if err != nil {
				t.Fatal(err)
			}
			got := make(chan *paho.Publish, 100)
			// A packet is several writes on anything but TCP; the lock keeps them together.
			c := paho.NewClient(paho.ClientConfig{Conn: packets.NewThreadSafeConn(nc), PacketTimeout: patience, OnPublishReceived: []func(paho.PublishReceived) (bool, error){
				func(p paho.PublishReceived) (bool, error) { got <- p.Packet; return true, nil }}})
			if _, err := c.Connect(ctx, &paho.Connect{ClientID: "go-" + name, KeepAlive: 30, CleanStart: true}); err != nil {
				t.Fatal(err)
			}
			topic := "go/" + name
			if _, err := c.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: topic + "/+", QoS: 2}}}); err != nil {
				t.Fatal(err)
			}
			for i := range 30 {
				p := &paho.Publish{Topic: fmt.Sprint(topic, "/", i), QoS: byte(i % 3), Payload: fmt.Append(nil, i), Properties: &paho.PublishProperties{ContentType: "n"}}
				if r, err := c.Publish(ctx, p); err != nil || r != nil && r.ReasonCode >= 0x80 {
					t.Fatalf("publishing %d: %v %+v", i, err, r)
				}
				select {
				case m := <-got:
					if m.Topic != p.Topic || string(m.Payload) != fmt.Sprint(i) || m.QoS != p.QoS || m.Properties.ContentType != "n" {
						t.Fatalf("message %d arrives as %v", i, m)
					}
				case <-ctx.Done():
					t.Fatalf("message %d does not arrive", i)
				}
			}
			if err := c.Disconnect(&paho.Disconnect{}); err != nil {
				t.Fatal(err)
			}
			<-c.Done()
		})
	}
}

// need finds a program, or says loudly that a test did not run.
func need(t *testing.T, names ...string) []string {
	t.Helper()
	var paths []string
	for _, name := range names {
		p, err := exec.LookPath(name)
		if err != nil {
			t.Skipf("NOT TESTED: %s is not installed", name)
		}
		paths = append(paths, p)
	}
	return paths
}

// output runs a program to its end.
func output(t *testing.T, program string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	b, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(program), strings.Join(args, " "), err, b)
	}
	return string(b)
}

// TestPahoPython: the Python client of Eclipse Paho over all transports.
func TestPahoPython(t *testing.T) {
	python := need(t, "python3")[0]
	if p := "/usr/bin/python3"; exec.Command(python, "-c", "import paho.mqtt.client").Run() != nil {
		python = p // Debian's package belongs to Debian's Python
	}
	if out, err := exec.Command(python, "-c", "import paho.mqtt.client").CombinedOutput(); err != nil {
		t.Skipf("NOT TESTED: Python has no paho.mqtt (Debian: python3-paho-mqtt): %s", out)
	}
	d := allDoors(t)
	for _, x := range []struct{ transport, addr, ca string }{{"tcp", d.addr, "-"}, {"tcp", d.mqtts, d.ca}, {"websockets", d.ws, "-"}, {"websockets", d.wss, d.ca}} {
		for _, version := range []string{"3.1.1", "5"} {
			t.Run(fmt.Sprintf("%s/tls=%t/%s", x.transport, x.ca != "-", version), func(t *testing.T) {
				t.Parallel()
				host, port, _ := net.SplitHostPort(x.addr)
				if got := output(t, python, filepath.Join("testdata", "paho_client.py"), version, x.transport, host, port, x.ca); strings.TrimSpace(got) != "ok" {
					t.Errorf("got %s", got)
				}
			})
		}
	}
}

// TestMosquittoClients: mosquitto_pub and mosquitto_sub over TCP and TLS. A
// session is made first, so that nothing depends on who is faster.
func TestMosquittoClients(t *testing.T) {
	programs := need(t, "mosquitto_pub", "mosquitto_sub")
	pub, sub := programs[0], programs[1]
	d := allDoors(t)
	for _, x := range []struct {
		name, addr string
		extra      []string
	}{{"tcp", d.addr, nil}, {"tls", d.mqtts, []string{"--cafile", d.ca}}} {
		for _, version := range []string{"mqttv311", "mqttv5"} {
			t.Run(x.name+"/"+version, func(t *testing.T) {
				t.Parallel()
				host, port, _ := net.SplitHostPort(x.addr)
				topic := "mosquitto/" + x.name + "/" + version
				common := append([]string{"-h", host, "-p", port, "-V", version, "-t", topic}, x.extra...)
				session := append([]string{"-c", "-i", x.name + version, "-q", "2"}, common...)
				if version == "mqttv5" {
					session = append(session, "-x", "600")
				}
				output(t, sub, append(session, "-E")...)
				for _, qos := range []string{"1", "2"} {
					output(t, pub, append([]string{"-q", qos, "-m", "of QoS " + qos}, common...)...)
				}
				if got := output(t, sub, append(session, "-C", "2", "-W", "30", "-F", "%q %p")...); got != "1 of QoS 1\n2 of QoS 2\n" {
					t.Errorf("mosquitto_sub got %q", got)
				}
				output(t, pub, append([]string{"-q", "1", "-r", "-m", "kept"}, common...)...)
				if got := output(t, sub, append([]string{"-C", "1", "-W", "30", "-F", "%q %r %p"}, common...)...); got != "0 1 kept\n" {
					t.Errorf("mosquitto_sub got %q", got)
				}
			})
		}
	}
}
