package buffer

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/packetboat/packetboat/pkg/stream"
)

// Space that is kept back. Appends leave reserveSegments untouched: settle
// state, evictions and moved records need room to make room.
const (
	reserveSegments  = 2
	lowSegments      = reserveSegments + 2 // below it, segments are freed
	minSegments      = 6
	maxSegments      = 4096
	minSegmentBytes  = 64 << 10
	maxSegmentBytes  = 1 << 30
	maxLedger        = 1024
	maxEpochs        = 4096
	retryDisk        = time.Second
	spares           = reserveSegments + 1 // files that are made before they are needed
	defaultMaxBytes  = 1 << 30
	defaultSegment   = 4 << 20
	defaultLazySync  = 100 * time.Millisecond
	defaultMaxPended = 16 << 20
)

// Buffer is an open journal. All methods may be called from any goroutine; Next
// is meant for one uplink.
//
// Locks are taken in the order readMu, commitMu, mu. Nothing waits for the disk
// under mu.
type Buffer struct {
	o       Options
	log     *slog.Logger
	fs      fileSystem
	lock    io.Closer
	journal stream.Epoch
	opened  time.Time

	frameMax   int // bytes of a data frame
	messageMax int // bytes of an encoded message
	rangesMax  int // ranges in all streams

	ready chan struct{} // a token: Next may have something new
	wake  chan struct{} // a token: commit now
	lazy  chan struct{} // a token: commit within LazySync
	room  chan struct{} // a token: spares are wanted

	// readMu serialises Next and guards the cursors.
	readMu      sync.Mutex
	cursors     [4]cursor
	topicBytes  int
	missedAt    stream.Position // the number that Next could not find last, and how often
	missedTimes int
	topics      map[string]string

	// commitMu serialises all writes to segments; whoever holds it may write
	// what it guards: the head segment's position and the generation counter.
	commitMu   sync.Mutex
	generation uint64
	clearing   bool   // clear is at work
	headAt     int64  // where the next frame goes in the head segment
	headIndex  uint32 // its index
	headSynced uint32 // frames of it that are synced
	tail       mapTail
	scratch    []byte // frames of state only, snapshots
	mover      frameView

	mu      sync.Mutex // guards the rest
	state   *state
	keys    keyMap
	refuses bool // some lane refuses when the journal is full
	segs    segments
	pending []*chunk // what Append collected, in order; the last one takes more
	spare   []*chunk // for reuse
	ops     operations
	// suspectDead: a segment may have died without an operation that says so.
	suspectDead bool
	waiting     int64 // bytes of pending chunks and of those being committed
	running     bool
	stopped     bool
	closed      bool
	full        bool
	diskErr     error
	retryAt     time.Time // after diskErr: when Append may try again
	noSpares    time.Time // after a spare could not be made: when to try again
	stats       Stats     // counters since Open
}

// Open opens the journal in o.Dir, or makes one, and recovers what is there.
// Errors: ErrLocked, ErrVersion, ErrDamaged, ErrDisk, or what is wrong with o.
// Nothing is accepted before the new epoch is durable.
func Open(o Options) (*Buffer, error) {
	if o.Dir == "" {
		return nil, errors.New("open journal: no directory given")
	}
	fs, err := openDir(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("open journal %s: %w", o.Dir, err)
	}
	return openOn(fs, o)
}

func openOn(fs fileSystem, o Options) (*Buffer, error) {
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("open journal %s: %w", o.Dir, err)
	}
	lock, err := fs.Lock()
	if err != nil {
		return nil, fmt.Errorf("open journal %s: %w", o.Dir, err)
	}
	b := newBuffer(fs, o)
	b.lock = lock
	if err := b.load(); err != nil {
		b.closeFiles()
		return nil, fmt.Errorf("open journal %s: %w", o.Dir, err)
	}
	return b, nil
}

