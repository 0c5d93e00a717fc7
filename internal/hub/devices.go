package hub

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"

	"github.com/packetboat/packetboat/internal/pki"
)

// devices decides which device may connect. The file of secrets may appear,
// change and go while the hub runs; once read, its last good content stays in
// force. Methods are safe for concurrent use.
type devices struct {
	path      string
	max       int
	anonymous bool // let in what has no secret, from anywhere
	log       *slog.Logger

	mu    sync.Mutex
	users *pki.Users // guarded by mu; nil: there has never been a file
	told  string     // guarded by mu; the problem that was logged last
}

// openDevices reads the file if there is one.
func openDevices(path string, max int, anonymous bool, log *slog.Logger) (*devices, error) {
	d := &devices{path: path, max: max, anonymous: anonymous, log: log}
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

// len is the number of devices that have a secret.
func (d *devices) len() int {
	users, err := d.current()
	if users == nil || err != nil {
		return 0
	}
	return users.Len()
}

// admit reports whether a device may connect with this secret from there. One
// that has a secret must give it; one that has none is let in where anonymous
// devices are allowed, or, while no device at all has a secret, from this
// machine.
func (d *devices) admit(id string, secret []byte, from net.Addr) bool {
	users, err := d.current()
	if err != nil {
		d.tell(err) // a file that cannot be read lets nobody in
		return false
	}
	if users == nil {
		return d.anonymous || fromLoopback(from)
	}
	ok := users.Check(id, secret)
	d.tell(users.Err())
	if ok || users.Has(id) {
		return ok
	}
	return d.anonymous || users.Len() == 0 && fromLoopback(from)
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
