package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"

	"github.com/packetboat/packetboat/pkg/stream"
)

const markerFile = "log.marker"

// marker is what the store knows of the marker file. The file is rewritten at
// every open, so that whatever puts older files in place of newer ones cannot
// leave all of this as it was.
type marker struct {
	Token stream.Epoch `json:"token"`
	// Next is the token about to be written, until the times are known.
	Next stream.Epoch `json:"next"`
	place
}

// place says which file it is: a copy has another inode or time of birth, and
// writing to it in place another time of change. Times are ns since 1970.
type place struct {
	Inode   uint64 `json:"inode"`
	Born    int64  `json:"born"` // 0: the file system does not say
	Changed int64  `json:"changed"`
}

// moved reports whether the directory is not the one that m was written in.
func (m *marker) moved(dir string) (bool, error) {
	text, err := os.ReadFile(filepath.Join(dir, markerFile))
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the marker: %w", err)
	}
	at, err := placeOf(filepath.Join(dir, markerFile))
	if err != nil {
		return false, fmt.Errorf("look at the marker: %w", err)
	}
	token, err := stream.ParseEpoch(string(text))
	sameFile := at.Inode == m.Inode && at.Born == m.Born
	switch {
	case len(text) == 0 && m.Token.IsZero(): // the very first open was cut short
		return !sameFile, nil
	case err != nil:
		return true, nil
	case token == m.Token:
		return at != m.place, nil
	case token == m.Next && !m.Next.IsZero(): // the last open was cut short
		return !sameFile, nil
	}
	return true, nil
}

// renew rewrites the marker file and notes in the store what it looks like.
func (m *marker) renew(db *badger.DB, dir string) error {
	m.Next = stream.NewEpoch()
	path := filepath.Join(dir, markerFile)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open the marker: %w", err)
	}
	defer f.Close()
	if m.place, err = placeOf(path); err != nil {
		return fmt.Errorf("look at the marker: %w", err)
	}
	if err := m.save(db); err != nil {
		return err
	}
	if _, err := f.WriteAt([]byte(m.Next.String()), 0); err != nil {
		return fmt.Errorf("write the marker: %w", err)
	}
	if err := errors.Join(f.Truncate(32), f.Sync(), syncDir(dir)); err != nil {
		return fmt.Errorf("write the marker: %w", err)
	}
	m.Token, m.Next = m.Next, stream.Epoch{}
	if m.place, err = placeOf(path); err != nil {
		return fmt.Errorf("look at the marker: %w", err)
	}
	return m.save(db)
}

func (m *marker) save(db *badger.DB) error {
	b, err := json.Marshal(m)
	if err == nil {
		err = db.Update(func(txn *badger.Txn) error { return txn.Set(keyMarker, b) })
	}
	if err != nil {
		return fmt.Errorf("store the marker: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
