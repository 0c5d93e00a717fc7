package ingest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

// shard has one goroutine, which acquires the shard, commits what is queued for
// it, and acquires it again when its ownership is lost.
type shard struct {
	in   *Ingest
	n    int
	wake chan struct{} // has room for one: something is queued
	kick chan struct{} // has room for one: the log has another incarnation

	// Of the shard's goroutine.

	// unsure are items of which an append had an unknown outcome.
	unsure  []*item
	group   []*item
	entries []commitlog.Entry
	rejects int                 // single entries rejected in a row
	highest map[streamOf]uint64 // record of each stream in the group

	mu sync.Mutex
	// own is nil while the shard is not served; guarded by mu.
	own *ownership
	// ring holds the devices with something queued; guarded by mu.
	ring []*device
}

type streamOf struct {
	d *device
	streamKey
}

// ownership is one time of owning a shard. Sessions and what they queued belong
// to one and end with it.
type ownership struct {
	owner commitlog.Owner
	id    stream.LogID
}

func newShard(in *Ingest, n int) *shard {
	return &shard{
		in: in, n: n, wake: make(chan struct{}, 1), kick: make(chan struct{}, 1),
		highest: map[streamOf]uint64{},
	}
}

func (sh *shard) ownership() *ownership {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.own
}

// push queues an item of an ownership; false: that ownership is over.
func (sh *shard) push(own *ownership, it *item) bool {
	sh.mu.Lock()
	if sh.own != own {
		sh.mu.Unlock()
		return false
	}
	d := it.dev
	if len(d.queue) == 0 {
		sh.ring = append(sh.ring, d)
	}
	d.queue = append(d.queue, it)
	sh.mu.Unlock()
	select {
	case sh.wake <- struct{}{}:
	default:
	}
	return true
}

// take gives the next group: one item of each device in turn, so that a device
// with a long backlog does not hold up the others, until the group is full or
// nothing is left. An item that alone exceeds the bounds is a group.
func (sh *shard) take() []*item {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	clear(sh.group)
	sh.group = sh.group[:0]
	o := &sh.in.o
	bytes, records, entries := 0, 0, 0
	for len(sh.ring) > 0 {
		d := sh.ring[0]
		it := d.queue[0]
		bytes += it.content
		entries += len(it.entries)
		if it.sess != nil {
			records += len(it.one[0].Records)
		}
		if len(sh.group) > 0 && (bytes > o.GroupBytes || records > o.GroupRecords || entries > commitlog.MaxGroupEntries) {
			break
		}
		it.pos = len(sh.group)
		sh.group = append(sh.group, it)
		sh.ring[0] = nil
		sh.ring = sh.ring[1:]
		d.queue[0] = nil
		if d.queue = d.queue[1:]; len(d.queue) > 0 {
			sh.ring = append(sh.ring, d)
		} else {
			d.queue = nil
		}
	}
	return sh.group
}

// unqueue takes the queued batches of a session's fifo lane out, in order.
func (sh *shard) unqueue(s *Session, lane stream.Lane) (out []*item) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	d := s.dev
	n := 0
	for _, it := range d.queue {
		if it.sess == s && it.fifo() && it.key().lane == lane {
			out = append(out, it)
			continue
		}
		d.queue[n] = it
		n++
	}
	if len(out) == 0 {
		return nil
	}
	clear(d.queue[n:])
	if d.queue = d.queue[:n]; n == 0 {
		sh.drop(d)
	}
	return out
}

// drop takes a device without queue off the ring. mu is held.
func (sh *shard) drop(d *device) {
	for i, x := range sh.ring {
		if x == d {
			sh.ring = append(sh.ring[:i:i], sh.ring[i+1:]...)
			return
		}
	}
}

// reacquire asks the shard's goroutine to acquire again.
func (sh *shard) reacquire() {
	select {
	case sh.kick <- struct{}{}:
	default:
	}
}

// run owns the shard as long as it can until ctx ends. It returns an error when
// the log is closed.
func (sh *shard) run(ctx context.Context) error {
	defer sh.resolve(nil)
	var wait backoff
	for first := true; ; first = false {
		if !first && !sleep(ctx, wait.next()) || ctx.Err() != nil {
			return nil
		}
		owner, err := sh.in.log.Acquire(ctx, sh.n)
		switch {
		case ctx.Err() != nil:
			sh.giveUp(owner, err)
			return nil
		case errors.Is(err, commitlog.ErrClosed):
			return fmt.Errorf("acquire shard %d: %w", sh.n, err)
		case err != nil:
			sh.in.stats.acquireErrors.Add(1)
			sh.in.o.Logger.Warn("shard could not be acquired", "shard", sh.n, "error", err)
			continue
		}
		sh.in.stats.acquired.Add(1)
		began := time.Now()
		sh.resolve(owner)
		why := sh.serve(ctx, owner)
		sh.giveUp(owner, nil)
		if why == RevokedStopped {
			return nil
		}
		if time.Since(began) > steadyAfter {
			wait.reset()
		}
	}
}

