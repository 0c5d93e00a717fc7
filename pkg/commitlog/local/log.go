package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

// Log is an open log. It implements commitlog.Log.
type Log struct {
	o    Options
	log  *slog.Logger
	db   *badger.DB
	file *os.File // holds the lock
	now  func() time.Time

	shards []*shard

	// life is held for reading by whoever uses db, for writing by Close. It is
	// taken after shard.writing, and never twice.
	life   sync.RWMutex
	closed bool // guarded by life

	mu        sync.Mutex
	meta      logMeta       // guarded by mu
	committed chan struct{} // guarded by mu; closed at the next commit and replaced

	// dead is how much may lie below the floors and still take space; after
	// opening nobody knows, and it is taken to be enough to look once.
	dead      atomic.Int64
	dropAfter int64

	failure atomic.Pointer[error] // set once: nothing more is taken or given
	broken  chan struct{}         // closed when failure is set
	counts  counts
}

type counts struct {
	groups, records, bytes, losses    atomic.Int64
	rejected, noSpace, fenced         atomic.Int64
	expiredBlocks, expiredRecords     atomic.Int64
	openRetries, freeBytes, followers atomic.Int64
	full, newLife                     atomic.Bool
}

// shard is one slice of the devices.
type shard struct {
	n int

	// writing is held through each transaction of the shard: append, acquire,
	// retention. It guards owner and scratch.
	writing sync.Mutex
	owner   *owner

	// view guards what is committed, for readers.
	view    sync.Mutex
	state   shardState                           // guarded by view, changed under writing
	devices map[string]*commitlog.DeviceCoverage // guarded by view; loaded as asked for, never stale, never let go of
}

func (s *shard) snapshot() shardState {
	s.view.Lock()
	defer s.view.Unlock()
	return s.state
}

// cached is the loaded coverage of a device, not to be changed.
func (s *shard) cached(device string) (*commitlog.DeviceCoverage, bool) {
	s.view.Lock()
	defer s.view.Unlock()
	c, ok := s.devices[device]
	return c, ok
}

// Stats is what a log says of itself. Counters start at 0 when it is opened.
type Stats struct {
	// Groups, Records, Bytes (as stored) and Losses (numbers) count what
	// Append took.
	Groups, Records, Bytes, Losses int64
	// Rejected, NoSpace and Fenced count groups not taken; NoSpace is part of
	// Rejected.
	Rejected, NoSpace, Fenced int64
	// ExpiredBlocks and ExpiredRecords count what retention deleted.
	ExpiredBlocks, ExpiredRecords int64
	// StoredRecords and StoredBytes are what the log holds now, DiskBytes what
	// its tables take on the disk (measured about once a minute).
	StoredRecords, StoredBytes, DiskBytes int64
	// FreeBytes is what is free on the disk; Full says that it is below
	// MinFree.
	FreeBytes int64
	Full      bool
	// Followers is how many readers wait for more.
	Followers int64
	// OpenRetries is how often Badger had to be opened again; NewLife says
	// that the log took a new incarnation when it was opened.
	OpenRetries int64
	NewLife     bool
	// Failure is why nothing more is taken or given; "" while all is well.
	Failure string
}

// Stats returns the counters. It looks how much space is free: a log that
// nobody appends to must not stay full, or not full, for ever.
func (l *Log) Stats() Stats {
	c := &l.counts
	if !l.o.ReadOnly {
		_ = l.checkSpace() // what it found is in the counters
	}
	s := Stats{
		Groups: c.groups.Load(), Records: c.records.Load(), Bytes: c.bytes.Load(), Losses: c.losses.Load(),
		Rejected: c.rejected.Load(), NoSpace: c.noSpace.Load(), Fenced: c.fenced.Load(),
		ExpiredBlocks: c.expiredBlocks.Load(), ExpiredRecords: c.expiredRecords.Load(),
		FreeBytes: c.freeBytes.Load(), Full: c.full.Load(), Followers: c.followers.Load(),
		OpenRetries: c.openRetries.Load(), NewLife: c.newLife.Load(),
	}
	for _, sh := range l.shards {
		st := sh.snapshot()
		s.StoredRecords += st.next - st.floor
		s.StoredBytes += st.bytes
	}
	if err := l.failed(); err != nil {
		s.Failure = err.Error()
	}
	if done, err := l.use(); err == nil {
		s.DiskBytes, _ = l.db.Size()
		done()
	}
	return s
}

// ID implements commitlog.Log.
func (l *Log) ID() stream.LogID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.meta.id()
}

// Shards implements commitlog.Log.
func (l *Log) Shards() int { return len(l.shards) }

// use keeps the log from being closed until done is called. It fails when the
// log is closed or its disk has failed. It must not be nested.
func (l *Log) use() (done func(), err error) {
	l.life.RLock()
	if l.closed {
		l.life.RUnlock()
		return nil, commitlog.ErrClosed
	}
	if err := l.failed(); err != nil {
		l.life.RUnlock()
		return nil, err
	}
	return l.life.RUnlock, nil
}

func (l *Log) failed() error {
	if err := l.failure.Load(); err != nil {
		return *err
	}
	return nil
}

// fail is called when nobody knows what a commit left on the disk. What the
// store shows from now on may not be durable, so it is not shown.
func (l *Log) fail(cause error) error {
	err := fmt.Errorf("%w: %w", ErrFailed, cause)
	if l.failure.CompareAndSwap(nil, &err) {
		l.log.Error("the log takes nothing more until it is opened again", "error", cause)
		close(l.broken)
		l.wake()
	}
	return err
}

// wake tells everybody who follows that there may be more.
func (l *Log) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.committed)
	l.committed = make(chan struct{})
}

// news is closed at the next commit.
func (l *Log) news() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.committed
}

// NewIncarnation implements commitlog.Log.
func (l *Log) NewIncarnation(ctx context.Context) (stream.LogID, error) {
	if err := ctx.Err(); err != nil {
		return stream.LogID{}, err
	}
	if l.o.ReadOnly {
		return stream.LogID{}, ErrReadOnly
	}
	for _, s := range l.shards {
		s.writing.Lock()
		defer s.writing.Unlock()
	}
	done, err := l.use()
	if err != nil {
		return stream.LogID{}, err
	}
	defer done()
	for _, s := range l.shards {
		s.owner = nil
	}
	l.mu.Lock()
	next := l.meta
	next.Incarnation = stream.NewEpoch()
	if err := saveMeta(l.db, &next); err != nil {
		l.mu.Unlock()
		return stream.LogID{}, l.fail(err)
	}
	l.meta = next
	l.mu.Unlock()
	return next.id(), nil
}

// Close implements commitlog.Log. Run must have returned.
func (l *Log) Close() error {
	l.life.Lock()
	defer l.life.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	l.wake()
	err := l.db.Close()
	if err != nil {
		err = fmt.Errorf("close the log: %w", err)
	}
	return errors.Join(err, l.file.Close())
}

var _ commitlog.Log = (*Log)(nil)
