package buffer

import "io"

// fileSystem is one directory of files: what the journal needs of a disk, so
// that tests can tear writes and inject errors.
type fileSystem interface {
	// Lock takes the directory for this process, or returns ErrLocked.
	Lock() (io.Closer, error)
	// List names all files.
	List() ([]string, error)
	// Open opens an existing file, Create makes an empty one.
	Open(name string) (file, error)
	Create(name string) (file, error)
	// Publish renames a file for good: when it returns, the new name survives a cut.
	Publish(from, to string) error
	Remove(name string) error
}

// file is an open file of a fileSystem. ReadAt and WriteAt may run at once.
type file interface {
	io.ReaderAt
	io.WriterAt
	// Sync returns when all that was written survives a cut.
	Sync() error
	Size() (int64, error)
	Close() error
}
