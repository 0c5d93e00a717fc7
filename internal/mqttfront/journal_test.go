package mqttfront

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
)

// journal stands for the buffer that a front keeps its state in: what is written
// becomes durable in order, a message and its changes together. What is not
// synced is lost in a crash, but for any prefix of it.
type journal struct {
	mu      sync.Mutex
	cond    *sync.Cond
	durable map[string][]byte // guarded by mu
	taken   []string          // payloads of durable messages, in order; guarded by mu
	wills   []string          // those of them that were wills
	queue   []record          // not yet durable; guarded by mu
	manual  bool              // sync is called by the test; guarded by mu
	dead    bool              // the machine has crashed; guarded by mu
	fail    error             // of what is synced; guarded by mu
}

type record struct {
	payload string
	message bool
	will    bool
	changes []Change
	done    func(error)
}

func newJournal() *journal {
	j := &journal{durable: make(map[string][]byte)}
	j.cond = sync.NewCond(&j.mu)
	return j
}

func (j *journal) add(r record) {
	changes := make([]Change, len(r.changes))
	for i, c := range r.changes {
		changes[i] = Change{Key: c.Key, Value: slices.Clone(c.Value)}
	}
	r.changes = changes
	j.mu.Lock()
	if j.dead {
		j.mu.Unlock()
		return
	}
	j.queue = append(j.queue, r)
	n := len(j.queue)
	// A session is made durable at once: no test is about a CONNECT that waits.
	now := !j.manual || slices.ContainsFunc(changes, func(c Change) bool { return strings.HasPrefix(c.Key, "s/") || strings.HasPrefix(c.Key, "w/") })
	j.cond.Broadcast()
	j.mu.Unlock()
	if now {
		j.sync(n)
	}
}

// sync makes the first n records durable.
func (j *journal) sync(n int) {
	j.mu.Lock()
	if j.dead {
		j.mu.Unlock()
		return
	}
	done := slices.Clone(j.queue[:min(n, len(j.queue))])
	j.queue = j.queue[len(done):]
	err := j.fail
	if err == nil {
		for _, r := range done {
			j.apply(r)
		}
	}
	j.mu.Unlock()
	for _, r := range done {
		if r.done != nil {
			r.done(err)
		}
	}
}

// apply is called with mu held.
func (j *journal) apply(r record) {
	if r.message {
		j.taken = append(j.taken, r.payload)
	}
	if r.will {
		j.wills = append(j.wills, r.payload)
	}
	for _, c := range r.changes {
		if c.Value == nil {
			delete(j.durable, c.Key)
		} else {
			j.durable[c.Key] = c.Value
		}
	}
}

// crash gives what is there after a crash that came when n records of those not
// synced had reached the disk.
func (j *journal) crash(n int) *journal {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.dead = true
	for _, r := range j.queue[:min(n, len(j.queue))] {
		j.apply(r)
	}
	next := newJournal()
	next.durable, next.taken, next.wills, next.manual = maps.Clone(j.durable), slices.Clone(j.taken), slices.Clone(j.wills), j.manual
	return next
}

func (j *journal) pending() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.queue)
}

func (j *journal) setManual(on bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.manual = on
}

func (j *journal) setFail(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.fail = err
}

// keys are the durable keys of a kind.
func (j *journal) keys(kind string) (out []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for k := range j.durable {
		if strings.HasPrefix(k, kind) {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

func (j *journal) messages() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.taken)
}

func (j *journal) published() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.wills)
}

func (j *journal) Load(yield func(key string, value []byte) bool) error {
	j.mu.Lock()
	all := maps.Clone(j.durable)
	j.mu.Unlock()
	for k, v := range all {
		if !yield(k, v) {
			return nil
		}
	}
	return nil
}

func (j *journal) Save(changes []Change, done func(error)) {
	j.add(record{changes: changes, done: done})
}

// take is the publish function of a fakeHandler.
func (j *journal) take(_ *fakeSession, p *Publish, settle Settle) {
	j.add(record{payload: string(p.Payload), message: true, will: p.Will, changes: p.Save, done: func(err error) {
		settle(Result{Withhold: err != nil})
	}})
}

// Will makes fakeHandler a WillHandler.
func (h *fakeHandler) Will(p *Publish, clientID, username string, settle Settle) {
	h.mu.Lock()
	h.orphans = append(h.orphans, fmt.Sprintf("%s/%s: %s=%s", clientID, username, p.Topic, p.Payload))
	h.cond.Broadcast()
	h.mu.Unlock()
	h.publish(nil, p, settle)
}

// stored starts a front over j.
func stored(t testing.TB, j *journal, o Options) (*server, *fakeHandler) {
	t.Helper()
	h := newFake()
	h.publish = j.take
	o.Store = j
	return start(t, h, o), h
}

var errDisk = errors.New("disk is gone")

// stop ends a front as a crash does: nothing that it does any more counts.
func (s *server) crash(j *journal, n int) *journal {
	next := j.crash(n)
	_ = s.stop()
	return next
}
