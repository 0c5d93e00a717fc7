package hub

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/packetboat/packetboat/internal/cli"
	"github.com/packetboat/packetboat/pkg/stream"
)

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// A scrape holds together, names base units, and counts what happened.
func TestMetrics(t *testing.T) {
	h := runHub(t, testConfig(t.TempDir()))
	d, _ := mustDial(t, h.mqttAddr(), hello{id: "a"})
	epoch := stream.NewEpoch()
	d.send(batch(epoch, 1, 3))
	d.send(batch(epoch, 2, 3)) // 2 and 3 again
	base := "http://" + h.HTTPAddr().String()
	var text string
	await(t, "the last acknowledgement to be counted", func() bool { // it is written first, then counted
		_, text = get(t, base+"/metrics")
		return strings.Contains(text, "\npacketboat_hub_mqtt_acks_total 2\n")
	})
	for _, want := range []string{
		"packetboat_hub_sessions 1", "packetboat_hub_appended_messages_total 4", "packetboat_hub_duplicate_messages_total 2",
		"packetboat_hub_log_messages 4", "packetboat_hub_served_shards 1",
		`packetboat_hub_lost_messages_total{reason="evicted"} 0`, `packetboat_hub_refused_connects_total{reason="secret"} 0`,
	} {
		if !strings.Contains(text, "\n"+want+"\n") {
			t.Errorf("the scrape lacks %q", want)
		}
	}
	for line := range strings.Lines(text) {
		if name, kind, ok := strings.Cut(strings.TrimPrefix(line, "# TYPE "), " "); ok && strings.HasPrefix(line, "# TYPE packetboat_hub_") {
			if counter := strings.TrimSpace(kind) == "counter"; counter != strings.HasSuffix(name, "_total") {
				t.Errorf("%s is a %s", name, kind)
			}
			if regexp.MustCompile(`_(ms|milliseconds|us|kb|mb|minutes)(_|$)`).MatchString(name) {
				t.Errorf("%s is not in a base unit", name)
			}
		}
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, text := get(t, base+path); code != 200 || text != "ok\n" {
			t.Errorf("%s: %d %q", path, code, text)
		}
	}
}

// A part that fails while the hub runs stops the whole of it, and its failure
// is what Run returns.
func TestFailingPartStopsTheHub(t *testing.T) {
	h, err := Open(testConfig(t.TempDir()), discard)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- h.Run(context.Background()) }()
	if err := h.http.Close(); err != nil { // behind the hub's back
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "http") {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the hub goes on without HTTP")
	}
	if err := h.store.Close(); err != nil {
		t.Errorf("the log is not closed: %v", err)
	}
}

// A part's end is told once, and a part that was asked to end has not failed.
func TestParts(t *testing.T) {
	boom := errors.New("boom")
	failed := make(chan error, 2)
	p := start(t.Context(), "one", func(err error) { failed <- err }, func(context.Context) error { return boom })
	if err := <-failed; !errors.Is(err, boom) {
		t.Error(err)
	}
	if err := p.stop(); err != nil {
		t.Errorf("its failure is told twice: %v", err)
	}
	p = start(t.Context(), "two", func(err error) { failed <- err }, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	if err := p.stop(); err != nil || len(failed) != 0 {
		t.Errorf("%v, %d failures", err, len(failed))
	}
	p = start(t.Context(), "three", func(err error) { failed <- err }, func(ctx context.Context) error { <-ctx.Done(); return boom })
	if err := p.stop(); !errors.Is(err, boom) || len(failed) != 0 {
		t.Errorf("%v, %d failures", err, len(failed))
	}
	start(t.Context(), "four", func(err error) { failed <- err }, func(context.Context) error { return nil })
	if err := <-failed; err == nil {
		t.Error("a part that just ends counts as running")
	}
}

// With certificate files devices connect over TLS as well.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	pool := selfSigned(t, dir)
	c := testConfig(filepath.Join(dir, "data"))
	c.TLS = TLS{CertFile: filepath.Join(dir, "crt"), KeyFile: filepath.Join(dir, "key")}
	c.Listen.MQTTS = "127.0.0.1:0"
	h := runHub(t, c)
	if n := len(h.MQTTAddrs()); n != 2 {
		t.Fatalf("%d listeners", n)
	}
	conn, err := tls.Dial("tcp", h.MQTTAddrs()[0].String(), &tls.Config{RootCAs: pool, ServerName: "localhost"})
	if err != nil {
		t.Fatal(err)
	}
	d, _, err := dialOver(t, conn, hello{id: "ship"})
	if err != nil {
		t.Fatal(err)
	}
	d.send(batch(stream.NewEpoch(), 1, 1))
	h.wantRecords("ship/1=1")

	c.DataDir = filepath.Join(dir, "other")
	c.TLS.KeyFile = filepath.Join(dir, "missing")
	if _, err := Open(c, discard); cli.ExitCode(err) != cli.Usage {
		t.Errorf("without the key: %v", err)
	}
}

// selfSigned writes a certificate for localhost to dir/crt and dir/key.
func selfSigned(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"crt": {Type: "CERTIFICATE", Bytes: der}, "key": {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return pool
}

// What keeps a hub from opening has its exit code, and nothing stays open: the
// same data directory opens right after.
func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := testConfig(filepath.Join(dir, "data"))
	for name, c := range map[string]struct {
		change func(*Config)
		code   int
	}{
		"port of http taken":       {func(c *Config) { c.Listen.HTTP = taken.Addr().String() }, cli.Listen},
		"port of mqtt taken":       {func(c *Config) { c.Listen.MQTT = taken.Addr().String() }, cli.Listen},
		"not a directory":          {func(c *Config) { c.DataDir = file }, cli.Operator},
		"broken devices file":      {func(c *Config) { c.DevicesFile = file }, cli.Usage},
		"another number of shards": {func(c *Config) { c.Store.Shards = 7 }, cli.Usage},
	} {
		h, err := Open(good, discard) // makes the log, or shows that nothing holds it
		if err != nil {
			t.Fatalf("before %s: %v", name, err)
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		conf := good
		c.change(&conf)
		if _, err := Open(conf, discard); cli.ExitCode(err) != c.code {
			t.Errorf("%s: exit code %d, want %d: %v", name, cli.ExitCode(err), c.code, err)
		}
	}
	h := runHub(t, good)
	if _, err := Open(good, discard); cli.ExitCode(err) != cli.Locked {
		t.Errorf("locked: %v", err)
	}
	h.stop()
}
