package edge

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/packetboat/packetboat/internal/config"
	"github.com/packetboat/packetboat/internal/pki"
	"github.com/packetboat/packetboat/pkg/buffer"
	"github.com/packetboat/packetboat/pkg/stream"
)

func write(t testing.TB, name, text string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func load(t testing.TB, text string, environ ...string) (Config, error) {
	t.Helper()
	c := Defaults()
	err := config.Source{Path: write(t, filepath.Join(t.TempDir(), "edge.yaml"), text), EnvPrefix: EnvPrefix, Environ: environ}.Load(&c)
	return c, err
}

const least = "device: truck-17\nhub: {urls: [tcp://h]}\n"

func TestLeastConfiguration(t *testing.T) {
	c, err := load(t, least)
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen.MQTT != "127.0.0.1:1883" || c.Listen.HTTP != "127.0.0.1:8461" || !c.anonymous() || len(c.Warnings()) != 0 {
		t.Errorf("%+v, warnings %v", c, c.Warnings())
	}
}

func TestDataDirOfTheServiceManager(t *testing.T) {
	for env, want := range map[string]string{"": "packetboat-edge-data", "/var/lib/a:/var/lib/b": "/var/lib/a", "relative": "packetboat-edge-data"} {
		t.Setenv("STATE_DIRECTORY", env)
		if got := Defaults().DataDir; got != want {
			t.Errorf("STATE_DIRECTORY=%q: %s, want %s", env, got, want)
		}
	}
}

// The sample as it is shipped is good, and so is every key in it that is
// commented out; no key is missing.
func TestSampleConfiguration(t *testing.T) {
	sample, err := os.ReadFile("../../deploy/edge.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c, err := load(t, string(sample))
	if err != nil {
		t.Fatalf("as shipped: %v", err)
	}
	if len(c.Lanes) != 3 || c.Device != "truck-17" {
		t.Errorf("as shipped: %+v", c)
	}

	dir := t.TempDir()
	text := regexp.MustCompile(`(?m)^( *)#([a-z_]+:)`).ReplaceAllString(string(sample), "$1$2")
	text = strings.NewReplacer("/var/lib/packetboat-edge", dir, "/etc/packetboat", dir).Replace(text)
	a := newAuthority(t, dir)
	for _, name := range []string{"sensors", "truck-17"} {
		a.server(t, name)
	}
	for from, to := range map[string]string{"ca.pem": "hub-ca.pem", "./ca.pem": "sensor-ca.pem", "crl.pem": "sensor-ca.crl", "../../deploy/sensors.acl": "sensors.acl"} {
		if !strings.Contains(from, "deploy") {
			from = filepath.Join(dir, from)
		}
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, to), string(data))
	}
	if _, err := pki.SetUser(filepath.Join(dir, "sensors.users"), "gps", pki.Sum{1}); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "hub-secret"), "secret\n")
	if c, err = load(t, text); err != nil {
		t.Fatalf("with every key: %v", err)
	}
	if c.Lanes[1].Batch.Messages != 2000 || c.Lanes[0].Overflow != EvictOldest || c.Hub.TLS.ServerName == "" {
		t.Errorf("with every key: %+v", c)
	}
	for _, k := range config.Describe(&c, EnvPrefix) {
		parts := strings.Split(k.Name, ".")
		if !regexp.MustCompile(`(?m)[ #{-]*\b` + parts[len(parts)-1] + ":").Match(sample) {
			t.Errorf("the sample does not name %s", k.Name)
		}
		if k.Doc == "" {
			t.Errorf("%s has no explanation", k.Name)
		}
	}
	// What a commented key shows as default is the default.
	for _, k := range []string{"max_clients", "accept_rate", "max_packet_bytes", "max_inflight", "max_pending_bytes", "max_sessions", "session_expiry", "max_subscriptions", "max_topic_levels",
		"max_queued_messages", "max_queued_bytes", "max_retained", "max_retained_bytes", "max_keep_alive", "max_state", "lazy_sync", "hub.keep_alive", "codec.name", "state_bytes", "codec.keep", "http_public", "allow_anonymous"} {
		d := Defaults()
		i := slices.IndexFunc(config.Describe(&d, ""), func(x config.Key) bool { return x.Name == k || strings.HasSuffix(x.Name, "."+k) })
		if want := "#" + k[strings.LastIndex(k, ".")+1:] + ": " + config.Describe(&d, "")[i].Default + "\n"; !strings.Contains(string(sample), want) {
			t.Errorf("the sample does not say %q", want)
		}
	}
}