// giveUp releases an owner, if there is one.
func (sh *shard) giveUp(owner commitlog.Owner, acquireErr error) {
	if acquireErr != nil || owner == nil {
		return
	}
	if err := owner.Release(); err != nil {
		sh.in.o.Logger.Warn("shard could not be released", "shard", sh.n, "error", err)
	}
}

// serve commits until the ownership ends and says why.
func (sh *shard) serve(ctx context.Context, owner commitlog.Owner) (why RevokeReason) {
	own := &ownership{owner: owner, id: sh.in.log.ID()}
	sh.mu.Lock()
	sh.own = own
	sh.mu.Unlock()
	sh.rejects = 0
	// Appends outlive ctx by the grace, so that what was admitted is answered.
	appendCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		select {
		case <-ctx.Done():
			sh.closeDoor()
			sleep(appendCtx, sh.in.o.StopGrace)
			cancel()
		case <-appendCtx.Done():
		}
	})
	for {
		err := sh.commit(appendCtx, own, sh.take())
		clear(sh.group) // an idle shard keeps no batch alive
		clear(sh.entries)
		clear(sh.highest)
		if err != nil {
			sh.in.o.Logger.Warn("ownership of the shard ended", "shard", sh.n, "error", err)
			sh.lose(own, RevokedShard)
			return RevokedShard
		}
		if ctx.Err() == nil && sh.queued() {
			continue
		}
		select {
		case <-sh.wake:
		case <-sh.kick:
			if sh.in.log.ID() != own.id {
				sh.lose(own, RevokedRestored)
				return RevokedRestored
			}
		case <-ctx.Done():
			sh.stop(appendCtx, own)
			return RevokedStopped
		}
	}
}

func (sh *shard) queued() bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return len(sh.ring) > 0
}

// closeDoor takes no more sessions and batches.
func (sh *shard) closeDoor() {
	sh.mu.Lock()
	sh.own = nil
	sh.mu.Unlock()
}

// stop commits what was admitted.
func (sh *shard) stop(ctx context.Context, own *ownership) {
	sh.closeDoor()
	for sh.queued() {
		if err := sh.commit(ctx, own, sh.take()); err != nil {
			sh.in.o.Logger.Warn("shard lost while stopping", "shard", sh.n, "error", err)
			break
		}
	}
	sh.lose(own, RevokedStopped)
}

// lose ends the ownership: what is queued is refused and the sessions that
// began under it are revoked. Nothing is acknowledged.
func (sh *shard) lose(own *ownership, why RevokeReason) {
	sh.mu.Lock()
	sh.own = nil // first, see open
	var left []*item
	for _, d := range sh.ring {
		left = append(left, d.queue...)
		d.queue = nil
	}
	sh.ring = nil
	sh.mu.Unlock()
	var ans answers
	for _, it := range left {
		sh.abandon(it, &ans)
	}
	for _, d := range sh.in.devices.all(sh) {
		d.revoke(why, own)
	}
	ans.send()
}

var errOwnership = errors.New("ownership of the shard ended")

// abandon refuses an admitted item because the ownership is over.
func (sh *shard) abandon(it *item, ans *answers) {
	d := it.dev
	d.mu.Lock()
	defer d.mu.Unlock()
	if it.sess != nil {
		it.sess.refuse(it, RefusedShard, ans)
	} else {
		sh.in.budget.release(it.bytes)
		it.result <- errOwnership
	}
	d.done(it)
}

// resolve answers the items of unknown outcome from the coverage that a new
// owner read: what is in is settled, the rest is refused, nothing is appended
// again. Without an owner all are refused.
func (sh *shard) resolve(owner commitlog.Owner) {
	var ans answers
	for _, it := range sh.unsure {
		var cov *commitlog.DeviceCoverage
		if owner != nil && it.sess != nil {
			cov = owner.Coverage(it.dev.name)
		}
		if cov == nil || !it.covered(cov.Lane(it.one[0].ID)) {
			sh.abandon(it, &ans)
			continue
		}
		sh.in.stats.recovered.Add(1)
		d := it.dev
		d.mu.Lock()
		it.sess.finish(it, it.out, &ans)
		d.done(it)
		d.mu.Unlock()
	}
	sh.unsure = nil
	ans.send()
}
