package local

import (
	"context"
	"fmt"
	"iter"

	"github.com/dgraph-io/badger/v4"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

// What one look into the store brings into memory at most: a store transaction
// held longer would keep Badger from compacting.
const (
	lookBlocks = 512
	lookBytes  = 1 << 20
)

// Read implements commitlog.Reader.
func (l *Log) Read(ctx context.Context, from commitlog.Cursor, f commitlog.Filter) iter.Seq2[commitlog.Stored, error] {
	return func(yield func(commitlog.Stored, error) bool) {
		if err := f.Check(); err != nil {
			yield(commitlog.Stored{}, err)
			return
		}
		r := reading{l: l, f: &f, yield: yield}
		for i := range l.shards {
			if f.Device == "" || commitlog.ShardOf(f.Device, len(l.shards)) == i {
				r.tails = append(r.tails, tail{shard: i, at: from.Next(i)})
			}
		}
		if f.Follow {
			l.counts.followers.Add(1)
			defer l.counts.followers.Add(-1)
		}
		for r.pass(ctx) {
			if !f.Follow {
				return
			}
			select {
			case <-r.news:
			case <-ctx.Done():
				r.stop(ctx.Err())
				return
			}
		}
	}
}

// reading is one Read under way.
type reading struct {
	l     *Log
	f     *commitlog.Filter
	yield func(commitlog.Stored, error) bool
	tails []tail
	news  <-chan struct{}
}

type tail struct {
	shard   int
	at, end int64
}

func (r *reading) stop(err error) bool {
	r.yield(commitlog.Stored{}, err)
	return false
}

// pass gives all that is committed now, a look at each shard in turn. It
// returns false when it has stopped.
func (r *reading) pass(ctx context.Context) bool {
	r.news = r.l.news() // before the ends are read, so that nothing slips between
	for i := range r.tails {
		t := &r.tails[i]
		t.end = r.l.shards[t.shard].snapshot().next
	}
	for more := true; more; {
		more = false
		for i := range r.tails {
			t := &r.tails[i]
			if t.at >= t.end {
				continue
			}
			if err := ctx.Err(); err != nil {
				return r.stop(err)
			}
			found, err := r.l.look(t, r.f)
			if err != nil {
				return r.stop(err)
			}
			for j := range found {
				if ok, err := r.give(t, &found[j]); err != nil {
					return r.stop(err)
				} else if !ok {
					return false
				}
			}
			more = true
		}
	}
	// a closed or failed log is noticed at the end too
	done, err := r.l.use()
	if err != nil {
		return r.stop(err)
	}
	done()
	return true
}

// found is a block that may hold what is looked for.
type found struct {
	from, offset int64 // records below from are not wanted
	body         []byte
}

// look brings the next blocks of a shard into memory and moves t behind them.
func (l *Log) look(t *tail, f *commitlog.Filter) (all []found, err error) {
	done, err := l.use()
	if err != nil {
		return nil, err
	}
	defer done()
	from := max(t.at, l.shards[t.shard].snapshot().floor)
	next := t.end
	prefix := appendShard(nil, kindIndex, t.shard)
	if f.Device != "" {
		prefix = namePrefix(kindDevice, f.Device)
	}
	err = l.db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Prefix: prefix})
		defer it.Close()
		bytes := 0
		// the block that holds from begins less than a block's records before it
		for it.Seek(seekKey(prefix, max(0, from-maxBlockRecords+1))); it.Valid(); it.Next() {
			offset := offsetOf(it.Item().Key())
			if offset >= t.end {
				break
			}
			if len(all) >= lookBlocks || bytes >= lookBytes {
				next = offset
				break
			}
			body, err := l.block(txn, it.Item(), t.shard, offset, from, f)
			if err != nil {
				return err
			}
			if body != nil {
				all = append(all, found{from, offset, body})
				bytes += len(body)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read shard %d: %w", t.shard, err)
	}
	t.at = next
	return all, nil
}

func seekKey(prefix []byte, offset int64) []byte {
	k := append(make([]byte, 0, len(prefix)+8), prefix...)
	for shift := 56; shift >= 0; shift -= 8 {
		k = append(k, byte(offset>>shift))
	}
	return k
}

