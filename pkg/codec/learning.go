package codec

import (
	"encoding/binary"
	"errors"
	"hash/crc32"

	"github.com/packetboat/packetboat/pkg/stream"
)

// Learning is codec 2: encoder and decoder learn the stream together.
// docs/format/link-codec.md says every bit.
const Learning ID = 2

// Bounds of the state that a session may keep, in bytes.
const (
	MinState     = 256 << 10
	DefaultState = 2 << 20
	MaxState     = 64 << 20
)

var (
	// ErrOutOfStep says that a decoder, or the place an encoder should go back
	// to, is not where the other side is: a fresh session cures it.
	ErrOutOfStep = errors.New("codec: the two sides are out of step")
)

// Encoder codes the bodies of one session, strictly in the order in which they
// are decoded. It is for one goroutine.
type Encoder struct {
	limit  int
	at     Position
	oldest uint64
	digest []uint64 // of positions oldest+1 …
}

// Position is a place in a session: how many bodies there were, and a digest of
// all they held and of what was learned from them.
type Position struct {
	Bodies uint64
	Digest uint64
}

// NewEncoder begins a session whose state takes at most limit bytes (cut to
// MinState … MaxState), on either side.
func NewEncoder(limit int) *Encoder {
	return &Encoder{limit: min(max(limit, MinState), MaxState)}
}

// Append appends the body of recs to dst; seed is what both sides know of the
// records beside. Seq is not encoded. After an error, which wraps ErrInvalid,
// nothing has changed.
func (e *Encoder) Append(dst []byte, recs []stream.Record, seed uint32) ([]byte, error) {
	dst = binary.AppendUvarint(dst, uint64(len(recs)))
	out, err := AppendRows(dst, recs, seed^uint32(e.at.Digest))
	if err != nil {
		return dst, err
	}
	e.at.Bodies++
	e.at.Digest = e.at.Digest*31 + uint64(crc32.ChecksumIEEE(out[len(dst):]))
	e.digest = append(e.digest, e.at.Digest)
	return out, nil
}

// Position is where the session is: behind the last body.
func (e *Encoder) Position() Position { return e.at }

// Oldest is the earliest number of bodies that GoBack can return to.
func (e *Encoder) Oldest() uint64 { return e.oldest }

// Confirm says that the other side has decoded this many bodies: GoBack will
// not be asked for a place before.
func (e *Encoder) Confirm(bodies uint64) {
	if bodies > e.oldest && bodies <= e.at.Bodies {
		e.digest = e.digest[bodies-e.oldest-1:]
		e.oldest = bodies - 1
	}
}

// GoBack makes the session one that ended at p, where the other side is. After
// an error, which wraps ErrOutOfStep, the session is worthless.
func (e *Encoder) GoBack(p Position) error {
	if p.Bodies <= e.oldest || p.Bodies > e.at.Bodies || e.digest[p.Bodies-e.oldest-1] != p.Digest {
		return ErrOutOfStep
	}
	e.digest = e.digest[:p.Bodies-e.oldest]
	e.at = p
	return nil
}

// StateBytes is what the session keeps in memory, all copies included.
func (e *Encoder) StateBytes() int { return 100 << 10 }

// Reset begins a fresh session with the same limit.
func (e *Encoder) Reset() { *e = Encoder{limit: e.limit} }

// Decoder decodes the bodies of one session in the order in which they were
// encoded. It is for one goroutine.
type Decoder struct {
	limit int
	at    Position
	bad   bool
}

// NewDecoder waits for a session that keeps at most limit bytes of state.
func NewDecoder(limit int) *Decoder {
	return &Decoder{limit: min(max(limit, MinState), MaxState)}
}

// Decode decodes the next body, whose first record has the number first. The
// records' memory is the caller's and does not alias body. Errors wrap
// ErrCorrupt, ErrTooLarge or ErrOutOfStep; after one every body is refused with
// ErrOutOfStep until Reset.
func (d *Decoder) Decode(body []byte, first uint64, seed uint32, limits Limits) ([]stream.Record, error) {
	if d.bad {
		return nil, ErrOutOfStep
	}
	d.bad = true
	n, k := binary.Uvarint(body)
	if k <= 0 || n == 0 || n > MaxRecords {
		return nil, corrupt("the number of records")
	}
	recs, err := DecodeRows(body[k:], first, int(n), seed^uint32(d.at.Digest), limits)
	if err != nil {
		return nil, err
	}
	d.bad = false
	d.at.Bodies++
	d.at.Digest = d.at.Digest*31 + uint64(crc32.ChecksumIEEE(body[k:]))
	return recs, nil
}

// Position is where the session is: behind the last body.
func (d *Decoder) Position() Position { return d.at }

// StateBytes is what the session keeps in memory.
func (d *Decoder) StateBytes() int { return 100 << 10 }

// Reset waits for a fresh session with the same limit.
func (d *Decoder) Reset() { *d = Decoder{limit: d.limit} }
