package commitlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/packetboat/packetboat/pkg/stream"
)

// ErrEncoding is what the decoders return, wrapped with what is wrong.
var ErrEncoding = errors.New("damaged coverage")

// encodingVersion is the first byte of what this file writes. A log that meets
// a higher one was written by a newer version.
const encodingVersion = 1

// The bytes are described in docs/format/log.md, "Coverage".

// AppendDevice appends the encoded part of d that is not in its epochs.
func AppendDevice(dst []byte, d *DeviceCoverage) []byte {
	dst = append(dst, encodingVersion)
	dst = append(dst, d.Current[:]...)
	return binary.AppendUvarint(dst, d.Forgotten)
}

// LoadDevice makes coverage of what AppendDevice wrote, nil where it was never
// written, and the device's epochs in any order, which it keeps.
func LoadDevice(head []byte, epochs []*EpochState) (*DeviceCoverage, error) {
	d := &DeviceCoverage{Epochs: epochs}
	if head != nil {
		r := reader{b: head}
		r.version()
		r.epoch(&d.Current)
		d.Forgotten = r.uint()
		if err := r.end(); err != nil {
			return nil, fmt.Errorf("decode coverage of a device: %w", err)
		}
	}
	slices.SortFunc(d.Epochs, func(a, b *EpochState) int {
		if a.Order < b.Order {
			return -1
		}
		return 1
	})
	for i, e := range d.Epochs {
		if i > 0 && d.Epochs[i-1].Order == e.Order {
			return nil, fmt.Errorf("decode coverage of a device: %w: two epochs of order %d", ErrEncoding, e.Order)
		}
		if closed := d.closed(e.ID); closed != e.Closed {
			c := *e
			c.Closed = closed
			d.Epochs[i] = &c
		}
	}
	return d, nil
}

// AppendEpoch appends the encoded e, all but Closed, which follows from the
// device's Current.
func AppendEpoch(dst []byte, e *EpochState) []byte {
	dst = append(dst, encodingVersion)
	dst = append(dst, e.ID[:]...)
	dst = binary.AppendUvarint(dst, e.Order)
	for _, lane := range stream.Lanes {
		if l := &e.Lanes[lane]; !l.IsZero() {
			dst = append(dst, byte(lane))
			dst = appendLane(dst, l)
		}
	}
	return append(dst, 0)
}

func appendLane(dst []byte, l *LaneState) []byte {
	flags := byte(0)
	if l.FIFO {
		flags |= byte(stream.FIFO)
	}
	dst = append(dst, flags)
	dst = binary.AppendUvarint(dst, l.Head)
	dst = binary.AppendUvarint(dst, l.Floor)
	dst = binary.AppendVarint(dst, l.Oldest)
	dst = binary.AppendVarint(dst, l.Newest)
	dst = binary.AppendVarint(dst, l.Received)
	dst = appendSet(dst, &l.In)
	dst = appendSet(dst, &l.Lost)
	dst = appendSet(dst, &l.Expired)
	for reason, n := range l.LostBy {
		if n > 0 {
			dst = append(dst, byte(reason))
			dst = binary.AppendUvarint(dst, n)
		}
	}
	dst = append(dst, 0)
	dst = binary.AppendUvarint(dst, uint64(len(l.Losses)))
	last := uint64(0)
	for _, x := range l.Losses {
		dst = append(dst, byte(x.Reason))
		dst = binary.AppendUvarint(dst, x.First-last)
		dst = binary.AppendUvarint(dst, x.Last-x.First)
		dst = binary.AppendVarint(dst, x.From)
		dst = binary.AppendVarint(dst, x.To)
		last = x.Last
	}
	return dst
}

func appendSet(dst []byte, s *stream.RangeSet) []byte {
	dst = binary.AppendUvarint(dst, uint64(s.Len()))
	last := uint64(0)
	for _, r := range s.Ranges() {
		dst = binary.AppendUvarint(dst, r.First-last)
		dst = binary.AppendUvarint(dst, r.Last-r.First)
		last = r.Last
	}
	return dst
}

