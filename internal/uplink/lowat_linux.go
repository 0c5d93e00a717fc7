package uplink

import (
	"net"

	"golang.org/x/sys/unix"
)

// limitUnsent bounds what the kernel takes from us and has not sent yet, so
// that a batch is encoded when the link has room for it, not minutes before.
func limitUnsent(c net.Conn) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	// Without it the link works as well, only less freshly.
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentBytes)
	})
}
