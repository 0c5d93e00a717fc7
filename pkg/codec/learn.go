package codec

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/packetboat/packetboat/pkg/stream"
)

// Learning is codec 2: encoder and decoder learn the stream together.
// docs/format/link-codec.md says every bit.
const Learning ID = 2

// Bounds of the state that a session may keep, in bytes. A session is a little
// above its limit while a message is coded.
const (
	MinState     = 256 << 10
	DefaultState = 2 << 20
	MaxState     = 64 << 20
)

// ErrOutOfStep says that one side of a session is not where the other one is: a
// fresh session cures it.
var ErrOutOfStep = errors.New("codec: the two sides are out of step")

// Position is a place in a session: how many bodies there were, and a digest of
// what was in them and of what was learned from them.
type Position struct {
	Bodies uint64
	Digest uint64
}

const (
	version   = 1
	stateUnit = 64 << 10 // of the limit, as the first body says it
	checkSize = 4
)

// What comes out of a body is bounded by what went in: a small one becomes at
// most freeBytes, each further byte ratio more. Telemetry that is as foreseen
// stays below freeBytes, as batches do.
const (
	freeBytes = 2 << 20
	ratio     = 1000
)

func stateLimit(n int) int { return min(max(n, MinState), MaxState) / stateUnit * stateUnit }

// Encoder codes the bodies of one session, in the order in which they will be
// decoded. It is for one goroutine.
type Encoder struct {
	s     session
	limit int
	at    Position
	trail trail
}

// NewEncoder begins a session that keeps at most limit bytes of state on either
// side; limit is cut to MinState and MaxState.
func NewEncoder(limit int) *Encoder {
	e := &Encoder{limit: stateLimit(limit)}
	e.Reset()
	return e
}

// Reset begins a fresh session with the same limit.
func (e *Encoder) Reset() {
	e.at, e.trail = Position{}, trail{}
	e.s.begin(newState(e.limit), true)
}

// Append appends the body of recs to dst; seed is what both sides know of the
// records beside. Seq and Expiry are not encoded. After an error, which wraps
// ErrInvalid, nothing was appended; the session is as before, or a fresh one
// (Position tells) where the fault was found too late.
func (e *Encoder) Append(dst []byte, recs []stream.Record, seed uint32) ([]byte, error) {
	start := len(dst)
	dst, err := e.append(dst, recs, seed)
	if err == nil {
		e.trail.add(e, dst[start:], seed, len(recs))
	}
	return dst, err
}

func (e *Encoder) append(dst []byte, recs []stream.Record, seed uint32) ([]byte, error) {
	content, err := checkRecords(recs)
	if err != nil {
		return dst, err
	}
	start := len(dst)
	if e.at.Bodies == 0 {
		dst = binary.AppendUvarint(append(dst, version), uint64(e.limit/stateUnit))
	}
	s := &e.s
	body := len(dst)
	s.StartEncoding(dst)
	s.crc = seed
	s.batch(len(recs), s.unitOf(recs))
	for i := range recs {
		r := recs[i] // what a walk puts into the record is there already
		s.record(&r)
	}
	dst = s.Finish(body)
	if s.Bad { // never seen; the receiver would refuse it
		e.Reset()
		return dst[:start], fmt.Errorf("%w: %d records that come out as no body", ErrInvalid, len(recs))
	}
	for most := freeBytes + ratio*(len(dst)-start+checkSize); most < content; most += ratio {
		dst = append(dst, 0) // what the decoder reads behind the end in any case
	}
	e.at = e.at.after(s)
	s.trim()
	return binary.LittleEndian.AppendUint32(dst, uint32(e.at.Digest)), nil
}

// unitOf is the unit for the times of recs: the coarsest that holds them, but
// few records do not make it a coarser one.
func (s *state) unitOf(recs []stream.Record) int64 {
	unit := units[commonUnit(recs)]
	if unit > s.unit && len(recs) < 16 {
		return s.unit
	}
	return unit
}

// after is the position after the body that s has coded.
func (p Position) after(s *session) Position {
	x := p.Digest ^ uint64(s.crc)<<32 ^ uint64(s.Digest)
	// The finalizer of MurmurHash3 (Austin Appleby): every bit counts in every other.
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return Position{p.Bodies + 1, x ^ x>>33}
}

// Position is where the session is: behind the last body.
func (e *Encoder) Position() Position { return e.at }

// StateBytes is what the session keeps, with what GoBack needs.
func (e *Encoder) StateBytes() int { return e.s.used + e.trail.size() }

