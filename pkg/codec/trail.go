package codec

import "fmt"

// trail is how an encoder gets back to where the decoder is, after a connection
// has ended with bodies under way: a copy of the state, made now and then, and
// the bodies since. They are decoded from the copy on, which is the same walk
// that encoded them. A copy of every state that could be asked for would be a
// thousand times as large, and coding the records anew would need the records.
type trail struct {
	base    *state // nil: the empty one, at no bodies
	at      Position
	steps   []step // since
	bodies  []byte // theirs
	next    *state // becomes the base when it is confirmed
	nextAt  Position
	records int // since next, or base
}

type step struct {
	end  int // of its body
	seed uint32
}

// A copy is made after so many records, or bytes: going back takes some tens of
// milliseconds at most, and copying little for each record.
const (
	copyAfterRecords = 30_000
	copyAfterBytes   = 64 << 10
	copyAfterSteps   = 4096
)

func (t *trail) add(e *Encoder, body []byte, seed uint32, records int) {
	t.bodies = append(t.bodies, body...)
	t.steps = append(t.steps, step{len(t.bodies), seed})
	t.records += records
	if t.next == nil && (t.records >= copyAfterRecords || len(t.bodies) >= max(copyAfterBytes, e.s.used/4) || len(t.steps) >= copyAfterSteps) {
		t.next, t.nextAt, t.records = e.s.state.clone(), e.at, 0
	}
}

func (t *trail) size() int {
	n := len(t.bodies) + 16*len(t.steps)
	for _, s := range []*state{t.base, t.next} {
		if s != nil {
			n += s.used
		}
	}
	return n
}

// Oldest is the fewest bodies that GoBack can return to.
func (e *Encoder) Oldest() uint64 { return e.trail.at.Bodies }

// Confirm says that the other side has decoded so many bodies: GoBack will not
// be asked for fewer.
func (e *Encoder) Confirm(bodies uint64) {
	t := &e.trail
	if t.next == nil || bodies < t.nextAt.Bodies {
		return
	}
	n := t.nextAt.Bodies - t.at.Bodies
	cut := t.steps[n-1].end
	t.steps = append(t.steps[:0], t.steps[n:]...)
	for i := range t.steps {
		t.steps[i].end -= cut
	}
	t.bodies = append(t.bodies[:0], t.bodies[cut:]...)
	t.base, t.at, t.next = t.next, t.nextAt, nil
}

// GoBack makes the session one that ended at p, where the other side is. After
// an error, which wraps ErrOutOfStep, the session is as before.
func (e *Encoder) GoBack(p Position) error {
	t := &e.trail
	if p.Bodies < t.at.Bodies || p.Bodies > e.at.Bodies {
		return fmt.Errorf("%w: at %d bodies, asked for %d, can go back to %d", ErrOutOfStep, e.at.Bodies, p.Bodies, t.at.Bodies)
	}
	if p == e.at {
		return nil
	}
	d := Decoder{limit: e.limit, at: t.at}
	if t.base != nil {
		d.s.begin(t.base.clone(), false)
	}
	n := int(p.Bodies - t.at.Bodies)
	begin := 0
	for _, s := range t.steps[:n] {
		body := t.bodies[begin:s.end]
		begin = s.end
		if _, err := d.decode(body, 1, s.seed, Limits{}, MaxBytes); err != nil {
			return fmt.Errorf("%w: %w", ErrOutOfStep, err)
		}
	}
	if d.at != p {
		return fmt.Errorf("%w: the digest after %d bodies differs", ErrOutOfStep, p.Bodies)
	}
	if d.s.state == nil { // before the first body
		d.s.begin(newState(e.limit), false)
	}
	e.s.begin(d.s.state, true)
	e.at = p
	t.steps, t.bodies = t.steps[:n], t.bodies[:begin]
	if t.next != nil && t.nextAt.Bodies > p.Bodies {
		t.next = nil
	}
	return nil
}
