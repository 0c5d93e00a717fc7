package hub

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/packetboat/packetboat/internal/mqttfront"
	"github.com/packetboat/packetboat/internal/pki"
	"github.com/packetboat/packetboat/internal/uplink"
	"github.com/packetboat/packetboat/pkg/buffer"
	"github.com/packetboat/packetboat/pkg/stream"
)

// manual runs the nth block of shell commands in docs/operations/hub.md.
func manual(t *testing.T, dir string, n int) {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("NOT TESTED: there is no openssl here; nothing shows that the commands of docs/operations/hub.md work")
	}
	text, err := os.ReadFile("../../docs/operations/hub.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)\n```sh\n(.*?)```").FindAllSubmatch(text, -1)
	if len(blocks) <= n {
		t.Fatalf("the manual has %d blocks of commands", len(blocks))
	}
	sh := exec.Command("sh", "-eu", "-c", string(blocks[n][1]))
	sh.Dir = dir
	if out, err := sh.CombinedOutput(); err != nil {
		t.Fatalf("block %d of the manual: %v\n%s", n, err, out)
	}
}

// The manual's commands make an authority, a device's certificate and a
// revocation list: a real edge delivers over mutual TLS with them, until it is
// revoked.
func TestEdgeWithCertificate(t *testing.T) {
	dir := t.TempDir()
	manual(t, dir, 0)
	file := func(name string) string { return filepath.Join(dir, name) }
	c := testConfig(t.TempDir())
	c.Listen.MQTT, c.Listen.MQTTS = Off, "127.0.0.1:0"
	c.TLS = TLS{CertFile: file("hub.crt"), KeyFile: file("hub.key"), ClientCAFile: file("devices-ca.crt"), CRLFile: file("devices.crl"),
		ClientAuth: string(pki.AuthRequired), Devices: DevicesAny}
	if warnings, err := c.CheckFiles(); err != nil || len(warnings) > 0 {
		t.Errorf("config check: %v %v", warnings, err)
	}
	h := runHub(t, c)

	b := openBuffer(t)
	fill(t, b, 0, 100)
	client, err := pki.OpenClientTLS(pki.ClientFiles{CA: file("hub.crt"), Cert: file("truck-17.crt"), Key: file("truck-17.key"), ServerName: "hub.example"})
	if err != nil {
		t.Fatal(err)
	}
	u := uplink.New(b, uplink.Options{Device: "truck-17", URLs: []string{"tls://" + h.mqttAddr().String()}, TLSConfig: client.Config,
		BackoffMin: time.Millisecond, BackoffMax: 10 * time.Millisecond})
	runPart(t, "uplink", u.Run)
	await(t, "the messages to be settled", func() bool { return u.Stats().MessagesSettled == 100 })
	if n := len(h.records()); n != 100 {
		t.Errorf("%d records", n)
	}

	manual(t, dir, 1)
	h.bridge.expel()
	await(t, "the edge to be told that it is revoked", func() bool { return h.gate.Stats().Refused["revoked"] > 0 })
	if n := h.bridge.stats.expelled.Load(); n != 1 {
		t.Errorf("%d expelled", n)
	}
	await(t, "the session to end", func() bool { return h.ingest.Stats().Sessions == 0 })
	if s := u.Stats(); s.State == uplink.Up || s.LastError == "" {
		t.Errorf("%+v", s)
	}
	if s := h.tls.Stats(); s.Lists != 1 || s.Revoked != 1 || s.Stale || s.Unusable || s.NextUpdate.IsZero() || s.NotAfter.IsZero() || s.ClientCANotAfter.IsZero() {
		t.Errorf("%+v", s)
	}
	// Without any certificate there is no connection to say CONNECT over.
	bare, err := pki.OpenClientTLS(pki.ClientFiles{CA: file("hub.crt"), ServerName: "hub.example"})
	if err != nil {
		t.Fatal(err)
	}
	conf, err := bare.Config()
	if err != nil {
		t.Fatal(err)
	}
	if conn, err := tls.Dial("tcp", h.mqttAddr().String(), conf); err == nil {
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("a client without a certificate is listened to")
		}
		_ = conn.Close()
	}
	await(t, "the refusal", func() bool { return h.gate.Stats().Refused["no_client_cert"] == 1 })
	if s := h.front.Stats(); s.Refusals[mqttfront.NotAuthorized] != 0 {
		t.Errorf("%+v", s.Refusals)
	}
	res, err := http.Get("http://" + h.HTTPAddr().String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	text, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`gate_refused_total{reason="no_client_cert"} 1`, `refused_connects_total{reason="certificate"} 0`, "duplicate_device_total 0", "takeovers_total 0",
		"tls_certificate_not_after_seconds 1.", "tls_client_ca_not_after_seconds ", "tls_crl_next_update_seconds ", "tls_revoked_certificates 1", "tls_crl_stale 0", "tls_files_unusable 0",
		"expelled_devices_total 1", "gate_delayed_total 0", "gate_full_total 0", "mqtt_strangers 0"} {
		if !strings.Contains(string(text), "\npacketboat_hub_"+want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

func runPart(t *testing.T, name string, run func(context.Context) error) {
	t.Helper()
	p := start(context.Background(), name, func(err error) { t.Error(err) }, run)
	t.Cleanup(func() {
		if err := p.stop(); err != nil {
			t.Error(err)
		}
	})
}

func openBuffer(t *testing.T) *buffer.Buffer {
	t.Helper()
	b, err := buffer.Open(buffer.Options{Dir: t.TempDir(), MaxBytes: 64 << 20, LazySync: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	runPart(t, "buffer", b.Run)
	return b
}

// fill appends n messages.
func fill(t *testing.T, b *buffer.Buffer, from, n int) {
	t.Helper()
	for i := range n {
		m := stream.Message{Topic: "car/speed", Time: int64(from+i) * 1000, Payload: fmt.Append(nil, from+i), QoS: 1, Quality: stream.TimeLocal}
		if err := b.Append(stream.Normal, []stream.Message{m}, nil); err != nil {
			t.Fatal(err)
		}
	}
}
