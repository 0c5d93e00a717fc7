package ingest

import (
	"fmt"
	"maps"
	"testing/synctest"
	"time"

	"github.com/packetboat/packetboat/pkg/commitlog/logtest"
	"github.com/packetboat/packetboat/pkg/stream"
)

// The steps of a walk.

func (m *model) pick(n int) int { return m.r.IntN(n) }

func (m *model) edge() *lineage { return m.edges[m.pick(len(m.edges))] }

// began notes the epoch in use.
func (m *model) began(e *lineage) {
	id := e.mem.epochs[len(e.mem.epochs)-1].id
	if m.content[id] == nil {
		m.content[id] = []string{}
		m.order = append(m.order, id)
	}
}

func (m *model) append() {
	e := m.edge()
	m.n++
	name := fmt.Sprintf("m%d", m.n)
	e.simEdge.append(name)
	e.acked[name] = true
	id := e.mem.epochs[len(e.mem.epochs)-1].id
	m.content[id] = append(m.content[id], name)
}

func (m *model) evict() { m.edge().evict() }

func (m *model) flush() { m.edge().flush() }

func (m *model) epoch(e *lineage) int { return m.pick(len(e.mem.epochs)) }

func (m *model) send() {
	e := m.edge()
	e.send(m.epoch(e), false, uint64(m.pick(6)), 1+m.pick(3))
}

func (m *model) sendLoss() {
	e := m.edge()
	e.send(m.epoch(e), true, 1, 1)
}

// resend puts numbers on the wire again that are there, or have an answer.
func (m *model) resend() {
	e := m.edge()
	if e.conn == nil || e.fifo || len(e.inflight) >= 3 {
		return
	}
	p := &e.mem.epochs[m.epoch(e)]
	if p.head() == 0 {
		return
	}
	first := uint64(m.pick(int(p.head()))) + 1
	last := min(first+uint64(m.pick(3)), p.head())
	for n := first; n <= last; n++ {
		if p.lost.Contains(n) {
			return
		}
	}
	e.submit(p.id, rng(first, last), stream.RangeSet{})
}

func (m *model) receive() {
	synctest.Wait()
	m.edge().receive()
}

// connect begins to connect, or looks what became of that.
func (m *model) connect() {
	e := m.edge()
	if e.dialing == nil {
		c, hello, in := make(chan dialed, 1), e.hello(), m.hub.Ingest
		if m.second != nil && m.pick(2) == 0 {
			in = m.second.Ingest
		}
		e.dialing = c
		go func() {
			conn, err := e.dial(in, hello)
			c <- dialed{conn, err}
		}()
	}
	m.dialed(e)
}

func (m *model) dialed(e *lineage) {
	synctest.Wait()
	if e.dialing == nil {
		return
	}
	select {
	case d := <-e.dialing:
		e.dialing = nil
		if d.err == nil {
			if m.pick(4) == 0 { // coverage may leave out ranges, never epochs
				for i := range d.conn.welcome.Coverage {
					d.conn.welcome.Coverage[i].Lanes = nil
				}
			}
			e.adopt(d.conn)
			m.began(e)
		}
	default:
	}
}

// forget lets go of a connect that is under way.
func (m *model) forget(e *lineage) {
	if c := e.dialing; c != nil {
		e.dialing = nil
		go func() {
			if d := <-c; d.err == nil {
				d.conn.session.Close()
			}
		}()
	}
}

func (m *model) commit() { m.let(logtest.Commit) }

func (m *model) fault() {
	all := []logtest.Outcome{logtest.Reject, logtest.NoSpace, logtest.Fence, logtest.UnknownIn, logtest.UnknownOut}
	m.let(all[m.pick(len(all))])
}

func (m *model) drop() {
	e := m.edge()
	m.forget(e)
	e.hangUp()
}

func (m *model) crashEdge() {
	e := m.edge()
	m.forget(e)
	e.reopen()
	m.began(e)
}

