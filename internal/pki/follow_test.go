package pki

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// rest puts data into a file that has been like that for an hour.
func rest(t *testing.T, path string, data ...[]byte) {
	t.Helper()
	put(t, path, data...)
	at := time.Now().Add(-time.Hour).Truncate(time.Second)
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

// A file that is wrong is read once and not for each stranger that knocks; one
// that is away and comes back is good again.
func TestBadFilesAreReadOnce(t *testing.T) {
	w := newWorld(t)
	key, err := os.ReadFile(w.file("key"))
	if err != nil {
		t.Fatal(err)
	}
	rest(t, w.file("key"), key)
	s, err := OpenServerTLS(w.files())
	if err != nil {
		t.Fatal(err)
	}
	secret, sum := NewSecret()
	users := filepath.Join(w.dir, "users")
	if _, err := SetUser(users, "a", sum); err != nil {
		t.Fatal(err)
	}
	u, err := OpenUsers(users, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		look func() error
	}{
		{"crl", func() error { s.Trust(); return s.Err() }},
		{"ca", func() error { s.Trust(); return s.Err() }},
		{"cert", func() error { s.Stats(); return s.Err() }},
		{"users", func() error { u.Check("a", []byte(secret)); return u.Err() }},
	} {
		path := w.file(c.name)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		rest(t, path, bytes.Repeat([]byte("x"), len(good)))
		if c.look() == nil {
			t.Errorf("%s: rubbish is not noticed", c.name)
		}
		rest(t, path, good) // cannot be told from the rubbish by its stamp: who sees it has read again
		if c.look() == nil {
			t.Errorf("%s: a file that has not changed was read again", c.name)
		}
		put(t, path, good)
		if err := c.look(); err != nil {
			t.Errorf("%s: good again: %v", c.name, err)
		}
		rest(t, path, good)
		if err := c.look(); err != nil {
			t.Error(err)
		}
		if err := os.Rename(path, path+".away"); err != nil {
			t.Fatal(err)
		}
		if c.look() == nil {
			t.Errorf("%s: nobody misses it", c.name)
		}
		if err := os.Rename(path+".away", path); err != nil {
			t.Fatal(err)
		}
		if err := c.look(); err != nil {
			t.Errorf("%s: back again: %v", c.name, err)
		}
	}
}

// A file of authorities that is half written ends nobody's connection.
func TestHalfAuthorities(t *testing.T) {
	w := newWorld(t)
	both, err := os.ReadFile(w.file("ca"))
	if err != nil {
		t.Fatal(err)
	}
	clients := []*tls.Config{w.client(t, "one"), w.client(t, "two")}
	s, err := OpenServerTLS(w.files())
	if err != nil {
		t.Fatal(err)
	}
	cut := bytes.LastIndex(both, []byte("-----END CERTIFICATE-----"))
	for _, data := range [][]byte{both[:cut], bytes.Replace(both, []byte("MI"), []byte("@@"), 1)} {
		put(t, w.file("ca"), data)
		for i, c := range clients {
			if _, _, err := handshake(t, s.Config(), c); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
		}
		if err := s.Err(); err == nil || !strings.Contains(err.Error(), "1 of 2 certificates") {
			t.Errorf("says %v", err)
		}
		if _, err := OpenServerTLS(w.files()); err == nil {
			t.Error("a server starts with it")
		}
	}
}

// An old list is no way to bring back who was revoked since.
func TestOlderListsAreNotTaken(t *testing.T) {
	w := newWorld(t)
	now := time.Now().Truncate(time.Second)
	list := func(a *authority, number int64, made time.Time, certs ...*x509.Certificate) []byte {
		r := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: made, NextUpdate: now.Add(time.Hour)}
		for _, c := range certs {
			r.RevokedCertificateEntries = append(r.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: made})
		}
		der, err := x509.CreateRevocationList(rand.Reader, r, a.cert, a.key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
	}
	put(t, w.file("crl"), list(w.first, 7, now.Add(-time.Hour), w.one))
	s, err := OpenServerTLS(w.files())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what    string
		data    []byte
		old, in bool // is it refused, does the client get in
	}{
		{"a smaller number", list(w.first, 6, now, w.two), true, false},
		{"made earlier", list(w.first, 7, now.Add(-2*time.Hour)), true, false},
		{"with one of another authority", append(list(w.second, 1, now), list(w.first, 6, now)...), true, false},
		{"of another authority alone", list(w.second, 1, now), false, true},
		{"a larger number, made earlier", list(w.first, 8, now.Add(-2*time.Hour)), false, true},
		{"two of one authority", append(list(w.first, 7, now), list(w.first, 9, now)...), false, true},
	} {
		put(t, w.file("crl"), c.data)
		if _, _, err := handshake(t, s.Config(), w.client(t, "one")); (err == nil) != c.in {
			t.Errorf("%s: %v", c.what, err)
		}
		if err := s.Err(); (err != nil) != c.old || c.old && !strings.Contains(err.Error(), "older") {
			t.Errorf("%s: says %v", c.what, err)
		}
	}
}

