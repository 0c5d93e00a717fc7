package httpapi

import (
	"encoding/json"
	"fmt"
	"iter"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/commitlog/logtest"
	"github.com/packetboat/packetboat/pkg/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fill appends n records of a device, numbered from first, to the log.
func fill(t testing.TB, log commitlog.Log, device string, e stream.Epoch, first, n int) {
	t.Helper()
	owner, err := log.Acquire(t.Context(), commitlog.ShardOf(device, log.Shards()))
	if err != nil {
		t.Fatal(err)
	}
	entry := commitlog.Entry{ID: stream.ID{Device: device, Epoch: e, Lane: stream.Normal}, Current: e, Received: 1_700_000_000_000_000}
	for i := range n {
		entry.Records = append(entry.Records, stream.Record{Seq: uint64(first + i), Message: stream.Message{
			Topic: fmt.Sprintf("car/speed/%d", (first+i)%3), Payload: []byte(fmt.Sprint(first + i)), Time: int64(1000 * (first + i)), Quality: stream.TimeLocal, QoS: 1}})
	}
	if err := owner.Append(t.Context(), []commitlog.Entry{entry}); err != nil {
		t.Fatal(err)
	}
}

// serve starts an API over real sockets and gives its address and a client.
func serve(t *testing.T, o Options) (*API, string, *Client) {
	t.Helper()
	api := New(o)
	srv := httptest.NewServer(api)
	c, err := NewClient(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); srv.CloseClientConnections(); srv.Close() })
	return api, srv.URL, c
}

func collect[T any](t *testing.T, seq iter.Seq2[T, error]) (all []T) {
	t.Helper()
	for v, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, v)
	}
	return all
}

// await polls a condition; the deadline is only there to end a broken test.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func getProblem(t *testing.T, method, u string) *Problem {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, u, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	p := &Problem{}
	if err := json.NewDecoder(res.Body).Decode(p); err != nil {
		t.Fatalf("%s: %v", u, err)
	}
	if ct := res.Header.Get("Content-Type"); ct != "application/problem+json" || p.Status != res.StatusCode || p.Title == "" {
		t.Errorf("%s: %s %s %+v", u, res.Status, ct, p)
	}
	return p
}

func TestProblems(t *testing.T) {
	_, base, _ := serve(t, Options{Log: logtest.NewMem(1)})
	for path, want := range map[string]struct {
		status    int
		parameter string
	}{
		"/":                                   {404, ""},
		"/api/v2/records":                     {404, ""},
		"/api/v1/devices/x/streams":           {404, ""},
		"/api/v1/devices/a%2Fb/streams":       {400, ""},
		"/api/v1/log?x=1":                     {400, "x"},
		"/api/v1/devices?limit=0":             {400, "limit"},
		"/api/v1/devices?limit=10001":         {400, "limit"},
		"/api/v1/devices/x/streams?ranges=-1": {400, "ranges"},
		"/api/v1/records?device=a/b":          {400, "device"},
		"/api/v1/records?topic=a/%23/b":       {400, "topic"},
		"/api/v1/records?topic=%ff":           {400, "topic"},
		"/api/v1/records?from=yesterday":      {400, "from"},
		"/api/v1/records?from=9&to=8":         {400, "to"},
		"/api/v1/records?cursor=1":            {400, "cursor"},
		"/api/v1/records?cursor=0:-1":         {400, "cursor"},
		"/api/v1/records?cursor=0:1":          {409, "cursor"},
		"/api/v1/records?cursor=7:1":          {409, "cursor"},
		"/api/v1/records?follow=maybe":        {400, "follow"},
		"/api/v1/records?limit=all":           {400, "limit"},
		"/api/v1/records?limit=1&limit=2":     {400, "limit"},
		"/api/v1/records?devcie=a":            {400, "devcie"},
		"/api/v1/records?device=%zz":          {400, ""},
		"/api/v1/records?device=a;topic=b":    {400, ""},
	} {
		if p := getProblem(t, http.MethodGet, base+path); p.Status != want.status || p.Parameter != want.parameter || p.Hint == "" && p.Status != 400 {
			t.Errorf("%s: %+v, want %d for %q", path, p, want.status, want.parameter)
		}
	}
	for _, rt := range routes {
		path := strings.ReplaceAll(rt.path, "{id}", "x")
		if p := getProblem(t, http.MethodPost, base+path); p.Status != http.StatusMethodNotAllowed || p.Hint == "" {
			t.Errorf("POST %s: %+v", path, p)
		}
	}
}

