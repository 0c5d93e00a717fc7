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

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// certificate makes a self-signed one for 127.0.0.1.
func certificate(t testing.TB) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "server"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2199, 1, 1, 0, 0, 0, 0, time.UTC), // synctest begins in 2000
		IsCA: true, BasicConstraintsValid: true,
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

func listenTCP(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// closing closes l at the end of the test and gives it back.
func closing(t testing.TB, l net.Listener) net.Listener {
	t.Helper()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// echo serves l: every connection gets back what it sends.
func echo(t testing.TB, l net.Listener) {
	t.Helper()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
}

func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("waited in vain for %s", what)
}

func exchange(t testing.TB, c net.Conn, text string) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Fatalf("got %q, %v", got, err)
	}
}

func TestTCPAndTLS(t *testing.T) {
	cert, pool := certificate(t)
	g := New(Options{})
	plain, secure := closing(t, g.TCP(listenTCP(t))), closing(t, g.TLS(listenTCP(t), &tls.Config{Certificates: []tls.Certificate{cert}}))
	for _, l := range []struct {
		net.Listener
		transport string
	}{{plain, "tcp"}, {secure, "tls"}} {
		served := make(chan net.Conn, 1)
		go func() {
			c, err := l.Accept()
			if err != nil {
				t.Error(err)
			}
			served <- c
		}()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if l.transport == "tls" {
			secured := tls.Client(c, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"})
			if err := secured.Handshake(); err != nil {
				t.Fatal(err)
			}
			c = secured
		}
		s := <-served
		if got := s.(interface{ Transport() string }).Transport(); got != l.transport {
			t.Errorf("transport %s, want %s", got, l.transport)
		}
		state, isTLS := s.(interface{ ConnectionState() tls.ConnectionState })
		if isTLS != (l.transport == "tls") || isTLS && !state.ConnectionState().HandshakeComplete {
			t.Errorf("%s: TLS %v", l.transport, isTLS)
		}
		if err := s.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Error(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("after CloseWrite: %v", err)
		}
		_, _ = c.Close(), s.Close()
	}
	if s := g.Stats(); s.Arrived != 2 || s.Accepted != 2 || s.Waiting+s.Handshaking != 0 || len(s.Refused) != len(Reasons) {
		t.Errorf("%+v", s)
	}
}
