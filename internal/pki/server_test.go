package pki

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// revoke gives the PEM of a list that names certs; it should be replaced at next.
func (a *authority) revoke(t *testing.T, next time.Time, certs ...*x509.Certificate) []byte {
	t.Helper()
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: a.revokeDER(t, next, nil, certs...)})
}

func (a *authority) revokeDER(t *testing.T, next time.Time, extra []pkix.Extension, certs ...*x509.Certificate) []byte {
	t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-2 * time.Hour), NextUpdate: next, ExtraExtensions: extra}
	for _, c := range certs {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.cert, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func put(t *testing.T, path string, data ...[]byte) {
	t.Helper()
	if err := os.WriteFile(path, bytes.Join(data, nil), 0o600); err != nil {
		t.Fatal(err)
	}
}

// world is a server with authorities and two clients' certificates.
type world struct {
	dir           string
	first, second *authority
	one, two      *x509.Certificate // of the clients, one by each authority
}

func (w *world) file(name string) string { return filepath.Join(w.dir, name) }

func newWorld(t *testing.T) *world {
	w := &world{dir: t.TempDir(), first: newAuthority(t, "first"), second: newAuthority(t, "second")}
	w.first.issue(t, "hub", w.file("cert"), w.file("key"))
	w.one = w.first.issue(t, "truck-1", w.file("one.crt"), w.file("one.key"))
	w.two = w.second.issue(t, "truck-2", w.file("two.crt"), w.file("two.key"))
	var both []byte
	for _, a := range []*authority{w.first, w.second} {
		both = append(both, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})...)
	}
	put(t, w.file("ca"), both)
	put(t, w.file("crl"), w.first.revoke(t, time.Now().Add(time.Hour)))
	return w
}

func (w *world) files() ServerFiles {
	return ServerFiles{Cert: w.file("cert"), Key: w.file("key"), ClientCAFile: w.file("ca"), CRLFile: w.file("crl")}
}

// client gives a configuration with the named certificate, "" for none.
func (w *world) client(t *testing.T, name string) *tls.Config {
	t.Helper()
	f := ClientFiles{CA: w.file("ca")}
	if name != "" {
		f.Cert, f.Key = w.file(name+".crt"), w.file(name+".key")
	}
	c, err := OpenClientTLS(f)
	if err != nil {
		t.Fatal(err)
	}
	conf, err := c.Config()
	if err != nil {
		t.Fatal(err)
	}
	return conf
}

// reason is what a server's error says of itself.
func reason(err error) string {
	if r, ok := errors.AsType[*certError](err); ok {
		return r.HandshakeReason()
	}
	return ""
}

func TestRevocation(t *testing.T) {
	w := newWorld(t)
	s, err := OpenServerTLS(w.files())
	if err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Hour)
	try := func(what string, one, two bool) {
		t.Helper()
		for name, good := range map[string]bool{"one": one, "two": two} {
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				c := w.client(t, name)
				c.MaxVersion = version
				state, _, err := handshake(t, s.Config(), c)
				if (err == nil) != good || !good && reason(err) != "revoked" {
					t.Errorf("%s: %s over %x: %v", what, name, version, err)
				}
				if good && s.Trust().Check(&state) != nil {
					t.Errorf("%s: %s: a good connection is not any more: %v", what, name, s.Trust().Check(&state))
				}
			}
		}
		if s.Err() != nil {
			t.Errorf("%s: %v", what, s.Err())
		}
	}
	try("empty list", true, true)
	open, _, err := handshake(t, s.Config(), w.client(t, "one"))
	if err != nil {
		t.Fatal(err)
	}
	before := s.Trust()
	put(t, w.file("crl"), []byte("a comment\n"), w.first.revoke(t, later, w.one))
	try("the first", false, true)
	if now := s.Trust(); now == before || reason(now.Check(&open)) != "revoked" || before.Check(&open) != nil {
		t.Errorf("an open connection: before %v, now %v", before.Check(&open), now.Check(&open))
	}
	if again := s.Trust(); again != s.Trust() {
		t.Error("what is in force changes though no file does")
	}
	put(t, w.file("crl"), w.first.revoke(t, later), w.second.revoke(t, later, w.two))
	try("two lists", true, false)
	put(t, w.file("crl"), w.first.revokeDER(t, later, nil, w.one))
	try("DER", false, true)
	// The serial number counts with its issuer.
	same := *w.one
	same.SerialNumber = w.two.SerialNumber
	put(t, w.file("crl"), w.second.revoke(t, later, &same))
	try("by the other authority", true, false)
	if st := s.Stats(); st.Lists != 1 || st.Revoked != 1 || st.Stale || st.Unusable || !st.NextUpdate.Equal(later.UTC().Truncate(time.Second)) ||
		st.NotAfter.IsZero() || st.ClientCANotAfter.IsZero() {
		t.Errorf("%+v", st)
	}
}

