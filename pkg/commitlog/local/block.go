package local

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/packetboat/packetboat/pkg/codec"
	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

const (
	// maxBlockRecords is what a reader takes, writeBlockRecords what is
	// written: enough for the codec to learn what repeats, few enough that
	// reading one device's few records of a block costs a millisecond.
	maxBlockRecords   = 4096
	writeBlockRecords = 2048
	writeBlockBytes   = 256 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// run is a piece of one entry in a block.
type run struct {
	id       stream.ID
	flags    stream.Flags
	received int64
	recs     []stream.Record
}

// content is roughly what a record takes raw.
func content(m *stream.Message) int {
	n := len(m.Topic) + len(m.Payload)
	if p := m.Properties; p != nil {
		n += len(p.ContentType) + len(p.ResponseTopic) + len(p.CorrelationData)
		for i := range p.User {
			n += len(p.User[i].Key) + len(p.User[i].Value)
		}
	}
	return n
}

// cut distributes the records of a group over blocks.
func cut(group []commitlog.Entry) (blocks [][]run) {
	var block []run
	count, bytes := 0, 0
	for i := range group {
		e := &group[i]
		for recs := e.Records; len(recs) > 0; {
			n := 0
			for n < len(recs) && count < writeBlockRecords {
				size := content(&recs[n].Message)
				if count > 0 && bytes+size > writeBlockBytes {
					break
				}
				n++
				count++
				bytes += size
			}
			if n > 0 {
				block = append(block, run{e.ID, e.Flags, e.Received, recs[:n]})
				recs = recs[n:]
			}
			if len(recs) > 0 { // full
				blocks = append(blocks, block)
				block, count, bytes = nil, 0, 0
			}
		}
	}
	if len(block) > 0 {
		blocks = append(blocks, block)
	}
	return blocks
}

// encoded is a block ready to be written.
type encoded struct {
	index   blockIndex
	devices map[string]span
	body    []byte
}

// encodeBlock makes the bytes of one block.
func encodeBlock(block []run) (encoded, error) {
	out := encoded{devices: map[string]span{}}
	b := binary.AppendUvarint([]byte{valueVersion}, uint64(len(block)))
	n := 0
	for i := range block {
		n += len(block[i].recs)
	}
	recs := make([]stream.Record, 0, n)
	for i := range block {
		r := &block[i]
		b = r.appendHead(b)
		times, seen := out.devices[r.id.Device]
		for j := range r.recs {
			rec := &r.recs[j]
			at := commitlog.At(&rec.Message, r.received)
			if !seen {
				times, seen = span{at, at}, true
			}
			times.add(at)
			recs = append(recs, stream.Record{Seq: uint64(len(recs)) + 1, Message: rec.Message})
		}
		out.devices[r.id.Device] = times
		if i == 0 {
			out.index.received = r.received
		}
		out.index.received = max(out.index.received, r.received)
	}
	body, err := codec.AppendBlock(nil, recs)
	if err != nil {
		return out, fmt.Errorf("encode a block of %d records: %w", n, err)
	}
	b = binary.AppendUvarint(b, uint64(len(body)))
	b = append(b, body...)
	out.body = seal(b)

	out.index.count = n
	first := true
	for _, times := range out.devices {
		if first {
			out.index.at, first = times, false
		}
		out.index.at.add(times.first)
		out.index.at.add(times.last)
	}
	out.index.bytes = int64(len(out.body))
	out.index.parts = (len(out.body) + maxPart - 1) / maxPart
	return out, nil
}

// seal appends the check of a block.
func seal(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func (r *run) appendHead(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(r.id.Device)))
	b = append(b, r.id.Device...)
	b = append(b, r.id.Epoch[:]...)
	b = append(b, byte(r.id.Lane), byte(r.flags))
	b = binary.AppendVarint(b, r.received)
	var set stream.RangeSet
	for i := range r.recs {
		set.Add(stream.Range{First: r.recs[i].Seq, Last: r.recs[i].Seq})
	}
	b = binary.AppendUvarint(b, uint64(set.Len()))
	last := uint64(0)
	for _, x := range set.Ranges() {
		b = binary.AppendUvarint(b, x.First-last)
		b = binary.AppendUvarint(b, x.Last-x.First)
		last = x.Last
	}
	return b
}

// head is what a block says of itself before its body.
type head struct {
	runs []runHead
	body []byte
}

type runHead struct {
	id       stream.ID
	flags    stream.Flags
	received int64
	count    int
	seqs     []stream.Range
}

// decodeHead reads all of a block but its body, and checks it.
func decodeHead(b []byte) (h head, err error) {
	if len(b) < 4 {
		return h, fmt.Errorf("read a block: %w: %d bytes", ErrDamaged, len(b))
	}
	b, sum := b[:len(b)-4], binary.LittleEndian.Uint32(b[len(b)-4:])
	if crc32.Checksum(b, castagnoli) != sum {
		return h, fmt.Errorf("read a block: %w: its check does not fit", ErrDamaged)
	}
	r := values{b: b}
	r.version()
	total := 0
	n := r.uint()
	if n == 0 || n > maxBlockRecords {
		r.fail("%d runs", n)
	}
	for i := uint64(0); i < n && r.err == nil; i++ {
		x := r.run()
		h.runs = append(h.runs, x)
		if total += x.count; total > maxBlockRecords {
			r.fail("more than %d records", maxBlockRecords)
		}
	}
	h.body = r.take(r.uint())
	if err := r.end(); err != nil {
		return h, fmt.Errorf("read a block: %w", err)
	}
	return h, nil
}

func (r *values) run() (x runHead) {
	x.id.Device = string(r.take(r.uint()))
	copy(x.id.Epoch[:], r.take(uint64(len(x.id.Epoch))))
	if c := r.take(2); r.err == nil {
		x.id.Lane, x.flags = stream.Lane(c[0]), stream.Flags(c[1])
	}
	x.received = r.int()
	last := uint64(0)
	for n := r.uint(); n > 0 && r.err == nil; n-- {
		gap, more := r.uint(), r.uint()
		s := stream.Range{First: last + gap, Last: last + gap + more}
		if r.err == nil && (gap == 0 || more >= maxBlockRecords || s.First <= last || s.Last < s.First) {
			r.fail("a range of numbers is not one")
		}
		x.seqs = append(x.seqs, s)
		if x.count += int(s.Count()); x.count > maxBlockRecords {
			r.fail("more than %d records", maxBlockRecords)
		}
		last = s.Last
	}
	if r.err == nil && (x.count == 0 || !x.id.Lane.Valid()) {
		r.fail("a run of nothing")
	}
	return x
}

// records decodes the body and gives each record to yield, in order, with the
// run it is of.
func (h *head) records(yield func(i int, run *runHead, rec stream.Record) bool) error {
	total := 0
	for i := range h.runs {
		total += h.runs[i].count
	}
	recs, err := codec.DecodeBlock(h.body, codec.Limits{Records: maxBlockRecords})
	if err != nil {
		return fmt.Errorf("read a block: %w: %w", ErrDamaged, err)
	}
	if len(recs) != total {
		return fmt.Errorf("read a block: %w: %d records, its head says %d", ErrDamaged, len(recs), total)
	}
	n := 0
	for i := range h.runs {
		x := &h.runs[i]
		for _, s := range x.seqs {
			for seq := s.First; seq <= s.Last; seq++ {
				rec := recs[n]
				rec.Seq = seq
				if !yield(n, x, rec) {
					return nil
				}
				n++
			}
		}
	}
	return nil
}
