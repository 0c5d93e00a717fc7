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
}

// Encoder writes the batches of one connection, strictly in the order in which
// they are sent.
type Encoder struct {
	o       EncoderOptions
	session session
	msg     pb.Batch
	body    []byte
}

// NewEncoder makes the encoder of a new connection: its first batch is marked reset.
func NewEncoder(o EncoderOptions) *Encoder { return &Encoder{o: o} }

// Reset makes the next batch self-contained and marks it reset.
func (e *Encoder) Reset() { e.session = session{} }

// Fresh reports whether the next batch will be self-contained.
func (e *Encoder) Fresh() bool { return !e.session.begun }

// Append appends the payload of b's PUBLISH to dst. After an error, which wraps
// ErrInvalid or ErrTooLarge, nothing was appended and the encoder is as before.
func (e *Encoder) Append(dst []byte, b *stream.Batch) ([]byte, error) {
	out, err := e.encode(dst, b)
	if err != nil {
		return dst, err
	}
	e.session.advance(b, codec.Rows)
	return out, nil
}

// Check gives the error that Append would give, and changes nothing.
func (e *Encoder) Check(b *stream.Batch) error {
	_, err := e.encode(nil, b)
	return err
}

func (e *Encoder) encode(dst []byte, b *stream.Batch) ([]byte, error) {
	if bad := checkBatch(b, len(b.Records)); bad != "" {
		return nil, fmt.Errorf("%w: %s", ErrInvalid, bad)
	}
	for i := range b.Records {
		if b.Records[i].Seq != b.First+uint64(i) {
			return nil, fmt.Errorf("%w: number %d where %d is due", ErrInvalid, b.Records[i].Seq, b.First+uint64(i))
		}
	}
	if err := e.fill(b); err != nil {
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
func (e *Encoder) fill(b *stream.Batch) (err error) {
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
	m.Count = uint32(len(b.Records))
	if s.codec != codec.Rows {
		m.Codec = pb.Codec(codec.Rows)
	}
	e.body, err = codec.AppendRows(e.body[:0], b.Records, seed(b.ID, b.First, len(b.Records)))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	m.Body = e.body
	return nil
}
