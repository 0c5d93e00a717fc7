package hub

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/packetboat/packetboat/internal/cli"
	"github.com/packetboat/packetboat/internal/config"
)

func load(t *testing.T, text string, environ ...string) (Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hub.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := Defaults()
	return c, config.Source{Path: path, EnvPrefix: EnvPrefix, Environ: environ}.Load(&c)
}

// violations gives the keys that an error complains about.
func violations(t *testing.T, err error) (keys []string) {
	t.Helper()
	var all *config.Errors
	if err != nil && !errors.As(err, &all) {
		t.Fatal(err)
	}
	if all != nil {
		for _, v := range all.All {
			keys = append(keys, v.Key)
		}
	}
	return keys
}

func TestDefaultsAreGood(t *testing.T) {
	if c, err := load(t, ""); err != nil || c.mqtts() != Off || c.DevicesPath() != filepath.Join(c.DataDir, "devices") {
		t.Errorf("%+v %v", c, err)
	}
	for env, want := range map[string]string{"": "packetboat-hub-data", "/var/lib/a:/var/lib/b": "/var/lib/a", "relative": "packetboat-hub-data"} {
		t.Setenv("STATE_DIRECTORY", env)
		if got := Defaults().DataDir; got != want {
			t.Errorf("STATE_DIRECTORY=%q: %s, want %s", env, got, want)
		}
	}
}

func TestChecks(t *testing.T) {
	for text, want := range map[string]string{
		"listen: {mqtt: here}":                                  "listen.mqtt",
		"listen: {mqtt: '127.0.0.1:http'}":                      "listen.mqtt",
		"listen: {mqtt: '127.0.0.1:65536'}":                     "listen.mqtt",
		"listen: {mqtt: off}":                                   "listen.mqtt",
		"listen: {mqtt: off, mqtts: '127.0.0.1:8884'}":          "listen.mqtts",
		"listen: {mqtt: off}\ntls: {cert_file: a, key_file: b}": "",
		"listen: {http: '0.0.0.0:8460'}":                        "listen.http",
		"listen: {http: ':8460'}":                               "listen.http",
		"listen: {http: 'hub.example:8460'}":                    "listen.http",
		"listen: {http: '0.0.0.0:8460', http_public: true}":     "",
		"listen: {http: '[::1]:8460'}":                          "",
		"listen: {http: off}":                                   "",
		"tls: {cert_file: a}":                                   "tls",
		"tls: {key_file: a}":                                    "tls",
		"tls: {client_auth: sometimes}":                         "tls.client_auth",
		"tls: {client_auth: required}":                          "tls.client_auth",
		"tls: {client_ca_file: a}":                              "tls.client_ca_file",
		"tls: {crl_file: a}":                                    "tls.crl_file",
		"tls: {devices: some}":                                  "tls.devices",
		"tls: {cert_file: a, key_file: b, client_ca_file: c, crl_file: d, client_auth: required}": "",
		"accept: {rate: -1, burst: 0, per_address: -1, handshakes: 0}":                            "accept.burst accept.handshakes accept.per_address accept.rate",
		"accept: {rate: 0, per_address: 0}":                                                       "",
		"data_dir: ''":                                                                            "data_dir",
		"codec: {state_bytes: 0, total_bytes: 256KiB, keep: 0, keep_devices: 0}":                  "",
		"codec: {state_bytes: 255KiB}":                                                            "codec.state_bytes",
		"codec: {state_bytes: 65MiB}":                                                             "codec.state_bytes",
		"codec: {total_bytes: 1MiB}":                                                              "codec.total_bytes",
		"codec: {state_bytes: 0, total_bytes: 0}":                                                 "codec.total_bytes",
		"codec: {keep: 169h, keep_devices: -1}":                                                   "codec.keep codec.keep_devices",
		"store: {shards: -1}":                                                                     "store.shards",
		"store: {shards: 4097}":                                                                   "store.shards",
		"store: {min_free: 511MiB}":                                                               "store.min_free",
		"store: {retention: {max_age: 30s}}":                                                      "store.retention.max_age",
		"store: {retention: {max_bytes: 1MiB}}":                                                   "store.retention.max_bytes",
		"limits: {window_messages: 65536}":                                                        "limits.window_messages",
		"limits: {packet_bytes: 64KiB}":                                                           "limits.packet_bytes",
		"limits: {packet_bytes: 5MiB}":                                                            "limits.packet_bytes",
		"limits: {total_bytes: 1MiB}":                                                             "limits.total_bytes",
		"limits: {max_devices: 0}":                                                                "limits.max_devices",
		"listen: {mqtt: x, http: y}\nlimits: {max_devices: 0}\nlgo: 1":                            "lgo limits.max_devices listen.http listen.mqtt",
	} {
		_, err := load(t, text)
		got := violations(t, err)
		slices.Sort(got)
		if strings.Join(got, " ") != want {
			t.Errorf("%q: violations of %v, want %q (%v)", text, got, want, err)
		}
	}
	if _, err := load(t, "", "PACKETBOAT_HUB_LIMITS_MAX_DEVICES=0"); strings.Join(violations(t, err), " ") != "limits.max_devices" {
		t.Errorf("from the environment: %v", err)
	}
}

