package wire

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/packetboat/packetboat/pkg/codec"
	"github.com/packetboat/packetboat/pkg/stream"
	pb "github.com/packetboat/packetboat/proto/packetboat/v1"
)

// DecoderOptions are a Decoder's. Zero fields take the defaults of codec.Limits.
type DecoderOptions struct {
	MaxRecords int // of one batch
	MaxBytes   int // of content of one batch, as codec.Limits.Bytes
}

// Decoder reads the batches of one connection, strictly in the order of arrival.
type Decoder struct {
	limits  codec.Limits
	session session
	bad     bool // out of step; so it begins
	msg     pb.Batch
}

// NewDecoder makes the decoder of a new connection.
func NewDecoder(o DecoderOptions) *Decoder {
	return &Decoder{limits: codec.Limits{Records: o.MaxRecords, Bytes: o.MaxBytes}, bad: true}
}

// Decode reads the payload of one PUBLISH of device. The batch's memory is the
// caller's and does not alias packet. Errors wrap ErrMalformed, ErrOutOfStep or
// an error of codec; after one every batch is refused with ErrOutOfStep until
// one that is marked reset decodes.
func (d *Decoder) Decode(packet []byte, device string) (stream.Batch, error) {
	b, err := d.decode(packet, device)
	if err != nil {
		d.bad = true
		return stream.Batch{}, err
	}
	d.bad = false
	return b, nil
}

func (d *Decoder) decode(packet []byte, device string) (b stream.Batch, err error) {
	if err := checkLosses(packet); err != nil {
		return b, err
	}
	m := &d.msg
	m.Reset()
	// The body aliases nothing that outlives this call.
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(packet, m); err != nil {
		return b, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	defer m.Reset() // keeps no packet
	s := d.session
	if m.GetReset_() {
		s = session{}
	} else if d.bad {
		return b, ErrOutOfStep
	}
	if b.ID, err = s.stream(m); err != nil {
		return b, err
	}
	b.ID.Device = device
	if err := d.fill(&b, &s); err != nil {
		return stream.Batch{}, err
	}
	s.advance(&b, codec.Rows)
	d.session = s
	return b, nil
}

// stream is the stream that m names or leaves out.
func (s *session) stream(m *pb.Batch) (id stream.ID, err error) {
	id.Lane = s.lane
	if m.GetLane() != 0 {
		id.Lane = stream.Lane(min(max(m.GetLane(), 0), 255))
	}
	if !id.Lane.Valid() {
		return id, fmt.Errorf("%w: no lane", ErrMalformed)
	}
	switch e := m.GetEpoch(); {
	case len(e) == len(id.Epoch):
		copy(id.Epoch[:], e)
	case len(e) != 0:
		return id, fmt.Errorf("%w: an epoch of %d bytes", ErrMalformed, len(e))
	case len(m.GetLosses()) > 0:
		return id, fmt.Errorf("%w: losses without an epoch", ErrMalformed)
	default:
		id.Epoch = s.epochOf(id.Lane)
	}
	if id.Epoch.IsZero() {
		return id, fmt.Errorf("%w: no epoch", ErrMalformed)
	}
	return id, nil
}

// fill reads everything behind the stream's name into b.
func (d *Decoder) fill(b *stream.Batch, s *session) error {
	m := &d.msg
	b.First = s.firstOf(b.ID.Lane, b.ID.Epoch)
	if m.First != nil {
		b.First = m.GetFirst()
	}
	b.Flags = s.lanes[b.ID.Lane].flags
	if m.Flags != nil {
		if b.Flags = stream.Flags(m.GetFlags()); uint32(b.Flags) != m.GetFlags() {
			return fmt.Errorf("%w: flags %#x", ErrMalformed, m.GetFlags())
		}
	}
	if err := readLosses(b, m.GetLosses()); err != nil {
		return err
	}
	count := m.GetCount()
	last := b.First + uint64(count) - 1
	b.Head = last + uint64(m.GetHeadAhead())
	b.Floor = b.First - uint64(m.GetFloorBelow())
	if count == 0 && len(m.GetBody()) > 0 || count > MaxRecords {
		return fmt.Errorf("%w: %d records in %d bytes", ErrMalformed, count, len(m.GetBody()))
	}
	if bad := checkBatch(b, int(count)); bad != "" { // before anything is decoded
		return fmt.Errorf("%w: %s", ErrMalformed, bad)
	}
	if count > 0 {
		if err := d.readBody(b, s, int(count)); err != nil {
			return err
		}
	}
	b.Oldest = s.oldestOf(b) + m.GetOldestAfter()
	return nil
}

func (d *Decoder) readBody(b *stream.Batch, s *session, count int) (err error) {
	id := s.codec
	if c := d.msg.GetCodec(); c != 0 {
		id = codec.ID(min(max(c, 0), 255))
	}
	if id != codec.Rows {
		return fmt.Errorf("%w: a body encoded by %s, which is not known here", ErrMalformed, id)
	}
	b.Records, err = codec.DecodeRows(d.msg.GetBody(), b.First, count, seed(b.ID, b.First, count), d.limits)
	return err
}

func readLosses(b *stream.Batch, losses []*pb.Loss) error {
	if len(losses) == 0 {
		return nil
	}
	b.Losses = make([]stream.Loss, len(losses))
	end := uint64(0)
	for i, l := range losses {
		first := end + 1 + l.GetSkip()
		last := first + l.GetMore()
		if first <= end || last < first || l.GetReason() < 0 || l.GetReason() > 255 {
			return fmt.Errorf("%w: a loss out of range", ErrMalformed)
		}
		// A reason that is not known here comes from a newer edge: kept as it is.
		b.Losses[i] = stream.Loss{
			Range: stream.Range{First: first, Last: last}, Reason: stream.Reason(l.GetReason()),
			From: l.GetFrom(), To: l.GetFrom() + l.GetSpan(),
		}
		end = last
	}
	return nil
}

// checkLosses bounds what unmarshalling makes of a packet: a loss is two bytes
// there and a hundred in memory.
func checkLosses(packet []byte) error {
	losses := (&pb.Batch{}).ProtoReflect().Descriptor().Fields().ByName("losses").Number()
	n := 0
	for b := packet; len(b) > 0; {
		num, _, size := protowire.ConsumeField(b)
		if size < 0 {
			return fmt.Errorf("%w: %w", ErrMalformed, protowire.ParseError(size))
		}
		b = b[size:]
		if num == losses {
			n++
		}
	}
	if n > MaxLosses {
		return fmt.Errorf("%w: %d losses", ErrMalformed, n)
	}
	return nil
}
