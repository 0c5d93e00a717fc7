package ingest

import (
	"errors"
	"fmt"
	"time"

	"github.com/packetboat/packetboat/pkg/stream"
)

// Version is the newest version of the link protocol that Connect takes; it
// takes every one from 1.
const Version = 1

// Hello is what a device says of itself when it connects.
type Hello struct {
	// Device must be authenticated by the caller.
	Device string
	// Version of the link protocol.
	Version int
	// Held is what the edge still answers for, oldest epoch first.
	Held []stream.Held
	// Partial says that the edge holds epochs which Held does not name. Then
	// nothing that Held leaves out is called lost or absent.
	Partial bool
	// Codec is what the edge offers.
	Codec CodecOffer
	// Origin says where the connection comes from, for the operator's eyes.
	Origin string
	// Revoke ends the connection: another one of the device took over, the
	// ownership of its shard ended, or it broke its limits. It is called at
	// most once, from any goroutine, without locks held, also before Connect
	// has returned; it must not block.
	Revoke func(reason string)
}

// Welcome is what the hub answers to Hello.
type Welcome struct {
	Log stream.LogID
	// Coverage names every epoch of Hello.Held that the log knows, with what
	// is settled of the numbers that are held.
	Coverage []stream.EpochCoverage
	// WindowMessages and PacketBytes are the device's window: so many batches
	// not answered, of so many bytes each at most.
	WindowMessages int
	PacketBytes    int
	// Codec answers Hello.Codec.
	Codec CodecGrant
}

// OutcomeCode says what became of a batch.
type OutcomeCode uint8

// The outcomes.
const (
	// Settled: every number of the batch is in the log or declared lost there.
	Settled OutcomeCode = 1
	// Refused: the batch was not taken; it may be sent again after RetryAfter.
	// (After a commit of unknown outcome it may be in all the same; coverage
	// tells.)
	Refused OutcomeCode = 2
	// Bad: the batch could not be decoded or is no batch of this device. All
	// that follow are Bad until one is marked reset.
	Bad OutcomeCode = 3
)

func (c OutcomeCode) String() string {
	switch c {
	case Settled:
		return "settled"
	case Refused:
		return "refused"
	case Bad:
		return "bad"
	}
	return fmt.Sprintf("outcome(%d)", uint8(c))
}

// Outcome is the answer to one batch.
type Outcome struct {
	Code OutcomeCode
	// RetryAfter is set with Refused, at most MaxRetryAfter.
	RetryAfter time.Duration
	// Lost are numbers of the batch's records that count as lost in the log,
	// In are numbers of its losses whose records are in the log. Both are
	// usually empty; they are set with Settled.
	Lost, In stream.RangeSet
	// Codec is set with Bad, when the edge has to go on in another way than
	// Welcome said.
	Codec CodecGrant
}

// MaxRetryAfter is the longest time that a device is asked to wait.
const MaxRetryAfter = 60 * time.Second

// BusyError says that a device cannot be served now and when to come again.
type BusyError struct {
	Reason     BusyReason
	RetryAfter time.Duration
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("ingest: busy: %s; come again in %s", e.Reason, e.RetryAfter.Round(time.Millisecond))
}

// ErrHello is what Connect returns, wrapped with what is wrong, for a Hello that
// does not follow the protocol.
var ErrHello = errors.New("ingest: not a valid hello")

// BusyReason says why a device could not be served. The set is closed.
type BusyReason uint8

// The reasons of BusyError.
const (
	BusyShard    BusyReason = iota // the device's shard is not owned now
	BusyBudget                     // the windows of all devices are granted
	BusyTakeover                   // an older connection's batches are not settled yet
	BusyCommit                     // what has to be in the log before serving could not be committed
	BusyRestored                   // the log went back; it takes a new incarnation
	BusyStopped                    // the hub is not running
	busyReasons
)

var busyNames = [busyReasons]string{"shard", "budget", "takeover", "commit", "log_restored"}

func (r BusyReason) String() string { return name(busyNames[:], int(r)) }

// RefuseReason says why a batch was not taken. The set is closed.
type RefuseReason uint8

// The reasons of Refused.
const (
	RefusedShard    RefuseReason = iota // the shard's ownership ended
	RefusedMemory                       // too many bytes wait for the log
	RefusedNoSpace                      // the log's disk is nearly full
	RefusedByLog                        // the log rejected it
	RefusedOrder                        // it follows a refused batch of its fifo lane
	RefusedRevoked                      // the session has ended
	RefusedCoverage                     // the device has too many epochs, or the stream too many gaps
	refuseReasons
)

var refuseNames = [refuseReasons]string{"shard", "memory", "no_space", "rejected", "order", "revoked", "coverage"}

func (r RefuseReason) String() string { return name(refuseNames[:], int(r)) }

// RevokeReason says why a session was ended. The set is closed.
type RevokeReason uint8

// The reasons that Hello.Revoke is called for.
const (
	RevokedTakeover RevokeReason = iota // another connection of the device
	RevokedShard                        // the ownership of the shard ended
	RevokedRestored                     // the log went back and has a new incarnation
	RevokedWindow                       // the device exceeded its window
	RevokedStopped                      // the hub stops
	revokeReasons
)

var revokeNames = [revokeReasons]string{"taken over", "shard lost", "log restored", "window exceeded", "hub stopping"}

func (r RevokeReason) String() string { return name(revokeNames[:], int(r)) }

func name(names []string, i int) string {
	if i < len(names) {
		return names[i]
	}
	return "unknown"
}
