package pki

import (
	"crypto/tls"
	"crypto/x509"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/packetboat/packetboat/pkg/stream"
)

// leafOf is the client's certificate, if it was verified.
func leafOf(state *tls.ConnectionState) *x509.Certificate {
	if state == nil || len(state.VerifiedChains) == 0 || len(state.VerifiedChains[0]) == 0 {
		return nil
	}
	return state.VerifiedChains[0][0]
}

// kinds are the kinds of names of a certificate that may be believed.
type kinds struct{ common, dns, uri bool }

// believable gives the kinds of names that an authority above the certificate
// was free to give, or was bound in and kept to. Name constraints bind kinds of
// alternative names and say nothing of common names: where some stand, what
// none of them is about proves nothing, or an authority for "fleet.example"
// could name whom it likes. Of several chains the best of each counts.
func believable(state *tls.ConnectionState) (k kinds) {
	for _, chain := range state.VerifiedChains {
		bound, dns, uri := false, false, false
		for _, c := range chain[min(1, len(chain)):] {
			d, u := len(c.PermittedDNSDomains)+len(c.ExcludedDNSDomains) > 0, len(c.PermittedURIDomains)+len(c.ExcludedURIDomains) > 0
			other := len(c.PermittedEmailAddresses)+len(c.ExcludedEmailAddresses)+len(c.PermittedIPRanges)+len(c.ExcludedIPRanges) > 0
			bound, dns, uri = bound || d || u || other, dns || d, uri || u
		}
		k = kinds{k.common || !bound, k.dns || !bound || dns, k.uri || !bound || uri}
	}
	return k
}

// DeviceOf gives the device ids that a connection's verified certificate names,
// none twice: its common name and its DNS names, where they are device ids, and
// the ids in URIs of the forms urn:packetboat:device:ID and
// spiffe://DOMAIN/device/ID. A wildcard names nobody. Under an authority with
// name constraints only names of the kinds count that they are about.
func DeviceOf(state *tls.ConnectionState) (names []string) {
	leaf := leafOf(state)
	if leaf == nil {
		return nil
	}
	add := func(name string) {
		if stream.CheckDeviceID(name) == nil && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	k := believable(state)
	if k.common {
		add(leaf.Subject.CommonName)
	}
	if k.dns {
		for _, n := range leaf.DNSNames {
			add(n)
		}
	}
	if k.uri {
		for _, u := range leaf.URIs {
			add(deviceOfURI(u))
		}
	}
	return names
}

func deviceOfURI(u *url.URL) string {
	switch u.Scheme {
	case "urn":
		id, _ := strings.CutPrefix(u.Opaque, "packetboat:device:")
		if id != u.Opaque {
			return id
		}
	case "spiffe":
		if id, ok := strings.CutPrefix(u.Path, "/device/"); ok {
			return id
		}
	}
	return ""
}

// UserOf gives the user name of a connection's verified certificate, which is
// its common name; empty: there is none, or an authority with name constraints
// gave it.
func UserOf(state *tls.ConnectionState) string {
	if leaf := leafOf(state); leaf != nil && believable(state).common {
		return leaf.Subject.CommonName
	}
	return ""
}

// GoodUntil is when the first certificate of a connection's verified chain ends;
// of several chains, of the one that lasts longest. Zero: there is none.
func GoodUntil(state *tls.ConnectionState) (end time.Time) {
	if state == nil {
		return end
	}
	for _, chain := range state.VerifiedChains {
		var first time.Time
		for _, c := range chain {
			if first.IsZero() || c.NotAfter.Before(first) {
				first = c.NotAfter
			}
		}
		if first.After(end) {
			end = first
		}
	}
	return end
}
