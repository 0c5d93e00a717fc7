package mqttfront

import (
	"cmp"
	"slices"
)

// all are the sessions that there are.
func (l *local) all() []*session {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := make([]*session, 0, len(l.sessions))
	for s := range l.sessions {
		list = append(list, s)
	}
	return list
}

// relieve sees to it that what waits for all subscribers stays within its bound:
// those that owe most lose what waits for them, the oldest first, until an eighth
// of the bound is free.
func (l *local) relieve() {
	if l.bytes.Load() <= l.maxBytes {
		return
	}
	type debtor struct {
		s     *session
		bytes int
	}
	var debtors []debtor
	for _, s := range l.all() {
		s.mu.Lock()
		debtors = append(debtors, debtor{s, s.out.bytes})
		s.mu.Unlock()
	}
	slices.SortFunc(debtors, func(a, b debtor) int { return cmp.Compare(b.bytes, a.bytes) })
	for _, d := range debtors {
		d.s.mu.Lock()
		for l.bytes.Load() > l.maxBytes-l.maxBytes/8 && d.s.out.lose("undelivered_full", limitQueuedBytes) {
		}
		d.s.mu.Unlock()
	}
}

// lose gives up one message: the oldest that waits, else the oldest of QoS 0,
// else the oldest that was sent and not answered.
func (o *outbox) lose(reason string, l limit) bool {
	return o.dropOldest(reason, l) || o.dropPlain(reason, l) || o.giveUp(reason, l)
}

func (o *outbox) dropPlain(reason string, l limit) bool {
	if o.plain.len() == 0 {
		return false
	}
	s := o.plain.pop()
	o.plainBytes -= s.m.cost()
	o.finish(&s)
	o.l.dropped(reason, l)
	return true
}
