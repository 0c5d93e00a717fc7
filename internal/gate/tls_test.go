package gate

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"testing"
	"time"
)

// selfSigned makes a client certificate of its own authority, of about size bytes.
func selfSigned(t *testing.T, size int) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "stranger"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtraExtensions: []pkix.Extension{{Id: []int{1, 2, 3, 4}, Value: make([]byte, size)}},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

type namedError struct{ reason string }

func (e namedError) Error() string           { return "no: " + e.reason }
func (e namedError) HandshakeReason() string { return e.reason }

// Each way to fail has its reason, in TLS 1.2 and 1.3.
func TestReasonsOfTLS(t *testing.T) {
	cert, pool := certificate(t)
	stranger, giant := selfSigned(t, 1), selfSigned(t, 2*handshakeBytes)
	named := func(reason string) *tls.Config {
		return &tls.Config{VerifyConnection: func(tls.ConnectionState) error { return namedError{reason} }}
	}
	// With Certificates the client would send none that we do not name.
	bring := func(c tls.Certificate) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c, nil }
	}
	for _, c := range []struct {
		what   string
		server *tls.Config
		client *tls.Config
		reason string
	}{
		{"no certificate", &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}, &tls.Config{RootCAs: pool}, NoClientCert},
		{"a stranger's", &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}, &tls.Config{RootCAs: pool, GetClientCertificate: bring(stranger)}, ClientCert},
		{"a giant one", &tls.Config{ClientAuth: tls.RequireAnyClientCert}, &tls.Config{RootCAs: pool, GetClientCertificate: bring(giant)}, TooLarge},
		{"revoked", named(Revoked), &tls.Config{RootCAs: pool}, Revoked},
		{"a reason nobody knows", named("whatever"), &tls.Config{RootCAs: pool}, TLS},
		{"not trusted", &tls.Config{}, &tls.Config{RootCAs: x509.NewCertPool()}, ClientAlert},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			g := New(Options{})
			c.server.Certificates = []tls.Certificate{cert}
			l := g.TLS(listenTCP(t), c.server)
			echo(t, l)
			raw, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			_ = raw.SetDeadline(time.Now().Add(20 * time.Second))
			conf := c.client.Clone()
			conf.ServerName, conf.MinVersion, conf.MaxVersion = "127.0.0.1", version, version
			client := tls.Client(raw, conf)
			err = client.Handshake()
			if err == nil {
				// In TLS 1.3 a client learns later that it is refused: it has sent
				// data by then, which must not take the alert away.
				_, _ = io.WriteString(client, "CONNECT")
				_, err = client.Read(make([]byte, 1))
			}
			if err == nil || c.reason != ClientAlert && c.reason != TooLarge && !isAlert(err) {
				t.Errorf("%s, version %x: the client is told %v", c.what, version, err)
			}
			_ = raw.Close()
			await(t, "the refusal", func() bool { return g.Stats().Refused[c.reason] == 1 })
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			if s := g.Stats(); total(s) != 1 || s.Accepted != 0 {
				t.Errorf("%s, version %x: %+v", c.what, version, s)
			}
		}
	}
}

// Who has gone before his turn came costs no turn.
func TestGoneBeforeTheirTurn(t *testing.T) {
	g := New(Options{Rate: 1e-6, Burst: 2})
	l := closing(t, g.TCP(listenTCP(t)))
	dial := func() net.Conn {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	var quitters []net.Conn
	for range 10 {
		quitters = append(quitters, dial())
	}
	for _, c := range quitters {
		_ = c.Close()
	}
	if !canTell(t) {
		t.Skip("SKIPPED: this system cannot tell who has left without reading")
	}
	// The rate lets two through for ever.
	for range 2 {
		c := dial()
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.Copy(s, s); _ = s.Close() }()
		exchange(t, c, "hello")
		_ = c.Close()
	}
	if s := g.Stats(); s.Refused[Left] != 10 || s.Accepted != 2 {
		t.Errorf("%+v", s)
	}
}

// canTell finds out whether gone works here.
func canTell(t *testing.T) bool {
	t.Helper()
	l := listenTCP(t)
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if gone(s) {
		t.Error("somebody who is there has gone")
	}
	_ = c.Close()
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if gone(s) {
			return true
		}
	}
	return false
}
