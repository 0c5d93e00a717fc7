package mqttfront

import "time"

// replayBudget bounds the retained topics that one take looks at.
const replayBudget = 2048

// replay is what is left to send of the retained messages that a client asked
// for: as fast as it takes them, each as it is when its turn comes. Only a place
// in the order of topics is kept, never a list of messages. It outlives the
// connection, not the process.
type replay struct {
	work            []replayWork // in the order of the subscriptions
	asked, answered uint32       // conn.answers queued, and appended to what is written
	budget          int
}

type replayWork struct {
	sub    *subscription
	after  string // the last topic looked at
	behind bool   // after is set
}

// add notes that retained messages for sub are wanted.
func (r *replay) add(sub *subscription) {
	r.remove(sub.filter)
	r.work = append(r.work, replayWork{sub: sub})
}

func (r *replay) remove(filter string) {
	for i := range r.work {
		if r.work[i].sub.filter == filter {
			copy(r.work[i:], r.work[i+1:])
			r.work[len(r.work)-1] = replayWork{}
			r.work = r.work[:len(r.work)-1]
			break
		}
	}
	if len(r.work) == 0 {
		r.work = nil
	}
}

// left forgets the answers that will not be written any more.
func (r *replay) left() { r.answered = r.asked }

// answered is called by the writer when it has appended the bytes of one
// conn.answer to what it writes: what follows a SUBACK may leave then.
func (o *outbox) answered() {
	if r := &o.replay; r.answered != r.asked {
		r.answered++
	}
}

// nextRetained gives the next retained message that was asked for. blocked: there
// is one, which has to wait.
func (o *outbox) nextRetained(open bool, now time.Time) (m *outMessage, blocked bool) {
	for len(o.replay.work) > 0 {
		w := &o.replay.work[0]
		at := *w
		l, end := o.l.kept.next(w, &o.replay.budget)
		switch {
		case end:
			o.replay.remove(w.sub.filter)
			continue
		case l == nil: // the budget is used up: others want to be served, too
			o.l.again(o.s)
			return nil, true
		}
		qos := min(l.qos, w.sub.qos)
		if qos > 0 && !open {
			*w = at
			return nil, true
		}
		if w.sub.noLocal && l.origin == o.s.id || l.expired(now) {
			continue // [MQTT-3.8.3-3]
		}
		// [MQTT-3.3.1-8,9,12]
		return &outMessage{letter: l, qos: qos, retain: true, ids: w.sub.ids()}, false
	}
	return nil, false
}

// ids are the subscription identifiers of one subscription.
func (s *subscription) ids() []uint32 {
	if s.identifier == 0 {
		return nil
	}
	return []uint32{s.identifier}
}
