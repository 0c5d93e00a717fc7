package wire

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/packetboat/packetboat/pkg/codec"
	"github.com/packetboat/packetboat/pkg/stream"
	pb "github.com/packetboat/packetboat/proto/packetboat/v1"
)

// EncoderOptions are an Encoder's. The zero value is usable.
type EncoderOptions struct {
	// MaxBytes is the most bytes of one batch; 0: no limit.
	MaxBytes int
	// Codec encodes the bodies: codec.Rows, also if it is 0, or codec.Learning.
	Codec codec.ID
	// State is with codec.Learning the most bytes of state of a session, on
	// either side; 0: every body is a session of its own.
	State int
	// BatchState is with State 0 the most bytes of state that one body takes
	// while it is encoded or decoded; 0 and above codec.DefaultState, which is
	// what every hub has for it: codec.DefaultState.
	BatchState int
	// Session is with codec.Learning and State a session that goes on where the
	// other side stands, and is the Encoder's from now on; nil: a fresh one.
	Session *codec.Encoder
}

// Encoder writes the batches of one connection, strictly in the order in which
// they are sent.
type Encoder struct {
	o       EncoderOptions
	session session
	learn   *codec.Encoder // nil with codec.Rows
	msg     pb.Batch
	body    []byte
}

// NewEncoder makes the encoder of a new connection: its first batch is marked
// reset, unless it goes on with a session.
func NewEncoder(o EncoderOptions) *Encoder {
	if o.BatchState <= 0 || o.BatchState > codec.DefaultState {
		o.BatchState = codec.DefaultState
	}
	e := &Encoder{o: o}
	switch {
	case o.Codec != codec.Learning:
		e.o.Codec = codec.Rows
	case o.State <= 0:
		e.learn = codec.NewEncoder(o.BatchState)
	case o.Session != nil:
		e.learn = o.Session
		e.session = resumed()
	default:
		e.learn = codec.NewEncoder(o.State)
	}
	e.o.Session = nil
	return e
}

// Reset makes the next batch self-contained and marks it reset.
func (e *Encoder) Reset() {
	e.session = session{}
	if e.learn != nil {
		e.learn.Reset()
	}
}

// Fresh reports whether the next batch will be self-contained, and marked reset.
func (e *Encoder) Fresh() bool { return !e.session.begun }

// WasFresh reports whether the batch encoded last is self-contained, and marked
// reset.
func (e *Encoder) WasFresh() bool { return e.msg.GetReset_() }

func (e *Encoder) selfContained() bool { return e.learn != nil && e.o.State <= 0 }

// Session is the codec session in use, nil if there is none that the next
// connection could go on with. It is the Encoder's: whoever goes on with it
// must be done with the Encoder.
func (e *Encoder) Session() *codec.Encoder {
	if e.Bodies() == 0 {
		return nil
	}
	return e.learn
}

// Bodies is how many bodies there were in the session, that of the batch
// appended last included; 0 where nothing is kept.
func (e *Encoder) Bodies() uint64 {
	if e.learn == nil || e.selfContained() {
		return 0
	}
	return e.learn.Position().Bodies
}

// WasLearned reports whether the batch encoded last has a body by codec.Learning:
// one record may have gone as rows.
func (e *Encoder) WasLearned() bool { return len(e.msg.GetBody()) > 0 && e.msg.GetCount() == 0 }

// BodyBytes is how long the body was of the batch encoded last.
func (e *Encoder) BodyBytes() int { return len(e.msg.GetBody()) }

// Append appends the payload of b's PUBLISH to dst. After an error, which wraps
// ErrInvalid or ErrTooLarge, nothing was appended; the encoder is as before, or
// fresh where the session cannot go back over what did not fit.
func (e *Encoder) Append(dst []byte, b *stream.Batch) ([]byte, error) {
	out, id, err := e.encode(dst, b)
	if err != nil {
		return dst, err
	}
	e.session.advance(b, id)
	return out, nil
}

// Check gives the error that Append would give and appends nothing; the encoder
// is as after an error of Append.
func (e *Encoder) Check(b *stream.Batch) error {
	at := e.position()
	_, _, err := e.encode(nil, b)
	if err == nil {
		e.back(at)
	}
	return err
}

