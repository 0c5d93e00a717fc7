package gate

import (
	"net"
	"net/http"
	"testing"
)

// A page whose site lets its own name point here says the same host in Origin
// and Host, wherever the listener is.
func TestPagesOfThisHost(t *testing.T) {
	outside, loop := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 5), Port: 8083}, &net.TCPAddr{IP: net.IPv6loopback, Port: 8083}
	for _, c := range []struct {
		host   string
		local  net.Addr
		secure bool
		want   bool
	}{
		{"192.0.2.5:8083", outside, false, true}, {"[2001:db8::1]:8083", outside, false, true}, {"192.0.2.5:8083", outside, true, true},
		{"evil.example:8083", outside, false, false}, {"edge.local:8084", outside, true, true}, {"localhost:8083", outside, false, false},
		{"[::1]:8083", loop, false, true}, {"localhost:8083", loop, false, true}, {"evil.example:8083", loop, false, false},
		{"evil.example:8084", loop, true, false}, {"192.0.2.5:8083", loop, false, false},
	} {
		r := &http.Request{Host: c.host, Header: http.Header{"Origin": {"http://" + c.host}}}
		if got := newUpgrader(WebSocketOptions{}).mayCome(r, c.local, c.secure); got != c.want {
			t.Errorf("%s at %s, TLS %v: %v", c.host, c.local, c.secure, got)
		}
		if named := newUpgrader(WebSocketOptions{AllowedOrigins: []string{"http://" + c.host}}); !named.mayCome(r, c.local, c.secure) {
			t.Errorf("%s is refused though it is named", c.host)
		}
	}
}
