//go:build !linux

package uplink

import "net"

// limitUnsent bounds on Linux what the kernel holds unsent; here the socket's
// send buffer is what there is.
func limitUnsent(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(2 * unsentBytes)
	}
}
