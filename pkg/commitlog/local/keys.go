package local

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"github.com/packetboat/packetboat/pkg/stream"
)

// The keys; docs/format/log.md describes them.
const (
	kindMeta     = 'm'
	kindShard    = 's'
	kindBlock    = 'b'
	kindIndex    = 'x'
	kindDevice   = 'd'
	kindCoverage = 'c'
)

var (
	keyFormat = []byte("mformat")
	keyLog    = []byte("mlog")
	keyMarker = []byte("mmarker")
)

func shardKey(shard int) []byte { return appendShard(nil, kindShard, shard) }

func appendShard(dst []byte, kind byte, shard int) []byte {
	return binary.BigEndian.AppendUint16(append(dst, kind), uint16(shard))
}

// indexKey is the key of a block's index.
func indexKey(shard int, offset int64) []byte {
	return binary.BigEndian.AppendUint64(appendShard(nil, kindIndex, shard), uint64(offset))
}

func blockKey(shard int, offset int64, part int) []byte {
	k := binary.BigEndian.AppendUint64(appendShard(nil, kindBlock, shard), uint64(offset))
	return binary.BigEndian.AppendUint16(k, uint16(part))
}

func deviceKey(device string, offset int64) []byte {
	return binary.BigEndian.AppendUint64(namePrefix(kindDevice, device), uint64(offset))
}

// namePrefix is what all keys of a device begin with: its name, which holds no
// zero byte, and one.
func namePrefix(kind byte, device string) []byte {
	k := make([]byte, 0, len(device)+18)
	return append(append(append(k, kind), device...), 0)
}

// coverageKey is the key of an epoch; the head of the device has the bare prefix.
func coverageKey(device string, epoch stream.Epoch) []byte {
	return append(namePrefix(kindCoverage, device), epoch[:]...)
}

// offsetOf is the offset at the end of an index or device key.
func offsetOf(key []byte) int64 {
	if len(key) < 8 {
		return -1
	}
	return int64(binary.BigEndian.Uint64(key[len(key)-8:]))
}

const (
	// formatVersion 2 may have blocks of the learning codec; otherwise it is 1.
	formatVersion = 2
	valueVersion  = 1
)

// logMeta is the value of keyLog.
type logMeta struct {
	Name        stream.Epoch `json:"name"`
	Incarnation stream.Epoch `json:"incarnation"`
	Shards      int          `json:"shards"`
	Created     time.Time    `json:"created"`
}

func (m *logMeta) id() stream.LogID { return stream.LogID{Name: m.Name, Incarnation: m.Incarnation} }

func (m *logMeta) encode() ([]byte, error) { return json.Marshal(m) }

// shardState is the value of a shard's key.
type shardState struct {
	floor, next int64
	bytes       int64 // sum of the block indexes
	acquired    uint64
	expired     int64
}

func (s *shardState) encode() []byte {
	b := []byte{valueVersion}
	b = binary.AppendUvarint(b, uint64(s.floor))
	b = binary.AppendUvarint(b, uint64(s.next))
	b = binary.AppendUvarint(b, uint64(s.bytes))
	b = binary.AppendUvarint(b, s.acquired)
	return binary.AppendUvarint(b, uint64(s.expired))
}

func decodeShardState(b []byte) (s shardState, err error) {
	r := values{b: b}
	r.version()
	s.floor, s.next, s.bytes = int64(r.uint()), int64(r.uint()), int64(r.uint())
	s.acquired, s.expired = r.uint(), int64(r.uint())
	if err := r.end(); err != nil {
		return s, fmt.Errorf("read the state of a shard: %w", err)
	}
	if s.floor < 0 || s.next < s.floor || s.bytes < 0 {
		return s, fmt.Errorf("read the state of a shard: %w: from %d to %d", ErrDamaged, s.floor, s.next)
	}
	return s, nil
}

// span is a range of times, both ends included.
type span struct{ first, last int64 }

func (s *span) add(t int64) { s.first, s.last = min(s.first, t), max(s.last, t) }

func (s span) append(b []byte) []byte {
	b = binary.AppendVarint(b, s.first)
	return binary.AppendUvarint(b, uint64(s.last)-uint64(s.first))
}

// blockIndex is the value of an index key.
type blockIndex struct {
	count    int
	at       span
	received int64
	bytes    int64
	parts    int
}

func (x *blockIndex) encode() []byte {
	b := binary.AppendUvarint([]byte{valueVersion}, uint64(x.count))
	b = binary.AppendVarint(x.at.append(b), x.received)
	b = binary.AppendUvarint(b, uint64(x.bytes))
	return binary.AppendUvarint(b, uint64(x.parts))
}

func decodeIndex(b []byte) (x blockIndex, err error) {
	r := values{b: b}
	r.version()
	count := r.uint()
	x.at = r.span()
	x.received = r.int()
	bytes, parts := r.uint(), r.uint()
	if err := r.end(); err != nil {
		return x, fmt.Errorf("read a block index: %w", err)
	}
	if count == 0 || count > maxBlockRecords || parts == 0 || parts > 1<<16 || bytes > parts*maxPart {
		return x, fmt.Errorf("read a block index: %w: %d records, %d bytes in %d parts", ErrDamaged, count, bytes, parts)
	}
	x.count, x.bytes, x.parts = int(count), int64(bytes), int(parts)
	return x, nil
}

// encodeTimes and decodeTimes are for the value of a device key.
func encodeTimes(s span) []byte { return s.append([]byte{valueVersion}) }

func decodeTimes(b []byte) (span, error) {
	r := values{b: b}
	r.version()
	s := r.span()
	if err := r.end(); err != nil {
		return s, fmt.Errorf("read a device index: %w", err)
	}
	return s, nil
}

// values takes values off the front of b; the first error stays.
type values struct {
	b   []byte
	err error
}

func (r *values) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
	}
	r.b = nil
}

func (r *values) version() {
	if v := r.take(1); r.err == nil && v[0] != valueVersion {
		r.fail("version %d of a value", v[0])
	}
}

func (r *values) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.fail("a value ends early")
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *values) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail("a value ends early")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *values) int() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail("a value ends early")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *values) span() (s span) {
	s.first = r.int()
	s.last = int64(uint64(s.first) + r.uint())
	if r.err == nil && s.last < s.first {
		r.fail("times run backwards")
	}
	return s
}

func (r *values) end() error {
	if r.err == nil && len(r.b) > 0 {
		r.fail("%d bytes too many in a value", len(r.b))
	}
	return r.err
}
