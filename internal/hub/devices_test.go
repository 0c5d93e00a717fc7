package hub

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/packetboat/packetboat/internal/pki"
)

// Who is let in, from where, with which file and setting.
func TestAdmit(t *testing.T) {
	home, away := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}
	secret, sum := pki.NewSecret()
	for _, c := range []struct {
		name             string
		anonymous, users bool
		id, secret       string
		home, away       bool
	}{
		{"no file", false, false, "truck", "", true, false},
		{"no file, a secret all the same", false, false, "truck", secret, true, false},
		{"no file, anonymous", true, false, "truck", "", true, true},
		{"right secret", false, true, "truck", secret, true, true},
		{"no secret", false, true, "truck", "", false, false},
		{"unknown", false, true, "ship", secret, false, false},
		{"unknown, anonymous", true, true, "ship", "", true, true},
		{"known without secret, anonymous", true, true, "truck", "", false, false},
		{"known with a wrong one, anonymous", true, true, "truck", secret + "x", false, false},
	} {
		path := filepath.Join(t.TempDir(), "devices")
		if c.users {
			if _, err := pki.SetUser(path, "truck", sum); err != nil {
				t.Fatal(err)
			}
		}
		d, err := openDevices(deviceRules{path: path, max: 10, anonymous: c.anonymous}, discard)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.admit(claim{id: c.id, secret: []byte(c.secret), from: home}) == admitted; got != c.home {
			t.Errorf("%s, from this machine: %v", c.name, got)
		}
		if got := d.admit(claim{id: c.id, secret: []byte(c.secret), from: away}) == admitted; got != c.away {
			t.Errorf("%s, from elsewhere: %v", c.name, got)
		}
	}
}

// Where an authority is named, nobody is let in for coming from this machine.
func TestAuthorityClosesLoopback(t *testing.T) {
	for _, certificates := range []bool{false, true} {
		d, err := openDevices(deviceRules{path: filepath.Join(t.TempDir(), "devices"), max: 10, certificates: certificates}, discard)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.admit(claim{id: "truck", from: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}}); (got == admitted) == certificates {
			t.Errorf("certificates %v: verdict %d", certificates, got)
		}
	}
}

// A file that breaks while the hub runs neither opens the hub nor locks out who
// was in it; one that is broken when it first appears lets nobody in.
func TestBrokenDevicesFile(t *testing.T) {
	home := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}
	path := filepath.Join(t.TempDir(), "devices")
	d, err := openDevices(deviceRules{path: path, max: 10}, discard)
	if err != nil {
		t.Fatal(err)
	}
	admit := func(id, secret string) bool {
		return d.admit(claim{id: id, secret: []byte(secret), from: home}) == admitted
	}
	breakFile := func() {
		if err := os.WriteFile(path, []byte("truck not-a-sum\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	breakFile()
	if admit("truck", "") {
		t.Error("a broken file counts as none")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	secret, sum := pki.NewSecret()
	if _, err := pki.SetUser(path, "truck", sum); err != nil {
		t.Fatal(err)
	}
	if !admit("truck", secret) || admit("ship", "") {
		t.Error("a good file is not in force")
	}
	for _, spoil := range []func(){breakFile, func() { _ = os.Remove(path) }} {
		spoil()
		if !admit("truck", secret) || admit("ship", "") || d.len() != 1 {
			t.Error("the last good file is not in force")
		}
	}
}
