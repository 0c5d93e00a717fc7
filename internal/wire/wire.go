// Package wire is the link protocol between an edge and its hub as pure
// functions: the batch in a PUBLISH, and the user properties of CONNECT,
// CONNACK and PUBACK. docs/protocol.md says every byte.
//
// It promises that a batch decodes to what was encoded or to an error, that
// text which has to be cut short is cut on the safe side (what is held is
// over-stated, what is settled under-stated), and bounds on all it reads. It
// has no goroutine, clock or socket, and does no MQTT; values are not safe for
// concurrent use.
package wire

import (
	"errors"
	"time"

	"github.com/packetboat/packetboat/pkg/codec"
)

// Version is the newest version of the protocol, in the user property PropVersion.
const Version = 1

// The names of the user properties on the link.
const (
	PropVersion    = "pb-version"
	PropHeld       = "pb-held"
	PropLog        = "pb-log"
	PropCoverage   = "pb-coverage"
	PropRetryAfter = "pb-retry-after"
	PropLost       = "pb-lost"
	PropIn         = "pb-in"
	PropCodec      = "pb-codec"
)

// Bounds of what is on the link.
const (
	MaxRanges     = 512              // ranges of a lane in pb-held and pb-coverage
	MaxText       = 60_000           // bytes of all pb-held or all pb-coverage together
	MaxEpochs     = 1000             // epochs in pb-held
	MaxRetryAfter = 60 * time.Second // in pb-retry-after
	MaxLosses     = 1024             // losses of a batch
	MaxRecords    = codec.MaxRecords // records of a batch
)

var (
	// ErrMalformed says that something on the link does not follow the protocol.
	ErrMalformed = errors.New("wire: malformed")
	// ErrOutOfStep says that a batch follows one that could not be decoded; only
	// one that is marked reset can be.
	ErrOutOfStep = errors.New("wire: out of step since a batch that could not be decoded")
	// ErrInvalid says that a batch cannot be encoded, whatever the limits.
	ErrInvalid = errors.New("wire: batch cannot be encoded")
	// ErrTooLarge says that a batch does not fit the limit given to the encoder.
	ErrTooLarge = errors.New("wire: batch exceeds the packet limit")
)

// UpTopic is where a device publishes its batches.
func UpTopic(device string) string { return "pb/1/" + device + "/up" }