func newBuffer(fs fileSystem, o Options) *Buffer {
	refuses := false
	for _, l := range o.Lanes {
		refuses = refuses || l.Overflow == RefuseNew
	}
	return &Buffer{
		refuses: refuses,
		o:       o, log: o.Logger, fs: fs, opened: time.Now(),
		frameMax:   frameLimit(o.SegmentBytes),
		messageMax: int(min(o.SegmentBytes/8, MaxMessageBytes)),
		rangesMax:  int(o.SegmentBytes / 128),
		ready:      make(chan struct{}, 1),
		wake:       make(chan struct{}, 1),
		lazy:       make(chan struct{}, 1),
		room:       make(chan struct{}, 1),
		topics:     make(map[string]string),
		keys:       keyMap{index: make(map[string]keyPlace), ahead: make(map[string]projected), max: o.MaxState},
	}
}

// complete sets the defaults and checks the limits.
func (o *Options) complete() error {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = processClock()
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = defaultMaxBytes
	}
	if o.LazySync == 0 {
		o.LazySync = defaultLazySync
	}
	if o.MaxPending == 0 {
		o.MaxPending = defaultMaxPended
	}
	if o.MaxBytes < minSegments*minSegmentBytes {
		return fmt.Errorf("the journal's limit is %d bytes: it needs at least %d", o.MaxBytes, minSegments*minSegmentBytes)
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = chosenSegment(o.MaxBytes)
	}
	n := o.MaxBytes / max(o.SegmentBytes, 1)
	switch {
	case o.SegmentBytes < minSegmentBytes || o.SegmentBytes > maxSegmentBytes || o.SegmentBytes%pageSize != 0:
		return fmt.Errorf("journal segments of %d bytes: use a multiple of %d from %d to %d", o.SegmentBytes, pageSize, minSegmentBytes, maxSegmentBytes)
	case n < minSegments:
		return fmt.Errorf("the journal's limit of %d bytes holds %d segments of %d: it needs at least %d; raise the limit or use smaller segments", o.MaxBytes, n, o.SegmentBytes, minSegments)
	case n > maxSegments || n > o.SegmentBytes/1024:
		return fmt.Errorf("the journal's limit of %d bytes means %d segments of %d: too many; use larger segments", o.MaxBytes, n, o.SegmentBytes)
	case o.MaxState < 0 || o.MaxState > maxState(n, o.SegmentBytes):
		return fmt.Errorf("the journal's map may not have %d bytes: a limit of %d in segments of %d leaves it %d at most; raise the limit or use other segments", o.MaxState, o.MaxBytes, o.SegmentBytes, maxState(n, o.SegmentBytes))
	case o.LazySync < 0 || o.MaxPending < 0:
		return errors.New("negative LazySync or MaxPending")
	}
	if o.MaxState == 0 {
		o.MaxState = min(o.MaxBytes/8, maxState(n, o.SegmentBytes))
	}
	for lane, l := range o.Lanes {
		if !lane.Valid() || l.Overflow > RefuseNew {
			return fmt.Errorf("unknown lane or overflow: %s, %d", lane, l.Overflow)
		}
	}
	return nil
}

// chosenSegment is the size of segments where none is asked for.
func chosenSegment(maxBytes int64) int64 {
	size := max(defaultSegment, roundUp(maxBytes/1024))
	if maxBytes/8 < size {
		size = max(minSegmentBytes, maxBytes/8&^(pageSize-1))
	}
	return size
}

// Close closes the files and gives up the lock. Run must have returned; what
// was appended after that was refused.
func (b *Buffer) Close() error {
	b.readMu.Lock()
	defer b.readMu.Unlock()
	b.commitMu.Lock()
	defer b.commitMu.Unlock()
	b.mu.Lock()
	if b.running {
		b.mu.Unlock()
		return errors.New("close journal: Run has not returned")
	}
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed, b.stopped = true, true
	left := b.pending
	b.pending = nil
	b.mu.Unlock()
	for _, c := range left {
		c.fail(fmt.Errorf("close journal: %w", ErrClosed))
	}
	return b.closeFiles()
}

func (b *Buffer) closeFiles() error {
	var errs []error
	for _, list := range [][]*segment{b.segs.live, b.segs.free} {
		for _, seg := range list {
			errs = append(errs, seg.file.Close())
		}
	}
	if b.segs.head != nil {
		errs = append(errs, b.segs.head.file.Close())
	}
	return errors.Join(append(errs, b.lock.Close())...)
}

// token puts one into c unless there is one.
func token(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Ready returns a channel of capacity 1 that gets a token whenever Next may
// have something new.
func (b *Buffer) Ready() <-chan struct{} { return b.ready }
