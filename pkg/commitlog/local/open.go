package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"
	"golang.org/x/sys/unix"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

// Open opens the log in a directory, or makes one there. The steps are those of
// docs/format/log.md, "Opening". Close it after use.
func Open(o Options) (*Log, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MinFree == 0 {
		o.MinFree = DefaultMinFree
	}
	if o.MinFree > 0 && o.MinFree < LeastMinFree {
		o.Logger.Warn("so little free space is no protection, the log keeps more", "min_free", o.MinFree, "kept", int64(LeastMinFree))
		o.MinFree = LeastMinFree
	}
	l := &Log{o: o, log: o.Logger, now: time.Now, committed: make(chan struct{}), broken: make(chan struct{})}
	l.dropAfter = dropAfter
	l.dead.Store(dropAfter)
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	if !o.ReadOnly {
		if err := os.MkdirAll(o.Dir, 0o750); err != nil {
			return nil, fmt.Errorf("open the log: %w", err)
		}
	}
	file, err := lock(o.Dir, o.ReadOnly)
	if err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	l.file = file
	if err := l.open(); err != nil {
		file.Close()
		return nil, fmt.Errorf("open the log in %s: %w", o.Dir, err)
	}
	return l, nil
}

func (l *Log) open() error {
	free, err := freeBytes(l.o.Dir)
	if err != nil {
		return err
	}
	l.counts.freeBytes.Store(free)
	if !l.o.ReadOnly && l.o.MinFree > 0 && free < hardMinFree {
		return noRoom(fmt.Sprintf("%d MiB are free, it takes %d to open a log", free>>20, hardMinFree>>20))
	}
	if err := l.openBadger(); err != nil {
		return err
	}
	err = l.load()
	if err == nil && !l.o.ReadOnly {
		err = l.mark()
	}
	if err != nil {
		return errors.Join(err, l.db.Close())
	}
	return nil
}

// noRoom is commitlog.ErrNoSpace without its words, which are those of Append.
type noRoom string

func (e noRoom) Error() string        { return string(e) }
func (e noRoom) Is(target error) bool { return target == commitlog.ErrNoSpace }

// openBadger opens the store, again where a power cut left an empty file. A
// failed try leaves a few of Badger's goroutines behind; there is no way to end
// them.
func (l *Log) openBadger() (err error) {
	if err := checkFiles(l.o.badgerOptions(l.o.ReadOnly)); err != nil {
		return err
	}
	if l.o.ReadOnly {
		clean, err := closedCleanly(filepath.Join(l.o.Dir, "badger"))
		if err != nil {
			return err
		}
		if clean {
			l.db, err = badger.Open(l.o.badgerOptions(true))
			return wrapBadger(err)
		}
		// a crash left something to replay, which takes writing
		if err := relock(l.file, unix.LOCK_EX); err != nil {
			return err
		}
	}
	for range openTries {
		if l.db, err = badger.Open(l.o.badgerOptions(false)); err == nil {
			return nil
		}
		if !emptyFile(err) {
			break
		}
		l.counts.openRetries.Add(1)
		l.log.Warn("the store did not open at once, trying again", "error", err)
	}
	return wrapBadger(err)
}

// closedCleanly reports whether Badger has nothing to replay or to mend.
func closedCleanly(dir string) (bool, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return false, fmt.Errorf("look for what a crash left: %w", err)
	}
	for _, f := range files {
		switch filepath.Ext(f.Name()) {
		case ".mem":
			return false, nil
		case ".vlog":
			if info, err := f.Info(); err != nil || info.Size() == 0 {
				return false, err
			}
		}
	}
	return true, nil
}

// emptyFile reports whether Badger stumbled over a file without content: z.NewFile,
// which loses its identity on its way through Badger's own wrapping.
func emptyFile(err error) bool { return strings.Contains(err.Error(), "Create a new file") }

func wrapBadger(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("open badger: %w", err)
}

// load reads what the log says of itself, or makes it.
func (l *Log) load() error {
	var format, meta []byte
	empty := true
	err := l.db.View(func(txn *badger.Txn) (err error) {
		if format, err = get(txn, keyFormat); err != nil {
			return err
		}
		if meta, err = get(txn, keyLog); err != nil {
			return err
		}
		it := txn.NewIterator(badger.IteratorOptions{})
		defer it.Close()
		it.Rewind()
		empty = !it.Valid()
		return nil
	})
	if err != nil {
		return fmt.Errorf("read what the log says of itself: %w", err)
	}
	switch v, err := strconv.Atoi(string(format)); {
	case format == nil && empty && !l.o.ReadOnly:
		if info, err := os.Stat(filepath.Join(l.o.Dir, markerFile)); err == nil && info.Size() > 0 {
			return fmt.Errorf("%w: %s says that a log was here, and the store is empty", ErrDamaged, markerFile)
		}
		return l.create()
	case format == nil:
		return errors.New("there is a Badger store, but no log in it")
	case err != nil:
		return fmt.Errorf("%w: its format is %q", ErrDamaged, format)
	case v > formatVersion:
		return fmt.Errorf("%w: %d, this program knows %d; use the program that wrote it or a newer one", ErrFormat, v, formatVersion)
	}
	if err := json.Unmarshal(meta, &l.meta); err != nil {
		return fmt.Errorf("%w: what it says of itself: %w", ErrDamaged, err)
	}
	if n := l.meta.Shards; n < 1 || n > commitlog.MaxShards {
		return fmt.Errorf("%w: it has %d shards", ErrDamaged, n)
	}
	if l.o.Shards != 0 && l.o.Shards != l.meta.Shards {
		return fmt.Errorf("the log has %d shards, %d are asked for: %w", l.meta.Shards, l.o.Shards, ErrShards)
	}
	if err := l.upgrade(string(format)); err != nil {
		return err
	}
	return l.loadShards()
}

