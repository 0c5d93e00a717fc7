package linkbench

import (
	"errors"
	"fmt"
	"time"

	"github.com/packetboat/packetboat/internal/rig/recording"
	"github.com/packetboat/packetboat/internal/wire"
	"github.com/packetboat/packetboat/pkg/codec"
	"github.com/packetboat/packetboat/pkg/stream"
)

// device is the client id of the edge.
const device = "car-17"

// mode is a way to send telemetry.
type mode struct {
	key, name string
	codec     codec.ID
	state     int
	// reconnect is after how many messages the connection ends; 0: never.
	reconnect int
	resume    bool // the sessions outlive it
}

const reconnect = 2000

var modes = []mode{
	{key: "rows", name: "rows + zstd", codec: codec.Rows},
	{key: "self_contained", name: "self-contained", codec: codec.Learning},
	{key: "learning", name: "learning session", codec: codec.Learning, state: codec.DefaultState},
	{key: "reconnect", name: "reconnect every 2,000, no resume", codec: codec.Learning, state: codec.DefaultState, reconnect: reconnect},
	{key: "resume", name: "reconnect every 2,000, resumed", codec: codec.Learning, state: codec.DefaultState, reconnect: reconnect, resume: true},
}

// link is an edge and a hub, and what went between them.
type link struct {
	mode mode
	size int // messages of a batch
	enc  *wire.Encoder
	dec  *wire.Decoder
	// tamper, if not nil, changes what was sent; a test shows with it that a
	// difference is noticed.
	tamper func(packet []byte, b *stream.Batch)

	arena   []byte
	packets []int // where each ends in arena
	bodies  []int // how long the body of each is
	batches []stream.Batch
	decoded []stream.Batch
	aliased bool
	scales  *scales // nil: memory is not measured

	sum tally
}

// tally adds up what went over a link.
type tally struct {
	messages, batches, connections, resumed int

	bodies              int // bytes of bodies, their check included
	bytes               int // with MQTT
	carried             int // with TLS and TCP/IP too
	plain, plainCarried int // the same messages as plain MQTT, as many in one write

	encoding, decoding           time.Duration
	encodeAllocs, decodeAllocs   uint64
	encoderState, decoderState   int // what the sessions say, at most
	encoderMemory, decoderMemory int // what was measured at the end
	peakMemory                   int // of both, at most
}

// Bounds of what is encoded before it is decoded, so that neither side finds its
// memory in the other's cache and clocks are read rarely.
const (
	groupMessages = 4000
	groupBytes    = 16 << 20
)

// batchBytes closes a batch of fewer messages: of topics and payloads.
const batchBytes = 4 << 20

// run sends all records.
func (l *link) run(recs []stream.Record) error {
	limit := len(recs)
	if l.mode.reconnect > 0 {
		limit = l.mode.reconnect
	}
	for len(recs) > 0 {
		if err := l.connect(); err != nil {
			return err
		}
		n := min(limit, len(recs))
		for part := recs[:n]; len(part) > 0; {
			k := l.gather(part)
			if err := l.exchange(); err != nil {
				return err
			}
			part = part[k:]
		}
		recs = recs[n:]
	}
	return nil
}

// gather makes the next batches of recs, of which each is answered before the
// next: the floor is its first, and nothing is ahead. It returns how many
// records are in them.
func (l *link) gather(recs []stream.Record) (taken int) {
	l.batches = l.batches[:0]
	for total := 0; taken < len(recs) && taken < groupMessages && total < groupBytes; {
		n, bytes := 0, 0
		for n < l.size && taken+n < len(recs) && bytes < batchBytes {
			m := &recs[taken+n].Message
			bytes += len(m.Topic) + len(m.Payload)
			n++
		}
		part := recs[taken : taken+n]
		b := stream.Batch{
			ID: stream.ID{Epoch: stream.Epoch{1}, Lane: stream.Normal}, First: part[0].Seq, Records: part,
			Floor: part[0].Seq, Oldest: part[0].Time, Flags: stream.FIFO,
		}
		b.Head = b.Last()
		l.batches = append(l.batches, b)
		taken, total = taken+n, total+bytes
	}
	return taken
}

// connect begins a connection, as edge and hub agree on it.
func (l *link) connect() error {
	eo := wire.EncoderOptions{Codec: l.mode.codec, State: l.mode.state}
	do := wire.DecoderOptions{State: l.mode.state}
	if l.mode.resume && l.enc != nil {
		var err error
		if eo.Session, do.Session, err = resume(l.enc.Session(), l.dec.Session()); err != nil {
			return err
		}
		l.sum.resumed++
	}
	l.enc, l.dec, l.aliased = wire.NewEncoder(eo), wire.NewDecoder(do), false
	l.sum.connections++
	return nil
}

