package wire

import (
	"fmt"
	"sync"

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
	// State is the most bytes of state that a codec's session may keep; 0: none
	// is kept, each learned body is a session of its own.
	State int
	// Session is with State a session that goes on where the other side stands,
	// and is the Decoder's from now on; nil: the first batch must be marked reset.
	Session *codec.Decoder
}

// Decoder reads the batches of one connection, strictly in the order of arrival.
type Decoder struct {
	limits  codec.Limits
	state   int
	session session
	learn   *codec.Decoder // nil: no learned body since the last reset
	bad     bool           // out of step; so it begins
	msg     pb.Batch
}

// NewDecoder makes the decoder of a new connection.
func NewDecoder(o DecoderOptions) *Decoder {
	d := &Decoder{limits: codec.Limits{Records: o.MaxRecords, Bytes: o.MaxBytes}, state: max(o.State, 0), bad: true}
	if o.Session != nil && d.state > 0 {
		d.learn, d.session, d.bad = o.Session, resumed(), false
	}
	return d
}

// Session is the codec's session in use, nil if there is none that the next
// connection could go on with. It is the Decoder's: whoever goes on with it
// must be done with the Decoder.
func (d *Decoder) Session() *codec.Decoder {
	if d.bad || d.learn == nil || d.learn.Position().Bodies == 0 {
		return nil
	}
	return d.learn
}

// StateBytes is what the codec's session keeps in memory.
func (d *Decoder) StateBytes() int {
	if d.learn == nil {
		return 0
	}
	return d.learn.StateBytes()
}

// Decode reads the payload of one PUBLISH of device. The batch's memory is the
// caller's and does not alias packet. Errors wrap ErrMalformed, ErrOutOfStep or
// an error of codec; after one every batch is refused with ErrOutOfStep until
// one that is marked reset decodes.
func (d *Decoder) Decode(packet []byte, device string) (stream.Batch, error) {
	b, err := d.decode(packet, device)
	if err != nil {
		d.bad, d.learn = true, nil // a session with an error in it is worthless
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
		d.learn = nil // one that went on may have had another limit
	} else if d.bad {
		return b, ErrOutOfStep
	}
	if b.ID, err = s.stream(m); err != nil {
		return b, err
	}
	b.ID.Device = device
	id, err := d.fill(&b, &s)
	if err != nil {
		return stream.Batch{}, err
	}
	s.advance(&b, id)
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

// fill reads everything behind the stream's name into b, and gives the codec of
// the body.
func (d *Decoder) fill(b *stream.Batch, s *session) (id codec.ID, err error) {
	m := &d.msg
	b.First = s.firstOf(b.ID.Lane, b.ID.Epoch)
	if m.First != nil {
		b.First = m.GetFirst()
	}
	b.Flags = s.lanes[b.ID.Lane].flags
	if m.Flags != nil {
		if b.Flags = stream.Flags(m.GetFlags()); uint32(b.Flags) != m.GetFlags() {
			return 0, fmt.Errorf("%w: flags %#x", ErrMalformed, m.GetFlags())
		}
	}
	if err := readLosses(b, m.GetLosses()); err != nil {
		return 0, err
	}
	if id = s.codec; m.GetCodec() != 0 {
		id = codec.ID(min(max(m.GetCodec(), 0), 255))
	}
	if id == codec.Learning && len(m.GetBody()) > 0 {
		err = d.readLearned(b)
	} else {
		err = d.readRows(b, id)
	}
	if err != nil {
		return 0, err
	}
	b.Oldest = s.oldestOf(b) + m.GetOldestAfter()
	return id, nil
}

// readRows reads what has a count beside it: a body of rows, or none at all.
func (d *Decoder) readRows(b *stream.Batch, id codec.ID) (err error) {
	m := &d.msg
	count := m.GetCount()
	if (count == 0) != (len(m.GetBody()) == 0) || count > MaxRecords {
		return fmt.Errorf("%w: %d records in %d bytes", ErrMalformed, count, len(m.GetBody()))
	}
	if err := d.place(b, int(count)); err != nil || count == 0 { // before anything is decoded
		return err
	}
	if id != codec.Rows {
		return fmt.Errorf("%w: a body encoded by %s, which is not known here", ErrMalformed, id)
	}
	b.Records, err = codec.DecodeRows(m.GetBody(), b.First, int(count), seedRows(b.ID, b.First, int(count)), d.limits)
	return err
}

// readLearned reads a body that says itself how many records it holds.
func (d *Decoder) readLearned(b *stream.Batch) (err error) {
	m := &d.msg
	switch {
	case m.GetCount() != 0:
		return fmt.Errorf("%w: a count beside a body that says it", ErrMalformed)
	case b.First == 0:
		return fmt.Errorf("%w: records outside the stream", ErrMalformed)
	}
	learn := d.learn
	switch {
	case d.state == 0: // a device costs no memory between its batches
		learn = once.Get().(*codec.Decoder)
		defer func() { learn.Reset(); once.Put(learn) }() // without the state
	case learn == nil: // since the reset
		learn = codec.NewDecoder(d.state)
		d.learn = learn
	}
	if b.Records, err = learn.Decode(m.GetBody(), b.First, seed(b.ID, b.First), d.limits); err != nil {
		return err
	}
	return d.place(b, len(b.Records))
}

// once decodes bodies that are sessions of their own.
var once = sync.Pool{New: func() any { return codec.NewDecoder(codec.DefaultState) }}

// place reads head and floor of a batch of count records, and checks that all
// its numbers are in order.
func (d *Decoder) place(b *stream.Batch, count int) error {
	b.Head = b.First + uint64(count) - 1 + uint64(d.msg.GetHeadAhead())
	b.Floor = b.First - uint64(d.msg.GetFloorBelow())
	if bad := checkBatch(b, count); bad != "" {
		return fmt.Errorf("%w: %s", ErrMalformed, bad)
	}
	return nil
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
