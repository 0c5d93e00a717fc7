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
	lastUnder *authorities // that last was checked with; guarded by mu
	at        stamp        // of the file that was judged last; guarded by mu
	under     *authorities // that it was judged with; guarded by mu
	told      complaint    // guarded by mu
	toldStale bool         // guarded by mu
}

// revocations is one content of such a file. It does not change.
type revocations struct {
	sum        Sum // of the file
	lists      int
	revoked    map[string]struct{} // by issuer and serial number
	nextUpdate time.Time           // the earliest; zero: none
	editions   map[string]edition  // the newest list, by who signed it
}

// edition tells which of two lists of one authority is the newer one.
type edition struct {
	issuer string
	number *big.Int // nil: it has none
	made   time.Time
}

func (e edition) olderThan(o edition) bool {
	if e.number != nil && o.number != nil {
		if c := e.number.Cmp(o.number); c != 0 {
			return c < 0
		}
	}
	return e.made.Before(o.made)
}

// follows gives an error unless every list of r is at least as new as that of
// the same authority before. Lists need no secrecy and are often fetched in
// clear: who stands in between could play an old one again, and bring back who
// was revoked since.
func (r *revocations) follows(before *revocations) error {
	for signer, e := range r.editions {
		if was, ok := before.editions[signer]; ok && e.olderThan(was) {
			return fmt.Errorf("the list of %.80q is older than the one in force: number %v of %s, after number %v of %s; it counts after a restart",
				e.issuer, e.number, e.made.UTC().Format(time.RFC3339), was.number, was.made.UTC().Format(time.RFC3339))
		}
	}
	return nil
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
		f.at, f.under = judged(at, err), ca
		switch {
		case err == nil:
			f.toldStale = f.toldStale && f.last == now
			f.last, f.lastUnder = now, ca
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
	if f.last != nil && f.lastUnder == ca && f.last.sum == HashSecret(data) {
		return f.last, nil
	}
	now, err := parseRevocations(f.path, data, ca)
	if err == nil && f.last != nil {
		if err = now.follows(f.last); err != nil {
			err = fmt.Errorf("%s: %w", f.path, err)
		}
	}
	if err != nil {
		return nil, &badContent{err}
	}
	return now, nil
}

func parseRevocations(path string, data []byte, ca *authorities) (*revocations, error) {
	out := &revocations{sum: HashSecret(data), revoked: map[string]struct{}{}, editions: map[string]edition{}}
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
	signer, err := signerOf(list, ca)
	if err != nil {
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
	by := string(signer.RawSubject) + string(signer.RawSubjectPublicKeyInfo) // a renewed certificate goes on with its lists
	e := edition{signer.Subject.String(), list.Number, list.ThisUpdate}
	if other, ok := r.editions[by]; !ok || other.olderThan(e) {
		r.editions[by] = e
	}
	r.lists++
	return nil
}

// signerOf finds the authority that signed a list.
func signerOf(list *x509.RevocationList, ca *authorities) (*x509.Certificate, error) {
	err := errors.New("no such authority there")
	for _, c := range ca.certs {
		if !bytes.Equal(c.RawSubject, list.RawIssuer) {
			continue
		}
		if err = list.CheckSignatureFrom(c); err == nil {
			return c, nil
		}
	}
	return nil, fmt.Errorf("the list of %.80q is not signed by a certificate of the authorities' file: %w", list.Issuer, err)
}
