package hub

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/packetboat/packetboat/internal/pki"
)

// soon is how early the end of a certificate is worth a warning.
const soon = 14 * 24 * time.Hour

// CheckFiles reads the files that the configuration names, as a hub would: the
// devices, certificates, authorities and revocation lists. It gives everything
// that would keep the hub from starting, and what an operator should know.
func (c *Config) CheckFiles() (warnings []string, err error) {
	var errs []error
	// A file that is not there is none: nobody has a secret yet.
	if _, err := pki.OpenUsers(c.DevicesPath(), c.deviceRules().max); err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, fmt.Errorf("devices_file: %w", err))
	}
	if c.mqtts() == Off {
		return nil, errors.Join(errs...)
	}
	s, err := pki.OpenServerTLS(c.TLS.files(slog.New(slog.DiscardHandler)))
	if err != nil {
		return nil, errors.Join(append(errs, fmt.Errorf("tls: %w", err))...)
	}
	return tlsWarnings(s.Stats(), time.Now()), errors.Join(errs...)
}

// tlsWarnings says what ends soon, or has.
func tlsWarnings(s pki.ServerStats, now time.Time) (all []string) {
	for _, c := range []struct {
		what string
		end  time.Time
	}{{"tls.cert_file: the hub's certificate", s.NotAfter}, {"tls.client_ca_file: an authority", s.ClientCANotAfter}} {
		switch {
		case c.end.IsZero() || now.Add(soon).Before(c.end):
		case now.After(c.end):
			all = append(all, fmt.Sprintf("%s ended at %s", c.what, c.end.UTC().Format(time.RFC3339)))
		default:
			all = append(all, fmt.Sprintf("%s ends at %s", c.what, c.end.UTC().Format(time.RFC3339)))
		}
	}
	if s.Stale {
		all = append(all, fmt.Sprintf("tls.crl_file: a list should have been replaced at %s; it is enforced, but does not know who was revoked since",
			s.NextUpdate.UTC().Format(time.RFC3339)))
	}
	return all
}
