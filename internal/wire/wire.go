// Package wire is the link protocol between an edge and its hub as pure
// functions: the batch in a PUBLISH, and the user properties of CONNECT,
// CONNACK and PUBACK. docs/protocol.md says every byte.
//
// It promises that a batch decodes to what was encoded or to an error, that
// text which has to be cut short is cut on the safe side (what is held is
// over-stated, what is settled under-stated), and bounds on all it reads. It
// has no goroutine, clock or socket; values are not safe for concurrent use.
package wire

import (
	"errors"
	"time"

	"github.com/packetboat/packetboat/pkg/codec"
	"github.com/packetboat/packetboat/pkg/stream"
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
	// ErrInvalid says that a batch cannot be encoded.
	ErrInvalid = errors.New("wire: batch cannot be encoded")
)

// UpTopic is where a device publishes its batches.
func UpTopic(device string) string { return "pb/1/" + device + "/up" }

// EncoderOptions are an Encoder's. The zero value is usable.
type EncoderOptions struct{}

// Encoder writes the batches of one connection, strictly in the order in which
// they are sent.
type Encoder struct{}

// NewEncoder makes the encoder of a new connection: its first batch is marked reset.
func NewEncoder(o EncoderOptions) *Encoder { panic("stub") }

// Append appends the payload of b's PUBLISH to dst. After an error nothing was
// appended and the encoder is as before; the error wraps ErrInvalid.
func (e *Encoder) Append(dst []byte, b *stream.Batch) ([]byte, error) { panic("stub") }

// Reset marks the next batch reset: it is self-contained.
func (e *Encoder) Reset() { panic("stub") }

// DecoderOptions are a Decoder's. Zero fields take the defaults of codec.Limits.
type DecoderOptions struct {
	MaxRecords int // of one batch
	MaxBytes   int // of content of one batch, as codec.Limits.Bytes
}

// Decoder reads the batches of one connection, strictly in the order of arrival.
type Decoder struct{}

// NewDecoder makes the decoder of a new connection.
func NewDecoder(o DecoderOptions) *Decoder { panic("stub") }

// Decode reads the payload of one PUBLISH of device. The batch's memory is the
// caller's. After an error every batch is refused with ErrOutOfStep until one
// that is marked reset.
func (d *Decoder) Decode(packet []byte, device string) (stream.Batch, error) { panic("stub") }

// FormatHeld gives the properties of CONNECT that say what an edge holds.
func FormatHeld(held []stream.Held) []stream.Property { panic("stub") }

// ParseHeld reads what FormatHeld gives; other properties are passed over.
func ParseHeld(props []stream.Property) ([]stream.Held, error) { panic("stub") }

// HeldIsPartial reports whether an edge said that it holds more epochs than it named.
func HeldIsPartial(props []stream.Property) bool { panic("stub") }

// FormatCoverage gives the properties of CONNACK that say what is settled.
// Every epoch is named, whatever is cut short.
func FormatCoverage(cov []stream.EpochCoverage) []stream.Property { panic("stub") }

// ParseCoverage reads what FormatCoverage gives; other properties are passed over.
func ParseCoverage(props []stream.Property) ([]stream.EpochCoverage, error) { panic("stub") }

// FormatVersion gives the property of CONNECT that says Version.
func FormatVersion() stream.Property { panic("stub") }

// ParseVersion reads the version that an edge speaks.
func ParseVersion(props []stream.Property) (int, error) { panic("stub") }

// FormatRetryAfter gives the property that says when to try again, at most
// MaxRetryAfter.
func FormatRetryAfter(d time.Duration) stream.Property { panic("stub") }

// RetryAfter reads it; false when there is none or it is not a number. A longer
// time is cut to MaxRetryAfter.
func RetryAfter(props []stream.Property) (time.Duration, bool) { panic("stub") }

// FormatLogID gives the property of CONNACK that names the log.
func FormatLogID(l stream.LogID) stream.Property { panic("stub") }

// ParseLogID reads it; it is an error when there is none.
func ParseLogID(props []stream.Property) (stream.LogID, error) { panic("stub") }

// FormatAnswer gives the properties of a PUBACK with reason 0: which numbers of
// the batch's records the log counts as lost, and which of its losses are in
// the log. None for the usual answer.
func FormatAnswer(lost, in stream.RangeSet) []stream.Property { panic("stub") }

// ParseAnswer reads what FormatAnswer gives.
func ParseAnswer(props []stream.Property) (lost, in stream.RangeSet, err error) { panic("stub") }
