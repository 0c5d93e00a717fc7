package edge

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"testing"
)

// A page whose site lets its name point to this machine does not reach the
// status of an edge that listens on loopback.
func TestForeignHostNames(t *testing.T) {
	r := begin(t, testConfig(t))
	for host, want := range map[string]int{"evil.example": 421, r.HTTP.String(): 200, "localhost": 200} {
		for _, path := range []string{"/api/v1/status", "/metrics", "/healthz"} {
			c, err := net.Dial("tcp", r.HTTP.String())
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, host)
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			if _ = resp.Body.Close(); resp.StatusCode != want {
				t.Errorf("%s as %s: %d, want %d", path, host, resp.StatusCode, want)
			}
			_ = c.Close()
		}
	}
}