// What cannot be used changes nothing, and is said.
func TestUnusableListsLeaveTheLastGoodOnes(t *testing.T) {
	w := newWorld(t)
	later := time.Now().Add(time.Hour)
	put(t, w.file("crl"), w.first.revoke(t, later, w.one))
	var out strings.Builder
	f := w.files()
	f.Logger = slog.New(slog.NewTextHandler(&out, nil))
	s, err := OpenServerTLS(f)
	if err != nil {
		t.Fatal(err)
	}
	stranger := newAuthority(t, "first") // of the same name
	good := w.first.revoke(t, later)
	delta := pkix.Extension{Id: []int{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 1}}
	for _, bad := range []struct {
		what  string
		spoil func()
		want  string
	}{
		{"rubbish", func() { put(t, w.file("crl"), []byte("rubbish")) }, "crl"},
		{"empty", func() { put(t, w.file("crl")) }, "crl"},
		{"gone", func() { _ = os.Remove(w.file("crl")) }, "no such file"},
		{"a certificate", func() { w.first.writeCA(t, w.file("crl")) }, "no revocation list"},
		{"of a stranger", func() { put(t, w.file("crl"), stranger.revoke(t, later)) }, "not signed"},
		{"of an unknown issuer", func() { put(t, w.file("crl"), newAuthority(t, "third").revoke(t, later)) }, "not signed"},
		{"half", func() { put(t, w.file("crl"), good, good[:len(good)/2]) }, "1 of 2 lists"},
		{"damaged", func() { put(t, w.file("crl"), bytes.Replace(good, []byte("MI"), []byte("@@"), 1), good) }, "1 of 2 lists"},
		{"a delta", func() { put(t, w.file("crl"), w.first.revokeDER(t, later, []pkix.Extension{delta})) }, "2.5.29.27"},
	} {
		bad.spoil()
		if _, _, err := handshake(t, s.Config(), w.client(t, "one")); reason(err) != "revoked" {
			t.Errorf("%s: %v", bad.what, err)
		}
		if err := s.Err(); err == nil || !strings.Contains(err.Error(), bad.want) || !s.Stats().Unusable {
			t.Errorf("%s: says %v", bad.what, err)
		}
		if _, err := OpenServerTLS(w.files()); err == nil {
			t.Errorf("%s: a server starts with it", bad.what)
		}
	}
	if n := strings.Count(out.String(), "cannot be used"); n != 1 {
		t.Errorf("told %d times:\n%s", n, out.String())
	}
	put(t, w.file("crl"), good)
	if _, _, err := handshake(t, s.Config(), w.client(t, "one")); err != nil || s.Err() != nil {
		t.Errorf("good again: %v, %v", err, s.Err())
	}
	// A list that is out of date is enforced, and complained of once.
	put(t, w.file("crl"), w.first.revoke(t, time.Now().Add(-time.Hour), w.one))
	for range 3 {
		if _, _, err := handshake(t, s.Config(), w.client(t, "one")); reason(err) != "revoked" {
			t.Errorf("out of date: %v", err)
		}
	}
	if !s.Stats().Stale || s.Err() != nil {
		t.Errorf("%+v, %v", s.Stats(), s.Err())
	}
	if n := strings.Count(out.String(), "out of date"); n != 1 {
		t.Errorf("told %d times:\n%s", n, out.String())
	}
}

// TLS sessions that are resumed bring no certificate: they are no way around a
// revocation, a changed authority, or an end.
func TestResumedSessions(t *testing.T) {
	later := time.Now().Add(time.Hour)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		w := newWorld(t)
		s, err := OpenServerTLS(w.files())
		if err != nil {
			t.Fatal(err)
		}
		server := s.Config()
		client := w.client(t, "one")
		client.ClientSessionCache = tls.NewLRUClientSessionCache(10)
		client.MinVersion, client.MaxVersion, client.ServerName = version, version, "hub"
		// Twice: the first brings the ticket.
		for i := range 3 {
			state, _, err := handshake(t, server, client)
			if err != nil || state.DidResume != (i > 0) || UserOf(&state) != "truck-1" || !slices.Equal(DeviceOf(&state), []string{"truck-1"}) {
				t.Fatalf("%x, connection %d: %v, resumed %v, device %v", version, i, err, state.DidResume, DeviceOf(&state))
			}
		}
		put(t, w.file("crl"), w.first.revoke(t, later, w.one))
		if _, _, err := handshake(t, server, client); reason(err) != "revoked" {
			t.Errorf("%x: a revoked certificate resumes: %v", version, err)
		}
		put(t, w.file("crl"), w.first.revoke(t, later))
		for range 2 {
			if _, _, err := handshake(t, server, client); err != nil {
				t.Fatal(err)
			}
		}
		put(t, w.file("crl"), w.second.revoke(t, later))
		w.second.writeCA(t, w.file("ca"))
		if _, _, err := handshake(t, server, client); err == nil {
			t.Errorf("%x: a certificate of an authority that is gone resumes", version)
		}
	}
}

