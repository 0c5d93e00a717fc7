package local

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/goleak"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/commitlog/logtest"
	"github.com/packetboat/packetboat/pkg/stream"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("COMMITLOG_CRASH_DIR"); dir != "" {
		os.Exit(crashChild(dir, os.Stdout))
	}
	// what a failed badger.Open leaves behind; a log that was not closed shows by others
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("github.com/dgraph-io/badger/v4.(*DB).monitorCache"),
		goleak.IgnoreTopFunction("github.com/dgraph-io/badger/v4.(*DB).updateSize"),
		goleak.IgnoreTopFunction("github.com/dgraph-io/badger/v4/y.(*WaterMark).process"),
		goleak.IgnoreTopFunction("github.com/dgraph-io/ristretto/v2/z.(*AllocatorPool).freeupAllocators"))
}

// rig is a log that can be closed and opened again.
type rig struct {
	t *testing.T
	o Options
	*Log
}

func newRig(t *testing.T, o Options) *rig {
	t.Helper()
	if o.Dir == "" {
		o.Dir = filepath.Join(t.TempDir(), "log")
	}
	if o.MinFree == 0 {
		o.MinFree = -1
	}
	r := &rig{t: t, o: o}
	r.open()
	t.Cleanup(func() { _ = r.Log.Close() })
	return r
}

func (r *rig) open() *Log {
	r.t.Helper()
	l, err := Open(r.o)
	if err != nil {
		r.t.Fatalf("open: %v", err)
	}
	r.Log = l
	return l
}

func (r *rig) close() {
	r.t.Helper()
	if err := r.Log.Close(); err != nil {
		r.t.Fatalf("close: %v", err)
	}
}

func (r *rig) reopen() *Log {
	r.t.Helper()
	r.close()
	return r.open()
}

func (r *rig) owner(shard int) commitlog.Owner {
	r.t.Helper()
	o, err := r.Acquire(r.t.Context(), shard)
	if err != nil {
		r.t.Fatalf("acquire: %v", err)
	}
	return o
}

func (r *rig) append(o commitlog.Owner, group ...commitlog.Entry) {
	r.t.Helper()
	if err := o.Append(r.t.Context(), group); err != nil {
		r.t.Fatalf("append: %v", err)
	}
}

// count reads all and says how many records there are.
func (r *rig) count(f commitlog.Filter) (n int) {
	r.t.Helper()
	for _, err := range r.Read(r.t.Context(), commitlog.Cursor{}, f) {
		if err != nil {
			r.t.Fatalf("read: %v", err)
		}
		n++
	}
	return n
}

// expireTo deletes blocks of a shard until its floor is at or above offset.
func (r *rig) expireTo(shard int, offset int64) {
	r.t.Helper()
	err := r.expireWhile(r.t.Context(), r.shards[shard], func(at int64, _ *blockIndex) bool { return at < offset })
	if err != nil {
		r.t.Fatalf("expire: %v", err)
	}
}

func TestContract(t *testing.T) {
	logtest.Run(t, func(t *testing.T, shards int) *logtest.Harness {
		r := newRig(t, Options{Shards: shards})
		return &logtest.Harness{
			Log:    r.Log,
			Reopen: func(*testing.T) commitlog.Log { return r.reopen() },
			Expire: func(_ *testing.T, shard int, offset int64) { r.expireTo(shard, offset) },
		}
	})
}

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
	refused(t, Options{Dir: r.o.Dir, Shards: 4}, nil, "the log has 3 shards, 4 are asked for")
	refused(t, Options{Dir: r.o.Dir, Shards: 3, Retention: Retention{MaxAge: -1}}, nil, "negative")
	refused(t, Options{Shards: commitlog.MaxShards + 1}, nil, "no directory")
	refused(t, Options{Dir: t.TempDir(), ReadOnly: true}, os.ErrNotExist, "no log")
	if r.o.Shards = 0; r.open().Shards() != 3 {
		t.Fatal("0 should ask for what is stored")
	}
	err := r.db.Update(func(txn *badger.Txn) error { return txn.Set(keyFormat, []byte("2")) })
	if err != nil {
		t.Fatal(err)
	}
	r.close()
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

