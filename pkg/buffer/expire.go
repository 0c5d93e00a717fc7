package buffer

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/packetboat/packetboat/pkg/stream"
)

const (
	microseconds = 1_000_000 // of a second
	neverDue     = math.MaxInt64
	// recheck is how long a segment is left alone in which something may expire
	// once the clock is known.
	recheck = 60 * microseconds
	// Every sweepEvery at most, one segment is looked through in which something
	// may have expired; if that takes long, less often: sweepShare is how many
	// times longer the pause is. So status and ledger tell what has expired also
	// while nobody asks for batches.
	sweepEvery = 2 * time.Second
	sweepShare = 50
)

// processClock reads the wall clock and believes it. The process counts as a
// boot of its own.
func processClock() func() stream.Moment {
	boot, start := stream.NewEpoch(), time.Now()
	return func() stream.Moment {
		now := time.Now()
		return stream.Moment{Time: now.UnixMicro(), Quality: stream.TimeLocal, Boot: boot, Mono: now.Sub(start).Microseconds() + 1}
	}
}

// remaining says how long a message that was accepted at the given moment has
// before it expires, in µs; 0 or less: it has expired. Within one boot that is
// told by the time since boot, whatever the wall clock did; else by the wall
// clock, if it was known both times. known is false where nobody can tell: such
// a message is kept.
func remaining(at, now stream.Moment, seconds uint32) (left int64, known bool) {
	age := int64(0)
	switch {
	case !at.Boot.IsZero() && at.Boot == now.Boot:
		age = now.Mono - at.Mono
	case at.Quality != stream.TimeUnknown && now.Quality != stream.TimeUnknown:
		age = now.Time - at.Time
		if age < 0 != (now.Time < at.Time) { // times from before the dinosaurs
			return 0, false
		}
	default:
		return 0, false
	}
	return int64(seconds)*microseconds - max(age, 0), true
}

// expiryLen is the encoded size of when m expires.
func expiryLen(m *stream.Message, at *stream.Moment) int {
	return uvarintLen(uint64(m.Expiry)) + 1 + varintLen(at.Time-m.Time) + len(at.Boot) + varintLen(at.Mono)
}

func appendExpiry(p []byte, m *stream.Message, at *stream.Moment) []byte {
	p = binary.AppendUvarint(p, uint64(m.Expiry))
	p = append(p, byte(at.Quality))
	p = binary.AppendVarint(p, at.Time-m.Time)
	p = append(p, at.Boot[:]...)
	return binary.AppendVarint(p, at.Mono)
}

// expiry reads what appendExpiry wrote, for a message of the given time.
func (r *reader) expiry(t int64) (seconds uint32, at stream.Moment) {
	v := r.uvarint()
	if v == 0 || v > math.MaxUint32 {
		r.fail()
	}
	at.Quality = stream.TimeQuality(r.byte())
	at.Time = t + r.varint()
	at.Boot, at.Mono = r.epoch(), r.varint()
	return uint32(v), at
}

// expires reports whether the record has an expiry.
func (raw *rawRecord) expires() bool {
	seconds, _ := raw.expiry(0)
	return seconds > 0
}

// expiry reads when the record expires; 0 seconds: never.
func (raw *rawRecord) expiry(base int64) (seconds uint32, at stream.Moment) {
	if raw.flags&recProperties == 0 {
		return 0, at
	}
	r := reader{p: raw.rest}
	t := base + r.varint()
	if raw.flags&recQuality != 0 {
		r.byte()
	}
	if raw.flags&recBoot != 0 {
		r.epoch()
		r.varint()
	}
	r.bytes() // topic
	mask := r.byte()
	if mask&propExpiry == 0 {
		return 0, at
	}
	for _, bit := range []byte{propContentType, propResponse, propCorrelation} {
		if mask&bit != 0 {
			r.bytes()
		}
	}
	if mask&propUser != 0 {
		for range r.count(2) {
			r.bytes()
			r.bytes()
		}
	}
	if seconds, at = r.expiry(t); r.bad {
		return 0, at
	}
	return seconds, at
}

// sift ends spans, records of one frame from number first, before the first one
// whose time has passed, and lists all of them.
func (b *Buffer) sift(spans []rawRecord, size int, base int64, first uint64) ([]rawRecord, int, []stream.Loss) {
	var gone []stream.Loss
	var now stream.Moment
	good, dropped := len(spans), 0
	for i := range spans {
		if len(gone) > 0 {
			dropped += spans[i].size
		}
		if spans[i].flags&recProperties == 0 {
			continue
		}
		seconds, at := spans[i].expiry(base)
		if seconds == 0 {
			continue
		}
		if now == (stream.Moment{}) {
			now = b.o.Now()
		}
		if left, known := remaining(at, now, seconds); !known || left > 0 {
			continue
		}
		if len(gone) == 0 {
			good, dropped = i, spans[i].size
		}
		gone = appendExpired(gone, first+uint64(i), spans[i].time(base))
	}
	return spans[:good], size - dropped, gone
}

