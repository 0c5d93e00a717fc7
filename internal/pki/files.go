package pki

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// lockDir holds a lock on a directory until unlock is called. The directory
// itself is locked, so that no lock file stays behind.
func lockDir(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, &fs.PathError{Op: "lock", Path: dir, Err: err}
	}
	return func() { _ = f.Close() }, nil // closing gives the lock back
}

// replaceFile writes data under path so that a reader, also after a power cut,
// finds the old content or the new one, whole. Where the process may do that,
// the owner of the file is kept; a new file belongs to whom its directory does,
// so that root can make one for a service.
func replaceFile(path string, data []byte, mode fs.FileMode) (err error) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // a link stays a link
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	err = errors.Join(write(f, data, mode, path), f.Close())
	if err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func write(f *os.File, data []byte, mode fs.FileMode, like string) error {
	if err := f.Chmod(mode); err != nil {
		return err
	}
	var st unix.Stat_t
	if unix.Stat(like, &st) == nil || unix.Stat(filepath.Dir(like), &st) == nil {
		_ = f.Chown(int(st.Uid), int(st.Gid)) // only root may
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
