package logtest

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

// Outcome is what Mem does with a group.
type Outcome int

// The outcomes of an Append that Inject can choose from.
const (
	Commit     Outcome = iota // as usual
	Reject                    // ErrRejected, nothing in
	NoSpace                   // ErrNoSpace, nothing in
	Fence                     // ErrFenced, nothing in, the owner is finished
	UnknownIn                 // ErrUnknown; the group is in
	UnknownOut                // ErrUnknown; the group is not in, and never gets in
)

// Mem is a commit log in memory: a whole one, that forgets everything with the
// process. All methods may be called from any goroutine.
type Mem struct {
	n int // shards

	mu        sync.Mutex
	id        stream.LogID  // guarded by mu
	shards    []memShard    // guarded by mu
	closed    bool          // guarded by mu
	committed chan struct{} // guarded by mu; closed at the next commit and replaced
	inject    func(shard int, group []commitlog.Entry) Outcome
}

type memShard struct {
	recs    []commitlog.Stored // offsets from floor on; only ever appended to or resliced
	floor   int64
	devices map[string]*commitlog.DeviceCoverage
	owner   *memOwner
	groups  int64
}

func (s *memShard) next() int64 { return s.floor + int64(len(s.recs)) }

// NewMem makes an empty log.
func NewMem(shards int) *Mem {
	m := &Mem{n: shards, committed: make(chan struct{})}
	m.wipe()
	return m
}

func (m *Mem) wipe() {
	m.id = stream.LogID{Name: stream.NewEpoch(), Incarnation: stream.NewEpoch()}
	m.shards = make([]memShard, m.n)
	for i := range m.shards {
		m.shards[i].devices = map[string]*commitlog.DeviceCoverage{}
	}
}

// Inject has f decide the outcome of every Append from now on; nil ends that. f
// is called without locks, before anything happens, so it may block: that is a
// slow log. It is called for barriers too, with an empty group.
func (m *Mem) Inject(f func(shard int, group []commitlog.Entry) Outcome) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inject = f
}

// Wipe makes it an empty log of another name, as when somebody deletes the
// data of a hub. Owners are fenced.
func (m *Mem) Wipe() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fenceAll()
	m.wipe()
	m.wake()
}

// Backup is the content of a Mem at one moment.
type Backup struct {
	id     stream.LogID
	shards []memShard
}

// Backup copies the log.
func (m *Mem) Backup() *Backup {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &Backup{m.id, cloneShards(m.shards)}
}

// Restore puts the log back to a backup: its name, its content, another
// incarnation. Owners are fenced.
func (m *Mem) Restore(b *Backup) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fenceAll()
	m.id = stream.LogID{Name: b.id.Name, Incarnation: stream.NewEpoch()}
	m.shards = cloneShards(b.shards)
	m.wake()
}

func cloneShards(shards []memShard) []memShard {
	out := slices.Clone(shards)
	for i := range out {
		out[i].recs = slices.Clone(out[i].recs)
		out[i].devices = map[string]*commitlog.DeviceCoverage{}
		for d, c := range shards[i].devices {
			out[i].devices[d] = c.Clone()
		}
		out[i].owner = nil
	}
	return out
}

// Reopen does what a restart of the hub does: owners are fenced, the content
// stays, and a closed log is open again.
func (m *Mem) Reopen() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fenceAll()
	m.closed = false
	return m
}

// Expire does what retention does: deletes the records of a shard below floor.
func (m *Mem) Expire(shard int, floor int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &m.shards[shard]
	for len(s.recs) > 0 && s.floor < floor {
		r := &s.recs[0]
		s.devices[r.Device].Expire(r.ID(), stream.Range{First: r.Seq, Last: r.Seq})
		s.recs = s.recs[1:]
		s.floor++
	}
}

// Groups is how many groups a shard has taken, barriers included.
func (m *Mem) Groups(shard int) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.shards[shard].groups
}

// fenceAll and wake: mu is held.
func (m *Mem) fenceAll() {
	for i := range m.shards {
		m.shards[i].owner = nil
	}
}

func (m *Mem) wake() {
	close(m.committed)
	m.committed = make(chan struct{})
}

// ID implements commitlog.Log.
func (m *Mem) ID() stream.LogID {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.id
}

// Shards implements commitlog.Log.
func (m *Mem) Shards() int { return m.n }

// NewIncarnation implements commitlog.Log.
func (m *Mem) NewIncarnation(context.Context) (stream.LogID, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return stream.LogID{}, commitlog.ErrClosed
	}
	m.fenceAll()
	m.id.Incarnation = stream.NewEpoch()
	return m.id, nil
}

// Close implements commitlog.Log.
func (m *Mem) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.closed = true
		m.fenceAll()
		m.wake()
	}
	return nil
}

// Acquire implements commitlog.Log.
func (m *Mem) Acquire(ctx context.Context, shard int) (commitlog.Owner, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case m.closed:
		return nil, commitlog.ErrClosed
	case shard < 0 || shard >= len(m.shards):
		return nil, fmt.Errorf("there is no shard %d of %d", shard, len(m.shards))
	}
	o := &memOwner{m: m, shard: shard}
	m.shards[shard].owner = o
	return o, nil
}

type memOwner struct {
	m     *Mem
	shard int
}

func (o *memOwner) Release() error {
	o.m.mu.Lock()
	defer o.m.mu.Unlock()
	if s := &o.m.shards[o.shard]; s.owner == o {
		s.owner = nil
	}
	return nil
}

