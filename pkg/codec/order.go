package codec

import (
	"hash/crc32"

	"github.com/packetboat/packetboat/pkg/codec/entropy"
)

// Which topic comes next. Sensors speak in rounds of several lengths: what came
// after the topic at hand before comes again, the slow ones when it is their time.

// follower is a topic that came after another one: its id and one, 0: none, and
// in the low bits how often it did of late.
type follower uint32

const (
	followers = 12 // of a topic
	hitBits   = 3
	maxHits   = 1<<hitBits - 1
	maxTries  = 4 // guesses before the id is coded
)

func (f follower) topic() int32 { return int32(f>>hitBits) - 1 }
func (f follower) hits() uint8  { return uint8(f & maxHits) }

// When a topic is expected, by its own times.
const (
	timeless = iota // it has none yet
	far
	soon
	due
	late
	expectations
)

// guess is a topic that may be next.
type guess struct {
	topic      int32
	hits       uint8
	expected   uint8
	at, period int64 // in 1/16 units
}

// topic codes which topic the message has; encoding, name says it.
func (s *session) topic(name string) *topic {
	id, known := s.names[name]
	if !known {
		id = -1
	}
	guesses := s.guesses()
	found, tried := int32(-1), 0
	for tried < min(len(guesses), maxTries) && found < 0 {
		g := &guesses[tried]
		if !s.Flag(&s.order[tried][g.expected][g.hits], g.topic != id) {
			found = g.topic
		}
		tried++
	}
	if found < 0 {
		if s.Flag(&s.newTopic, !known) {
			found = s.addTopic(name)
		} else {
			found = s.topicID(id)
		}
		if s.Bad {
			return nil
		}
	}
	if s.prev >= 0 {
		s.topics[s.prev].follow(found, guesses[:tried])
	}
	s.older, s.prev = s.prev, found
	t := s.topics[found]
	s.use(t)
	return t
}

// guesses finds what may come next, the likeliest first.
func (s *session) guesses() []guess {
	g, n := &s.guess, 0
	g[0] = guess{}
	if s.prev < 0 {
		return nil
	}
	for _, f := range s.topics[s.prev].next {
		id := f.topic()
		if id < 0 || int(id) >= len(s.topics) || s.topics[id] == nil {
			continue
		}
		k := &s.topics[id].clock
		x := guess{topic: id, hits: f.hits(), expected: k.expected(s.now), at: k.last<<4 + k.mean, period: k.mean}
		i := n
		for ; i > 0 && x.before(&g[i-1]); i-- {
			g[i] = g[i-1]
		}
		g[i] = x
		n++
	}
	return g[:n]
}

// expected says whether a message is due now.
func (k *clock) expected(now int64) uint8 {
	wait := k.last<<4 + k.mean - now<<4
	switch {
	case k.seen < 2:
		return timeless
	case wait < -k.mean:
		return late
	case wait <= max(k.mean>>3, 6<<4):
		return due
	case wait <= k.mean>>1:
		return soon
	}
	return far
}

// before orders guesses: first those that are due, by when; of two at about the
// same time the slow one, which comes among the quick ones now and then.
func (g *guess) before(o *guess) bool {
	const tie = 3 << 4
	switch {
	case g.expected == due && o.expected == due && g.at+tie >= o.at && o.at+tie >= g.at:
		return g.period > o.period+o.period>>2
	case g.expected == due && o.expected == due:
		return g.at < o.at
	case g.expected == due || o.expected == due:
		return g.expected == due
	}
	return g.hits > o.hits
}

// follow learns that the topic id came after t, not what was tried before it.
func (t *topic) follow(id int32, tried []guess) {
	place, weakest := -1, 0
	for i, f := range t.next {
		for k := range tried {
			if f.topic() == tried[k].topic {
				t.next[i] = f&^maxHits | f&maxHits>>1
			}
		}
		if f.topic() == id {
			place, t.next[i] = i, f
		}
		if f == 0 || t.next[weakest] != 0 && t.next[i].hits() < t.next[weakest].hits() {
			weakest = i
		}
	}
	if place < 0 {
		place = weakest
		t.next[place] = follower(id+1) << hitBits
	}
	if t.next[place].hits() < maxHits {
		t.next[place]++
	}
}

// topicID codes the id of a topic that is known, by those of the last two and the
// one that was guessed first: 5 % of CAN, a tenth of the order of ships' buses.
func (s *session) topicID(id int32) int32 {
	s.used += s.turns.Grow()
	contexts := [4]uint32{
		entropy.Hash(1, uint32(s.prev)), entropy.Hash(2, uint32(s.prev)<<16|uint32(s.older)),
		entropy.Hash(3, uint32(s.guess[0].topic)), entropy.Hash(4, 0),
	}
	x := int(s.turns.Symbol(&s.Coder, contexts[:], nil, 0, 0, entropy.KindValue, idBits(len(s.topics)), uint32(max(id, 0))))
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
	shared := int(min(s.Magnitude(&s.shared, uint64(sharedPrefix(base, name))+1)-1, maxTopic))
	if shared > len(base) {
		s.Fail()
		return -1
	}
	text := append([]byte(base[:shared]), s.words.text(s, []byte(name[min(shared, len(name)):]), maxTopic-shared)...)
	if s.Bad {
		return -1
	}
	t := &topic{name: string(text), meta: s.meta}
	t.id = take(&s.topics, &s.free, t)
	t.links = links{t.id, t.id}
	if s.names != nil {
		s.names[t.name] = t.id
	}
	t.sum = crc32.Checksum(text, castagnoli)
	s.charge(t, sizeTopic+2*len(text))
	return t.id
}
