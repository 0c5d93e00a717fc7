package ingest

import (
	"container/list"
	"context"
	"sync"
	"time"

	"github.com/packetboat/packetboat/pkg/codec"
)

// keeper counts what the sessions of all devices have learned, to the byte, and
// keeps it for a while for devices that are away.
//
// A learned state has one owner at a time: the receiver of an open session, or
// the keeper. It goes from one to the other in park and begin, both of which
// take it away from where it was.
type keeper struct {
	limits codecLimits

	mu sync.Mutex
	// Everything below is guarded by mu.

	kept  map[string]*list.Element // by device, of away
	away  *list.List               // of *keptSession, the one away longest first
	stats CodecStats               // without Dropped
	drops [codecDrops]int64
}

// keptSession is what was learned on a connection that has ended.
type keptSession struct {
	device  string
	learned learned
	state   int   // bytes that it was granted
	bytes   int64 // that it keeps
	since   time.Time
}

func (k *keeper) init(l codecLimits) {
	k.limits, k.kept, k.away = l, map[string]*list.Element{}, list.New()
}

// begin answers a device that connects. What was kept of it is handed over, if
// the device can go on with it, or let go of. Whoever gets a grant with State
// ends it with park or resize.
func (k *keeper) begin(device string, o *CodecOffer) (g CodecGrant, kept *keptSession) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.expireLocked(time.Now())
	if e := k.kept[device]; e != nil {
		kept = k.removeLocked(e)
		if why, ok := fitsOffer(kept.learned.Position(), o); !ok {
			k.drops[why]++
			kept = nil
		}
	}
	if !o.learns() {
		return g, nil
	}
	g.Codec = codec.Learning
	if kept != nil {
		// The limit is part of what the two sides agreed on when it began.
		g.State, g.Resume, g.At = kept.state, true, kept.learned.Position()
		k.stats.StateBytes += kept.bytes
		k.stats.Resumed++
	} else {
		g.State = k.grantLocked()
	}
	if g.State > 0 {
		k.stats.Sessions++
	}
	return g, kept
}

// fitsOffer reports whether an edge can go on from a position, and if not, why.
func fitsOffer(at codec.Position, o *CodecOffer) (CodecDrop, bool) {
	switch {
	case !o.learns() || !o.Resume:
		return DropUnwanted, false
	case at.Bodies < o.Oldest || at.Bodies > o.Last:
		return DropRange, false
	}
	return 0, true
}

// grantLocked is how much a fresh session may keep: less when room runs low,
// before there is none. What is kept for others makes room. mu is held.
func (k *keeper) grantLocked() int {
	left := k.limits.total - k.stats.StateBytes
	if k.limits.state == 0 || left < codec.MinState {
		return 0
	}
	return int(max(min(int64(k.limits.state), left/scarce), codec.MinState))
}

// resize counts that the state of an open session takes now bytes where it took
// was. What is kept makes room for it, what is away longest first. False: there
// is none; then nothing of it is counted any more, and it must be let go of.
func (k *keeper) resize(was, now int64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stats.StateBytes += now - was
	for k.overLocked() && k.away.Len() > 0 {
		k.removeLocked(k.away.Front())
		k.drops[DropKeptBytes]++
	}
	if !k.overLocked() {
		return true
	}
	k.stats.StateBytes -= now
	k.stats.Sessions--
	k.drops[DropNoRoom]++
	return false
}

func (k *keeper) overLocked() bool { return k.stats.StateBytes+k.stats.KeptBytes > k.limits.total }

// park ends an open session whose state takes bytes. What it has learned, if
// anything, is the keeper's from now on.
func (k *keeper) park(device string, l learned, state int, bytes int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stats.Sessions--
	k.stats.StateBytes -= bytes
	if l == nil {
		return
	}
	if e := k.kept[device]; e != nil { // a device has one session at a time, so there is none
		k.removeLocked(e)
	}
	k.kept[device] = k.away.PushBack(&keptSession{device: device, learned: l, state: state, bytes: bytes, since: time.Now()})
	k.stats.Kept++
	k.stats.KeptBytes += bytes
	for k.away.Len() > k.limits.kept {
		k.removeLocked(k.away.Front())
		k.drops[DropNumber]++
	}
	k.expireLocked(time.Now())
}

// removeLocked takes out what is kept. mu is held.
func (k *keeper) removeLocked(e *list.Element) *keptSession {
	s := k.away.Remove(e).(*keptSession)
	delete(k.kept, s.device)
	k.stats.Kept--
	k.stats.KeptBytes -= s.bytes
	return s
}

// expireLocked lets go of what was kept long enough. mu is held.
func (k *keeper) expireLocked(now time.Time) {
	for e := k.away.Front(); e != nil; e = k.away.Front() {
		if now.Sub(e.Value.(*keptSession).since) < k.limits.keep {
			return
		}
		k.removeLocked(e)
		k.drops[DropExpired]++
	}
}

// sweep lets go of what was kept long enough, at its time, until ctx ends.
func (k *keeper) sweep(ctx context.Context) {
	if k.limits.keep == 0 || k.limits.kept == 0 {
		return // park keeps nothing
	}
	for wait := k.limits.keep; sleep(ctx, wait); {
		k.mu.Lock()
		now := time.Now()
		k.expireLocked(now)
		// What is parked from now on expires after that.
		wait = k.limits.keep
		if e := k.away.Front(); e != nil {
			wait -= now.Sub(e.Value.(*keptSession).since)
		}
		k.mu.Unlock()
	}
}

// clear lets go of all that is kept: nobody will come for it.
func (k *keeper) clear() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for e := k.away.Front(); e != nil; e = k.away.Front() {
		k.removeLocked(e)
	}
}

// count adds to one of the counters of stats and drops.
func (k *keeper) count(n *int64) {
	k.mu.Lock()
	*n++
	k.mu.Unlock()
}

func (k *keeper) get() CodecStats {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.stats
	s.Dropped = make(map[string]int64, codecDrops)
	for i, n := range k.drops {
		s.Dropped[CodecDrop(i).String()] = n
	}
	return s
}
