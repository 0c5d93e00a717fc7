package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"log/slog"
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

// Wherever a reader stops, the cursor of its last line gives the rest: nothing
// twice, nothing left out.
func TestResumeByCursor(t *testing.T) {
	log := logtest.NewMem(3)
	for i := range 5 {
		fill(t, log, fmt.Sprintf("truck-%d", i), stream.NewEpoch(), 1, 7)
	}
	_, _, c := serve(t, Options{Log: log})
	all := collect(t, c.Read(t.Context(), commitlog.Cursor{}, commitlog.Filter{}))
	if len(all) != 35 {
		t.Fatalf("%d records, want 35", len(all))
	}
	for stop := 1; stop <= len(all); stop++ {
		seen := map[string]bool{}
		var cursor commitlog.Cursor
		n := 0
		for s, err := range c.Read(t.Context(), cursor, commitlog.Filter{}) {
			if err != nil {
				t.Fatal(err)
			}
			seen[fmt.Sprint(s.ID(), s.Seq)] = true
			cursor.Advance(&s)
			if n++; n == stop {
				break
			}
		}
		for s, err := range c.Read(t.Context(), cursor, commitlog.Filter{}) {
			if err != nil {
				t.Fatal(err)
			}
			if key := fmt.Sprint(s.ID(), s.Seq); seen[key] {
				t.Fatalf("stopped after %d: %s comes twice", stop, key)
			} else {
				seen[key] = true
			}
		}
		if len(seen) != len(all) {
			t.Fatalf("stopped after %d: %d of %d records", stop, len(seen), len(all))
		}
	}
	// The text of a line says the same as the client's arithmetic.
	var cursor commitlog.Cursor
	for raw, err := range c.Lines(t.Context(), cursor, commitlog.Filter{}, 3) {
		if err != nil {
			t.Fatal(err)
		}
		var l Line
		if err := json.Unmarshal(raw, &l); err != nil {
			t.Fatal(err)
		}
		s, err := l.Stored()
		if err != nil {
			t.Fatal(err)
		}
		cursor.Advance(s)
		if l.Cursor != cursor.String() {
			t.Errorf("line says cursor %s, want %s", l.Cursor, cursor)
		}
	}
}

func TestFiltersAndLimit(t *testing.T) {
	log := logtest.NewMem(2)
	fill(t, log, "a", stream.NewEpoch(), 1, 9)
	fill(t, log, "b", stream.NewEpoch(), 1, 9)
	_, _, c := serve(t, Options{Log: log})
	for _, q := range []struct {
		f     commitlog.Filter
		limit int64
		want  int
	}{
		{commitlog.Filter{}, 0, 18},
		{commitlog.Filter{}, 4, 4},
		{commitlog.Filter{Device: "a"}, 0, 9},
		{commitlog.Filter{Device: "nobody"}, 0, 0},
		{commitlog.Filter{Topic: "car/+/1"}, 0, 6},
		{commitlog.Filter{Topic: "car/#"}, 0, 18},
		{commitlog.Filter{From: 2000, To: 4000}, 0, 4},
	} {
		if got := collect(t, c.Lines(t.Context(), commitlog.Cursor{}, q.f, q.limit)); len(got) != q.want {
			t.Errorf("%+v limit %d: %d lines, want %d", q.f, q.limit, len(got), q.want)
		}
	}
}

// A follower gets what is appended later without asking again, and its end
// frees its place.
func TestFollow(t *testing.T) {
	log := logtest.NewMem(2)
	epoch := stream.NewEpoch()
	fill(t, log, "a", epoch, 1, 2)
	api, _, c := serve(t, Options{Log: log})
	ctx, cancel := context.WithCancel(t.Context())
	var last error
	next := uint64(1)
	for s, err := range c.Read(ctx, commitlog.Cursor{}, commitlog.Filter{Device: "a", Follow: true}) {
		if err != nil {
			last = err
			break
		}
		if s.Seq != next {
			t.Fatalf("record %d, want %d", s.Seq, next)
		}
		if next++; next%2 == 1 && next < 8 {
			fill(t, log, "a", epoch, int(next), 2)
		}
		if next == 9 {
			cancel()
		}
	}
	cancel()
	if next != 9 || last == nil {
		t.Fatalf("ended at %d with %v", next, last)
	}
	await(t, "the follower's place to be free", func() bool { return api.Stats().Readers == 0 })
}

