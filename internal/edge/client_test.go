package edge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/packetboat/packetboat/internal/cli"
	"github.com/packetboat/packetboat/internal/obs"
	"github.com/packetboat/packetboat/internal/uplink"
	"github.com/packetboat/packetboat/pkg/buffer"
	"github.com/packetboat/packetboat/pkg/stream"
)

func TestBaseURL(t *testing.T) {
	for addr, want := range map[string]string{
		"127.0.0.1:8461": "http://127.0.0.1:8461", "0.0.0.0:80": "http://127.0.0.1:80", ":80": "http://127.0.0.1:80",
		"[::]:80": "http://127.0.0.1:80", "[::1]:80": "http://[::1]:80", "boat:80": "http://boat:80",
	} {
		if got := BaseURL(addr); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
}

func TestAskFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"device": 1}`)
	}))
	defer broken.Close()
	for base, want := range map[string]string{
		"http://" + l.Addr().String(): "no edge runs at",
		other.URL:                     "is no edge: 404",
		broken.URL:                    "read the status",
		"https://x":                   "is not the address of an edge",
	} {
		if _, err := Ask(context.Background(), base); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", base, err, want)
		}
	}
}

func TestPrint(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	s := Status{
		Device: "truck-17", Build: obs.Build{Version: "1.2"}, Started: now.Add(-26 * time.Hour), Now: now,
		NotReady: []string{"disk: no space left"},
		Link: LinkStatus{State: uplink.Waiting, Since: now.Add(-90 * time.Second), Hub: "tcp://h:1884", LastError: "refused\x1b[2J", LastErrorAt: now.Add(-3 * time.Second),
			RetryAt: now.Add(2500 * time.Millisecond), Connects: 3, BytesSent: 12345678, BytesReceived: 100},
		Messages: MessageStatus{Accepted: 1234567, Settled: 1234000, Queued: 500, InFlight: 60, Lost: 7, LostBy: map[string]uint64{"expired": 2, "evicted": 5}, Dropped: 1000},
		Lanes:    []LaneStatus{{Lane: stream.Urgent}, {Lane: stream.Bulk, Messages: 560, Bytes: 1 << 20, OldestSeconds: 3725}},
		Journal:  JournalStatus{Dir: "/d", Bytes: 12 << 20, LimitBytes: 1 << 30, DiskError: "no space left"},
		Sensors: SensorStatus{Clients: 2, Sessions: 1, Subscriptions: 3, Retained: 1000, Refused: 4, RefusedBy: map[string]int64{"full": 3, "busy": 1},
			Denied: map[string]int64{"publish": 5, "will": 1}, BadLogins: 6, TurnedAway: map[string]int64{"tls": 7}, StateFailures: 1,
			Limits: map[string]int64{"packet_size": 2}, Errors: map[string]int64{"malformed": 3},
			Certificates: []Certificate{{"sensors", "sensors.tls.cert_file", now.Add(36 * time.Hour)}, {"hub", "hub.tls.cert_file", now.Add(-time.Hour)}, {"sensor_ca", "x", now.Add(warnBefore)}}},
	}
	var b bytes.Buffer
	if err := s.Print(&b); err != nil {
		t.Fatal(err)
	}
	want := `device       truck-17, up 1d2h, packetboat-edge 1.2
ready        no: disk: no space left
link         waiting for 1m30s, tcp://h:1884, next try in 2.5s
last error   3s ago: refused [2J
sent         11.8MiB, received 100B, 3 connects
accepted     1,234,567 messages
settled      1,234,000
waiting      500, and 60 in flight
lost         7 (5 evicted, 2 expired)
dropped      1,000 by rule since the start
CAUTION      accepted is not settled + waiting + in flight + lost: please report this
journal      12.0MiB of 1.0GiB in /d
disk error   no space left
sensors      2 connected, 1 session, 3 subscriptions, 1,000 retained
refused      4 messages (1 busy, 3 full)
acl denied   5 publish, 1 will
bad logins   6
turned away  7 tls
limits hit   2 packet_size
broke rules  3 malformed
not saved    1 change of sessions
certificate  sensors.tls.cert_file: the certificate expires in 1d12h, on 2026-05-03
certificate  hub.tls.cert_file: the certificate is expired since 2026-05-01

LANE    WAITING  SIZE    OLDEST
urgent  0        0B      -
bulk    560      1.0MiB  1h2m
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestOpenErrors(t *testing.T) {
	path := func(err error) error { return &fs.PathError{Op: "open", Path: "/d/x", Err: err} }
	for _, c := range []struct {
		err  error
		code int
		hint string
	}{
		{fmt.Errorf("%w: /d", buffer.ErrLocked), cli.Locked, "stop that one"},
		{path(syscall.ENOSPC), cli.Operator, "free some space"},
		{path(syscall.EACCES), cli.Operator, "right to write"},
		{path(syscall.EROFS), cli.Operator, "read-only"},
		{path(syscall.EIO), cli.Operator, "failing"},
		{path(syscall.ENOTDIR), cli.Operator, "another directory"},
		{fmt.Errorf("%w: x", buffer.ErrDamaged), cli.Operator, "copy"},
		{fmt.Errorf("%w: x", buffer.ErrVersion), cli.Operator, "newer"},
		{errors.New("other"), cli.Failed, ""},
	} {
		err := openError("/d", c.err)
		var e *cli.Error
		if !errors.As(err, &e) || e.Code != c.code || !strings.Contains(e.Help, c.hint) || !errors.Is(err, c.err) {
			t.Errorf("%v: %+v", c.err, e)
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: more than one line", err)
		}
	}
}