func TestTimes(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "-5": -5, "1700000000000001": 1700000000000001,
		"1970-01-01T00:00:01.5Z": 1_500_000, "1970-01-01T01:00:00+01:00": 0} {
		if got, err := ParseTime(text); err != nil || got != want {
			t.Errorf("%s: %d %v, want %d", text, got, err, want)
		}
	}
	if text := rfc3339(1_700_000_000_000_001); text != "2023-11-14T22:13:20.000001Z" {
		t.Error(text)
	}
	if text := rfc3339(1 << 62); text != "" {
		t.Errorf("a time that RFC 3339 has no form for is written %q", text)
	}
}

func TestDevicesAndStreams(t *testing.T) {
	log := logtest.NewMem(4)
	epoch := stream.NewEpoch()
	fill(t, log, "b", epoch, 1, 1)
	fill(t, log, "b", epoch, 5, 2) // 2 to 4 are out there
	fill(t, log, "...", stream.NewEpoch(), 1, 1)
	since := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	absent := map[stream.ID]uint64{{Device: "b", Epoch: epoch, Lane: stream.Normal}: 2}
	links := []Link{{Device: "new", Since: since}, {Device: "b", Connected: true, Since: since, LastBatch: since, Absent: absent}}
	_, base, c := serve(t, Options{Log: log, Links: func() []Link { return links }})

	if got := collect(t, c.Devices(t.Context())); strings.Join(got, " ") != "... b new" {
		t.Errorf("devices %v", got)
	}
	var page DeviceList
	if err := c.getJSON(t.Context(), "/api/v1/devices", url.Values{"limit": {"2"}}, &page); err != nil || page.Next != "b" || len(page.Devices) != 2 {
		t.Errorf("first page %+v %v", page, err)
	}
	if d := page.Devices[1]; !d.Connected || d.Since == nil || !d.Since.Equal(since) || d.Shard != commitlog.ShardOf("b", 4) {
		t.Errorf("device %+v", d)
	}
	var rest DeviceList
	if err := c.getJSON(t.Context(), "/api/v1/devices", url.Values{"after": {page.Next}}, &rest); err != nil || len(rest.Devices) != 1 || rest.Next != "" {
		t.Errorf("second page %+v %v", rest, err)
	}
	for _, d := range []string{"b", "..."} {
		want, err := log.Coverage(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.Coverage(t.Context(), d)
		if err != nil || got == nil || normal(got) != normal(want) {
			t.Errorf("coverage of %s: %v", d, err)
		}
	}
	for _, d := range []string{"nobody", "new"} {
		if got, err := c.Coverage(t.Context(), d); got != nil || err != nil {
			t.Errorf("coverage of %s: %+v %v", d, got, err)
		}
	}
	b, err := c.Streams(t.Context(), "b", 0)
	if err != nil || len(b.Streams) != 1 {
		t.Fatalf("%+v %v", b, err)
	}
	if s := b.Streams[0]; s.Absent != 2 || s.OutThere.Count != 3 || s.In.Count != 3 || s.OutThere.Runs[0] != [2]uint64{2, 4} {
		t.Errorf("stream %+v", s)
	}
	info, err := c.Log(t.Context())
	if err != nil || info.Log != log.ID().String() || info.Shards != 4 || info.Records != 4 {
		t.Errorf("log %+v %v", info, err)
	}
	if p := getProblem(t, http.MethodGet, base+"/api/v1/devices/nobody/streams"); p.Type != "urn:packetboat:problem:unknown-device" {
		t.Errorf("%+v", p)
	}
}

func TestHead(t *testing.T) {
	log := endless{logtest.NewMem(1)} // a body would never end
	_, base, _ := serve(t, Options{Log: log})
	res, err := http.Head(base + "/api/v1/records")
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	defer res.Body.Close()
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != ContentTypeLines || res.Header.Get("Packetboat-Log") != log.ID().String() {
		t.Errorf("%s %v", res.Status, res.Header)
	}
}

func TestLoopbackOnly(t *testing.T) {
	api := New(Options{Log: logtest.NewMem(1), LoopbackOnly: true})
	for host, want := range map[string]int{"127.0.0.1:8460": 200, "localhost:1": 200, "LOCALHOST.": 200, "[::1]:8460": 200, "::1": 200, "evil.example:8460": 421, "": 421, "127.0.0.1.evil.example": 421} {
		r := httptest.NewRequest(http.MethodGet, "/api/v1/log", nil)
		r.Host = host
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("host %q: %d, want %d", host, w.Code, want)
		}
	}
}

func TestNoHub(t *testing.T) {
	for _, bad := range []string{"", "ftp://x", "http://", "http://%zz"} {
		if _, err := NewClient(bad); err == nil {
			t.Errorf("%q passes as an address", bad)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewClient(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = c.Log(t.Context())
	if e, ok := err.(*UnreachableError); !ok || !strings.Contains(e.Hint(), "running") {
		t.Errorf("%v", err)
	}
}
