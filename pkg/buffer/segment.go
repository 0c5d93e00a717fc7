package buffer

import (
	"cmp"
	"slices"

	"github.com/packetboat/packetboat/pkg/stream"
)

// segment is one journal file. Guarded by Buffer.mu, but for what says otherwise.
type segment struct {
	id   uint32 // immutable, like file and size
	file file
	size int64

	// generation and salt are 0 while the segment was never used. They change
	// only while it is free, under commitMu.
	generation, salt uint64
	// end is where the frames that count end: synced and not given up.
	end int64
	// suspect: a write or sync failed here; it is never used again.
	suspect bool
	held    []*holding
	kept    kept // entries of the map
	// due is when the first record may have expired, by Moment.Mono: 0: it is not
	// known; neverDue: none expires.
	due int64
	// failures counts reads that the disk refused.
	failures int
}

// holding is what a segment stores of a stream.
type holding struct {
	epoch  stream.Epoch
	lane   stream.Lane
	ranges stream.RangeSet
	// records and bytes (encoded) are of all in ranges; from and to bound their
	// times.
	records, bytes uint64
	from, to       int64
}

// group is a run of one stream's records in a frame.
type group struct {
	epoch    stream.Epoch
	lane     stream.Lane
	moved    bool
	first    uint64
	count    uint64
	from, to int64
	bytes    uint64
	expires  bool  // some records do
	due      int64 // not on disk: the first of them
}

func (g *group) span() stream.Range {
	return stream.Range{First: g.first, Last: g.first + g.count - 1}
}

func (seg *segment) holding(id stream.Epoch, lane stream.Lane) *holding {
	for _, h := range seg.held {
		if h.lane == lane && h.epoch == id {
			return h
		}
	}
	return nil
}

// store notes that g stands in the segment.
func (seg *segment) store(g *group) {
	h := seg.holding(g.epoch, g.lane)
	if h == nil {
		h = &holding{epoch: g.epoch, lane: g.lane, from: g.from, to: g.to}
		seg.held = append(seg.held, h)
	}
	h.ranges.Add(g.span())
	h.records += g.count
	h.bytes += g.bytes
	h.from, h.to = min(h.from, g.from), max(h.to, g.to)
	if g.expires {
		seg.due = min(seg.due, g.due)
	}
}

// release notes that the numbers of r stand elsewhere now.
func (seg *segment) release(id stream.Epoch, lane stream.Lane, r stream.Range) {
	h := seg.holding(id, lane)
	if h == nil || !h.ranges.Overlaps(r) {
		return
	}
	before := h.ranges.Count()
	h.ranges.Remove(r)
	h.shrink(before, h.ranges.Count())
	if h.ranges.IsEmpty() {
		seg.held = slices.DeleteFunc(seg.held, func(x *holding) bool { return x == h })
	}
}

func (h *holding) shrink(before, after uint64) {
	h.bytes = h.share(h.bytes, after, before)
	h.records = after
}

// share is n × part/whole.
func (h *holding) share(n, part, whole uint64) uint64 {
	if whole == 0 {
		return 0
	}
	return uint64(float64(n) * (float64(part) / float64(whole)))
}

// live lists the numbers of h that are queued.
func (h *holding) live(s *state) (out stream.RangeSet) {
	l := s.stream(h.epoch, h.lane)
	if l == nil {
		return out
	}
	for _, r := range h.ranges.Ranges() {
		for m := range l.done.Missing(r) {
			out.Add(m)
		}
	}
	return out
}

// alive reports whether any number of h is queued.
func (h *holding) alive(s *state) bool {
	l := s.stream(h.epoch, h.lane)
	if l == nil {
		return false
	}
	for _, r := range h.ranges.Ranges() {
		if !l.done.ContainsRange(r) {
			return true
		}
	}
	return false
}

// tidy drops the holdings of which nothing is queued. It reports whether any
// is left, or any entry of the map.
func (seg *segment) tidy(s *state) bool {
	seg.held = slices.DeleteFunc(seg.held, func(h *holding) bool { return !h.alive(s) })
	return len(seg.held) > 0 || seg.kept.live > 0
}

// liveBytes estimates the encoded size of what is queued in the segment, and of
// its entries.
func (seg *segment) liveBytes(s *state) (n uint64) {
	n = uint64(seg.kept.bytes)
	for _, h := range seg.held {
		live := h.live(s)
		n += h.share(h.bytes, live.Count(), h.records)
	}
	return n
}

// segments are all journal files. Guarded by Buffer.mu.
type segments struct {
	head  *segment   // takes the frames; nil: the last one failed
	live  []*segment // hold something queued, by generation
	free  []*segment // ready to be written, lowest generation first
	bytes int64      // of all files, those being made included
	next  uint32
}

func (ss *segments) addFree(seg *segment) {
	i, _ := slices.BinarySearchFunc(ss.free, seg.generation, func(x *segment, g uint64) int {
		return cmp.Compare(x.generation, g)
	})
	ss.free = slices.Insert(ss.free, i, seg)
}

func (ss *segments) addLive(seg *segment) {
	i, _ := slices.BinarySearchFunc(ss.live, seg.generation, func(x *segment, g uint64) int {
		return cmp.Compare(x.generation, g)
	})
	ss.live = slices.Insert(ss.live, i, seg)
}

// holds finds the segment that stores number n of a stream.
func (ss *segments) holds(id stream.Epoch, lane stream.Lane, n uint64) *segment {
	for _, seg := range ss.live {
		if h := seg.holding(id, lane); h != nil && h.ranges.Contains(n) {
			return seg
		}
	}
	if ss.head != nil {
		if h := ss.head.holding(id, lane); h != nil && h.ranges.Contains(n) {
			return ss.head
		}
	}
	return nil
}

// place notes that g stands in seg and nowhere else.
func (ss *segments) place(seg *segment, g *group, everywhere bool) {
	if everywhere {
		for _, other := range ss.live {
			if other != seg {
				other.release(g.epoch, g.lane, g.span())
			}
		}
		if ss.head != nil && ss.head != seg {
			ss.head.release(g.epoch, g.lane, g.span())
		}
		seg.release(g.epoch, g.lane, g.span())
	}
	seg.store(g)
}
