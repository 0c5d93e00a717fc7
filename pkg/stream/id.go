package stream

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
)

// Lane is a class of service. The zero value is not a lane.
type Lane uint8

// The lanes, highest first. The numbers stand on disk and on the link.
const (
	Urgent Lane = 1
	Normal Lane = 2
	Bulk   Lane = 3
)

// Lanes lists every lane, highest first.
var Lanes = [...]Lane{Urgent, Normal, Bulk}

// Valid reports whether l is one of Lanes.
func (l Lane) Valid() bool { return l >= Urgent && l <= Bulk }

func (l Lane) String() string {
	switch l {
	case Urgent:
		return "urgent"
	case Normal:
		return "normal"
	case Bulk:
		return "bulk"
	}
	return fmt.Sprintf("lane(%d)", uint8(l))
}

// MarshalText writes the lane's name.
func (l Lane) MarshalText() ([]byte, error) {
	if !l.Valid() {
		return nil, fmt.Errorf("stream: %s is not a lane", l)
	}
	return []byte(l.String()), nil
}

// UnmarshalText reads a lane's name.
func (l *Lane) UnmarshalText(b []byte) (err error) {
	*l, err = ParseLane(string(b))
	return err
}

// ParseLane reads "urgent", "normal" or "bulk".
func ParseLane(s string) (Lane, error) {
	for _, l := range Lanes {
		if l.String() == s {
			return l, nil
		}
	}
	return 0, fmt.Errorf("%q is not a lane: use urgent, normal or bulk", s)
}

// Epoch names one life of an edge's buffer: 128 random bits. Epochs have no
// order among themselves. The zero Epoch names none.
type Epoch [16]byte

// NewEpoch draws an epoch id.
func NewEpoch() (e Epoch) {
	_, _ = rand.Read(e[:]) // crypto/rand.Read never fails
	return e
}

// IsZero reports whether e names no epoch.
func (e Epoch) IsZero() bool { return e == Epoch{} }

// String gives 32 lower-case hexadecimal digits.
func (e Epoch) String() string { return hex.EncodeToString(e[:]) }

// MarshalText writes what String gives.
func (e Epoch) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// UnmarshalText reads 32 hexadecimal digits.
func (e *Epoch) UnmarshalText(b []byte) (err error) {
	*e, err = ParseEpoch(string(b))
	return err
}

// ParseEpoch reads 32 hexadecimal digits.
func ParseEpoch(s string) (e Epoch, err error) {
	if len(s) != 2*len(e) {
		return e, fmt.Errorf("%.40q is not an epoch: want 32 hexadecimal digits", s)
	}
	if _, err := hex.Decode(e[:], []byte(s)); err != nil {
		return e, fmt.Errorf("%q is not an epoch: want 32 hexadecimal digits", s)
	}
	return e, nil
}

// ID names a stream. An edge, which is only one device, leaves Device empty.
type ID struct {
	Device string
	Epoch  Epoch
	Lane   Lane
}

func (id ID) String() string {
	return fmt.Sprintf("%s/%s/%s", id.Device, id.Epoch, id.Lane)
}

// Position is a place in a stream. Seq counts from 1.
type Position struct {
	ID  ID
	Seq uint64
}

// MaxDeviceID is the longest device id in bytes.
const MaxDeviceID = 64

// ErrDeviceID says what a device id looks like.
var ErrDeviceID = errors.New("a device id is 1 to 64 of the characters A-Z a-z 0-9 . _ -, and not a path (. or ..)")

// CheckDeviceID returns ErrDeviceID, wrapped with the id, unless s is one.
func CheckDeviceID(s string) error {
	ok := len(s) >= 1 && len(s) <= MaxDeviceID && s != "." && s != ".."
	for i := 0; ok && i < len(s); i++ {
		c := s[i]
		ok = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-'
	}
	if !ok {
		return fmt.Errorf("%.80q: %w", s, ErrDeviceID)
	}
	return nil
}

// LogID names a commit log and which life of it: a log that was restored from
// a backup has the same Name and another Incarnation; a new one has another
// Name. The zero LogID names none.
type LogID struct {
	Name        Epoch
	Incarnation Epoch
}

// IsZero reports whether l names no log.
func (l LogID) IsZero() bool { return l == LogID{} }

// String gives "<name>.<incarnation>".
func (l LogID) String() string { return l.Name.String() + "." + l.Incarnation.String() }

// ParseLogID reads what String gives.
func ParseLogID(s string) (l LogID, err error) {
	if len(s) != 65 || s[32] != '.' {
		return l, fmt.Errorf("%.80q is not a log id: want <name>.<incarnation>, 32 hexadecimal digits each", s)
	}
	if l.Name, err = ParseEpoch(s[:32]); err != nil {
		return l, err
	}
	l.Incarnation, err = ParseEpoch(s[33:])
	return l, err
}
