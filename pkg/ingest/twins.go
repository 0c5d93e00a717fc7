package ingest

import (
	"slices"
	"time"

	"github.com/packetboat/packetboat/pkg/stream"
)

// Twins says that two live devices share an id, as after a disk or a secret was
// copied: they take the connection from each other, again and again. It is no
// guess: the epoch in use of one edge changes, but never goes back to an earlier
// one, so a connection that does shows that there are two.
type Twins struct {
	// Count is how often it was seen since the device is remembered; 0: never.
	Count int64
	// At is when it was seen last.
	At time.Time
	// Origins are where the connection came from then, and the one before it.
	Origins [2]string
}

const (
	maxLives   = 8           // epochs in use that are remembered of a device
	twinsEvery = time.Minute // between log lines about one device
)

// lives are the epochs that were in use at a device's connections, none twice,
// the last one at the end.
type lives []stream.Epoch

// follow notes the epoch in use of a new connection; back: another one was in
// use since.
func (l *lives) follow(e stream.Epoch) (back bool) {
	i := slices.Index(*l, e)
	if i >= 0 {
		back = i < len(*l)-1
		*l = slices.Delete(*l, i, i+1)
	} else if len(*l) == maxLives {
		*l = slices.Delete(*l, 0, 1)
	}
	*l = append(*l, e)
	return back
}

// identify looks whether a new connection is of another device than the one
// before it. d.mu is held.
func (d *device) identify(current stream.Epoch, origin string, now time.Time) {
	before := d.seen.origin
	d.seen.origin = origin
	if current == (stream.Epoch{}) || !d.seen.lives.follow(current) {
		return
	}
	in := d.shard.in
	in.stats.twins.Add(1)
	t := &d.seen.twins
	t.Count++
	t.At, t.Origins = now, [2]string{origin, before}
	if now.Sub(d.seen.twinsTold) >= twinsEvery {
		d.seen.twinsTold = now
		in.o.Logger.Warn("two live devices share an id and take the connection from each other; give one of them another id and secret",
			"device", d.name, "remote", origin, "other_remote", before, "times", t.Count)
	}
}
