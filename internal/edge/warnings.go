package edge

import (
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"

	"github.com/packetboat/packetboat/internal/acl"
	"github.com/packetboat/packetboat/internal/pki"
)

// Warnings says what is allowed but probably not meant. It is to be called on a
// configuration without violations.
func (c *Config) Warnings() (list []string) {
	list = append(list, c.hubWarnings()...)
	list = append(list, c.sensorWarnings()...)
	list = append(list, c.aclWarnings()...)
	for _, x := range []struct {
		key, file string
		bits      fs.FileMode
		what, fix string
	}{
		{"hub.secret_file", c.Hub.SecretFile, 0o007, "read", "o="}, {"hub.tls.key_file", c.Hub.TLS.KeyFile, 0o007, "read", "o="},
		{"sensors.tls.key_file", c.Sensors.TLS.KeyFile, 0o007, "read", "o="},
		{"sensors.users_file", c.Sensors.UsersFile, 0o002, "change", "o-w"}, {"sensors.acl_file", c.Sensors.ACLFile, 0o002, "change", "o-w"},
		{"sensors.tls.client_ca_file", c.Sensors.TLS.ClientCAFile, 0o002, "change", "o-w"}, {"sensors.tls.crl_file", c.Sensors.TLS.CRLFile, 0o002, "change", "o-w"},
		{"hub.tls.ca_file", c.Hub.TLS.CAFile, 0o002, "change", "o-w"},
	} {
		if info, err := os.Stat(x.file); x.file != "" && err == nil && info.Mode().Perm()&x.bits != 0 {
			list = append(list, fmt.Sprintf("%s: every user of this machine may %s it: chmod %s %s", x.key, x.what, x.fix, x.file))
		}
	}
	return list
}

func (c *Config) hubWarnings() (list []string) {
	plain, secured := false, false
	for _, text := range c.Hub.URLs {
		if u, err := url.Parse(text); err == nil {
			secured = secured || urlSchemes[u.Scheme]
			plain = plain || !urlSchemes[u.Scheme] && !isLoopback(u.Hostname())
		}
	}
	if plain && c.Hub.SecretFile != "" {
		list = append(list, "hub.secret_file: the secret crosses the network in clear: use tls:// urls")
	}
	if c.Hub.TLS != (TLS{}) && !secured {
		list = append(list, "hub.tls: no url of the hub uses it: write tls://")
	}
	if c.Hub.Codec.Name == RowsCodec {
		list = append(list, "hub.codec.name: rows take several times the bytes on the link that learning takes")
	}
	return list
}

func (c *Config) sensorWarnings() (list []string) {
	secured := false
	for _, d := range c.Listen.doors() {
		if d.addr == Off {
			continue
		}
		secured = secured || d.tls
		if host, ok := hostOf(d.addr); ok && !d.tls && !isLoopback(host) && c.Sensors.UsersFile != "" {
			list = append(list, fmt.Sprintf("%s: passwords of sensors cross the network in clear: use %ss", d.key, d.key))
		}
	}
	t := &c.Sensors.TLS
	switch {
	case t.CertFile != "" && !secured:
		list = append(list, "sensors.tls: no listener uses it: set listen.mqtts or listen.wss")
	case t.ClientCAFile != "" && t.ClientAuth == pki.AuthNone:
		list = append(list, "sensors.tls.client_ca_file: client_auth is none: no sensor is asked for a certificate")
	}
	if len(c.Listen.WSOrigins) > 0 && c.Listen.WS == Off && c.Listen.WSS == Off {
		list = append(list, "listen.ws_origins: no listener uses it: set listen.ws or listen.wss")
	}
	return list
}

// aclWarnings says which sections of the ACL nobody can come to.
func (c *Config) aclWarnings() (list []string) {
	if c.Sensors.ACLFile == "" {
		return nil
	}
	rules, err := acl.Open(c.Sensors.ACLFile)
	if err != nil {
		return nil // the checks say what is wrong
	}
	sections := rules.Users()
	if len(sections) == 0 || c.Sensors.TLS.asksForCertificates() {
		return nil // a certificate may name anybody
	}
	if c.Sensors.UsersFile == "" {
		return []string{"sensors.acl_file: it has rules for users, and nothing proves a sensor's name: set sensors.users_file or sensors.tls.client_ca_file"}
	}
	users, err := pki.OpenUsers(c.Sensors.UsersFile, 0)
	if err != nil {
		return nil
	}
	var unknown []string
	for _, s := range sections {
		if !users.Has(s.User) {
			unknown = append(unknown, fmt.Sprintf("%.60q (line %d)", s.User, s.Line))
		}
	}
	if n := len(unknown); n > 5 {
		unknown = append(unknown[:5], fmt.Sprintf("%d more", n-5))
	}
	if len(unknown) > 0 {
		list = append(list, "sensors.acl_file: not in sensors.users_file: "+strings.Join(unknown, ", "))
	}
	return list
}
