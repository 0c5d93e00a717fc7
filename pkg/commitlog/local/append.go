package local

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/dgraph-io/badger/v4"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

// Acquire implements commitlog.Log. It waits for what the owner before has
// under way and commits an owner record.
func (l *Log) Acquire(ctx context.Context, n int) (commitlog.Owner, error) {
	if n < 0 || n >= len(l.shards) {
		return nil, fmt.Errorf("there is no shard %d of %d", n, len(l.shards))
	}
	if l.o.ReadOnly {
		return nil, ErrReadOnly
	}
	s := l.shards[n]
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	done, err := l.use()
	if err != nil {
		return nil, err
	}
	defer done()
	s.owner = nil
	if err := l.barrier(s); err != nil {
		return nil, err
	}
	s.owner = &owner{l, s}
	return s.owner, nil
}

// owner implements commitlog.Owner. It owns while it is its shard's owner.
type owner struct {
	l *Log
	s *shard
}

// Release implements commitlog.Owner.
func (o *owner) Release() error {
	o.s.writing.Lock()
	defer o.s.writing.Unlock()
	if o.s.owner == o {
		o.s.owner = nil
	}
	return nil
}

// Coverage implements commitlog.Owner.
func (o *owner) Coverage(device string) *commitlog.DeviceCoverage {
	if commitlog.ShardOf(device, len(o.l.shards)) != o.s.n {
		return nil
	}
	done, err := o.l.use()
	if err != nil {
		return nil
	}
	defer done()
	c, err := o.l.coverage(o.s, device)
	if err != nil {
		o.l.log.Error("coverage cannot be read", "device", device, "error", err)
		_ = o.l.fail(err) // to answer "never seen" would let doubles in
		return nil
	}
	if c == nil {
		return nil
	}
	return c.Clone()
}

// coverage is the committed coverage of a device, loaded if it must be, nil if
// there is none. It must not be changed.
func (l *Log) coverage(s *shard, device string) (*commitlog.DeviceCoverage, error) {
	if c, ok := s.cached(device); ok {
		return c, nil
	}
	c, err := l.loadCoverage(device)
	if err != nil || c == nil {
		return nil, err
	}
	s.view.Lock()
	defer s.view.Unlock()
	// an Append that committed meanwhile has put what is newer
	if newer, ok := s.devices[device]; ok {
		return newer, nil
	}
	s.devices[device] = c
	return c, nil
}

func (l *Log) loadCoverage(device string) (c *commitlog.DeviceCoverage, err error) {
	err = l.db.View(func(txn *badger.Txn) error {
		prefix := namePrefix(kindCoverage, device)
		var head []byte
		var epochs []*commitlog.EpochState
		it := txn.NewIterator(badger.IteratorOptions{Prefix: prefix})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			b, err := it.Item().ValueCopy(nil)
			if err != nil {
				return err
			}
			if len(it.Item().Key()) == len(prefix) {
				head = b
				continue
			}
			e, err := commitlog.DecodeEpoch(b)
			if err != nil {
				return fmt.Errorf("%w: %w", ErrDamaged, err)
			}
			epochs = append(epochs, e)
		}
		if head == nil && epochs == nil {
			return nil
		}
		c, err = commitlog.LoadDevice(head, epochs)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read coverage of %s: %w", device, err)
	}
	return c, nil
}

// Append implements commitlog.Owner.
func (o *owner) Append(ctx context.Context, group []commitlog.Entry) error {
	l, s := o.l, o.s
	s.writing.Lock()
	defer s.writing.Unlock()
	done, err := l.use()
	if err != nil {
		s.owner = nil
		if errors.Is(err, commitlog.ErrClosed) {
			return err
		}
		return fmt.Errorf("%w: %w", commitlog.ErrFenced, err)
	}
	defer done()
	if s.owner != o {
		l.counts.fenced.Add(1)
		return commitlog.ErrFenced
	}
	if err := ctx.Err(); err != nil {
		return l.reject(err)
	}
	if err := l.checkSpace(); err != nil {
		l.counts.rejected.Add(1)
		l.counts.noSpace.Add(1)
		return err
	}
	if len(group) == 0 {
		return l.barrier(s)
	}
	return l.append(s, group)
}

func (l *Log) reject(cause error) error {
	l.counts.rejected.Add(1)
	if errors.Is(cause, commitlog.ErrRejected) {
		return cause
	}
	return fmt.Errorf("%w: %w", commitlog.ErrRejected, cause)
}

// checkSpace keeps the disk from filling up: Badger writes through memory maps
// and would be killed by it.
func (l *Log) checkSpace() error {
	if l.o.MinFree < 0 {
		return nil
	}
	free, err := freeBytes(l.o.Dir)
	if err != nil {
		return fmt.Errorf("%w: %w", commitlog.ErrNoSpace, err)
	}
	l.counts.freeBytes.Store(free)
	full := free < l.o.MinFree
	if l.counts.full.Swap(full) != full {
		l.log.Warn("free space crossed the limit", "free_bytes", free, "min_free", l.o.MinFree, "full", full)
	}
	if full {
		return fmt.Errorf("%w: %d MiB free in %s, the limit is %d MiB", commitlog.ErrNoSpace, free>>20, l.o.Dir, l.o.MinFree>>20)
	}
	return nil
}

