// Package receipts writes and reads the file in which a simulated sensor notes
// what it published and what was acknowledged to it.
//
// It promises that a file survives a killed writer (complete lines count, and
// the reader says that the end is missing), that reading needs memory for one
// line, and that a file that means something else is refused with its line. It
// judges nothing: that is what firmware-sim/prove does with it. The bytes are
// described in docs/format/receipts.md.
package receipts

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
)

// Version is the version of the format that this package writes. It reads
// version 1 as well, in which no receipt says its QoS.
const Version = 2

// MaxSent is how many connections, and how many sessions, a receipt lists at
// most.
const MaxSent = 64

// AtLeastOnce is the QoS of a receipt of format 1: it was 0 or 1.
const AtLeastOnce = 1

// Hash identifies a payload: the first eight bytes of its SHA-256.
type Hash uint64

// HashOf gives the hash of a payload.
func HashOf(payload []byte) Hash {
	sum := sha256.Sum256(payload)
	return Hash(binary.BigEndian.Uint64(sum[:]))
}

// String gives 16 hexadecimal digits.
func (h Hash) String() string { return fmt.Sprintf("%016x", uint64(h)) }

// MarshalText writes what String gives.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads 16 hexadecimal digits.
func (h *Hash) UnmarshalText(b []byte) error {
	var raw [8]byte
	if len(b) != 16 {
		return fmt.Errorf("%.40q is not a payload hash: want 16 hexadecimal digits", b)
	}
	if _, err := hex.Decode(raw[:], b); err != nil {
		return fmt.Errorf("%q is not a payload hash: want 16 hexadecimal digits", b)
	}
	*h = Hash(binary.BigEndian.Uint64(raw[:]))
	return nil
}

// Receipt is what a sensor knows of one message.
type Receipt struct {
	Client string `json:"client"`
	Topic  string `json:"topic"`
	// N counts the messages of Client to Topic in one run, from 1.
	N    uint64 `json:"n"`
	Hash Hash   `json:"hash"`
	// QoS is 0, 1 or 2.
	QoS byte `json:"qos"`
	// Tries is how often it was sent.
	Tries int `json:"tries"`
	// Acked says that it is the edge's: the last try was answered with PUBACK, or
	// one of them with PUBREC. A QoS 0 message never is.
	Acked bool `json:"acked"`
	// Sent are the numbers of the connections on which it was sent, ascending;
	// connections count from 1 per client and run. Of more than MaxSent tries
	// the first ones are left out.
	Sent []uint32 `json:"sent"`
	// Sessions are the numbers of the sessions in which a QoS 2 message was sent,
	// ascending, nil with another QoS; sessions count from 1 per client and run.
	// Of more than MaxSent the first ones are left out. Within a session it is one
	// message however often it was sent.
	Sessions []uint32 `json:"sessions,omitempty"`
}

// check refuses what no writer writes.
func (r *Receipt) check() error {
	switch {
	case r.Client == "" || r.Topic == "":
		return errors.New("a receipt without client or topic")
	case r.N == 0:
		return errors.New("a receipt without its number")
	case r.QoS > 2:
		return fmt.Errorf("QoS %d", r.QoS)
	case len(r.Sent) > MaxSent || len(r.Sent) != min(r.Tries, MaxSent):
		return fmt.Errorf("%d tries on %d connections", r.Tries, len(r.Sent))
	case r.QoS < 2 && len(r.Sessions) > 0 || len(r.Sessions) > len(r.Sent) || r.QoS == 2 && r.Tries > 0 && len(r.Sessions) == 0:
		return fmt.Errorf("%d tries with QoS %d in %d sessions", r.Tries, r.QoS, len(r.Sessions))
	case r.Acked && r.Tries == 0:
		return errors.New("acknowledged without having been sent")
	case r.Acked && r.QoS == 0:
		return errors.New("acknowledged with QoS 0")
	case !ascending(r.Sent):
		return fmt.Errorf("connections %v are not ascending", r.Sent)
	case !ascending(r.Sessions):
		return fmt.Errorf("sessions %v are not ascending", r.Sessions)
	}
	return nil
}

func ascending(numbers []uint32) bool {
	for i, n := range numbers {
		if n == 0 || i > 0 && n <= numbers[i-1] {
			return false
		}
	}
	return true
}

// header begins a run in a file, and end closes it.
type header struct {
	Format  int    `json:"packetboat_receipts"`
	Started string `json:"started"` // RFC 3339, for people
}

type end struct {
	End          bool  `json:"end"`
	Messages     int64 `json:"messages"`
	Acknowledged int64 `json:"acknowledged"`
}

// line is any line of a file.
type line struct {
	Format *int `json:"packetboat_receipts"`
	end
	Receipt
	QoS *byte `json:"qos"` // before Receipt's: nil says that there is none
}

// parse reads a line of a run in the given format.
func parse(b []byte, format int) (l line, err error) {
	if err := json.Unmarshal(b, &l); err != nil {
		return l, err
	}
	switch {
	case l.Format != nil && (*l.Format < 1 || *l.Format > Version):
		return l, fmt.Errorf("format %d; this program reads formats 1 to %d", *l.Format, Version)
	case l.Format != nil || l.End:
		return l, nil
	case format == 1 && (l.QoS != nil || l.Sessions != nil):
		return l, errors.New("a receipt of format 1 that says its QoS or sessions")
	case format == 1:
		l.Receipt.QoS = AtLeastOnce
	case l.QoS == nil:
		return l, errors.New("a receipt that does not say its QoS")
	default:
		l.Receipt.QoS = *l.QoS
	}
	return l, l.check()
}
