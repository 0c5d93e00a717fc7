// Package codec turns records into few bytes and back: rows in columns, under
// zstd, self-contained.
//
// It promises that what comes back is what went in, to the byte, or an error,
// and that a hostile body neither panics nor takes more memory than its limits
// allow. It is pure: it starts no goroutine, reads no clock and does no I/O. It
// knows neither streams nor batches: what is around a body is the caller's.
package codec

import (
	"errors"

	"github.com/packetboat/packetboat/pkg/stream"
)

// ID names what encoded a body. The numbers stand on the link and in the log.
type ID uint8

// Rows is codec 1: rows in columns, plain or in a zstd frame.
const Rows ID = 1

// Limits bound what a decoder makes of a body. A zero field takes the default.
type Limits struct {
	// Records is the most records of one body; default MaxRecords.
	Records int
	// Bytes is the most bytes of content: topics, payloads and properties,
	// each counted for every record that has it; default MaxBytes.
	Bytes int
}

// The bounds of a body. An encoder refuses what exceeds them.
const (
	MaxRecords = 1 << 16
	MaxBytes   = 64 << 20
)

var (
	// ErrCorrupt says that a body is not what its encoder wrote.
	ErrCorrupt = errors.New("codec: body is corrupt")
	// ErrTooLarge says that a body holds more than the limits allow.
	ErrTooLarge = errors.New("codec: body exceeds the limits")
	// ErrInvalid says that a record cannot be encoded.
	ErrInvalid = errors.New("codec: record cannot be encoded")
)

// AppendRows appends the body of recs to dst. Their numbers are not in it. seed
// goes into the body's check: DecodeRows must be given the same.
func AppendRows(dst []byte, recs []stream.Record, seed uint32) ([]byte, error) { panic("stub") }

// DecodeRows reads a body of count records, the first of which has the number
// first. The records' memory is the caller's; it does not alias body.
func DecodeRows(body []byte, first uint64, count int, seed uint32, limits Limits) ([]stream.Record, error) {
	panic("stub")
}

// AppendBlock appends a self-contained block of recs to dst: it names its codec
// and holds the records' numbers, which must ascend and may have holes.
func AppendBlock(dst []byte, recs []stream.Record) ([]byte, error) { panic("stub") }

// DecodeBlock reads what AppendBlock wrote. The records' memory is the
// caller's; it does not alias block.
func DecodeBlock(block []byte, limits Limits) ([]stream.Record, error) { panic("stub") }
