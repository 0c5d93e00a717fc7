package edge

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/packetboat/packetboat/internal/config"
	"github.com/packetboat/packetboat/internal/pki"
)

// Each case is what stands under listen and sensors, and words of every
// violation it has.
func TestDoorViolations(t *testing.T) {
	a := newAuthority(t, t.TempDir())
	a.server(t, "edge")
	a.server(t, "other")
	a.client(t, "gps")
	users := filepath.Join(a.dir, "users")
	if _, err := pki.SetUser(users, "gps", pki.Sum{1}); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(a.dir, "acl"), "topic red a\nuser\n")
	const pair = "cert_file: DIR/edge.pem, key_file: DIR/edge-key.pem"
	for text, want := range map[string][]string{
		"listen: {mqtts: 127.0.0.1:8883, wss: '[::1]:8084'}\nsensors: {tls: {" + pair + "}}\n":                                        {},
		"listen: {mqtts: 0.0.0.0:8883}\nsensors: {tls: {" + pair + "}}\n":                                                             {"listen.mqtts: is reachable from elsewhere"},
		"listen: {mqtts: 0.0.0.0:8883}\nsensors: {users_file: DIR/users, tls: {" + pair + "}}\n":                                      {},
		"listen: {mqtts: ':8883'}\nallow_anonymous: true\nsensors: {tls: {" + pair + "}}\n":                                           {},
		"listen: {mqtts: ':8883', wss: ':8084'}\nsensors: {tls: {" + pair + ", client_ca_file: DIR/ca.pem}}\n":                        {"listen.mqtts: is reachable", "listen.wss: is reachable"},
		"listen: {mqtts: ':8883', wss: ':8084'}\nsensors: {tls: {" + pair + ", client_ca_file: DIR/ca.pem, client_auth: required}}\n": {},
		// What a certificate proves at one door, nothing proves at the other.
		"listen: {mqtt: ':1883', ws: ':8083', mqtts: ':8883'}\nsensors: {tls: {" + pair + ", client_ca_file: DIR/ca.pem, client_auth: required}}\n": {"listen.mqtt: is reachable", "listen.ws: is reachable"},
		"listen: {mqtts: 127.0.0.1:8883}\nsensors: {tls: {cert_file: DIR/edge.pem}}\n":                                                              {"sensors.tls: wants both"},
		"sensors: {tls: {" + pair + ", client_auth: required}}\n":                                                                                   {"sensors.tls.client_auth: asks for certificates that nobody may sign"},
		"sensors: {tls: {" + pair + ", crl_file: DIR/crl.pem}}\n":                                                                                   {"sensors.tls.crl_file: revokes"},
		"sensors: {tls: {client_auth: maybe}}\n":                                                                                                    {`sensors.tls.client_auth: "maybe" is no way`},
		"sensors: {tls: {cert_file: DIR/edge.pem, key_file: DIR/other-key.pem}}\n":                                                                  {"sensors.tls: read the certificate: "},
		"sensors: {tls: {" + pair + ", client_ca_file: DIR/none.pem}}\n":                                                                            {"sensors.tls: read the authorities: "},
		"sensors: {tls: {" + pair + ", client_ca_file: DIR/ca.pem, crl_file: DIR/ca.pem}}\n":                                                        {"sensors.tls: read the revocation lists: "},
		"listen: {wss: nowhere, ws_origins: [http://x, nonsense]}\n":                                                                                {`listen.wss: "nowhere" is not an address`, "listen.ws_origins[1]: "},
		"listen: {mqtt: off}\n":           {"listen.mqtt: is off, and so is every listener"},
		"sensors: {acl_file: DIR/acl}\n":  {`sensors.acl_file[acl:1]: "red" is not an access`, "sensors.acl_file[acl:2]: user without a name"},
		"sensors: {acl_file: DIR/none}\n": {"sensors.acl_file: read the acl: "},
		"sensors: {max_sessions: -1, session_expiry: 0s, max_topic_levels: 200, max_retained_bytes: 1B, accept_rate: -5}\nbuffer: {max_state: 8GiB}\n": {
			"max_sessions: is out of range", "session_expiry: is out", "max_topic_levels: is out of range: 1 to 128", "max_retained_bytes: is out", "accept_rate: is out", "max_state: is out"},
		"buffer: {max_state: 65MiB}\n":                  {"buffer.max_state: is out of range: 0B to 64MiB"},
		"buffer: {max_bytes: 16MiB, max_state: 8MiB}\n": {"buffer.max_state: is more than the journal has room for: 2457KiB"},
		"buffer: {max_bytes: 16MiB, max_state: 2MiB}\n": {},
	} {
		_, err := load(t, least+strings.ReplaceAll(text, "DIR", a.dir))
		errs, ok := errors.AsType[*config.Errors](err)
		if !ok {
			errs = &config.Errors{}
		}
		if len(errs.All) != len(want) {
			t.Errorf("%s\ngot %d violations, want %d: %v", text, len(errs.All), len(want), err)
			continue
		}
		for i, w := range want {
			if got := errs.All[i].String(); !strings.Contains(got, w) {
				t.Errorf("%s\nviolation %d is %s\nwant %s", text, i, got, w)
			}
		}
	}
}

