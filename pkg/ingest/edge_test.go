package ingest

import (
	"fmt"
	"slices"
	"sync"

	"github.com/packetboat/packetboat/pkg/stream"
)

// simEpoch is one lane of an epoch as an edge holds it.
type simEpoch struct {
	id       stream.Epoch
	content  []string // content[i] is number i+1
	settled  stream.RangeSet
	lost     stream.RangeSet // evicted and not answered
	answered stream.LogID
	flushed  stream.LogID // the log it was first sent to since the process began
}

func (e *simEpoch) head() uint64 { return uint64(len(e.content)) }

func (e *simEpoch) all() stream.Range { return stream.Range{First: 1, Last: e.head()} }

// open holds what has no answer, held what of that still has its record.
func (e *simEpoch) open() stream.RangeSet { return stream.Collect(e.settled.Missing(e.all())) }

func (e *simEpoch) held() stream.RangeSet {
	s := e.open()
	s.RemoveSet(&e.lost)
	return s
}

func (e *simEpoch) each(s stream.RangeSet, f func(content string)) {
	for _, r := range s.Ranges() {
		for n := r.First; n <= r.Last; n++ {
			f(e.content[n-1])
		}
	}
}

// simDisk is what an edge has stored. The last epoch is the one in use.
type simDisk struct {
	epochs []simEpoch
	ledger map[string]bool // contents that the edge calls lost
	stale  map[string]bool // contents that it gave up as stale
}

func (d *simDisk) clone() simDisk {
	c := simDisk{ledger: map[string]bool{}, stale: map[string]bool{}}
	for _, e := range d.epochs {
		e.content = slices.Clone(e.content)
		e.settled, e.lost = e.settled.Clone(), e.lost.Clone()
		c.epochs = append(c.epochs, e)
	}
	for k := range d.ledger {
		c.ledger[k] = true
	}
	for k := range d.stale {
		c.stale[k] = true
	}
	return c
}

func (d *simDisk) find(id stream.Epoch) *simEpoch {
	for i := range d.epochs {
		if d.epochs[i].id == id {
			return &d.epochs[i]
		}
	}
	return nil
}

// sent is a batch that is on the wire.
type sent struct {
	epoch   stream.Epoch
	records stream.RangeSet
	losses  stream.RangeSet
	bodies  uint64       // where the codec session stood behind it
	out     chan Outcome // has room for one
}

// simEdge is an edge in a few lines: it follows the rules of the protocol, as
// DESIGN says, and nothing of the product's edge. One lane.
type simEdge struct {
	device string
	lane   stream.Lane
	fifo   bool
	codec  simCodec
	disk   simDisk // durable: records at once, the rest at flush
	mem    simDisk

	conn     *simConn
	inflight []*sent
	paused   bool // something was bad, or refused in a fifo lane; wait until nothing is in flight
	bad      *Outcome
	bads     int // batches that were bad though the hub had not given the session up
}

// simConn is one connection.
type simConn struct {
	session *Session
	welcome Welcome
	enc     encoder

	mu      sync.Mutex
	revoked string // guarded by mu
}

func (c *simConn) reason() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.revoked
}

func newSimEdge(device string, fifo bool) *simEdge {
	e := &simEdge{device: device, lane: stream.Normal, fifo: fifo, codec: simCodec{learns: true}}
	e.disk = simDisk{epochs: []simEpoch{{id: stream.NewEpoch()}}, ledger: map[string]bool{}, stale: map[string]bool{}}
	e.mem = e.disk.clone()
	return e
}

// image is an edge that starts from a copy of the disk.
func (e *simEdge) image() *simEdge {
	c := &simEdge{device: e.device, lane: e.lane, fifo: e.fifo, codec: simCodec{real: e.codec.real, learns: e.codec.learns}, disk: e.disk.clone()}
	c.reopen()
	return c
}

// reopen is a power cut and a start: an epoch with records is closed under its
// own id, an empty one goes on under a new id.
func (e *simEdge) reopen() {
	e.hangUp()
	e.codec = simCodec{real: e.codec.real, learns: e.codec.learns}
	e.mem = e.disk.clone()
	for i := range e.mem.epochs {
		e.mem.epochs[i].flushed = stream.LogID{}
	}
	last := &e.mem.epochs[len(e.mem.epochs)-1]
	if last.head() > 0 {
		e.mem.epochs = append(e.mem.epochs, simEpoch{id: stream.NewEpoch()})
	} else {
		*last = simEpoch{id: stream.NewEpoch()}
	}
	e.flush()
}

func (e *simEdge) flush() {
	last := len(e.mem.epochs) - 1
	keep := e.mem.epochs[:0]
	for i := range e.mem.epochs {
		if open := e.mem.epochs[i].open(); i == last || !open.IsEmpty() {
			keep = append(keep, e.mem.epochs[i])
		}
	}
	e.mem.epochs = keep
	e.disk = e.mem.clone()
}

