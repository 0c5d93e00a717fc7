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
// walking over messages (session) and copied by clone.
type state struct {
	contexts
	limit, used int // bytes
	valueBytes  int // of used: all dictionaries

	topics         []*topic // by id; nil: free
	free           []int32  // ids of topics
	live           int
	newest, oldest int32 // topics by use; -1: none
	templates      []*template
	freeTemplates  []int32
	template       int32 // that a topic took up last; -1: none

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

	heard   [heardMax]heard // the last numbers, the oldest at heardAt
	heardAt uint8
	news    heard // the number at hand

	turns    *entropy.Mixer // topics that were not foreseen; nil: there were none
	words    *literal
	mix      *entropy.Mixer // nil: no binary payload came
	binaries uint32         // binary columns made so far: seeds of their contexts
}

// contexts are the estimates that all topics share.
type contexts struct {
	order      [maxTries][expectations][maxHits + 1]entropy.Prob
	newTopic   entropy.Prob
	sameMeta   entropy.Prob
	sameBoot   entropy.Prob
	sameProps  entropy.Prob
	sameMono   entropy.Prob
	sameCount  entropy.Prob
	sameUnit   entropy.Prob
	countM     entropy.Magnitude
	monoM      entropy.Magnitude
	monoAvg    entropy.Expected
	monoSign   entropy.Prob
	monoTrend  entropy.Trend
	times      times
	rank       [16]entropy.Prob
	kind       [3]entropy.Prob
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
	s := &state{limit: limit, used: sizeState, newest: -1, oldest: -1, template: -1, prev: -1, unit: 1000, words: newLiteral(limit)}
	s.contexts.init()
	return s
}

func (x *contexts) init() {
	for i := range x.order {
		for k := range x.order[i] {
			entropy.Fill(x.order[i][k][:])
		}
	}
	for i := range x.formatPart {
		entropy.Fill(x.formatPart[i][:])
	}
	for _, p := range []*entropy.Prob{&x.newTopic, &x.sameMeta, &x.sameBoot, &x.sameProps, &x.sameMono, &x.sameCount, &x.sameUnit, &x.sameFormat, &x.monoSign, &x.known, &x.again, &x.firstValue} {
		*p = entropy.ProbNew
	}
	for _, ps := range [][]entropy.Prob{x.rank[:], x.alike[:], x.kind[:], x.strip[:], x.changed[:]} {
		entropy.Fill(ps)
	}
	for _, m := range []*entropy.Magnitude{&x.countM, &x.monoM, &x.length, &x.shared} {
		m.Init()
	}
	for _, t := range []*entropy.Trend{&x.monoTrend, &x.byTrend, &x.rankTrend} {
		t.Init()
	}
	x.times.init()
	x.model.init()
}

// topic is what is known of one topic.
type topic struct {
	id           int32
	name         string
	sum          uint32 // of the name
	newer, older int32  // in the order of use; -1: none
	size         int    // what it counts towards the state

	next  [followers]follower // topics that came after it
	clock clock
	meta  byte
	props []byte

	refs []ref        // the shapes of its payloads, most recent first
	same entropy.Prob // whether a payload has the shape of the one before
}

// ref is a shape that payloads of a topic take.
type ref struct {
	kind     byte
	template int32    // of shapeTemplate
	cols     *columns // of shapeTemplate
	bytes    *octets  // of shapeBytes
}

const (
	shapeTemplate = 0
	shapeBytes    = 1
	shapeText     = 2 // a long text
)

// template is a text in which tokens stand for what varies.
type template struct {
	text  []byte
	parts []part // of text
	kinds []byte // of the tokens that have a column
	refs  int    // of topics
	// The numbers of the last message of this shape, whatever its topic: sensors
	// that are read together share a time stamp. Saves a third of OBD as JSON.
	last   []int64
	format []format
	seen   bool
}

// columns hold what varies in payloads of a shape. Templates of a topic whose
// tokens are of the same kinds share them: a word that changes among the numbers
// does not make them new. Saves a fifth of rows with a text field.
type columns struct {
	refs    int
	kinds   []byte
	numbers []column
	bytes   []*octets
	flags   []flag
}

// size is what the columns count, and how much of it is dictionaries.
func (cs *columns) size() (all, values int) {
	all = sizeColumns + sizeColumn*len(cs.numbers) + sizeFlag*len(cs.flags)
	for i := range cs.numbers {
		values += 8 * int(cs.numbers[i].room)
		all += sizeModel * entropy.Int(cs.numbers[i].own != nil)
	}
	for _, b := range cs.bytes {
		all += b.size()
	}
	return all + values, values
}

type flag struct {
	p    [8]entropy.Prob
	hist uint8
}

