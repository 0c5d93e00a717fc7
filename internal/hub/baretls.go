package hub

import (
	"crypto/tls"
	"net"
)

// bareTLS gives the front the *tls.Conn by which it knows a TLS connection.
type bareTLS struct{ net.Listener }

func (l bareTLS) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if t, ok := c.(interface{ TLS() *tls.Conn }); ok {
		return t.TLS(), err
	}
	return c, err
}
