package codec

import (
	"slices"

	"github.com/packetboat/packetboat/pkg/codec/entropy"
	"github.com/packetboat/packetboat/pkg/stream"
)

// The limits of a state. What is over them is forgotten, least recently used
// first, or goes a plainer way; both sides do so at the same message.
const (
	maxTemplates = 32        // kept for a topic: payloads that take more shapes have no shape
	maxTokens    = 512       // variable parts of a payload: a column each
	maxText      = 16 << 10  // bytes of a template; longer texts are coded as text
	maxValues    = 2048      // in the dictionary of a column: more save nothing (measured)
	maxWord      = 256       // bytes of a mixed word
	maxBytes     = 4096      // bytes of a binary payload, or of properties, that are remembered
	maxScratch   = 64 << 10  // bytes of a buffer that is kept from body to body
	maxSpelled   = 128 << 10 // bytes of text of a body that are coded by models, at 1 µs each; the rest goes raw
	maxOctets    = 1 << 20   // binary bytes of a body, at 0.2 µs each, likewise
	tableShare   = 32        // of the limit: slots, of two bytes, of a mixer at most
)

// What things count towards the state, in bytes: at least what they take in
// memory on any machine, and the same on all.
const (
	sizeState    = 24 << 10 // the fixed part
	sizeTopic    = 368
	sizeRef      = 48
	sizeTemplate = 176
	sizePart     = 48 // with what a column of it was the last time
	sizeColumns  = 160
	sizeColumn   = 240
	sizeModel    = 736
	sizeOctets   = 152
	sizeFlag     = 24
)

// state is all that the two sides of a session know in common. It is learned by
// walking over messages (session) and copied by clone. Estimates begin as zero
// values.
type state struct {
	limit, used int // bytes
	valueBytes  int // of used: all dictionaries

	topics        []*topic // by id; nil: free
	free          []int32  // ids of topics
	ends          links    // of the order of use: newer is the oldest topic, older the newest
	templates     []*template
	freeTemplates []int32
	template      int32 // that a topic took up last; -1: none

	// What the message before was.
	prev   int32 // topic; -1: none
	older  int32 // the topic before that
	now    int64 // time, in units
	unit   int64 // µs
	meta   byte
	recent uint8 // bits: which of the last numbers changed
	since  uint8 // messages since the time went on
	boot   stream.Epoch
	mono   int64
	monoAt int64 // µs
	count  int   // records in the body before

	heard   [heardMax]heard // the last numbers
	heardAt uint8           // where the one at hand stands

	turns    entropy.Mixer // topics that were not foreseen
	words    literal
	mix      entropy.Mixer // binary payloads
	binaries uint32        // binary columns made so far: seeds of their contexts

	// Estimates that all topics share.
	order      [maxTries][expectations][maxHits + 1]entropy.Prob
	newTopic   entropy.Prob
	sameMeta   entropy.Prob
	sameBoot   entropy.Prob
	sameProps  entropy.Prob
	sameMono   entropy.Prob
	sameCount  entropy.Prob
	sameUnit   entropy.Prob
	counts     entropy.Magnitude
	monos      entropy.Magnitude
	monoAvg    entropy.Expected
	monoSign   entropy.Prob
	monoTrend  entropy.Trend
	times      times
	rank       [16]entropy.Prob
	kind       [2]entropy.Prob
	known      entropy.Prob
	again      entropy.Prob
	sameFormat entropy.Prob
	formatPart [3][32]entropy.Prob
	strip      [4]entropy.Prob
	firstValue entropy.Prob
	alike      [8]entropy.Prob  // whether a column's change is as its twin's
	changed    [64]entropy.Prob // numbers, as the columns' own
	model      model
	byTrend    entropy.Trend
	rankTrend  entropy.Trend
	length     entropy.Magnitude
	shared     entropy.Magnitude
}

func newState(limit int) *state {
	slots := limit / tableShare
	s := &state{
		limit: limit, used: sizeState, ends: links{-1, -1}, template: -1, prev: -1, unit: 1000,
		turns: entropy.NewMixer(1<<10, min(1<<13, slots), 1),
		words: literal{mix: entropy.NewMixer(1<<10, min(1<<14, slots), 4)},
		mix:   entropy.NewMixer(1<<12, min(1<<16, slots), mixerSets),
	}
	s.words.mix.Grow() // part of sizeState
	return s
}

// topic is what is known of one topic.
type topic struct {
	id   int32
	name string
	sum  uint32 // of the name
	size int    // what it counts towards the state
	links

	next  [followers]follower // topics that came after it
	clock clock
	meta  byte
	props []byte

	refs []ref        // the shapes of its payloads, most recent first
	same entropy.Prob // whether a payload has the shape of the one before
}

// links are the topics that were used next to one; -1: the ends.
type links struct{ newer, older int32 }

// charge counts n bytes for what belongs to t.
func (s *state) charge(t *topic, n int) { t.size += n; s.used += n }

