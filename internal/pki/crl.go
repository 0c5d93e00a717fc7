package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"sync"
	"time"
)

// maxCRL bounds a file of revocation lists, in bytes: half a million entries.
const maxCRL = 32 << 20

// crlFile is a set of revocation lists that follows its file.
type crlFile struct {
	path string
	log  *slog.Logger // may be nil

	mu        sync.Mutex
	last      *revocations // guarded by mu
	at        stamp        // guarded by mu
	under     *authorities // last was checked with these; guarded by mu
	told      complaint    // guarded by mu
	toldStale bool         // guarded by mu
}

// revocations is one content of such a file. It does not change.
type revocations struct {
	sum        Sum // of the file
	lists      int
	revoked    map[string]struct{} // by issuer and serial number
	nextUpdate time.Time           // the earliest; zero: none
}

func (r *revocations) stale(now time.Time) bool {
	return !r.nextUpdate.IsZero() && now.After(r.nextUpdate)
}

func serialKey(issuer []byte, serial *big.Int) string {
	return string(issuer) + "\x00" + string(serial.Bytes())
}

// check gives an error if a certificate of the chain is revoked; its root is
// not asked about: who does not trust it takes it out of the file.
func (r *revocations) check(chain []*x509.Certificate) error {
	for _, c := range chain[:max(1, len(chain)-1)] {
		if _, ok := r.revoked[serialKey(c.RawIssuer, c.SerialNumber)]; ok {
			return fmt.Errorf("certificate of %.80q, serial number %x, is revoked", c.Subject.CommonName, c.SerialNumber)
		}
	}
	return nil
}

// err says why the file's newest content is not in force.
func (f *crlFile) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.told.err
}

// get gives the newest lists that can be read and that ca has signed. Lists
// that cannot be used leave the last good ones in force.
func (f *crlFile) get(ca *authorities) (*revocations, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at, err := stampOf(f.path)
	if f.last == nil || err != nil || !f.at.same(at) || f.under != ca {
		var now *revocations
		if err == nil {
			now, err = f.read(ca)
		}
		f.told.about(f.log, "revocation lists", err)
		switch {
		case err == nil:
			f.toldStale = f.toldStale && f.last == now
			f.last, f.at, f.under = now, at, ca
		case f.last == nil:
			return nil, fmt.Errorf("read the revocation lists: %w", err)
		}
	}
	if stale := f.last.stale(time.Now()); stale != f.toldStale {
		f.toldStale = stale
		if stale && f.log != nil {
			f.log.Warn("revocation list is out of date; what it names stays revoked, what came after it is not known",
				"path", f.path, "next_update", f.last.nextUpdate)
		}
	}
	return f.last, nil
}

// read gives last again if neither the content nor the authorities changed. mu
// is held.
func (f *crlFile) read(ca *authorities) (*revocations, error) {
	data, err := readBounded(f.path, maxCRL)
	if err != nil {
		return nil, err
	}
	if f.last != nil && f.under == ca && f.last.sum == HashSecret(data) {
		return f.last, nil
	}
	return parseRevocations(f.path, data, ca)
}

func parseRevocations(path string, data []byte, ca *authorities) (*revocations, error) {
	out := &revocations{sum: HashSecret(data), revoked: map[string]struct{}{}}
	if !bytes.Contains(data, []byte("-----BEGIN ")) {
		if err := out.add(data, ca); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return out, nil
	}
	begun := bytes.Count(data, []byte("-----BEGIN X509 CRL-----"))
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "X509 CRL" {
			continue
		}
		if err := out.add(block.Bytes, ca); err != nil {
			return nil, fmt.Errorf("%s, list %d: %w", path, out.lists+1, err)
		}
	}
	switch {
	case out.lists < begun:
		// pem.Decode passes over a damaged block: who it names would be let in.
		return nil, fmt.Errorf("%s: %d of %d lists are whole PEM blocks", path, out.lists, begun)
	case out.lists == 0:
		return nil, fmt.Errorf("%s holds no revocation list", path)
	}
	return out, nil
}

// add takes in one list, if an authority has signed it.
func (r *revocations) add(der []byte, ca *authorities) error {
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return err
	}
	if err := signedByOne(list, ca); err != nil {
		return err
	}
	for _, e := range list.Extensions {
		if e.Critical {
			// Such as a delta list, or one for some certificates only.
			return fmt.Errorf("the list of %.80q has the critical extension %s, which is not supported; use a complete list", list.Issuer, asn1.ObjectIdentifier(e.Id))
		}
	}
	for i := range list.RevokedCertificateEntries {
		r.revoked[serialKey(list.RawIssuer, list.RevokedCertificateEntries[i].SerialNumber)] = struct{}{}
	}
	if next := list.NextUpdate; !next.IsZero() && (r.nextUpdate.IsZero() || next.Before(r.nextUpdate)) {
		r.nextUpdate = next
	}
	r.lists++
	return nil
}

func signedByOne(list *x509.RevocationList, ca *authorities) error {
	err := errors.New("no such authority there")
	for _, c := range ca.certs {
		if !bytes.Equal(c.RawSubject, list.RawIssuer) {
			continue
		}
		if err = list.CheckSignatureFrom(c); err == nil {
			return nil
		}
	}
	return fmt.Errorf("the list of %.80q is not signed by a certificate of the authorities' file: %w", list.Issuer, err)
}
