package audit

import (
	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

// device judges the streams of one device.
func (a *audit) device(c *Counts, ids []stream.ID, before, after *commitlog.DeviceCoverage) {
	if before == nil {
		before = &commitlog.DeviceCoverage{}
	}
	if after == nil {
		after = &commitlog.DeviceCoverage{}
	}
	// so many epochs without coverage can be explained by forgetting
	excused := map[stream.Epoch]bool{}
	for _, id := range ids {
		if after.Epoch(id.Epoch) == nil && uint64(len(excused)) < after.Forgotten {
			excused[id.Epoch] = true
		}
	}
	for _, id := range ids {
		j := judgement{a: a, c: c, id: id, t: a.streams[id], before: before.Lane(id), after: after.Lane(id)}
		if j.t == nil {
			j.t = &tally{}
		}
		if j.before == nil {
			j.before = &commitlog.LaneState{}
		}
		c.Streams++
		c.Records += j.t.records
		j.broken(Double, j.t.double, &j.t.doubles)
		j.broken(Disorder, j.t.late, &j.t.disorder)
		j.broken(Misplaced, j.t.strayed, &j.t.wrong)
		if excused[id.Epoch] {
			j.forgotten()
		} else {
			j.known()
		}
	}
}

// judgement is of one stream.
type judgement struct {
	a             *audit
	c             *Counts
	id            stream.ID
	t             *tally
	before, after *commitlog.LaneState // after: nil where coverage knows nothing
}

func (j *judgement) broken(k Kind, count uint64, numbers *stream.RangeSet) {
	j.c.broke(k, count)
	j.a.report.find(k, j.id, count, numbers)
}

func (j *judgement) set(k Kind, numbers stream.RangeSet) { j.broken(k, numbers.Count(), &numbers) }

// forgotten judges a stream of an epoch that coverage has let go of: what it
// said before the records were read must still be there.
func (j *judgement) forgotten() {
	j.c.Forgotten += j.t.have.Count()
	j.c.Expired += j.before.Expired.Count()
	j.c.Lost = plus(j.c.Lost, j.before.Lost.Count())
	j.set(LostButThere, common(&j.t.have, &j.before.Lost))
}

// known judges a stream against its coverage.
func (j *judgement) known() {
	have := &j.t.have
	after := j.after
	if after == nil {
		after = &commitlog.LaneState{}
	}
	j.c.Lost = plus(j.c.Lost, after.Lost.Count())
	j.c.Expired += after.Expired.Count()
	out := after.Out()
	j.c.Out = plus(j.c.Out, out.Count())
	for reason, n := range after.LostBy {
		j.c.lose(stream.Reason(reason).String(), n)
	}

	// each record must be known
	known := after.In.Clone()
	known.AddSet(&after.Lost)
	j.set(Unknown, less(have, &known))
	j.set(LostButThere, common(have, &after.Lost))

	// what was in when the reading began must be there
	missing := less(&j.before.In, have)
	missing.RemoveSet(&after.Expired)
	j.set(Missing, missing)

	there := common(have, &after.Expired)
	j.set(ExpiredButThere, j.t.above(&there, j.a.floors[j.t.shard]))

	j.contradictions(after)
}

// contradictions are what no fold could have made.
func (j *judgement) contradictions(l *commitlog.LaneState) {
	all := common(&l.In, &l.Lost)
	never := less(&l.Expired, &l.In)
	all.AddSet(&never)
	// what was settled stays settled
	settled, was := l.Settled(), j.before.Settled()
	gone := less(&was, &settled)
	all.AddSet(&gone)
	if top := max(l.In.Max(), l.Lost.Max()); top > l.Head {
		all.Add(stream.Range{First: l.Head + 1, Last: top})
	}
	var total uint64
	for _, n := range l.LostBy {
		total += n
	}
	count := all.Count()
	if total != l.Lost.Count() {
		count += max(total, l.Lost.Count()) - min(total, l.Lost.Count())
		all.AddSet(&l.Lost)
	}
	j.broken(Contradiction, count, &all)
}

// less is a without b.
func less(a, b *stream.RangeSet) (s stream.RangeSet) {
	for _, r := range a.Ranges() {
		for m := range b.Missing(r) {
			s.Add(m)
		}
	}
	return s
}

// common is what is in both.
func common(a, b *stream.RangeSet) (s stream.RangeSet) {
	for _, r := range a.Ranges() {
		for m := range b.Within(r) {
			s.Add(m)
		}
	}
	return s
}
