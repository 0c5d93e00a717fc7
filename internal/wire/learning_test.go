package wire

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/packetboat/packetboat/pkg/codec"
	"github.com/packetboat/packetboat/pkg/stream"
	pb "github.com/packetboat/packetboat/proto/packetboat/v1"
)

// learning encodes with a session of the default size.
var learning = EncoderOptions{Codec: codec.Learning, State: codec.DefaultState}

// ends are an edge and a hub, and the packets between them.
type ends struct {
	next map[stream.ID]uint64
	gen  *rapid.Generator[stream.Batch]

	enc  *Encoder
	sent []parcel // on the way to the hub
	acks []uint64 // on the way back: bodies that the hub has decoded

	dec     *Decoder
	resumed int
	mine    int // the session at the edge: counts those begun
	theirs  int // the session that the hub decoded last
}

type parcel struct {
	packet []byte
	batch  stream.Batch
	bodies uint64
	fresh  bool
	of     int // session
}

func (e *ends) send(t *rapid.T) {
	b := e.gen.Draw(t, "batch")
	packet, err := e.enc.Append(nil, &b)
	if err != nil {
		t.Fatal(err)
	}
	if e.enc.WasFresh() {
		e.mine++
	}
	e.sent = append(e.sent, parcel{packet, b, e.enc.Bodies(), e.enc.WasFresh(), e.mine})
}

// deliver lets the hub have the next batch, and answers it.
func (e *ends) deliver(t *rapid.T) {
	if len(e.sent) == 0 {
		return
	}
	p := e.sent[0]
	e.sent = e.sent[1:]
	got, err := e.dec.Decode(p.packet, device)
	if err != nil {
		t.Fatalf("a batch of a session in step: %v", err)
	}
	want := p.batch
	want.ID.Device = device
	if !reflect.DeepEqual(want, got) {
		t.Fatalf("in  %+v\nout %+v", want, got)
	}
	e.theirs = p.of
	e.acks = append(e.acks, p.bodies)
}

func (e *ends) confirm(*rapid.T) {
	if len(e.acks) == 0 {
		return
	}
	if s := e.enc.Session(); s != nil && e.acks[0] > 0 {
		s.Confirm(e.acks[0])
	}
	e.acks = e.acks[1:]
}

// cut ends the connection: what is on the way is lost, in both directions. Then
// edge and hub agree on a new one, as CONNECT and CONNACK do.
func (e *ends) cut(t *rapid.T) {
	e.sent, e.acks = nil, nil
	mine, theirs := e.enc.Session(), e.dec.Session()
	eo, do := learning, DecoderOptions{State: codec.DefaultState}
	if mine != nil && rapid.IntRange(0, 4).Draw(t, "the edge forgets") > 0 {
		offer := CodecOffer{Codec: codec.Learning, Resume: true, Oldest: mine.Oldest(), Last: mine.Position().Bodies}
		offer, ok := ParseCodecOffer([]stream.Property{FormatCodecOffer(offer)})
		if !ok {
			t.Fatal("the offer cannot be read")
		}
		grant := CodecGrant{Codec: codec.Learning, State: codec.DefaultState}
		if theirs != nil && rapid.IntRange(0, 4).Draw(t, "the hub forgets") > 0 {
			at := theirs.Position()
			fits := at.Bodies >= offer.Oldest && at.Bodies <= offer.Last
			if !fits && e.mine == e.theirs {
				t.Fatalf("the hub stands at %d, the edge offers %d to %d", at.Bodies, offer.Oldest, offer.Last)
			}
			if fits {
				do.Session, grant.Resume, grant.At = theirs, true, at
			}
		}
		lie := rapid.SampledFrom([]uint64{0, 0, 0, 1, 2}).Draw(t, "lie")
		switch lie {
		case 1:
			grant.At.Digest ^= 1
		case 2:
			grant.At.Bodies += 1 << 40
		}
		grant, ok = ParseCodecGrant([]stream.Property{FormatCodecGrant(grant)})
		if !ok {
			t.Fatal("the grant cannot be read")
		}
		if grant.Resume {
			switch err := mine.GoBack(grant.At); {
			case lie == 0 && err != nil && e.mine == e.theirs:
				t.Fatalf("go back to %d of %d: %v", grant.At.Bodies, offer.Last, err)
			case lie > 0 && !errors.Is(err, codec.ErrOutOfStep):
				t.Fatalf("go back to where nobody was: %v", err)
			case err == nil: // perhaps another session of the same content, which is as good
				e.theirs = e.mine
				eo.Session = mine
				e.resumed++
			}
		}
	}
	e.enc, e.dec = NewEncoder(eo), NewDecoder(do)
}

