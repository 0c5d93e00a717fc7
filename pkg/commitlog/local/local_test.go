package local

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

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

func TestMinFree(t *testing.T) {
	r := newRig(t, Options{MinFree: 1 << 60})
	if s := r.Stats(); !s.Full || s.FreeBytes == 0 {
		t.Fatalf("before the first append: %+v", s)
	}
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
	r.Log.o.MinFree = 1 // space came back; also a log that nobody appends to notices
	if s := r.Stats(); s.Full {
		t.Fatalf("%+v", s)
	}
	r.append(o, group(1, 10, 1)...)
	if s := r.Stats(); s.Full || s.Records != 10 {
		t.Fatalf("%+v", s)
	}
}

// No test that kills a process can tell whether commits are synced; a power cut
// would.
func TestCommitsAreSynced(t *testing.T) {
	if r := newRig(t, Options{}); !r.db.Opts().SyncWrites {
		t.Fatal("commits are not synced")
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
