package uplink

import (
	"fmt"
	"time"

	"github.com/packetboat/packetboat/internal/wire"
	"github.com/packetboat/packetboat/pkg/codec"
)

// What a hub cannot decode although it was self-contained is sent as rows, and
// so is all that follows for this long: the two sides may compute differently.
const (
	distrustMin = time.Minute
	distrustMax = time.Hour
)

// mode is how batches are encoded.
type mode struct {
	codec codec.ID
	state int // with codec.Learning: of a session, in bytes; 0: batches are self-contained
}

// within is as much of m as a hub grants.
func (m mode) within(g wire.CodecGrant) mode {
	if m.codec != codec.Learning || g.Codec != codec.Learning {
		return mode{codec: codec.Rows}
	}
	m.state = min(m.state, g.State)
	return m
}

func (m mode) String() string {
	switch {
	case m.codec != codec.Learning:
		return "rows"
	case m.state == 0:
		return "learning, self-contained"
	}
	return "learning"
}

// memory is a codec's session between two connections.
type memory struct {
	session *codec.Encoder // nil: none
	state   int            // its limit
	until   time.Time      // with a monotonic reading: the wall clock may jump
}

// remember makes k what is kept.
func (u *Uplink) remember(k memory) {
	u.memory = k
	u.count(func(s *Stats) {
		s.CodecStateBytes = 0
		if k.session != nil {
			s.CodecStateBytes = k.session.StateBytes()
		}
	})
}

// expire lets go of what was kept for long enough, or is not to be trusted.
func (u *Uplink) expire(now time.Time) {
	if u.memory.session != nil && (now.After(u.memory.until) || now.Before(u.distrusted)) {
		u.remember(memory{})
	}
}

// offer is what CONNECT says of codecs; false: nothing.
func (u *Uplink) offer(now time.Time) (o wire.CodecOffer, ok bool) {
	u.expire(now)
	o.Codec = u.o.Codec
	if s := u.memory.session; s != nil {
		o.Resume, o.Oldest, o.Last = true, s.Oldest(), s.Position().Bodies
	}
	return o, u.o.Codec == codec.Learning
}

// resume takes the session that was kept to where the hub stands. It gives none
// where anything is doubtful: then a fresh one begins.
func (u *Uplink) resume(g wire.CodecGrant, m mode) memory {
	k := u.memory
	u.memory = memory{}
	// A session may not grow beyond what this hub grants.
	if k.session == nil || !g.Resume || m.state < k.state {
		return memory{}
	}
	if err := k.session.GoBack(g.At); err != nil {
		u.o.Logger.Info("codec session begins anew", "reason", err)
		return memory{}
	}
	return k
}

// keep keeps the link's session for the next connection.
func (u *Uplink) keep(l *link) {
	k := memory{session: l.encoder.Session(), state: l.state, until: time.Now().Add(u.o.CodecKeep)}
	if l.drain || u.o.CodecKeep <= 0 {
		k = memory{}
	}
	u.remember(k)
}

// encode makes the encoder of what follows, which goes on with k if that is one.
func (l *link) encode(k memory) {
	m := l.mode
	if l.distrust = time.Now().Before(l.u.distrusted); l.distrust {
		m = mode{codec: codec.Rows}
	}
	resumed := m.codec == codec.Learning && k.session != nil
	if resumed {
		m.state = k.state
	}
	l.state = m.state
	l.encoder = wire.NewEncoder(wire.EncoderOptions{
		MaxBytes: l.room(), Codec: m.codec, State: m.state, BatchState: l.batchState, Session: k.session,
	})
	l.u.count(func(s *Stats) {
		s.Codec = m.String()
		if resumed {
			s.SessionsResumed++
		}
	})
}

// regrant heeds what a hub says of codecs when it cannot decode a batch: never
// more than before. It reports whether that explains the answer.
func (l *link) regrant(a ack) bool {
	g, ok := wire.ParseCodecGrant(a.user)
	if !ok {
		return false
	}
	m := l.mode.within(g)
	if m == l.mode {
		return false
	}
	l.u.o.Logger.Info("hub grants less to the codec", "codec", m.String(), "state_bytes", m.state)
	l.mode = m
	l.u.count(func(s *Stats) { s.GrantsLowered++ })
	return true
}

// distrustCodec goes over to rows for a while.
func (l *link) distrustCodec() {
	d := l.u.distrust.next(1)
	l.u.distrusted = time.Now().Add(d)
	l.u.count(func(s *Stats) { s.CodecDistrusted++ })
	l.u.note(fmt.Sprintf("hub cannot decode what the learning codec made afresh: rows for %s", d))
}

// confirm tells the session how many bodies the hub has decoded.
func (l *link) confirm(bodies uint64) {
	if s := l.encoder.Session(); s != nil && bodies > 0 && !l.drain {
		s.Confirm(bodies)
	}
}

// room is the most bytes of a batch, 0 without a limit: what is left by fixed
// header, topic, packet id and properties with the alias.
func (l *link) room() int {
	if l.welcome.packet <= 0 {
		return 0
	}
	return max(l.welcome.packet-(5+2+len(l.topic)+2+1+3), 1)
}
