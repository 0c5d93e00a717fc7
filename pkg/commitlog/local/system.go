package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const lockFile = "log.lock"

// lock locks the log in dir: exclusively, or for reading.
func lock(dir string, shared bool) (*os.File, error) {
	path := filepath.Join(dir, lockFile)
	flags, how := os.O_RDWR|os.O_CREATE, unix.LOCK_EX
	if shared {
		flags, how = os.O_RDONLY, unix.LOCK_SH
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no log in %s: %w", dir, fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("lock the log: %w", err)
	}
	if err := relock(f, how); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w (%s)", err, dir)
	}
	return f, nil
}

// relock takes a lock of the given kind, or changes the one that f has to it.
func relock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EWOULDBLOCK):
			return ErrLocked
		default:
			return fmt.Errorf("lock the log: %w", err)
		}
	}
}

// freeBytes is what an unprivileged process may still write below dir.
func freeBytes(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("ask for free space in %s: %w", dir, err)
	}
	return int64(s.Bavail) * int64(s.Bsize), nil
}
