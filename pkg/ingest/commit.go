package ingest

import (
	"context"
	"errors"
	"time"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

// commit appends a group and answers its items. An error means that the
// ownership is over; then items of unknown outcome are in unsure, and all
// others have been answered.
//
// A rejected group is tried again in halves, so that one entry which the log
// does not take holds up nobody else.
func (sh *shard) commit(ctx context.Context, own *ownership, group []*item) error {
	if group = sh.withoutBehind(group); len(group) == 0 {
		return nil
	}
	began := time.Now()
	err := own.owner.Append(ctx, sh.collect(group))
	stats := &sh.in.stats
	stats.appends.Add(1)
	stats.appendNanos.Add(int64(time.Since(began)))
	switch {
	case err == nil:
		sh.rejects = 0
		return sh.committed(group)
	case errors.Is(err, commitlog.ErrNoSpace):
		stats.noSpace.Add(1)
		sh.reject(group, RefusedNoSpace, err)
		return nil
	case errors.Is(err, commitlog.ErrRejected):
		stats.rejected.Add(1)
		if len(group) == 1 || sh.rejects >= rejectedInARow {
			if sh.rejects == 0 {
				sh.in.o.Logger.Warn("batch rejected by the log", "shard", sh.n, "device", group[0].dev.name, "error", err)
			}
			sh.rejects++
			sh.reject(group, RefusedByLog, err)
			return nil
		}
		half := len(group) / 2
		if err := sh.commit(ctx, own, group[:half]); err != nil {
			sh.abandonAll(group[half:])
			return err
		}
		return sh.commit(ctx, own, group[half:])
	case errors.Is(err, commitlog.ErrFenced):
		stats.fenced.Add(1)
		sh.abandonAll(group)
	default:
		// ErrUnknown, and whatever says nothing of the outcome.
		stats.unknown.Add(1)
		sh.unsure = append(sh.unsure, group...)
	}
	return err
}

// collect gives the entries of a group.
func (sh *shard) collect(group []*item) []commitlog.Entry {
	clear(sh.entries)
	sh.entries = sh.entries[:0]
	clear(sh.highest)
	for _, it := range group {
		sh.markLate(it)
		sh.entries = append(sh.entries, it.entries...)
	}
	return sh.entries
}

// markLate marks a batch that comes after newer records of its stream, in the
// log or in the group before it. The edge cannot know: its batches may have been
// refused, and come again.
func (sh *shard) markLate(it *item) {
	e := &it.one[0]
	if it.sess == nil || len(e.Records) == 0 {
		return
	}
	e.Flags = it.flags
	if it.flags&stream.FIFO != 0 {
		return
	}
	d, first := it.dev, e.Records[0].Seq
	d.mu.Lock()
	late := d.cov.Late(e)
	d.mu.Unlock()
	k := streamOf{d, it.key()}
	if late || first < sh.highest[k] {
		e.Flags |= stream.Backfill
	}
	sh.highest[k] = max(sh.highest[k], e.Records[len(e.Records)-1].Seq)
}

func (sh *shard) abandonAll(group []*item) {
	var ans answers
	for _, it := range group {
		sh.abandon(it, &ans)
	}
	ans.send()
}

// committed folds what the log has taken into the devices' coverage and answers.
// An error means that the fold and the log disagree, which ends the ownership.
func (sh *shard) committed(group []*item) (failed error) {
	var ans answers
	stats := &sh.in.stats
	for _, it := range group {
		d := it.dev
		d.mu.Lock()
		for i := range it.entries {
			e := &it.entries[i]
			if _, err := d.cov.Apply(e); err != nil {
				failed = errors.Join(failed, err)
			}
			stats.count(e)
			d.seen.records += int64(len(e.Records))
		}
		d.done(it)
		if s := it.sess; s != nil {
			it.out.Code = Settled
			s.finish(it, it.out, &ans)
			if failed == nil {
				s.readmit(&ans)
			}
		} else {
			sh.in.budget.release(it.bytes)
			it.result <- nil
		}
		d.mu.Unlock()
	}
	ans.send()
	return failed
}

// reject answers items that the log has not taken. In a fifo lane the first of
// them takes all that follow with it: the rest of the group, what is queued and
// what comes.
func (sh *shard) reject(group []*item, reason RefuseReason, err error) {
	var ans answers
	for _, it := range group {
		d := it.dev
		d.mu.Lock()
		if s := it.sess; s == nil {
			sh.in.budget.release(it.bytes)
			it.result <- err
		} else {
			if it.fifo() && !it.behind {
				sh.holdLane(it, &ans)
			}
			s.finish(it, s.refusal(reason), &ans)
		}
		d.done(it)
		if it.sess != nil {
			it.sess.readmit(&ans)
		}
		d.mu.Unlock()
	}
	ans.send()
}

// holdLane makes a session refuse what follows it in its fifo lane. All that is
// in the group or queued was admitted before anything that admission refused,
// so this number is the one to wait for, whatever stood there. it.dev.mu is held.
func (sh *shard) holdLane(it *item, ans *answers) {
	s, lane := it.sess, it.key().lane
	s.refusing[lane] = refusing{it.key().epoch, it.numbers.Min()}
	for _, o := range sh.group {
		if o.pos > it.pos && o.sess == s && o.fifo() && o.key().lane == lane {
			o.behind = true
		}
	}
	for _, o := range sh.unqueue(s, lane) {
		s.finish(o, s.refusal(RefusedOrder), ans)
		s.dev.done(o)
	}
}

// withoutBehind refuses the items of a group that follow a refused one of their
// fifo lane, and gives the others.
func (sh *shard) withoutBehind(group []*item) []*item {
	var ans answers
	n := 0
	for _, it := range group {
		if !it.behind {
			group[n] = it
			n++
			continue
		}
		d := it.dev
		d.mu.Lock()
		it.sess.finish(it, it.sess.refusal(RefusedOrder), &ans)
		d.done(it)
		d.mu.Unlock()
	}
	ans.send()
	return group[:n]
}