// Each case is a configuration, and words of every violation it has, in order.
func TestViolations(t *testing.T) {
	dir := t.TempDir()
	users := filepath.Join(dir, "users")
	if _, err := pki.SetUser(users, "gps", pki.Sum{1}); err != nil {
		t.Fatal(err)
	}
	secret := write(t, filepath.Join(dir, "secret"), "s\n")
	for text, want := range map[string][]string{
		"":                                       {"device: is missing", "hub.urls: is missing"},
		"device: a/b\nhub: {urls: [tcp://h]}\n":  {":1:9: device: \"a/b\": a device id is"},
		least + "listen: {mqtt: 0.0.0.0:1883}\n": {":3:16: listen.mqtt: is reachable from elsewhere"},
		least + "listen: {mqtt: ':1883'}\n":      {"listen.mqtt: is reachable from elsewhere"},
		least + "listen: {mqtt: 0.0.0.0:1883}\nallow_anonymous: true\n":                                       {},
		least + "listen: {mqtt: 0.0.0.0:1883}\nsensors: {users_file: " + users + "}\n":                        {},
		least + "listen: {mqtt: '[::1]:1883', http: off}\n":                                                   {},
		least + "listen: {mqtt: off, http: 8461}\n":                                                           {"listen.mqtt: is off, and so is every listener", "listen.http: \"8461\" is not an address"},
		least + "listen: {http: 0.0.0.0:8461}\n":                                                              {"listen.http: is reachable from elsewhere"},
		least + "listen: {http: 0.0.0.0:8461, http_public: true}\n":                                           {},
		least + "listen: {mqtts: 127.0.0.1:8883, mqtt: '127.0.0.1:99999'}\n":                                  {"listen.mqtts: has no certificate", "listen.mqtt: \"127.0.0.1:99999\" is not"},
		least + "sensors: {users_file: /nowhere/users}\n":                                                     {"sensors.users_file: read users"},
		least + "buffer: {max_bytes: 1MiB, lazy_sync: 2h}\n":                                                  {"buffer.max_bytes: is out of range: 16MiB to 1TiB", "buffer.lazy_sync: is out of range: 1ms to 1m"},
		least + "lanes: [{name: slow, filters: [a]}]\n":                                                       {`lanes[0].name: "slow" is not a lane`},
		least + "lanes: [{filters: [a]}, {name: bulk}]\n":                                                     {"lanes[0].name: is missing", "lanes[1].filters: is empty"},
		least + "lanes: [{name: bulk, filters: [a/#/b, a+, '', $SYS/#, '+/#']}]\n":                            {"filters[0]: \"a/#/b\"", "filters[1]: \"a+\"", "filters[2]: \"\"", "filters[3]: \"$SYS/#\""},
		least + "lanes: [{name: bulk, filters: [a], drain: live-first}]\n":                                    {"lanes[0].drain: live-first is not supported by this version: write fifo"},
		least + "lanes: [{name: bulk, filters: [a], drain: lifo, overflow: block}]\n":                         {"lanes[0].drain: \"lifo\"", "lanes[0].overflow: \"block\""},
		least + "lanes: [{name: bulk, filters: [a], resolution: 2s}]\n":                                       {"lanes[0].resolution: is out of range"},
		least + "lanes: [{name: drop, filters: [a], overflow: refuse-new}]\n":                                 {"lanes[0].name: drop keeps nothing"},
		least + "lanes: [{name: bulk, filters: [a]}, {name: bulk, filters: [b], overflow: refuse-new}]\n":     {"lanes[1].name: overflow and batch of bulk belong into its first rule, lanes[0]"},
		least + "lanes: [{name: bulk, filters: [a], batch: {messages: -1, bytes: 2MiB, age: 2h}}]\n":          {"batch.messages: is out of range", "batch.bytes: is out", "batch.age: is more"},
		"device: a\nhub: {urls: [h:1884, http://h, tcp://, tcp://u:p@h, tcp://h/x, 'tcp://h:0x', tls://h]}\n": {"urls[0]: \"h:1884\"", "urls[1]: \"http://h\" has the scheme http", "urls[2]: \"tcp://\" names no host", "urls[3]: ", "urls[4]: ", "urls[5]: "},
		"device: a\nhub: {urls: [tls://h], secret_file: " + secret + ", tls: {cert_file: /x}}\n":              {"hub.tls: names only one of"},
		"device: a\nhub: {urls: [tcp://h], codec: {name: zstd, state_bytes: 1KiB, keep: 2d}}\n":               {`hub.codec.name: "zstd" is not a codec: write learning or rows`, "hub.codec.state_bytes: is out of range: 256KiB to 64MiB", "hub.codec.keep: is out of range: 0s to 1d"},
		"device: a\nhub: {urls: [tcp://h], codec: {name: rows, state_bytes: 64MiB, keep: 0s}}\n":              {},
		"device: a\nhub: {urls: [tls://h], secret_file: /nowhere, tls: {ca_file: /nowhere}}\n":                {"hub.secret_file: read the secret", "hub.tls: read the authorities"},
	} {
		_, err := load(t, text)
		var errs *config.Errors
		if errors.As(err, &errs); errs == nil {
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

func TestWarnings(t *testing.T) {
	secret := write(t, filepath.Join(t.TempDir(), "secret"), "s\n")
	if err := os.Chmod(secret, 0o604); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"device: a\nhub: {urls: [tcp://127.0.0.1], secret_file: " + secret + "}\n":      "may read it",
		"device: a\nhub: {urls: [tls://h, mqtt://h], secret_file: " + secret + "}\n":    "in clear",
		"device: a\nhub: {urls: [tcp://h], tls: {server_name: x}}\n":                    "no url of the hub uses it",
		"device: a\nhub: {urls: [tcp://h], codec: {name: rows}}\n":                      "several times the bytes",
		"device: a\nhub: {urls: [tcp://localhost, mqtts://h], tls: {server_name: x}}\n": "",
	} {
		c, err := load(t, text)
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(c.Warnings(), "\n")
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s\ngot %q, want %q", text, got, want)
		}
	}
}

func TestLanesReachTheParts(t *testing.T) {
	c, err := load(t, least, `PACKETBOAT_EDGE_LANES=[{name: urgent, filters: [a], resolution: 1us, overflow: refuse-new, batch: {messages: 5}}, {name: drop, filters: [b]}, {name: urgent, filters: [c]}]`)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(c.rules()), "[{urgent false [a] 1µs} {lane(0) true [b] 0s} {urgent false [c] 0s}]"; got != want {
		t.Errorf("rules %s, want %s", got, want)
	}
	if got := c.overflows(); len(got) != 1 || got[stream.Urgent].Overflow != buffer.RefuseNew {
		t.Errorf("overflows %v", got)
	}
	if got := c.batches(); len(got) != 1 || got[stream.Urgent].Messages != 5 {
		t.Errorf("batches %v", got)
	}
}

// A filter is accepted just when it matches some topic and every level of it is
// text without wildcards, "+", or a last "#".
func TestFiltersAgainstModel(t *testing.T) {
	level := rapid.SampledFrom([]string{"a", "", "+", "#", "a+", "#b", "é", "$"})
	rapid.Check(t, func(t *rapid.T) {
		levels := rapid.SliceOfN(level, 1, 4).Draw(t, "levels")
		ok := levels[0] != "$" && !(len(levels) == 1 && levels[0] == "")
		for i, l := range levels {
			wild := strings.ContainsAny(l, "+#")
			ok = ok && (!wild || l == "+" || l == "#" && i == len(levels)-1)
		}
		f := strings.Join(levels, "/")
		if got := checkFilter(f) == ""; got != ok {
			t.Fatalf("%q: accepted %v, want %v", f, got, ok)
		}
	})
}

// Whatever the file says, a configuration that is accepted keeps the promises
// of its checks.
func FuzzConfig(f *testing.F) {
	sample, err := os.ReadFile("../../deploy/edge.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sample)
	f.Add([]byte(least))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := load(t, string(data))
		if err != nil {
			return
		}
		host, _, _ := strings.Cut(c.Listen.MQTT, ":")
		if stream.CheckDeviceID(c.Device) != nil || len(c.Hub.URLs) == 0 || c.Buffer.MaxBytes < 16<<20 ||
			(host == "0.0.0.0" || host == "") && !c.AllowAnonymous && c.Sensors.UsersFile == "" {
			t.Fatalf("accepted %+v", c)
		}
		_, _, _, _ = c.rules(), c.overflows(), c.batches(), c.Warnings()
	})
}
