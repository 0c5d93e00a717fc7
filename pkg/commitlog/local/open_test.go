package local

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dgraph-io/badger/v4"

	"github.com/packetboat/packetboat/pkg/commitlog"
)

func refused(t *testing.T, o Options, want error, says string) {
	t.Helper()
	o.MinFree = -1
	l, err := Open(o)
	if err == nil {
		l.Close()
		t.Fatalf("opened; want an error that says %q", says)
	}
	if want != nil && !errors.Is(err, want) || !strings.Contains(err.Error(), says) {
		t.Fatalf("got %q, want %q", err, says)
	}
}

func TestOpenRefuses(t *testing.T) {
	r := newRig(t, Options{Shards: 3})
	refused(t, Options{Dir: r.o.Dir}, ErrLocked, "another process")
	refused(t, Options{Dir: r.o.Dir, ReadOnly: true}, ErrLocked, "another process")
	r.close()
	refused(t, Options{Dir: r.o.Dir, Shards: 4}, ErrShards, "the log has 3 shards, 4 are asked for")
	refused(t, Options{Dir: r.o.Dir, Shards: 3, Retention: Retention{MaxAge: -1}}, nil, "negative")
	refused(t, Options{Shards: commitlog.MaxShards + 1}, nil, "no directory")
	refused(t, Options{Dir: t.TempDir(), ReadOnly: true}, os.ErrNotExist, "no log")
	if r.o.Shards = 0; r.open().Shards() != 3 {
		t.Fatal("0 should ask for what is stored")
	}
	format := func(v string) {
		if err := r.db.Update(func(txn *badger.Txn) error { return txn.Set(keyFormat, []byte(v)) }); err != nil {
			t.Fatal(err)
		}
		r.close()
	}
	format("1")
	r.open()
	err := r.db.View(func(txn *badger.Txn) error {
		v, err := get(txn, keyFormat)
		if string(v) != "2" {
			t.Errorf("a log of format 1 that a hub has opened is of format %q", v)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	format("3")
	refused(t, Options{Dir: r.o.Dir}, ErrFormat, "use the program that wrote it or a newer one")

	other := filepath.Join(t.TempDir(), "other")
	o := Options{Dir: other}
	db, err := badger.Open(o.badgerOptions(false).WithLogger(nil))
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(txn *badger.Txn) error { return txn.Set([]byte("x"), nil) })
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	refused(t, o, nil, "no log in it")
}

// A shard whose state and blocks disagree is not served.
func TestOpenNoticesDamage(t *testing.T) {
	for name, hurt := range map[string]func(txn *badger.Txn) error{
		"last block gone":  func(txn *badger.Txn) error { return txn.Delete(indexKey(0, 10)) },
		"first block gone": func(txn *badger.Txn) error { return txn.Delete(indexKey(0, 0)) },
		"state gone":       func(txn *badger.Txn) error { return txn.Delete(shardKey(0)) },
		"state behind": func(txn *badger.Txn) error {
			return txn.Set(shardKey(0), (&shardState{next: 10}).encode())
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, Options{})
			o := r.owner(0)
			r.append(o, group(1, 10, 1)...)
			r.append(o, group(1, 10, 11)...)
			if err := r.db.Update(hurt); err != nil {
				t.Fatal(err)
			}
			r.close()
			refused(t, r.o, ErrDamaged, "damaged")
		})
	}
}
