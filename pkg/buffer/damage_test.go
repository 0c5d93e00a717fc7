package buffer

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/packetboat/packetboat/pkg/stream"
)

// specimen is a journal of many frames, some of it settled, closed in order.
type specimen struct {
	dir   *memDir
	all   map[stream.Position]string // everything ever acknowledged
	open  map[stream.Position]string // of that, not settled
	where map[stream.Position]place
	names []string

	entries  map[string]string          // the map at the end
	values   map[string]map[string]bool // all that ever stood under a key
	entryAt  map[string]place           // where the last change of a key stands
	hitOlder int                        // how often damage met a key's last change
}

// place is where a record's frame stands.
type place struct {
	name        string
	first, last int64 // pages
	snapshotEnd int64 // page after the segment's snapshot
}

var theSpecimen = sync.OnceValue(makeSpecimen)

func testOptions() Options {
	return Options{Dir: "mem", SegmentBytes: minSegmentBytes, MaxBytes: 16 * minSegmentBytes}
}

func makeSpecimen() *specimen {
	s := &specimen{dir: newMemDir(), all: map[stream.Position]string{}, open: map[stream.Position]string{}, where: map[stream.Position]place{},
		entries: map[string]string{}, values: map[string]map[string]bool{}, entryAt: map[string]place{}}
	check := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	for life := range 2 {
		b, err := openOn(s.dir, testOptions())
		check(err)
		for i := range 40 {
			for _, lane := range stream.Lanes {
				text := fmt.Sprintf("life %d message %d %s %0800d", life, i, lane, i)
				check(b.Append(lane, []stream.Message{{Topic: "x", Payload: []byte(text), Time: int64(i), Quality: stream.TimeLocal, QoS: 1}}, func(p stream.Position, err error) {
					check(err)
					s.all[p], s.open[p] = text, text
				}))
			}
			s.change(b, life, i, check)
			check(b.commit(true))
			if i%5 == 4 {
				batch, ok, err := b.Next(stream.Urgent, Limit{Messages: 3})
				if check(err); !ok {
					panic("no batch")
				}
				check(b.Settle(batch.ID, settled(&batch)))
				for j := range batch.Records {
					delete(s.open, stream.Position{ID: batch.ID, Seq: batch.Records[j].Seq})
				}
			}
		}
		check(b.commit(true))
		check(b.vouch())
		s.locate(b)
		check(b.Close())
	}
	s.names, _ = s.dir.List()
	return s
}

// change writes entries with the messages of a step, or in the next frame.
func (s *specimen) change(b *Buffer, life, i int, check func(error)) {
	if i%3 == 0 {
		check(b.commit(true))
	}
	e := Entry{Key: fmt.Sprintf("key/%d", i%9), Value: fmt.Appendf(nil, "life %d value %d", life, i)}
	if i%4 == 3 {
		e.Value = nil
	}
	once := Entry{Key: fmt.Sprintf("once/%d/%d", life, i), Value: []byte("once")}
	for _, e := range []Entry{e, once} {
		if s.values[e.Key] == nil {
			s.values[e.Key] = map[string]bool{}
		}
		s.values[e.Key][string(e.Value)] = true
		if s.entries[e.Key] = string(e.Value); e.Value == nil {
			delete(s.entries, e.Key)
		}
	}
	check(b.Commit(Write{State: []Entry{e, once}}, nil))
}

func (s *specimen) locate(b *Buffer) {
	for _, seg := range append(slices.Clone(b.segs.live), b.segs.head) {
		var v frameView
		snapshotEnd := int64(0)
		for off := int64(pageSize); off < seg.end; off = v.next {
			if ok, _ := v.read(seg, off); !ok {
				break
			}
			if v.kind == kindSnapshot {
				snapshotEnd = v.next / pageSize
			}
			if m, ok := parseMapOps(v.rest); ok {
				m.each(func(kind byte, _ uint32, key, _ []byte) {
					if kind != changeMoved {
						s.entryAt[string(key)] = place{segmentName(seg.id), off / pageSize, v.next/pageSize - 1, snapshotEnd}
					}
				})
			}
			for _, g := range v.groups {
				for n := g.first; n < g.first+g.count; n++ {
					s.where[stream.Position{ID: stream.ID{Epoch: g.epoch, Lane: g.lane}, Seq: n}] = place{segmentName(seg.id), off / pageSize, v.next/pageSize - 1, snapshotEnd}
				}
			}
		}
	}
}

// damage is a change to one page.
type damage struct {
	file, page, offset, how byte
}

func (s *specimen) apply(d damage, to *memDir) (name string, page int64) {
	name = s.names[int(d.file)%len(s.names)]
	f := to.files[name]
	if len(f.data) == 0 {
		return name, 0
	}
	page = int64(d.page) % (int64(len(f.data)+pageSize-1) / pageSize)
	p := f.data[page*pageSize : min((page+1)*pageSize, int64(len(f.data)))]
	switch d.how % 4 {
	case 0: // a bit
		p[int(d.offset)*13%len(p)] ^= 1 << (d.how >> 4 & 7)
	case 1: // zeros
		clear(p)
	case 2: // rubbish
		for i := range p {
			p[i] = byte(i)*d.offset + d.how
		}
	case 3: // another page in its place
		copy(p, f.data[(page*7+int64(d.offset))%(int64(len(f.data))/pageSize)*pageSize:])
	}
	return name, page
}