// errResume says that a session that should go on does not.
var errResume = errors.New("session was not resumed")

// resume brings both sides to one place, by what CONNECT and CONNACK say.
func resume(edge *codec.Encoder, hub *codec.Decoder) (*codec.Encoder, *codec.Decoder, error) {
	if edge == nil || hub == nil {
		return nil, nil, fmt.Errorf("%w: one side has none", errResume)
	}
	connect := wire.FormatCodecOffer(wire.CodecOffer{Codec: codec.Learning, Resume: true, Oldest: edge.Oldest(), Last: edge.Position().Bodies})
	offer, ok := wire.ParseCodecOffer([]stream.Property{connect})
	at := hub.Position()
	if !ok || !offer.Resume || at.Bodies < offer.Oldest || at.Bodies > offer.Last {
		return nil, nil, fmt.Errorf("%w: the hub is at %d, the edge offers %s", errResume, at.Bodies, connect.Value)
	}
	connack := wire.FormatCodecGrant(wire.CodecGrant{Codec: codec.Learning, State: codec.DefaultState, Resume: true, At: at})
	grant, ok := wire.ParseCodecGrant([]stream.Property{connack})
	if !ok || !grant.Resume {
		return nil, nil, fmt.Errorf("%w: the hub's %s cannot be read", errResume, connack.Value)
	}
	if err := edge.GoBack(grant.At); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errResume, err)
	}
	return edge, hub, nil
}

// exchange sends the gathered batches, and compares what arrives.
func (l *link) exchange() error {
	if err := l.encode(); err != nil {
		return err
	}
	if err := l.decode(); err != nil {
		return err
	}
	for i := range l.batches {
		if err := same(&l.batches[i], &l.decoded[i]); err != nil {
			return err
		}
	}
	l.sum.encoderState = max(l.sum.encoderState, stateOf(l.enc.Session()))
	l.sum.decoderState = max(l.sum.decoderState, l.dec.StateBytes())
	l.sample()
	return nil
}

func stateOf(e *codec.Encoder) int {
	if e == nil {
		return 0
	}
	return e.StateBytes()
}

// encode encodes the gathered batches.
func (l *link) encode() error {
	l.arena, l.packets, l.bodies = l.arena[:0], l.packets[:0], l.bodies[:0]
	allocs, began := mallocs(), time.Now()
	for i := range l.batches {
		var err error
		if l.arena, err = l.enc.Append(l.arena, &l.batches[i]); err != nil {
			return fmt.Errorf("encoding the batch at %d: %w", l.batches[i].First, err)
		}
		if s := l.enc.Session(); s != nil {
			s.Confirm(l.enc.Bodies())
		}
		l.packets, l.bodies = append(l.packets, len(l.arena)), append(l.bodies, l.enc.BodyBytes())
	}
	l.sum.encoding += time.Since(began)
	l.sum.encodeAllocs += mallocs() - allocs
	from := 0
	for i, to := range l.packets {
		l.count(&l.batches[i], to-from, l.bodies[i])
		from = to
	}
	return nil
}

// count adds what a batch takes on the link.
func (l *link) count(b *stream.Batch, payload, body int) {
	s, topic := &l.sum, len(wire.UpTopic(device))
	if l.aliased { // the alias stands for it
		topic = 0
	}
	l.aliased = true
	n := recording.PublishSize(topic, true, payload)
	s.batches++
	s.messages += len(b.Records)
	s.bodies += body
	s.bytes += n
	s.carried += carried(n)
	plain := 0
	for i := range b.Records {
		plain += recording.PublishSize(len(b.Records[i].Topic), false, len(b.Records[i].Payload))
	}
	s.plain += plain
	s.plainCarried += carried(plain)
}

// decode decodes what encode wrote.
func (l *link) decode() error {
	l.decoded = l.decoded[:0]
	if l.tamper != nil {
		for i, from := 0, 0; i < len(l.packets); i++ {
			l.tamper(l.arena[from:l.packets[i]], nil)
			from = l.packets[i]
		}
	}
	allocs, began := mallocs(), time.Now()
	from := 0
	for i, to := range l.packets {
		b, err := l.dec.Decode(l.arena[from:to], device)
		if err != nil {
			return fmt.Errorf("decoding the batch at %d: %w", l.batches[i].First, err)
		}
		l.decoded = append(l.decoded, b)
		from = to
	}
	l.sum.decoding += time.Since(began)
	l.sum.decodeAllocs += mallocs() - allocs
	if l.tamper != nil {
		for i := range l.decoded {
			l.tamper(nil, &l.decoded[i])
		}
	}
	return nil
}
