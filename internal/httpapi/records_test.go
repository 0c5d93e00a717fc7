package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
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

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/commitlog/logtest"
	"github.com/packetboat/packetboat/pkg/stream"
)

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

// An answer that is cut off, between lines or in one, is one of a hub that went
// away: who follows asks again.
func TestCutAnswerIsAnError(t *testing.T) {
	for name, torn := range map[string]bool{"between lines": false, "in a line": true} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			s := commitlog.Stored{Device: "a", Epoch: stream.NewEpoch(), Lane: stream.Bulk}
			line := appendLine(nil, NewLine(&s, "0:1"))
			_, _ = w.Write(line)
			if torn {
				_, _ = w.Write(line[:len(line)/2])
			}
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
		var gone *UnreachableError
		if n != 1 || !errors.As(last, &gone) {
			t.Errorf("%s: %d records, then %v", name, n, last)
		}
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

// stopReading asks for records and never reads them.
func stopReading(t *testing.T, api *API, base string) net.Conn {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "GET /api/v1/records HTTP/1.1\r\nHost: %s\r\n\r\n", u.Host)
	await(t, "the reader to be served", func() bool { s := api.Stats(); return s.Readers == 1 || s.CutOff == 1 })
	return conn
}

// Beyond MaxReaders one is told to come later, until a place is free again.
func TestTooManyReaders(t *testing.T) {
	api, base, _ := serve(t, Options{Log: endless{logtest.NewMem(1)}, Patience: time.Hour, MaxReaders: 1})
	conn := stopReading(t, api, base)
	if p := getProblem(t, http.MethodGet, base+"/api/v1/records"); p.Status != http.StatusServiceUnavailable || p.Type != "urn:packetboat:problem:readers" {
		t.Errorf("a second reader: %+v", p)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, "the place to be free", func() bool { return api.Stats().Readers == 0 })
}

// A reader that stops reading is cut off and costs no more than the socket's
// buffers.
func TestSlowReader(t *testing.T) {
	api, base, _ := serve(t, Options{Log: endless{logtest.NewMem(1)}, Patience: 100 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	conn := stopReading(t, api, base)
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
