package wire

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/packetboat/packetboat/pkg/codec"
	"github.com/packetboat/packetboat/pkg/stream"
)

// CodecOffer is what an edge says of codecs in CONNECT.
type CodecOffer struct {
	// Codec is the newest one that the edge speaks, with all before it.
	Codec codec.ID
	// Resume says that the edge keeps a session, which can go back to any number
	// of bodies from Oldest to Last.
	Resume       bool
	Oldest, Last uint64
}

// CodecGrant is what a hub answers, in CONNACK and in a PUBACK 0x99.
type CodecGrant struct {
	// Codec is the one to use.
	Codec codec.ID
	// State is how many bytes of state a session may keep at the hub; 0: every
	// batch is self-contained.
	State int
	// Resume says that the hub kept the session, and stands at At. Only in CONNACK.
	Resume bool
	At     codec.Position
}

// FormatCodecOffer gives the property of CONNECT.
func FormatCodecOffer(o CodecOffer) stream.Property {
	v := strconv.Itoa(int(o.Codec))
	if o.Resume {
		v += fmt.Sprintf(";s=%d-%d", o.Oldest, o.Last)
	}
	return stream.Property{Key: PropCodec, Value: v}
}

// ParseCodecOffer reads it. False: there is none, or it cannot be read, which
// is as good as none.
func ParseCodecOffer(props []stream.Property) (o CodecOffer, ok bool) {
	id, rest, ok := codecOf(props)
	if !ok {
		return o, false
	}
	o.Codec = id
	for name, value := range fields(rest) {
		if name != "s" {
			continue
		}
		oldest, last, _ := strings.Cut(value, "-")
		var err, err2 error
		o.Oldest, err = strconv.ParseUint(oldest, 10, 64)
		o.Last, err2 = strconv.ParseUint(last, 10, 64)
		if err != nil || err2 != nil || o.Resume || o.Oldest > o.Last {
			return CodecOffer{}, false
		}
		o.Resume = true
	}
	return o, true
}

// FormatCodecGrant gives the property of CONNACK or PUBACK.
func FormatCodecGrant(g CodecGrant) stream.Property {
	v := fmt.Sprintf("%d;m=%d", g.Codec, max(g.State, 0))
	if g.Resume {
		v += fmt.Sprintf(";s=%d/%016x", g.At.Bodies, g.At.Digest)
	}
	return stream.Property{Key: PropCodec, Value: v}
}

// ParseCodecGrant reads it. False: there is none, or it cannot be read, which
// is as good as none. A state beyond codec.MaxState is cut to it, one below
// codec.MinState to 0.
func ParseCodecGrant(props []stream.Property) (g CodecGrant, ok bool) {
	id, rest, ok := codecOf(props)
	if !ok {
		return g, false
	}
	g.Codec = id
	state := false
	for name, value := range fields(rest) {
		switch name {
		case "m":
			n, err := strconv.ParseUint(value, 10, 64)
			if err != nil || state {
				return CodecGrant{}, false
			}
			if state = true; n >= codec.MinState {
				g.State = int(min(n, codec.MaxState))
			}
		case "s":
			bodies, digest, _ := strings.Cut(value, "/")
			var err, err2 error
			g.At.Bodies, err = strconv.ParseUint(bodies, 10, 64)
			g.At.Digest, err2 = strconv.ParseUint(digest, 16, 64)
			if err != nil || err2 != nil || len(digest) != 16 || g.Resume {
				return CodecGrant{}, false
			}
			g.Resume = true
		}
	}
	if !state {
		return CodecGrant{}, false
	}
	return g, true
}

// codecOf gives the codec that PropCodec names, and the fields behind it.
func codecOf(props []stream.Property) (id codec.ID, rest string, ok bool) {
	text, ok := find(props, PropCodec)
	if !ok {
		return 0, "", false
	}
	name, rest, _ := strings.Cut(text, ";")
	n, err := strconv.ParseUint(name, 10, 8)
	return codec.ID(n), rest, err == nil && n > 0
}
