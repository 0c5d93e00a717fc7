package buffer

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/packetboat/packetboat/pkg/stream"
)

// model is what the buffer must agree with: which numbers were acknowledged
// with which content, and what a log has of them. The log lives longer than any
// disk; acked belongs to the disk, and goes back with a restored image.
type model struct {
	t   *rapid.T
	b   *Buffer
	dir *memDir
	o   Options
	rng *rand.Rand

	acked    map[stream.Position]string
	given    map[stream.Epoch]bool // given up
	content  map[stream.Position]string
	in, lost map[stream.Position]bool
	flights  []stream.Batch
	serial   int
	waiting  int
	faulted  bool // a fault was injected since the buffer was opened

	entries history

	saved      *memDir
	savedState history
	savedAcked map[stream.Position]string
	savedGiven map[stream.Epoch]bool
}

// TestModel does random things to a buffer on a disk that loses unsynced writes.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := Options{Dir: "mem", SegmentBytes: minSegmentBytes, MaxBytes: int64(rapid.IntRange(minSegments, 12).Draw(t, "segments")) * minSegmentBytes}
		if rapid.Bool().Draw(t, "urgent_refuses") {
			o.Lanes = map[stream.Lane]LaneOptions{stream.Urgent: {RefuseNew}}
		}
		m := &model{t: t, dir: newMemDir(), o: o, rng: rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)),
			acked: map[stream.Position]string{}, content: map[stream.Position]string{}, given: map[stream.Epoch]bool{},
			in: map[stream.Position]bool{}, lost: map[stream.Position]bool{}}
		m.entries.base = map[string]string{}
		m.open()
		t.Repeat(map[string]func(*rapid.T){
			"":         m.check,
			"append":   m.append,
			"append2":  m.append,
			"append3":  m.append,
			"entries":  m.putEntries,
			"entries2": m.putEntries,
			"commit":   func(*rapid.T) { _ = m.b.commit(true) },
			"commit2":  func(*rapid.T) { _ = m.b.commit(true); m.b.makeRoom() },
			"next":     m.next,
			"next2":    m.next,
			"answer":   m.answer,
			"answer2":  m.answer,
			"requeue":  m.requeue,
			"hangup":   func(*rapid.T) { m.b.RequeueAll(); m.flights = nil },
			"coverage": m.coverage,
			"refuse":   m.refuse,
			"crash":    m.crash,
			"cut":      m.cut,
			"cut2":     m.cut,
			"stop":     m.stop,
			"save":     m.save,
			"restore":  m.restore,
			"giveup":   m.giveUp,
			"fail":     m.fail,
		})
		m.drain()
	})
}

func (m *model) open() {
	b, err := openOn(m.dir, m.o)
	if err != nil {
		m.t.Fatalf("open: %v", err)
	}
	if s := b.Stats(); s.Recovery.BadSnapshots == 0 && s.Recovery.Damaged == 0 && s.Recovery.Unreadable > 0 {
		m.t.Fatalf("unreadable without damage: %+v", s.Recovery)
	}
	m.b, m.flights, m.waiting, m.faulted = b, nil, 0, false
	m.entries.reopened(m.t, stateOf(m.t, b))
	if s := b.Stats(); s.StateDropped > 0 {
		m.t.Fatalf("entries dropped without damage: %+v", s)
	}
}

func (m *model) append(t *rapid.T) {
	lane := rapid.SampledFrom(stream.Lanes[:]).Draw(t, "lane")
	n := rapid.IntRange(1, 8).Draw(t, "count")
	size := rapid.SampledFrom([]int{1, 60, 900, 4000}).Draw(t, "size")
	var msgs []stream.Message
	for range n {
		m.serial++
		text := fmt.Sprintf("%d ", m.serial)
		msgs = append(msgs, stream.Message{Topic: "t", Payload: append([]byte(text), make([]byte, size)...), Time: int64(m.serial), Quality: stream.TimeLocal, QoS: 1})
	}
	w := Write{Lane: lane, Msgs: msgs}
	if rapid.Bool().Draw(t, "with_entries") {
		w.State = drawEntries(t, m.serial)
	}
	called := false
	b := m.b
	item := &historyItem{entries: w.State}
	err := m.b.Commit(w, func(first stream.Position, err error) {
		if called || b != m.b {
			m.t.Fatalf("done called twice, or after the crash")
		}
		called = true
		m.waiting--
		if item.fate = failed; err != nil {
			return
		}
		item.fate = acknowledged
		for i := range msgs {
			p := first
			p.Seq += uint64(i)
			m.sees(p, string(msgs[i].Payload))
			m.acked[p] = string(msgs[i].Payload)
		}
	})
	if err == nil {
		m.waiting++
		m.entries.items = append(m.entries.items, item)
	} else if !errors.Is(err, ErrFull) && !errors.Is(err, ErrDisk) && !errors.Is(err, ErrBusy) && !(errors.Is(err, ErrStateFull) && len(w.State) > 0) && !(errors.Is(err, ErrTooLarge) && len(w.State) > 0) {
		m.t.Fatalf("append: %v", err)
	}
}

