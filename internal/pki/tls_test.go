package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// authority issues certificates for the tests.
type authority struct {
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	serial int64
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key, 1}
}

func (a *authority) writeCA(t *testing.T, path string) {
	t.Helper()
	writePEM(t, path, "CERTIFICATE", a.cert.Raw)
}

func (a *authority) issue(t *testing.T, name, certPath, keyPath string) *x509.Certificate {
	t.Helper()
	return a.issueAs(t, certPath, keyPath, func(c *x509.Certificate) { c.Subject.CommonName, c.DNSNames = name, []string{name} })
}

func (a *authority) issueAs(t *testing.T, certPath, keyPath string, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	a.serial++
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(a.serial), NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	change(tmpl)
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, certPath, "CERTIFICATE", der)
	writePEM(t, keyPath, "PRIVATE KEY", keyDER)
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// handshake gives what each side saw of the other.
func handshake(t *testing.T, server, client *tls.Config) (atServer, atClient tls.ConnectionState, err error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			served <- err
			return
		}
		defer c.Close()
		s := tls.Server(c, server)
		err = s.Handshake()
		atServer = s.ConnectionState()
		if err == nil {
			_, err = s.Write([]byte("x"))
		}
		served <- err
	}()
	d := &tls.Dialer{Config: client}
	c, err := d.Dial("tcp", l.Addr().String())
	if err == nil {
		atClient = c.(*tls.Conn).ConnectionState()
		_, err = c.Read(make([]byte, 1)) // a refused client certificate shows here
		c.Close()
	}
	return atServer, atClient, errors.Join(err, <-served)
}

func TestTLSFollowsItsFiles(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	first, second := newAuthority(t, "first"), newAuthority(t, "second")
	first.writeCA(t, file("ca"))
	first.issue(t, "hub-1", file("cert"), file("key"))
	first.issue(t, "truck-17", file("dcert"), file("dkey"))
	server, err := ServerTLS(ServerFiles{Cert: file("cert"), Key: file("key"), ClientCAFile: file("ca")})
	if err != nil {
		t.Fatal(err)
	}
	client, err := OpenClientTLS(ClientFiles{CA: file("ca"), Cert: file("dcert"), Key: file("dkey")})
	if err != nil {
		t.Fatal(err)
	}
	config := func() *tls.Config {
		c, err := client.Config()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	s, c, err := handshake(t, server, config())
	if err != nil {
		t.Fatal(err)
	}
	if got := s.PeerCertificates[0].Subject.CommonName; got != "truck-17" {
		t.Errorf("the server saw %s", got)
	}
	if got := c.PeerCertificates[0].Subject.CommonName; got != "hub-1" {
		t.Errorf("the client saw %s", got)
	}

	// A renewal under way: the certificate is new, its key is not there yet.
	old, _ := os.ReadFile(file("key"))
	first.issue(t, "hub-2", file("cert"), file("newkey"))
	if _, c, err = handshake(t, server, config()); err != nil || c.PeerCertificates[0].Subject.CommonName != "hub-1" {
		t.Errorf("half a renewal: %v", err)
	}
	if now, _ := os.ReadFile(file("key")); string(now) != string(old) {
		t.Fatal("the test changed the key")
	}
	if err := os.Rename(file("newkey"), file("key")); err != nil {
		t.Fatal(err)
	}
	if _, c, err = handshake(t, server, config()); err != nil || c.PeerCertificates[0].Subject.CommonName != "hub-2" {
		t.Errorf("after the renewal: %v", err)
	}

	// Another authority: the old certificates are refused, new ones are taken.
	second.writeCA(t, file("ca"))
	if _, _, err := handshake(t, server, config()); err == nil {
		t.Error("a certificate of the old authority is accepted")
	}
	second.issue(t, "hub-3", file("cert"), file("key"))
	second.issue(t, "truck-18", file("dcert"), file("dkey"))
	s, _, err = handshake(t, server, config())
	if err != nil || s.PeerCertificates[0].Subject.CommonName != "truck-18" {
		t.Errorf("after the change of authority: %v", err)
	}
}

func TestTLSRefuses(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	ca.writeCA(t, file("ca"))
	ca.issue(t, "hub", file("cert"), file("key"))
	other.issue(t, "truck-17", file("dcert"), file("dkey"))
	server, err := ServerTLS(ServerFiles{Cert: file("cert"), Key: file("key"), ClientCAFile: file("ca")})
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := OpenClientTLS(ClientFiles{CA: file("ca"), Cert: file("dcert"), Key: file("dkey")})
	if err != nil {
		t.Fatal(err)
	}
	c, _ := foreign.Config()
	if _, _, err := handshake(t, server, c); err == nil {
		t.Error("a client certificate of another authority is accepted")
	}
	misnamed, err := OpenClientTLS(ClientFiles{CA: file("ca"), ServerName: "someone-else"})
	if err != nil {
		t.Fatal(err)
	}
	c, _ = misnamed.Config()
	if _, _, err := handshake(t, server, c); err == nil {
		t.Error("a server with another name is accepted")
	}
	bare, err := OpenClientTLS(ClientFiles{CA: file("ca")})
	if err != nil {
		t.Fatal(err)
	}
	c, _ = bare.Config()
	if s, _, err := handshake(t, server, c); err != nil || len(s.PeerCertificates) != 0 {
		t.Errorf("without a certificate: %v", err)
	}
	c.MinVersion, c.MaxVersion = tls.VersionTLS11, tls.VersionTLS11
	if _, _, err := handshake(t, server, c); err == nil {
		t.Error("TLS 1.1 is accepted")
	}
	for _, f := range []ServerFiles{{Cert: file("none"), Key: file("key")}, {Cert: file("cert"), Key: file("dkey")}, {Cert: file("cert"), Key: file("key"), ClientCAFile: file("key")}} {
		if _, err := ServerTLS(f); err == nil {
			t.Errorf("%+v is accepted", f)
		}
	}
	for _, f := range []ClientFiles{{CA: file("none")}, {Cert: file("cert")}, {CA: file("key")}} {
		if _, err := OpenClientTLS(f); err == nil {
			t.Errorf("%+v is accepted", f)
		}
	}
}
