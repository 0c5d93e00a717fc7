package buffer

import (
	"fmt"
	"hash/crc32"
	"math/bits"
	"strings"

	"github.com/packetboat/packetboat/pkg/stream"
)

// The map's arithmetic. Each entry counts entryCharge beside its key and value:
// its place in memory, what frames it on flash and its bit in a snapshot.
const (
	entryCharge   = 64
	entryOverhead = 8 // on flash, beside key and value, at most
	// stateSegments × SegmentBytes bounds the map, so that the bits of all slots
	// fit a snapshot.
	stateSegments = 16
	// maxPageRuns bounds how finely a segment knows where its entries stand.
	maxPageRuns = 64
)

// stateSpan is how many segments a map of n bytes may need: condensing keeps
// segments of nothing but entries live above two fifths.
func stateSpan(n, segment int64) int { return int((5*n + 2*segment - 1) / (2 * segment)) }

// MaxStateBytes bounds Options.MaxState, however large the journal is.
const MaxStateBytes = 64 << 20

// MaxState is the largest Options.MaxState for a journal of maxBytes in segments
// of the size that Open chooses; 0 or less: such a journal is too small.
func MaxState(maxBytes int64) int64 {
	segment := chosenSegment(maxBytes)
	return maxState(maxBytes/segment, segment)
}

// maxState is the largest map that n segments can hold beside a head, what is
// kept back, and two for messages.
func maxState(n, segment int64) int64 {
	return min((n-minSegments+1)*segment*2/5, stateSegments*segment, MaxStateBytes)
}

// keyPlace is where the newest value of a key stands.
type keyPlace struct {
	seg  *segment
	slot uint32
	size uint32 // of the value
}

// keyMap is the index of the map: all that is synced. Guarded by Buffer.mu.
type keyMap struct {
	index map[string]keyPlace
	bytes int64 // charged
	max   int64
	// ahead holds the keys that waiting Writes change, with what they will
	// count; projected is bytes after all of them.
	ahead     map[string]projected
	projected int64
	// emptied: a segment may have lost its last entry.
	emptied bool
}

type projected struct {
	charge  int64
	waiting int
}

func charge(key string, value int) int64 { return int64(len(key)) + int64(value) + entryCharge }

func (k *keyMap) charged(key string) int64 {
	if p, ok := k.index[key]; ok {
		return charge(key, int(p.size))
	}
	return 0
}

// reserve counts what entries will change, or returns ErrStateFull.
func (k *keyMap) reserve(entries []Entry) error {
	before := k.projected
	var small [8]int64
	was := small[:0]
	for i := range entries {
		e := &entries[i]
		p, ok := k.ahead[e.Key]
		if !ok {
			p.charge = k.charged(e.Key)
		}
		was = append(was, p.charge)
		k.projected -= p.charge
		if p.charge = 0; e.Value != nil {
			p.charge = charge(e.Key, len(e.Value))
		}
		k.projected += p.charge
		p.waiting++
		k.ahead[e.Key] = p
	}
	if k.projected <= k.max || k.projected <= before {
		return nil
	}
	wanted := k.projected
	for i := len(entries) - 1; i >= 0; i-- {
		p := k.ahead[entries[i].Key]
		p.charge = was[i]
		if p.waiting--; p.waiting == 0 {
			delete(k.ahead, entries[i].Key)
		} else {
			k.ahead[entries[i].Key] = p
		}
	}
	k.projected = before
	return fmt.Errorf("%w: %d bytes, %d may be", ErrStateFull, wanted, k.max)
}

// arrived notes that a change of key which was reserved is synced, or refused.
func (k *keyMap) arrived(key string) {
	p := k.ahead[key]
	if p.waiting--; p.waiting > 0 {
		k.ahead[key] = p
		return
	}
	k.projected += k.charged(key) - p.charge
	delete(k.ahead, key)
}

// put says that the newest value of key stands in slot of seg.
func (k *keyMap) put(seg *segment, slot uint32, key string, size int) {
	k.remove(key)
	k.index[key] = keyPlace{seg, slot, uint32(size)}
	k.bytes += charge(key, size)
	seg.kept.set(slot, int64(len(key)+size+entryOverhead))
}

// remove takes key out of the map, if it is there.
func (k *keyMap) remove(key string) {
	p, ok := k.index[key]
	if !ok {
		return
	}
	delete(k.index, key)
	k.bytes -= charge(key, int(p.size))
	p.seg.kept.clear(p.slot, int64(len(key))+int64(p.size)+entryOverhead)
	k.emptied = k.emptied || p.seg.kept.live == 0
}

