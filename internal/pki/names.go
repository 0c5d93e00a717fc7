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

// DeviceOf gives the device ids that a connection's verified certificate names,
// none twice: its common name and its DNS names, where they are device ids, and
// the ids in URIs of the forms urn:packetboat:device:ID and
// spiffe://DOMAIN/device/ID. A wildcard names nobody.
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
	add(leaf.Subject.CommonName)
	for _, n := range leaf.DNSNames {
		add(n)
	}
	for _, u := range leaf.URIs {
		add(deviceOfURI(u))
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
// its common name; empty: there is none.
func UserOf(state *tls.ConnectionState) string {
	if leaf := leafOf(state); leaf != nil {
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