func (e *simEdge) hangUp() {
	if e.conn != nil {
		e.conn.session.Close()
	}
	e.conn, e.inflight, e.paused, e.bad = nil, nil, false, nil
}

// append stores a message durably under the next number.
func (e *simEdge) append(content string) {
	for _, d := range []*simDisk{&e.mem, &e.disk} {
		cur := &d.epochs[len(d.epochs)-1]
		cur.content = append(cur.content, content)
	}
}

// flying holds the numbers of an epoch that are on the wire.
func (e *simEdge) flying(id stream.Epoch) (s stream.RangeSet) {
	for _, b := range e.inflight {
		if b.epoch == id {
			s.AddSet(&b.records)
			s.AddSet(&b.losses)
		}
	}
	return s
}

// evict gives up the oldest record that is not on the wire.
func (e *simEdge) evict() {
	for i := range e.mem.epochs {
		p := &e.mem.epochs[i]
		can, flying := p.held(), e.flying(p.id)
		can.RemoveSet(&flying)
		if n := can.Min(); n != 0 {
			p.lost.Add(stream.Range{First: n, Last: n})
			e.mem.ledger[p.content[n-1]] = true
			return
		}
	}
}

// heldList is pb-held.
func (e *simEdge) heldList() (list []stream.Held) {
	for i := range e.mem.epochs {
		p := &e.mem.epochs[i]
		current := i == len(e.mem.epochs)-1
		if open := p.open(); current || !open.IsEmpty() {
			list = append(list, stream.Held{Epoch: p.id, Lane: e.lane, Ranges: open, Head: p.head(), Current: current, Answered: p.answered})
		}
	}
	return list
}

// connect opens a session and adopts the welcome. It may block.
func (e *simEdge) connect(in *Ingest) error {
	conn, err := e.dial(in, e.hello())
	if err != nil {
		return err
	}
	e.adopt(conn)
	return nil
}

// adopt makes of the welcome what an edge makes of it.
func (e *simEdge) adopt(c *simConn) {
	e.hangUp()
	e.conn = c
	c.enc = e.codec.goOn(c.welcome.Codec)
	log := c.welcome.Log
	var stale bool
	for i := range e.mem.epochs {
		p := &e.mem.epochs[i]
		j := slices.IndexFunc(c.welcome.Coverage, func(x stream.EpochCoverage) bool { return x.Epoch == p.id })
		switch {
		case j >= 0:
			p.answered = log
			for _, l := range c.welcome.Coverage[j].Lanes {
				if l.Lane == e.lane {
					in := l.Settled.Clone()
					in.RemoveSet(&l.Lost)
					e.settle(p, in, l.Lost)
				}
			}
		case p.answered == log:
			p.each(p.open(), func(m string) {
				e.mem.stale[m] = true
				delete(e.mem.ledger, m)
			})
			p.settled.Add(p.all())
			stale = stale || i == len(e.mem.epochs)-1
		}
	}
	if stale {
		e.mem.epochs = append(e.mem.epochs, simEpoch{id: stream.NewEpoch()})
		e.flush()
	}
}

// settle notes what the log has and what it calls lost.
func (e *simEdge) settle(p *simEpoch, in, lost stream.RangeSet) {
	in.RemoveSet(&p.settled)
	lost.RemoveSet(&p.settled)
	p.each(in, func(m string) { delete(e.mem.ledger, m) })
	p.each(lost, func(m string) { e.mem.ledger[m] = true })
	p.lost.RemoveSet(&in)
	p.lost.AddSet(&lost)
	p.settled.AddSet(&in)
	p.settled.AddSet(&lost)
}

// next gives what may be sent now of epoch i: a run of records, or
// the losses. ok is false when there is nothing, or the order forbids it.
func (e *simEdge) next(i int, losses bool, from uint64, limit int) (records, lost stream.RangeSet, ok bool) {
	if e.conn == nil || len(e.inflight) >= e.conn.welcome.WindowMessages || e.paused || i >= len(e.mem.epochs) {
		return records, lost, false
	}
	p := &e.mem.epochs[i]
	flying := e.flying(p.id)
	free := p.open()
	free.RemoveSet(&flying)
	if !e.fifo && from > 1 {
		free.Remove(stream.Range{First: 1, Last: from - 1})
	}
	if e.fifo {
		for j := range i { // everything older is on the wire or answered, losses too
			o := &e.mem.epochs[j]
			wait, fl := o.open(), e.flying(o.id)
			wait.RemoveSet(&fl)
			if !wait.IsEmpty() {
				return records, lost, false
			}
		}
		if losses != p.lost.Contains(free.Min()) {
			return records, lost, false
		}
	}
	for _, r := range free.Ranges() {
		for n := r.First; n <= r.Last; n++ {
			if p.lost.Contains(n) == losses {
				if losses {
					lost.Add(stream.Range{First: n, Last: n})
					continue
				}
				if records.IsEmpty() || records.Max()+1 == n && int(records.Count()) < limit {
					records.Add(stream.Range{First: n, Last: n})
				}
			} else if losses && e.fifo {
				return records, lost, !lost.IsEmpty()
			}
		}
	}
	return records, lost, !records.IsEmpty() || !lost.IsEmpty()
}

