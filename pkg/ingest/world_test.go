package ingest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/commitlog/logtest"
	"github.com/packetboat/packetboat/pkg/stream"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// checked is a log that notes when ingest gives it what it must not: an entry
// that settles a settled number. The log would reject it, and so hide that
// ingest has not trimmed.
type checked struct {
	commitlog.Log

	mu       sync.Mutex
	id       stream.LogID // not zero: stands for the log's own, see quiet
	mistakes []error
	barriers int
}

func (c *checked) Acquire(ctx context.Context, shard int) (commitlog.Owner, error) {
	o, err := c.Log.Acquire(ctx, shard)
	if err != nil {
		return nil, err
	}
	co := &checkedOwner{Owner: o, c: c, known: map[string]*commitlog.DeviceCoverage{}}
	for device, err := range c.Devices(ctx) {
		if err != nil {
			return nil, err
		}
		if cov := o.Coverage(device); cov != nil {
			co.known[device] = cov
		}
	}
	return co, nil
}

// quiet keeps the id that the log has now, whatever becomes of the log: it goes
// back and nobody notices.
func (c *checked) quiet() {
	id := c.ID()
	c.mu.Lock()
	c.id = id
	c.mu.Unlock()
}

// loud lets the log's own id be seen again.
func (c *checked) loud() {
	c.mu.Lock()
	c.id = stream.LogID{}
	c.mu.Unlock()
}

func (c *checked) ID() stream.LogID {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.id.IsZero() {
		return c.id
	}
	return c.Log.ID()
}

func (c *checked) NewIncarnation(ctx context.Context) (stream.LogID, error) {
	id, err := c.Log.NewIncarnation(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && !c.id.IsZero() {
		c.id.Incarnation = stream.NewEpoch()
		id = c.id
	}
	return id, err
}

// checkedOwner knows what was in the log when it acquired the shard, and what it
// appended: when another owner appends, it does not see that.
type checkedOwner struct {
	commitlog.Owner
	c     *checked
	known map[string]*commitlog.DeviceCoverage // guarded by c.mu
}

func (o *checkedOwner) Coverage(device string) *commitlog.DeviceCoverage {
	o.c.mu.Lock()
	defer o.c.mu.Unlock()
	if cov := o.known[device]; cov != nil {
		return cov.Clone()
	}
	return nil
}

func (o *checkedOwner) Append(ctx context.Context, group []commitlog.Entry) error {
	err := o.Owner.Append(ctx, group)
	o.c.mu.Lock()
	defer o.c.mu.Unlock()
	if errors.Is(err, commitlog.ErrInvalid) || errors.Is(err, commitlog.ErrTooLarge) {
		o.c.mistakes = append(o.c.mistakes, err)
	}
	if len(group) == 0 && err == nil {
		o.c.barriers++
	}
	for i := range group {
		e := &group[i]
		if err != nil {
			break
		}
		cov := o.known[e.ID.Device]
		if cov == nil {
			cov = &commitlog.DeviceCoverage{}
			o.known[e.ID.Device] = cov
		}
		if _, err := cov.Apply(e); err != nil {
			o.c.mistakes = append(o.c.mistakes, err)
		}
	}
	return err
}

// hub is an Ingest that runs.
type hub struct {
	*Ingest
	cancel context.CancelFunc
	done   chan error
}

func startHub(log commitlog.Log, o Options, fake bool) *hub {
	ctx, cancel := context.WithCancel(context.Background())
	h := &hub{New(log, o), cancel, make(chan error, 1)}
	if fake {
		h.newDecoder = newPlainDecoder
	}
	go func() { h.done <- h.Run(ctx) }()
	return h
}

func (h *hub) stop() error {
	h.cancel()
	err := <-h.done
	h.done <- err
	return err
}

// tb is what *testing.T and *rapid.T have in common.
type tb interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Fatal(args ...any)
}

// world is a hub over a log in memory, in a bubble of fake time.
type world struct {
	t   tb
	mem *logtest.Mem
	log *checked
	hub *hub
	o   Options

	mu   sync.Mutex
	gate chan logtest.Outcome // not nil: an append waits for its outcome here; guarded by mu
}

// inWorld runs f in a bubble. Everything is at rest whenever w.rest returns.
func inWorld(t *testing.T, o Options, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, o)
		defer w.close()
		f(w)
		w.check()
	})
}