func (m *model) copyDisk() {
	e := m.edge()
	if m.image != nil || !m.single {
		return
	}
	m.image = &lineage{
		simEdge: &simEdge{device: e.device, lane: e.lane, fifo: e.fifo, codec: simCodec{learns: e.codec.learns}, disk: e.disk.clone()},
		acked:   maps.Clone(e.acked), excused: maps.Clone(e.excused),
	}
}

// startCopy starts the copy, beside the disk that it was made of or in its place.
func (m *model) startCopy() {
	if m.image == nil {
		return
	}
	if m.single = false; m.pick(2) == 0 {
		m.forget(m.edges[0])
		m.edges[0].hangUp()
		m.edges = nil
	}
	m.image.reopen()
	m.edges = append(m.edges, m.image)
	m.began(m.image)
	m.image = nil
}

func (m *model) tick() {
	time.Sleep([]time.Duration{30 * time.Millisecond, 200 * time.Millisecond, 6 * time.Second}[m.pick(3)])
}

// takeRoom lets other devices take most of the memory for codec sessions, or
// give it back.
func (m *model) takeRoom() {
	m.hog.k = &m.hub.keeper
	m.hog.take([]int64{0, plainStart / 2, plainStart * 3 / 2, 2 * plainStart}[m.pick(4)])
}

// exact wants the codec sessions counted to the byte.
func (m *model) exact() {
	synctest.Wait()
	if err := exact(m.hub.Ingest, m.hog); err != nil {
		m.rt.Fatalf("I7: %v", err)
	}
	if m.second == nil {
		return
	}
	if err := exact(m.second.Ingest); err != nil {
		m.rt.Fatalf("I7: the second hub: %v", err)
	}
}

func (m *model) hubCrash() { m.restart(nil) }

func (m *model) restart(f func()) {
	for _, e := range m.edges {
		m.forget(e)
	}
	before := m.hub.Ingest
	m.crash(func() {
		m.stopSecond()
		if f != nil {
			f()
		}
	})
	m.count(before)
	m.hog = hog{}
	for _, e := range m.edges {
		e.hangUp()
	}
	m.shut()
}

// secondHub starts or stops a hub that takes the shard from the first one, and
// has it taken away again.
func (m *model) secondHub() {
	if m.second == nil {
		m.second = startHub(m.log, m.o, true)
		return
	}
	m.open() // what waits gets in, or finds that it is fenced
	m.stopSecond()
	m.shut()
}

func (m *model) stopSecond() {
	if m.second == nil {
		return
	}
	if err := m.second.stop(); err != nil {
		m.rt.Fatal(err)
	}
	m.count(m.second.Ingest)
	m.second = nil
}

func (m *model) takeBackup() { m.backup = m.mem.Backup() }

// goBack restores the backup; quietly: nobody gives the log another incarnation.
func (m *model) goBack() {
	if m.backup == nil {
		return
	}
	quiet := m.pick(2) == 1
	if quiet {
		m.quiet = true
		m.log.quiet()
	}
	m.loseLog(func() {
		m.mem.Restore(m.backup)
		if !quiet {
			m.log.loud()
		}
	})
}

func (m *model) replace() {
	m.backup = nil
	m.loseLog(func() {
		m.mem.Wipe()
		m.log.loud()
	})
}

// loseLog runs f while the hub is down, and notes which messages went with the
// log that an edge had let go of.
func (m *model) loseLog(f func()) {
	m.cut = true
	gone := map[string]bool{}
	m.restart(func() {
		for _, c := range m.contents() {
			gone[c] = true
		}
		f()
		for _, c := range m.contents() {
			delete(gone, c)
		}
	})
	excuse := func(e *lineage, d *simDisk) {
		lost := maps.Clone(gone)
		for i := range d.epochs {
			d.epochs[i].each(d.epochs[i].open(), func(c string) { delete(lost, c) })
		}
		maps.Copy(e.excused, lost)
	}
	for _, e := range m.edges {
		excuse(e, &e.mem)
	}
	if m.image != nil {
		excuse(m.image, &m.image.disk)
	}
}