func TestSensorWarnings(t *testing.T) {
	a := newAuthority(t, t.TempDir())
	a.server(t, "edge")
	users := filepath.Join(a.dir, "users")
	if _, err := pki.SetUser(users, "gps", pki.Sum{1}); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(a.dir, "acl"), "topic a\nuser gps\ntopic b\nuser radar\ntopic c\n")
	write(t, filepath.Join(a.dir, "everybody"), "topic a\npattern b/%u\n")
	loose := write(t, filepath.Join(a.dir, "loose"), "topic a\n")
	if err := os.Chmod(loose, 0o666); err != nil {
		t.Fatal(err)
	}
	const pair = "cert_file: DIR/edge.pem, key_file: DIR/edge-key.pem"
	for text, want := range map[string]string{
		"listen: {mqtt: ':1883', ws: ':8083'}\nsensors: {users_file: DIR/users}\n":                                      "listen.mqtt: passwords of sensors cross the network in clear: use listen.mqtts\nlisten.ws: passwords of sensors cross the network in clear: use listen.wss",
		"listen: {mqtts: ':8883'}\nsensors: {users_file: DIR/users, tls: {" + pair + "}}\n":                             "",
		"sensors: {tls: {" + pair + "}}\n":                                                                              "sensors.tls: no listener uses it: set listen.mqtts or listen.wss",
		"listen: {mqtts: 127.0.0.1:1}\nsensors: {tls: {" + pair + ", client_ca_file: DIR/ca.pem, client_auth: none}}\n": "sensors.tls.client_ca_file: client_auth is none: no sensor is asked for a certificate",
		"listen: {ws_origins: ['*']}\n":                                                                                 "listen.ws_origins: no listener uses it: set listen.ws or listen.wss",
		"sensors: {acl_file: DIR/acl}\n":                                                                                "sensors.acl_file: it has rules for users, and nothing proves a sensor's name: set sensors.users_file or sensors.tls.client_ca_file",
		"sensors: {acl_file: DIR/acl, users_file: DIR/users}\n":                                                         `sensors.acl_file: not in sensors.users_file: "radar" (line 4)`,
		"listen: {mqtts: 127.0.0.1:1}\nsensors: {acl_file: DIR/acl, users_file: DIR/users, tls: {" + pair + ", client_ca_file: DIR/ca.pem}}\n": "",
		"sensors: {acl_file: DIR/everybody}\n": "",
		"sensors: {acl_file: DIR/loose}\n":     "sensors.acl_file: every user of this machine may change it: chmod o-w DIR/loose",
	} {
		c, err := load(t, least+strings.ReplaceAll(text, "DIR", a.dir))
		if err != nil {
			t.Errorf("%s\n%v", text, err)
			continue
		}
		if got := strings.ReplaceAll(strings.Join(c.Warnings(), "\n"), a.dir, "DIR"); got != want {
			t.Errorf("%s\ngot %q\nwant %q", text, got, want)
		}
	}
}

// A certificate that ends is said two weeks before, once a day; one that has
// ended is told apart.
func TestCertificatesEnd(t *testing.T) {
	a := newAuthority(t, t.TempDir())
	issue := func(name string, life time.Duration) {
		a.issue(t, name, &x509.Certificate{Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, life)
	}
	issue("edge", 15*24*time.Hour)
	issue("hub", -time.Hour)
	c := Defaults()
	c.Sensors.TLS = a.files("edge")
	c.Sensors.TLS.ClientCAFile, c.Sensors.TLS.CRLFile = "", ""
	c.Hub.TLS = TLS{CertFile: filepath.Join(a.dir, "hub.pem"), KeyFile: filepath.Join(a.dir, "hub-key.pem")}
	expired, expiring := c.Certificates()
	if len(expired) != 1 || !strings.HasPrefix(expired[0], "hub.tls.cert_file: the certificate is expired since ") || len(expiring) != 0 {
		t.Errorf("expired %q, expiring %q", expired, expiring)
	}
	issue("edge", 13*24*time.Hour)
	if _, expiring = c.Certificates(); len(expiring) != 1 || !strings.HasPrefix(expiring[0], "sensors.tls.cert_file: the certificate expires in 1") {
		t.Errorf("expiring %q", expiring)
	}

	log := &lockedBuffer{}
	e := &Edge{config: c, log: slog.New(slog.NewTextHandler(log, nil))}
	var err error
	if e.tls, err = pki.OpenServerTLS(c.Sensors.TLS.files()); err != nil {
		t.Fatal(err)
	}
	w := expiryWatch{edge: e, told: map[string]string{}}
	noon := time.Now().Truncate(24 * time.Hour).Add(12 * time.Hour)
	for i, want := range []int{1, 1, 2, 3} { // lines after each day's look, and one more
		w.at(noon.Add(time.Duration(max(0, i-1)) * 24 * time.Hour))
		if got := strings.Count(log.String(), "certificate ends"); got != want {
			t.Errorf("look %d: %d lines, want %d", i, got, want)
		}
	}
	if list := *e.expiring.Load(); len(list) != 1 || list[0].Name != "sensors" {
		t.Errorf("%+v", list)
	}
}
