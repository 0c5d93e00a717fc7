package mqttfront

import (
	"hash/maphash"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// kept is the store of retained messages. A change of one goes through three
// steps: begin decides whether there is room and reserves it, before the message
// is handed to the Session; settled or failed says what became of it. Between
// the calls of begin and handed the topic is locked, so that the order of
// a topic's changes is that in which the Session, and with it the Store, gets
// them; whoever settles first, the newest stays.
type kept struct {
	max      int   // messages
	maxBytes int64 // of memory
	levels   int   // of a topic

	applied atomic.Uint64 // number of the newest change
	seed    maphash.Seed
	stripes [16]sync.Mutex // by topic; before mu

	mu       sync.RWMutex
	topics   map[string]*keptTopic    // guarded by mu
	order    []*keptTopic             // all of topics, by name; guarded by mu
	bytes    int64                    // charged; guarded by mu
	begun    uint64                   // changes; guarded by mu
	intents  map[*Publish]*keptIntent // begun and not concluded; guarded by mu
	messages int                      // topics that have one; guarded by mu
	expiring int                      // of them those that expire; guarded by mu
}

// keptTopic is one topic that has a retained message, or may soon have one.
type keptTopic struct {
	name    string
	letter  *letter // nil: none yet, or cleared
	newest  uint64  // the change that brought it
	charged int64   // memory: of letter and of what is pending
	pending int     // intents
	wrong   bool    // the Store may have something else
}

type keptIntent struct {
	topic  *keptTopic
	number uint64
	letter *letter // nil: clears
}

func newKept(max int, maxBytes int64, levels int) *kept {
	return &kept{
		max: max, maxBytes: maxBytes, levels: levels, seed: maphash.MakeSeed(),
		topics: make(map[string]*keptTopic), intents: make(map[*Publish]*keptIntent),
	}
}

// keptSize is the memory that a retained message takes, roughly.
func keptSize(l *letter) int64 { return int64(l.size()) + 256 }

func (k *kept) stripe(topic string) *sync.Mutex {
	return &k.stripes[maphash.String(k.seed, topic)%uint64(len(k.stripes))]
}

// begin decides about p, of which lt is made if it is not nil, and locks the
// topic until handed. It reports whether something will change, and the limit
// that forbids it, if one does.
func (k *kept) begin(p *Publish, lt *letter) (change bool, hit limit) {
	k.stripe(p.Topic).Lock()
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.topics[p.Topic]
	hit = limitNone
	if lt == nil {
		if t == nil {
			return false, hit
		}
	} else if hit = k.room(p.Topic, t, keptSize(lt)); hit != limitNone {
		return false, hit
	}
	if t == nil {
		t = k.insert(p.Topic)
	}
	if lt != nil {
		if extra := keptSize(lt) - t.charged; extra > 0 {
			t.charged += extra
			k.bytes += extra
		}
	}
	t.pending++
	k.begun++
	k.intents[p] = &keptIntent{t, k.begun, lt}
	return true, hit
}

// room says which limit forbids a message of size bytes; t may be nil.
func (k *kept) room(topic string, t *keptTopic, size int64) limit {
	var have int64
	if t != nil {
		have = t.charged
	}
	switch {
	case levelsOf(topic) > k.levels:
		return limitTopicLevels
	case t == nil && len(k.topics) >= k.max:
		return limitRetained
	case size > have && k.bytes+size-have > k.maxBytes:
		return limitRetainedBytes
	}
	return limitNone
}

func (k *kept) insert(topic string) *keptTopic {
	t := &keptTopic{name: topic}
	k.topics[topic] = t
	i := k.search(topic)
	k.order = append(k.order, nil)
	copy(k.order[i+1:], k.order[i:])
	k.order[i] = t
	return t
}

// search gives the place of the first topic that is not before name.
func (k *kept) search(name string) int {
	return sort.Search(len(k.order), func(i int) bool { return k.order[i].name >= name })
}

// handed unlocks the topic that begin locked.
func (k *kept) handed(topic string) { k.stripe(topic).Unlock() }

// settled makes the change of p, if one was begun. lt is the message that is
// retained now by it, with its number; nil if it changed nothing or cleared.
func (k *kept) settled(p *Publish) (lt *letter, correct bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	in := k.intents[p]
	if in == nil {
		return nil, false
	}
	delete(k.intents, p)
	t := in.topic
	t.pending--
	if in.number > t.newest {
		t.newest = in.number
		seq := k.applied.Load() + 1
		if lt = in.letter; lt != nil {
			lt.seq = seq
		}
		k.set(t, lt)
		k.applied.Store(seq)
	}
	return lt, k.tidy(t)
}

func (k *kept) set(t *keptTopic, lt *letter) {
	count := func(l *letter, by int) {
		if l != nil {
			k.messages += by
			if !l.until.IsZero() {
				k.expiring += by
			}
		}
	}
	count(t.letter, -1)
	count(lt, 1)
	t.letter = lt
}

// failed takes the change of p back, if one was begun. saved says that the Store
// may have it nevertheless. If it returns true, correct is to be called.
func (k *kept) failed(p *Publish, saved bool) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	in := k.intents[p]
	if in == nil {
		return false
	}
	delete(k.intents, p)
	in.topic.pending--
	in.topic.wrong = in.topic.wrong || saved
	return k.tidy(in.topic)
}