// settle makes room after a message. While one is coded the state may go beyond
// its limit.
func (s *session) settle() {
	for s.used > s.limit && s.ends.newer >= 0 {
		s.forget(s.topics[s.ends.newer])
	}
}

func (s *state) linksOf(id int32) *links {
	if id < 0 {
		return &s.ends
	}
	return &s.topics[id].links
}

// use makes t the topic that was used last.
func (s *state) use(t *topic) {
	s.unlink(t)
	t.older, t.newer = s.ends.older, -1
	s.linksOf(t.older).newer, s.ends.older = t.id, t.id
}

func (s *state) unlink(t *topic) {
	s.linksOf(t.newer).older, s.linksOf(t.older).newer = t.older, t.newer
}

func (s *session) forget(t *topic) {
	for _, r := range t.refs {
		s.drop(t, r)
	}
	s.unlink(t)
	delete(s.names, t.name)
	s.used -= t.size
	s.topics[t.id] = nil
	s.free = append(s.free, t.id)
	if s.prev == t.id {
		s.prev = -1
	}
}

// drop ends a topic's use of a shape.
func (s *session) drop(t *topic, r ref) {
	s.charge(t, -sizeRef)
	switch r.kind {
	case shapeBytes:
		s.charge(t, -r.bytes.size())
	case shapeTemplate:
		if r.cols.refs--; r.cols.refs == 0 {
			all, values := r.cols.size()
			s.charge(t, -all)
			s.valueBytes -= values
		}
		g := s.templates[r.template]
		if g.refs--; g.refs > 0 {
			return
		}
		delete(s.texts, string(g.text))
		s.used -= g.size()
		s.templates[r.template] = nil
		s.freeTemplates = append(s.freeTemplates, r.template)
		if s.template == r.template {
			s.template = -1
		}
	}
}

// take gives a free place of a list.
func take[T any](list *[]*T, free *[]int32, v *T) int32 {
	if n := len(*free) - 1; n >= 0 {
		i := (*free)[n]
		*free = (*free)[:n]
		(*list)[i] = v
		return i
	}
	*list = append(*list, v)
	return int32(len(*list) - 1)
}

// clone copies the state: nothing is shared with the copy that either changes.
func (s *state) clone() *state {
	n := *s
	n.topics, n.templates = slices.Clone(s.topics), slices.Clone(s.templates)
	for i, t := range s.topics {
		if t != nil {
			n.topics[i] = t.clone()
		}
	}
	for i, g := range s.templates {
		if g != nil {
			x := *g
			x.last, x.format = slices.Clone(g.last), slices.Clone(g.format)
			n.templates[i] = &x
		}
	}
	n.free, n.freeTemplates = slices.Clone(s.free), slices.Clone(s.freeTemplates)
	n.mix, n.turns = s.mix.Clone(), s.turns.Clone()
	n.words.mix, n.words.past, n.words.out = s.words.mix.Clone(), clone(s.words.past), nil
	return &n
}

func (t *topic) clone() *topic {
	n := *t
	n.props, n.refs = clone(t.props), clone(t.refs)
	for i := range n.refs {
		r := &n.refs[i]
		if r.bytes != nil {
			b := r.bytes.clone()
			r.bytes = &b
		}
		if r.cols != nil {
			// Shapes that shared their columns go on sharing them.
			if k := slices.IndexFunc(t.refs[:i], func(o ref) bool { return o.cols == r.cols }); k >= 0 {
				r.cols = n.refs[k].cols
			} else {
				r.cols = r.cols.clone()
			}
		}
	}
	return &n
}

func (cs *columns) clone() *columns {
	n := *cs
	n.numbers, n.flags, n.bytes = slices.Clone(cs.numbers), slices.Clone(cs.flags), slices.Clone(cs.bytes)
	for i := range n.numbers {
		col := &n.numbers[i]
		if col.values = clone(col.values); col.own != nil {
			own := *col.own
			col.own = &own
		}
	}
	for i := range n.bytes {
		n.bytes[i] = n.bytes[i].clone()
	}
	return &n
}

// clone copies a slice whose capacity counts.
func clone[T any](b []T) []T { return append(make([]T, 0, cap(b)), b...) }

// room gives a slice of n elements with b's, or in a larger array. Capacities
// count towards the state, so they are the same on all machines: append must not
// grow such a slice.
func room[T any](b []T, n int) []T {
	if n <= cap(b) {
		return b[:n]
	}
	c := 8
	for c < n {
		c *= 2
	}
	return append(make([]T, 0, c), b...)[:n]
}

// trim lets go of the body, of the records, and of scratch space that one large
// message made large.
func (s *session) trim() {
	s.Coder = entropy.Coder{}
	clear(s.tokens)
	s.tokens = s.tokens[:0]
	for _, b := range []*[]byte{&s.text, &s.hex, &s.props} {
		if cap(*b) > maxScratch {
			*b = nil
		}
	}
	if s.state != nil && cap(s.words.out) > maxScratch {
		s.words.out = nil
	}
}
