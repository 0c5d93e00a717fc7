package codec

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/packetboat/packetboat/pkg/stream"
)

// A body is a check of 4 bytes, a form byte, and the columns in that form.
const (
	formPlain = 0
	formZstd  = 1 // a zstd frame without its magic number
	bodyHead  = 5
)

// magic begins every zstd frame; a body leaves it out.
const magic = "\x28\xb5\x2f\xfd"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// packer is what encoding a body needs. zstd's fastest level costs the least
// memory (some 300 kB) and, on batches of telemetry, few bytes: see the table
// that packetboat-sim bench-link prints.
type packer struct {
	columns *rowColumns
	plain   []byte
	zstd    *zstd.Encoder
}

var packers = sync.Pool{New: func() any {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false),
		zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(256<<10), zstd.WithSingleSegment(true))
	if err != nil {
		panic(err) // the options are constants
	}
	return &packer{columns: newRowColumns(), zstd: z}
}}

var unpackers = sync.Pool{New: func() any {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(uint64(plainLimit(Limits{Bytes: MaxBytes}, MaxRecords))))
	if err != nil {
		panic(err) // the options are constants
	}
	return z
}}

// keepPlain is the largest scratch buffer that a packer keeps.
const keepPlain = 256 << 10

// AppendRows appends the body of recs, 1 to MaxRecords of them, to dst. Their
// numbers are not in it. seed goes into the body's check: DecodeRows must be
// given the same. After an error, which wraps ErrInvalid, dst is as it was. It
// may be called concurrently.
func AppendRows(dst []byte, recs []stream.Record, seed uint32) ([]byte, error) {
	p := packers.Get().(*packer)
	defer packers.Put(p)
	plain, err := p.columns.append(p.plain[:0], recs)
	if err != nil {
		return dst, err
	}
	if cap(plain) <= keepPlain {
		p.plain = plain
	}
	at := len(dst)
	dst = binary.LittleEndian.AppendUint32(dst, crc32.Update(seed, castagnoli, plain))
	dst = append(dst, formZstd)
	// EncodeAll writes the magic number, which the form byte stands for.
	packed := p.zstd.EncodeAll(plain, dst)
	n := copy(packed[at+bodyHead:], packed[at+bodyHead+len(magic):])
	if n < len(plain) && len(plain) <= ratioLimit(n) {
		return packed[:at+bodyHead+n], nil
	}
	dst[len(dst)-1] = formPlain
	return append(dst, plain...), nil
}

// DecodeRows reads a body of count records, the first of which has the number
// first. The records' memory is the caller's; it does not alias body. Errors
// wrap ErrCorrupt or ErrTooLarge. It may be called concurrently.
func DecodeRows(body []byte, first uint64, count int, seed uint32, limits Limits) ([]stream.Record, error) {
	limits = limits.withDefaults()
	switch {
	case count < 1 || first == 0 || first > ^uint64(0)-uint64(count):
		return nil, fmt.Errorf("%w: %d records from number %d", ErrCorrupt, count, first)
	case count > limits.Records:
		return nil, fmt.Errorf("%w: %d records, %d allowed", ErrTooLarge, count, limits.Records)
	case len(body) < bodyHead:
		return nil, corrupt("shorter than its head")
	}
	plain, err := unpack(body[bodyHead-1], body[bodyHead:], plainLimit(limits, count))
	if err != nil {
		return nil, err
	}
	if crc32.Update(seed, castagnoli, plain) != binary.LittleEndian.Uint32(body) {
		return nil, corrupt("the check does not match")
	}
	d := rowDecoder{cursor: cursor{b: plain}, left: limits.Bytes}
	return d.decode(first, count)
}

// unpack gives the columns in memory of their own, at most limit bytes.
func unpack(form byte, b []byte, limit int) ([]byte, error) {
	switch form {
	case formPlain:
		if len(b) > limit {
			return nil, fmt.Errorf("%w: %d bytes of columns", ErrTooLarge, len(b))
		}
		return append([]byte(nil), b...), nil
	case formZstd:
		limit = min(limit, ratioLimit(len(b)))
	default:
		return nil, fmt.Errorf("%w: form %d", ErrCorrupt, form)
	}
	frame := append(make([]byte, 0, len(magic)+len(b)), magic...)
	frame = append(frame, b...)
	size, err := frameSize(frame)
	if err != nil {
		return nil, err
	}
	if size > uint64(limit) {
		return nil, fmt.Errorf("%w: %d bytes of columns in %d", ErrTooLarge, size, len(b))
	}
	z := unpackers.Get().(*zstd.Decoder)
	defer unpackers.Put(z)
	plain, err := z.DecodeAll(frame, make([]byte, 0, size))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if uint64(len(plain)) != size {
		return nil, corrupt("zstd gives another size than it says")
	}
	return plain, nil
}

// frameSize is the size of the content of a zstd frame, which must say it, and
// must be all there is: behind it a second one could hide any amount.
func frameSize(frame []byte) (uint64, error) {
	var h zstd.Header
	if err := h.Decode(frame); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if h.Skippable || !h.HasFCS || h.DictionaryID != 0 || h.HasCheckSum || !h.SingleSegment {
		return 0, corrupt("a zstd frame of a kind that is not used")
	}
	c := cursor{b: frame[h.HeaderSize:]}
	for last := false; !last; {
		x := c.bytes(3)
		if c.bad {
			return 0, corrupt("a zstd frame without end")
		}
		block := uint64(x[0]) | uint64(x[1])<<8 | uint64(x[2])<<16
		last = block&1 != 0
		switch block >> 1 & 3 {
		case 1: // one byte, repeated
			c.bytes(1)
		default:
			c.bytes(block >> 3)
		}
	}
	if c.bad || len(c.b) != 0 {
		return 0, corrupt("a zstd frame and more")
	}
	return h.FrameContentSize, nil
}