// checkRecords says what is wrong with the numbers of b.
func checkRecords(b *stream.Batch) error {
	if bad := checkBatch(b, len(b.Records)); bad != "" {
		return fmt.Errorf("%w: %s", ErrInvalid, bad)
	}
	for i := range b.Records {
		if b.Records[i].Seq != b.First+uint64(i) {
			return fmt.Errorf("%w: number %d where %d is due", ErrInvalid, b.Records[i].Seq, b.First+uint64(i))
		}
	}
	return nil
}

// encode encodes b by the codec of the session. A single record that does not
// fit gets a second chance as rows, which may squeeze a long text better.
func (e *Encoder) encode(dst []byte, b *stream.Batch) (out []byte, id codec.ID, err error) {
	if err := checkRecords(b); err != nil {
		return nil, 0, err
	}
	if e.selfContained() {
		e.learn.Reset()
	}
	at, begun := e.position(), e.session.begun
	id = e.o.Codec
	out, err = e.encodeBy(dst, b, id)
	if err != nil && id == codec.Learning {
		e.back(at)
		// Not where the session had to begin anew: the caller may have to wait
		// before it sends a batch that is marked reset.
		if len(b.Records) == 1 && e.session.begun == begun {
			id = codec.Rows
			if by, bad := e.encodeBy(dst, b, id); bad == nil {
				return by, id, nil
			}
		}
	}
	return out, id, err
}

func (e *Encoder) position() codec.Position {
	if e.learn == nil {
		return codec.Position{}
	}
	return e.learn.Position()
}

// back takes the codec's session back to at, over what will not be sent; where
// that cannot be, the next batch begins a fresh one.
func (e *Encoder) back(at codec.Position) {
	if e.learn == nil || e.selfContained() || e.learn.Position() == at {
		return
	}
	if at.Bodies == 0 || e.learn.GoBack(at) != nil {
		e.Reset()
	}
}

func (e *Encoder) encodeBy(dst []byte, b *stream.Batch, id codec.ID) ([]byte, error) {
	if err := e.fill(b, id); err != nil {
		return nil, err
	}
	out, err := proto.MarshalOptions{}.MarshalAppend(dst, &e.msg)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if n := len(out) - len(dst); e.o.MaxBytes > 0 && n > e.o.MaxBytes {
		return nil, fmt.Errorf("%w: %d bytes, %d allowed", ErrTooLarge, n, e.o.MaxBytes)
	}
	return out, nil
}

// fill makes e.msg say b, less what the other side foresees.
func (e *Encoder) fill(b *stream.Batch, id codec.ID) (err error) {
	s, m := &e.session, &e.msg
	m.Reset()
	m.Reset_ = !s.begun
	// What declares losses names its stream: a slip here would lose data.
	if m.Reset_ || s.lane != b.ID.Lane || len(b.Losses) > 0 {
		m.Lane = pb.Lane(b.ID.Lane)
	}
	if m.Reset_ || s.epochOf(b.ID.Lane) != b.ID.Epoch || len(b.Losses) > 0 {
		m.Epoch = b.ID.Epoch[:]
	}
	if s.firstOf(b.ID.Lane, b.ID.Epoch) != b.First {
		m.First = &b.First
	}
	m.HeadAhead = int64(b.Head - b.Last())
	m.FloorBelow = int64(b.First - b.Floor)
	m.OldestAfter = b.Oldest - s.oldestOf(b)
	if flags := uint32(b.Flags); s.lanes[b.ID.Lane].flags != b.Flags {
		m.Flags = &flags
	}
	end := uint64(0)
	for i := range b.Losses {
		l := &b.Losses[i]
		m.Losses = append(m.Losses, &pb.Loss{
			Skip: l.First - end - 1, More: l.Last - l.First,
			Reason: pb.Reason(l.Reason), From: l.From, Span: l.To - l.From,
		})
		end = l.Last
	}
	if len(b.Records) == 0 {
		return nil
	}
	if s.codec != id {
		m.Codec = pb.Codec(id)
	}
	if id == codec.Learning { // its bodies say their count
		e.body, err = e.learn.Append(e.body[:0], b.Records, seed(b.ID, b.First))
	} else {
		m.Count = uint32(len(b.Records))
		e.body, err = codec.AppendRows(e.body[:0], b.Records, seedRows(b.ID, b.First, len(b.Records)))
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	m.Body = e.body
	return nil
}
