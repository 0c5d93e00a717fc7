package sensors

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/packetboat/packetboat/internal/mqttfront"
	"github.com/packetboat/packetboat/internal/pki"
)

// authority signs client certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	next int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key, next: 1}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

// client is the state of a connection whose client has a certificate for cn.
func (a *authority) client(t *testing.T, cn string) *tls.ConnectionState {
	t.Helper()
	a.next++
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(a.next), Subject: pkix.Name{CommonName: cn},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}, VerifiedChains: [][]*x509.Certificate{{leaf, a.cert}}}
}

// trust writes the authority's file and a list of revoked certificates.
func (a *authority) trust(t *testing.T, dir string, revoked ...*tls.ConnectionState) {
	t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(time.Now().UnixNano()), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour)}
	for _, r := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: r.PeerCertificates[0].SerialNumber, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.cert, a.key)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"ca.pem": {Type: "CERTIFICATE", Bytes: a.cert.Raw}, "key.pem": {Type: "PRIVATE KEY", Bytes: key}, "crl.pem": {Type: "X509 CRL", Bytes: der}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// Whose name a sensor acts under, and who is refused.
func TestWho(t *testing.T) {
	a := newAuthority(t)
	gps := a.client(t, "gps")
	unverified := &tls.ConnectionState{PeerCertificates: gps.PeerCertificates}
	known := users{"bob": "right", "gps": "right"}
	for _, tc := range []struct {
		what           string
		users          Users
		anonymous      bool
		tls            *tls.ConnectionState
		name, password string
		user           string
		code           byte
	}{
		{"a certificate alone", known, false, gps, "", "", "gps", 0},
		{"a certificate alone, no users", nil, false, gps, "", "", "gps", 0},
		{"a certificate wins over anonymity", nil, true, gps, "", "", "gps", 0},
		{"a certificate and its own name", known, false, gps, "gps", "wrong", "gps", 0},
		{"a certificate and a proven other name", known, false, gps, "bob", "right", "bob", 0},
		{"a certificate and an unproven other name", known, false, gps, "bob", "wrong", "", mqttfront.BadUsernameOrPassword},
		{"a certificate and a name that nobody can prove", nil, true, gps, "bob", "x", "gps", 0},
		{"a certificate that was not verified", known, false, unverified, "", "", "", mqttfront.NotAuthorized},
		{"a certificate that was not verified, anonymous", nil, true, unverified, "", "", "", 0},
		{"a certificate without a usable name", known, false, a.client(t, "gps\x01"), "", "", "", mqttfront.NotAuthorized},
		{"a certificate without a name", known, false, a.client(t, ""), "", "", "", mqttfront.NotAuthorized},
		{"TLS without a certificate", known, false, &tls.ConnectionState{}, "bob", "right", "bob", 0},
		{"a name that proves nothing", nil, true, nil, "bob", "", "", 0},
	} {
		s, err := New(&fakeBuffer{}, Options{Users: tc.users, AllowAnonymous: tc.anonymous})
		if err != nil {
			t.Fatal(err)
		}
		p := &mqttfront.Peer{ClientID: "c", Username: tc.name, Password: []byte(tc.password), TLS: tc.tls}
		c, code := admit(t, s, p)
		if code != tc.code {
			t.Errorf("%s: code 0x%02x, want 0x%02x", tc.what, code, tc.code)
		}
		if c == nil {
			continue
		}
		if p.Username != tc.user || c.(*session).user != tc.user {
			t.Errorf("%s: acts as %q, want %q", tc.what, p.Username, tc.user)
		}
		c.Close(nil)
		if len(s.sessions) != 0 {
			t.Errorf("%s: remembered after its end", tc.what)
		}
	}
}

