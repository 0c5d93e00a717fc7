package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// ClientAuth says what a TLS server wants of its clients.
type ClientAuth string

// The values of ClientAuth. The empty one is AuthOptional where authorities are
// named, else AuthNone.
const (
	AuthNone     ClientAuth = "none"     // certificates are not asked for
	AuthOptional ClientAuth = "optional" // one that is given must be good
	AuthRequired ClientAuth = "required" // without one there is no connection
)

// ClientAuths lists the values that a configuration may name.
var ClientAuths = []ClientAuth{AuthNone, AuthOptional, AuthRequired}

// ServerFiles names the files of a TLS server: PEM, but for revocation lists,
// which may be DER.
type ServerFiles struct {
	Cert string // chain, the server's own first
	Key  string
	// ClientCAFile holds the authorities that may sign client certificates, and
	// the intermediate ones whose revocation lists are used.
	ClientCAFile string
	ClientAuth   ClientAuth
	// CRLFile holds revocation lists, one or more, each signed by a certificate
	// of ClientCAFile. Empty: nothing is revoked.
	CRLFile string

	Logger *slog.Logger // told when a changed file cannot be used; nil: nobody is
}

// Server is the TLS side of a listener. It follows its files: every handshake
// uses their newest content that can be used. Methods are safe for concurrent
// use.
type Server struct {
	auth ClientAuth
	pair *keyPair
	ca   *caPool     // nil: no client certificates
	crl  *crlFile    // nil: no revocation lists
	base *tls.Config // constant

	mu    sync.Mutex
	trust *Trust // guarded by mu; nil without ca
}

// OpenServerTLS reads the files once, to find out early whether they are good.
func OpenServerTLS(f ServerFiles) (*Server, error) {
	s := &Server{auth: f.ClientAuth, pair: &keyPair{cert: f.Cert, key: f.Key, log: f.Logger}}
	if s.auth == "" && f.ClientCAFile != "" {
		s.auth = AuthOptional
	}
	if _, err := s.pair.get(); err != nil {
		return nil, err
	}
	s.base = &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.pair.get() },
	}
	switch s.auth {
	case "", AuthNone:
		return s, nil
	case AuthOptional, AuthRequired:
	default:
		return nil, fmt.Errorf("%q is no way to ask clients for certificates; want none, optional or required", s.auth)
	}
	if f.ClientCAFile == "" {
		return nil, errors.New("client certificates are wanted, and no file names their authorities")
	}
	s.ca = &caPool{path: f.ClientCAFile, log: f.Logger}
	if f.CRLFile != "" {
		s.crl = &crlFile{path: f.CRLFile, log: f.Logger}
	}
	if _, err := s.current(); err != nil {
		return nil, err
	}
	return s, nil
}

// ServerTLS is the configuration of OpenServerTLS, for who needs no more.
func ServerTLS(f ServerFiles) (*tls.Config, error) {
	s, err := OpenServerTLS(f)
	if err != nil {
		return nil, err
	}
	return s.Config(), nil
}

// Config is for TLS 1.2 and newer. A client certificate is checked in every
// handshake, those that resume a session included: against the authorities, the
// dates and the revocation lists of now.
func (s *Server) Config() *tls.Config {
	c := s.base.Clone()
	if s.ca == nil {
		return c
	}
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		t, err := s.current()
		if err != nil {
			return nil, err
		}
		return t.config, nil
	}
	return c
}

// Trust gives what is in force now; nil where no client certificates are asked
// for. As long as no file changes it is the same one.
func (s *Server) Trust() *Trust {
	if s.ca == nil {
		return nil
	}
	t, err := s.current()
	if err != nil {
		return nil // cannot be: there is a last good one since OpenServerTLS
	}
	return t
}