// sees notes a content under a number, which must be the only one ever.
func (m *model) sees(p stream.Position, text string) {
	if was, ok := m.content[p]; ok && was != text {
		m.t.Fatalf("two contents under %v: %.20q and %.20q", p, was, text)
	}
	m.content[p] = text
}

func (m *model) next(t *rapid.T) {
	lane := rapid.SampledFrom(stream.Lanes[:]).Draw(t, "lane")
	limit := Limit{Messages: rapid.IntRange(0, 10).Draw(t, "messages"), Bytes: rapid.SampledFrom([]int{0, 100, 5000}).Draw(t, "bytes")}
	b, ok, err := m.b.Next(lane, limit)
	if err == nil && ok {
		m.departs(b)
	}
}

func (m *model) departs(b stream.Batch) {
	if b.Records == nil && len(b.Losses) == 0 {
		m.t.Fatalf("empty batch %+v", b)
	}
	numbers := numbersOf(&b)
	for _, f := range m.flights {
		flying := numbersOf(&f)
		for _, r := range numbers.Ranges() {
			if f.ID == b.ID && flying.Overlaps(r) {
				m.t.Fatalf("handed out twice: %v %s", b.ID, r)
			}
		}
	}
	for i := range b.Records {
		r := &b.Records[i]
		if r.Seq != b.First+uint64(i) || r.Seq > b.Head || r.Seq < b.Floor {
			m.t.Fatalf("record %d in a batch from %d, floor %d, head %d", r.Seq, b.First, b.Floor, b.Head)
		}
		m.sees(stream.Position{ID: b.ID, Seq: r.Seq}, string(r.Payload))
	}
	m.flights = append(m.flights, b)
}

func numbersOf(b *stream.Batch) (s stream.RangeSet) {
	if len(b.Records) > 0 {
		s.Add(stream.Range{First: b.First, Last: b.Last()})
	}
	for _, l := range b.Losses {
		s.Add(l.Range)
	}
	return s
}

// deliver brings a batch to the log: a number settles once, the first wins.
func (m *model) deliver(b *stream.Batch) (a Answer) {
	a.By = testLog
	a.Settled = numbersOf(b)
	for i := range b.Records {
		if p := (stream.Position{ID: b.ID, Seq: b.Records[i].Seq}); !m.lost[p] {
			m.in[p] = true
		}
	}
	for _, l := range b.Losses {
		for n := l.First; n <= l.Last; n++ {
			if p := (stream.Position{ID: b.ID, Seq: n}); !m.in[p] {
				m.lost[p] = true
			}
		}
	}
	for _, r := range a.Settled.Ranges() {
		for n := r.First; n <= r.Last; n++ {
			if m.lost[stream.Position{ID: b.ID, Seq: n}] {
				a.Lost.Add(stream.Range{First: n, Last: n})
			}
		}
	}
	return a
}

func (m *model) pick(t *rapid.T) stream.Batch {
	if len(m.flights) == 0 {
		t.Skip("nothing in flight")
	}
	i := rapid.IntRange(0, len(m.flights)-1).Draw(t, "flight")
	b := m.flights[i]
	m.flights = append(m.flights[:i:i], m.flights[i+1:]...)
	return b
}

func (m *model) answer(t *rapid.T) {
	b := m.pick(t)
	a := m.deliver(&b)
	if rapid.IntRange(0, 9).Draw(t, "acknowledgement_lost") == 0 {
		m.b.RequeueAll()
		m.flights = nil
		return
	}
	m.settle(b.ID, a)
}

func (m *model) settle(id stream.ID, a Answer) {
	if err := m.b.Settle(id, a); err != nil {
		m.t.Fatalf("settle: %v", err)
	}
}