// charge counts n bytes for what belongs to t.
func (s *state) charge(t *topic, n int) { t.size += n; s.used += n }

// settle makes room after a message. While one is coded the state may go beyond
// its limit.
func (s *session) settle() {
	for s.used > s.limit && s.oldest >= 0 {
		s.forget(s.topics[s.oldest])
	}
}

// use makes t the topic that was used last.
func (s *state) use(t *topic) {
	if s.newest == t.id {
		return
	}
	s.unlink(t)
	t.older = s.newest
	if s.newest >= 0 {
		s.topics[s.newest].newer = t.id
	} else {
		s.oldest = t.id
	}
	s.newest = t.id
}

// unlink takes t out of the order of use; a topic outside it is left alone.
func (s *state) unlink(t *topic) {
	if t.newer >= 0 {
		s.topics[t.newer].older = t.older
	} else if s.newest == t.id {
		s.newest = t.older
	}
	if t.older >= 0 {
		s.topics[t.older].newer = t.newer
	} else if s.oldest == t.id {
		s.oldest = t.newer
	}
	t.newer, t.older = -1, -1
}

func (s *session) forget(t *topic) {
	for i := range t.refs {
		s.drop(t, t.refs[i])
	}
	s.unlink(t)
	delete(s.names, t.name)
	s.used -= t.size
	s.topics[t.id] = nil
	s.free = append(s.free, t.id)
	s.live--
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
		if g.refs--; g.refs == 0 {
			delete(s.texts, string(g.text))
			s.used -= g.size()
			s.templates[r.template] = nil
			s.freeTemplates = append(s.freeTemplates, r.template)
			if s.template == r.template {
				s.template = -1
			}
		}
	}
}

func (g *template) size() int { return sizeTemplate + 2*len(g.text) + sizePart*len(g.parts) }

// take gives a free place of a list.
func take[T any](list *[]*T, free *[]int32, v *T) int32 {
	if n := len(*free); n > 0 {
		i := (*free)[n-1]
		*free = (*free)[:n-1]
		(*list)[i] = v
		return i
	}
	*list = append(*list, v)
	return int32(len(*list) - 1)
}

// clone copies the state: nothing is shared with the copy that either changes.
func (s *state) clone() *state {
	n := new(state)
	*n = *s
	n.topics = make([]*topic, len(s.topics))
	for i, t := range s.topics {
		if t != nil {
			n.topics[i] = t.clone()
		}
	}
	n.templates = make([]*template, len(s.templates))
	for i, g := range s.templates {
		if g != nil {
			x := *g
			x.last, x.format = slices.Clone(g.last), slices.Clone(g.format)
			n.templates[i] = &x
		}
	}
	n.free, n.freeTemplates = slices.Clone(s.free), slices.Clone(s.freeTemplates)
	n.words, n.mix, n.turns = s.words.clone(), s.mix.Clone(), s.turns.Clone()
	return n
}

func (t *topic) clone() *topic {
	n := new(topic)
	*n = *t
	n.props = cloneBytes(t.props)
	n.refs = make([]ref, len(t.refs), cap(t.refs))
	for i, r := range t.refs {
		r.bytes = r.bytes.clone()
		if r.cols != nil {
			// Shapes that shared their columns go on sharing them.
			if k := slices.IndexFunc(t.refs[:i], func(o ref) bool { return o.cols == r.cols }); k >= 0 {
				r.cols = n.refs[k].cols
			} else {
				r.cols = r.cols.clone()
			}
		}
		n.refs[i] = r
	}
	return n
}

func (cs *columns) clone() *columns {
	n := *cs
	n.numbers, n.flags, n.bytes = slices.Clone(cs.numbers), slices.Clone(cs.flags), slices.Clone(cs.bytes)
	for i := range n.numbers {
		n.numbers[i].own = n.numbers[i].own.clone()
		n.numbers[i].values = append(make([]int64, 0, n.numbers[i].room), n.numbers[i].values...)
	}
	for i := range n.bytes {
		n.bytes[i] = n.bytes[i].clone()
	}
	return &n
}

// room gives a slice of n bytes with b's, or in a larger array. Capacities count
// towards the state, so they are the same on all machines: append must not grow
// such a slice.
func room(b []byte, n int) []byte {
	if n <= cap(b) {
		return b[:n]
	}
	c := 8
	for c < n {
		c *= 2
	}
	return append(make([]byte, 0, c), b...)[:n]
}

func cloneBytes(b []byte) []byte {
	return append(make([]byte, 0, cap(b)), b...)
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

// mixer makes a mixer that leaves room for other things.
func (s *state) mixer(slots, most, sets int) *entropy.Mixer {
	m := entropy.NewMixer(slots, min(most, s.limit/tableShare), sets)
	s.used += m.Size()
	return m
}
