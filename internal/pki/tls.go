package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
)

// maxPEM bounds a file of certificates or a key, in bytes.
const maxPEM = 4 << 20

// ServerFiles names the PEM files of a TLS server.
type ServerFiles struct {
	Cert     string // chain, the server's own first
	Key      string
	ClientCA string // who may sign client certificates; empty: none are asked for

	Logger *slog.Logger // told when a changed file cannot be used; nil: nobody is
}

// ServerTLS gives a configuration for TLS 1.2 and newer that follows its files:
// every handshake uses their newest content that can be read. A client
// certificate is asked for when ClientCA is set and verified when one is
// given; who insists on one looks at the connection's PeerCertificates.
func ServerTLS(f ServerFiles) (*tls.Config, error) {
	s := &keyPair{cert: f.Cert, key: f.Key, log: f.Logger}
	if _, err := s.get(); err != nil {
		return nil, err
	}
	c := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.get() },
	}
	if f.ClientCA == "" {
		return c, nil
	}
	pool := &caPool{path: f.ClientCA, log: f.Logger}
	if _, err := pool.get(); err != nil {
		return nil, err
	}
	base := c.Clone()
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		ca, err := pool.get()
		if err != nil {
			return nil, err
		}
		now := base.Clone()
		now.ClientCAs, now.ClientAuth = ca, tls.VerifyClientCertIfGiven
		return now, nil
	}
	return c, nil
}

// ClientFiles names the PEM files of a TLS client.
type ClientFiles struct {
	CA         string // who may sign the server's certificate; empty: the system's authorities
	Cert, Key  string // the client's own certificate; both empty for none
	ServerName string // the name the server must prove; empty: the host of the address

	Logger *slog.Logger // told when a changed file cannot be used; nil: nobody is
}

// Client makes configurations of a TLS client that follow their files. Methods
// are safe for concurrent use.
type Client struct {
	name string
	ca   *caPool  // nil: the system's
	pair *keyPair // nil: none
}

// OpenClientTLS reads the files once, to find out early whether they are good.
func OpenClientTLS(f ClientFiles) (*Client, error) {
	c := &Client{name: f.ServerName}
	if f.CA != "" {
		c.ca = &caPool{path: f.CA, log: f.Logger}
	}
	switch {
	case f.Cert != "" && f.Key != "":
		c.pair = &keyPair{cert: f.Cert, key: f.Key, log: f.Logger}
	case f.Cert != f.Key:
		return nil, errors.New("a client certificate needs both its certificate and its key file")
	}
	_, err := c.Config()
	return c, err
}

// Config gives a configuration for TLS 1.2 and newer from the newest content of
// the files, for one connection. It is the caller's to change. The client
// certificate follows its file by itself.
func (c *Client) Config() (*tls.Config, error) {
	out := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.name}
	if c.ca != nil {
		pool, err := c.ca.get()
		if err != nil {
			return nil, err
		}
		out.RootCAs = pool
	}
	if c.pair != nil {
		if _, err := c.pair.get(); err != nil {
			return nil, err
		}
		out.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.pair.get() }
	}
	return out, nil
}

// keyPair is a certificate with its key that follows its files.
type keyPair struct {
	cert, key string
	log       *slog.Logger // may be nil

	mu      sync.Mutex
	last    *tls.Certificate // guarded by mu
	certAt  stamp            // guarded by mu
	keyedAt stamp            // guarded by mu
	told    complaint        // guarded by mu
}

// get gives the newest pair. While the files do not fit together, as between
// two renames of a renewal, the last good one stays in use.
func (p *keyPair) get() (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	certAt, err1 := stampOf(p.cert)
	keyedAt, err2 := stampOf(p.key)
	err := errors.Join(err1, err2)
	if p.last != nil && err == nil && p.certAt.same(certAt) && p.keyedAt.same(keyedAt) {
		return p.last, nil
	}
	var pair *tls.Certificate
	if err == nil {
		pair, err = readPair(p.cert, p.key)
	}
	p.told.about(p.log, "certificate", err)
	switch {
	case err == nil:
		p.last, p.certAt, p.keyedAt = pair, certAt, keyedAt
	case p.last == nil:
		return nil, fmt.Errorf("read the certificate: %w", err)
	}
	return p.last, nil
}

func readPair(cert, key string) (*tls.Certificate, error) {
	certPEM, err := readBounded(cert, maxPEM)
	if err != nil {
		return nil, err
	}
	keyPEM, err := readBounded(key, maxPEM)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("%s with key %s: %w", cert, key, err)
	}
	return &pair, nil
}

// caPool is a set of authorities that follows its file.
type caPool struct {
	path string
	log  *slog.Logger // may be nil

	mu   sync.Mutex
	last *x509.CertPool // guarded by mu
	at   stamp          // guarded by mu
	told complaint      // guarded by mu
}

func (c *caPool) get() (*x509.CertPool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, err := stampOf(c.path)
	if c.last != nil && err == nil && c.at.same(at) {
		return c.last, nil
	}
	var pem []byte
	if err == nil {
		pem, err = readBounded(c.path, maxPEM)
	}
	pool := x509.NewCertPool()
	if err == nil && !pool.AppendCertsFromPEM(pem) {
		err = fmt.Errorf("%s holds no certificate", c.path)
	}
	c.told.about(c.log, "authorities", err)
	switch {
	case err == nil:
		c.last, c.at = pool, at
	case c.last == nil:
		return nil, fmt.Errorf("read the authorities: %w", err)
	}
	return c.last, nil
}

// complaint says once per state that a file cannot be used, not per handshake.
type complaint struct{ bad bool }

func (c *complaint) about(log *slog.Logger, what string, err error) {
	if bad := err != nil; bad != c.bad {
		c.bad = bad
		switch {
		case log == nil:
		case bad:
			log.Warn("changed tls files cannot be used, the last good ones stay in force", "files", what, "error", err)
		default:
			log.Info("tls files are good again", "files", what)
		}
	}
}
