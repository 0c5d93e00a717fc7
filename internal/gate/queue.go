package gate

import (
	"container/list"
	"net"
	"net/netip"
	"time"
)

// guest is a connection that has not been handed over.
type guest struct {
	conn  net.Conn
	addr  netip.Addr
	since time.Time
}

// queue holds guests that wait. Addresses take turns, so that the first guest
// of one waits for one guest of every other address and no more; the guests of
// an address keep their order. It has no lock of its own.
type queue struct {
	size  int
	turns *list.List // of *line: addresses with guests, the next one first
	lines map[netip.Addr]*line
}

type line struct {
	addr   netip.Addr
	guests []guest
}

func newQueue() queue { return queue{turns: list.New(), lines: map[netip.Addr]*line{}} }

func (q *queue) push(g guest) {
	l := q.lines[g.addr]
	if l == nil {
		l = &line{addr: g.addr}
		q.lines[g.addr] = l
		q.turns.PushBack(l)
	}
	l.guests = append(l.guests, g)
	q.size++
}

func (q *queue) pop() (g guest, ok bool) {
	turn := q.turns.Front()
	if turn == nil {
		return g, false
	}
	l := turn.Value.(*line)
	g, l.guests = l.guests[0], l.guests[1:]
	q.size--
	if len(l.guests) == 0 {
		q.turns.Remove(turn)
		delete(q.lines, l.addr)
	} else {
		q.turns.MoveToBack(turn)
	}
	return g, true
}