// current makes a new Trust when a file has changed.
func (s *Server) current() (*Trust, error) {
	ca, err := s.ca.get()
	if err != nil {
		return nil, err
	}
	var lists *revocations
	if s.crl != nil {
		if lists, err = s.crl.get(ca); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.trust; t != nil && t.ca == ca && t.lists == lists {
		return t, nil
	}
	t := &Trust{ca: ca, lists: lists, required: s.auth == AuthRequired}
	t.config = s.base.Clone()
	t.config.ClientCAs, t.config.ClientAuth = ca.pool, tls.VerifyClientCertIfGiven
	if t.required {
		t.config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	// Not VerifyPeerCertificate, which a resumed session passes by.
	t.config.VerifyConnection = func(cs tls.ConnectionState) error {
		if cs.DidResume || len(cs.PeerCertificates) == 0 {
			return t.Check(&cs)
		}
		return t.notRevoked(cs.VerifiedChains) // the handshake has just verified them
	}
	s.trust = t
	return t, nil
}

// Err says why the newest content of a file is not in force; nil when all is.
func (s *Server) Err() error {
	errs := []error{s.pair.err()}
	if s.ca != nil {
		errs = append(errs, s.ca.err())
	}
	if s.crl != nil {
		errs = append(errs, s.crl.err())
	}
	return errors.Join(errs...)
}

// ServerStats says how long the files of a server are good for.
type ServerStats struct {
	// NotAfter is the end of the server's own certificate, ClientCANotAfter the
	// earliest end among the authorities of clients; zero: there are none.
	NotAfter, ClientCANotAfter time.Time
	// Lists and Revoked count revocation lists and the certificates on them.
	Lists, Revoked int
	// NextUpdate is the earliest time at which a list should have been replaced;
	// zero: none says. Stale: it has passed. The list is still enforced.
	NextUpdate time.Time
	Stale      bool
	// Unusable says that a changed file could not be used and the last good one
	// is in force.
	Unusable bool
}

// Stats looks at the files as a handshake would.
func (s *Server) Stats() ServerStats {
	var st ServerStats
	if pair, err := s.pair.get(); err == nil && pair.Leaf != nil {
		st.NotAfter = pair.Leaf.NotAfter
	}
	if t := s.Trust(); t != nil {
		for _, c := range t.ca.certs {
			if st.ClientCANotAfter.IsZero() || c.NotAfter.Before(st.ClientCANotAfter) {
				st.ClientCANotAfter = c.NotAfter
			}
		}
		if l := t.lists; l != nil {
			st.Lists, st.Revoked, st.NextUpdate = l.lists, len(l.revoked), l.nextUpdate
			st.Stale = l.stale(time.Now())
		}
	}
	st.Unusable = s.Err() != nil
	return st
}

// Trust is what a server believes of client certificates at one time. It does
// not change.
type Trust struct {
	ca       *authorities
	lists    *revocations // nil: none
	required bool
	config   *tls.Config
}

// Check reports what a handshake would say of a connection's client now: nil
// for a good certificate, and for none where none is required. Its errors have
// a method HandshakeReason: no_client_cert, client_cert or revoked.
func (t *Trust) Check(cs *tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 {
		if t.required {
			return &certError{"no_client_cert", errors.New("client brought no certificate")}
		}
		return nil
	}
	leaf := cs.PeerCertificates[0]
	between := x509.NewCertPool()
	for _, c := range cs.PeerCertificates[1:] {
		between.AddCert(c)
	}
	chains, err := leaf.Verify(x509.VerifyOptions{Roots: t.ca.pool, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return &certError{"client_cert", fmt.Errorf("certificate of %.80q: %w", leaf.Subject.CommonName, err)}
	}
	return t.notRevoked(chains)
}

// notRevoked wants one chain in which nothing is revoked.
func (t *Trust) notRevoked(chains [][]*x509.Certificate) (err error) {
	if t.lists == nil {
		return nil
	}
	for _, chain := range chains {
		if err = t.lists.check(chain); err == nil {
			return nil
		}
	}
	return &certError{"revoked", err}
}

// certError is a client certificate that is not accepted.
type certError struct {
	reason string
	err    error
}

func (e *certError) Error() string { return e.err.Error() }
func (e *certError) Unwrap() error { return e.err }

// HandshakeReason sorts the error.
func (e *certError) HandshakeReason() string { return e.reason }
