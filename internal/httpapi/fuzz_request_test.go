package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/packetboat/packetboat/internal/obs"
	"github.com/packetboat/packetboat/pkg/commitlog/logtest"
	"github.com/packetboat/packetboat/pkg/stream"
)

// FuzzRequest asks the API anything. It answers every request, with a problem
// that says what is wrong or with a body of the promised kind, and never blames
// itself.
func FuzzRequest(f *testing.F) {
	log := logtest.NewMem(2)
	fuzzFill(f, log)
	for _, target := range []string{
		"/api/v1/records?device=car-1&topic=car/%2B/0&from=2026-01-01T00:00:00Z&to=9&limit=2", "/api/v1/records?cursor=0:1&follow=true",
		"/api/v1/devices?after=car-1&limit=1", "/api/v1/devices/car-1/streams?ranges=3", "/api/v1/log", "/api/v1/openapi.json", "/healthz", "//..%2f", "/api/v1/records?limit=-1&limit=2",
	} {
		f.Add("GET", target, "127.0.0.1:8460", false)
	}
	f.Add("POST", "/api/v1/log", "localhost", true)
	f.Add("GET", "/api/v1/log", "evil.example", true)
	f.Fuzz(func(t *testing.T, method, target, host string, loopback bool) {
		req, err := http.NewRequest(method, "http://hub", nil)
		if err != nil {
			return // not a method
		}
		if req.URL, err = req.URL.Parse(target); err != nil {
			return // not an address
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond) // who follows never leaves by himself
		defer cancel()
		req, req.Host = req.WithContext(ctx), host
		rec := httptest.NewRecorder()
		New(Options{Log: log, LoopbackOnly: loopback, Heartbeat: time.Millisecond}).ServeHTTP(rec, req)
		res := rec.Result()
		if res.StatusCode >= 500 && ctx.Err() == nil {
			t.Fatalf("%s %q: %s: %s", method, target, res.Status, rec.Body)
		}
		if res.StatusCode >= 400 && method != http.MethodHead && res.Header.Get("Content-Type") == "application/problem+json" {
			var p Problem
			if err := json.Unmarshal(rec.Body.Bytes(), &p); err != nil || p.Status != res.StatusCode || p.Title == "" {
				t.Fatalf("%s %q: %q is no problem: %v", method, target, rec.Body, err)
			}
			if len(p.Title)+len(p.Detail)+len(p.Hint) > 2000 {
				t.Fatalf("an answer repeats too much of the request: %s", rec.Body)
			}
		}
		if loopback && res.StatusCode < 300 && !obs.IsLocal(host) {
			t.Fatalf("a page of %q may read", host)
		}
	})
}

func fuzzFill(f *testing.F, log *logtest.Mem) {
	f.Helper()
	for _, device := range []string{"car-1", "car-2"} {
		fill(f, log, device, stream.Epoch{1}, 1, 5)
	}
}

// FuzzLine reads lines as a client of the API does. What is taken for a record
// becomes a line that says the same.
func FuzzLine(f *testing.F) {
	f.Add(`{"cursor":"0:1","device":"car-1","epoch":"01000000000000000000000000000000","lane":"normal","seq":7,"topic":"t","time_us":5,"time_quality":"local","payload":"x","qos":1,"flags":["fifo"]}`)
	f.Add(`{"payload_base64":"/w==","topic_base64":"/w==","boot":"01000000000000000000000000000000","properties":{"user":[{"key":"k","value":"v"}]}}`)
	f.Add(`{"seq":-1}`)
	f.Fuzz(func(t *testing.T, text string) {
		var l Line
		if json.NewDecoder(strings.NewReader(text)).Decode(&l) != nil {
			return
		}
		s, err := l.Stored()
		if err != nil {
			return
		}
		if s, err = NewLine(s, l.Cursor).Stored(); err != nil { // empty properties are none from here on
			t.Fatalf("%+v: %v", l, err)
		}
		again, err := NewLine(s, l.Cursor).Stored()
		if err != nil {
			t.Fatalf("%+v: %v", s, err)
		}
		if !reflect.DeepEqual(s, again) {
			t.Fatalf("%+v\n%+v", s, again)
		}
	})
}
