package ingest

import (
	"errors"
	"fmt"
	"math"
	"unicode/utf8"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

// item is something on its way into the log: a batch of a session, or what
// Connect has to commit before it serves. Until it is admitted it belongs to
// who made it, then to the device's lock.
type item struct {
	dev *device
	// entries is what is appended; for a batch one, trimmed at admission. None
	// is a barrier.
	entries []commitlog.Entry
	one     [1]commitlog.Entry // what entries of a batch points to
	content int                // bytes as a log counts them
	bytes   int64              // memory taken from the budget

	// Of a batch.
	sess    *Session
	settle  func(Outcome)
	records stream.Range    // as sent
	losses  stream.RangeSet // as sent
	first   uint64          // lowest number as sent; 0: it has none
	numbers stream.RangeSet // what is left to settle, in device.pending
	flags   stream.Flags    // as sent
	out     Outcome         // what was found when it was trimmed
	denied  bool            // there was no memory for it; it keeps its place in the order only
	pos     int             // place in the group, committer only
	behind  bool            // follows a refused batch of its fifo lane; committer only

	// Of Connect: has room for one, gets what became of it.
	result chan error
}

// recordOverhead is what a record takes in memory beside its content.
const recordOverhead = 160

var errBatch = errors.New("ingest: not a valid batch")

// batchItem checks a batch and makes it an item.
func batchItem(s *Session, b *stream.Batch, packet int, received int64, settle func(Outcome)) (*item, error) {
	if b.ID.Epoch.IsZero() || !b.ID.Lane.Valid() || b.ID.Device != "" && b.ID.Device != s.dev.name {
		return nil, fmt.Errorf("%w: stream %s at device %s", errBatch, b.ID, s.dev.name)
	}
	it := &item{dev: s.dev, sess: s, settle: settle, flags: b.Flags}
	it.entries = it.one[:]
	e := &it.one[0]
	*e = commitlog.Entry{
		ID:      stream.ID{Device: s.dev.name, Epoch: b.ID.Epoch, Lane: b.ID.Lane},
		Records: b.Records, Losses: b.Losses, Head: b.Head, Floor: b.Floor, Oldest: b.Oldest,
		Flags: b.Flags, Received: received,
	}
	if n := uint64(len(b.Records)); n > 0 {
		if b.First == 0 || b.First > maxSeq-n {
			return nil, fmt.Errorf("%w: %d records from %d", errBatch, n, b.First)
		}
		it.records = stream.Range{First: b.First, Last: b.First + n - 1}
	}
	for i := range b.Records {
		if r := &b.Records[i]; r.Seq != b.First+uint64(i) {
			return nil, fmt.Errorf("%w: record %d has number %d", errBatch, b.First+uint64(i), r.Seq)
		} else if !isTopic(r.Topic) {
			return nil, fmt.Errorf("%w: %.80q of record %d is no topic", errBatch, r.Topic, r.Seq)
		} else {
			it.content += contentOf(&r.Message)
		}
	}
	for i := range b.Losses {
		l := &b.Losses[i]
		if !l.Reason.Valid() || l.First == 0 || l.Last < l.First || l.Last > maxSeq || it.losses.Overlaps(l.Range) || overlap(it.records, l.Range) {
			return nil, fmt.Errorf("%w: loss %s", errBatch, l.Range)
		}
		it.losses.Add(l.Range)
	}
	if e.Head > maxSeq {
		return nil, fmt.Errorf("%w: head %d", errBatch, e.Head)
	}
	it.first = it.losses.Min()
	if it.records.First != 0 && (it.first == 0 || it.records.First < it.first) {
		it.first = it.records.First
	}
	e.Current = s.currentFor(b.ID.Epoch)
	it.bytes = int64(packet + it.content + len(b.Records)*recordOverhead + len(b.Losses)*64)
	return it, nil
}

// maxSeq is the highest sequence number: a RangeSet cannot hold the next.
const maxSeq = ^uint64(0) - 1

// isTopic reports whether s is a topic name of MQTT. No edge has accepted
// another one, and readers could not tell it apart or ask for it.
func isTopic(s string) bool {
	if s == "" || len(s) > math.MaxUint16 {
		return false
	}
	ascii := true
	for i := range len(s) {
		switch c := s[i]; {
		case c == 0 || c == '+' || c == '#':
			return false
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return ascii || utf8.ValidString(s)
}

func overlap(a, b stream.Range) bool {
	return a.Count() > 0 && b.Count() > 0 && a.First <= b.Last && b.First <= a.Last
}

func contentOf(m *stream.Message) int {
	n := len(m.Topic) + len(m.Payload)
	if p := m.Properties; p != nil {
		n += len(p.ContentType) + len(p.ResponseTopic) + len(p.CorrelationData)
		for i := range p.User {
			n += len(p.User[i].Key) + len(p.User[i].Value)
		}
	}
	return n
}

// planItem makes an item of what Connect has to commit.
func planItem(d *device, entries []commitlog.Entry) *item {
	return &item{dev: d, entries: entries, result: make(chan error, 1), bytes: int64(len(entries) * 256)}
}

func (it *item) key() streamKey {
	return streamKey{it.one[0].ID.Epoch, it.one[0].ID.Lane}
}

// fifo reports whether refusals keep the order of the item's lane.
func (it *item) fifo() bool {
	return it.sess != nil && it.one[0].Flags&stream.FIFO != 0 && it.first != 0
}

// contains reports whether the batch as sent settles n.
func (it *item) contains(n uint64) bool {
	return it.records.First != 0 && it.records.First <= n && n <= it.records.Last || it.losses.Contains(n)
}

// overlaps reports whether the batch as sent and p have a number in common.
func (it *item) overlaps(p *stream.RangeSet) bool {
	if it.records.First != 0 && p.Overlaps(it.records) {
		return true
	}
	for _, r := range it.losses.Ranges() {
		if p.Overlaps(r) {
			return true
		}
	}
	return false
}

// trim takes from the batch what l has settled (the first settles a number, what
// comes later changes nothing) and notes where the edge's opinion and the log's
// differ. It returns how many numbers it took.
func (it *item) trim(l *commitlog.LaneState) (n uint64) {
	e := &it.one[0]
	if l != nil {
		n = it.trimRecords(e, l) + it.trimLosses(e, l)
	}
	it.numbers = stream.RangeSet{}
	if n == 0 {
		if it.records.First != 0 {
			it.numbers.Add(it.records)
		}
	} else {
		for i := range e.Records {
			it.numbers.Add(stream.Range{First: e.Records[i].Seq, Last: e.Records[i].Seq})
		}
	}
	for i := range e.Losses {
		it.numbers.Add(e.Losses[i].Range)
	}
	return n
}

func (it *item) trimRecords(e *commitlog.Entry, l *commitlog.LaneState) uint64 {
	if it.records.First == 0 || !l.In.Overlaps(it.records) && !l.Lost.Overlaps(it.records) {
		return 0
	}
	it.out.Lost = stream.Collect(l.Lost.Within(it.records))
	kept := e.Records[:0]
	for i := range e.Records {
		if seq := e.Records[i].Seq; !l.In.Contains(seq) && !l.Lost.Contains(seq) {
			kept = append(kept, e.Records[i])
		}
	}
	n := len(e.Records) - len(kept)
	clear(e.Records[len(kept):])
	e.Records = kept
	return uint64(n)
}

func (it *item) trimLosses(e *commitlog.Entry, l *commitlog.LaneState) uint64 {
	touched := false
	for _, r := range it.losses.Ranges() {
		touched = touched || l.In.Overlaps(r) || l.Lost.Overlaps(r)
	}
	if !touched {
		return 0
	}
	settled := l.Settled()
	var kept []stream.Loss
	var n uint64
	for _, x := range e.Losses {
		for r := range l.In.Within(x.Range) {
			it.out.In.Add(r)
		}
		n += x.Count()
		for r := range settled.Missing(x.Range) {
			part := x
			part.Range = r
			kept = append(kept, part)
			n -= r.Count()
		}
	}
	e.Losses = kept
	return n
}

// covered reports whether l has settled the whole batch, and then fills in the
// answer.
func (it *item) covered(l *commitlog.LaneState) bool {
	if l == nil || it.first == 0 {
		return false
	}
	settled := l.Settled()
	if it.records.First != 0 && !settled.ContainsRange(it.records) {
		return false
	}
	it.out = Outcome{Code: Settled}
	for _, r := range it.losses.Ranges() {
		if !settled.ContainsRange(r) {
			return false
		}
		for in := range l.In.Within(r) {
			it.out.In.Add(in)
		}
	}
	if it.records.First != 0 {
		it.out.Lost = stream.Collect(l.Lost.Within(it.records))
	}
	return true
}

// answers collects what is to be settled once the locks are free.
type answers []answer

type answer struct {
	settle func(Outcome)
	out    Outcome
}

func (a answers) send() {
	for i := range a {
		a[i].settle(a[i].out)
	}
}