// spoil makes the hub lose track; it answers 0x99 until the edge, which hears
// of it after a while, begins anew.
func (e *ends) spoil(t *rapid.T) {
	if _, err := e.dec.Decode([]byte{0xff}, device); err == nil {
		t.Fatal("rubbish passes")
	}
	step := false
	for _, p := range e.sent {
		step = step || p.fresh
		if _, err := e.dec.Decode(p.packet, device); (err == nil) != step || err != nil && !errors.Is(err, ErrOutOfStep) {
			t.Fatalf("after one that could not be decoded: %v, reset since %v", err, step)
		}
	}
	if !step && e.dec.Session() != nil {
		t.Fatal("a session that is out of step is offered for later")
	}
	e.sent, e.acks = nil, nil
	e.enc.Reset()
}

// Whatever connections break, wherever, and whoever forgets: what is decoded is
// what was encoded, and a session that both sides kept goes on.
func TestSessionsOverConnections(t *testing.T) {
	resumed := 0
	rapid.Check(t, func(t *rapid.T) {
		next := make(map[stream.ID]uint64)
		e := &ends{next: next, gen: anyBatch(next), enc: NewEncoder(learning), dec: NewDecoder(DecoderOptions{State: codec.DefaultState})}
		steps := []func(*rapid.T){e.send, e.send, e.send, e.deliver, e.deliver, e.deliver, e.confirm, e.confirm, e.cut, e.spoil}
		for range rapid.IntRange(10, 60).Draw(t, "steps") {
			steps[rapid.IntRange(0, len(steps)-1).Draw(t, "step")](t)
		}
		for len(e.sent) > 0 {
			e.deliver(t)
		}
		resumed += e.resumed
	})
	if resumed == 0 && !t.Failed() {
		t.Error("no session ever went on: nothing was tested")
	}
}

// pair gives an encoder and a decoder after one batch of n.
func pair(t testing.TB, o EncoderOptions, n int) (*Encoder, *Decoder) {
	t.Helper()
	enc, dec := NewEncoder(o), NewDecoder(DecoderOptions{State: o.State})
	if _, err := dec.Decode(encode(t, enc, simple(1, n)), device); err != nil {
		t.Fatal(err)
	}
	return enc, dec
}

// In the middle of a session the envelope is the body's tag and length.
func TestLearnedEnvelope(t *testing.T) {
	enc, dec := pair(t, learning, 200)
	packet := encode(t, enc, simple(201, 200))
	var m pb.Batch
	if err := proto.Unmarshal(packet, &m); err != nil {
		t.Fatal(err)
	}
	n := len(m.GetBody())
	if want := len(packet) - 1 - protoVarint(n); n == 0 || n != want || n != enc.BodyBytes() || enc.Bodies() != 2 {
		t.Errorf("a body of %d bytes in %d: %v", n, len(packet), &m)
	}
	if _, err := dec.Decode(packet, device); err != nil {
		t.Error(err)
	}
}

func protoVarint(n int) int {
	if n < 1<<7 {
		return 1
	}
	return 2
}