// Who is taken out of the users file or given another password, or whose
// certificate is revoked or over, is disconnected; others stay.
func TestRecheck(t *testing.T) {
	a, dir := newAuthority(t), t.TempDir()
	gps, radar, over, both, nameless := a.client(t, "gps"), a.client(t, "radar"), a.client(t, "over"), a.client(t, "both"), a.client(t, "")
	a.trust(t, dir)
	server, err := pki.OpenServerTLS(pki.ServerFiles{Cert: filepath.Join(dir, "ca.pem"), Key: filepath.Join(dir, "key.pem"),
		ClientCAFile: filepath.Join(dir, "ca.pem"), ClientAuth: pki.AuthOptional, CRLFile: filepath.Join(dir, "crl.pem")})
	if err != nil {
		t.Fatal(err)
	}
	known := users{"bob": "right", "eve": "right", "zoe": "right", "kim": "right"}
	s, err := New(&fakeBuffer{}, Options{Users: known, AllowAnonymous: true, Trust: server.Trust})
	if err != nil {
		t.Fatal(err)
	}
	ended := map[string]string{}
	connect := func(id, name string, state *tls.ConnectionState) {
		p := &mqttfront.Peer{ClientID: id, Username: name, Password: []byte("right"), TLS: state}
		p.Disconnect = func(code byte, reason string) {
			if code != mqttfront.NotAuthorized {
				t.Errorf("%s ends with 0x%02x", id, code)
			}
			ended[id] += reason
		}
		if _, code := admit(t, s, p); code != 0 {
			t.Fatalf("%s is refused with 0x%02x", id, code)
		}
	}
	connect("anonymous", "", nil)
	connect("bob1", "bob", nil)
	connect("bob2", "bob", nil)
	connect("eve", "eve", nil)
	connect("gps", "", gps)
	connect("radar", "", radar)
	connect("over", "", over)
	connect("zoe", "zoe", nil)
	connect("kim", "kim", radar)     // its certificate is of no use for that name
	connect("eve-both", "eve", both) // the password lets in, the certificate did the handshake
	connect("nameless", "", nameless)
	if s.Recheck(); len(ended) != 0 {
		t.Fatalf("ended without a reason: %v", ended)
	}
	delete(known, "bob")
	known["zoe"], known["kim"] = "another", "another"
	a.trust(t, dir, gps, both, nameless)
	over.VerifiedChains[0][0].NotAfter = time.Now().Add(-time.Second)
	s.Recheck()
	for _, id := range []string{"over", "eve-both", "nameless"} {
		if !strings.Contains(ended[id], "certificate") {
			t.Errorf("%s ends with %q", id, ended[id])
		}
		delete(ended, id)
	}
	for _, id := range []string{"zoe", "kim"} {
		if !strings.Contains(ended[id], "password") {
			t.Errorf("%s ends with %q", id, ended[id])
		}
		delete(ended, id)
	}
	if len(ended) != 3 || !strings.Contains(ended["bob1"], "user") || !strings.Contains(ended["bob2"], "user") || !strings.Contains(ended["gps"], "certificate") {
		t.Errorf("ended: %v", ended)
	}
	// One that came in just before the list was read is looked at, too.
	connect("late", "", gps)
	if s.Recheck(); ended["late"] == "" {
		t.Error("a revoked certificate that came in late stays")
	}
	if ended["radar"] != "" || ended["eve"] != "" || ended["anonymous"] != "" {
		t.Errorf("ended: %v", ended)
	}
}

// listed are users that a file lists.
type listed struct{ users }

func (l listed) Has(name string) bool { _, ok := l.users[name]; return ok }

// A user exists until it is certain that nobody can come in that name.
func TestUserExists(t *testing.T) {
	dir := t.TempDir()
	newAuthority(t).trust(t, dir)
	server, err := pki.OpenServerTLS(pki.ServerFiles{Cert: filepath.Join(dir, "ca.pem"), Key: filepath.Join(dir, "key.pem"),
		ClientCAFile: filepath.Join(dir, "ca.pem"), ClientAuth: pki.AuthOptional})
	if err != nil {
		t.Fatal(err)
	}
	bob := users{"bob": "right"}
	for _, tc := range []struct {
		o    Options
		user string
		want bool
	}{
		{Options{AllowAnonymous: true}, "", true}, {Options{Users: bob}, "", false},
		{Options{Users: listed{bob}}, "bob", true}, {Options{Users: listed{bob}}, "eve", false},
		{Options{Users: bob}, "eve", true}, {Options{AllowAnonymous: true}, "bob", false},
		{Options{Users: listed{bob}, Trust: server.Trust}, "eve", true},
	} {
		s, err := New(&fakeBuffer{}, tc.o)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.UserExists(tc.user); got != tc.want {
			t.Errorf("%+v: %q exists: %v", tc.o, tc.user, got)
		}
	}
}