// await polls a condition; the deadline is only there to end a broken test.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(time.Millisecond)
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
	fill(t, log, "..", stream.NewEpoch(), 1, 1)
	since := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	absent := map[stream.ID]uint64{{Device: "b", Epoch: epoch, Lane: stream.Normal}: 2}
	links := []Link{{Device: "new", Since: since}, {Device: "b", Connected: true, Since: since, LastBatch: since, Absent: absent}}
	_, base, c := serve(t, Options{Log: log, Links: func() []Link { return links }})

	if got := collect(t, c.Devices(t.Context())); strings.Join(got, " ") != ".. b new" {
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
	for _, d := range []string{"b", ".."} {
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

// brokenLog fails after the records it has.
type brokenLog struct{ *logtest.Mem }

func (b brokenLog) Read(ctx context.Context, c commitlog.Cursor, f commitlog.Filter) iter.Seq2[commitlog.Stored, error] {
	return func(yield func(commitlog.Stored, error) bool) {
		for s, err := range b.Mem.Read(ctx, c, f) {
			if !yield(s, err) {
				return
			}
		}
		yield(commitlog.Stored{}, fmt.Errorf("secret detail: bad block"))
	}
}

// A log that breaks while it is read ends the answer with a problem, not with
// silence that looks like the end.
func TestBrokenLogIsNoQuietEnd(t *testing.T) {
	mem := logtest.NewMem(1)
	fill(t, mem, "a", stream.NewEpoch(), 1, 2)
	api, _, c := serve(t, Options{Log: brokenLog{mem}})
	n, last := 0, error(nil)
	for _, err := range c.Read(t.Context(), commitlog.Cursor{}, commitlog.Filter{}) {
		if err != nil {
			last = err
			break
		}
		n++
	}
	p, ok := last.(*Problem)
	if n != 2 || !ok || p.Status != 500 || strings.Contains(p.Error(), "secret detail") {
		t.Errorf("%d records, then %v", n, last)
	}
	if s := api.Stats(); s.Failed != 1 || s.Records != 2 {
		t.Errorf("%+v", s)
	}
}

// An answer that is cut off is an error at the client.
func TestCutAnswerIsAnError(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s := commitlog.Stored{Device: "a", Epoch: stream.NewEpoch(), Lane: stream.Bulk}
		_, _ = w.Write(appendLine(nil, NewLine(&s, "0:1")))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	defer srv.Close()
	c, err := NewClient(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	n, last := 0, error(nil)
	for _, err := range c.Read(t.Context(), commitlog.Cursor{}, commitlog.Filter{}) {
		if last = err; err == nil {
			n++
		}
	}
	if n != 1 || last == nil {
		t.Errorf("%d records, then %v", n, last)
	}
}

// endless yields the same record for ever.
type endless struct{ *logtest.Mem }

func (e endless) Read(ctx context.Context, _ commitlog.Cursor, _ commitlog.Filter) iter.Seq2[commitlog.Stored, error] {
	return func(yield func(commitlog.Stored, error) bool) {
		s := commitlog.Stored{Device: "a", Epoch: stream.NewEpoch(), Lane: stream.Bulk}
		s.Payload = make([]byte, 4<<10)
		for ctx.Err() == nil && yield(s, nil) {
			s.Offset++
		}
	}
}

// A reader that stops reading is cut off and costs no more than the socket's
// buffers; beyond MaxReaders one is told to come later.
func TestSlowReaders(t *testing.T) {
	api, base, _ := serve(t, Options{Log: endless{logtest.NewMem(1)}, Patience: 100 * time.Millisecond, MaxReaders: 1, Logger: slog.New(slog.DiscardHandler)})
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /api/v1/records HTTP/1.1\r\nHost: %s\r\n\r\n", u.Host)
	await(t, "the reader to be served", func() bool { return api.Stats().Readers == 1 })
	if p := getProblem(t, http.MethodGet, base+"/api/v1/records"); p.Status != http.StatusServiceUnavailable && api.Stats().Readers == 1 {
		t.Errorf("a second reader: %+v", p)
	}
	await(t, "the reader to be cut off", func() bool { s := api.Stats(); return s.CutOff == 1 && s.Readers == 0 })
	// What it got is no complete answer.
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err == nil {
		t.Error("the cut answer looks complete")
	}
}

// A hub that stops tells its followers so: their answer does not look complete.
func TestStopIsNoQuietEnd(t *testing.T) {
	mem := logtest.NewMem(1)
	fill(t, mem, "a", stream.NewEpoch(), 1, 1)
	stopping, stop := context.WithCancel(t.Context())
	defer stop()
	srv := httptest.NewUnstartedServer(New(Options{Log: mem}))
	srv.Config.BaseContext = func(net.Listener) context.Context { return stopping }
	srv.Start()
	defer srv.Close()
	c, err := NewClient(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var last error
	for _, err := range c.Read(t.Context(), commitlog.Cursor{}, commitlog.Filter{Follow: true}) {
		stop()
		last = err
	}
	if p, ok := last.(*Problem); !ok || p.Status != http.StatusServiceUnavailable {
		t.Errorf("ended with %v", last)
	}
}

func TestHeartbeat(t *testing.T) {
	_, base, _ := serve(t, Options{Log: logtest.NewMem(1), Heartbeat: time.Millisecond})
	res, err := http.Get(base + "/api/v1/records?follow=true")
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	defer res.Body.Close()
	in := bufio.NewReader(res.Body)
	for range 3 {
		if line, err := in.ReadString('\n'); err != nil || line != "\n" {
			t.Fatalf("%q %v", line, err)
		}
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
