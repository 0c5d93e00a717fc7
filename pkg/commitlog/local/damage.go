package local

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"
)

// checkFiles finds the damage that Badger does not report: without a MANIFEST it
// takes all tables for rubbish and deletes them, and a table that was cut short
// makes it panic where nobody can catch it. All else it says itself.
func checkFiles(o badger.Options) error {
	tables, err := filepath.Glob(filepath.Join(o.Dir, "*.sst"))
	if err != nil || len(tables) == 0 {
		return err
	}
	f, err := os.Open(filepath.Join(o.Dir, badger.ManifestFilename))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %d tables, and the file that lists them is missing: %s", ErrDamaged, len(tables), badger.ManifestFilename)
	}
	if err != nil {
		return fmt.Errorf("look at the store: %w", err)
	}
	defer f.Close()
	m, _, err := badger.ReplayManifestFile(f, o.ExternalMagicVersion, o)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrDamaged, badger.ManifestFilename, err)
	}
	for id := range m.Tables {
		// one that is missing Badger notices, one that is not listed is left from a crash
		err := checkTable(filepath.Join(o.Dir, fmt.Sprintf("%06d.sst", id)))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// checkTable reads how long the end of a table says that its parts are: blocks,
// index, length of the index, checksum, length of the checksum.
func checkTable(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("look at a table: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("look at a table: %w", err)
	}
	end := info.Size()
	for range 2 { // before each length stands what it is the length of
		var length [4]byte
		if end -= 4; end < 0 {
			return fmt.Errorf("%w: table %s is too short", ErrDamaged, filepath.Base(path))
		}
		if _, err := f.ReadAt(length[:], end); err != nil {
			return fmt.Errorf("look at a table: %w", err)
		}
		if end -= int64(binary.BigEndian.Uint32(length[:])); end < 0 {
			return fmt.Errorf("%w: table %s has no proper end, it may have been cut short", ErrDamaged, filepath.Base(path))
		}
	}
	return nil
}