// begin makes the session go on from st.
func (s *session) begin(st *state, encoding bool) {
	s.state, s.names, s.texts = st, nil, nil
	if !encoding {
		return
	}
	s.names, s.texts = make(map[string]int32), make(map[string]int32)
	for _, t := range st.topics {
		if t != nil {
			s.names[t.name] = t.id
		}
	}
	for i, g := range st.templates {
		if g != nil {
			s.texts[string(g.text)] = int32(i)
		}
	}
}

// Decoder decodes the bodies of one session in the order in which they were
// encoded. It is for one goroutine.
type Decoder struct {
	s     session
	limit int
	at    Position
	size  int // of payloads, expected of the next body
	bad   bool
}

// NewDecoder waits for a session that keeps at most limit bytes of state, cut to
// MinState and MaxState.
func NewDecoder(limit int) *Decoder { return &Decoder{limit: stateLimit(limit)} }

// Reset waits for a fresh session with the same limit.
func (d *Decoder) Reset() {
	d.at, d.bad = Position{}, false
	d.s.state = nil
}

// Position is where the session is: behind the last body.
func (d *Decoder) Position() Position { return d.at }

// StateBytes is what the session keeps.
func (d *Decoder) StateBytes() int {
	if d.s.state == nil {
		return 0
	}
	return d.s.used
}

// Decode decodes the next body, whose first record has the number first. The
// records' memory is the caller's and does not alias body. Errors wrap
// ErrCorrupt, ErrTooLarge or ErrOutOfStep; after one every body is refused with
// ErrOutOfStep until Reset.
func (d *Decoder) Decode(body []byte, first uint64, seed uint32, limits Limits) ([]stream.Record, error) {
	return d.decode(body, first, seed, limits, freeBytes+ratio*min(len(body), MaxBytes/ratio))
}

func (d *Decoder) decode(body []byte, first uint64, seed uint32, limits Limits, most int) ([]stream.Record, error) {
	if d.bad {
		return nil, ErrOutOfStep
	}
	recs, err := d.records(body, first, seed, limits.withDefaults(), most)
	d.s.trim()
	if err != nil {
		d.Reset() // what is left of the state is worthless
		d.bad = true
	}
	return recs, err
}

func (d *Decoder) records(body []byte, first uint64, seed uint32, limits Limits, most int) ([]stream.Record, error) {
	if d.s.state == nil {
		n, k := binary.Uvarint(body[min(1, len(body)):])
		switch {
		case k <= 0:
			return nil, corrupt("the head of a session")
		case body[0] != version:
			return nil, fmt.Errorf("%w: version %d of the learning codec, which is not known here", ErrCorrupt, body[0])
		case n < MinState/stateUnit || n > uint64(d.limit/stateUnit):
			return nil, fmt.Errorf("%w: a session of %d x %d bytes of state, %d bytes allowed", ErrTooLarge, n, stateUnit, d.limit)
		}
		body = body[1+k:]
		d.s.begin(newState(int(n)*stateUnit), false)
	}
	end := len(body) - checkSize
	if end < 0 {
		return nil, corrupt("a body without its check")
	}
	s := &d.s
	most = min(most, limits.Bytes)
	s.StartDecoding(body[:end], 4*most+2*limits.Records)
	s.crc, s.out = seed, make([]byte, 0, min(d.size, most)) // as the body before
	n := s.batch(0, 0)
	switch {
	case s.Bad || n == 0:
		return nil, corrupt("the head of a body")
	case n > limits.Records:
		return nil, fmt.Errorf("%w: %d records, %d allowed", ErrTooLarge, n, limits.Records)
	}
	recs, err := s.records(n, first, most)
	if err != nil {
		return nil, err
	}
	at := d.at.after(s)
	if !s.Ended() || uint32(at.Digest) != binary.LittleEndian.Uint32(body[end:]) {
		return nil, corrupt("the check")
	}
	d.at, d.size = at, len(s.out)+len(s.out)/8
	s.out = nil
	return recs, nil
}

// records decodes n records of at most so many bytes of content.
func (s *session) records(n int, first uint64, most int) ([]stream.Record, error) {
	recs := make([]stream.Record, 0, min(n, 4096))
	s.left = most
	for i := range n {
		recs = append(recs, stream.Record{Seq: first + uint64(i)})
		r := &recs[i]
		if s.record(r); s.Bad {
			return nil, corrupt("a record")
		}
		if s.left -= contentSize(r); s.left < 0 {
			return nil, fmt.Errorf("%w: more content than allowed", ErrTooLarge)
		}
	}
	return recs, nil
}