// upgrade says that the log is of this program's format: what is appended from
// now on an older program would take for damage.
func (l *Log) upgrade(format string) error {
	now := strconv.Itoa(formatVersion)
	if format == now || l.o.ReadOnly {
		return nil
	}
	err := l.db.Update(func(txn *badger.Txn) error { return txn.Set(keyFormat, []byte(now)) })
	if err != nil {
		return fmt.Errorf("write the format of the log: %w", err)
	}
	return nil
}

// create makes a log of an empty store.
func (l *Log) create() error {
	l.meta = logMeta{Name: stream.NewEpoch(), Incarnation: stream.NewEpoch(), Shards: max(1, l.o.Shards), Created: l.now().UTC()}
	meta, err := l.meta.encode()
	if err != nil {
		return fmt.Errorf("make the log: %w", err)
	}
	err = l.db.Update(func(txn *badger.Txn) error {
		for i := range l.meta.Shards {
			s := &shard{n: i, devices: map[string]*commitlog.DeviceCoverage{}}
			l.shards = append(l.shards, s)
			if err := txn.Set(shardKey(i), s.state.encode()); err != nil {
				return err
			}
		}
		return errors.Join(txn.Set(keyFormat, []byte(strconv.Itoa(formatVersion))), txn.Set(keyLog, meta))
	})
	if err != nil {
		return fmt.Errorf("make the log: %w", err)
	}
	// the directory's own entry should outlive a power cut too; above it we may
	// not be allowed to look
	_ = syncDir(filepath.Dir(l.o.Dir))
	return syncDir(l.o.Dir)
}

func saveMeta(db *badger.DB, m *logMeta) error {
	b, err := m.encode()
	if err == nil {
		err = db.Update(func(txn *badger.Txn) error { return txn.Set(keyLog, b) })
	}
	if err != nil {
		return fmt.Errorf("store what the log says of itself: %w", err)
	}
	return nil
}

func (l *Log) loadShards() error {
	return l.db.View(func(txn *badger.Txn) error {
		for i := range l.meta.Shards {
			b, err := get(txn, shardKey(i))
			if err == nil && b == nil {
				err = fmt.Errorf("%w: nothing is known of shard %d", ErrDamaged, i)
			}
			if err != nil {
				return err
			}
			s := &shard{n: i, devices: map[string]*commitlog.DeviceCoverage{}}
			if s.state, err = decodeShardState(b); err != nil {
				return err
			}
			if err := checkEnds(txn, i, s.state); err != nil {
				return err
			}
			l.shards = append(l.shards, s)
		}
		return nil
	})
}

// checkEnds compares the state of a shard with its first and last block. There
// may be more below the floor.
func checkEnds(txn *badger.Txn, shard int, s shardState) error {
	prefix := appendShard(nil, kindIndex, shard)
	first, end := s.next, s.floor
	it := txn.NewIterator(badger.IteratorOptions{Prefix: prefix})
	if it.Seek(indexKey(shard, s.floor)); it.Valid() {
		first = offsetOf(it.Item().Key())
	}
	it.Close()
	it = txn.NewIterator(badger.IteratorOptions{Prefix: prefix, Reverse: true})
	defer it.Close()
	if it.Seek(append(prefix, 0xff)); it.ValidForPrefix(prefix) {
		b, err := it.Item().ValueCopy(nil)
		if err != nil {
			return err
		}
		x, err := decodeIndex(b)
		if err != nil {
			return err
		}
		end = max(s.floor, offsetOf(it.Item().Key())+int64(x.count)) // what lies below the floor may be there or not
	}
	if first != s.floor || end != s.next {
		return fmt.Errorf("%w: shard %d should hold records from %d to %d, its blocks go from %d to %d", ErrDamaged, shard, s.floor, s.next, first, end)
	}
	return nil
}

// mark compares the marker with what the store knows of it, takes a new
// incarnation where they differ, and rewrites it.
func (l *Log) mark() error {
	var m marker
	var stored []byte
	err := l.db.View(func(txn *badger.Txn) (err error) {
		stored, err = get(txn, keyMarker)
		return err
	})
	if err != nil {
		return fmt.Errorf("read about the marker: %w", err)
	}
	if stored != nil {
		if err := json.Unmarshal(stored, &m); err != nil {
			return fmt.Errorf("%w: what it says of the marker: %w", ErrDamaged, err)
		}
		moved, err := m.moved(l.o.Dir)
		if err != nil {
			return err
		}
		if moved {
			next := l.meta
			next.Incarnation = stream.NewEpoch()
			if err := saveMeta(l.db, &next); err != nil {
				return err
			}
			l.log.Warn("the directory is a copy or comes from a backup: the log begins a new incarnation",
				"log", l.meta.id().String(), "incarnation", next.Incarnation.String())
			l.meta = next
			l.counts.newLife.Store(true)
		}
	}
	return m.renew(l.db, l.o.Dir)
}

// get reads a value into memory of the caller's; nil: there is none.
func get(txn *badger.Txn, key []byte) ([]byte, error) {
	item, err := txn.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	b, err := item.ValueCopy(nil)
	if b == nil {
		b = []byte{}
	}
	return b, err
}
