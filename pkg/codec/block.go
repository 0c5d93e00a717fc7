package codec

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"sync"

	"github.com/packetboat/packetboat/pkg/stream"
)

// learnFrom is from how many records on a block is encoded by the learning
// codec. A session learns little from a few: a block of ten takes a twelfth of a
// millisecond, as rows a hundredth, and half the bytes (BenchmarkBlock), of which
// a hub's disk has enough.
const learnFrom = 32

// AppendBlock appends a self-contained block of recs to dst: it names its codec
// and holds the records' numbers, which must ascend from 1 or more and may have
// holes. After an error, which wraps ErrInvalid, dst is as it was. It may be
// called concurrently.
func AppendBlock(dst []byte, recs []stream.Record) ([]byte, error) {
	if len(recs) == 0 || recs[0].Seq == 0 {
		return dst, fmt.Errorf("%w: a block of %d records, from number 1", ErrInvalid, len(recs))
	}
	at := len(dst)
	id := Learning
	if len(recs) < learnFrom {
		id = Rows
	}
	b := append(dst, byte(id))
	b = binary.AppendUvarint(b, uint64(len(recs)))
	b = binary.AppendUvarint(b, recs[0].Seq)
	holes := 0
	for i := 1; i < len(recs); i++ {
		if recs[i].Seq <= recs[i-1].Seq {
			return dst, fmt.Errorf("%w: number %d after %d", ErrInvalid, recs[i].Seq, recs[i-1].Seq)
		}
		if recs[i].Seq != recs[i-1].Seq+1 {
			holes++
		}
	}
	if recs[len(recs)-1].Seq == ^uint64(0) {
		return dst, fmt.Errorf("%w: the number %d", ErrInvalid, ^uint64(0))
	}
	b = binary.AppendUvarint(b, uint64(holes))
	run := 0 // the record that begins the run
	for i := 1; holes > 0 && i < len(recs); i++ {
		if skipped := recs[i].Seq - recs[i-1].Seq - 1; skipped > 0 {
			b = binary.AppendUvarint(b, uint64(i-run))
			b = binary.AppendUvarint(b, skipped)
			run = i
		}
	}
	b, err := appendAlone(b, id, recs, crc32.Checksum(b[at:], castagnoli))
	if err != nil {
		return dst, err
	}
	return b, nil
}

// appendAlone appends a body that stands for itself.
func appendAlone(dst []byte, id ID, recs []stream.Record, seed uint32) ([]byte, error) {
	if id == Rows {
		return AppendRows(dst, recs, seed)
	}
	e := encoders.Get().(*Encoder)
	defer encoders.Put(e)
	e.Reset()
	dst, err := e.append(dst, recs, seed)
	e.s.state, e.s.names, e.s.texts = nil, nil, nil // the scratch is what the pool is for
	return dst, err
}

// DecodeBlock reads what AppendBlock wrote. The records' memory is the
// caller's; it does not alias block. Errors wrap ErrCorrupt or ErrTooLarge.
func DecodeBlock(block []byte, limits Limits) ([]stream.Record, error) {
	limits = limits.withDefaults()
	c := cursor{b: block}
	id := ID(c.byte())
	if id != Rows && id != Learning {
		return nil, fmt.Errorf("%w: encoded by %s, which is not known here", ErrCorrupt, id)
	}
	count, first, holes := c.uvarint(), c.uvarint(), c.uvarint()
	if c.bad || count == 0 || first == 0 || holes >= count {
		return nil, corrupt("the head of a block")
	}
	if count > uint64(limits.Records) {
		return nil, fmt.Errorf("%w: %d records, %d allowed", ErrTooLarge, count, limits.Records)
	}
	runs := c
	for range holes {
		c.uvarint()
		c.uvarint()
	}
	if c.bad {
		return nil, corrupt("the head of a block")
	}
	seed := crc32.Checksum(block[:len(block)-len(c.b)], castagnoli)
	// The check covers the head: what it says of holes can be believed after it.
	recs, err := decodeAlone(id, c.b, int(count), seed, limits)
	if err != nil {
		return nil, err
	}
	return recs, number(recs, first, holes, runs)
}

// decodeAlone decodes a body that stands for itself.
func decodeAlone(id ID, body []byte, count int, seed uint32, limits Limits) ([]stream.Record, error) {
	if id == Rows {
		return DecodeRows(body, 1, count, seed, limits)
	}
	d := decoders.Get().(*Decoder)
	d.Reset()
	recs, err := d.decode(body, 1, seed, limits, MaxBytes) // on our own disk nobody plays for memory
	d.Reset()
	decoders.Put(d)
	if err == nil && len(recs) != count {
		err = corrupt("the number of records")
	}
	return recs, err
}

// What coding blocks needs. They are sessions of one body.
var (
	encoders = sync.Pool{New: func() any { return NewEncoder(DefaultState) }}
	decoders = sync.Pool{New: func() any { return NewDecoder(DefaultState) }}
)

// number gives recs their numbers: runs from first on, with holes between.
func number(recs []stream.Record, first, holes uint64, runs cursor) error {
	seq, run, skip := first, uint64(0), uint64(0)
	for i := range recs {
		if run == 0 { // the run before has ended, or there was none
			if skip >= ^uint64(0)-seq {
				return corrupt("the numbers overflow")
			}
			seq += skip
			run, skip = ^uint64(0), 0
			if holes > 0 {
				run, skip = runs.uvarint(), runs.uvarint()
				holes--
				if run == 0 || skip == 0 {
					return corrupt("a hole of nothing")
				}
			}
		}
		if seq == ^uint64(0) {
			return corrupt("the numbers overflow")
		}
		recs[i].Seq = seq
		seq++
		run--
	}
	if holes > 0 || skip > 0 {
		return corrupt("a hole behind the records")
	}
	return nil
}