// time is the record's time.
func (raw *rawRecord) time(base int64) int64 {
	r := reader{p: raw.rest}
	return base + r.varint()
}

// appendExpired adds number n, of the given time, to ascending losses.
func appendExpired(losses []stream.Loss, n uint64, at int64) []stream.Loss {
	one := stream.Loss{Range: stream.Range{First: n, Last: n}, Reason: stream.Expired, From: at, To: at}
	if i := len(losses); i > 0 && losses[i-1].Last+1 == n && timed(&losses[i-1]) == timed(&one) {
		joinLoss(&losses[i-1], one)
		return losses
	}
	return append(losses, one)
}

// expire gives up messages of a stream whose time has passed. They leave as
// losses once that is synced. Where it would make many ranges, only the first
// run goes.
func (b *Buffer) expire(e *epoch, lane stream.Lane, gone []stream.Loss) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state.find(e.id) == e {
		b.giveUpExpired(e, lane, gone)
		e.marked = false // Next syncs before it hands out the loss
	}
}

// giveUpExpired does so with what of gone is neither settled nor in flight.
// Under mu.
func (b *Buffer) giveUpExpired(e *epoch, lane stream.Lane, gone []stream.Loss) {
	room := b.rangesMax/2 - b.state.fragments()
	l := &e.lanes[lane]
	for i, loss := range gone {
		if i > 0 && i >= room {
			return
		}
		var free stream.RangeSet
		for r := range l.inflight.Missing(loss.Range) {
			free.Add(r)
		}
		for _, r := range free.Ranges() {
			loss.Range = r
			lost := b.state.lose(e.id, lane, loss)
			if lost.IsEmpty() {
				continue
			}
			b.ops.lose(e.id, lane, loss)
			b.stats.Expired += lost.Count()
		}
	}
	b.state.landed(l, lane)
	token(b.lazy)
	token(b.ready)
}

// sweep gives up what has expired in one segment, and says when to come again.
func (b *Buffer) sweep() time.Duration {
	b.commitMu.Lock()
	defer b.commitMu.Unlock()
	b.mu.Lock()
	all := b.segs.live
	if b.segs.head != nil {
		all = append(all[:len(all):len(all)], b.segs.head)
	}
	seg := b.overdue(all)
	b.mu.Unlock()
	if seg == nil {
		return sweepEvery
	}
	start := time.Now()
	b.expireIn(seg)
	return max(sweepEvery, sweepShare*time.Since(start))
}

// overdue is the first of the segments in which something may have expired; nil:
// none. Under commitMu and mu.
func (b *Buffer) overdue(all []*segment) *segment {
	if b.state.fragments() >= b.rangesMax/2 {
		return nil
	}
	now, read := stream.Moment{}, false
	for _, seg := range all {
		if seg.due == neverDue || len(seg.held) == 0 {
			continue
		}
		if !read {
			now, read = b.o.Now(), true
		}
		if seg.due <= now.Mono {
			return seg
		}
	}
	return nil
}

// expireIn gives up what has expired in a segment, and notes when to look again.
// What the disk cannot read is passed by: whoever wants it judges that. Under
// commitMu.
func (b *Buffer) expireIn(seg *segment) {
	now := b.o.Now()
	due := int64(neverDue)
	gone := map[stream.ID][]stream.Loss{}
	v := &b.mover
	for off := int64(pageSize); off < seg.end; {
		ok, err := v.find(seg, off, seg.end)
		if err != nil {
			off, due = max(off, v.off)+pageSize, min(due, now.Mono+recheck)
			continue
		}
		if !ok {
			break
		}
		off = v.next
		var it recordIter
		for {
			g, seq, raw, ok := it.next(v)
			if !ok {
				break
			}
			seconds, at := raw.expiry(v.base)
			if seconds == 0 || !b.isLive(seg, g, seq) {
				continue
			}
			left, known := remaining(at, now, seconds)
			if known && left <= 0 {
				id := stream.ID{Epoch: g.epoch, Lane: g.lane}
				gone[id] = appendExpired(gone[id], seq, raw.time(v.base))
				left = recheck // it may be in flight, or too much at once
			} else if !known {
				left = recheck // the clock may be set yet
			}
			if known || at.Quality != stream.TimeUnknown {
				due = min(due, now.Mono+left)
			}
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	seg.due = due
	for id, losses := range gone {
		if e := b.state.find(id.Epoch); e != nil {
			b.giveUpExpired(e, id.Lane, losses)
			e.marked = false
		}
	}
}