// barrier commits an owner record. writing is held.
func (l *Log) barrier(s *shard) error {
	next := s.snapshot()
	next.acquired++
	txn := l.db.NewTransaction(true)
	defer txn.Discard()
	if err := txn.Set(shardKey(s.n), next.encode()); err != nil {
		return l.reject(err)
	}
	return l.commit(s, txn, next, nil)
}

// staged is the outcome of folding a group, before it is committed.
type staged struct {
	devices map[string]*commitlog.DeviceCoverage
	epochs  map[stream.ID]*commitlog.EpochState // by device and epoch; nil: forgotten
	heads   map[string]bool
	losses  uint64
}

// fold applies a group to copies of the coverage.
func (l *Log) fold(s *shard, group []commitlog.Entry) (*staged, error) {
	st := &staged{
		devices: map[string]*commitlog.DeviceCoverage{},
		epochs:  map[stream.ID]*commitlog.EpochState{},
		heads:   map[string]bool{},
	}
	for i := range group {
		e := &group[i]
		device := e.ID.Device
		if n := commitlog.ShardOf(device, len(l.shards)); n != s.n {
			return nil, fmt.Errorf("device %.80q is of shard %d, not %d", device, n, s.n)
		}
		c := st.devices[device]
		if c == nil {
			stored, err := l.coverage(s, device)
			if err != nil {
				return nil, err
			}
			if c = new(commitlog.DeviceCoverage); stored != nil {
				c = stored.Clone()
			}
			st.devices[device] = c
		}
		ch, err := c.Apply(e)
		if err != nil {
			return nil, err
		}
		st.epochs[stream.ID{Device: device, Epoch: ch.Epoch.ID}] = ch.Epoch
		for _, gone := range ch.Forgotten {
			st.epochs[stream.ID{Device: device, Epoch: gone}] = nil
		}
		if ch.Device {
			st.heads[device] = true
		}
		for _, x := range e.Losses {
			st.losses += x.Count()
		}
	}
	return st, nil
}

// write puts the coverage that changed into a transaction.
func (st *staged) write(txn *badger.Txn) error {
	for id, e := range st.epochs {
		key := coverageKey(id.Device, id.Epoch)
		var err error
		if e == nil {
			err = txn.Delete(key)
		} else {
			err = txn.Set(key, commitlog.AppendEpoch(nil, e))
		}
		if err != nil {
			return err
		}
	}
	for device := range st.heads {
		if err := txn.Set(namePrefix(kindCoverage, device), commitlog.AppendDevice(nil, st.devices[device])); err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) append(s *shard, group []commitlog.Entry) error {
	st, err := l.fold(s, group)
	if err != nil {
		return l.reject(err)
	}
	blocks := cut(group)
	txn := l.db.NewTransaction(true)
	defer txn.Discard()
	next := s.snapshot()
	records, bytes := next.next, next.bytes
	for _, b := range blocks {
		x, err := encodeBlock(b)
		if err == nil {
			err = writeBlock(txn, s.n, next.next, &x)
		}
		if err != nil {
			return l.reject(tooBig(err))
		}
		next.next += int64(x.index.count)
		next.bytes += x.index.bytes
	}
	if err := errors.Join(st.write(txn), txn.Set(shardKey(s.n), next.encode())); err != nil {
		return l.reject(tooBig(err))
	}
	if err := l.commit(s, txn, next, st.devices); err != nil {
		return err
	}
	l.counts.groups.Add(1)
	l.counts.records.Add(next.next - records)
	l.counts.bytes.Add(next.bytes - bytes)
	l.counts.losses.Add(int64(st.losses))
	return nil
}

func tooBig(err error) error {
	if errors.Is(err, badger.ErrTxnTooBig) {
		return fmt.Errorf("%w: %w", commitlog.ErrTooLarge, err)
	}
	return err
}

func writeBlock(txn *badger.Txn, shard int, offset int64, x *encoded) error {
	part := 0
	for b := range slices.Chunk(x.body, maxPart) {
		if err := txn.Set(blockKey(shard, offset, part), b); err != nil {
			return err
		}
		part++
	}
	if err := txn.Set(indexKey(shard, offset), x.index.encode()); err != nil {
		return err
	}
	for device, times := range x.devices {
		if err := txn.Set(deviceKey(device, offset), encodeTimes(times)); err != nil {
			return err
		}
	}
	return nil
}

// commit makes a transaction durable and publishes what it changed. writing is
// held. After any error but a rejection the log is finished.
func (l *Log) commit(s *shard, txn *badger.Txn, next shardState, devices map[string]*commitlog.DeviceCoverage) error {
	if err := txn.Commit(); err != nil {
		// these two come before the first byte is written
		if errors.Is(err, badger.ErrTxnTooBig) || errors.Is(err, badger.ErrBlockedWrites) {
			return l.reject(tooBig(err))
		}
		s.owner = nil
		return fmt.Errorf("%w: %w", commitlog.ErrUnknown, l.fail(err))
	}
	s.view.Lock()
	s.state = next
	maps.Copy(s.devices, devices)
	s.view.Unlock()
	l.wake()
	return nil
}
