package buffer

import "golang.org/x/sys/unix"

// Sync writes the data out, and the metadata only as far as reading it back
// needs that (a recycled segment needs none).
func (f osFile) Sync() error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); err != unix.EINTR {
			return err
		}
	}
}