// FuzzRecovery damages a journal. Whatever was done to it: opening does not
// panic; it opens, or says why not; no record comes out that was not put in
// under its number; what stands in undamaged frames comes out; and when only
// one page was hit, all that was acknowledged and not settled comes out or
// stands in the ledger.
func FuzzRecovery(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{0, 1, 9, 1})
	f.Add([]byte{1, 0, 1, 2, 1, 1, 1, 2})
	f.Add([]byte{2, 3, 200, 0, 2, 9, 7, 3, 0, 1, 1, 1})
	f.Fuzz(func(t *testing.T, script []byte) {
		var all []damage
		for len(script) >= 4 && len(all) < 64 {
			all = append(all, damage{script[0], script[1], script[2], script[3]})
			script = script[4:]
		}
		checkDamage(t, all)
	})
}

// Every single page of the specimen, hit in each way.
func TestEachPageDamaged(t *testing.T) {
	s := theSpecimen()
	for i, name := range s.names {
		for page := range (len(s.dir.files[name].data) + pageSize - 1) / pageSize {
			for how := range byte(4) {
				checkDamage(t, []damage{{byte(i), byte(page), 5, how}})
			}
		}
	}
	if s.hitOlder < 10 {
		t.Fatalf("damage met only %d entries", s.hitOlder)
	}
}

func checkDamage(t *testing.T, all []damage) {
	s := theSpecimen()
	dir := s.dir.image()
	hit := map[string]map[int64]bool{}
	for _, d := range all {
		name, page := s.apply(d, dir)
		if hit[name] == nil {
			hit[name] = map[int64]bool{}
		}
		hit[name][page] = true
	}
	b, err := openOn(dir, testOptions())
	if err != nil {
		if len(all) < 2 || !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
			t.Fatalf("open after %v: %v", all, err)
		}
		return
	}
	defer b.Close()
	s.checkMap(t, all, hit, stateOf(t, b), b.Stats().StateDropped)
	out, lost := drainAll(t, b)
	for p, text := range out {
		if want, ok := s.all[p]; !ok || want != text {
			t.Fatalf("after %v: %v came out as %.40q, was %.40q", all, p, text, want)
		}
	}
	for p, text := range s.open {
		w := s.where[p]
		clean := !hit[w.name][0] || !damagedIn(hit[w.name], 1, w.snapshotEnd-1)
		clean = clean && !damagedIn(hit[w.name], w.first, w.last)
		switch {
		case clean && out[p] != text:
			t.Fatalf("after %v: %v stands in an undamaged frame (%+v) and does not come out (lost: %v)", all, p, w, lost[p])
		case len(hit) <= 1 && len(hit[w.name]) <= 1 && out[p] != text && !lost[p]:
			t.Fatalf("after %v: %v is nowhere (%+v)", all, p, w)
		}
	}
	if st := b.Stats(); !st.ConservationOK {
		t.Fatalf("after %v: %+v", all, st)
	}
}

// checkMap: no value comes out that did not stand under its key. Where one page
// was hit, every key has its last value, or, if that page held its last change,
// none; never an older one.
func (s *specimen) checkMap(t *testing.T, all []damage, hit map[string]map[int64]bool, got map[string]string, dropped uint64) {
	for key, value := range got {
		if !s.values[key][value] {
			t.Fatalf("after %v: %q is %q", all, key, value)
		}
	}
	if len(hit) > 1 || len(all) > 1 {
		return
	}
	missing := 0
	for key, at := range s.entryAt {
		want, there := s.entries[key]
		value, is := got[key]
		met := damagedIn(hit[at.name], at.first, at.last)
		if met {
			s.hitOlder++
		}
		switch {
		case is && (!there || value != want):
			t.Fatalf("after %v: %q is %q, an older value than %q (%v)", all, key, value, want, there)
		case !is && there && !met:
			t.Fatalf("after %v: %q is gone, it stands in an undamaged frame (%+v)", all, key, at)
		case !is && there:
			missing++
		}
	}
	if missing > 0 && dropped == 0 {
		t.Fatalf("after %v: %d entries are missing, none counted", all, missing)
	}
}

func damagedIn(pages map[int64]bool, first, last int64) bool {
	for p := first; p <= last; p++ {
		if pages[p] {
			return true
		}
	}
	return false
}

func drainAll(t testing.TB, b *Buffer) (out map[stream.Position]string, lost map[stream.Position]bool) {
	out, lost = map[stream.Position]string{}, map[stream.Position]bool{}
	for _, lane := range stream.Lanes {
		for {
			batch, ok, err := b.Next(lane, Limit{})
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			for i := range batch.Records {
				out[stream.Position{ID: batch.ID, Seq: batch.Records[i].Seq}] = string(batch.Records[i].Payload)
			}
			for _, l := range batch.Losses {
				for n := l.First; n <= min(l.Last, l.First+10_000); n++ {
					lost[stream.Position{ID: batch.ID, Seq: n}] = true
				}
			}
		}
	}
	return out, lost
}
