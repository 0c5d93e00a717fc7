package buffer

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"

	"github.com/packetboat/packetboat/pkg/stream"
)

// What stands on disk; docs/format/journal.md explains it.
const (
	pageSize      = 4096
	formatVersion = 2
	segmentMagic  = "PBJRNL\r\n"
	frameMagic    = "PBFR"
	headerBytes   = 64
	frameHeader   = 56
	kindSnapshot  = 1
	kindData      = 2
	groupMoved    = 1
	groupExpires  = 2
	maxFrameBytes = 512 << 10
	groupReserve  = 512 // room that the groups of a collected frame need at most
	lockName      = "LOCK"
	segmentSuffix = ".seg"
	tempSuffix    = ".tmp"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var zeroPage [pageSize]byte

func roundUp(n int64) int64 { return (n + pageSize - 1) &^ (pageSize - 1) }

// frameLimit is how large a data frame may be in a segment of the given size.
func frameLimit(segment int64) int { return int(min(segment/4, maxFrameBytes)) }

func segmentName(id uint32) string { return fmt.Sprintf("%08x%s", id, segmentSuffix) }

func parseSegmentName(name string) (uint32, bool) {
	base, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(base) != 8 {
		return 0, false
	}
	id, err := strconv.ParseUint(base, 16, 32)
	return uint32(id), err == nil && segmentName(uint32(id)) == name
}

// segmentHeader is the first 64 bytes of a segment in use.
type segmentHeader struct {
	journal    stream.Epoch
	size       int64
	generation uint64
	salt       uint64
}

func (h *segmentHeader) encode(p []byte) {
	clear(p[:headerBytes])
	le := binary.LittleEndian
	copy(p, segmentMagic)
	le.PutUint16(p[8:], formatVersion)
	le.PutUint16(p[10:], headerBytes)
	le.PutUint32(p[12:], pageSize)
	copy(p[16:32], h.journal[:])
	le.PutUint64(p[32:], uint64(h.size))
	le.PutUint64(p[40:], h.generation)
	le.PutUint64(p[48:], h.salt)
	le.PutUint32(p[60:], crc32.Checksum(p[:60], castagnoli))
}

// decodeSegmentHeader reads the first page of a segment. ok is false for a
// segment that holds nothing; err is ErrVersion alone.
func decodeSegmentHeader(p []byte) (h segmentHeader, ok bool, err error) {
	le := binary.LittleEndian
	if len(p) < pageSize || string(p[:8]) != segmentMagic {
		return h, false, nil
	}
	version, n := le.Uint16(p[8:]), int(le.Uint16(p[10:]))
	if n < headerBytes || n > pageSize || le.Uint32(p[n-4:]) != crc32.Checksum(p[:n-4], castagnoli) {
		return h, false, nil
	}
	if version > formatVersion {
		return h, false, fmt.Errorf("%w: %d; this program writes %d: use the newer program, or another directory", ErrVersion, version, formatVersion)
	}
	h.size = int64(le.Uint64(p[32:]))
	h.generation, h.salt = le.Uint64(p[40:]), le.Uint64(p[48:])
	copy(h.journal[:], p[16:32])
	return h, version > 0 && n == headerBytes && le.Uint32(p[12:]) == pageSize && h.generation > 0, nil
}

// frameInfo is what a frame's header says, without what the segment says.
type frameInfo struct {
	index   uint32
	kind    byte
	records int // bytes of the record area
	base    int64
	// synced is how many frames of the segment were synced when this one was
	// built, plus 1; 0: not told (format 1, snapshots).
	synced uint32
}

// sealFrame pads p, a frame of length n with its body in place, to whole pages
// and writes its header.
func sealFrame(p []byte, seg *segment, f frameInfo) []byte {
	n := len(p)
	p = append(p, zeroPage[:roundUp(int64(n))-int64(n)]...)
	le := binary.LittleEndian
	clear(p[:frameHeader])
	copy(p, frameMagic)
	le.PutUint32(p[4:], uint32(n))
	le.PutUint64(p[8:], seg.generation)
	le.PutUint64(p[16:], seg.salt)
	le.PutUint32(p[24:], f.index)
	p[32] = f.kind
	le.PutUint32(p[36:], uint32(f.records))
	le.PutUint64(p[40:], uint64(f.base))
	le.PutUint32(p[48:], f.synced)
	le.PutUint32(p[52:], frameCRC(p[:n]))
	return p
}

func frameCRC(p []byte) uint32 {
	return crc32.Update(crc32.Checksum(p[:52], castagnoli), castagnoli, p[frameHeader:])
}

// frameLength reads the length from the first bytes of a frame of seg that
// starts at off; 0: this is none.
func frameLength(p []byte, seg *segment, off int64) int {
	le := binary.LittleEndian
	if len(p) < frameHeader || string(p[:4]) != frameMagic || le.Uint64(p[8:]) != seg.generation || le.Uint64(p[16:]) != seg.salt {
		return 0
	}
	n := int64(le.Uint32(p[4:]))
	if n < frameHeader || n > max(maxFrameBytes, seg.size/2) || off+roundUp(n) > seg.size {
		return 0
	}
	return int(n)
}

// parseFrame checks the CRC of p, a whole frame without padding.
func parseFrame(p []byte) (f frameInfo, ok bool) {
	le := binary.LittleEndian
	if le.Uint32(p[52:]) != frameCRC(p) {
		return f, false
	}
	f.index, f.kind = le.Uint32(p[24:]), p[32]
	records := le.Uint32(p[36:])
	f.base, f.synced = int64(le.Uint64(p[40:])), le.Uint32(p[48:])
	if uint64(records) > uint64(len(p)-frameHeader) {
		return f, false
	}
	f.records = int(records)
	return f, true
}
