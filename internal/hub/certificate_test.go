package hub

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"

	"github.com/packetboat/packetboat/internal/mqttfront"
	"github.com/packetboat/packetboat/internal/pki"
	"github.com/packetboat/packetboat/pkg/stream"
)

// authority signs certificates for the hub and its devices, and revokes them.
type authority struct {
	t      *testing.T
	dir    string
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	serial int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir(), serial: 1}
	a.key = newKey(t)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(100 * 24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.write("ca", "CERTIFICATE", der)
	a.revoke()
	hub := a.issue("hub", func(c *x509.Certificate) {
		c.DNSNames, c.ExtKeyUsage = []string{"hub.example"}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
	keyDER, err := x509.MarshalPKCS8PrivateKey(hub.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	a.write("hub.crt", "CERTIFICATE", hub.Certificate[0])
	a.write("hub.key", "PRIVATE KEY", keyDER)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(a.file(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// issue signs a client's certificate.
func (a *authority) issue(name string, change ...func(*x509.Certificate)) tls.Certificate {
	a.t.Helper()
	a.serial++
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(a.serial), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(50 * 24 * time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, c := range change {
		c(tmpl)
	}
	key := newKey(a.t)
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// revoke writes a list of these certificates.
func (a *authority) revoke(certs ...tls.Certificate) {
	a.t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour)}
	for _, c := range certs {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.Leaf.SerialNumber, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.cert, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write("crl", "X509 CRL", der)
}

func (a *authority) config(auth pki.ClientAuth, devices string) Config {
	c := testConfig(a.t.TempDir())
	c.Listen.MQTT, c.Listen.MQTTS = Off, "127.0.0.1:0"
	c.TLS = TLS{CertFile: a.file("hub.crt"), KeyFile: a.file("hub.key"), ClientCAFile: a.file("ca"), CRLFile: a.file("crl"), ClientAuth: string(auth), Devices: devices}
	return c
}

// connect dials h over TLS, with a certificate unless it is nil.
func (a *authority) connect(h *running, cert *tls.Certificate, say hello) (*device, *paho.Connack, error) {
	a.t.Helper()
	return dialOver(a.t, a.dial(h, cert), say)
}

// dial does the handshake only.
func (a *authority) dial(h *running, cert *tls.Certificate) *tls.Conn {
	a.t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	conf := &tls.Config{RootCAs: roots, ServerName: "hub.example"}
	if cert != nil {
		conf.Certificates = []tls.Certificate{*cert}
	}
	conn, err := tls.Dial("tcp", h.mqttAddr().String(), conf)
	if err != nil {
		a.t.Fatal(err)
	}
	return conn
}

// Who is let in with which certificate and secret.
func TestCertificates(t *testing.T) {
	a := newAuthority(t)
	truck := a.issue("truck")
	several := a.issue("Fleet card", func(c *x509.Certificate) {
		c.DNSNames = []string{"ship"}
		c.URIs = []*url.URL{{Scheme: "urn", Opaque: "packetboat:device:van"}, {Scheme: "spiffe", Host: "fleet.example", Path: "/device/bus"}}
	})
	secret, sum := pki.NewSecret()
	wrong, _ := pki.NewSecret()
	const in = 0
	for _, c := range []struct {
		auth    pki.ClientAuth
		devices string
		cert    *tls.Certificate
		say     hello
		code    byte
	}{
		{pki.AuthOptional, DevicesAny, &truck, hello{id: "truck"}, in},
		{pki.AuthOptional, DevicesAny, &truck, hello{id: "ship"}, mqttfront.NotAuthorized},
		{pki.AuthOptional, DevicesAny, &truck, hello{id: "listed", secret: secret}, mqttfront.NotAuthorized}, // the right secret, another's certificate
		{pki.AuthOptional, DevicesAny, &truck, hello{id: "Truck"}, mqttfront.NotAuthorized},
		{pki.AuthOptional, DevicesAny, nil, hello{id: "truck"}, mqttfront.NotAuthorized}, // from this machine, even
		{pki.AuthOptional, DevicesAny, nil, hello{id: "listed", secret: secret}, in},
		{pki.AuthOptional, DevicesAny, nil, hello{id: "listed", secret: wrong}, mqttfront.BadUsernameOrPassword},
		{pki.AuthOptional, DevicesAny, nil, hello{id: "truck", secret: wrong}, mqttfront.BadUsernameOrPassword},
		{pki.AuthOptional, DevicesAny, &truck, hello{id: "truck", secret: wrong}, in}, // there is no secret that it could miss
		{pki.AuthOptional, DevicesAny, &several, hello{id: "ship"}, in},
		{pki.AuthOptional, DevicesAny, &several, hello{id: "van"}, in},
		{pki.AuthOptional, DevicesAny, &several, hello{id: "bus"}, in},
		{pki.AuthOptional, DevicesAny, &several, hello{id: "truck"}, mqttfront.NotAuthorized},
		{pki.AuthRequired, DevicesAny, &truck, hello{id: "truck"}, in},
		{pki.AuthRequired, DevicesListed, &truck, hello{id: "truck"}, mqttfront.NotAuthorized},
		{pki.AuthNone, DevicesAny, &truck, hello{id: "truck"}, mqttfront.NotAuthorized},
		{pki.AuthNone, DevicesAny, &truck, hello{id: "listed", secret: secret}, in},
	} {
		conf := a.config(c.auth, c.devices)
		if _, err := pki.SetUser(conf.DevicesPath(), "listed", sum); err != nil {
			t.Fatal(err)
		}
		h := runHub(t, conf)
		d, ack, err := a.connect(h, c.cert, c.say)
		if d != nil {
			d.bye() // a hub that stops waits for who is there
		}
		if ack == nil || ack.ReasonCode != c.code {
			t.Errorf("%s, %s, certificate %v, %+v: %v %+v, want 0x%02x", c.auth, c.devices, c.cert != nil, c.say, err, ack, c.code)
		}
		h.stop()
	}
}

// With a list of devices the certificate is not enough, an entry without secret
// is, and who is taken off the list is disconnected.
func TestListedCertificates(t *testing.T) {
	a := newAuthority(t)
	conf := a.config(pki.AuthRequired, DevicesListed)
	secret, sum := pki.NewSecret()
	wrong, _ := pki.NewSecret()
	for id, s := range map[string]pki.Sum{"plain": {}, "both": sum} {
		if _, err := pki.SetUser(conf.DevicesPath(), id, s); err != nil {
			t.Fatal(err)
		}
	}
	h := runHub(t, conf)
	plain, both, other := a.issue("plain"), a.issue("both"), a.issue("other")
	for _, c := range []struct {
		cert *tls.Certificate
		say  hello
		code byte
	}{
		{&plain, hello{id: "plain"}, 0}, {&both, hello{id: "both"}, 0}, {&both, hello{id: "both", secret: secret}, 0},
		{&both, hello{id: "both", secret: wrong}, mqttfront.BadUsernameOrPassword}, {&plain, hello{id: "plain", secret: wrong}, mqttfront.BadUsernameOrPassword},
		{&other, hello{id: "other"}, mqttfront.NotAuthorized},
	} {
		if _, ack, err := a.connect(h, c.cert, c.say); ack == nil || ack.ReasonCode != c.code {
			t.Errorf("%+v: %v %+v, want 0x%02x", c.say, err, ack, c.code)
		}
	}
	if n := h.bridge.stats.notListed.Load(); n != 1 {
		t.Errorf("%d counted", n)
	}
	d, _, err := a.connect(h, &plain, hello{id: "plain"})
	if err != nil {
		t.Fatal(err)
	}
	d.send(batch(stream.NewEpoch(), 1, 1)) // it is let in, on both sides
	if err := pki.RemoveUser(conf.DevicesPath(), "plain"); err != nil {
		t.Fatal(err)
	}
	h.bridge.expel()
	if code := d.disconnected(); code != mqttfront.NotAuthorized {
		t.Errorf("DISCONNECT 0x%02x", code)
	}
}

// A connection does not outlive its certificate: not its place off the list, not
// its authority, not its end.
func TestCertificatesEnd(t *testing.T) {
	a := newAuthority(t)
	h := runHub(t, a.config(pki.AuthRequired, DevicesAny))
	revoked, stays := a.issue("revoked"), a.issue("stays")
	ends := a.issue("ends", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(time.Hour) })
	connect := func(id string, cert tls.Certificate) *device {
		d, _, err := a.connect(h, &cert, hello{id: id})
		if err != nil {
			t.Fatal(err)
		}
		d.send(batch(stream.NewEpoch(), 1, 1)) // it is let in, on both sides
		return d
	}
	one, two, three := connect("revoked", revoked), connect("stays", stays), connect("ends", ends)
	h.bridge.expel()
	if n := h.bridge.stats.expelled.Load(); n != 0 {
		t.Fatalf("%d are expelled though nothing changed", n)
	}
	a.revoke(revoked)
	h.bridge.expel()
	if code := one.disconnected(); code != mqttfront.NotAuthorized {
		t.Errorf("revoked: DISCONNECT 0x%02x", code)
	}
	h.bridge.checking.Lock()
	h.bridge.mu.Lock()
	for s := range h.bridge.sessions {
		if s.device == "ends" {
			s.goodUntil = time.Now().Add(-time.Second)
		}
	}
	h.bridge.mu.Unlock()
	h.bridge.checking.Unlock()
	h.bridge.expel()
	if code := three.disconnected(); code != mqttfront.NotAuthorized {
		t.Errorf("at the end of its certificate: DISCONNECT 0x%02x", code)
	}
	two.send(batch(stream.NewEpoch(), 2, 1))
	if n := h.bridge.stats.expelled.Load(); n != 2 {
		t.Errorf("%d counted", n)
	}
	b := newAuthority(t)
	b.write("ca", "CERTIFICATE", b.cert.Raw)
	b.revoke()
	for _, f := range []string{"ca", "crl"} {
		data, err := os.ReadFile(b.file(f))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(a.file(f), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.bridge.expel()
	if code := two.disconnected(); code != mqttfront.NotAuthorized {
		t.Errorf("of an authority that is gone: DISCONNECT 0x%02x", code)
	}
}

// Who does the handshake while its certificate is good, and says CONNECT once it
// is revoked, gains nothing.
func TestRevokedBeforeConnect(t *testing.T) {
	a := newAuthority(t)
	h := runHub(t, a.config(pki.AuthRequired, DevicesAny))
	cert := a.issue("truck")
	conn := a.dial(h, &cert)
	if err := conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	for h.gate.Stats().Accepted == 0 { // the hub is done with it, too
		runtime.Gosched()
	}
	a.revoke(cert)
	d, _, err := dialOver(t, conn, hello{id: "truck"})
	if err != nil {
		t.Fatal(err)
	}
	d.send(batch(stream.NewEpoch(), 1, 1)) // it is let in, on both sides
	h.bridge.expel()
	if code := d.disconnected(); code != mqttfront.NotAuthorized {
		t.Errorf("DISCONNECT 0x%02x", code)
	}
}

// An authority opens the TLS port to elsewhere, and nothing else.
func TestReachWithCertificates(t *testing.T) {
	a := newAuthority(t)
	for _, c := range []struct {
		mqtt, mqtts string
		auth        pki.ClientAuth
		ok          bool
	}{
		{Off, "0.0.0.0:0", pki.AuthRequired, true}, {Off, "0.0.0.0:0", "", true}, {Off, "0.0.0.0:0", pki.AuthNone, false},
		{"0.0.0.0:0", "0.0.0.0:0", pki.AuthRequired, false}, {"127.0.0.1:0", "0.0.0.0:0", pki.AuthRequired, true},
	} {
		conf := a.config(c.auth, DevicesAny)
		conf.Listen = Listen{MQTT: c.mqtt, MQTTS: c.mqtts, HTTP: Off}
		h, err := Open(conf, discard)
		if (err == nil) != c.ok {
			t.Errorf("%+v: %v", c, err)
		}
		if err == nil {
			if err := h.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestCheckFiles(t *testing.T) {
	a := newAuthority(t)
	conf := a.config(pki.AuthOptional, DevicesAny)
	if warnings, err := conf.CheckFiles(); err != nil || len(warnings) > 0 {
		t.Errorf("%v %v", warnings, err)
	}
	if err := os.WriteFile(conf.DevicesPath(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if warnings := conf.Warnings(); len(warnings) > 0 {
		t.Errorf("%v", warnings)
	}
	for file, mode := range map[string]os.FileMode{conf.TLS.KeyFile: 0o604, conf.DevicesPath(): 0o602, conf.TLS.ClientCAFile: 0o646, conf.TLS.CRLFile: 0o602} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		if warnings := conf.Warnings(); len(warnings) != 1 || !strings.Contains(warnings[0], "every user") || !strings.Contains(warnings[0], file) {
			t.Errorf("mode %o of %s: %v", mode, file, warnings)
		}
		if err := os.Chmod(file, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, broken := range []func(*Config){
		func(c *Config) { c.TLS.ClientCAFile = a.file("hub.key") },
		func(c *Config) { c.TLS.CRLFile = a.file("ca") },
		func(c *Config) { c.TLS.KeyFile = a.file("ca") },
		func(c *Config) { c.DevicesFile = a.file("ca") },
	} {
		bad := conf
		broken(&bad)
		if _, err := bad.CheckFiles(); err == nil {
			t.Errorf("%+v is good", bad.TLS)
		}
	}
	now := time.Now()
	for _, s := range []struct {
		stats pki.ServerStats
		n     int
	}{
		{pki.ServerStats{NotAfter: now.Add(15 * 24 * time.Hour)}, 0}, {pki.ServerStats{NotAfter: now.Add(13 * 24 * time.Hour)}, 1},
		{pki.ServerStats{NotAfter: now.Add(-time.Hour), ClientCANotAfter: now.Add(time.Hour), Stale: true, NextUpdate: now}, 3},
	} {
		if got := tlsWarnings(s.stats, now); len(got) != s.n {
			t.Errorf("%+v: %v", s.stats, got)
		}
	}
}

// A device is one user, with its certificate alone and with its name: the other
// way of saying who it is takes its connection over.
func TestDeviceIsOneUser(t *testing.T) {
	a := newAuthority(t)
	h := runHub(t, a.config(pki.AuthRequired, DevicesAny))
	cert := a.issue("truck")
	old, _, err := a.connect(h, &cert, hello{id: "truck"})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.connect(h, &cert, hello{id: "truck", username: "truck"}); err != nil {
		t.Fatal(err)
	}
	if code := old.disconnected(); code != mqttfront.SessionTakenOver {
		t.Errorf("DISCONNECT 0x%02x", code)
	}
}
