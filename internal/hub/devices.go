package hub

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"

	"github.com/packetboat/packetboat/internal/pki"
)

// devices decides which device may connect. The file of secrets may appear,
// change and go while the hub runs; once read, its last good content stays in
// force. Methods are safe for concurrent use.
type devices struct {
	deviceRules
	log *slog.Logger

	mu    sync.Mutex
	users *pki.Users // guarded by mu; nil: there has never been a file
	told  string     // guarded by mu; the problem that was logged last
}

// deviceRules are what the configuration says of devices.
type deviceRules struct {
	path         string
	max          int
	anonymous    bool // let in what has no secret, from anywhere
	certificates bool // a verified certificate lets in
	listed       bool // only with an entry in the file
}

// openDevices reads the file if there is one.
func openDevices(rules deviceRules, log *slog.Logger) (*devices, error) {
	d := &devices{deviceRules: rules, log: log}
	if _, err := d.current(); err != nil {
		return nil, err
	}
	return d, nil
}

// current gives the users, nil while there is no file.
func (d *devices) current() (*pki.Users, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.users == nil {
		if _, err := os.Stat(d.path); errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		users, err := pki.OpenUsers(d.path, d.max)
		if err != nil {
			return nil, fmt.Errorf("reading the devices file: %w", err)
		}
		d.users = users
	}
	return d.users, nil
}

// problem says why the file is not in force.
func (d *devices) problem() error {
	users, err := d.current()
	if users == nil || err != nil {
		return err
	}
	return users.Err()
}

// len is the number of devices that have a secret.
func (d *devices) len() int {
	users, err := d.current()
	if users == nil || err != nil {
		return 0
	}
	return users.Len()
}

// claim is who a client says it is, and what it shows for it.
type claim struct {
	id     string
	secret []byte
	from   net.Addr
	tls    *tls.ConnectionState // nil: no TLS
}

// verdict says whether a claim is accepted, and if not, why. The set is closed.
type verdict uint8

const (
	admitted    verdict = iota
	noProof             // neither secret nor certificate
	wrongSecret         // also of a device that has none: nobody learns which have one
	wrongName           // the certificate names other devices
	notListed           // a good certificate, of a device that has to be listed and is not
)

// admit judges a claim. A certificate, where they are asked for, proves the
// device that it names and no other; a secret that is given beside it must be
// right all the same. A device that has a secret and no certificate must give
// it; one that has neither is let in where anonymous devices are allowed, or,
// while no device can prove anything, from this machine.
func (d *devices) admit(c claim) verdict {
	users, err := d.current()
	if err != nil {
		d.tell(err) // a file that cannot be read lets nobody in
		return wrongSecret
	}
	known, ok, n := false, false, 0
	if users != nil {
		ok = users.Check(c.id, c.secret)
		d.tell(users.Err())
		known, n = users.Has(c.id), users.Len()
	}
	if d.certificates && c.tls != nil && len(c.tls.VerifiedChains) > 0 {
		switch {
		case !slices.Contains(pki.DeviceOf(c.tls), c.id):
			return wrongName
		case d.listed && !known:
			return notListed
		case known && len(c.secret) > 0 && !ok:
			return wrongSecret
		}
		return admitted
	}
	switch {
	case ok:
		return admitted
	case known: // it has a secret, and this is not it
	case d.anonymous, n == 0 && !d.certificates && fromLoopback(c.from):
		return admitted
	}
	if len(c.secret) == 0 {
		return noProof
	}
	return wrongSecret
}

// tell logs a problem with the file once, not once per connection.
func (d *devices) tell(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if text == d.told {
		return
	}
	d.told = text
	if err != nil {
		d.log.Error("devices file cannot be used", "path", d.path, "error", err)
		return
	}
	d.log.Info("devices file is good again", "path", d.path)
}

// fromLoopback reports whether a connection came from this machine.
func fromLoopback(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return ok && t.IP.IsLoopback()
}
