package local

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

// copyDir copies a directory as cp -a does: contents, modes and times.
func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-Rp", from, to).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
}

// A log that came from a copy has another incarnation, one that was only closed
// and opened has not.
func TestCopyIsNoticed(t *testing.T) {
	r := newRig(t, Options{})
	id := r.ID()
	if r.reopen().ID() != id || r.Stats().NewLife {
		t.Fatal("opened again, and it has another id")
	}
	o := r.owner(0)
	r.append(o, group(1, 10, 1)...)
	r.close()

	backup := filepath.Join(t.TempDir(), "backup")
	copyDir(t, r.o.Dir, backup)
	r.open()
	r.append(r.owner(0), group(1, 10, 11)...)
	r.close()

	t.Run("opened where it was copied to", func(t *testing.T) {
		c := newRig(t, Options{Dir: backup + "-2"})
		c.close()
		if err := os.RemoveAll(c.o.Dir); err != nil {
			t.Fatal(err)
		}
		copyDir(t, backup, c.o.Dir)
		got := c.open().ID()
		if got.Name != id.Name || got.Incarnation == id.Incarnation || !c.Stats().NewLife || c.count(commitlog.Filter{}) != 10 {
			t.Fatalf("the copy of %s is %s", id, got)
		}
		if c.reopen().ID() != got {
			t.Fatal("it takes a new incarnation at every open")
		}
	})
	t.Run("moved away and back", func(t *testing.T) {
		if err := errors.Join(os.Rename(r.o.Dir, r.o.Dir+"-moved"), os.Rename(r.o.Dir+"-moved", r.o.Dir)); err != nil {
			t.Fatal(err)
		}
		if r.open().ID() != id {
			t.Fatal("a directory that was moved passes for a copy")
		}
		r.close()
	})
	t.Run("restored over the old files in place", func(t *testing.T) {
		if err := os.RemoveAll(filepath.Join(r.o.Dir, "badger")); err != nil {
			t.Fatal(err)
		}
		copyDir(t, filepath.Join(backup, "badger"), filepath.Join(r.o.Dir, "badger"))
		text, err := os.ReadFile(filepath.Join(backup, markerFile))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(r.o.Dir, markerFile), text, 0o600); err != nil { // same inode
			t.Fatal(err)
		}
		got := r.open().ID()
		if got.Name != id.Name || got.Incarnation == id.Incarnation {
			t.Fatalf("%s restored in place is %s", id, got)
		}
		r.close()
	})
	t.Run("marker removed", func(t *testing.T) {
		before := r.open().ID()
		r.close()
		if err := os.Remove(filepath.Join(r.o.Dir, markerFile)); err != nil {
			t.Fatal(err)
		}
		if r.open().ID() == before {
			t.Fatal("not noticed")
		}
	})
}

// An open that was killed between writing the marker and noting it is no copy.
func TestMarkerCutShort(t *testing.T) {
	r := newRig(t, Options{})
	id := r.ID()
	var m marker
	m.Token = stream.NewEpoch()
	at, err := placeOf(filepath.Join(r.o.Dir, markerFile))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(r.o.Dir, markerFile))
	if err != nil {
		t.Fatal(err)
	}
	if m.Next, err = stream.ParseEpoch(string(text)); err != nil {
		t.Fatal(err)
	}
	m.place = at
	m.Changed--
	if err := m.save(r.db); err != nil {
		t.Fatal(err)
	}
	if r.reopen().ID() != id {
		t.Error("it passes for a copy")
	}
	// the first open of all, before the first token was written
	m = marker{Next: stream.NewEpoch()}
	if err := os.Truncate(filepath.Join(r.o.Dir, markerFile), 0); err != nil {
		t.Fatal(err)
	}
	if m.place, err = placeOf(filepath.Join(r.o.Dir, markerFile)); err != nil {
		t.Fatal(err)
	}
	if err := m.save(r.db); err != nil {
		t.Fatal(err)
	}
	if r.reopen().ID() != id {
		t.Error("a first open that was cut short passes for a copy")
	}
	if text, err = os.ReadFile(filepath.Join(r.o.Dir, markerFile)); err != nil {
		t.Fatal(err)
	}
	m = marker{Token: stream.NewEpoch(), place: at}
	if m.Next, err = stream.ParseEpoch(string(text)); err != nil {
		t.Fatal(err)
	}
	m.Inode++
	if err := m.save(r.db); err != nil {
		t.Fatal(err)
	}
	if r.reopen().ID() == id {
		t.Error("another inode is no copy")
	}
}
