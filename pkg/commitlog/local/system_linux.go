package local

import "golang.org/x/sys/unix"

func placeOf(path string) (p place, err error) {
	var x unix.Statx_t
	const want = unix.STATX_INO | unix.STATX_BTIME | unix.STATX_CTIME
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, want, &x); err != nil {
		return p, err
	}
	p.Inode = x.Ino
	p.Changed = x.Ctime.Sec*1e9 + int64(x.Ctime.Nsec)
	if x.Mask&unix.STATX_BTIME != 0 {
		p.Born = x.Btime.Sec*1e9 + int64(x.Btime.Nsec)
	}
	return p, nil
}