// refuse: the log can never take a batch, and calls all of it lost.
func (m *model) refuse(t *rapid.T) {
	b := m.pick(t)
	numbers := numbersOf(&b)
	for _, r := range numbers.Ranges() {
		for n := r.First; n <= r.Last; n++ {
			if p := (stream.Position{ID: b.ID, Seq: n}); !m.in[p] {
				m.lost[p] = true
			}
		}
	}
	b.Records = nil
	a := m.deliver(&stream.Batch{ID: b.ID, Losses: lossesOf(&numbers)})
	m.settle(b.ID, a)
}

func lossesOf(s *stream.RangeSet) (out []stream.Loss) {
	for _, r := range s.Ranges() {
		out = append(out, stream.Loss{Range: r})
	}
	return out
}

func (m *model) requeue(t *rapid.T) {
	b := m.pick(t)
	m.b.Requeue(b.ID, b.First)
}

// coverage: a new connection; the log says all it knows of what is held.
func (m *model) coverage(*rapid.T) {
	m.b.RequeueAll()
	m.flights = nil
	for _, h := range m.b.Held() {
		id := stream.ID{Epoch: h.Epoch, Lane: h.Lane}
		a := Answer{By: testLog}
		for n := uint64(1); n <= h.Head+2; n++ {
			p := stream.Position{ID: id, Seq: n}
			if m.in[p] || m.lost[p] {
				a.Settled.Add(stream.Range{First: n, Last: n})
			}
			if m.lost[p] {
				a.Lost.Add(stream.Range{First: n, Last: n})
			}
		}
		m.settle(id, a)
	}
}

func (m *model) crash(*rapid.T) {
	m.dir.mu.Lock()
	m.dir.fault = nil
	m.dir.mu.Unlock()
	m.dir = m.dir.crash(m.rng)
	m.open()
}

// cut: the power goes in the middle of a commit, before one of its writes or
// syncs. What is acknowledged after that never happened.
func (m *model) cut(t *rapid.T) {
	m.append(t)
	left := rapid.IntRange(0, 8).Draw(t, "before")
	lane := rapid.SampledFrom(stream.Lanes[:]).Draw(t, "lane")
	var image *memDir
	var acked map[stream.Position]string
	var entries history
	m.dir.before = func() {
		if left--; left < 0 && image == nil {
			image, acked, entries = m.dir.crashLocked(m.rng), maps.Clone(m.acked), m.entries.clone()
		}
	}
	if rapid.Bool().Draw(t, "next") {
		_, _, _ = m.b.Next(lane, Limit{}) // may write the settle state
	}
	for image == nil && left > 0 {
		_ = m.b.commit(true)
		m.b.makeRoom()
		if m.append(t); m.waiting == 0 { // nothing is taken
			break
		}
	}
	m.dir.before = nil
	if image == nil {
		m.crash(t)
		return
	}
	m.dir, m.acked, m.entries = image, acked, entries
	m.open()
}

func (m *model) stop(*rapid.T) {
	m.dir.fault = nil
	_ = m.b.commit(true)
	_ = m.b.vouch()
	if err := m.b.Close(); err != nil {
		m.t.Fatalf("close: %v", err)
	}
	m.open()
}

func (m *model) save(*rapid.T) {
	m.savedState = m.entries.clone()
	m.saved, m.savedAcked, m.savedGiven = m.dir.image(), maps.Clone(m.acked), maps.Clone(m.given)
}

// restore: an older image of the disk comes back, in place of this one.
func (m *model) restore(t *rapid.T) {
	if m.saved == nil {
		t.Skip("no image")
	}
	m.entries = m.savedState.clone()
	m.dir, m.acked, m.given = m.saved.image(), maps.Clone(m.savedAcked), maps.Clone(m.savedGiven)
	m.open()
}

func (m *model) giveUp(t *rapid.T) {
	if rapid.IntRange(0, 4).Draw(t, "really") > 0 {
		t.Skip("not now")
	}
	held := m.b.Held()
	e := held[rapid.IntRange(0, len(held)-1).Draw(t, "epoch")].Epoch
	if err := m.b.GiveUp(e, stream.Stale); err == nil {
		m.given[e] = true
	} else {
		m.given[e] = true // in memory it is done; a crash may bring it back, which harms nobody
	}
	kept := m.flights[:0:0]
	for _, f := range m.flights {
		if f.ID.Epoch != e {
			kept = append(kept, f)
		}
	}
	m.flights = kept
}

