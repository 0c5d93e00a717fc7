package ingest

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/packetboat/packetboat/pkg/codec"
	"github.com/packetboat/packetboat/pkg/stream"
)

// receiver decodes the batches of one session, and owns what is learned from
// them as long as the session is open.
type receiver struct {
	k      *keeper
	make   func(state int, session learned) decoder
	device string
	learns bool // the device speaks the learning codec

	// granted is how much state the session may keep, bytes what it does keep,
	// as counted by k. Written with mu held.
	granted, bytes atomic.Int64

	mu sync.Mutex
	// Everything below is guarded by mu, which is held while a batch is decoded:
	// for milliseconds. Nothing but k's lock is taken meanwhile.

	dec    decoder        // nil: the session has ended, and what it learned went on
	at     codec.Position // of the codec session, behind the last batch
	gaveUp bool           // the state was taken away
}

// errEnded says that a batch came too late to be decoded.
var errEnded = errors.New("ingest: the session has ended")

// newReceiver begins a session with what the keeper has, and says what to answer.
func newReceiver(in *Ingest, device string, o *CodecOffer) (*receiver, CodecGrant) {
	g, kept := in.keeper.begin(device, o)
	r := &receiver{k: &in.keeper, make: in.newDecoder, device: device, learns: o.learns()}
	r.granted.Store(int64(g.State))
	if kept != nil {
		r.dec = r.make(g.State, kept.learned)
		r.bytes.Store(kept.bytes)
		r.at = g.At
	} else {
		r.dec = r.make(g.State, nil)
	}
	return r, g
}

// decode decodes the next packet, in the order of arrival, also one that is then
// refused: so the two ends stay in step. After end it gives errEnded.
func (r *receiver) decode(packet []byte) (stream.Batch, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dec == nil {
		return stream.Batch{}, errEnded
	}
	b, err := r.dec.Decode(packet, r.device)
	r.account(len(b.Records), err)
	return b, err
}

// spoil makes the session refuse what follows, up to a batch that is marked
// reset, as after one that cannot be decoded: the last one was decoded, and is
// no batch of the device. To take what comes after it would break the order.
func (r *receiver) spoil(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dec == nil {
		return
	}
	r.dec = r.make(int(r.granted.Load()), nil)
	r.account(0, err)
}

// account counts what became of the codec session with a batch of so many
// records: each one that begins is in use, or kept, or dropped for a reason. mu
// is held.
func (r *receiver) account(records int, err error) {
	if !r.learns {
		return
	}
	was := r.at
	if r.at = (codec.Position{}); r.dec.Session() != nil {
		r.at = r.dec.Session().Position()
	}
	if was.Bodies > 0 && r.at != was && r.at.Bodies <= was.Bodies { // it is over
		if err != nil {
			r.k.count(&r.k.drops[DropBad])
		} else {
			r.k.count(&r.k.drops[DropUnwanted])
		}
	}
	switch {
	case err != nil:
	case r.at.Bodies == 1 && r.at != was:
		r.k.count(&r.k.stats.Fresh)
	case r.granted.Load() == 0 && records > 0:
		r.k.count(&r.k.stats.SelfContained)
	}
	r.resize()
}

// resize counts what the session keeps, and gives it up if there is no room.
// The batch that made it grow was decoded and is good. mu is held.
func (r *receiver) resize() {
	if r.granted.Load() == 0 {
		return
	}
	was, now := r.bytes.Load(), int64(r.dec.StateBytes())
	if was == now {
		return
	}
	r.bytes.Store(now)
	if r.k.resize(was, now) {
		return
	}
	r.dec = r.make(0, nil) // from a reset on each body is a session of its own
	r.granted.Store(0)
	r.bytes.Store(0)
	r.at, r.gaveUp = codec.Position{}, true
}

// regrant is what the edge has to know with a batch that was not decodable:
// how to go on. The zero value: as before.
func (r *receiver) regrant() CodecGrant {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gaveUp {
		return CodecGrant{Codec: codec.Learning}
	}
	return CodecGrant{}
}

// end hands what was learned to the keeper. A batch that is being decoded is
// waited for, one that comes later is not decoded.
func (r *receiver) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dec == nil {
		return
	}
	if state := int(r.granted.Load()); state > 0 {
		r.k.park(r.device, r.dec.Session(), state, r.bytes.Load())
	}
	r.dec = nil
	r.granted.Store(0)
	r.bytes.Store(0)
}
