//go:build unix && !linux

package buffer

// Sync is os.File.Sync, which on macOS asks for F_FULLFSYNC: fsync alone leaves
// the data in the drive's cache.
func (f osFile) Sync() error { return f.File.Sync() }