// Lists are judged by the authorities of now, whichever of the files changed.
func TestListsFollowAuthorities(t *testing.T) {
	w := newWorld(t)
	later := time.Now().Add(time.Hour)
	both, err := os.ReadFile(w.file("ca"))
	if err != nil {
		t.Fatal(err)
	}
	client := w.client(t, "two")
	s, err := OpenServerTLS(w.files())
	if err != nil {
		t.Fatal(err)
	}
	w.first.writeCA(t, w.file("ca"))
	rest(t, w.file("crl"), w.second.revoke(t, later, w.two))
	if s.Trust(); s.Err() == nil {
		t.Error("a list of an authority that is gone is taken")
	}
	put(t, w.file("ca"), both)
	if _, _, err := handshake(t, s.Config(), client); reason(err) != "revoked" || s.Err() != nil {
		t.Errorf("its authority is back: %v, %v", err, s.Err())
	}
	w.first.writeCA(t, w.file("ca"))
	if s.Trust(); s.Err() == nil || !strings.Contains(s.Err().Error(), "not signed") {
		t.Errorf("its authority is gone again: %v", s.Err())
	}
	// Another authority of the same name has lists, and numbers, of its own.
	twin := newAuthority(t, "first")
	put(t, w.file("ca"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.first.cert.Raw}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: twin.cert.Raw}))
	put(t, w.file("crl"), w.first.revoke(t, later))
	if s.Trust(); s.Err() != nil {
		t.Fatal(s.Err())
	}
	older := &x509.RevocationList{Number: big.NewInt(0), ThisUpdate: time.Now().Add(-24 * time.Hour), NextUpdate: later}
	der, err := x509.CreateRevocationList(rand.Reader, older, twin.cert, twin.key)
	if err != nil {
		t.Fatal(err)
	}
	put(t, w.file("crl"), pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
	if s.Trust(); s.Err() != nil {
		t.Error(s.Err())
	}
}

// Whom a revoked authority in between signed for is out, too.
func TestRevokedBetween(t *testing.T) {
	leaf := &x509.Certificate{RawIssuer: []byte("between"), SerialNumber: big.NewInt(7)}
	between := &x509.Certificate{RawIssuer: []byte("root"), SerialNumber: big.NewInt(8)}
	root := &x509.Certificate{RawIssuer: []byte("root"), SerialNumber: big.NewInt(9)}
	for _, c := range []struct {
		revoked *x509.Certificate
		out     bool
	}{{leaf, true}, {between, true}, {root, false}} {
		r := &revocations{revoked: map[string]struct{}{serialKey(c.revoked.RawIssuer, c.revoked.SerialNumber): {}}}
		if err := r.check([]*x509.Certificate{leaf, between, root}); (err != nil) != c.out {
			t.Errorf("%s, %d: %v", c.revoked.RawIssuer, c.revoked.SerialNumber, err)
		}
	}
}
