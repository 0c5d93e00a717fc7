package prove

import (
	"fmt"
	"slices"

	"github.com/packetboat/packetboat/internal/rig/receipts"
	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

// A loss names sequence numbers, a receipt a message, and nobody knows which
// number a message had that is in no record. What can be known is counted. Every
// number that was declared lost belonged to one send without record. So, in the
// lanes of a device: of L lost numbers at most U can belong to sends that were
// never promised (not acknowledged, QoS 0, or another copy of a message that was
// sent again), so at least L-U of the M missing messages are declared; at least
// M-L are not; the rest is undecidable. Where others than those with receipts
// published too, any lost number may be theirs, and nothing is declared for
// certain. And a message is missing whatever the sums, when between the records
// before and after it, as the sensor sent them, no number of their lanes was
// declared lost. An edge does not go back to an epoch that it left, so what was
// sent between two records of one epoch had its number there.

// lanes is a set of lanes.
type lanes uint8

func lanesOf(lane stream.Lane) lanes { return 1 << lane }

func (l lanes) has(lane stream.Lane) bool { return l&lanesOf(lane) != 0 }

// losses are the numbers of a device that have no record on purpose.
type losses struct {
	gone map[stream.ID]*stream.RangeSet
	by   [stream.Bulk + 1]map[string]uint64 // by lane and reason
	n    [stream.Bulk + 1]uint64            // by lane
}

// Deleted is the reason of numbers whose records retention has deleted.
const Deleted = "deleted by retention"

func newLosses(device string, cov *commitlog.DeviceCoverage) *losses {
	l := &losses{gone: map[stream.ID]*stream.RangeSet{}}
	for i := range l.by {
		l.by[i] = map[string]uint64{}
	}
	if cov == nil {
		return l
	}
	for _, e := range cov.Epochs {
		for _, lane := range stream.Lanes {
			s := &e.Lanes[lane]
			gone := s.Lost.Clone()
			gone.AddSet(&s.Expired)
			if gone.IsEmpty() {
				continue
			}
			l.gone[stream.ID{Device: device, Epoch: e.ID, Lane: lane}] = &gone
			l.n[lane] += gone.Count()
			for _, r := range stream.Reasons {
				if n := s.LostBy[r]; n > 0 {
					l.by[lane][r.String()] += n
				}
			}
			if n := s.Expired.Count(); n > 0 {
				l.by[lane][Deleted] += n
			}
		}
	}
	return l
}

// readLosses asks for the losses of the devices that the topics are from. A
// topic without any record is from the only one there is.
func (p *proof) readLosses() error {
	p.losses = map[string]*losses{}
	if p.o.Coverage == nil {
		return nil
	}
	only, several := p.o.Device, false
	for id := range p.streams {
		several = several || only != "" && only != id.Device
		only = id.Device
	}
	for _, t := range p.topics {
		if t.device == "" && !several {
			t.device = only
		}
		if t.device == "" || p.losses[t.device] != nil {
			continue
		}
		cov, err := p.o.Coverage(t.device)
		if err != nil {
			return fmt.Errorf("asking what was declared lost of %s: %w", t.device, err)
		}
		p.losses[t.device] = newLosses(t.device, cov)
	}
	return nil
}

// lanesOf gives the lanes of a topic's records.
func (p *proof) lanesOf(t *topic) (l lanes) {
	for _, s := range t.log {
		l |= lanesOf(p.ids[s.stream].Lane)
	}
	return l
}

// excused reports whether a message that is missing may have had a number that
// was declared lost: one behind the last record that is certainly before the
// given sends of it, and before the first one that is certainly behind them.
func (p *proof) excused(t *topic, a *alignment, sends []int32) bool {
	before, _ := slices.BinarySearch(a.right, sends[0])
	behind, _ := slices.BinarySearch(a.left, sends[len(sends)-1]+1)
	l := p.losses[t.device]
	if l == nil {
		return false
	}
	var last, next *stream.ID
	if before > 0 {
		last = &p.ids[a.records[before-1].stream]
	}
	if behind < len(a.records) {
		next = &p.ids[a.records[behind].stream]
	}
	for id, gone := range l.gone {
		if t.lanes != 0 && !t.lanes.has(id.Lane) || last != nil && next != nil && last.Epoch == next.Epoch && id.Epoch != last.Epoch {
			continue
		}
		within := stream.Range{First: 1, Last: gone.Max()}
		if last != nil && *last == id {
			within.First = a.records[before-1].seq + 1
		}
		if next != nil && *next == id {
			within.Last = min(within.Last, a.records[behind].seq-1)
		}
		if within.First <= within.Last && gone.Overlaps(within) {
			return true
		}
	}
	return false
}

// sum is what a topic adds to the count of its device.
type sum struct {
	device   string
	lanes    lanes
	missing  int64
	hopeless int64
	open     int64 // sends without record
}

// sumUp notes what is without record in a topic that was judged.
func (p *proof) sumUp(t *topic, groups map[receipts.Hash]*group, missing int64) {
	s := sum{device: t.device, lanes: t.lanes, missing: missing, hopeless: t.hopeless}
	for _, g := range groups {
		s.open += int64(g.sends - g.records)
	}
	p.sums = append(p.sums, s)
}

// declare takes what is declared lost off what is missing.
func (p *proof) declare() {
	for device, l := range p.losses {
		for _, together := range p.components(device) {
			p.settle(device, l, together)
		}
	}
	if p.report.Missing == 0 { // what looked missing is explained
		p.report.Examples = slices.DeleteFunc(p.report.Examples, func(e Example) bool { return e.Kind == Missing })
	}
}

// components gives the lanes of a device that cannot be counted apart, because
// a topic has records in several, or none.
func (p *proof) components(device string) []lanes {
	all := []lanes{}
	for _, lane := range stream.Lanes {
		all = append(all, lanesOf(lane))
	}
	for _, s := range p.sums {
		if s.device != device || s.open == 0 {
			continue
		}
		joined, apart := s.lanes, []lanes{}
		for _, c := range all {
			if s.lanes == 0 || c&s.lanes != 0 {
				joined |= c
			} else {
				apart = append(apart, c)
			}
		}
		all = append(apart, joined)
	}
	return all
}

// settle decides what is missing in some lanes of a device.
func (p *proof) settle(device string, l *losses, together lanes) {
	var missing, hopeless, open int64
	for _, s := range p.sums {
		if s.device == device && (s.lanes&together != 0 || s.lanes == 0 && s.open > 0) {
			missing, hopeless, open = missing+s.missing, hopeless+s.hopeless, open+s.open
		}
	}
	lost := int64(0)
	for _, lane := range stream.Lanes {
		if !together.has(lane) {
			continue
		}
		lost += int64(l.n[lane])
		for reason, n := range l.by[lane] {
			if p.report.LostNumbers == nil {
				p.report.LostNumbers = map[string]uint64{}
			}
			p.report.LostNumbers[reason] += n
		}
	}
	hoping, others := missing-hopeless, open-missing
	strangers := p.foreign[device]&together != 0 || lost > open
	declared := int64(0)
	if !strangers {
		declared = min(max(lost-others, 0), hoping)
	}
	explained := min(lost, hoping)
	p.report.Missing -= explained
	p.report.Declared += declared
	if doubt := explained - declared; doubt > 0 {
		p.report.Undecidable += doubt
		p.report.example(Undecided, device, "%d of %d missing messages: %d numbers are declared lost, but %s", doubt, missing, lost, doubtful(strangers, others))
	}
}

func doubtful(strangers bool, others int64) string {
	if strangers {
		return "sensors without receipts published as well, and they may be theirs"
	}
	return fmt.Sprintf("they may be those of %d sends that were not acknowledged, or of copies", others)
}
