package gate

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
)

// tcpConn is a TCP connection that says what it is.
type tcpConn struct{ *net.TCPConn }

func (tcpConn) Transport() string { return "tcp" }

// plainConn is any other connection without a handshake.
type plainConn struct {
	net.Conn
	transport string
}

func (c plainConn) Transport() string { return c.transport }

// CloseWrite ends the sending half, where the connection can do that.
func (c plainConn) CloseWrite() error { return closeWrite(c.Conn) }

func plain(c net.Conn, transport string) net.Conn {
	if t, ok := c.(*net.TCPConn); ok {
		return tcpConn{t}
	}
	return plainConn{c, transport}
}

func closeWrite(c net.Conn) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return fmt.Errorf("close one half of a %T: %w", c, errors.ErrUnsupported)
}

// tlsConn is a TLS connection whose handshake is done.
type tlsConn struct{ *tls.Conn }

func (*tlsConn) Transport() string { return "tls" }

var errTooLarge = errors.New("more bytes than a handshake needs")

// stranger is a socket that may bring only so many bytes, until it is known.
// One goroutine reads it at a time.
type stranger struct {
	net.Conn
	left  int // bytes it may still bring
	known bool
}

func (s *stranger) Read(p []byte) (int, error) {
	if s.known {
		return s.Conn.Read(p)
	}
	if s.left <= 0 {
		s.left = -1
		return 0, errTooLarge
	}
	n, err := s.Conn.Read(p[:min(len(p), s.left)])
	s.left -= n
	return n, err
}

// CloseWrite ends the sending half.
func (s *stranger) CloseWrite() error { return closeWrite(s.Conn) }
