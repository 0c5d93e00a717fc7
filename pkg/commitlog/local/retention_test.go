package local

import (
	"context"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

func TestRetention(t *testing.T) {
	now := time.UnixMicro(1_700_000_000_000_000)
	r := newRig(t, Options{Shards: 2, Retention: Retention{MaxAge: time.Hour}})
	r.now = func() time.Time { return now }
	owners := []commitlog.Owner{r.owner(0), r.owner(1)}
	put := func(device string, first uint64, age time.Duration) {
		e := group(1, 100, first)[0]
		e.ID.Device, e.Received = device, now.Add(-age).UnixMicro()
		r.append(owners[commitlog.ShardOf(device, 2)], e)
	}
	devices := [2]string{}
	for i := 0; devices[0] == "" || devices[1] == ""; i++ {
		d := "ship-" + string(rune('a'+i))
		devices[commitlog.ShardOf(d, 2)] = d
	}
	put(devices[0], 1, 3*time.Hour)
	put(devices[0], 101, 2*time.Hour)
	put(devices[0], 201, time.Minute)
	put(devices[1], 1, 30*time.Minute)
	put(devices[1], 101, 10*time.Minute)
	if err := r.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a, b := r.count(commitlog.Filter{Device: devices[0]}), r.count(commitlog.Filter{Device: devices[1]}); a != 100 || b != 200 {
		t.Fatalf("by age: %d and %d records left", a, b)
	}
	s := r.Stats()
	if s.ExpiredRecords != 200 || s.ExpiredBlocks != 2 || s.StoredRecords != 300 {
		t.Fatalf("%+v", s)
	}
	r.Log.o.Retention = Retention{MaxBytes: s.StoredBytes - 1}
	if err := r.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	// the oldest of all shards goes, and no more than needed
	if a, b := r.count(commitlog.Filter{Device: devices[0]}), r.count(commitlog.Filter{Device: devices[1]}); a != 100 || b != 100 {
		t.Fatalf("by bytes: %d and %d records left", a, b)
	}
	r.Log.o.Retention = Retention{MaxBytes: 1}
	if err := r.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := r.Stats(); s.StoredBytes != 0 || s.StoredRecords != 0 || r.count(commitlog.Filter{}) != 0 {
		t.Fatalf("%+v", s)
	}
	r.o.Retention = Retention{}
	r.reopen()
	c, err := r.Coverage(t.Context(), devices[0])
	if err != nil {
		t.Fatal(err)
	}
	l := c.Epochs[0].Lanes[stream.Normal]
	if l.In.String() != "1-300" || l.Expired.String() != "1-300" {
		t.Fatalf("in %s, expired %s", &l.In, &l.Expired)
	}
	o := r.owner(0)
	if got := o.Coverage(devices[0]); got == nil || got.Lane(stream.ID{Epoch: c.Epochs[0].ID, Lane: stream.Normal}).In.Count() != 300 {
		t.Fatal("retention forgot coverage")
	}
}

// Run sweeps at once and ends with its context.
func TestRun(t *testing.T) {
	r := newRig(t, Options{Retention: Retention{MaxBytes: 1}})
	r.append(r.owner(0), group(1, 10, 1)...)
	news := r.news()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	<-news
	cancel()
	if err := <-done; err != nil {
		t.Fatalf("run: %v", err)
	}
	if s := r.Stats(); s.ExpiredRecords != 10 {
		t.Fatalf("%+v", s)
	}
}

// Nothing below the floor exists, even where its bytes do.
func TestFloorRules(t *testing.T) {
	r := newRig(t, Options{})
	o := r.owner(0)
	for n := range uint64(3) {
		r.append(o, group(2, 50, 50*n+1)...)
	}
	kept := map[string][]byte{}
	err := r.db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.DefaultIteratorOptions)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			if k := it.Item().Key()[0]; k == kindBlock || k == kindIndex || k == kindDevice {
				v, err := it.Item().ValueCopy(nil)
				if err != nil {
					return err
				}
				kept[string(it.Item().Key())] = v
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	r.expireTo(0, 150)
	if n := r.count(commitlog.Filter{}); n != 100 {
		t.Fatalf("%d records", n)
	}
	err = r.db.Update(func(txn *badger.Txn) error { // deleted keys come back
		for k, v := range kept {
			if err := txn.Set([]byte(k), v); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if all, one := r.count(commitlog.Filter{}), r.count(commitlog.Filter{Device: "truck-1"}); all != 100 || one != 50 {
		t.Fatalf("%d records, %d of one device: some from below the floor", all, one)
	}
}
