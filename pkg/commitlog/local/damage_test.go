package local

import (
	"os"
	"path/filepath"
	"testing"
)

// A store whose files are damaged is refused, and left as it is: never taken for
// a new one, and no reason to panic.
func TestDamagedFiles(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, badger string, table string)
		says  string
	}{
		"no manifest":         {func(t *testing.T, dir, _ string) { must(t, os.Remove(filepath.Join(dir, "MANIFEST"))) }, "MANIFEST"},
		"manifest of nothing": {func(t *testing.T, dir, _ string) { must(t, os.Truncate(filepath.Join(dir, "MANIFEST"), 0)) }, "MANIFEST"},
		"no store":            {func(t *testing.T, dir, _ string) { must(t, os.RemoveAll(dir)) }, "the store is empty"},
		"table cut short": {func(t *testing.T, _, table string) {
			info, err := os.Stat(table)
			must(t, err)
			must(t, os.Truncate(table, info.Size()-7))
		}, "cut short"},
		"table of three bytes": {func(t *testing.T, _, table string) { must(t, os.Truncate(table, 3)) }, "too short"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, Options{})
			r.append(r.owner(0), group(1, 10, 1)...)
			r.close()
			dir := filepath.Join(r.o.Dir, "badger")
			tables := func() []string {
				all, err := filepath.Glob(filepath.Join(dir, "*.sst"))
				must(t, err)
				return all
			}
			c.spoil(t, dir, tables()[0])
			before := len(tables())
			refused(t, Options{Dir: r.o.Dir}, ErrDamaged, c.says)
			if n := len(tables()); n != before {
				t.Errorf("%d tables of %d are left", n, before)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
