// Package codec turns records into few bytes and back. A session, of which each
// side of a link keeps one, learns the stream and codes every message by what it
// adds; a block stands for itself; rows in columns under zstd are what every peer
// reads.
//
// It promises that what comes back is what went in, to the byte, or an error,
// and that a hostile body neither panics nor takes more memory than its limits
// allow. It is pure: it starts no goroutine of its own, reads no clock and does
// no I/O. It knows neither streams nor batches: what is around a body is the
// caller's. docs/protocol.md and docs/format/link-codec.md say every byte.
package codec

import (
	"errors"
	"fmt"
)

// ID names what encoded a body. The numbers stand on the link and in the log.
type ID uint8

// Rows is codec 1: rows in columns, plain or in a zstd frame.
const Rows ID = 1

func (id ID) String() string {
	switch id {
	case Rows:
		return "rows"
	case Learning:
		return "learning"
	}
	return fmt.Sprintf("codec(%d)", uint8(id))
}

// Limits bound what a decoder makes of a body. A zero field takes the default;
// one above the default is cut to it.
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
	// ErrInvalid says that records cannot be encoded.
	ErrInvalid = errors.New("codec: records cannot be encoded")
)

func (l Limits) withDefaults() Limits {
	if l.Records <= 0 || l.Records > MaxRecords {
		l.Records = MaxRecords
	}
	if l.Bytes <= 0 || l.Bytes > MaxBytes {
		l.Bytes = MaxBytes
	}
	return l
}

func corrupt(what string) error { return fmt.Errorf("%w: %s", ErrCorrupt, what) }
