package local

import (
	"encoding/binary"
	"fmt"

	"github.com/dgraph-io/badger/v4"
)

// What lies below the floors is dropped from Badger's tables by prefix, not
// deleted key by key: a deletion gives no space back before Badger has moved it
// through all levels, which takes more writes, and a full log takes none.

const (
	// dropAfter is how much may lie below the floors before it is dropped; less
	// when the disk is full. A drop stops writers and readers while tables are
	// rewritten.
	dropAfter = 128 << 20
	// dropPrefixes bounds the work of a drop: below that many prefixes of one
	// length, shorter ones are used and what they leave is dropped later.
	dropPrefixes = 512
)

// drop gives back the space of what lies below the floors.
func (l *Log) drop() error {
	for _, s := range l.shards {
		s.writing.Lock()
		defer s.writing.Unlock()
	}
	done, err := l.use()
	if err != nil {
		return err
	}
	defer done()
	var prefixes [][]byte
	err = l.db.View(func(txn *badger.Txn) error {
		for _, s := range l.shards {
			floor := s.snapshot().floor
			for _, kind := range []byte{kindBlock, kindIndex} {
				base := appendShard(nil, kind, s.n)
				if first := firstOffset(txn, base); first < floor {
					prefixes = append(prefixes, below(base, first, floor)...)
				}
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("look for what lies below the floors: %w", err)
	}
	if len(prefixes) == 0 {
		return nil
	}
	l.log.Info("giving back the space of expired records", "prefixes", len(prefixes))
	if err := l.db.DropPrefix(prefixes...); err != nil {
		return l.fail(fmt.Errorf("drop what lies below the floors: %w", err))
	}
	return nil
}

// firstOffset is that of the first key of a shard, the highest of all where
// there is none.
func firstOffset(txn *badger.Txn, base []byte) int64 {
	it := txn.NewIterator(badger.IteratorOptions{Prefix: base})
	defer it.Close()
	it.Rewind()
	if !it.Valid() || len(it.Item().Key()) < len(base)+8 {
		return 1<<63 - 1
	}
	return int64(binary.BigEndian.Uint64(it.Item().Key()[len(base):]))
}

// below gives prefixes that together stand for offsets from no higher than
// first up to, not including, one that is no higher than floor.
func below(base []byte, first, floor int64) (all [][]byte) {
	lo, hi := uint64(first), uint64(floor)
	for shift := 0; (hi-lo)>>shift > dropPrefixes; shift += 8 {
		hi = hi >> (shift + 8) << (shift + 8)
	}
	for shift := 56; shift >= 0; shift -= 8 {
		above := uint64(0) // the bytes that the prefixes share with hi
		if shift < 56 {
			above = hi >> (shift + 8) << (shift + 8)
		}
		for v := range hi >> shift & 0xff {
			end := above + (v+1)<<shift // the first offset behind the prefix
			if end <= lo {
				continue
			}
			p := append(make([]byte, 0, len(base)+8), base...)
			p = binary.BigEndian.AppendUint64(p, above+v<<shift)
			all = append(all, p[:len(base)+8-shift/8])
		}
	}
	return all
}
