package ingest

import (
	"context"
	"slices"
	"time"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

// Connect opens a session for a device and says what the log has of what it
// holds. A session that the device has already is revoked, and what is pending
// of it waited for; what nobody else would declare is declared, durably. It
// takes at most Options.ConnectWait, and errors are *BusyError (also when ctx
// ends) or ErrHello.
func (in *Ingest) Connect(ctx context.Context, h Hello) (*Session, Welcome, error) {
	if err := checkHello(&h); err != nil {
		return nil, Welcome{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, in.o.ConnectWait)
	defer cancel()
	d := in.devices.get(in, h.Device)
	defer in.devices.put(d)
	own := d.shard.ownership()
	if own == nil {
		return nil, Welcome{}, in.busy(BusyShard)
	}
	if d.revoke(RevokedTakeover, nil) {
		in.stats.takeovers.Add(1)
	}
	select {
	case d.connecting <- struct{}{}:
		defer func() { <-d.connecting }()
	case <-ctx.Done():
		return nil, Welcome{}, in.busy(BusyTakeover)
	}
	// Again: another Connect may have been faster.
	if d.revoke(RevokedTakeover, nil) {
		in.stats.takeovers.Add(1)
	}
	if !d.drain(ctx) {
		return nil, Welcome{}, in.busy(BusyTakeover)
	}
	s, w, busy := in.open(ctx, d, &h)
	if busy != nil {
		return nil, Welcome{}, busy
	}
	return s, w, nil
}

// open makes the session. The caller has the device's connecting token, nothing
// of the device is pending, and nobody can submit for it.
func (in *Ingest) open(ctx context.Context, d *device, h *Hello) (*Session, Welcome, *BusyError) {
	own := d.shard.ownership()
	if own == nil {
		return nil, Welcome{}, in.busy(BusyShard)
	}
	cov := own.owner.Coverage(d.name)
	if cov == nil {
		cov = &commitlog.DeviceCoverage{}
	}
	p := makePlan(h, cov, own.id, time.Now().UnixMicro())
	d.mu.Lock()
	d.cov = cov
	d.mu.Unlock()
	if p.wentBack {
		// Or another hub has the shard, and this one does not know yet what
		// that one answered: only an owner can tell.
		if err := in.commitItem(ctx, own, planItem(d, nil)); err != nil {
			return nil, Welcome{}, in.busy(BusyCommit)
		}
		in.stats.wentBack.Add(1)
		if in.restored(ctx, own, d.name) {
			return nil, Welcome{}, in.busy(BusyRestored)
		}
	}
	window := in.budget.grant(&in.o)
	if window == 0 {
		return nil, Welcome{}, in.busy(BusyBudget)
	}
	granted := int64(window) * int64(in.o.PacketBytes)
	if err := in.prepare(ctx, own, d, &p); err != nil {
		in.budget.giveBack(granted)
		in.o.Logger.Debug("device is not served yet", "device", d.name, "error", err)
		return nil, Welcome{}, in.busy(BusyCommit)
	}
	in.stats.stale.Add(int64(p.stale))
	s := newSession(in, d, own, h, window)
	s.absent = p.absent
	w := Welcome{Log: own.id, WindowMessages: window, PacketBytes: in.o.PacketBytes}
	d.mu.Lock()
	defer d.mu.Unlock()
	// lose takes the ownership away first and looks for sessions then: it finds
	// this one, or this finds that it was too late.
	if d.shard.ownership() != own {
		in.budget.giveBack(granted)
		return nil, Welcome{}, in.busy(BusyShard)
	}
	w.Coverage = welcomeCoverage(h.Held, d.cov)
	// The session before this one has ended, so what it learned is parked.
	s.recv, w.Codec = newReceiver(in, d.name, &h.Codec)
	in.devices.hold(d)
	in.stats.sessions.Add(1)
	in.stats.connects.Add(1)
	d.session = s
	d.seen.since = time.Now()
	d.identify(s.current, h.Origin, d.seen.since)
	return s, w, nil
}

func newSession(in *Ingest, d *device, own *ownership, h *Hello, window int) *Session {
	s := &Session{in: in, dev: d, own: own, window: window, onRevoke: h.Revoke, partial: h.Partial}
	s.named = make(map[stream.Epoch]bool)
	for i := range h.Held {
		held := &h.Held[i]
		s.named[held.Epoch] = true
		if held.Current {
			s.current = held.Epoch
		}
	}
	return s
}

// planChunk is how many entries of a plan go into one item; a group takes more.
const planChunk = commitlog.MaxGroupEntries / 4

// prepare commits what the plan asks for.
func (in *Ingest) prepare(ctx context.Context, own *ownership, d *device, p *plan) error {
	var items []*item
	for part := range slices.Chunk(p.entries, planChunk) {
		items = append(items, planItem(d, part))
	}
	if len(items) == 0 && p.stale > 0 {
		items = append(items, planItem(d, nil)) // the barrier
	}
	for _, it := range items {
		if err := in.commitItem(ctx, own, it); err != nil {
			return err
		}
	}
	return nil
}

// commitItem queues an item and waits for what becomes of it. When ctx ends
// first it is pending still, and the device's next Connect waits for it.
func (in *Ingest) commitItem(ctx context.Context, own *ownership, it *item) error {
	d := it.dev
	in.budget.force(it.bytes)
	d.mu.Lock()
	if !d.shard.push(own, it) {
		d.mu.Unlock()
		in.budget.release(it.bytes)
		return errOwnership
	}
	d.admitted(it)
	d.mu.Unlock()
	select {
	case err := <-it.result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
