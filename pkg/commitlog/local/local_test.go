package local

import (
	"context"
	"errors"
	"testing"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/commitlog/logtest"
)

// rig is a log that can be closed and opened again.
type rig struct {
	t *testing.T
	o Options
	*Log
}

func newRig(t *testing.T, o Options) *rig {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	o.MinFree = -1
	r := &rig{t: t, o: o}
	r.open()
	t.Cleanup(func() { _ = r.Log.Close() })
	return r
}

func (r *rig) open() *Log {
	r.t.Helper()
	l, err := Open(r.o)
	if err != nil {
		r.t.Fatalf("open: %v", err)
	}
	r.Log = l
	return l
}

func (r *rig) reopen() *Log {
	r.t.Helper()
	if err := r.Log.Close(); err != nil {
		r.t.Fatalf("close: %v", err)
	}
	return r.open()
}

// expire deletes blocks of a shard until its floor is at or above offset.
func (l *Log) expireTo(t *testing.T, shard int, offset int64) {
	t.Helper()
	err := l.expireWhile(t.Context(), l.shards[shard], func(at int64, _ *blockIndex) bool { return at < offset })
	if err != nil {
		t.Fatalf("expire: %v", err)
	}
}

func TestContract(t *testing.T) {
	logtest.Run(t, func(t *testing.T, shards int) *logtest.Harness {
		r := newRig(t, Options{Shards: shards})
		return &logtest.Harness{
			Log:    r.Log,
			Reopen: func(*testing.T) commitlog.Log { return r.reopen() },
			Expire: func(t *testing.T, shard int, offset int64) { r.expireTo(t, shard, offset) },
		}
	})
}

var _ = context.Background
var _ = errors.Is
