package ingest

import (
	"container/list"
	"context"
	"sync"
	"time"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

// streamKey names a stream of one device.
type streamKey struct {
	epoch stream.Epoch
	lane  stream.Lane
}

// device is what is kept of one device. Locks are taken in the order
// device.mu, shard.mu, registry.mu; none is held while a callback runs.
type device struct {
	name  string
	shard *shard

	// connecting has room for one: who has put a token in may connect.
	connecting chan struct{}

	// queue holds admitted items, oldest first; guarded by shard.mu.
	queue []*item

	refs int           // guarded by registry.mu
	idle *list.Element // guarded by registry.mu; set while refs is 0

	mu sync.Mutex
	// Everything below is guarded by mu.

	session *Session
	// cov is what the log says of the device: read from the owner by Connect
	// when nothing was pending, since then folded. nil while nobody needs it.
	cov *commitlog.DeviceCoverage
	// pending holds the numbers of items that are admitted and not settled.
	// Together with cov it decides what may be appended.
	pending map[streamKey]*stream.RangeSet
	// count is how many items are admitted and not settled, bytes their memory.
	count   int
	bytes   int64
	drained chan struct{} // not nil while somebody waits for count to be 0
	seen    seen
}

// seen is what Devices tells of a device besides its session.
type seen struct {
	since, lastBatch             time.Time
	batches, records, duplicates int64
	origin                       string // of the last connection
	lives                        lives
	twins                        Twins
	twinsTold                    time.Time
}

// admitted notes that it is on its way into the log. d.mu is held.
func (d *device) admitted(it *item) {
	if d.count == 0 {
		d.shard.in.devices.hold(d)
	}
	d.count++
	d.bytes += it.bytes
	if it.numbers.IsEmpty() {
		return
	}
	p := d.pending[it.key()]
	if p == nil {
		p = &stream.RangeSet{}
		if d.pending == nil {
			d.pending = map[streamKey]*stream.RangeSet{}
		}
		d.pending[it.key()] = p
	}
	p.AddSet(&it.numbers)
}

// done takes back what admitted noted. d.mu is held.
func (d *device) done(it *item) {
	d.count--
	d.bytes -= it.bytes
	if !it.numbers.IsEmpty() {
		p := d.pending[it.key()]
		p.RemoveSet(&it.numbers)
		if p.IsEmpty() {
			delete(d.pending, it.key())
		}
	}
	if d.count > 0 {
		return
	}
	if d.drained != nil {
		close(d.drained)
		d.drained = nil
	}
	d.shard.in.devices.release(d)
}

// drain waits until nothing is pending; false: ctx ended first.
func (d *device) drain(ctx context.Context) bool {
	for {
		d.mu.Lock()
		if d.count == 0 {
			d.mu.Unlock()
			return true
		}
		if d.drained == nil {
			d.drained = make(chan struct{})
		}
		wait := d.drained
		d.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return false
		}
	}
}

// revoke ends the device's session, if it has one; own, if not nil, says of
// which ownership.
func (d *device) revoke(r RevokeReason, own *ownership) bool {
	d.mu.Lock()
	s := d.session
	d.mu.Unlock()
	return s != nil && (own == nil || s.own == own) && s.revoke(r)
}

// registry holds the devices that are in use, and of those that are not as many
// as Options.MaxIdle, for Devices.
type registry struct {
	maxIdle int

	mu      sync.Mutex
	devices map[string]*device // guarded by mu
	idle    *list.List         // guarded by mu; the one idle longest first
}

func (r *registry) init(maxIdle int) {
	r.maxIdle, r.devices, r.idle = maxIdle, map[string]*device{}, list.New()
}

// get finds or makes a device and holds it.
func (r *registry) get(in *Ingest, name string) *device {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.devices[name]
	if d == nil {
		n := commitlog.ShardOf(name, len(in.shards))
		d = &device{name: name, shard: in.shards[n], connecting: make(chan struct{}, 1)}
		r.devices[name] = d
	}
	r.holdLocked(d)
	return d
}

func (r *registry) hold(d *device) {
	r.mu.Lock()
	r.holdLocked(d)
	r.mu.Unlock()
}

func (r *registry) holdLocked(d *device) {
	d.refs++
	if d.idle != nil {
		r.idle.Remove(d.idle)
		d.idle = nil
	}
}

// release undoes get or hold. d.mu is held: a device that nobody uses any more
// forgets its coverage.
func (r *registry) release(d *device) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d.refs--; d.refs > 0 {
		return
	}
	d.cov, d.pending = nil, nil
	d.idle = r.idle.PushBack(d)
	for r.idle.Len() > r.maxIdle {
		oldest := r.idle.Remove(r.idle.Front()).(*device)
		oldest.idle = nil
		delete(r.devices, oldest.name)
	}
}

// put is release for a caller that does not hold d.mu.
func (r *registry) put(d *device) {
	d.mu.Lock()
	r.release(d)
	d.mu.Unlock()
}

// all lists the devices; of a shard only, unless sh is nil.
func (r *registry) all(sh *shard) (list []*device) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.devices {
		if sh == nil || d.shard == sh {
			list = append(list, d)
		}
	}
	return list
}

func (r *registry) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.devices)
}
