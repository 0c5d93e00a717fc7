package ingest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/packetboat/packetboat/internal/wire"
	"github.com/packetboat/packetboat/pkg/codec"
	"github.com/packetboat/packetboat/pkg/stream"
)

// encoder is the sending half of a connection's codec session.
type encoder interface {
	Append(dst []byte, b *stream.Batch) ([]byte, error)
}

// The plain codec passes batches by reference, and learns nothing but where it
// stands: enough to notice every step that one side makes without the other. The
// real codec keeps compressors in a pool of the process, which channels of a
// bubble of fake time may not cross; what runs in real time uses it.

// plainPacket is a batch in transit.
type plainPacket struct {
	batch   *stream.Batch
	learned bool
	reset   bool
	at      codec.Position // of the encoder, before it
}

var (
	inTransit  sync.Map // of packets to plainPacket
	lastPacket atomic.Uint64
)

// behind is the position behind a packet.
func behind(at codec.Position, packet []byte) codec.Position {
	return codec.Position{Bodies: at.Bodies + 1, Digest: (at.Digest ^ binary.BigEndian.Uint64(packet)) * 0x9e3779b97f4a7c15}
}

// plainEncoder is the sending half of a plain session.
type plainEncoder struct {
	learns bool
	state  int // what a session may keep; 0: nothing, each body begins one
	fresh  bool
	at     codec.Position
	past   map[uint64]codec.Position // where it can go back to
}

func newPlainEncoder(learns bool, state int) *plainEncoder {
	e := &plainEncoder{learns: learns, state: state}
	e.Reset()
	return e
}

func (e *plainEncoder) Reset() {
	e.fresh, e.at, e.past = true, codec.Position{}, map[uint64]codec.Position{}
}

func (e *plainEncoder) Append(dst []byte, b *stream.Batch) ([]byte, error) {
	packet := binary.BigEndian.AppendUint64(dst, lastPacket.Add(1))
	if e.state == 0 {
		e.at, e.past = codec.Position{}, map[uint64]codec.Position{}
	}
	inTransit.Store(string(packet), plainPacket{b, e.learns, e.fresh, e.at})
	e.fresh = false
	e.at = behind(e.at, packet)
	e.past[e.at.Bodies] = e.at
	return packet, nil
}

func (e *plainEncoder) offer() CodecOffer {
	switch {
	case !e.learns:
		return CodecOffer{}
	case e.fresh || e.state == 0:
		return CodecOffer{Codec: codec.Learning}
	}
	oldest := e.at.Bodies
	for n := range e.past {
		oldest = min(oldest, n)
	}
	return CodecOffer{Codec: codec.Learning, Resume: true, Oldest: oldest, Last: e.at.Bodies}
}

// confirm forgets what the hub will not ask for any more.
func (e *plainEncoder) confirm(bodies uint64) {
	for n := range e.past {
		if n < bodies {
			delete(e.past, n)
		}
	}
}

// goOn makes of a grant what an edge makes of it.
func (e *plainEncoder) goOn(g CodecGrant) (resumed bool) {
	e.state = g.State
	if !g.Resume || e.past[g.At.Bodies] != g.At {
		e.Reset()
		return false
	}
	e.at, e.fresh = g.At, false
	for n := range e.past {
		if n > g.At.Bodies {
			delete(e.past, n)
		}
	}
	return true
}

// plainLearned is what a plain decoder has learned: each body adds as many bytes
// to it as it has a record, up to the limit. It panics when two use it at once.
type plainLearned struct {
	used  atomic.Bool
	at    codec.Position
	bytes int
	limit int
}

func (l *plainLearned) Position() codec.Position { return l.at }
func (l *plainLearned) StateBytes() int          { return l.bytes }

// plainStart and plainGrowth are the bytes of a plain session.
const (
	plainStart  = 60 << 10
	plainGrowth = 7<<10 + 13
)

// plainDecoder is the receiving half.
type plainDecoder struct {
	state int
	l     *plainLearned
	bad   bool // out of step
}

func newPlainDecoder(state int, session learned) decoder {
	d := &plainDecoder{state: state, bad: true}
	if session != nil {
		d.l, d.bad = session.(*plainLearned), false
	}
	return d
}

func (d *plainDecoder) Decode(packet []byte, device string) (b stream.Batch, err error) {
	x, ok := inTransit.LoadAndDelete(string(packet))
	if !ok {
		d.bad, d.l = true, nil
		return b, errors.New("not a packet")
	}
	p := x.(plainPacket)
	if p.learned {
		err = d.learn(&p, packet)
	}
	if err != nil {
		d.bad, d.l = true, nil
		return b, err
	}
	b = *p.batch
	b.ID.Device = device
	return b, nil
}

func (d *plainDecoder) learn(p *plainPacket, packet []byte) error {
	if p.reset {
		d.bad, d.l = false, nil
	}
	if d.l == nil {
		d.l = &plainLearned{bytes: plainStart, limit: d.state}
	}
	if d.bad || d.l.at != p.at {
		return errors.New("out of step")
	}
	if !d.l.used.CompareAndSwap(false, true) {
		panic("two decoders of one session")
	}
	d.l.at = behind(d.l.at, packet)
	d.l.bytes = min(d.l.bytes+plainGrowth*len(p.batch.Records), max(d.l.limit, plainStart))
	d.l.used.Store(false)
	if d.state == 0 {
		d.l = nil
	}
	return nil
}

func (d *plainDecoder) Session() learned {
	if d.bad || d.l == nil || d.l.at.Bodies == 0 {
		return nil
	}
	return d.l
}

