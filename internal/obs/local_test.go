package obs

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestLocalOnly(t *testing.T) {
	h := LocalOnly(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	for host, want := range map[string]int{
		"127.0.0.1:8461": 204, "localhost:1": 204, "LOCALHOST.": 204, "[::1]:8461": 204, "::1": 204, "127.1.2.3": 204,
		"evil.example:8461": 421, "": 421, "127.0.0.1.evil.example": 421, "localhost.evil.example:8461": 421, "192.0.2.1:8461": 421, "0.0.0.0": 421, "[::]": 421,
	} {
		r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		r.Host = host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("host %q: %d, want %d", host, w.Code, want)
		}
	}
}
