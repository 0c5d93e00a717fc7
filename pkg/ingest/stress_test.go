package ingest

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/packetboat/packetboat/pkg/codec"
	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/commitlog/local"
	"github.com/packetboat/packetboat/pkg/commitlog/logtest"
	"github.com/packetboat/packetboat/pkg/stream"
)

// chaos is a log whose appends take their time and whose outcomes go wrong.
type chaos struct {
	commitlog.Log
	calm atomic.Bool
	odd  atomic.Int64 // outcomes that went wrong
}

type chaosOwner struct {
	commitlog.Owner
	c *chaos
}

func (c *chaos) Acquire(ctx context.Context, shard int) (commitlog.Owner, error) {
	o, err := c.Log.Acquire(ctx, shard)
	if err != nil {
		return nil, err
	}
	return &chaosOwner{o, c}, nil
}

func (o *chaosOwner) Append(ctx context.Context, group []commitlog.Entry) error {
	if o.c.calm.Load() {
		return o.Owner.Append(ctx, group)
	}
	if rand.IntN(3) == 0 {
		pause(time.Duration(rand.IntN(2000)) * time.Microsecond)
	}
	n := rand.IntN(60)
	if n < 5 {
		o.c.odd.Add(1)
	}
	switch n {
	case 0, 1:
		return fmt.Errorf("%w: chaos", commitlog.ErrRejected)
	case 2:
		_ = o.Release()
		return commitlog.ErrFenced
	case 3:
		_ = o.Release()
		return fmt.Errorf("%w: chaos, not in", commitlog.ErrUnknown)
	case 4:
		if err := o.Owner.Append(ctx, group); err != nil {
			return err
		}
		_ = o.Release()
		return fmt.Errorf("%w: chaos, but in", commitlog.ErrUnknown)
	}
	return o.Owner.Append(ctx, group)
}

// pause paces a loop; nothing depends on how long it takes.
func pause(d time.Duration) { <-time.After(d) }

// stress has many edges, some of them clones under one device id, send what they
// have through one hub that is started anew meanwhile.
type stress struct {
	log   *checked
	chaos *chaos
	o     Options

	mu    sync.RWMutex
	hub   *hub // guarded by mu
	names sync.Map
}

func (s *stress) ingest() *Ingest {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.hub.Ingest
}

func (s *stress) restart(t *testing.T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.hub.stop(); err != nil {
		t.Error(err)
	}
	s.hub = startHub(s.log, s.o, false)
}

// run is the life of one edge: n messages, sent in any order, with hang-ups and
// crashes. turns makes it end when its twin is done too.
func (s *stress) run(t *testing.T, e *simEdge, n int) {
	r := rand.New(rand.NewPCG(rand.Uint64(), 0))
	for made := 0; made < n || e.undone(); {
		for range r.IntN(8) {
			if made < n {
				name := fmt.Sprintf("%s-%p-%d", e.device, e, made)
				s.names.Store(name, true)
				e.append(name)
				made++
			}
		}
		if e.conn == nil || e.conn.reason() != "" {
			if err := e.connect(s.ingest()); err != nil {
				e.hangUp()
				pause(2 * time.Millisecond)
				continue
			}
		}
		for i := range e.mem.epochs {
			e.send(i, false, uint64(r.IntN(20)), 1+r.IntN(5))
		}
		if !s.answers(t, e, r.IntN(3)) {
			return
		}
		switch r.IntN(40) {
		case 0:
			e.reopen()
		case 1, 2:
			e.hangUp()
		case 3:
			e.flush()
		}
	}
	s.answers(t, e, 0)
	e.hangUp()
}

// answers waits for answers until so many are left; every batch gets one.
func (s *stress) answers(t *testing.T, e *simEdge, left int) bool {
	for e.conn != nil && len(e.inflight) > left {
		b := e.inflight[0]
		select {
		case o := <-b.out:
			e.answer(b, o)
		case <-time.After(time.Minute):
			t.Errorf("device %s: a batch got no answer in a minute", e.device)
			return false
		}
	}
	return true
}

