package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"testing"
	"time"
)

// authority signs certificates and revocation lists for a test.
type authority struct {
	w     *world
	cert  *x509.Certificate
	key   *ecdsa.PrivateKey
	lists int64
}

func (w *world) authority() *authority {
	w.t.Helper()
	a := &authority{w: w}
	a.cert, a.key = a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, nil, nil)
	a.w.write("ca.pem", pemOf("CERTIFICATE", a.cert.Raw))
	return a
}

func pemOf(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// sign makes a key and a certificate for it; without parent it signs itself.
func (a *authority) sign(c *x509.Certificate, parent *x509.Certificate, by *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.w.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.w.t.Fatal(err)
	}
	if parent == nil {
		parent, by = c, key
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, by)
	if err != nil {
		a.w.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.w.t.Fatal(err)
	}
	return cert, key
}

// issue writes <file>.pem and <file>-key.pem for a name, and for loopback.
func (a *authority) issue(file, name string) *x509.Certificate {
	a.w.t.Helper()
	cert, key := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, a.key)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.w.t.Fatal(err)
	}
	a.w.replace(file+"-key.pem", pemOf("PRIVATE KEY", der))
	a.w.replace(file+".pem", pemOf("CERTIFICATE", cert.Raw))
	return cert
}

// revoke writes the list of these certificates.
func (a *authority) revoke(certs ...*x509.Certificate) {
	a.w.t.Helper()
	a.lists++
	list := &x509.RevocationList{Number: big.NewInt(a.lists), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour)}
	for _, c := range certs {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.cert, a.key)
	if err != nil {
		a.w.t.Fatal(err)
	}
	a.w.replace("ca.crl", pemOf("X509 CRL", der))
}

// replace writes a file beside, and puts it in place at once.
func (w *world) replace(name, text string) {
	w.t.Helper()
	w.write(name+".new", text)
	if err := os.Rename(w.path(name+".new"), w.path(name)); err != nil {
		w.t.Fatal(err)
	}
}

// A device proves itself with a certificate. One that is revoked is put out and
// stays out, the edge keeps what it takes, and says why nothing moves; with a new
// certificate all of it arrives.
func TestRevokedDeviceCertificate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.hub.stop()
	ca := w.authority()
	ca.issue("hub", "hub")
	first := ca.issue("truck", "truck")
	ca.revoke()
	secure := freePort(t)
	w.write("hub.yaml", fmt.Sprintf("data_dir: %s\nlisten:\n  mqtt: off\n  mqtts: %s\n  http: %s\ntls:\n  cert_file: %s\n  key_file: %s\n  client_ca_file: %s\n  client_auth: required\n  crl_file: %s\n",
		w.path("hub-data"), secure, w.hubHTTP, w.path("hub.pem"), w.path("hub-key.pem"), w.path("ca.pem"), w.path("ca.crl")))
	w.startHub()
	w.hubURL = "tls://" + secure
	w.hubTLS = fmt.Sprintf("  tls:\n    ca_file: %s\n    cert_file: %s\n    key_file: %s\n", w.path("ca.pem"), w.path("truck.pem"), w.path("truck-key.pem"))
	e := w.newEdge("edge", "edge-data")
	sim := w.sensors(e, 81, 300)
	eventually(t, "something settles", func() bool { return e.settled() > 100 })

	ca.revoke(first)
	eventually(t, "the edge is put out and comes again in vain", func() bool {
		return metric(e.http, "packetboat_edge_link_up") == 0 && metric(e.http, "packetboat_edge_link_connect_failures_total") >= 2
	})
	settled, accepted := e.settled(), e.accepted()
	eventually(t, "sensors are served on", func() bool { return e.accepted() > accepted+300 })
	if s := e.status(); e.settled() != settled || s.Link.State == "up" || s.Link.LastError == "" {
		t.Errorf("settled %.0f before and %.0f now, link %+v", settled, e.settled(), s.Link)
	} else {
		t.Logf("the edge says: %s", s.Link.LastError)
	}

	ca.issue("truck", "truck")
	eventually(t, "the new certificate is taken", func() bool { return e.settled() > settled })
	sim.stop()
	e.drained()
	w.proven()
}
