package hub

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
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
	broken := func(what string, err error, remedy string) {
		errs = append(errs, fmt.Errorf("%s: %w (%s)", what, err, remedy))
	}
	n := 0
	switch users, err := pki.OpenUsers(c.DevicesPath(), c.deviceRules().max); {
	case err == nil:
		n = users.Len()
	case !errors.Is(err, fs.ErrNotExist): // a file that is not there is none: nobody has a secret yet
		broken("devices_file", err, "correct the line, or remove and add the device again")
	}
	if len(errs) == 0 {
		if err := c.checkReach(n); err != nil {
			errs = append(errs, fmt.Errorf("%w (%s)", err, reachRemedy))
		}
	}
	if c.mqtts() == Off {
		return nil, errors.Join(errs...)
	}
	s, err := pki.OpenServerTLS(c.TLS.files(slog.New(slog.DiscardHandler)))
	if err != nil {
		broken("tls", err, "put a good file there, or correct its name")
		return nil, errors.Join(errs...)
	}
	return tlsWarnings(s.Stats(), time.Now()), errors.Join(errs...)
}

const reachRemedy = "add a device with `packetboat-hub device add ID`, name authorities in tls.client_ca_file, or set allow_anonymous: true"

// checkReach refuses to let just anybody in from elsewhere, where devices have
// secrets.
func (c *Config) checkReach(devices int) error {
	if c.AllowAnonymous || devices > 0 {
		return nil
	}
	refuse := func(key, addr string) error {
		return fmt.Errorf("%s: %.80s is reachable from elsewhere, and no device has a secret", key, addr)
	}
	if a := c.Listen.MQTT; beyondLoopback(a) {
		return refuse("listen.mqtt", a)
	}
	if a := c.mqtts(); beyondLoopback(a) && !c.TLS.wantsCertificates() {
		return refuse("listen.mqtts", a)
	}
	return nil
}

// modeWarnings says which files others on this machine may read or change that
// should not.
func (c *Config) modeWarnings() (all []string) {
	for _, x := range []struct {
		key, file string
		bits      fs.FileMode
		what, fix string
	}{
		{"tls.key_file", c.TLS.KeyFile, 0o007, "read", "o="},
		{"devices_file", c.DevicesPath(), 0o002, "change", "o-w"},
		{"tls.client_ca_file", c.TLS.ClientCAFile, 0o002, "change", "o-w"},
		{"tls.crl_file", c.TLS.CRLFile, 0o002, "change", "o-w"},
	} {
		if info, err := os.Stat(x.file); x.file != "" && err == nil && info.Mode().Perm()&x.bits != 0 {
			all = append(all, fmt.Sprintf("%s: every user of this machine may %s it: chmod %s %s", x.key, x.what, x.fix, x.file))
		}
	}
	return all
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