// Without state at the hub each body stands for itself, and the decoder keeps
// nothing; what builds on another is refused. The envelope goes on.
func TestSelfContained(t *testing.T) {
	enc, dec := pair(t, EncoderOptions{Codec: codec.Learning}, 3)
	for first := uint64(4); first < 10; first += 3 {
		packet := encode(t, enc, simple(first, 3))
		if enc.WasFresh() || enc.Session() != nil || enc.Bodies() != 0 {
			t.Error("the encoder keeps something")
		}
		if b, err := dec.Decode(packet, device); err != nil || len(b.Records) != 3 {
			t.Fatal(err)
		}
		if dec.Session() != nil || dec.StateBytes() != 0 {
			t.Error("the decoder keeps something")
		}
	}
	enc, _ = pair(t, learning, 3)
	follows := encode(t, enc, simple(10, 3))
	if _, err := dec.Decode(follows, device); err == nil {
		t.Error("a body that builds on another is decoded")
	}
	if _, err := dec.Decode(follows, device); !errors.Is(err, ErrOutOfStep) {
		t.Errorf("in step after an error: %v", err)
	}
	if _, err := dec.Decode(encode(t, NewEncoder(EncoderOptions{Codec: codec.Learning}), simple(4, 3)), device); err != nil {
		t.Errorf("self-contained after an error: %v", err)
	}
}

// A packet that was too large was never sent: the session goes on without it.
func TestTooLargeKeepsTheSession(t *testing.T) {
	o := learning
	o.MaxBytes = 400
	enc, dec := pair(t, o, 3)
	large := simple(4, 1)
	large.Records[0].Payload = bytes.Repeat([]byte("0123456789abcdef\x00\xff\x17"), 1)
	for i := range 40 { // no codec makes 400 bytes of these
		large.Records = append(large.Records, stream.Record{Seq: uint64(5 + i), Message: stream.Message{Topic: fmt.Sprintf("%x/%x", i*i*7919, i*104729), Payload: fmt.Appendf(nil, "%x", i*i*i*15485863)}})
	}
	large.Head = large.Last()
	before := enc.Bodies()
	if out, err := enc.Append([]byte{1}, &large); !errors.Is(err, ErrTooLarge) || len(out) != 1 {
		t.Fatalf("%d bytes, %v", len(out), err)
	}
	if err := enc.Check(&large); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	if b := simple(4, 2); enc.Check(&b) != nil {
		t.Error("a small batch does not fit")
	}
	if enc.Bodies() != before {
		t.Errorf("%d bodies, there were %d", enc.Bodies(), before)
	}
	packet := encode(t, enc, simple(4, 2))
	if enc.WasFresh() {
		t.Error("a fresh session for nothing")
	}
	if _, err := dec.Decode(packet, device); err != nil {
		t.Error(err)
	}
}

// One record that does not fit by the learning codec goes as rows if that fits,
// and the session goes on after it.
func TestOneRecordAsRows(t *testing.T) {
	one := simple(4, 1)
	block := make([]byte, 4096) // that nothing can be learned of, eight times: zstd sees that
	chance := rand.New(rand.NewPCG(1, 2))
	for i := range block {
		block[i] = byte(chance.Uint32())
	}
	one.Records[0].Payload = bytes.Repeat(block, 8)
	rows, err := NewEncoder(EncoderOptions{}).Append(nil, &one)
	if err != nil {
		t.Fatal(err)
	}
	if learned, err := NewEncoder(learning).Append(nil, &one); err != nil || len(learned) <= len(rows)+8 {
		t.Fatalf("rows take %d bytes, learning %d: this record tests nothing (%v)", len(rows), len(learned), err)
	}
	o := learning
	o.MaxBytes = len(rows) + 8 // rows in a session of the other codec name it
	enc, dec := pair(t, o, 3)
	packet := encode(t, enc, one)
	if enc.WasLearned() {
		t.Error("rows that are called learned")
	}
	if b, err := dec.Decode(packet, device); err != nil || !bytes.Equal(b.Records[0].Payload, one.Records[0].Payload) {
		t.Fatal(err)
	}
	if _, err := dec.Decode(encode(t, enc, simple(5, 3)), device); err != nil || enc.WasFresh() || !enc.WasLearned() {
		t.Errorf("after it: %v, fresh %v, learned %v", err, enc.WasFresh(), enc.WasLearned())
	}
}

