package linkbench

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"
)

// counted counts what is written to a connection.
type counted struct {
	net.Conn
	written int // owned by the writer until it has ended
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.written += n
	return n, err
}

// handshakeTLS is what TLS 1.3 takes to begin, up and down, to some ten bytes:
// a hub with one certificate of ECDSA P-256, a device without.
func handshakeTLS() (up, down int, err error) {
	config, err := hubTLS()
	if err != nil {
		return 0, 0, fmt.Errorf("making a certificate: %w", err)
	}
	edge, hub := net.Pipe()
	defer edge.Close()
	defer hub.Close()
	limit := time.Now().Add(time.Minute)
	_, _ = edge.SetDeadline(limit), hub.SetDeadline(limit) // a pipe has deadlines
	atEdge, atHub := &counted{Conn: edge}, &counted{Conn: hub}
	done := make(chan error, 1)
	go func() {
		c := tls.Server(atHub, config)
		_, err := c.Write([]byte{0}) // with it go the tickets, behind the handshake
		done <- err
	}()
	c := tls.Client(atEdge, &tls.Config{MinVersion: tls.VersionTLS13, ServerName: "hub", RootCAs: roots(config)})
	_, err = c.Read(make([]byte, 1))
	if err != nil {
		_ = edge.Close() // the other side need not wait
	}
	if err = errors.Join(err, <-done); err != nil {
		return 0, 0, fmt.Errorf("shaking hands: %w", err)
	}
	return atEdge.written, atHub.written - tlsRecord - 1, nil
}

func hubTLS() (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"hub"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}}}, nil
}

func roots(c *tls.Config) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(c.Certificates[0].Leaf)
	return pool
}
