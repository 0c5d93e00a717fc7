package hub

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/packetboat/packetboat/internal/mqttfront"
	"github.com/packetboat/packetboat/internal/pki"
	"github.com/packetboat/packetboat/internal/wire"
	"github.com/packetboat/packetboat/pkg/stream"
)

// A wrong secret waits for its answer, as an unknown device does; the right one
// never does, whoever is behind the same address.
func TestWrongSecretsAreSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := t.TempDir() + "/devices"
		secret, sum := pki.NewSecret()
		if _, err := pki.SetUser(path, "truck", sum); err != nil {
			t.Fatal(err)
		}
		devices, err := openDevices(deviceRules{path: path, max: 10}, discard)
		if err != nil {
			t.Fatal(err)
		}
		b := newBridge(nil, devices, nil, discard)
		away := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 7}
		ask := func(ctx context.Context, from net.Addr, id, secret string) (took time.Duration, err error) {
			began := time.Now()
			_, err = b.check(ctx, &mqttfront.Peer{ClientID: id, Password: []byte(secret), Remote: from, User: []stream.Property{wire.FormatVersion()}})
			return time.Since(began), err
		}
		ctx := t.Context()
		var wg sync.WaitGroup
		for i := range wrongPerAddress {
			id := []string{"truck", "unknown"}[i%2]
			wg.Go(func() {
				if took, err := ask(ctx, away, id, "guess"); err == nil || took < wrongDelay || took > 2*wrongDelay {
					t.Errorf("%s: %v after %s", id, err, took)
				}
			})
		}
		synctest.Wait()
		if took, err := ask(ctx, away, "truck", secret); err != nil || took != 0 {
			t.Errorf("the right one: %v after %s", err, took)
		}
		if took, err := ask(ctx, away, "truck", "guess"); err == nil || took != 0 {
			t.Errorf("beyond the bound: %v after %s", err, took)
		}
		other := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 2)}
		soon, cancel := context.WithTimeout(ctx, time.Millisecond)
		defer cancel()
		if took, err := ask(soon, other, "truck", "guess"); err == nil || took != time.Millisecond {
			t.Errorf("a client that leaves: %v after %s", err, took)
		}
		if took, _ := ask(ctx, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, "truck", "guess"); took != 0 {
			t.Errorf("from this machine: after %s", took)
		}
		wg.Wait()
		if d, f := b.slow.delayed.Load(), b.slow.full.Load(); d != wrongPerAddress+1 || f != 1 || b.slow.total != 0 || len(b.slow.waiting) != 0 {
			t.Errorf("delayed %d, not delayed %d, left %d %v", d, f, b.slow.total, b.slow.waiting)
		}
	})
}

// Two edges with one id are seen, with both addresses, by the operator alone;
// one edge that comes again and again is not taken for two.
func TestTwoDevicesWithOneID(t *testing.T) {
	var out syncBuffer
	c := testConfig(t.TempDir())
	h := runHubWith(t, c, slog.New(slog.NewTextHandler(&out, nil)))
	one, two := stream.NewEpoch(), stream.NewEpoch()
	connect := func(e stream.Epoch) *device {
		d, _ := mustDial(t, h.mqttAddr(), hello{id: "truck", held: []stream.Held{{Epoch: e, Lane: stream.Normal, Current: true}}})
		return d
	}
	for range 3 {
		connect(one)
	}
	first := connect(one)
	second := connect(two) // the edge may have started anew
	if s := h.status(); s.DuplicateDevices != 0 || len(s.Duplicates) != 0 {
		t.Fatalf("%+v", s)
	}
	third := connect(one)
	connect(two)
	await(t, "the duplicates in the API", func() bool { // it knows them for a second
		d, err := h.client.Streams(t.Context(), "truck", 0)
		return err == nil && d.Duplicate != nil && d.Duplicate.Count == 2
	})
	s, err := h.client.Status(t.Context())
	if err != nil || s.DuplicateDevices != 2 || len(s.Duplicates) != 1 || s.Duplicates[0].Device != "truck" || s.Duplicates[0].Count != 2 ||
		s.Duplicates[0].Addresses[1] != third.conn.LocalAddr().String() {
		t.Errorf("%+v %v", s, err)
	}
	if text := out.String(); strings.Count(text, "two live devices share an id") != 1 ||
		!strings.Contains(text, "remote="+third.conn.LocalAddr().String()) || !strings.Contains(text, "other_remote="+second.conn.LocalAddr().String()) {
		t.Errorf("logged:\n%s", text)
	}
	// Both deliver all the same.
	first.bye()
	d := connect(one)
	d.send(batch(one, 1, 1))
	d = connect(two)
	d.send(batch(two, 1, 1))
	h.wantRecords("truck/1=1", "truck/1=1")
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// wiretap keeps every byte that a client is sent.
type wiretap struct {
	net.Conn
	heard syncBuffer
}

func (w *wiretap) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	_, _ = w.heard.Write(p[:n])
	return n, err
}