// A block that is not what was written is an error, never a wrong record.
func TestReadNoticesDamage(t *testing.T) {
	r := newRig(t, Options{})
	r.append(r.owner(0), group(2, 10, 1)...)
	var body []byte
	err := r.db.View(func(txn *badger.Txn) (err error) {
		body, err = get(txn, blockKey(0, 0, 0))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range body {
		bad := append([]byte{}, body...)
		bad[i] ^= 0x10
		if err := r.db.Update(func(txn *badger.Txn) error { return txn.Set(blockKey(0, 0, 0), bad) }); err != nil {
			t.Fatal(err)
		}
		var got error
		for _, err := range r.Read(t.Context(), commitlog.Cursor{}, commitlog.Filter{}) {
			got = err
		}
		if !errors.Is(got, ErrDamaged) {
			t.Fatalf("byte %d changed: %v", i, got)
		}
		if _, err := decodeHead(bad); err == nil {
			t.Fatalf("byte %d changed, and the head was taken", i)
		}
	}
}

func TestReadOnly(t *testing.T) {
	r := newRig(t, Options{Shards: 2})
	r.append(r.owner(0), group(1, 10, 1)[:0]...)
	id := r.ID()
	shard := commitlog.ShardOf("truck-0", 2)
	r.append(r.owner(shard), group(1, 10, 1)...)
	r.close()
	look := Options{Dir: r.o.Dir, ReadOnly: true}
	a, err := Open(look)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Open(look) // two may read
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	refused(t, r.o, ErrLocked, "another process")
	v := &rig{t: t, Log: a}
	if a.ID() != id || a.Shards() != 2 || v.count(commitlog.Filter{}) != 10 {
		t.Errorf("%s with %d shards and %d records", a.ID(), a.Shards(), v.count(commitlog.Filter{}))
	}
	if c, err := a.Coverage(t.Context(), "truck-0"); err != nil || c == nil {
		t.Errorf("coverage: %v %v", c, err)
	}
	_, err1 := a.Acquire(t.Context(), 0)
	_, err2 := a.NewIncarnation(t.Context())
	if !errors.Is(err1, ErrReadOnly) || !errors.Is(err2, ErrReadOnly) || !errors.Is(a.Sweep(t.Context()), ErrReadOnly) {
		t.Errorf("acquire %v, new incarnation %v", err1, err2)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if r.open().ID() != id {
		t.Error("reading changed the incarnation")
	}
}

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

func TestMinFree(t *testing.T) {
	r := newRig(t, Options{MinFree: 1 << 60})
	o := r.owner(0)
	err := o.Append(t.Context(), group(1, 10, 1))
	if !errors.Is(err, commitlog.ErrNoSpace) || !errors.Is(err, commitlog.ErrRejected) || !strings.Contains(err.Error(), "MiB free") {
		t.Fatalf("append: %v", err)
	}
	if s := r.Stats(); !s.Full || s.FreeBytes == 0 || s.NoSpace != 1 || s.Rejected != 1 || r.count(commitlog.Filter{}) != 0 {
		t.Fatalf("%+v", s)
	}
	if tight := newRig(t, Options{MinFree: 1}); tight.Log.o.MinFree != LeastMinFree {
		t.Errorf("kept free: %d", tight.Log.o.MinFree)
	}
	r.Log.o.MinFree = 1 // space came back
	r.append(o, group(1, 10, 1)...)
	if s := r.Stats(); s.Full || s.Records != 10 {
		t.Fatalf("%+v", s)
	}
}

// What no transaction can take is rejected whole, whichever limit it breaks.
func TestTooLarge(t *testing.T) {
	r := newRig(t, Options{})
	o := r.owner(0)
	id := stream.ID{Device: "truck-1", Epoch: stream.Epoch{1}, Lane: stream.Normal}
	huge := commitlog.Entry{ID: id}
	for n := range uint64(12) { // does not compress
		p := make([]byte, 1<<20)
		for i, x := 0, n*7919+1; i < len(p); i++ {
			x = x*6364136223846793005 + 1442695040888963407
			p[i] = byte(x >> 56)
		}
		huge.Records = append(huge.Records, stream.Record{Seq: n + 1, Message: stream.Message{Topic: "t", Payload: p}})
	}
	err := o.Append(t.Context(), append(group(1, 10, 1), huge))
	if !errors.Is(err, commitlog.ErrTooLarge) || !errors.Is(err, commitlog.ErrRejected) {
		t.Fatalf("append of 12 MiB: %v", err)
	}
	if n := r.count(commitlog.Filter{}); n != 0 {
		t.Fatalf("%d records are visible", n)
	}
	small := huge
	small.Records = huge.Records[:4] // blocks of more than one part
	r.append(o, small)
	if n := r.count(commitlog.Filter{Device: id.Device}); n != 4 {
		t.Fatalf("%d records", n)
	}
	r.expireTo(0, 2)
	if n := r.count(commitlog.Filter{Device: id.Device}); n != 2 {
		t.Fatalf("%d records", n)
	}
}

// After a failed commit nobody is told what may not be on the disk.
func TestFailure(t *testing.T) {
	r := newRig(t, Options{})
	o := r.owner(0)
	r.append(o, group(1, 10, 1)...)
	_ = r.fail(errors.New("the disk is on fire"))
	if err := o.Append(t.Context(), group(1, 10, 11)); !errors.Is(err, commitlog.ErrFenced) || !errors.Is(err, ErrFailed) {
		t.Errorf("append: %v", err)
	}
	if _, err := r.Acquire(t.Context(), 0); !errors.Is(err, ErrFailed) {
		t.Errorf("acquire: %v", err)
	}
	if _, err := r.Coverage(t.Context(), "truck-0"); !errors.Is(err, ErrFailed) {
		t.Errorf("coverage: %v", err)
	}
	for _, err := range r.Read(t.Context(), commitlog.Cursor{}, commitlog.Filter{Follow: true}) {
		if !errors.Is(err, ErrFailed) {
			t.Errorf("read: %v", err)
		}
	}
	if err := r.Run(t.Context()); !errors.Is(err, ErrFailed) {
		t.Errorf("run: %v", err)
	}
	if !strings.Contains(r.Stats().Failure, "on fire") {
		t.Errorf("%+v", r.Stats())
	}
	r.reopen()
	if n := r.count(commitlog.Filter{}); n != 10 {
		t.Errorf("%d records after opening again", n)
	}
}

// A power cut can leave empty files of Badger's behind.
func TestEmptyFiles(t *testing.T) {
	for _, name := range []string{"00009.mem", "000009.vlog"} {
		for _, readOnly := range []bool{false, true} {
			r := newRig(t, Options{})
			r.append(r.owner(0), group(1, 10, 1)...)
			r.close()
			if err := os.WriteFile(filepath.Join(r.o.Dir, "badger", name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			r.o.ReadOnly = readOnly
			r.open()
			if n := r.count(commitlog.Filter{}); n != 10 {
				t.Errorf("%s: %d records", name, n)
			}
			if r.Stats().OpenRetries == 0 {
				t.Errorf("%s: it opened at once, so this tests nothing", name)
			}
			r.close()
		}
	}
}

func TestRetention(t *testing.T) {
	now := time.UnixMicro(1_700_000_000_000_000)
	r := newRig(t, Options{Shards: 2, Retention: Retention{MaxAge: time.Hour}})
	r.now = func() time.Time { return now }
	owners := []commitlog.Owner{r.owner(0), r.owner(1)}
	put := func(device string, first uint64, age time.Duration) {
		e := group(1, 100, first)[0]
		e.ID.Device, e.Received = device, now.Add(-age).UnixMicro()
		r.append(owners[commitlog.ShardOf(device, 2)], e)
	}
	devices := [2]string{}
	for i := 0; devices[0] == "" || devices[1] == ""; i++ {
		d := "ship-" + string(rune('a'+i))
		devices[commitlog.ShardOf(d, 2)] = d
	}
	put(devices[0], 1, 3*time.Hour)
	put(devices[0], 101, 2*time.Hour)
	put(devices[0], 201, time.Minute)
	put(devices[1], 1, 30*time.Minute)
	put(devices[1], 101, 10*time.Minute)
	if err := r.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a, b := r.count(commitlog.Filter{Device: devices[0]}), r.count(commitlog.Filter{Device: devices[1]}); a != 100 || b != 200 {
		t.Fatalf("by age: %d and %d records left", a, b)
	}
	s := r.Stats()
	if s.ExpiredRecords != 200 || s.ExpiredBlocks != 2 || s.StoredRecords != 300 {
		t.Fatalf("%+v", s)
	}
	r.Log.o.Retention = Retention{MaxBytes: s.StoredBytes - 1}
	if err := r.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	// the oldest of all shards goes, and no more than needed
	if a, b := r.count(commitlog.Filter{Device: devices[0]}), r.count(commitlog.Filter{Device: devices[1]}); a != 100 || b != 100 {
		t.Fatalf("by bytes: %d and %d records left", a, b)
	}
	r.Log.o.Retention = Retention{MaxBytes: 1}
	if err := r.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := r.Stats(); s.StoredBytes != 0 || s.StoredRecords != 0 || r.count(commitlog.Filter{}) != 0 {
		t.Fatalf("%+v", s)
	}
	r.o.Retention = Retention{}
	r.reopen()
	c, err := r.Coverage(t.Context(), devices[0])
	if err != nil {
		t.Fatal(err)
	}
	l := c.Epochs[0].Lanes[stream.Normal]
	if l.In.String() != "1-300" || l.Expired.String() != "1-300" {
		t.Fatalf("in %s, expired %s", &l.In, &l.Expired)
	}
	o := r.owner(0)
	if got := o.Coverage(devices[0]); got == nil || got.Lane(stream.ID{Epoch: c.Epochs[0].ID, Lane: stream.Normal}).In.Count() != 300 {
		t.Fatal("retention forgot coverage")
	}
}

// Run sweeps at once and ends with its context.
func TestRun(t *testing.T) {
	r := newRig(t, Options{Retention: Retention{MaxBytes: 1}})
	r.append(r.owner(0), group(1, 10, 1)...)
	news := r.news()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	<-news
	cancel()
	if err := <-done; err != nil {
		t.Fatalf("run: %v", err)
	}
	if s := r.Stats(); s.ExpiredRecords != 10 {
		t.Fatalf("%+v", s)
	}
}

// Nothing below the floor exists, even where its bytes do.
func TestFloorRules(t *testing.T) {
	r := newRig(t, Options{})
	o := r.owner(0)
	for n := range uint64(3) {
		r.append(o, group(2, 50, 50*n+1)...)
	}
	kept := map[string][]byte{}
	err := r.db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.DefaultIteratorOptions)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			if k := it.Item().Key()[0]; k == kindBlock || k == kindIndex || k == kindDevice {
				v, err := it.Item().ValueCopy(nil)
				if err != nil {
					return err
				}
				kept[string(it.Item().Key())] = v
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	r.expireTo(0, 150)
	if n := r.count(commitlog.Filter{}); n != 100 {
		t.Fatalf("%d records", n)
	}
	err = r.db.Update(func(txn *badger.Txn) error { // deleted keys come back
		for k, v := range kept {
			if err := txn.Set([]byte(k), v); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if all, one := r.count(commitlog.Filter{}), r.count(commitlog.Filter{Device: "truck-1"}); all != 100 || one != 50 {
		t.Fatalf("%d records, %d of one device: some from below the floor", all, one)
	}
}