func TestClientAuth(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		auth      ClientAuth
		with, out bool   // with a certificate, without
		foreign   bool   // with one of nobody's
		seen      string // of the certificate
	}{
		{AuthNone, true, true, true, ""}, {AuthOptional, true, true, false, "truck-1"}, {"", true, true, false, "truck-1"}, {AuthRequired, true, false, false, "truck-1"},
	} {
		f := w.files()
		f.ClientAuth = c.auth
		conf, err := ServerTLS(f)
		if err != nil {
			t.Fatal(err)
		}
		state, _, err := handshake(t, conf, w.client(t, "one"))
		if (err == nil) != c.with || UserOf(&state) != c.seen {
			t.Errorf("%q with a certificate: %v, seen %q", c.auth, err, UserOf(&state))
		}
		if _, _, err := handshake(t, conf, w.client(t, "")); (err == nil) != c.out {
			t.Errorf("%q without: %v", c.auth, err)
		}
		newAuthority(t, "third").issue(t, "x", w.file("x.crt"), w.file("x.key"))
		foreign := w.client(t, "")
		pair, err := tls.LoadX509KeyPair(w.file("x.crt"), w.file("x.key"))
		if err != nil {
			t.Fatal(err)
		}
		foreign.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		if _, _, err := handshake(t, conf, foreign); (err == nil) != c.foreign {
			t.Errorf("%q with a foreign one: %v", c.auth, err)
		}
	}
	for _, f := range []ServerFiles{
		{Cert: w.file("cert"), Key: w.file("key"), ClientAuth: AuthRequired},
		{Cert: w.file("cert"), Key: w.file("key"), ClientCAFile: w.file("ca"), ClientAuth: "sometimes"},
	} {
		if _, err := OpenServerTLS(f); err == nil {
			t.Errorf("%+v is accepted", f)
		}
	}
	// A server's certificate is no client's.
	w.first.issueAs(t, w.file("s.crt"), w.file("s.key"), func(c *x509.Certificate) {
		c.Subject.CommonName, c.ExtKeyUsage = "truck-1", []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
	conf, err := ServerTLS(w.files())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := handshake(t, conf, w.client(t, "s")); err == nil {
		t.Error("a server's certificate lets a client in")
	}
}

func TestDeviceOf(t *testing.T) {
	uri := func(text string) *url.URL {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	for _, c := range []struct {
		what string
		cert *x509.Certificate
		want []string
	}{
		{"common name", &x509.Certificate{Subject: pkix.Name{CommonName: "truck-17"}}, []string{"truck-17"}},
		{"all kinds, none twice", &x509.Certificate{Subject: pkix.Name{CommonName: "a"}, DNSNames: []string{"a", "b.example"},
			URIs: []*url.URL{uri("urn:packetboat:device:c"), uri("spiffe://fleet.example/device/d")}}, []string{"a", "b.example", "c", "d"}},
		{"no ids", &x509.Certificate{Subject: pkix.Name{CommonName: "Packetboat devices"}, DNSNames: []string{"*.fleet.example", "", strings.Repeat("x", 65)},
			URIs: []*url.URL{uri("https://fleet.example/device/e"), uri("urn:packetboat:f"), uri("urn:packetboat:device:"), uri("urn:packetboat:device:g/h"),
				uri("spiffe://fleet.example/workload/i"), uri("spiffe://fleet.example/device/j/k"), uri("spiffe://fleet.example/x/device/l")}}, nil},
		{"addresses are none", &x509.Certificate{EmailAddresses: []string{"m@example"}}, nil},
	} {
		state := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c.cert}, VerifiedChains: [][]*x509.Certificate{{c.cert}}}
		if got := DeviceOf(state); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
		state.VerifiedChains = nil
		if got := DeviceOf(state); got != nil || UserOf(state) != "" {
			t.Errorf("%s, not verified: %v", c.what, got)
		}
	}
	if DeviceOf(nil) != nil || UserOf(nil) != "" || !GoodUntil(nil).IsZero() {
		t.Error("a plain connection has names")
	}
	at := func(h int) *x509.Certificate { return &x509.Certificate{NotAfter: time.Unix(int64(h), 0)} }
	if got := GoodUntil(&tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{at(5), at(3)}, {at(9), at(4)}}}); got.Unix() != 4 {
		t.Errorf("good until %v", got)
	}
}

// Whatever the file holds: no panic, and no list that the authority has not
// signed.
func FuzzReadRevocations(f *testing.F) {
	f.Add([]byte("-----BEGIN X509 CRL-----\nMIIB\n-----END X509 CRL-----\n"))
	f.Add([]byte{0x30, 0x03, 0x02, 0x01, 0x01})
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := parseRevocations("crl", data, &authorities{}); err == nil {
			t.Fatalf("%d lists of nobody", r.lists)
		}
	})
}
