package obs

import (
	"net"
	"net/http"
	"strings"
)

// LocalOnly answers requests that were sent to this machine by one of its
// loopback names, and refuses all others with 421. It belongs before what is
// served on loopback: a page in a browser here may reach it under the name of
// the page's own site, which that site lets point to 127.0.0.1, and would read
// what it says.
func LocalOnly(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !IsLocal(r.Host) {
			http.Error(w, "this answers to localhost only; use http://127.0.0.1", http.StatusMisdirectedRequest)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// IsLocal reports whether hostPort, the Host of a request, is localhost or a
// loopback address, with or without a port.
func IsLocal(hostPort string) bool {
	host, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		host = hostPort
	}
	host = strings.Trim(host, "[]")
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
