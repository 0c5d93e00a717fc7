package logtest

import (
	"testing"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

func TestMem(t *testing.T) {
	Run(t, func(t *testing.T, shards int) *Harness {
		m := NewMem(shards)
		return &Harness{
			Log:    m,
			Reopen: func(*testing.T) commitlog.Log { return m.Reopen() },
			Expire: func(_ *testing.T, shard int, offset int64) { m.Expire(shard, offset) },
		}
	})
}

// Each outcome does what its name says, and nothing else.
func TestMemOutcomes(t *testing.T) {
	id := stream.ID{Device: device(0, 0), Epoch: epoch(1), Lane: stream.Normal}
	for _, c := range []struct {
		outcome Outcome
		err     error
		in      int
		owns    bool
	}{
		{Commit, nil, 2, true},
		{Reject, commitlog.ErrRejected, 0, true},
		{NoSpace, commitlog.ErrNoSpace, 0, true},
		{Fence, commitlog.ErrFenced, 0, false},
		{UnknownIn, commitlog.ErrUnknown, 2, false},
		{UnknownOut, commitlog.ErrUnknown, 0, false},
	} {
		m := NewMem(shards)
		o := acquire(t, m, 0)
		m.Inject(func(int, []commitlog.Entry) Outcome { return c.outcome })
		wantErr(t, "append", o.Append(t.Context(), []commitlog.Entry{entry(id, span(1, 2))}), c.err)
		m.Inject(nil)
		if got := read(t, m, commitlog.Cursor{}, commitlog.Filter{}); len(got) != c.in {
			t.Errorf("outcome %d: %d records, want %d", c.outcome, len(got), c.in)
		}
		if err := o.Append(t.Context(), nil); (err == nil) != c.owns {
			t.Errorf("outcome %d: the barrier after it says %v", c.outcome, err)
		}
	}
}

func TestMemRestore(t *testing.T) {
	id := stream.ID{Device: device(0, 0), Epoch: epoch(1), Lane: stream.Normal}
	m := NewMem(shards)
	o := acquire(t, m, 0)
	mustAppend(t, o, entry(id, span(1, 2)))
	old, b := m.ID(), m.Backup()
	mustAppend(t, o, entry(id, span(3, 4)))
	m.Restore(b)
	if m.ID().Name != old.Name || m.ID() == old {
		t.Errorf("restored %s is %s", old, m.ID())
	}
	wantErr(t, "append", o.Append(t.Context(), nil), commitlog.ErrFenced)
	if got := read(t, m, commitlog.Cursor{}, commitlog.Filter{}); len(got) != 2 {
		t.Errorf("%d records after the restore", len(got))
	}
	m.Wipe()
	if m.ID().Name == old.Name {
		t.Error("a wiped log has its old name")
	}
	sameCoverage(t, m, nil, id.Device, nil)
}
