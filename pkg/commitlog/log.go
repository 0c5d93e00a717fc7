package commitlog

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/packetboat/packetboat/pkg/stream"
)

// The outcomes of Append besides nil. Test with errors.Is.
var (
	// ErrRejected: nothing of the group is in, and the owner still owns. The
	// same group would be rejected again unless the cause goes away.
	ErrRejected = errors.New("commit log: group rejected")
	// ErrNoSpace wraps ErrRejected: the log's disk is nearly full.
	ErrNoSpace = fmt.Errorf("%w: no space left for the log", ErrRejected)
	// ErrTooLarge wraps ErrRejected: the group is above what one transaction
	// takes. Limits says what always fits.
	ErrTooLarge = fmt.Errorf("%w: too large for one transaction", ErrRejected)
	// ErrFenced: another owner has the shard, or this one was released.
	// Nothing of the group is in, now or later.
	ErrFenced = errors.New("commit log: not the owner of the shard any more")
	// ErrUnknown: the group may be in as a whole, or not at all, and may still
	// get in until the shard is acquired again. Acquire, read coverage, then
	// answer from that.
	ErrUnknown = errors.New("commit log: outcome unknown")
	// ErrClosed: the log has been closed.
	ErrClosed = errors.New("commit log: closed")
)

// Entry is what one batch of one stream adds to the log.
type Entry struct {
	ID stream.ID
	// Records, ascending in Seq, holes allowed. None of them is settled yet.
	Records []stream.Record
	// Losses are declared lost: not settled yet, disjoint from each other and
	// from Records.
	Losses []stream.Loss
	// Head is the highest number of the stream that its edge told of, be it
	// in a batch or when it connected; 0: it told none.
	Head uint64
	// Floor is the lowest number that the edge answers for, Oldest the event
	// time (µs) of its oldest record that is not settled, 0: none. A Floor of
	// 0 means that the edge did not say; then Oldest is not looked at.
	Floor  uint64
	Oldest int64
	// Current is the epoch in use at the connection that sent this; every
	// other epoch of the device counts as closed. Zero: nothing changes.
	Current stream.Epoch
	Flags   stream.Flags
	// Received is when the hub got it, µs since 1970 UTC.
	Received int64
}

// Log is a commit log. All methods may be called from any goroutine.
type Log interface {
	Reader
	// ID names the log and its incarnation. It changes only by NewIncarnation.
	ID() stream.LogID
	// Shards is how many there are, from 1, for the life of the log.
	Shards() int
	// Acquire makes the caller the owner of a shard. Whoever owned it before
	// is fenced: what it had under way is either in, and seen by the new
	// owner's coverage, or never gets in.
	Acquire(ctx context.Context, shard int) (Owner, error)
	// NewIncarnation gives the log another incarnation, durably, and fences
	// every owner.
	NewIncarnation(ctx context.Context) (stream.LogID, error)
	// Close ends readers and owners (ErrClosed) and waits for what is under
	// way.
	Close() error
}

// Owner appends to one shard. Append is for one goroutine at a time; Coverage
// and Release may be called from any.
type Owner interface {
	// Append makes all entries durable and visible, in order, with their
	// coverage, or none of them. Entries, records and payloads may be reused
	// once it has returned.
	//
	// It returns nil, or an error that is ErrRejected, ErrFenced, ErrUnknown
	// or ErrClosed. After ErrFenced and ErrUnknown the owner is finished: all
	// later calls return ErrFenced. A group that breaks the rules of Apply or
	// names a device of another shard is rejected. Every log takes a group
	// within MaxGroupEntries, MaxGroupRecords and MaxGroupBytes, unless the
	// coverage of its streams is very fragmented; then it is ErrTooLarge, and
	// smaller groups go: one entry within the limits always fits.
	//
	// An empty group is a barrier: it commits an owner record, so that nil
	// proves ownership at that moment.
	//
	// When ctx ends first the outcome is ErrUnknown, or ErrRejected where the
	// log knows that nothing got in.
	Append(ctx context.Context, group []Entry) error
	// Coverage is what the log says of a device, complete when Acquire
	// returned and including every group since that Append said nil to. The
	// caller may Apply to it: it is a copy. nil: the log has never seen the
	// device, or the device is of another shard.
	Coverage(device string) *DeviceCoverage
	// Release gives the shard back. Appends after it return ErrFenced.
	Release() error
}

// Reader reads what is committed. All methods may be called from any goroutine.
type Reader interface {
	// Read yields the records that match f, from the cursor on: each shard in
	// the order of offsets, the shards mixed. A place below a shard's floor
	// means its floor. Without Follow it ends at what was committed when it
	// got there; with Follow it waits for more until ctx ends. A Stored
	// belongs to the caller. An error is yielded once, last; ctx ending is one.
	Read(ctx context.Context, from Cursor, f Filter) iter.Seq2[Stored, error]
	// Devices yields every device that the log has coverage of, ascending in
	// each shard.
	Devices(ctx context.Context) iter.Seq2[string, error]
	// Coverage is a copy of what is committed about a device; nil and no
	// error: never seen.
	Coverage(ctx context.Context, device string) (*DeviceCoverage, error)
	// Extent says what each shard holds, in order of shards.
	Extent(ctx context.Context) ([]ShardExtent, error)
}

// ShardExtent is what a shard holds: offsets from Floor up to, not including,
// Next.
type ShardExtent struct {
	Shard int   `json:"shard"`
	Floor int64 `json:"floor"`
	Next  int64 `json:"next"`
	// Bytes is how much its records take as stored, 0 where the log does not
	// know.
	Bytes int64 `json:"bytes"`
}

// Stored is a record as the log gives it back.
type Stored struct {
	Device string
	Epoch  stream.Epoch
	Lane   stream.Lane
	stream.Record
	Flags    stream.Flags
	Received int64
	Shard    int
	// Offset is its place in the shard. Offsets ascend, without gaps within
	// what one Append wrote.
	Offset int64
}

// ID names the stream of the record.
func (s *Stored) ID() stream.ID { return stream.ID{Device: s.Device, Epoch: s.Epoch, Lane: s.Lane} }

// At is the time that filters go by: the event time, or where the edge did not
// know it, the time of reception. µs since 1970 UTC.
func (s *Stored) At() int64 { return At(&s.Message, s.Received) }

// At is the time of a message received at the given moment, as Stored.At.
func At(m *stream.Message, received int64) int64 {
	if m.Quality == stream.TimeUnknown {
		return received
	}
	return m.Time
}
