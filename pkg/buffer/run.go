package buffer

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Run commits what is appended and keeps house. It blocks until ctx ends; then
// it commits what is pending, writes the settle state, refuses what comes after
// and returns nil. It may run once.
func (b *Buffer) Run(ctx context.Context) error {
	b.mu.Lock()
	if b.running || b.stopped {
		b.mu.Unlock()
		return errors.New("run journal: it runs already, or has stopped")
	}
	b.running = true
	b.mu.Unlock()
	var makers sync.WaitGroup
	makers.Go(func() { b.makeSpares(ctx) })
	token(b.room)
	b.loop(ctx)
	makers.Wait()
	b.mu.Lock()
	b.stopped = true
	b.mu.Unlock()
	_ = b.commit(true) // the waiters are told, Stats shows it
	_ = b.vouch()
	b.mu.Lock()
	b.running = false
	b.mu.Unlock()
	return nil
}

func (b *Buffer) loop(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	sweep := time.NewTimer(sweepEvery)
	defer sweep.Stop()
	armed := false
	arm := func(d time.Duration) {
		if !armed {
			armed = true
			timer.Reset(d)
		}
	}
	for {
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-b.lazy:
			arm(b.o.LazySync)
			continue
		case <-sweep.C:
			sweep.Reset(b.sweep())
			continue
		case <-b.wake:
		case <-timer.C:
			armed = false
		}
		if err := b.commit(true); err != nil {
			b.log.Warn("journal commit refused", "error", err)
			arm(retryDisk)
		}
		if !b.makeRoom() {
			arm(retryDisk)
		}
	}
}

// vouch writes one more frame, which says that the last one was synced.
func (b *Buffer) vouch() error {
	b.commitMu.Lock()
	defer b.commitMu.Unlock()
	if b.segs.head == nil || b.headAt+pageSize > b.segs.head.size {
		return nil // the next snapshot says the same
	}
	g := &commitGroup{}
	if err := b.writeOps(g); err != nil {
		return err
	}
	return b.syncHead()
}

// makeSpares keeps segments ready, so that a commit need not make one.
func (b *Buffer) makeSpares(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.room:
		}
		for ctx.Err() == nil {
			b.mu.Lock()
			enough := len(b.segs.free) >= spares || b.segs.bytes+b.o.SegmentBytes > b.o.MaxBytes || time.Now().Before(b.noSpares)
			b.mu.Unlock()
			if enough {
				break
			}
			seg, err := b.makeSegment(nil)
			if err != nil {
				b.log.Warn("no spare segment", "error", err)
				break
			}
			b.mu.Lock()
			b.segs.addFree(seg)
			b.mu.Unlock()
		}
	}
}
