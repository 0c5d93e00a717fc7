package uplink

import (
	"math/bits"
	"time"

	"github.com/packetboat/packetboat/pkg/buffer"
)

// rhythm knows how long the pauses between arrivals in a lane are, as counts in
// buckets: bucket 0 holds pauses up to 1 ms, bucket i those above 2^(i-1) up to
// 2^i ms. It is for one goroutine.
type rhythm struct {
	counts [rhythmBuckets]int
	total  int
	last   time.Time // the last arrival; zero: the next pause is not one
	seen   int64     // messages that waited when it was looked at last
}

const (
	rhythmBuckets = 24 // the last one holds all above 70 minutes
	rhythmSample  = 4  // what a pause counts, so that it can be halved
	rhythmMost    = 1024
	// rhythmLeast is how much must be known of pauses as long as this one.
	rhythmLeast = 2 * rhythmSample
	// rhythmOdds: it is not worth waiting for an arrival that comes one time in
	// so many.
	rhythmOdds = 16
)

// forget begins anew with waiting messages, whose arrival says nothing.
func (r *rhythm) forget(waiting int64) { r.seen, r.last = waiting, time.Time{} }

// took says that n messages were taken away.
func (r *rhythm) took(n int) { r.seen -= int64(n) }

// look notes what arrived since the last look. Messages that came together are
// one arrival.
func (r *rhythm) look(waiting int64, now time.Time) {
	if waiting > r.seen {
		if !r.last.IsZero() {
			r.add(now.Sub(r.last))
		}
		r.last = now
	}
	r.seen = waiting
}

func (r *rhythm) add(pause time.Duration) {
	r.counts[bucketOf(pause)] += rhythmSample
	if r.total += rhythmSample; r.total < rhythmMost {
		return
	}
	r.total = 0
	for i := range r.counts { // what is long ago counts less
		r.counts[i] /= 2
		r.total += r.counts[i]
	}
}

func bucketOf(d time.Duration) int {
	ms := (d + time.Millisecond - 1) / time.Millisecond
	return min(bits.Len64(uint64(max(ms, 1)-1)), rhythmBuckets-1)
}

// edgeOf is the longest pause of a bucket.
func edgeOf(bucket int) time.Duration { return time.Millisecond << bucket }

// upTo is how much is known of pauses up to d, in parts of a bucket too.
func (r *rhythm) upTo(d time.Duration) (n float64) {
	if d <= 0 {
		return 0
	}
	at := bucketOf(d)
	for _, c := range r.counts[:at] {
		n += float64(c)
	}
	from := time.Duration(0)
	if at > 0 {
		from = edgeOf(at - 1)
	}
	part := min(float64(d-from)/float64(edgeOf(at)-from), 1)
	return n + part*float64(r.counts[at])
}

// wait is how much of left, the time until a batch leaves in any case, to wait
// for more messages: all of it where little is known, nothing where another
// arrival within it is unlikely. It may ask to be asked again sooner.
func (r *rhythm) wait(now time.Time, left time.Duration) time.Duration {
	if r.last.IsZero() || left <= 0 {
		return max(left, 0)
	}
	quiet := max(now.Sub(r.last), 0) // the pause so far
	end := r.upTo(quiet + left)
	idle := func(d time.Duration) (unlikely, known bool) {
		to := r.upTo(d)
		longer := float64(r.total) - to
		return (end-to)*rhythmOdds < longer, longer >= rhythmLeast
	}
	unlikely, known := idle(quiet)
	switch {
	case !known:
		return left
	case unlikely:
		return 0
	}
	for b := bucketOf(quiet); b < rhythmBuckets-1; b++ { // from when on will it be?
		d := edgeOf(b)
		if d <= quiet {
			continue
		}
		if d >= quiet+left {
			break
		}
		unlikely, known := idle(d)
		if !known {
			break
		}
		if unlikely {
			return d - quiet
		}
	}
	return left
}

// wait is how long a lane with backlog b may still collect; 0: its batch is
// due, negative: there is nothing to wait for.
func (p BatchPolicy) wait(b buffer.Backlog, now time.Time, r *rhythm) time.Duration {
	switch {
	case b.Messages == 0:
		return -1
	case p.Age < 0, b.Messages >= int64(p.Messages), b.Bytes >= int64(p.Bytes):
		return 0
	}
	return r.wait(now, p.Age-now.Sub(b.OldestAppend))
}