// What a decoder refuses of a learned body, and that nothing of it is kept.
func TestLearnedRefused(t *testing.T) {
	zero := uint64(0)
	for name, change := range map[string]func(*pb.Batch){
		"a count":         func(m *pb.Batch) { m.Count = 2 },
		"another first":   func(m *pb.Batch) { *m.First = 6; m.FloorBelow = 0 },
		"first 0":         func(m *pb.Batch) { m.First = &zero },
		"another lane":    func(m *pb.Batch) { m.Lane = pb.Lane_LANE_BULK },
		"another epoch":   func(m *pb.Batch) { m.Epoch = bytes.Repeat([]byte{9}, 16) },
		"not reset":       func(m *pb.Batch) { m.Reset_ = false },
		"an unknown one":  func(m *pb.Batch) { m.Codec = 3 },
		"none":            func(m *pb.Batch) { m.Codec = 0 },
		"rows":            func(m *pb.Batch) { m.Codec = 1; m.Count = 2 },
		"a broken body":   func(m *pb.Batch) { m.Body[len(m.Body)/2] ^= 0x40 },
		"a short body":    func(m *pb.Batch) { m.Body = m.Body[:len(m.Body)-1] },
		"head below":      func(m *pb.Batch) { m.HeadAhead = -1 },
		"floor above":     func(m *pb.Batch) { m.FloorBelow = -3 },
		"loss of records": func(m *pb.Batch) { m.Losses = []*pb.Loss{{More: 4}} },
	} {
		enc := NewEncoder(learning)
		var m pb.Batch
		if err := proto.Unmarshal(encode(t, enc, simple(5, 2)), &m); err != nil {
			t.Fatal(err)
		}
		change(&m)
		packet, err := proto.Marshal(&m)
		if err != nil {
			t.Fatal(err)
		}
		dec := NewDecoder(DecoderOptions{State: codec.DefaultState})
		if got, err := dec.Decode(packet, device); err == nil {
			t.Errorf("%s: accepted as %+v", name, got)
		}
		if dec.Session() != nil || dec.StateBytes() != 0 {
			t.Errorf("%s: something is kept", name)
		}
		if _, err := dec.Decode(encode(t, enc, simple(7, 2)), device); !errors.Is(err, ErrOutOfStep) {
			t.Errorf("%s: after it %v", name, err)
		}
	}
	packet := encode(t, NewEncoder(learning), simple(1, 10))
	for _, o := range []DecoderOptions{{MaxRecords: 9}, {MaxBytes: 19}} {
		o.State = codec.DefaultState
		if _, err := NewDecoder(o).Decode(packet, device); err == nil {
			t.Errorf("%+v: accepted", o)
		}
	}
}

// After a reset what is granted counts, not what a session had that went on.
func TestResetForgetsTheLimit(t *testing.T) {
	small := EncoderOptions{Codec: codec.Learning, State: codec.MinState}
	before := NewDecoder(DecoderOptions{State: codec.MinState})
	if _, err := before.Decode(encode(t, NewEncoder(small), simple(1, 2)), device); err != nil {
		t.Fatal(err)
	}
	dec := NewDecoder(DecoderOptions{State: codec.DefaultState, Session: before.Session()})
	if _, err := dec.Decode(encode(t, NewEncoder(learning), simple(3, 2)), device); err != nil {
		t.Fatal(err)
	}
}