// lose drops every key for which gone says so. It returns how many.
func (k *keyMap) lose(gone func(key string, p keyPlace) bool) (n uint64) {
	for key, p := range k.index {
		if gone(key, p) {
			k.remove(key)
			n++
		}
	}
	k.settleProjection()
	return n
}

// settleProjection brings projected in line after keys went that no Write named.
func (k *keyMap) settleProjection() {
	k.projected = k.bytes
	for key, p := range k.ahead {
		k.projected += p.charge - k.charged(key)
	}
}

// kept is what a segment stores of the map. Each put that was written to it has
// a slot, counted from 0; a slot is live while it is the newest of its key.
type kept struct {
	slots uint32
	bits  []uint64 // of live slots
	live  int
	bytes int64 // of live slots, on flash
	pages stream.RangeSet
}

func (k *kept) set(slot uint32, bytes int64) {
	for int(slot/64) >= len(k.bits) {
		k.bits = append(k.bits, 0)
	}
	k.bits[slot/64] |= 1 << (slot % 64)
	k.slots = max(k.slots, slot+1)
	k.live++
	k.bytes += bytes
}

func (k *kept) clear(slot uint32, bytes int64) {
	if k.has(slot) {
		k.bits[slot/64] &^= 1 << (slot % 64)
		k.live--
		k.bytes -= bytes
	}
}

func (k *kept) has(slot uint32) bool {
	return int(slot/64) < len(k.bits) && k.bits[slot/64]>>(slot%64)&1 == 1
}

func (k *kept) count() (n int) {
	for _, w := range k.bits {
		n += bits.OnesCount64(w)
	}
	return n
}

// note says that the frame from off to next holds entries.
func (k *kept) note(off, next int64) {
	k.pages.Add(stream.Range{First: uint64(off / pageSize), Last: uint64(next/pageSize) - 1})
	if r := k.pages.Ranges(); len(r) > maxPageRuns {
		k.pages = stream.NewRangeSet(stream.Range{First: r[0].First, Last: r[len(r)-1].Last})
	}
}

// change is one entry on its way: put, or removed with a size of -1.
type change struct {
	key  string
	size int
}

// The kinds of change on disk.
const (
	changeRemove = 0
	changePut    = 1
	changeMoved  = 2
)

func appendChange(p []byte, kind byte, key string, value []byte) []byte {
	p = append(p, kind)
	p = appendText(p, key)
	if kind != changeRemove {
		p = appendText(p, value)
	}
	return p
}

// changeLen bounds the encoded size of e.
func changeLen(e *Entry) int { return len(e.Key) + len(e.Value) + entryOverhead + 1 }

// change reads one; the slices are not copied.
func (r *reader) change() (kind byte, key, value []byte) {
	kind = r.byte()
	key = r.bytes()
	if kind != changeRemove {
		value = r.bytes()
	}
	if kind > changeMoved {
		r.fail()
	}
	return kind, key, value
}

func keyHash[T string | []byte](key T) uint32 { return crc32.Checksum([]byte(key), castagnoli) }

// changed takes e into the chunk.
func (c *chunk) changed(e *Entry) {
	ch := change{key: strings.Clone(e.Key), size: len(e.Value)}
	kind := byte(changePut)
	if e.Value == nil {
		kind, ch.size = changeRemove, -1
	}
	c.state = appendChange(c.state, kind, e.Key, e.Value)
	c.changes = append(c.changes, ch)
}

// applyChanges makes the chunk's entries part of the map, which are synced in
// seg. Under mu.
func (b *Buffer) applyChanges(seg *segment, c *chunk) {
	if len(c.changes) == 0 {
		return
	}
	slot := c.slot
	for i := range c.changes {
		ch := &c.changes[i]
		if ch.size >= 0 {
			b.keys.put(seg, slot, ch.key, ch.size)
			slot++
		} else {
			b.keys.remove(ch.key)
		}
		b.keys.arrived(ch.key)
	}
	seg.kept.note(c.off, c.next)
	b.suspectEmptied()
}

func (b *Buffer) suspectEmptied() {
	if b.keys.emptied {
		b.keys.emptied, b.suspectDead = false, true
	}
}

// forget gives up the room that the entries of a refused chunk, or of a part of
// it, had reserved. Under mu.
func (b *Buffer) forget(changes []change) {
	for i := range changes {
		b.keys.arrived(changes[i].key)
	}
}