// tidy takes back what was reserved for more than there is, when nothing is
// pending; it reports whether the Store has to be corrected.
func (k *kept) tidy(t *keptTopic) bool {
	if t.pending > 0 {
		return false
	}
	var size int64
	if t.letter != nil {
		size = keptSize(t.letter)
	}
	k.bytes += size - t.charged
	t.charged = size
	if t.letter == nil {
		delete(k.topics, t.name)
		i := k.search(t.name)
		copy(k.order[i:], k.order[i+1:])
		k.order[len(k.order)-1] = nil
		k.order = k.order[:len(k.order)-1]
	}
	return t.wrong
}

// correct calls save with what is retained of topic, while nothing can change
// it; unless a change is pending, whose end will bring it back here.
func (k *kept) correct(topic string, save func(*letter)) {
	m := k.stripe(topic)
	m.Lock()
	defer m.Unlock()
	k.mu.Lock()
	t := k.topics[topic]
	var lt *letter
	if t != nil {
		if t.wrong = t.pending > 0; t.wrong {
			k.mu.Unlock()
			return
		}
		lt = t.letter
	}
	k.mu.Unlock()
	save(lt)
}

// expire removes what has expired, and calls gone for each while nothing can
// change it.
func (k *kept) expire(now time.Time, gone func(topic string)) {
	var late []string
	k.mu.RLock()
	if k.expiring > 0 {
		for _, t := range k.order {
			if t.letter != nil && t.letter.expired(now) && t.pending == 0 {
				late = append(late, t.name)
			}
		}
	}
	k.mu.RUnlock()
	for _, topic := range late {
		m := k.stripe(topic)
		m.Lock()
		if k.drop(topic, now) {
			gone(topic)
		}
		m.Unlock()
	}
}

func (k *kept) drop(topic string, now time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.topics[topic]
	if t == nil || t.pending > 0 || t.letter == nil || !t.letter.expired(now) {
		return false
	}
	k.set(t, nil)
	k.tidy(t)
	return true
}

// load enters a message that was stored. False: there is no room.
func (k *kept) load(lt *letter) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.topics[lt.topic] != nil || k.room(lt.topic, nil, keptSize(lt)) != limitNone {
		return false
	}
	t := k.insert(lt.topic)
	t.charged = keptSize(lt)
	k.bytes += t.charged
	k.begun++
	t.newest = k.begun
	lt.seq = k.applied.Add(1)
	k.set(t, lt)
	return true
}

// next gives the next retained message that w's subscription gets, and moves w
// past it. end: there is none any more. It looks at no more than budget topics,
// and counts budget down.
func (k *kept) next(w *replayWork, budget *int) (lt *letter, end bool) {
	filter := w.sub.filter
	prefix, whole := literalOf(filter)
	k.mu.RLock()
	defer k.mu.RUnlock()
	from := prefix
	if w.behind {
		from = w.after
	}
	for i := k.search(from); i < len(k.order); i++ {
		t := k.order[i]
		if !strings.HasPrefix(t.name, prefix) || whole && t.name != filter {
			break
		}
		if w.behind && t.name <= w.after {
			continue
		}
		if *budget--; *budget < 0 {
			return nil, false
		}
		w.after, w.behind = t.name, true
		if l := t.letter; l != nil && l.seq <= w.sub.since && matches(filter, t.name) {
			return l, false
		}
	}
	return nil, true
}

// count is the number of retained messages.
func (k *kept) count() int {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.messages
}