// A reset empties the codec's session; bodies of rows in between do not.
func TestLearnedAndRowsMixed(t *testing.T) {
	enc, dec := pair(t, learning, 3)
	if dec.StateBytes() == 0 || dec.Session() == nil || enc.Session() == nil {
		t.Fatal("no session")
	}
	enc.Reset()
	if enc.Session() != nil || enc.Bodies() != 0 {
		t.Error("a session after Reset")
	}
	empty := simple(4, 0) // no body: both codecs stay fresh
	empty.Head, empty.Floor = 3, 4
	for _, b := range []stream.Batch{empty, simple(4, 2), simple(6, 2)} {
		if _, err := dec.Decode(encode(t, enc, b), device); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := dec.Session().Position(), enc.Session().Position(); got != want || got.Bodies != 2 {
		t.Errorf("the hub stands at %v, the edge at %v", got, want)
	}
	rows := NewEncoder(EncoderOptions{}) // the edge goes over to rows, and back
	if _, err := dec.Decode(encode(t, rows, simple(8, 2)), device); err != nil || dec.Session() != nil || rows.Session() != nil {
		t.Errorf("rows: %v", err)
	}
	if _, err := dec.Decode(encode(t, NewEncoder(learning), simple(10, 2)), device); err != nil || dec.Session() == nil {
		t.Errorf("learning again: %v", err)
	}
}

func TestNegotiation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := CodecOffer{Codec: codec.ID(rapid.IntRange(1, 255).Draw(t, "codec"))}
		g := CodecGrant{Codec: o.Codec, State: rapid.OneOf(rapid.Just(0), rapid.IntRange(codec.MinState, codec.MaxState)).Draw(t, "state")}
		if rapid.Bool().Draw(t, "resume") {
			o.Resume, o.Last = true, rapid.Uint64().Draw(t, "last")
			o.Oldest = rapid.Uint64Range(0, o.Last).Draw(t, "oldest")
			g.Resume, g.At = true, codec.Position{Bodies: rapid.Uint64().Draw(t, "bodies"), Digest: rapid.Uint64().Draw(t, "digest")}
		}
		if got, ok := ParseCodecOffer([]stream.Property{FormatVersion(), FormatCodecOffer(o)}); !ok || got != o {
			t.Fatalf("offer %+v came back as %+v", o, got)
		}
		if got, ok := ParseCodecGrant([]stream.Property{FormatVersion(), FormatCodecGrant(g)}); !ok || got != g {
			t.Fatalf("grant %+v came back as %+v", g, got)
		}
	})
	for _, bad := range []string{"", "0", "-1", "x", "256", "2;s=", "2;s=1", "2;s=3-2", "2;s=-", "2;s=1-2;s=1-2", "2;s=1-18446744073709551616"} {
		if got, ok := ParseCodecOffer([]stream.Property{{Key: PropCodec, Value: bad}}); ok {
			t.Errorf("offer %q: %+v", bad, got)
		}
	}
	for _, bad := range []string{"", "0;m=1", "2", "2;m=", "2;m=-1", "2;m=1;m=1", "2;m=1;s=1", "2;m=1;s=1/0", "2;m=1;s=x/0000000000000000", "2;m=1;s=1/000000000000000g", "2;s=1/0000000000000000"} {
		if got, ok := ParseCodecGrant([]stream.Property{{Key: PropCodec, Value: bad}}); ok {
			t.Errorf("grant %q: %+v", bad, got)
		}
	}
	for text, state := range map[string]int{"2;m=1000": 0, "2;m=99999999999999999": codec.MaxState, "3;z=1;m=1048576;y": 1 << 20} {
		if got, ok := ParseCodecGrant([]stream.Property{{Key: PropCodec, Value: text}}); !ok || got.State != state {
			t.Errorf("grant %q: %+v", text, got)
		}
	}
	if _, ok := ParseCodecOffer(nil); ok {
		t.Error("no offer passes")
	}
	if got, ok := ParseCodecOffer([]stream.Property{{Key: PropCodec, Value: "7;new;s=1-2"}}); !ok || !got.Resume {
		t.Errorf("an offer of a newer edge: %+v", got)
	}
}