// While one device works, another one tries what it can: nothing that it is sent
// holds anything of the first, and nothing in the log holds a secret or a
// payload.
func TestNothingOfAnotherDevice(t *testing.T) {
	var out syncBuffer
	c := testConfig(t.TempDir())
	secret, sum := pki.NewSecret()
	spySecret, spySum := pki.NewSecret()
	for id, s := range map[string]pki.Sum{"victim-8831": sum, "spy": spySum} {
		if _, err := pki.SetUser(c.DevicesPath(), id, s); err != nil {
			t.Fatal(err)
		}
	}
	h := runHubWith(t, c, slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	epoch := stream.NewEpoch()
	const payload, topic = "payload-5f3c", "private/topic-77a1"
	private := func(first uint64, n int) *stream.Batch {
		b := batch(epoch, first, n)
		for i := range b.Records {
			b.Records[i].Topic, b.Records[i].Payload = topic, fmt.Append(nil, payload, i)
		}
		return b
	}
	held := []stream.Held{{Epoch: epoch, Lane: stream.Normal, Head: 9, Ranges: stream.NewRangeSet(stream.Range{First: 1, Last: 9}), Current: true}}
	victim, _ := mustDial(t, h.mqttAddr(), hello{id: "victim-8831", secret: secret, held: held})
	victim.send(private(1, 3))

	taps := &[]*wiretap{}
	tap := func(say hello) (*device, error) {
		conn, err := net.Dial("tcp", h.mqttAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		w := &wiretap{Conn: conn}
		*taps = append(*taps, w)
		d, _, err := dialOver(t, w, say)
		return d, err
	}
	spy, err := tap(hello{id: "spy", secret: spySecret, held: held}) // the victim's epoch, as its own
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"#", "+/#", "pb/#", "pb/1/+/up", "pb/1/+/down/#", "pb/1/victim-8831/#", "pb/1/victim-8831/up", "$SYS/#", "$share/g/#", "$share/g/pb/1/victim-8831/up", "pb/1/spy/down/#"} {
		_ = spy.subscribe(f)
	}
	victim.send(private(4, 3))
	for _, to := range []string{"pb/1/victim-8831/up", "pb/1/victim-8831/down", "car/speed", "pb/1/spy/down"} {
		_, _, _ = spy.publish(to, spy.encode(batch(epoch, 4, 1)))
	}
	spy.enc.Reset()
	spy.send(batch(epoch, 1, 3)) // numbers that the victim has settled
	for _, say := range []hello{
		{id: "victim-8831"}, {id: "victim-8831", secret: spySecret}, {id: "victim-8831", username: "spy", secret: spySecret},
		{id: "victim-9999", secret: spySecret}, {id: "spy", username: "victim-8831", secret: spySecret}, {id: "spy", username: "victim-8831", secret: secret},
		{id: "spy", secret: spySecret, will: []byte("x")}, {id: "spy", secret: spySecret, held: held},
	} {
		_, _ = tap(say)
	}
	victim.send(private(7, 3))
	// The victim's own second connection ends the first: the spy hears nothing.
	again, _ := mustDial(t, h.mqttAddr(), hello{id: "victim-8831", secret: secret, held: held})
	again.send(private(10, 1))
	id := h.store.ID()
	h.stop()

	for i, w := range *taps {
		heard := w.heard.String()
		for what, s := range map[string]string{"id": "victim", "payload": payload, "topic": "private", "secret": secret,
			"address": victim.conn.LocalAddr().String(), "data directory": c.DataDir} {
			if strings.Contains(heard, s) {
				t.Errorf("connection %d of the spy was sent the %s: %q", i, what, heard)
			}
		}
		if len(heard) == 0 {
			t.Errorf("connection %d heard nothing: it proves nothing", i)
		}
	}
	if !strings.Contains((*taps)[0].heard.String(), id.String()) {
		t.Error("the tap does not see the welcome: it proves nothing")
	}
	for what, s := range map[string]string{"payload": payload, "secret": secret, "the spy's secret": spySecret, "topic of a message": topic} {
		if strings.Contains(out.String(), s) {
			t.Errorf("the log holds the %s", what)
		}
	}
	if !strings.Contains(out.String(), "victim-8831") {
		t.Error("the operator's log does not name devices: it proves nothing")
	}
}

// An unknown device and a wrong secret get the same bytes.
func TestRefusalsAreAlike(t *testing.T) {
	c := testConfig(t.TempDir())
	_, sum := pki.NewSecret()
	if _, err := pki.SetUser(c.DevicesPath(), "known-1", sum); err != nil {
		t.Fatal(err)
	}
	h := runHub(t, c)
	answer := func(id, secret string) string {
		conn, err := net.Dial("tcp", h.mqttAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		w := &wiretap{Conn: conn}
		if _, _, err := dialOver(t, w, hello{id: id, secret: secret}); err == nil {
			t.Fatalf("%s got in", id)
		}
		return w.heard.String()
	}
	guess, _ := pki.NewSecret()
	if a, b := answer("known-1", guess), answer("other-1", guess); a != b || a == "" {
		t.Errorf("with a secret: %q and %q", a, b)
	}
	if a, b := answer("known-1", ""), answer("other-1", ""); a != b || a == "" {
		t.Errorf("without: %q and %q", a, b)
	}
}
