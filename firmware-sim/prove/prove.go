// Package prove compares what sensors were told with what a commit log holds:
// every acknowledged message must be there exactly once, in order, and what a
// sensor itself sent k times may be there up to k times.
//
// It promises that a record that is missing, doubled, changed, or out of order
// is found where payloads differ, and that what equal payloads leave open is
// counted as undecidable and never as proven. It keeps hashes and numbers, no
// payloads: some 100 bytes per message with its record, and twice that for the
// topic at hand. It shares with what it judges only the words of pkg/stream and
// the readers. It trusts the receipts, and says nothing of topics without any.
//
// The method, per topic and sensor: the sends, in order of connection and then
// of number, are one sequence; the records of the log, in order of their
// streams, are another. The log is right when it is a subsequence of the sends
// that holds each acknowledged message. Its leftmost and its rightmost
// embedding say of each message whether it is there in every explanation, in
// some, or in none.
package prove

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"

	"github.com/packetboat/packetboat/internal/rig/receipts"
	"github.com/packetboat/packetboat/pkg/stream"
)

// Record is one record of the log, without its payload.
type Record struct {
	ID       stream.ID
	Seq      uint64
	Topic    string
	Hash     receipts.Hash
	Backfill bool
}

// Kind is what is wrong.
type Kind string

// The kinds.
const (
	Missing    Kind = "missing"      // acknowledged, and not in the log
	Double     Kind = "double"       // in the log more often than it was sent
	Unexpected Kind = "unexpected"   // in the log, and never sent by who has the receipts
	OutOfOrder Kind = "out of order" // in the log behind a message that was sent after it
	Undecided  Kind = "undecidable"  // equal payloads leave open whether it is there
)

// Example is one case.
type Example struct {
	Kind   Kind   `json:"kind"`
	Topic  string `json:"topic"`
	Detail string `json:"detail"`
}

// Report is the result.
type Report struct {
	Messages     int64 `json:"messages"`     // with a receipt
	Acknowledged int64 `json:"acknowledged"` // of these
	Topics       int   `json:"topics"`
	Records      int64 `json:"records"` // in the log, to these topics
	Other        int64 `json:"other"`   // in the log, to topics without receipts
	Copies       int64 `json:"copies"`  // records beyond the first of a message, which the sensor's own resends explain

	Missing     int64 `json:"missing"`
	Double      int64 `json:"double"`
	Unexpected  int64 `json:"unexpected"`
	OutOfOrder  int64 `json:"out_of_order"`
	Undecidable int64 `json:"undecidable"`

	// Unfinished counts runs whose simulator was killed: what it sent last has
	// no receipt, so that a record of it looks unexpected.
	Unfinished int       `json:"unfinished_runs"`
	Examples   []Example `json:"examples,omitempty"`

	perKind map[Kind]int
	limit   int
}

// OK says that no promise was found broken.
func (r *Report) OK() bool {
	return r.Missing == 0 && r.Double == 0 && r.Unexpected == 0 && r.OutOfOrder == 0
}

func (r *Report) example(k Kind, topic, format string, args ...any) {
	if r.perKind[k]++; r.perKind[k] <= r.limit {
		r.Examples = append(r.Examples, Example{k, topic, fmt.Sprintf(format, args...)})
	}
}

// Receipts is a file of receipts.
type Receipts struct {
	Reader *receipts.Reader
	Name   string
}

// Options for Run.
type Options struct {
	// Device leaves out the records of other devices. Without it each topic
	// may come from one device only.
	Device string
	// Examples is how many cases of each kind are told; 5 when 0.
	Examples int
}

// ErrManyDevices says that a topic comes from several devices, so that the
// receipts of one cannot be compared with it.
var ErrManyDevices = errors.New("records of several devices")

// Run compares the receipts with all records of a log. Files of receipts that
// name the same client are taken for different clients.
func Run(files []Receipts, records iter.Seq2[Record, error], o Options) (*Report, error) {
	if o.Examples == 0 {
		o.Examples = 5
	}
	p := &proof{o: o, topics: map[string]*topic{}, streams: map[stream.ID]*order{}}
	p.report.perKind, p.report.limit = map[Kind]int{}, o.Examples
	for i, f := range files {
		if err := p.readReceipts(i, f.Reader); err != nil {
			return nil, err
		}
	}
	for r, err := range records {
		if err != nil {
			return nil, fmt.Errorf("reading the log: %w", err)
		}
		if err := p.record(&r); err != nil {
			return nil, err
		}
	}
	names := make([]string, 0, len(p.topics))
	for name := range p.topics {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		p.judge(name, p.topics[name])
		delete(p.topics, name) // its memory is free for the next one
	}
	p.report.Topics = len(names)
	return &p.report, nil
}

// proof is one run.
type proof struct {
	o       Options
	report  Report
	topics  map[string]*topic
	streams map[stream.ID]*order
	clients []string // by number, for examples
	number  map[clientKey]uint32
}