// DecodeEpoch reads what AppendEpoch wrote, with Closed false. It refuses
// states that no fold can reach (sets that overlap, totals that do not add up).
func DecodeEpoch(b []byte) (*EpochState, error) {
	r := reader{b: b}
	r.version()
	e := &EpochState{}
	r.epoch(&e.ID)
	e.Order = r.uint()
	last := stream.Lane(0)
	for r.err == nil {
		lane := stream.Lane(r.byte())
		if lane == 0 {
			break
		}
		if !lane.Valid() || lane <= last {
			r.fail("lane %d", uint8(lane))
			break
		}
		r.lane(&e.Lanes[lane])
		last = lane
	}
	if err := r.end(); err != nil {
		return nil, fmt.Errorf("decode coverage of an epoch: %w", err)
	}
	return e, nil
}

func (r *reader) lane(l *LaneState) {
	flags := r.byte()
	l.FIFO = flags&byte(stream.FIFO) != 0
	l.Head, l.Floor = r.uint(), r.uint()
	l.Oldest, l.Newest, l.Received = r.int(), r.int(), r.int()
	r.set(&l.In)
	r.set(&l.Lost)
	r.set(&l.Expired)
	total := uint64(0)
	last := stream.Reason(0)
	for r.err == nil {
		reason := stream.Reason(r.byte())
		if reason == 0 {
			break
		}
		if !reason.Valid() || reason <= last {
			r.fail("reason %d", uint8(reason))
			return
		}
		l.LostBy[reason] = r.uint()
		total += l.LostBy[reason]
		last = reason
	}
	r.losses(l)
	switch {
	case r.err != nil:
	case total != l.Lost.Count():
		r.fail("%d losses by reason, %d in all", total, l.Lost.Count())
	case max(l.In.Max(), l.Lost.Max()) > l.Head || l.Head == ^uint64(0):
		r.fail("head %d is below what is settled", l.Head)
	case overlap(&l.In, &l.Lost):
		r.fail("a number is both in and lost")
	case !contains(&l.In, &l.Expired):
		r.fail("a number expired that never was in")
	}
}

func (r *reader) losses(l *LaneState) {
	n := r.count(5)
	if n > 0 {
		l.Losses = make([]stream.Loss, 0, n)
	}
	last := uint64(0)
	for range n {
		x := stream.Loss{Reason: stream.Reason(r.byte())}
		x.Range = r.span(last)
		x.From, x.To = r.int(), r.int()
		if r.err == nil && (!x.Reason.Valid() || !l.Lost.ContainsRange(x.Range)) {
			r.fail("loss %s is none", x.Range)
		}
		if r.err != nil {
			return
		}
		l.Losses = append(l.Losses, x)
		last = x.Last
	}
}

func overlap(a, b *stream.RangeSet) bool {
	for _, r := range a.Ranges() {
		if b.Overlaps(r) {
			return true
		}
	}
	return false
}

func contains(all, part *stream.RangeSet) bool {
	for _, r := range part.Ranges() {
		if !all.ContainsRange(r) {
			return false
		}
	}
	return true
}

// reader takes values off the front of b; the first that is wrong stays in err
// and everything after it is zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrEncoding, fmt.Sprintf(format, args...))
	}
	r.b = nil
}

func (r *reader) version() {
	if v := r.byte(); r.err == nil && v != encodingVersion {
		r.fail("version %d, this program knows %d", v, encodingVersion)
	}
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail("it ends early")
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) epoch(e *stream.Epoch) {
	if len(r.b) < len(e) {
		r.fail("it ends early")
		return
	}
	r.b = r.b[copy(e[:], r.b):]
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail("it ends early")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) int() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail("it ends early")
		return 0
	}
	r.b = r.b[n:]
	return v
}

// count reads how many things of at least size bytes follow.
func (r *reader) count(size int) int {
	n := r.uint()
	if n > uint64(len(r.b)/size) {
		r.fail("%d things cannot follow", n)
		return 0
	}
	return int(n)
}

// span reads a range that begins above last.
func (r *reader) span(last uint64) (x stream.Range) {
	gap, more := r.uint(), r.uint()
	x.First = last + gap
	x.Last = x.First + more
	if r.err == nil && (gap == 0 || x.First < last || x.Last < x.First || x.Last == ^uint64(0)) {
		r.fail("a range is not one")
	}
	return x
}

func (r *reader) set(s *stream.RangeSet) {
	last := uint64(0)
	for range r.count(2) {
		x := r.span(last)
		if r.err != nil {
			return
		}
		s.Add(x)
		last = x.Last
	}
}

func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		r.fail("%d bytes too many", len(r.b))
	}
	return r.err
}
