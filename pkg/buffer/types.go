package buffer

import (
	"errors"
	"log/slog"
	"time"

	"github.com/packetboat/packetboat/pkg/stream"
)

// The errors that a caller tells apart with errors.Is. They come wrapped with
// what was tried and where.
var (
	// ErrLocked: another process has the directory open.
	ErrLocked = errors.New("journal is in use by another process")
	// ErrFull: the byte limit is reached and nothing may be evicted.
	ErrFull = errors.New("journal is full")
	// ErrBusy: Options.MaxPending bytes wait for the disk already.
	ErrBusy = errors.New("too much waits for the disk")
	// ErrDisk: the disk refuses to write; the next attempt comes by itself.
	ErrDisk = errors.New("disk refuses the journal")
	// ErrClosed: the buffer has stopped.
	ErrClosed = errors.New("buffer is closed")
	// ErrTooLarge: the message or the Write can never fit a frame.
	ErrTooLarge = errors.New("message is too large for the journal")
	// ErrStateFull: the map has Options.MaxState bytes.
	ErrStateFull = errors.New("the journal's map is full")
	// ErrDamaged: the directory holds a journal that cannot be opened.
	ErrDamaged = errors.New("journal is damaged")
	// ErrVersion: a newer Packetboat wrote the journal.
	ErrVersion = errors.New("journal has a newer format")
)

// MaxMessageBytes is the largest message that Append takes, encoded: topic,
// payload and properties together. Segments under 2 MiB take less: an eighth of
// a segment.
const MaxMessageBytes = 256 << 10

// Overflow says what a lane does when the byte limit is reached.
type Overflow uint8

// The ways to overflow.
const (
	// EvictOldest gives up the lane's oldest messages, with a loss record.
	EvictOldest Overflow = 0
	// RefuseNew keeps what is stored; Append returns ErrFull.
	RefuseNew Overflow = 1
)

// LaneOptions are the settings of one lane.
type LaneOptions struct{ Overflow Overflow }

// Options configure Open. The zero value of each field but Dir means its default.
type Options struct {
	// Dir holds the journal; it is made if missing.
	Dir string
	// MaxBytes bounds all journal files together; default 1 GiB.
	MaxBytes int64
	// SegmentBytes is the size of one journal file; default 4 MiB, adjusted
	// where MaxBytes asks for smaller or larger files. A multiple of 4 KiB.
	SegmentBytes int64
	// Lanes holds what differs from the default; a lane not named evicts.
	Lanes map[stream.Lane]LaneOptions
	// LazySync is the longest time that QoS 0 messages and settle state wait
	// for a sync; default 100 ms.
	LazySync time.Duration
	// MaxPending bounds the bytes appended and not yet synced; default 16 MiB.
	MaxPending int64
	// MaxState bounds the map that Commit keeps: bytes of keys and values, and
	// 64 for each entry. Default: an eighth of MaxBytes, at most 64 MiB, and less
	// where segments are few or small.
	MaxState int64
	// Now reads the device's clocks, for the expiry of messages. It may be
	// called from any goroutine, and must be cheap. Nil reads the wall clock
	// and believes it; the process then counts as a boot of its own.
	Now func() stream.Moment
	// Logger gets state changes, no line per message; default: none.
	Logger *slog.Logger
}

// Entry is one key of the map that the journal keeps beside the messages. A nil
// Value removes the key; an empty one that is not nil is a value.
type Entry struct {
	Key   string
	Value []byte
}

// Write is what Commit makes durable in one go: messages of one lane, entries
// of the map, or both.
type Write struct {
	// Lane and Msgs are as in Append. Without messages the lane is ignored.
	Lane stream.Lane
	Msgs []stream.Message
	// State are entries, put and removed in their order, after those of all
	// earlier Writes. All of them become durable, with the messages, or none.
	State []Entry
	// Lazy: entries without messages of QoS 1 or 2 may wait for Options.LazySync.
	Lazy bool
}

// Backlog is what waits in a lane.
type Backlog struct {
	Messages int64
	// Bytes is the encoded size of the messages; an estimate after numbers were
	// settled or evicted that Next had not handed out.
	Bytes int64
	// OldestAppend is when the oldest of them was appended (for what an earlier
	// process appended: when this one opened the buffer); zero when empty.
	OldestAppend time.Time
}

// Limit bounds a batch; 0 means the buffer's own bound (65,536 messages, 1 MiB
// encoded). A batch has at least one message.
type Limit struct{ Messages, Bytes int }

// Answer is what a log says of an epoch's lane.
type Answer struct {
	// By is the log that answers.
	By stream.LogID
	// Settled are the numbers that are in the log or declared lost there.
	Settled stream.RangeSet
	// Lost is the part of Settled that the log counts as lost.
	Lost stream.RangeSet
}

// LedgerEntry is a run of numbers that were given up.
type LedgerEntry struct {
	stream.ID
	stream.Loss
	// Declared: a log has taken the loss into its coverage.
	Declared bool
}
