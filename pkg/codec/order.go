package codec

import (
	"hash/crc32"

	"github.com/packetboat/packetboat/pkg/codec/entropy"
)

// Which topic comes next. Sensors speak in rounds, so the topic that followed
// the last time is nearly always right: 0 to 0.6 bits a message.

// follower is a topic that is expected, and how often in a row it was right.
type follower struct {
	topic int32 // one more than its id; 0: none
	hits  uint8 // up to 15
}

func (f *follower) see(id int32) {
	switch {
	case f.topic == id+1 && f.hits > 0:
		f.hits = min(f.hits+1, 15)
	case f.hits > 3:
		f.hits /= 2
	default:
		*f = follower{id + 1, 1}
	}
}

// What the next topic is foreseen from: the last one; that and the one that is
// most overdue, for buses with rounds of several lengths (a tenth of CAN).
const (
	afterLast = iota
	overdue
)

const (
	turnSlots   = 1 << 10
	turnSlotMax = 1 << 13
)

// topic codes which topic the message has; encoding, name says it.
func (s *session) topic(name string) *topic {
	id := int32(-1)
	if !s.Decoding {
		if i, ok := s.names[name]; ok {
			id = i
		}
	}
	var guesses [2]*follower
	if s.prev >= 0 {
		guesses[afterLast] = &s.topics[s.prev].next
		if s.live <= maxDue {
			s.dueNow = s.overdue()
			guesses[overdue] = &s.due[entropy.Hash(uint32(s.prev), uint32(s.dueNow)+77)>>22]
		}
	}
	found := s.guess(&guesses, id)
	if found < 0 {
		if s.Bit(&s.newTopic, entropy.Int(id < 0)) == 1 {
			found = s.addTopic(name)
		} else {
			found = s.topicID(id)
		}
		if s.Bad {
			return nil
		}
	}
	for _, g := range guesses {
		if g != nil {
			g.see(found)
		}
	}
	s.older, s.prev = s.prev, found
	t := s.topics[found]
	s.use(t)
	return t
}

// guess tries what is expected, the surer first; -1: it is none of that.
func (s *session) guess(guesses *[2]*follower, id int32) int32 {
	order := [2]int{afterLast, overdue}
	if g := guesses[overdue]; g != nil && g.hits > guesses[afterLast].hits {
		order = [2]int{overdue, afterLast}
	}
	tried := int32(0)
	for _, k := range order {
		g := guesses[k]
		if g == nil || g.hits == 0 || g.topic == tried || int(g.topic) > len(s.topics) || s.topics[g.topic-1] == nil {
			continue
		}
		if s.Bit(&s.order[k][g.hits], entropy.Int(g.topic-1 != id)) == 0 {
			return g.topic - 1
		}
		tried = g.topic
	}
	return -1
}

// topicID codes the id of a topic that is known, by those of the last two and the
// most overdue one: 5 % of CAN, a tenth of the order of ships' buses.
func (s *session) topicID(id int32) int32 {
	n := 0
	for 1<<n < len(s.topics) {
		n++
	}
	if s.turns == nil {
		s.turns = entropy.NewMixer(turnSlots, turnSlotMax, 1)
		s.used += s.turns.Size()
	}
	s.used += s.turns.Grow()
	contexts := [4]uint32{
		entropy.Hash(1, uint32(s.prev)), entropy.Hash(2, uint32(s.prev)<<16|uint32(s.older)),
		entropy.Hash(3, uint32(s.dueNow)), entropy.Hash(4, 0),
	}
	x := int(s.turns.Symbol(&s.Coder, contexts[:], nil, 0, 0, entropy.KindValue, n, uint32(max(id, 0))))
	if x >= len(s.topics) || s.topics[x] == nil {
		s.Fail()
		return -1
	}
	return int32(x)
}

func (s *session) addTopic(name string) int32 {
	base := "" // neighbours begin alike
	if s.prev >= 0 {
		base = s.topics[s.prev].name
	}
	shared := int(s.Magnitude(&s.shared, uint64(sharedPrefix(base, name))+1) - 1)
	if shared > len(base) || shared < 0 {
		s.Fail()
		return -1
	}
	rest := ""
	if !s.Decoding {
		rest = name[shared:]
	}
	text := append([]byte(base[:shared]), s.words.text(s, []byte(rest), maxTopic-shared)...)
	if s.Bad {
		return -1
	}
	t := &topic{name: string(text), newer: -1, older: -1, meta: s.meta, same: entropy.ProbNew}
	t.id = take(&s.topics, &s.free, t)
	s.live++
	if s.names != nil {
		s.names[t.name] = t.id
	}
	t.sum = crc32.Checksum(text, castagnoli)
	s.charge(t, sizeTopic+2*len(text))
	return t.id
}

// overdue is the topic whose next message should have come first.
func (s *state) overdue() int32 {
	best, at := int32(0), int64(1<<63-1)
	for i, t := range s.topics {
		if t == nil || t.clock.seen < 2 {
			continue
		}
		if d := t.clock.last<<4 + t.clock.mean; d < at {
			best, at = int32(i), d
		}
	}
	return best
}
