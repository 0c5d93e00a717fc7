package buffer

import (
	"encoding/binary"
)

// jump judges the frame in view, which has another index than the one expected.
// synced: the frames that are missing before it were synced once. If no frame
// from there on was built after such a sync, they and all that follows are one
// commit that a cut tore. inPlace is false for a page that stands where another
// one should: a frame from behind or from before.
func (r *recovery) jump(seg *segment, expected uint32) (synced, inPlace bool, err error) {
	if r.view.index < expected {
		return true, false, nil
	}
	inPlace = true
	synced = r.view.synced == 0 || r.view.synced > r.view.index // both plus 1, as frames tell it
	for off, first := r.view.next, true; first || !synced; off, first = r.ahead.next, false {
		ok, err := r.ahead.find(seg, off, seg.size)
		if err != nil {
			return false, false, err
		}
		if !ok {
			break
		}
		inPlace = inPlace && r.ahead.index > r.view.index
		synced = synced || r.ahead.synced > r.view.index
	}
	return synced, inPlace, nil
}

// readKept finds the entries that the base snapshot promises in older segments.
func (r *recovery) readKept() {
	b := r.b
	for _, list := range [][]*segment{r.blank, r.found} {
		for _, seg := range list {
			if seg.kept.live == 0 {
				continue
			}
			promised := seg.kept
			seg.kept = kept{slots: promised.slots, pages: promised.pages}
			_ = b.tryKept(seg, &r.view, &promised, func(slot uint32, key, value []byte) {
				if !seg.kept.has(slot) {
					b.keys.put(seg, slot, string(key), len(value))
				}
			}) // what the disk does not give is dropped
			if n := promised.live - seg.kept.live; n > 0 {
				r.dropped(seg, n)
			}
		}
	}
}

func (r *recovery) dropped(seg *segment, n int) {
	r.b.stats.StateDropped += uint64(n)
	r.b.log.Error("entries of the journal's map are damaged", "segment", segmentName(seg.id), "dropped", n)
}

// tryKept is eachKept, again if the disk refuses. f may see an entry twice.
func (b *Buffer) tryKept(seg *segment, v *frameView, k *kept, f func(slot uint32, key, value []byte)) (err error) {
	for range readAttempts {
		if err = b.eachKept(seg, v, k, f); err == nil {
			return nil
		}
	}
	return err
}

// eachKept reads the entries of seg whose slots are live in k, in the order of
// the file. It goes on behind what the disk cannot read, and returns its error.
func (b *Buffer) eachKept(seg *segment, v *frameView, k *kept, f func(slot uint32, key, value []byte)) (failed error) {
	pages := uint64(seg.size / pageSize)
	for _, run := range k.pages.Ranges() {
		off, end := int64(min(run.First, pages))*pageSize, int64(min(run.Last+1, pages))*pageSize
		for off < end {
			ok, err := v.find(seg, off, end)
			if err != nil {
				failed, off = err, max(off, v.off)+pageSize
				continue
			}
			if !ok {
				break
			}
			off = v.next
			if v.kind != kindData {
				continue
			}
			if m, ok := parseMapOps(v.rest); ok && m.has {
				m.each(func(kind byte, slot uint32, key, value []byte) {
					if kind != changeRemove && k.has(slot) {
						f(slot, key, value)
					}
				})
			}
		}
	}
	return failed
}

// replayMap does what the frame in view says of the map. What was changed in a
// damaged frame before it has no value any more.
func (r *recovery) replayMap(seg *segment) bool {
	m, ok := parseMapOps(r.view.rest)
	if !ok {
		return false
	}
	if n := uint64(len(m.echo) / 4); n > 0 {
		r.echo(seg, &m, m.echoFirst+n)
		r.changes = max(r.changes, m.echoFirst+n)
	}
	if !m.has {
		return true
	}
	if m.before > r.changes {
		r.dropped(seg, int(min(m.before-r.changes, 1<<30)))
	}
	r.changes = max(r.changes, m.before)
	keys := &r.b.keys
	ok = m.each(func(kind byte, slot uint32, key, value []byte) {
		_, known := keys.index[string(key)]
		if !known && r.gone > 0 {
			r.gone--
		}
		if kind != changeMoved {
			r.changes++
		}
		if kind == changeRemove {
			keys.remove(string(key))
		} else if int64(slot) < seg.size {
			keys.put(seg, slot, string(key), len(value))
		}
	})
	seg.kept.note(r.view.off, r.view.next)
	return ok
}

// torn leaves out the frame in view, and all that follows, but for what it says
// of frames before that were synced.
func (r *recovery) torn(seg *segment) {
	r.report.Torn++
	if r.view.kind != kindData {
		return
	}
	r.raise()
	if m, ok := parseMapOps(r.view.rest); ok {
		r.echo(seg, &m, m.echoSynced)
	}
}

// echo drops the keys of which a change up to the end-th is missing.
func (r *recovery) echo(seg *segment, m *mapOps, end uint64) {
	missing := uint64(0)
	if first := min(m.echoFirst, end); first > r.changes { // more than the echo knows
		missing = first - r.changes
	}
	hashes := map[uint32]bool{}
	for i := range uint64(len(m.echo) / 4) {
		if n := m.echoFirst + i; n >= r.changes && n < end {
			hashes[binary.LittleEndian.Uint32(m.echo[4*i:])] = true
			missing++
		}
	}
	if missing == 0 {
		return
	}
	r.b.keys.lose(func(key string, _ keyPlace) bool { return hashes[keyHash(key)] })
	r.dropped(seg, int(min(missing, 1<<30)))
}

// dropGone counts the entries that nothing speaks of any more.
func (r *recovery) dropGone() {
	if r.gone > 0 {
		r.b.stats.StateDropped += uint64(r.gone)
		r.b.log.Error("entries of the journal's map are gone with their segment", "dropped", r.gone)
	}
	r.b.keys.emptied = false
	r.b.keys.settleProjection()
}

// State yields every entry of the map that is synced, in no order, until yield
// returns false. key and value are the caller's. Commits wait meanwhile: yield
// may call Commit and must not wait for its done. Entries that the disk cannot
// give back are dropped, and counted in Stats.StateDropped. The only error is
// ErrClosed.
func (b *Buffer) State(yield func(key string, value []byte) bool) error {
	b.commitMu.Lock()
	defer b.commitMu.Unlock()
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return ErrClosed
	}
	all := append([]*segment(nil), b.segs.live...)
	if b.segs.head != nil {
		all = append(all, b.segs.head)
	}
	b.mu.Unlock()
	more := true
	for _, seg := range all {
		k := seg.kept // changes under commitMu only
		if k.live == 0 {
			continue
		}
		found := kept{}
		err := b.tryKept(seg, &b.mover, &k, func(slot uint32, key, value []byte) {
			if more && !found.has(slot) {
				found.set(slot, 0)
				more = yield(string(key), append(make([]byte, 0, len(value)), value...))
			}
		})
		if !more {
			return nil
		}
		b.missedEntries(seg, &found, err)
	}
	return nil
}

// missedEntries drops the entries of seg that were not found. err is the disk's.
// Under commitMu.
func (b *Buffer) missedEntries(seg *segment, found *kept, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if seg.kept.live == found.live {
		return
	}
	n := b.keys.lose(func(_ string, p keyPlace) bool { return p.seg == seg && !found.has(p.slot) })
	b.suspectEmptied()
	b.stats.StateDropped += n
	b.log.Error("entries of the journal's map are damaged", "segment", segmentName(seg.id), "dropped", n, "error", err)
}
