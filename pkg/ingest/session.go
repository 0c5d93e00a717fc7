package ingest

import (
	"errors"
	"time"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

// Session is one connection of a device. Submit is for one goroutine; Close may
// be called from any.
type Session struct {
	in       *Ingest
	dev      *device
	own      *ownership // what it began under; it ends with it
	window   int        // messages
	onRevoke func(reason string)

	recv *receiver

	// Of the goroutine that calls Submit.
	named   map[stream.Epoch]bool // epochs of Hello.Held
	partial bool
	current stream.Epoch

	// absent are numbers that the log was told of, that are not settled, and
	// that this edge does not hold. It does not change.
	absent map[streamKey]uint64
	// Everything below is guarded by dev.mu.

	ended    bool
	inflight int // submitted and not answered
	// waiting holds batches that overlap a pending one, and what came after
	// them, in order of arrival.
	waiting []*item
	// refusing says for each lane what it waits for, see refuse.
	refusing [4]refusing
}

// refusing is the state of a fifo lane of which a batch was refused: what
// follows is refused too, until the batch's first number comes again, as record
// or as loss. Numbers before it, in its stream, are taken.
type refusing struct {
	epoch stream.Epoch
	seq   uint64 // 0: nothing was refused
}

// Submit takes one batch, in the order of arrival. As long as the session is
// open it decodes here, whatever becomes of the batch, and waits for nothing but
// a free processor. settle is called exactly once with the outcome, from any
// goroutine and without locks held, maybe before Submit returns, and must not
// block. packet is not touched after Submit has returned.
func (s *Session) Submit(packet []byte, settle func(Outcome)) {
	if len(packet) > s.in.o.PacketBytes {
		s.exceeded(settle)
		return
	}
	it, err := s.decode(packet, settle)
	switch {
	case errors.Is(err, errEnded):
		settle(s.refusal(RefusedRevoked))
		return
	case err != nil:
		s.in.stats.bad.Add(1)
		s.in.o.Logger.Debug("batch is bad", "device", s.dev.name, "error", err)
		settle(Outcome{Code: Bad, Codec: s.recv.regrant()})
		return
	}
	var ans answers
	s.dev.mu.Lock()
	over := s.inflight >= s.window && !s.ended
	s.inflight++
	switch {
	case over || s.ended:
		s.refuse(it, RefusedRevoked, &ans)
	case len(s.waiting) > 0 || !s.admit(it, &ans):
		s.waiting = append(s.waiting, it)
	}
	s.dev.mu.Unlock()
	ans.send()
	if over {
		s.revoke(RevokedWindow)
	}
}

// decode makes an item of a packet and takes its memory from the budget. It
// decodes whatever becomes of the batch: the two ends of the codec stay in step.
// No more than the processors can do decode at once, so that what is decoded and
// not yet counted is bounded.
func (s *Session) decode(packet []byte, settle func(Outcome)) (*item, error) {
	s.in.decoding <- struct{}{}
	defer func() { <-s.in.decoding }()
	b, err := s.recv.decode(packet)
	if err != nil {
		return nil, err
	}
	it, err := batchItem(s, &b, len(packet), time.Now().UnixMicro(), settle)
	if err != nil {
		s.recv.spoil(err)
		return nil, err
	}
	if !s.in.budget.take(it.bytes) {
		it.denied, it.bytes = true, 0
		it.one[0].Records, it.one[0].Losses = nil, nil
	}
	return it, nil
}

// exceeded answers a batch above the window and ends the session.
func (s *Session) exceeded(settle func(Outcome)) {
	s.in.stats.refused[RefusedRevoked].Add(1)
	settle(Outcome{Code: Refused, RetryAfter: retryTime(retryRefused)})
	s.revoke(RevokedWindow)
}

// revoke ends the session and tells its connection; false: it had ended.
func (s *Session) revoke(r RevokeReason) bool {
	var ans answers
	s.dev.mu.Lock()
	ended := s.end(&ans)
	s.dev.mu.Unlock()
	ans.send()
	if !ended {
		return false
	}
	s.in.stats.revoked[r].Add(1)
	s.in.o.Logger.Debug("session revoked", "device", s.dev.name, "reason", r.String())
	if s.onRevoke != nil {
		s.onRevoke(r.String())
	}
	return true
}

// Close ends the session. What was admitted goes on into the log and is
// answered; batches that waited for others are refused.
func (s *Session) Close() {
	var ans answers
	s.dev.mu.Lock()
	s.end(&ans)
	s.dev.mu.Unlock()
	ans.send()
}

// end makes the session take no more. dev.mu is held. It reports whether it was
// this call that ended it.
func (s *Session) end(ans *answers) bool {
	if s.ended {
		return false
	}
	s.ended = true
	s.recv.end()
	for _, it := range s.waiting {
		s.refuse(it, RefusedRevoked, ans)
	}
	s.waiting = nil
	s.in.budget.giveBack(int64(s.window) * int64(s.in.o.PacketBytes))
	s.in.stats.sessions.Add(-1)
	s.dev.session = nil
	s.dev.seen.since = time.Now()
	s.in.devices.release(s.dev)
	return true
}

// currentFor gives the epoch in use at the edge as of a batch of epoch e. An
// epoch that Hello did not name began after it, so it is the one in use. Where
// Hello left epochs out that cannot be told.
func (s *Session) currentFor(e stream.Epoch) stream.Epoch {
	if s.named[e] || e == s.current {
		return s.current
	}
	if s.partial {
		return stream.Epoch{}
	}
	s.current = e
	return e
}

// admit decides about a batch: it is answered, or it is on its way to the log,
// or (false) it has to wait. dev.mu is held; the session has not ended.
func (s *Session) admit(it *item, ans *answers) bool {
	d := s.dev
	if s.blocked(it) {
		s.finish(it, s.refusal(RefusedOrder), ans)
		return true
	}
	if it.denied {
		s.refuse(it, RefusedMemory, ans)
		return true
	}
	if p := d.pending[it.key()]; p != nil && it.overlaps(p) {
		s.in.stats.overlaps.Add(1)
		return false
	}
	e := &it.one[0]
	lane := d.cov.Lane(e.ID)
	if n := it.trim(lane); n > 0 {
		s.in.stats.duplicates.Add(int64(n))
		d.seen.duplicates += int64(n)
	}
	if it.numbers.IsEmpty() && (it.first != 0 || !news(e, lane)) {
		it.out.Code = Settled
		s.finish(it, it.out, ans)
		return true
	}
	if !fits(d.cov, lane, it) {
		s.refuse(it, RefusedCoverage, ans)
		return true
	}
	if !d.shard.push(s.own, it) {
		s.refuse(it, RefusedShard, ans)
		return true
	}
	d.admitted(it)
	return true
}

// news reports whether a batch without numbers says what the log does not know:
// that its epoch exists, or how far the edge is.
func news(e *commitlog.Entry, l *commitlog.LaneState) bool {
	return l == nil || e.Head > l.Head || e.Floor != 0 && (e.Floor != l.Floor || e.Oldest != l.Oldest)
}

// fits reports whether the log would take the coverage that the batch makes; it
// spares the log the batches of a device that only makes gaps or epochs.
func fits(cov *commitlog.DeviceCoverage, l *commitlog.LaneState, it *item) bool {
	if l == nil {
		return len(cov.Epochs) < commitlog.MaxIncomplete
	}
	if l.In.Len()+l.Lost.Len()+l.Expired.Len() < commitlog.MaxRanges-it.numbers.Len() {
		return true
	}
	// At the bound only what closes gaps is taken.
	for _, r := range it.numbers.Ranges() {
		if !l.In.Contains(r.First-1) && !l.Lost.Contains(r.First-1) && !l.In.Contains(r.Last+1) && !l.Lost.Contains(r.Last+1) {
			return false
		}
	}
	return true
}

// blocked applies the rule of fifo lanes. dev.mu is held.
func (s *Session) blocked(it *item) bool {
	r := &s.refusing[it.key().lane]
	if r.seq == 0 || !it.fifo() {
		return false
	}
	if it.key().epoch == r.epoch {
		if it.contains(r.seq) {
			*r = refusing{}
			return false
		}
		if it.first < r.seq {
			return false // before it, not after
		}
	}
	return true
}

// refuse answers a batch that is not taken. The first one of a fifo lane makes
// the lane refuse what follows; one from before that place moves it forward.
// dev.mu is held.
func (s *Session) refuse(it *item, reason RefuseReason, ans *answers) {
	if it.fifo() {
		r, epoch := &s.refusing[it.key().lane], it.key().epoch
		if r.seq == 0 || r.epoch == epoch && it.first < r.seq {
			*r = refusing{epoch, it.first}
		}
	}
	s.finish(it, s.refusal(reason), ans)
}

func (s *Session) refusal(reason RefuseReason) Outcome {
	s.in.stats.refused[reason].Add(1)
	wait := retryRefused
	switch reason {
	case RefusedNoSpace:
		wait = retryNoSpace
	case RefusedCoverage:
		wait = retryCoverage
	}
	return Outcome{Code: Refused, RetryAfter: retryTime(wait)}
}

// finish gives a batch its outcome. dev.mu is held.
func (s *Session) finish(it *item, out Outcome, ans *answers) {
	s.inflight--
	s.in.budget.release(it.bytes)
	if out.Code == Settled {
		s.in.stats.batches.Add(1)
		s.dev.seen.batches++
		s.dev.seen.lastBatch = time.Now()
	}
	*ans = append(*ans, answer{it.settle, out})
}

// readmit looks again at what waited, after something was settled. dev.mu is
// held.
func (s *Session) readmit(ans *answers) {
	n := 0
	for n < len(s.waiting) && !s.ended && s.admit(s.waiting[n], ans) {
		n++
	}
	if n > 0 && !s.ended {
		clear(s.waiting[:n])
		s.waiting = s.waiting[n:]
	}
}
