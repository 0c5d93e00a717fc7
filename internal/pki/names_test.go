package pki

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/url"
	"slices"
	"testing"
)

// An authority that may name hosts of its own domain only does not get round
// that by names that no constraint is about.
func TestNameConstraints(t *testing.T) {
	uri, err := url.Parse("spiffe://fleet.example/device/by-uri")
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{Subject: pkix.Name{CommonName: "by-common-name"}, DNSNames: []string{"by.fleet.example"}, URIs: []*url.URL{uri}}
	free, root := &x509.Certificate{}, &x509.Certificate{}
	_, network, _ := net.ParseCIDR("192.0.2.0/24")
	for _, c := range []struct {
		what string
		by   *x509.Certificate
		want []string
	}{
		{"none", free, []string{"by-common-name", "by.fleet.example", "by-uri"}},
		{"dns permitted", &x509.Certificate{PermittedDNSDomains: []string{"fleet.example"}}, []string{"by.fleet.example"}},
		{"dns excluded", &x509.Certificate{ExcludedDNSDomains: []string{"evil.example"}}, []string{"by.fleet.example"}},
		{"uri permitted", &x509.Certificate{PermittedURIDomains: []string{"fleet.example"}}, []string{"by-uri"}},
		{"uri excluded", &x509.Certificate{ExcludedURIDomains: []string{"evil.example"}}, []string{"by-uri"}},
		{"addresses", &x509.Certificate{PermittedIPRanges: []*net.IPNet{network}}, nil},
		{"addresses excluded", &x509.Certificate{ExcludedIPRanges: []*net.IPNet{network}}, nil},
		{"mail", &x509.Certificate{PermittedEmailAddresses: []string{"fleet.example"}}, nil},
		{"mail excluded", &x509.Certificate{ExcludedEmailAddresses: []string{"fleet.example"}}, nil},
	} {
		user := ""
		if c.by == free {
			user = "by-common-name"
		}
		for _, chain := range [][]*x509.Certificate{{leaf, c.by, root}, {leaf, root, c.by}} {
			state := &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{chain}}
			if got := DeviceOf(state); !slices.Equal(got, c.want) || UserOf(state) != user {
				t.Errorf("%s: %v and user %q, want %v", c.what, got, UserOf(state), c.want)
			}
			// Another chain, in which nobody is bound, proves all of them.
			state.VerifiedChains = append(state.VerifiedChains, []*x509.Certificate{leaf, root})
			if got := DeviceOf(state); len(got) != 3 || UserOf(state) == "" {
				t.Errorf("%s, and a free chain: %v", c.what, got)
			}
		}
	}
}