// block fetches the block of an index entry, nil when it holds nothing that is
// looked for.
func (l *Log) block(txn *badger.Txn, item *badger.Item, shard int, offset, from int64, f *commitlog.Filter) ([]byte, error) {
	value, err := item.ValueCopy(nil)
	if err != nil {
		return nil, err
	}
	if f.Device != "" {
		times, err := decodeTimes(value)
		if err != nil || !f.Overlaps(times.first, times.last) {
			return nil, err
		}
		if value, err = get(txn, indexKey(shard, offset)); err != nil {
			return nil, err
		}
		if value == nil {
			if offset < l.shards[shard].snapshot().floor {
				return nil, nil
			}
			return nil, fmt.Errorf("%w: no block at %d, where its device index says", ErrDamaged, offset)
		}
	}
	x, err := decodeIndex(value)
	if err != nil || offset+int64(x.count) <= from || !f.Overlaps(x.at.first, x.at.last) {
		return nil, err
	}
	body, err := fetch(txn, shard, offset, &x)
	if err != nil && offset < l.shards[shard].snapshot().floor {
		return nil, nil // it expired and was dropped meanwhile: drops spare no reader
	}
	return body, err
}

// fetch puts the parts of a block together.
func fetch(txn *badger.Txn, shard int, offset int64, x *blockIndex) ([]byte, error) {
	body := make([]byte, 0, x.bytes)
	for part := range x.parts {
		item, err := txn.Get(blockKey(shard, offset, part))
		if err != nil {
			return nil, fmt.Errorf("%w: part %d of the block at %d: %w", ErrDamaged, part, offset, err)
		}
		err = item.Value(func(b []byte) error {
			body = append(body, b...)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if int64(len(body)) != x.bytes {
		return nil, fmt.Errorf("%w: the block at %d has %d bytes, its index says %d", ErrDamaged, offset, len(body), x.bytes)
	}
	return body, nil
}

// give yields what a block holds of what is looked for.
func (r *reading) give(t *tail, b *found) (ok bool, err error) {
	h, err := decodeHead(b.body)
	if err != nil {
		return false, fmt.Errorf("shard %d, offset %d: %w", t.shard, b.offset, err)
	}
	ok = true
	err = h.records(func(i int, x *runHead, rec stream.Record) bool {
		s := commitlog.Stored{
			Device: x.id.Device, Epoch: x.id.Epoch, Lane: x.id.Lane, Record: rec, Flags: x.flags, Received: x.received,
			Shard: t.shard, Offset: b.offset + int64(i),
		}
		if s.Offset >= b.from && s.Offset < t.end && r.f.Match(&s) {
			ok = r.yield(s, nil)
		}
		return ok
	})
	if err != nil {
		return false, fmt.Errorf("shard %d, offset %d: %w", t.shard, b.offset, err)
	}
	return ok, nil
}

// Devices implements commitlog.Reader.
func (l *Log) Devices(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		last := ""
		for {
			names, err := l.devices(last)
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield("", err)
				return
			}
			if len(names) == 0 {
				return
			}
			for _, d := range names {
				if !yield(d, nil) {
					return
				}
			}
			last = names[len(names)-1]
		}
	}
}

// devices gives the next devices behind last, by name.
func (l *Log) devices(last string) (names []string, err error) {
	done, err := l.use()
	if err != nil {
		return nil, err
	}
	defer done()
	err = l.db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte{kindCoverage}})
		defer it.Close()
		// behind all keys of a device: its name and a byte above the zero that ends it
		behind := func(d string) []byte { return append(append([]byte{kindCoverage}, d...), 1) }
		if it.Rewind(); last != "" {
			it.Seek(behind(last))
		}
		for len(names) < 1000 && it.Valid() {
			key := it.Item().Key()[1:]
			n := 0
			for n < len(key) && key[n] != 0 {
				n++
			}
			names = append(names, string(key[:n]))
			it.Seek(behind(names[len(names)-1]))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	return names, nil
}

// Coverage implements commitlog.Reader.
func (l *Log) Coverage(ctx context.Context, device string) (*commitlog.DeviceCoverage, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	done, err := l.use()
	if err != nil {
		return nil, err
	}
	defer done()
	// not kept: a reader of the whole log would fill the memory
	c, ok := l.shards[commitlog.ShardOf(device, len(l.shards))].cached(device)
	if !ok {
		if c, err = l.loadCoverage(device); err != nil {
			return nil, err
		}
		if err := l.failed(); err != nil { // it may show what is not durable
			return nil, err
		}
	}
	if c == nil {
		return nil, nil
	}
	return c.Clone(), nil
}

// Extent implements commitlog.Reader.
func (l *Log) Extent(ctx context.Context) ([]commitlog.ShardExtent, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	done, err := l.use()
	if err != nil {
		return nil, err
	}
	defer done()
	all := make([]commitlog.ShardExtent, len(l.shards))
	for i, s := range l.shards {
		st := s.snapshot()
		all[i] = commitlog.ShardExtent{Shard: i, Floor: st.floor, Next: st.next, Bytes: st.bytes}
	}
	return all, nil
}
