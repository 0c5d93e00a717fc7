package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"sync"
)

// maxPEM bounds a file of certificates or a key, in bytes.
const maxPEM = 4 << 20

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
		out.RootCAs = pool.pool
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
	certAt  stamp            // of the files that were judged last; guarded by mu
	keyedAt stamp            // likewise
	told    complaint        // guarded by mu
}

// err says why the files' newest content is not in force.
func (p *keyPair) err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.told.err
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
	p.certAt, p.keyedAt = judged(certAt, err), judged(keyedAt, err)
	switch {
	case err == nil:
		p.last = pair
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
		return nil, &badContent{fmt.Errorf("%s with key %s: %w", cert, key, err)}
	}
	return &pair, nil
}

// caPool is a set of authorities that follows its file.
type caPool struct {
	path string
	log  *slog.Logger // may be nil

	mu   sync.Mutex
	last *authorities // guarded by mu
	at   stamp        // of the file that was judged last; guarded by mu
	told complaint    // guarded by mu
}

// authorities is one content of a file of certificates. It does not change.
type authorities struct {
	sum   Sum // of the file
	pool  *x509.CertPool
	certs []*x509.Certificate
}

// err says why the file's newest content is not in force.
func (c *caPool) err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.told.err
}

func (c *caPool) get() (*authorities, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, err := stampOf(c.path)
	if c.last != nil && err == nil && c.at.same(at) {
		return c.last, nil
	}
	var now *authorities
	if err == nil {
		now, err = readAuthorities(c.path, c.last)
	}
	c.told.about(c.log, "authorities", err)
	c.at = judged(at, err)
	switch {
	case err == nil:
		c.last = now
	case c.last == nil:
		return nil, fmt.Errorf("read the authorities: %w", err)
	}
	return c.last, nil
}

// readAuthorities gives last again if the content is the same: who holds it can
// tell by that that nothing has changed.
func readAuthorities(path string, last *authorities) (*authorities, error) {
	data, err := readBounded(path, maxPEM)
	if err != nil {
		return nil, err
	}
	sum := HashSecret(data)
	if last != nil && last.sum == sum {
		return last, nil
	}
	a, err := parseAuthorities(data)
	if err != nil {
		return nil, &badContent{fmt.Errorf("%s: %w", path, err)}
	}
	a.sum = sum
	return a, nil
}

func parseAuthorities(data []byte) (*authorities, error) {
	a := &authorities{pool: x509.NewCertPool()}
	begun := bytes.Count(data, []byte("-----BEGIN CERTIFICATE-----"))
	for len(data) > 0 {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		a.pool.AddCert(cert)
		a.certs = append(a.certs, cert)
	}
	switch {
	case len(a.certs) < begun:
		// pem.Decode passes over a damaged block, as at the end of a file that is
		// being written: everybody whom that authority signed for would be ended.
		return nil, fmt.Errorf("%d of %d certificates are whole PEM blocks", len(a.certs), begun)
	case len(a.certs) == 0:
		return nil, errors.New("there is no certificate in it")
	}
	return a, nil
}

// complaint says once per state that a file cannot be used, not per handshake.
type complaint struct{ err error }

func (c *complaint) about(log *slog.Logger, what string, err error) {
	was := c.err != nil
	c.err = err
	if bad := err != nil; bad != was {
		switch {
		case log == nil:
		case bad:
			log.Warn("changed tls files cannot be used, the last good ones stay in force", "files", what, "error", err)
		default:
			log.Info("tls files are good again", "files", what)
		}
	}
}
