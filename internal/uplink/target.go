package uplink

import (
	"fmt"
	"net"
	"net/url"
	"strings"
)

// The ports of a hub.
const (
	portPlain = "1884"
	portTLS   = "8884"
)

// target is a hub to connect to.
type target struct {
	url  string // as it is shown
	host string
	addr string // host:port
	tls  bool
}

// parseTarget reads tcp://host[:port], mqtt://…, tls://… or mqtts://….
func parseTarget(text string) (t target, err error) {
	u, err := url.Parse(text)
	if err != nil {
		return t, fmt.Errorf("hub url %q: %w", text, err)
	}
	port := portPlain
	switch u.Scheme {
	case "tcp", "mqtt":
	case "tls", "mqtts", "ssl":
		t.tls, port = true, portTLS
	default:
		return t, fmt.Errorf("hub url %q: the scheme must be tcp:// or tls://", text)
	}
	if u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return t, fmt.Errorf("hub url %q: want tcp://host[:port] or tls://host[:port]", text)
	}
	if u.Port() != "" {
		port = u.Port()
	}
	t.url, t.host, t.addr = text, u.Hostname(), net.JoinHostPort(u.Hostname(), port)
	return t, nil
}

// redirected is where a hub's Server Reference leads from t: the first of its
// names that can be read. A connection under TLS is never led out of it.
func (t target) redirected(reference string) (target, error) {
	scheme := "tcp://"
	if t.tls {
		scheme = "tls://"
	}
	for _, name := range strings.Fields(reference) {
		if !strings.Contains(name, "://") {
			name = scheme + name
		}
		if to, err := parseTarget(name); err == nil && (to.tls || !t.tls) {
			return to, nil
		}
	}
	return target{}, fmt.Errorf("hub refers to %.100q, which is no hub to go to from %s", reference, t.url)
}
