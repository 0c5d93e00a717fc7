package local

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"github.com/packetboat/packetboat/pkg/commitlog"
)

// Options say where a log is and how it keeps itself.
type Options struct {
	// Dir holds the log. It is made when missing.
	Dir string
	// Shards is how many a new log gets; an existing one must have as many.
	// 0: what the log has, 1 for a new one.
	Shards int
	// Retention deletes old records; the zero value keeps all.
	Retention Retention
	// MinFree is how many bytes must stay free on the disk: below it Append
	// says commitlog.ErrNoSpace. 0: DefaultMinFree; less than
	// LeastMinFree counts as that. Negative: not checked, and a full disk kills the process.
	MinFree int64
	// Logger gets what an operator should know; nil: nothing.
	Logger *slog.Logger
	// ReadOnly opens a log that no hub has open, to read it: Acquire and
	// NewIncarnation fail, nothing is made or deleted.
	ReadOnly bool
}

// Retention says what may go.
type Retention struct {
	// MaxAge is how long ago the hub must have received a record for it to be
	// deleted; 0: age does not matter.
	MaxAge time.Duration
	// MaxBytes is how much the stored blocks may take in all shards together;
	// 0: without limit. The directory takes more: indexes, coverage, and what
	// is deleted but not yet compacted away.
	MaxBytes int64
}

// DefaultMinFree leaves room for what Badger may still write after the last
// accepted group, memory tables on their way to disk and compactions: 290 MiB
// were seen. LeastMinFree is the least that does any good.
const (
	DefaultMinFree = 1 << 30
	LeastMinFree   = 512 << 20
)

const (
	// openTries is how often Badger is opened before its error counts: after a
	// power cut the first call can fail on an empty file and mend it.
	openTries = 4
	// hardMinFree is what it takes to open for writing at all: what a crash
	// left must be replayed and written to tables.
	hardMinFree = 256 << 20

	// memTableSize bounds one transaction: Badger takes 15 % of it, 7.2 MiB,
	// which holds any group within commitlog.MaxGroup*, together with the
	// coverage of as many streams. It is also the write buffer, once on the
	// heap and once as a mapped file: memory is used as it fills.
	memTableSize = 48 << 20
	// l0Tables and l0Stall bound what one compaction must write anew, and with
	// it the space that Badger may still need when no more is accepted.
	l0Tables = 2
	l0Stall  = 4
	// valueLogFile is the smallest that Badger allows: nothing ever goes there.
	valueLogFile = 1 << 20
	// maxPart keeps every value below Badger's highest threshold, 1 MiB, above
	// which values would go to the value log.
	maxPart        = 512 << 10
	valueThreshold = 1 << 20
)

var (
	// ErrLocked: another process has the log open.
	ErrLocked = errors.New("the log is in use by another process")
	// ErrReadOnly: the log was opened only to read it.
	ErrReadOnly = errors.New("the log is open read-only")
	// ErrDamaged: the store holds what this package never writes.
	ErrDamaged = errors.New("the log is damaged")
	// ErrFormat: the log was written by a newer version of this program.
	ErrFormat = errors.New("the log has a newer format")
	// ErrShards: the log has another number of shards than Options ask for.
	ErrShards = errors.New("the number of shards is fixed when a log is made")
	// ErrFailed: the disk failed under a commit. Nothing more is taken or
	// given until the log is opened again.
	ErrFailed = errors.New("the log's disk failed; the hub must be restarted")
)

func (o *Options) check() error {
	var errs []error
	if o.Dir == "" {
		errs = append(errs, errors.New("no directory given"))
	}
	if o.Shards < 0 || o.Shards > commitlog.MaxShards {
		errs = append(errs, fmt.Errorf("%d shards: want 1 to %d", o.Shards, commitlog.MaxShards))
	}
	if o.Retention.MaxAge < 0 || o.Retention.MaxBytes < 0 {
		errs = append(errs, errors.New("a limit of retention is negative"))
	}
	if math.MaxInt == math.MaxInt32 {
		errs = append(errs, errors.New("the embedded log needs a 64-bit system: Badger corrupts its tables on 32-bit ones"))
	}
	return errors.Join(errs...)
}

// badgerOptions: as little memory as a steady stream of small, already
// compressed blocks needs. Tables are mapped, so reads need no cache of ours.
func (o *Options) badgerOptions(readOnly bool) badger.Options {
	return badger.DefaultOptions(filepath.Join(o.Dir, "badger")).
		WithSyncWrites(true).
		WithReadOnly(readOnly).
		WithLogger(badgerLogger{o.Logger}).
		WithMetricsEnabled(false).
		WithDetectConflicts(false). // one writer per key: the shard's lock
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithIndexCacheSize(0).
		WithChecksumVerificationMode(options.OnBlockRead).
		WithMemTableSize(memTableSize).
		WithNumMemtables(2).
		WithNumCompactors(2).
		WithNumLevelZeroTables(l0Tables).
		WithNumLevelZeroTablesStall(l0Stall).
		WithValueThreshold(valueThreshold).
		WithValueLogFileSize(valueLogFile)
}

// badgerLogger passes on what Badger finds worth a warning.
type badgerLogger struct{ log *slog.Logger }

func (l badgerLogger) Errorf(f string, a ...any) {
	l.log.Error("badger", "message", fmt.Sprintf(f, a...))
}
func (l badgerLogger) Warningf(f string, a ...any) {
	l.log.Warn("badger", "message", fmt.Sprintf(f, a...))
}
func (l badgerLogger) Infof(string, ...any)  {}
func (l badgerLogger) Debugf(string, ...any) {}
