// Package prove compares what sensors were told with what a commit log holds:
// every acknowledged message must be there exactly once, in order, or be declared
// lost. What a sensor itself sent k times with QoS 0 or 1 may be there up to k
// times, a QoS 2 message once for each session in which it was sent.
//
// It promises that a record that is missing, doubled, changed, or out of order
// is found where payloads differ, and that what equal payloads leave open is
// counted as undecidable and never as proven. It keeps hashes and numbers, no
// payloads: some 100 bytes per message with its record, and twice that for the
// topic at hand. It shares with what it judges only the words of pkg/stream and
// the readers. It trusts the receipts, and says nothing of topics without any.
//
// The method, per topic and sensor, with QoS 2 apart from the others: the sends,
// in order of connection and then of number, are one sequence (of a QoS 2
// message all sends of a session are one, and sessions take the place of
// connections); the records of the log, in order of their
// streams, are another. The log is right when it is a subsequence of the sends
// that holds each acknowledged message. Its leftmost and its rightmost
// embedding say of each message whether it is there in every explanation, in
// some, or in none. losses.go says how declared losses are told apart from what
// is missing.
package prove

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"

	"github.com/packetboat/packetboat/internal/rig/receipts"
	"github.com/packetboat/packetboat/pkg/commitlog"
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
	// Coverage gives what the log says of a device, nil when it says nothing. It
	// is asked after the log was read; without it no loss is known.
	Coverage func(device string) (*commitlog.DeviceCoverage, error)
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
	p := &proof{o: o, topics: map[string]*topic{}, streams: map[stream.ID]*order{}, foreign: map[string]lanes{}}
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
	if err := p.readLosses(); err != nil {
		return nil, err
	}
	names := slices.Sorted(maps.Keys(p.topics))
	for _, name := range names {
		p.judge(name, p.topics[name])
		delete(p.topics, name) // its memory is free for the next one
	}
	p.report.Topics = len(names)
	p.declare()
	return &p.report, nil
}

// proof is one run.
type proof struct {
	o       Options
	report  Report
	topics  map[string]*topic
	streams map[stream.ID]*order
	ids     []stream.ID      // of the streams, by number
	foreign map[string]lanes // by device: those with records of topics without receipts
	losses  map[string]*losses
	sums    []sum    // what is missing, by topic
	clients []string // by number, for examples
	number  map[clientKey]uint32
}

// clientKey names a client of one file. What it sends with QoS 2 counts as
// another client's: MQTT promises an order within a QoS only, and a message is
// taken for one that was sent k times by other rules.
type clientKey struct {
	file  int
	name  string
	exact bool
}

// order is what was seen of a stream.
type order struct {
	number uint32 // in order of first sight
	seen   stream.RangeSet
}

// topic is what is known of one topic.
type topic struct {
	device   string
	messages []message
	log      []seen
	backfill bool  // some record is
	hopeless int64 // messages that are missing where no number was declared lost
	lanes    lanes // of the records
}

// message is one receipt.
type message struct {
	hash   receipts.Hash
	n      uint64
	pass   uint64   // run and connection of the first send; with QoS 2 run and session
	again  []uint64 // and of the others
	client uint32
	acked  bool
	exact  bool // QoS 2
}

// seen is one record.
type seen struct {
	hash   receipts.Hash
	seq    uint64
	stream uint32
}

func (p *proof) readReceipts(file int, r *receipts.Reader) error {
	for r.Next() {
		c := r.Receipt()
		m := message{hash: c.Hash, n: c.N, acked: c.Acked, exact: c.QoS == 2}
		m.client = p.client(clientKey{file, c.Client, m.exact})
		t := p.topics[c.Topic]
		if t == nil {
			t = &topic{}
			p.topics[c.Topic] = t
		}
		p.report.tally(c)
		if c.Tries == 0 {
			continue // never sent: nothing to find
		}
		run, passes := uint64(r.Run())<<32, c.Sent
		if m.exact {
			passes = c.Sessions
		}
		m.pass = run | uint64(passes[0])
		if !m.exact {
			for range c.Tries - len(c.Sent) { // more tries than a receipt lists: taken for early ones
				m.again = append(m.again, m.pass)
			}
		}
		for _, pass := range passes[1:] {
			m.again = append(m.again, run|uint64(pass))
		}
		t.messages = append(t.messages, m)
	}
	p.report.Unfinished += r.Unfinished()
	return r.Err()
}

// client gives a client its number.
func (p *proof) client(key clientKey) uint32 {
	if p.number == nil {
		p.number = map[clientKey]uint32{}
	}
	n, ok := p.number[key]
	if !ok {
		n = uint32(len(p.clients))
		p.number[key] = n
		name := key.name
		if key.exact {
			name += " (QoS 2)"
		}
		p.clients = append(p.clients, name)
	}
	return n
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
		p.ids = append(p.ids, r.ID)
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
		p.foreign[r.ID.Device] |= lanesOf(r.ID.Lane)
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
		if f, ok := first[s.stream]; !ok || at.run < f.run || at.run == f.run && at.n < f.n {
			first[s.stream] = at
		}
	}
	slices.SortStableFunc(t.log, func(a, b seen) int {
		if a.stream == b.stream {
			return cmp.Compare(a.seq, b.seq)
		}
		x, y := first[a.stream], first[b.stream]
		return cmp.Or(cmp.Compare(x.run, y.run), cmp.Compare(x.n, y.n), cmp.Compare(a.stream, b.stream))
	})
}