func (d *plainDecoder) StateBytes() int {
	if d.l == nil {
		return 0
	}
	return d.l.bytes
}

// simCodec is an edge's codec over all its connections.
type simCodec struct {
	real   bool // the link's own, not plain
	learns bool

	plain   *plainEncoder
	link    *wire.Encoder
	session *codec.Encoder // of link, that a connection may go on with
	resumed int
}

func (c *simCodec) offer() CodecOffer {
	switch {
	case !c.learns:
		return CodecOffer{}
	case !c.real && c.plain != nil:
		return c.plain.offer()
	case c.link != nil:
		c.session = c.link.Session()
	}
	o := CodecOffer{Codec: codec.Learning}
	if c.session != nil {
		o.Resume, o.Oldest, o.Last = true, c.session.Oldest(), c.session.Position().Bodies
	}
	return o
}

// goOn makes the encoder of a connection, or the one after a batch that was bad.
func (c *simCodec) goOn(g CodecGrant) encoder {
	if !c.real {
		if c.plain == nil {
			c.plain = newPlainEncoder(c.learns, g.State)
		}
		if c.plain.goOn(g) {
			c.resumed++
		}
		return c.plain
	}
	o := wire.EncoderOptions{Codec: g.Codec, State: g.State}
	if g.Resume && c.session != nil && c.session.GoBack(g.At) == nil {
		o.Session = c.session
		c.resumed++
	}
	c.link = wire.NewEncoder(o)
	c.session = nil
	return c.link
}

// bodies is where the session stands.
func (c *simCodec) bodies() uint64 {
	switch {
	case !c.learns:
		return 0
	case c.real:
		return c.link.Bodies()
	}
	return c.plain.at.Bodies
}

// confirm notes that the hub has decoded so many bodies.
func (c *simCodec) confirm(bodies uint64) {
	switch {
	case bodies == 0 || !c.learns:
	case !c.real:
		c.plain.confirm(bodies)
	case c.link.Session() != nil:
		c.link.Session().Confirm(bodies)
	}
}

// hog is a session of another device, without the device, that takes memory from
// a keeper.
type hog struct {
	k     *keeper
	bytes int64 // 0: it has none
}

// take makes it as large as leaves the others left bytes, where they leave it so
// much; 0 ends it.
func (h *hog) take(left int64) {
	if h.bytes > 0 {
		h.k.park("hog", nil, codec.MinState, h.bytes)
		h.bytes = 0
	}
	if left == 0 {
		return
	}
	g, _ := h.k.begin("hog", &CodecOffer{Codec: codec.Learning})
	if n := h.k.limits.total - left; g.State > 0 && h.k.resize(0, n) {
		h.bytes = n
	}
}

// exact compares what the hub counts with what its decoders say. Everything has
// to be at rest.
func exact(in *Ingest, hogs ...hog) error {
	got := in.Stats().Codec
	want, inUse := CodecStats{}, int64(0)
	for _, h := range hogs {
		if h.bytes > 0 {
			want.Sessions++
			want.StateBytes += h.bytes
		}
	}
	for _, d := range in.devices.all(nil) {
		d.mu.Lock()
		s := d.session
		d.mu.Unlock()
		if s == nil {
			continue
		}
		s.recv.mu.Lock()
		if s.recv.granted.Load() > 0 {
			want.Sessions++
			want.StateBytes += int64(s.recv.dec.StateBytes())
		}
		if s.recv.at.Bodies > 0 {
			inUse++
		}
		s.recv.mu.Unlock()
	}
	k := &in.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	for e := k.away.Front(); e != nil; e = e.Next() {
		x := e.Value.(*keptSession)
		want.Kept++
		want.KeptBytes += int64(x.learned.StateBytes())
		if k.kept[x.device] != e {
			return fmt.Errorf("what is kept of %s is not found", x.device)
		}
	}
	dropped := int64(0)
	for _, n := range got.Dropped {
		dropped += n
	}
	switch {
	case len(hogs) == 0 && got.Fresh != inUse+got.Kept+dropped:
		return fmt.Errorf("%d sessions began, %d are in use, %d kept, %d dropped", got.Fresh, inUse, got.Kept, dropped)
	case want.Sessions != got.Sessions || want.StateBytes != got.StateBytes || want.Kept != got.Kept || want.KeptBytes != got.KeptBytes:
		return fmt.Errorf("counted %+v, there is %+v", got, want)
	case len(k.kept) != k.away.Len():
		return fmt.Errorf("%d devices for %d kept sessions", len(k.kept), k.away.Len())
	case got.StateBytes+got.KeptBytes > k.limits.total:
		return fmt.Errorf("%d bytes beyond the total of %d", got.StateBytes+got.KeptBytes, k.limits.total)
	}
	return nil
}

// hello is what the edge says when it connects.
func (e *simEdge) hello() Hello {
	return Hello{Device: e.device, Version: 1, Held: e.heldList(), Codec: e.codec.offer()}
}

func (e *simEdge) dial(in *Ingest, h Hello) (*simConn, error) {
	c := &simConn{}
	h.Revoke = func(reason string) {
		c.mu.Lock()
		c.revoked = reason
		c.mu.Unlock()
		in.Devices() // no lock may be held here
	}
	var err error
	c.session, c.welcome, err = in.Connect(context.Background(), h)
	if busy := (*BusyError)(nil); err != nil && !errors.As(err, &busy) {
		panic(err)
	}
	return c, err
}