func runStress(t *testing.T, log commitlog.Log, devices, messages int, codecTotal int64) {
	c := &chaos{Log: log}
	s := &stress{chaos: c, log: &checked{Log: c}, o: Options{WindowMessages: 6, MinWindow: 3, PacketBytes: 64 << 10, GroupRecords: 40, CodecState: codec.MinState, CodecTotal: codecTotal}}
	s.hub = startHub(s.log, s.o, false)
	var wg sync.WaitGroup
	var edges []*simEdge
	for i := range devices {
		e := newSimEdge(fmt.Sprintf("device-%d", i), i%3 == 2)
		e.codec.real = true
		fill(e, e.device+"-first-", 5)
		for n := range 5 {
			s.names.Store(fmt.Sprintf("%s-first-%d", e.device, n+1), true)
		}
		edges = append(edges, e)
		if i%2 == 0 {
			edges = append(edges, e.image())
		}
	}
	for _, e := range edges {
		wg.Go(func() { s.run(t, e, messages) })
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for range 3 {
		select {
		case <-done:
		case <-time.After(300 * time.Millisecond):
			s.restart(t)
		}
	}
	c.calm.Store(true)
	<-done
	st := s.ingest().Stats()
	if err := exact(s.ingest()); err != nil {
		t.Error(err)
	}
	resumed := 0
	for _, e := range edges {
		resumed += e.codec.resumed
		if e.bads > 0 {
			t.Errorf("%d batches of %s were bad, and the hub had not given the session up", e.bads, e.device)
		}
	}
	if resumed == 0 {
		t.Error("no codec session went on at a new connection")
	}
	if err := s.hub.stop(); err != nil {
		t.Error(err)
	}
	if c := s.ingest().Stats().Codec; c.Kept != 0 || c.KeptBytes != 0 || c.Sessions != 0 || c.StateBytes != 0 {
		t.Errorf("after the end: %+v", c)
	}
	if st.PendingBytes != 0 || st.Sessions != 0 || st.WindowBytes != 0 {
		t.Errorf("at rest: %+v", st)
	}
	if c.odd.Load() == 0 {
		t.Error("nothing went wrong")
	}
	s.judge(t)
}

func (s *stress) judge(t *testing.T) {
	for _, err := range s.log.mistakes {
		t.Errorf("ingest appended what it must not: %v", err)
	}
	missing := map[string]bool{}
	s.names.Range(func(k, _ any) bool { missing[k.(string)] = true; return true })
	all := maps.Clone(missing)
	last := map[stream.ID]uint64{}
	for r, err := range s.log.Read(context.Background(), commitlog.Cursor{}, commitlog.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		name := string(r.Payload)
		if !missing[name] {
			t.Errorf("%s is twice in the log, or was never sent: %v", name, all[name])
		}
		delete(missing, name)
		if r.Flags&stream.FIFO != 0 {
			if r.Seq <= last[r.ID()] {
				t.Errorf("%s: number %d after %d", r.ID(), r.Seq, last[r.ID()])
			}
			last[r.ID()] = r.Seq
		}
	}
	for name := range missing {
		t.Errorf("%s is not in the log", name)
	}
	if len(all) == 0 {
		t.Error("nothing was sent")
	}
}

func TestManyDevices(t *testing.T) {
	messages := 150
	if testing.Short() {
		messages = 30
	}
	runStress(t, logtest.NewMem(4), 16, messages, 1<<30)
}

// The same where codec sessions have little room.
func TestManyDevicesInLittleRoom(t *testing.T) {
	runStress(t, logtest.NewMem(4), 16, 60, 2*codec.MinState)
}

// The same on the log of a single machine, with its real disk.
func TestManyDevicesOnDisk(t *testing.T) {
	log := openLocal(t)
	runStress(t, log, 8, 60, 1<<30)
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
}

func openLocal(t testing.TB) *local.Log {
	log, err := local.Open(local.Options{Dir: t.TempDir(), Shards: 2, MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// With the real codec: what cannot be decoded, and what is decoded and is no batch
// of the device, makes everything bad until the edge sends a batch that is marked
// reset. Were the second one taken, the first would come after it.
func TestOutOfStep(t *testing.T) {
	for name, packet := range map[string]func(*simEdge) []byte{
		"rubbish": func(*simEdge) []byte { return []byte("rubbish") },
		"no topic": func(e *simEdge) []byte {
			b := e.batch(&e.mem.epochs[0], rng(2, 2), none)
			b.Records[0].Topic = "a/#"
			packet, err := e.conn.enc.Append(nil, &b)
			if err != nil {
				t.Fatal(err)
			}
			return packet
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := readyHub(t, false)
			e := newSimEdge("a", true)
			e.codec.real = true
			fill(e, "m", 6)
			if err := e.connect(h.Ingest); err != nil {
				t.Fatal(err)
			}
			id := e.mem.epochs[0].id
			if o := <-e.submit(id, rng(1, 1), none).out; o.Code != Settled {
				t.Fatalf("first: %v", o.Code)
			}
			out := make(chan Outcome, 1)
			e.conn.session.Submit(packet(e), func(o Outcome) { out <- o })
			if o := <-out; o.Code != Bad {
				t.Fatalf("%v", o.Code)
			}
			if o := <-e.submit(id, rng(3, 3), none).out; o.Code != Bad {
				t.Fatalf("behind it: %v", o.Code)
			}
			e.conn.enc.(interface{ Reset() }).Reset()
			if o := <-e.submit(id, rng(2, 3), none).out; o.Code != Settled {
				t.Fatalf("after the reset: %v", o.Code)
			}
			if err := exact(h.Ingest); err != nil {
				t.Error(err)
			}
			wantDrops(t, h.Stats().Codec, map[CodecDrop]int64{DropBad: 1})
			e.hangUp()
		})
	}
}