func TestWarnings(t *testing.T) {
	for text, want := range map[string]int{
		"": 0, "listen: {mqtt: '0.0.0.0:1884'}": 1, "listen: {http: ':8460', http_public: true}": 1, "allow_anonymous: true": 0,
		"allow_anonymous: true\nlisten: {mqtt: off, mqtts: ':8884'}\ntls: {cert_file: a, key_file: b}": 1,
		"tls: {cert_file: a, key_file: b, client_ca_file: c}":                                          1, // nobody could be revoked
		"tls: {cert_file: a, key_file: b, client_ca_file: c, crl_file: d}":                             0,
		"tls: {cert_file: a, key_file: b, client_ca_file: c, devices: listed}":                         0,
		"tls: {cert_file: a, key_file: b, client_ca_file: c, client_auth: none}":                       1,
	} {
		c, err := load(t, text)
		if got := c.Warnings(); err != nil || len(got) != want {
			t.Errorf("%q: %v %v", text, got, err)
		}
	}
}

// The sample as it is shipped is good, and so is every key in it that is
// commented out; no key is missing.
func TestSampleConfiguration(t *testing.T) {
	sample, err := os.ReadFile("../../deploy/hub.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := load(t, string(sample)); err != nil {
		t.Fatalf("as shipped: %v", err)
	}
	text := regexp.MustCompile(`(?m)^( *)#( *[a-z_]+:)`).ReplaceAllString(string(sample), "$1$2")
	if _, err := load(t, text); err != nil {
		t.Errorf("with every key: %v", err)
	}
	for _, k := range config.Describe(Defaults(), EnvPrefix) {
		last := k.Name[strings.LastIndexByte(k.Name, '.')+1:]
		if !regexp.MustCompile(`(?m)^[ #]*` + last + `:`).MatchString(string(sample)) {
			t.Errorf("the sample does not name %s", k.Name)
		}
		if k.Doc == "" {
			t.Errorf("%s says nothing of itself", k.Name)
		}
	}
}

// Nothing but loopback is open to just anybody.
func TestReach(t *testing.T) {
	for _, c := range []struct {
		mqtt      string
		anonymous bool
		refused   bool
	}{{"127.0.0.1:0", false, false}, {"localhost:0", false, false}, {"0.0.0.0:0", false, true}, {":0", false, true}, {"0.0.0.0:0", true, false}} {
		conf := testConfig(t.TempDir())
		conf.Listen = Listen{MQTT: c.mqtt, HTTP: Off}
		conf.AllowAnonymous = c.anonymous
		h, err := Open(conf, discard)
		if (cli.ExitCode(err) == cli.Usage) != c.refused || err != nil && !c.refused {
			t.Errorf("%+v: %v", c, err)
		}
		if err == nil {
			if err := h.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
