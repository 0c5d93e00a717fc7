package ingest

import (
	"time"

	"github.com/packetboat/packetboat/pkg/codec"
)

// CodecOffer is what an edge says of codecs when it connects. The zero value is
// an edge that speaks codec.Rows only.
type CodecOffer struct {
	// Codec is the newest one that the edge speaks, with all before it.
	Codec codec.ID
	// Resume says that the edge keeps a session, which can go back to any number
	// of bodies from Oldest to Last.
	Resume       bool
	Oldest, Last uint64
}

// learns reports whether the edge speaks the learning codec.
func (o *CodecOffer) learns() bool { return o.Codec >= codec.Learning }

// CodecGrant is what the hub answers to an offer. The zero value answers an edge
// that offered nothing.
type CodecGrant struct {
	// Codec is the one to use.
	Codec codec.ID
	// State is how many bytes of state a session may keep at the hub; 0: none is
	// kept, each body is a session of its own.
	State int
	// Resume says that the hub kept the session, and stands at At.
	Resume bool
	At     codec.Position
}

// CodecDrop says why something that was learned was let go of. The set is closed.
type CodecDrop uint8

// The reasons of CodecDrop.
const (
	DropExpired   CodecDrop = iota // kept for Options.CodecKeep
	DropNumber                     // more than Options.CodecKept were kept
	DropKeptBytes                  // kept, and its bytes were needed
	DropNoRoom                     // in use, and there was no room for it to grow
	DropRange                      // the device could not go back to where it stood
	DropUnwanted                   // the device began anew
	DropBad                        // a batch could not be decoded
	codecDrops
)

var codecDropNames = [codecDrops]string{"expired", "number", "kept_bytes", "no_room", "out_of_range", "unwanted", "bad_batch"}

func (r CodecDrop) String() string { return name(codecDropNames[:], int(r)) }

// CodecStats says what the devices' codec sessions hold and how they went. The
// gauges are exact: bytes are what the decoders say they keep.
type CodecStats struct {
	Sessions   int64 // connections that may learn, now
	StateBytes int64 // that they keep
	Kept       int64 // sessions kept for devices that are away
	KeptBytes  int64 // that they keep

	Fresh         int64 // sessions that began with nothing learned; each is in use, kept or dropped
	Resumed       int64 // times one was given to a new connection to go on with
	SelfContained int64 // batches of devices that could learn and had no room for it
	Dropped       map[string]int64
}

// learned is what a session keeps, and stands at a position in it: a
// *codec.Decoder.
type learned interface {
	Position() codec.Position
	StateBytes() int
}

// codecLimits are the Options of codec sessions, as they are in force.
type codecLimits struct {
	state int   // of a device, bytes; 0: no session is kept
	total int64 // of all, bytes
	keep  time.Duration
	kept  int
}

func (o *Options) codec() codecLimits {
	l := codecLimits{state: o.CodecState, total: o.CodecTotal, keep: o.CodecKeep, kept: o.CodecKept}
	if l.state > 0 {
		l.state = min(max(l.state, codec.MinState), codec.MaxState)
	}
	l.state, l.keep, l.kept = max(l.state, 0), max(l.keep, 0), max(l.kept, 0)
	return l
}