// send puts a batch of epoch i on the wire, of numbers from the given one on
// (where the lane has no order); false: nothing may be sent.
func (e *simEdge) send(i int, losses bool, from uint64, limit int) bool {
	records, lost, ok := e.next(i, losses, from, limit)
	if !ok {
		return false
	}
	id := e.mem.epochs[i].id
	if log := e.conn.welcome.Log; e.mem.epochs[i].flushed != log {
		e.flush() // the mark carries what is settled so far
		e.mem.find(id).flushed = log
	}
	e.submit(id, records, lost)
	return true
}

func (e *simEdge) batch(p *simEpoch, records, lost stream.RangeSet) stream.Batch {
	b := stream.Batch{ID: stream.ID{Epoch: p.id, Lane: e.lane}, First: records.Min(), Head: p.head()}
	if open := p.open(); open.IsEmpty() {
		b.Floor = p.head() + 1
	} else {
		b.Floor = open.Min()
	}
	if b.First == 0 {
		b.First = b.Head + 1
	}
	if e.fifo {
		b.Flags = stream.FIFO
	}
	p.eachRecord(records, func(n uint64, m string) {
		b.Records = append(b.Records, stream.Record{Seq: n, Message: stream.Message{Topic: "t", Payload: []byte(m), Time: int64(n), Quality: stream.TimeLocal, QoS: 1}})
	})
	for _, r := range lost.Ranges() {
		b.Losses = append(b.Losses, stream.Loss{Range: r, Reason: stream.Evicted})
	}
	return b
}

func (e *simEpoch) eachRecord(s stream.RangeSet, f func(n uint64, content string)) {
	for _, r := range s.Ranges() {
		for n := r.First; n <= r.Last; n++ {
			f(n, e.content[n-1])
		}
	}
}

// submit sends numbers of an epoch, whatever the rules say.
func (e *simEdge) submit(id stream.Epoch, records, lost stream.RangeSet) *sent {
	p := e.mem.find(id)
	b := e.batch(p, records, lost)
	packet, err := e.conn.enc.Append(nil, &b)
	if err != nil {
		panic(fmt.Sprintf("encode %+v: %v", b, err))
	}
	s := &sent{epoch: id, records: records, losses: lost, bodies: e.codec.bodies(), out: make(chan Outcome, 1)}
	e.inflight = append(e.inflight, s)
	e.conn.session.Submit(packet, func(o Outcome) { s.out <- o })
	return s
}

// receive takes the next answer, if there is one: they come in order.
func (e *simEdge) receive() bool {
	if e.conn == nil || len(e.inflight) == 0 {
		return false
	}
	s := e.inflight[0]
	select {
	case o := <-s.out:
		e.answer(s, o)
		return true
	default:
		return false
	}
}

func (e *simEdge) answer(s *sent, o Outcome) {
	e.inflight = e.inflight[1:]
	if p := e.mem.find(s.epoch); o.Code == Settled && p != nil { // nil: resent, and done with meanwhile
		p.answered = e.conn.welcome.Log
		in, lost := s.records.Clone(), s.losses.Clone()
		in.RemoveSet(&o.Lost)
		in.AddSet(&o.In)
		lost.RemoveSet(&o.In)
		lost.AddSet(&o.Lost)
		e.settle(p, in, lost)
	}
	e.paused = e.paused || e.fifo && o.Code != Settled
	if o.Code == Bad {
		e.paused, e.bad = true, &o
		if o.Codec == (CodecGrant{}) {
			e.bads++
		}
	} else if e.bad == nil {
		e.codec.confirm(s.bodies)
	}
	if len(e.inflight) > 0 {
		return
	}
	if e.paused = false; e.bad != nil {
		g := e.conn.welcome.Codec
		if e.bad.Codec != (CodecGrant{}) {
			g = e.bad.Codec
		}
		g.Resume = false
		e.conn.enc, e.bad = e.codec.goOn(g), nil
	}
}

// undone reports whether anything has no answer.
func (e *simEdge) undone() bool {
	for i := range e.mem.epochs {
		if open := e.mem.epochs[i].open(); !open.IsEmpty() {
			return true
		}
	}
	return false
}
