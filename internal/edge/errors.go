package edge

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/packetboat/packetboat/internal/cli"
	"github.com/packetboat/packetboat/pkg/buffer"
)

// openError gives a buffer that does not open its exit code and remedy.
func openError(dir string, err error) error {
	wrapped := fmt.Errorf("open data directory %s: %w", dir, err)
	switch {
	case errors.Is(err, buffer.ErrLocked):
		return cli.Fail(cli.Locked, wrapped, "another packetboat-edge runs on it: stop that one, or set data_dir to another directory")
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return cli.Fail(cli.Operator, wrapped, "the disk is full: free some space, or set buffer.max_bytes lower")
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return cli.Fail(cli.Operator, wrapped, "give the user of the edge the right to write there, or set data_dir to another directory")
	case errors.Is(err, syscall.EROFS):
		return cli.Fail(cli.Operator, wrapped, "the file system is read-only: mount it writable, or set data_dir to another directory")
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EEXIST):
		return cli.Fail(cli.Operator, wrapped, "something else has this name: set data_dir to another directory")
	case errors.Is(err, syscall.EIO):
		return cli.Fail(cli.Operator, wrapped, "the disk does not answer, or is failing: check it and the system's log")
	case errors.Is(err, buffer.ErrVersion):
		return cli.Fail(cli.Operator, wrapped, "run the newer packetboat-edge that wrote it, or set data_dir to another directory")
	case errors.Is(err, buffer.ErrDamaged):
		return cli.Fail(cli.Operator, wrapped, "keep a copy of the directory, and set data_dir to another one to go on")
	}
	return cli.Fail(cli.Failed, wrapped, "")
}
