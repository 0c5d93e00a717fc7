package local

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

const (
	// retentionPause is how long Run waits between two looks.
	retentionPause = time.Minute
	// expireBlocks bounds one transaction of retention.
	expireBlocks = 32
)

// Run applies retention until ctx ends, and then returns nil. An error is one
// that the log cannot get over, also where it arose elsewhere: then the log must
// be closed and opened again.
func (l *Log) Run(ctx context.Context) error {
	var due <-chan time.Time
	if !l.o.ReadOnly && l.o.Retention != (Retention{}) {
		tick := time.NewTicker(retentionPause)
		defer tick.Stop()
		due = tick.C
	}
	for {
		if due != nil {
			if err := l.Sweep(ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("apply retention: %w", err)
			}
		}
		select {
		case <-due:
		case <-l.broken:
			return l.failed()
		case <-ctx.Done():
			return nil
		}
	}
}

// Sweep applies retention once. Records expire first; their space is given back
// when there is enough of it, or the disk is full.
func (l *Log) Sweep(ctx context.Context) error {
	if l.o.ReadOnly {
		return ErrReadOnly
	}
	if err := l.expireAll(ctx); err != nil {
		return err
	}
	if n := l.dead.Load(); n == 0 || n < l.dropAfter && !l.counts.full.Load() {
		return nil
	}
	if err := l.drop(); err != nil {
		return err
	}
	l.dead.Store(0)
	return nil
}

// expireAll raises the floors.
func (l *Log) expireAll(ctx context.Context) error {
	if age := l.o.Retention.MaxAge; age > 0 {
		before := l.now().Add(-age).UnixMicro()
		for _, s := range l.shards {
			if err := l.expireWhile(ctx, s, func(_ int64, x *blockIndex) bool { return x.received < before }); err != nil {
				return err
			}
		}
	}
	if l.o.Retention.MaxBytes > 0 {
		return l.sweepBytes(ctx)
	}
	return nil
}

// sweepBytes deletes, again and again, from the shard whose first block is
// the oldest.
func (l *Log) sweepBytes(ctx context.Context) error {
	for {
		over := -l.o.Retention.MaxBytes
		oldest, at := -1, int64(math.MaxInt64)
		for i, s := range l.shards {
			st := s.snapshot()
			over += st.bytes
			if st.floor == st.next {
				continue
			}
			x, err := l.firstIndex(i, st.floor)
			if err != nil {
				return err
			}
			if x.received <= at {
				oldest, at = i, x.received
			}
		}
		if over <= 0 || oldest < 0 {
			return nil
		}
		n := 0
		err := l.expireWhile(ctx, l.shards[oldest], func(_ int64, x *blockIndex) bool {
			ok := over > 0 && n < expireBlocks && (n == 0 || len(l.shards) == 1 || x.received <= at)
			over -= x.bytes
			n++
			return ok
		})
		if err != nil {
			return err
		}
	}
}

func (l *Log) firstIndex(shard int, floor int64) (x blockIndex, err error) {
	done, err := l.use()
	if err != nil {
		return x, err
	}
	defer done()
	err = l.db.View(func(txn *badger.Txn) error {
		b, err := get(txn, indexKey(shard, floor))
		if err == nil && b != nil {
			x, err = decodeIndex(b)
		}
		return err
	})
	if err != nil {
		return x, fmt.Errorf("read the first block of shard %d: %w", shard, err)
	}
	return x, nil
}

// expireWhile takes blocks from the front of a shard for as long as old says
// so, expireBlocks in a transaction.
func (l *Log) expireWhile(ctx context.Context, s *shard, old func(offset int64, x *blockIndex) bool) error {
	limit := expireBlocks
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		more, err := l.expire(s, limit, old)
		if errors.Is(err, badger.ErrTxnTooBig) && limit > 1 {
			limit = 1 // blocks of very many devices
			continue
		}
		if err != nil {
			return fmt.Errorf("delete from shard %d: %w", s.n, err)
		}
		if !more {
			return nil
		}
	}
}

// expire is one transaction of retention, of up to limit blocks. more: it may
// have left some.
func (l *Log) expire(s *shard, limit int, old func(offset int64, x *blockIndex) bool) (more bool, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	done, err := l.use()
	if err != nil {
		return false, err
	}
	defer done()
	txn := l.db.NewTransaction(true)
	defer txn.Discard()
	e := expiry{l: l, s: s, txn: txn, next: s.snapshot(), st: staged{
		devices: map[string]*commitlog.DeviceCoverage{},
		epochs:  map[stream.ID]*commitlog.EpochState{},
	}}
	blocks := 0
	for more = true; more && blocks < limit; {
		if more, err = e.first(old); err != nil {
			return false, err
		}
		if more {
			blocks++
		}
	}
	if blocks == 0 {
		return false, nil
	}
	was := s.snapshot()
	gone := e.next.floor - was.floor
	e.next.expired += gone
	if err := errors.Join(e.st.write(txn), txn.Set(shardKey(s.n), e.next.encode())); err != nil {
		return false, err
	}
	if err := l.commit(s, txn, e.next, e.st.devices); err != nil {
		return false, err
	}
	l.dead.Add(was.bytes - e.next.bytes)
	l.counts.expiredBlocks.Add(int64(blocks))
	l.counts.expiredRecords.Add(gone)
	return more, nil
}

// expiry is what one transaction of retention has gathered.
type expiry struct {
	l    *Log
	s    *shard
	txn  *badger.Txn
	next shardState
	st   staged
}

// first takes the first block away if old says so.
func (e *expiry) first(old func(offset int64, x *blockIndex) bool) (gone bool, err error) {
	floor := e.next.floor
	if floor >= e.next.next {
		return false, nil
	}
	b, err := get(e.txn, indexKey(e.s.n, floor))
	if err != nil {
		return false, err
	}
	if b == nil {
		return false, fmt.Errorf("%w: no block begins at the floor %d", ErrDamaged, floor)
	}
	x, err := decodeIndex(b)
	if err != nil || !old(floor, &x) {
		return false, err
	}
	body, err := fetch(e.txn, e.s.n, floor, &x)
	if err != nil {
		return false, err
	}
	h, err := decodeHead(body)
	if err != nil {
		return false, err
	}
	for i := range h.runs {
		if err := e.cover(&h.runs[i]); err != nil {
			return false, err
		}
		if err := e.txn.Delete(deviceKey(h.runs[i].id.Device, floor)); err != nil {
			return false, err
		}
	}
	e.next.floor += int64(x.count)
	e.next.bytes -= x.bytes
	return true, nil
}

// cover notes in the coverage that a run has expired.
func (e *expiry) cover(x *runHead) error {
	device := x.id.Device
	c := e.st.devices[device]
	if c == nil {
		stored, err := e.l.coverage(e.s, device)
		if err != nil {
			return err
		}
		if stored == nil {
			return fmt.Errorf("%w: records of %s, but no coverage", ErrDamaged, device)
		}
		c = stored.Clone()
		e.st.devices[device] = c
	}
	// an epoch that was forgotten stays so
	if changed := c.Expire(x.id, x.seqs...); changed != nil {
		e.st.epochs[stream.ID{Device: device, Epoch: changed.ID}] = changed
	}
	return nil
}
