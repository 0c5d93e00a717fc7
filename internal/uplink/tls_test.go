package uplink

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/packetboat/packetboat/internal/mqttfront"
	"github.com/packetboat/packetboat/internal/wire"
	"github.com/packetboat/packetboat/pkg/stream"
)

// certificate makes a self-signed one for 127.0.0.1.
func certificate(t testing.TB) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "hub"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestTLS(t *testing.T) {
	cert, pool := certificate(t)
	h, b := newHub(t), openBuffer(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	secure := mqttfront.New(h, mqttfront.Options{
		Listeners: []net.Listener{tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}})}, MinVersion: 5,
	})
	runUntilEnd(t, secure.Run)
	accept(t, b, stream.Normal, 0, 50)
	url := "tls://" + l.Addr().String()

	u, stop := start(t, b, quick(url)) // the system's roots do not know it
	eventually(t, "the error", func() bool { return strings.Contains(u.Stats().LastError, "set hub.tls.ca_file") })
	stop()
	if n, _ := h.count(); n != 0 {
		t.Fatalf("%d messages went to a hub that is not trusted", n)
	}
	o := quick(url)
	asked := 0
	o.TLSConfig = func() (*tls.Config, error) {
		asked++
		return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
	}
	start(t, b, o)
	settled(t, h, b, 50)
	h.do(func() { h.peers[len(h.peers)-1].Disconnect(codeShuttingDown, "") })
	accept(t, b, stream.Normal, 50, 50)
	settled(t, h, b, 100)
	if asked < 2 {
		t.Errorf("asked for the configuration %d times", asked)
	}
}

// The topic stands in the first batch of a connection only, if the hub allows
// an alias; each batch costs no more than its payload and 11 bytes then.
func TestTopicAlias(t *testing.T) {
	for _, allowed := range []bool{true, false} {
		h, b := newHub(t), openBuffer(t)
		accept(t, b, stream.Urgent, 0, 100)
		topics := make(chan string, 2)
		addr := impostor(t, h.addr, func(c net.Conn) {
			read(c)
			write(c, greeting(func(k *packets.Connack) {
				if !allowed {
					k.Properties.TopicAliasMaximum = nil
				}
			}))
			for range 2 {
				p := nextPublish(c)
				topics <- p.Topic
				var raw bytes.Buffer
				if _, err := p.WriteTo(&raw); err != nil {
					t.Error(err)
				}
				if p.Topic == "" && raw.Len() > len(p.Payload)+11 || allowed != (p.Properties.TopicAlias != nil) {
					t.Errorf("%d bytes for a payload of %d, alias %v", raw.Len(), len(p.Payload), p.Properties.TopicAlias)
				}
			}
			_ = c.Close()
		})
		start(t, b, quick("tcp://"+addr))
		second := ""
		if !allowed {
			second = wire.UpTopic(device)
		}
		if one, two := <-topics, <-topics; one != wire.UpTopic(device) || two != second {
			t.Errorf("alias allowed %v: topics %q and %q", allowed, one, two)
		}
		settled(t, h, b, 100)
	}
}
