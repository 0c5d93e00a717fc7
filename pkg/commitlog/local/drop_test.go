package local

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"pgregory.net/rapid"

	"github.com/packetboat/packetboat/pkg/commitlog"
)

// What is dropped reaches from the first offset to the floor, or nearly, and
// never to the floor.
func TestBelow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		floor := rapid.Int64Range(1, 1<<rapid.IntRange(1, 62).Draw(t, "bits")).Draw(t, "floor")
		first := rapid.Int64Range(0, floor-1).Draw(t, "first")
		base := []byte("b\x00\x01")
		all := below(base, first, floor)
		if len(all) > dropPrefixes+8*256 {
			t.Fatalf("%d prefixes", len(all))
		}
		covered := func(offset int64) bool {
			k := binary.BigEndian.AppendUint64(append([]byte{}, base...), uint64(offset))
			n := 0
			for _, p := range all {
				if bytes.HasPrefix(k, p) {
					n++
				}
			}
			if n > 1 {
				t.Fatalf("%d lies below %d prefixes", offset, n)
			}
			return n == 1
		}
		if covered(floor) || covered(floor+rapid.Int64Range(0, 1<<40).Draw(t, "above")) {
			t.Fatal("what is not below the floor would be dropped")
		}
		reach := floor - first
		if reach <= dropPrefixes {
			if !covered(first) || !covered(floor-1) || !covered(rapid.Int64Range(first, floor-1).Draw(t, "within")) {
				t.Fatalf("of %d to %d something is left", first, floor)
			}
			return
		}
		// at most one prefix's worth of the whole is left at the end
		if end := floor - reach/2 - 1; !covered(first) || !covered(end) {
			t.Fatalf("from %d to %d: the first covered %v, %d covered %v", first, floor, covered(first), end, covered(end))
		}
	})
}

// keys counts what is in the store, by kind.
func (r *rig) keys() map[byte]int {
	r.t.Helper()
	n := map[byte]int{}
	err := r.db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			n[it.Item().Key()[0]]++
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

// A drop takes all that lies below the floors and nothing else, also while there
// are readers, and appending goes on behind it.
func TestDrop(t *testing.T) {
	r := newRig(t, Options{Shards: 2, Retention: Retention{MaxBytes: 1}})
	owners := []commitlog.Owner{r.owner(0), r.owner(1)}
	put := func(first uint64) {
		for _, e := range group(4, 700, first) {
			r.append(owners[commitlog.ShardOf(e.ID.Device, 2)], e)
		}
	}
	for n := range uint64(8) {
		put(700*n + 1)
	}
	r.expireTo(0, r.shards[0].snapshot().next/2)
	before := r.count(commitlog.Filter{})
	floor := r.shards[0].snapshot().floor
	had := r.keys()
	r.reopen() // what lies below the floor does not disturb
	if err := r.drop(); err != nil {
		t.Fatal(err)
	}
	owners = []commitlog.Owner{r.owner(0), r.owner(1)}
	blocks := 8 * 4
	gone := int(floor) / 700
	if k := r.keys(); had[kindBlock] != blocks || k[kindBlock] != blocks-gone || k[kindIndex] != blocks-gone || k[kindCoverage] != had[kindCoverage] || k[kindDevice] != had[kindDevice] {
		t.Fatalf("%d blocks expired: keys %v, had %v", gone, k, had)
	}
	if n := r.count(commitlog.Filter{}); n != before || floor == 0 {
		t.Fatalf("%d records, were %d", n, before)
	}
	put(700*8 + 1)
	if err := r.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if k := r.keys(); k[kindBlock] != 0 || k[kindIndex] != 0 || k[kindDevice] != 0 {
		t.Fatalf("everything expired, left are %v", k)
	}
	put(700*9 + 1)
	r.reopen()
	if n := r.count(commitlog.Filter{}); n != 4*700 {
		t.Fatalf("%d records", n)
	}
	for d := range 4 {
		c, err := r.Coverage(t.Context(), group(4, 1, 1)[d].ID.Device)
		if err != nil || c.Epochs[0].Lanes[2].In.String() != "1-7000" || c.Epochs[0].Lanes[2].Expired.String() != "1-6300" {
			t.Fatalf("coverage: %v %+v", err, c)
		}
	}
}

// A reader that has found a block before it is dropped passes it over; one that
// misses a block above the floor says so.
func TestReadBesideDrop(t *testing.T) {
	r := newRig(t, Options{})
	o := r.owner(0)
	r.append(o, group(1, 10, 1)...)
	r.append(o, group(1, 10, 11)...)
	err := r.db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Prefix: appendShard(nil, kindIndex, 0)})
		defer it.Close()
		it.Rewind()
		r.expireTo(0, 10)
		if err := r.drop(); err != nil {
			return err
		}
		body, err := r.block(txn, it.Item(), 0, 0, 0, &commitlog.Filter{})
		if body != nil || err != nil {
			t.Errorf("a dropped block: %d bytes, %v", len(body), err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if k := r.keys(); k[kindBlock] != 1 {
		t.Fatalf("the drop left %v", k)
	}
	if err := r.db.Update(func(txn *badger.Txn) error { return txn.Delete(blockKey(0, 10, 0)) }); err != nil {
		t.Fatal(err)
	}
	var got error
	for _, err := range r.Read(t.Context(), commitlog.Cursor{}, commitlog.Filter{}) {
		got = err
	}
	if !errors.Is(got, ErrDamaged) {
		t.Errorf("a missing block: %v", got)
	}
}