func (o *memOwner) Coverage(device string) *commitlog.DeviceCoverage {
	o.m.mu.Lock()
	defer o.m.mu.Unlock()
	if c := o.m.shards[o.shard].devices[device]; c != nil {
		return c.Clone()
	}
	return nil
}

func (o *memOwner) Append(ctx context.Context, group []commitlog.Entry) error {
	m := o.m
	m.mu.Lock()
	inject := m.inject
	m.mu.Unlock()
	outcome := Commit
	if inject != nil {
		outcome = inject(o.shard, group)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &m.shards[o.shard]
	switch {
	case m.closed:
		return commitlog.ErrClosed
	case s.owner != o:
		return commitlog.ErrFenced
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", commitlog.ErrRejected, ctx.Err())
	}
	switch outcome {
	case Reject:
		return fmt.Errorf("%w: injected", commitlog.ErrRejected)
	case NoSpace:
		return commitlog.ErrNoSpace
	case Fence:
		s.owner = nil
		return commitlog.ErrFenced
	case UnknownOut:
		s.owner = nil
		return fmt.Errorf("%w: injected", commitlog.ErrUnknown)
	}
	if err := m.commit(s, o.shard, group); err != nil {
		return fmt.Errorf("%w: %w", commitlog.ErrRejected, err)
	}
	if outcome == UnknownIn {
		s.owner = nil
		return fmt.Errorf("%w: injected", commitlog.ErrUnknown)
	}
	return nil
}

// commit takes the whole group or nothing. mu is held.
func (m *Mem) commit(s *memShard, shard int, group []commitlog.Entry) error {
	staged := map[string]*commitlog.DeviceCoverage{}
	recs := s.recs
	for i := range group {
		e := &group[i]
		if commitlog.ShardOf(e.ID.Device, len(m.shards)) != shard {
			return fmt.Errorf("device %s is not of shard %d", e.ID.Device, shard)
		}
		c := staged[e.ID.Device]
		if c == nil {
			if c = s.devices[e.ID.Device]; c == nil {
				c = &commitlog.DeviceCoverage{}
			}
			c = c.Clone()
			staged[e.ID.Device] = c
		}
		if _, err := c.Apply(e); err != nil {
			return err
		}
		for j := range e.Records {
			recs = append(recs, commitlog.Stored{
				Device: e.ID.Device, Epoch: e.ID.Epoch, Lane: e.ID.Lane, Record: cloneRecord(e.Records[j]),
				Flags: e.Flags, Received: e.Received, Shard: shard, Offset: s.floor + int64(len(recs)),
			})
		}
	}
	s.recs = recs
	maps.Copy(s.devices, staged)
	s.groups++
	m.wake()
	return nil
}

func cloneRecord(r stream.Record) stream.Record {
	r.Payload = slices.Clone(r.Payload)
	if r.Properties != nil {
		p := *r.Properties
		p.CorrelationData = slices.Clone(p.CorrelationData)
		p.User = slices.Clone(p.User)
		r.Properties = &p
	}
	return r
}

// Read implements commitlog.Reader.
func (m *Mem) Read(ctx context.Context, from commitlog.Cursor, f commitlog.Filter) iter.Seq2[commitlog.Stored, error] {
	return func(yield func(commitlog.Stored, error) bool) {
		if err := f.Check(); err != nil {
			yield(commitlog.Stored{}, err)
			return
		}
		for {
			recs, more, err := m.snapshot(from)
			if err != nil {
				yield(commitlog.Stored{}, err)
				return
			}
			for i := range recs {
				if err := ctx.Err(); err != nil {
					yield(commitlog.Stored{}, err)
					return
				}
				if from.Advance(&recs[i]); !f.Match(&recs[i]) {
					continue
				}
				r := recs[i]
				r.Record = cloneRecord(r.Record)
				if !yield(r, nil) {
					return
				}
			}
			if !f.Follow {
				return
			}
			select {
			case <-more:
			case <-ctx.Done():
				yield(commitlog.Stored{}, ctx.Err())
				return
			}
		}
	}
}

// snapshot gives all that is committed from the cursor on, and a channel that
// is closed when there is more.
func (m *Mem) snapshot(from commitlog.Cursor) (all []commitlog.Stored, more <-chan struct{}, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, nil, commitlog.ErrClosed
	}
	for i := range m.shards {
		s := &m.shards[i]
		at := min(max(from.Next(i), s.floor), s.next())
		all = append(all, s.recs[at-s.floor:]...)
	}
	return all, m.committed, nil
}

// Devices implements commitlog.Reader.
func (m *Mem) Devices(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for i := range m.n {
			m.mu.Lock()
			names := slices.Sorted(maps.Keys(m.shards[i].devices))
			m.mu.Unlock()
			for _, d := range names {
				if err := ctx.Err(); err != nil {
					yield("", err)
					return
				}
				if !yield(d, nil) {
					return
				}
			}
		}
	}
}

// Coverage implements commitlog.Reader.
func (m *Mem) Coverage(_ context.Context, device string) (*commitlog.DeviceCoverage, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, commitlog.ErrClosed
	}
	if c := m.shards[commitlog.ShardOf(device, m.n)].devices[device]; c != nil {
		return c.Clone(), nil
	}
	return nil, nil
}

// Extent implements commitlog.Reader.
func (m *Mem) Extent(context.Context) ([]commitlog.ShardExtent, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, commitlog.ErrClosed
	}
	all := make([]commitlog.ShardExtent, len(m.shards))
	for i := range m.shards {
		s := &m.shards[i]
		all[i] = commitlog.ShardExtent{Shard: i, Floor: s.floor, Next: s.next()}
	}
	return all, nil
}

var _ commitlog.Log = (*Mem)(nil)