// clientKey names a client of one file.
type clientKey struct {
	file int
	name string
}

// order is what was seen of a stream.
type order struct {
	number uint32 // of the epoch, in order of first sight
	seen   stream.RangeSet
}

// topic is what is known of one topic.
type topic struct {
	device   string
	messages []message
	log      []seen
	backfill bool // some record is
}

// message is one receipt.
type message struct {
	hash   receipts.Hash
	n      uint64
	pass   uint64 // run and connection of the first send
	again  []uint64
	client uint32
	acked  bool
}

// seen is one record.
type seen struct {
	hash  receipts.Hash
	seq   uint64
	epoch uint32
}

func (p *proof) readReceipts(file int, r *receipts.Reader) error {
	if p.number == nil {
		p.number = map[clientKey]uint32{}
	}
	for r.Next() {
		c := r.Receipt()
		key := clientKey{file, c.Client}
		number, ok := p.number[key]
		if !ok {
			number = uint32(len(p.clients))
			p.number[key] = number
			p.clients = append(p.clients, c.Client)
		}
		t := p.topics[c.Topic]
		if t == nil {
			t = &topic{}
			p.topics[c.Topic] = t
		}
		m := message{hash: c.Hash, n: c.N, client: number, acked: c.Acked}
		p.report.Messages++
		if c.Acked {
			p.report.Acknowledged++
		}
		if c.Tries == 0 {
			continue // never sent: nothing to find
		}
		run := uint64(r.Run()) << 32
		m.pass = run | uint64(c.Sent[0])
		for range c.Tries - len(c.Sent) { // more tries than a receipt lists: taken for early ones
			m.again = append(m.again, m.pass)
		}
		for _, conn := range c.Sent[1:] {
			m.again = append(m.again, run|uint64(conn))
		}
		t.messages = append(t.messages, m)
	}
	p.report.Unfinished += r.Unfinished()
	return r.Err()
}

// record takes one record of the log.
func (p *proof) record(r *Record) error {
	if p.o.Device != "" && r.ID.Device != p.o.Device {
		return nil
	}
	s := p.streams[r.ID]
	if s == nil {
		s = &order{number: uint32(len(p.streams))}
		p.streams[r.ID] = s
	}
	t := p.topics[r.Topic]
	if s.seen.Contains(r.Seq) {
		p.report.Double++
		p.report.example(Double, r.Topic, "record %d of %s is there again", r.Seq, r.ID)
		return nil // its copy is judged
	}
	if r.Seq < s.seen.Max() && !r.Backfill {
		p.report.OutOfOrder++
		p.report.example(OutOfOrder, r.Topic, "record %d of %s stands behind record %d, and is not marked as backfill", r.Seq, r.ID, s.seen.Max())
	}
	s.seen.Add(stream.Range{First: r.Seq, Last: r.Seq})
	if t == nil {
		p.report.Other++
		return nil
	}
	if t.device == "" {
		t.device = r.ID.Device
	} else if t.device != r.ID.Device {
		return fmt.Errorf("topic %q: %w (%s and %s): say which one the receipts belong to", r.Topic, ErrManyDevices, t.device, r.ID.Device)
	}
	p.report.Records++
	t.backfill = t.backfill || r.Backfill
	t.log = append(t.log, seen{r.Hash, r.Seq, s.number})
	return nil
}

// sortLog puts the records of a topic into the order in which the edge took
// them: by sequence number within a stream. Streams, which are epochs here,
// have no order of their own: without backfill the log's holds, with it the one
// that holds what was sent earlier is first.
func (t *topic) sortLog() {
	if !t.backfill {
		return
	}
	type place struct{ run, n uint64 }
	sent := make(map[receipts.Hash]place, len(t.messages)) // of payloads that were sent as one message only
	for i := range t.messages {
		m := &t.messages[i]
		at := place{m.pass >> 32, m.n}
		if _, ok := sent[m.hash]; ok {
			at = place{math.MaxUint64, 0}
		}
		sent[m.hash] = at
	}
	first := map[uint32]place{} // what an epoch holds that was sent first
	for _, s := range t.log {
		at, ok := sent[s.hash]
		if !ok {
			at = place{math.MaxUint64, 0}
		}
		if f, ok := first[s.epoch]; !ok || at.run < f.run || at.run == f.run && at.n < f.n {
			first[s.epoch] = at
		}
	}
	slices.SortStableFunc(t.log, func(a, b seen) int {
		if a.epoch == b.epoch {
			return cmp.Compare(a.seq, b.seq)
		}
		x, y := first[a.epoch], first[b.epoch]
		return cmp.Or(cmp.Compare(x.run, y.run), cmp.Compare(x.n, y.n), cmp.Compare(a.epoch, b.epoch))
	})
}