// fail lets some of the next disk operations fail.
func (m *model) fail(t *rapid.T) {
	n := rapid.IntRange(0, 6).Draw(t, "failures")
	of := rapid.SampledFrom([]string{"write", "sync", "create"}).Draw(t, "operation")
	failure := rapid.SampledFrom([]error{errInjected, syscall.ENOSPC}).Draw(t, "error")
	m.faulted = m.faulted || n > 0
	m.dir.fault = func(op, _ string) error {
		if op == of && n > 0 {
			n--
			return failure
		}
		return nil
	}
	m.b.mu.Lock() // time passes
	m.b.retryAt, m.b.noSpares = m.b.opened, m.b.opened
	m.b.mu.Unlock()
}

// check is what holds at any moment.
func (m *model) check(*rapid.T) {
	s := m.b.Stats()
	if !s.ConservationOK {
		m.t.Fatalf("not conserved: %+v", s)
	}
	m.entries.check(m.t, m.b)
	if s.DiskBytes > s.DiskLimit+minSegmentBytes {
		m.t.Fatalf("%d bytes of %d", s.DiskBytes, s.DiskLimit)
	}
	held := map[stream.ID]*stream.RangeSet{}
	for _, h := range m.b.Held() {
		ranges := h.Ranges.Clone()
		held[stream.ID{Epoch: h.Epoch, Lane: h.Lane}] = &ranges
	}
	for p := range m.acked {
		if m.given[p.ID.Epoch] || m.in[p] || m.lost[p] {
			continue
		}
		if r := held[p.ID]; r == nil || !r.Contains(p.Seq) {
			m.t.Fatalf("%v is acknowledged, in no log, and not held", p)
		}
	}
	losses := m.b.Losses()
	for _, l := range losses {
		for n := l.First; n <= l.Last; n++ {
			p := stream.Position{ID: l.ID, Seq: n}
			if _, ok := m.acked[p]; ok && l.Reason == stream.Unreadable {
				m.t.Fatalf("%v was acknowledged and is unreadable", p)
			}
			if l.Declared && !m.lost[p] && !m.given[p.ID.Epoch] {
				m.t.Fatalf("%v counts as declared, the log does not know: %+v", p, l)
			}
		}
		for i := range m.flights {
			f := &m.flights[i]
			if !l.Declared && f.ID == l.ID && len(f.Records) > 0 && l.First <= f.Last() && f.First <= l.Last {
				m.t.Fatalf("in flight and lost: %+v", l)
			}
		}
	}
}

// drain brings the journal to rest and judges it.
func (m *model) drain() {
	m.dir.fault = nil
	m.b.mu.Lock()
	m.b.retryAt, m.b.noSpares = m.b.opened, m.b.opened
	m.b.mu.Unlock()
	if err := m.b.commit(true); err != nil && !errors.Is(err, ErrFull) {
		m.t.Fatalf("commit on a healthy disk: %v", err)
	}
	if m.waiting != 0 {
		m.t.Fatalf("%d callbacks did not come", m.waiting)
	}
	m.b.RequeueAll()
	m.flights = nil
	for _, lane := range stream.Lanes {
		last := stream.Position{}
		for {
			b, ok, err := m.b.Next(lane, Limit{})
			if err != nil {
				m.t.Fatalf("next: %v", err)
			}
			if !ok {
				break
			}
			m.departs(b)
			if b.ID == last.ID && len(b.Records) > 0 && b.First <= last.Seq {
				m.t.Fatalf("out of order: %d after %d", b.First, last.Seq)
			}
			if len(b.Records) > 0 {
				last = stream.Position{ID: b.ID, Seq: b.Last()}
			}
			m.settle(b.ID, m.deliver(&b))
		}
		if w := m.b.Unsent(lane); w.Messages != 0 {
			m.t.Fatalf("unsent after the drain: %+v", w)
		}
	}
	m.flights = nil
	m.check(nil)
	for p := range m.acked {
		if !m.in[p] && !m.lost[p] && !m.given[p.ID.Epoch] {
			m.t.Fatalf("%v was acknowledged and is nowhere", p)
		}
	}
	_ = m.b.commit(true)
	if s := m.b.Stats(); s.Queued+s.InFlight != 0 || s.Epochs != 1 || s.Segments > s.Spares+2+mapSegments(m.b) {
		m.t.Fatalf("not at rest: %+v", s)
	}
}