func newWorld(t tb, shards int, o Options) *world {
	w := &world{t: t, mem: logtest.NewMem(shards), o: o}
	w.log = &checked{Log: w.mem}
	w.mem.Inject(w.outcome)
	w.hub = startHub(w.log, o, true)
	synctest.Wait()
	return w
}

func (w *world) close() {
	w.open()
	if err := w.hub.stop(); err != nil {
		w.t.Errorf("run: %v", err)
	}
}

func (w *world) outcome(int, []commitlog.Entry) logtest.Outcome {
	w.mu.Lock()
	gate := w.gate
	w.mu.Unlock()
	if gate == nil {
		return logtest.Commit
	}
	return <-gate // Commit once it is closed
}

// shut makes every append wait for let.
func (w *world) shut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.gate == nil {
		w.gate = make(chan logtest.Outcome)
	}
}

// open lets all appends pass.
func (w *world) open() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.gate != nil {
		close(w.gate)
		w.gate = nil
	}
}

// let gives the append that waits its outcome; false: none does.
func (w *world) let(o logtest.Outcome) bool {
	synctest.Wait()
	w.mu.Lock()
	gate := w.gate
	w.mu.Unlock()
	select {
	case gate <- o:
		synctest.Wait()
		return true
	default:
		return false
	}
}

// crash ends the hub as a kill does, and starts it again when f has run.
func (w *world) crash(f func()) {
	w.mem.Reopen() // fences: what waits at the gate does not get in
	w.open()
	_ = w.hub.stop()
	if f != nil {
		f()
	}
	w.hub = startHub(w.log, w.o, true)
	synctest.Wait()
}

func (w *world) check() {
	w.t.Helper()
	w.log.mu.Lock()
	defer w.log.mu.Unlock()
	for _, err := range w.log.mistakes {
		w.t.Errorf("ingest appended what it must not: %v", err)
	}
	if _, used := w.hub.budget.get(); used != 0 && w.idle() {
		w.t.Errorf("%d bytes pending at rest", used)
	}
}

func (w *world) idle() bool {
	for _, d := range w.hub.devices.all(nil) {
		d.mu.Lock()
		busy := d.count > 0 || d.session != nil && d.session.inflight > 0
		d.mu.Unlock()
		if busy {
			return false
		}
	}
	return true
}

// contents reads the log: payloads in order, as seq:payload with a mark per
// epoch left out.
func (w *world) contents() (all []string) {
	for s, err := range w.mem.Read(context.Background(), commitlog.Cursor{}, commitlog.Filter{}) {
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, string(s.Payload))
	}
	return all
}

func (w *world) coverage(device string) *commitlog.DeviceCoverage {
	c, err := w.mem.Coverage(context.Background(), device)
	if err != nil {
		w.t.Fatal(err)
	}
	if c == nil {
		c = &commitlog.DeviceCoverage{}
	}
	return c
}

func (w *world) lane(e *simEdge, i int) *commitlog.LaneState {
	l := w.coverage(e.device).Lane(stream.ID{Epoch: e.mem.epochs[i].id, Lane: e.lane})
	if l == nil {
		l = &commitlog.LaneState{}
	}
	return l
}

// fill appends n messages with names of their own.
func fill(e *simEdge, prefix string, n int) {
	for i := range n {
		e.append(fmt.Sprintf("%s%d", prefix, i+1))
	}
}

func (w *world) mustConnect(e *simEdge) {
	w.t.Helper()
	if err := e.connect(w.hub.Ingest); err != nil {
		w.t.Fatalf("connect: %v", err)
	}
}

// pump receives all answers there are.
func pump(e *simEdge) {
	synctest.Wait()
	for e.receive() {
	}
}

// drain connects and sends until everything has an answer.
func (w *world) drain(e *simEdge) {
	w.t.Helper()
	for range 200 {
		if e.conn == nil || e.conn.reason() != "" {
			e.hangUp()
			synctest.Wait()
			if err := e.connect(w.hub.Ingest); err != nil {
				wait(err)
				continue
			}
		}
		for i := 0; i < len(e.mem.epochs); i++ {
			for e.send(i, true, 1, 2) || e.send(i, false, 1, 2) {
			}
		}
		pump(e)
		e.flush()
		if !e.undone() {
			return
		}
	}
	w.t.Fatalf("device %s does not come to rest", e.device)
}

func rng(first, last uint64) stream.RangeSet {
	return stream.NewRangeSet(stream.Range{First: first, Last: last})
}
