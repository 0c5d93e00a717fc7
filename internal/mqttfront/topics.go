package mqttfront

import (
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"
)

// topics is the index of all subscriptions: a tree of the levels of their
// filters. It is our own because the library's does not match "+/#" with its
// parent, hides only $SYS from wildcards, is read while it changes, copies a map
// at each step, and costs 640 bytes a level; this one costs about 200.
//
// A match looks at each level of the index at most once, so that filters chosen
// to be slow cost no more than the bound on all levels allows.
type topics struct {
	count   atomic.Int64  // subscriptions; read without mu
	offered atomic.Uint64 // messages offered to them; read without mu

	mu       sync.RWMutex
	root     node                // guarded by mu
	children map[childKey]*node  // of all nodes, but for + and #; guarded by mu
	groups   map[groupKey]*group // guarded by mu
	weight   int                 // of all filters; guarded by mu
}

// childKey names a node by its parent and its level. One map for all of them is
// smaller than one for each.
type childKey struct {
	parent *node
	level  string
}

type node struct {
	parent     *node
	level      string
	plus, hash *node
	literals   int // children that are in topics.children
	subs       []*subscription
	groups     []*group
}

// group is a shared subscription: one share name and filter.
type group struct {
	node    *node
	key     groupKey
	members []*subscription // guarded by topics.mu
	next    int             // whose turn it is; fan-out goroutine
}

type groupKey struct{ share, filter string }

// subscription is one filter of one session. It does not change: a client that
// subscribes anew gets another.
type subscription struct {
	s           *session
	filter      string // as the client wrote it
	qos         byte
	noLocal     bool
	asPublished bool
	handling    byte   // of retained messages: 0, 1 or 2
	identifier  uint32 // 0: none
	// since is the number of the last change of a retained message that the
	// subscriber gets as retained; 0 if it gets none.
	since  uint64
	before mark   // what is not for it
	node   *node  // where it is in the index
	group  *group // of a shared subscription
}

// mark is a place in the order of all messages: those up to it were settled
// before a client subscribed, although they may still be on their way. A
// subscriber gets none of them as new. One that subscribes anew to the same
// filter keeps its mark, so that it misses nothing. [MQTT-3.8.4-4]
type mark struct {
	message uint64 // number of the last one that was offered
	change  uint64 // subscription.since: one that is retained may not be offered yet
}

// covers reports whether a message lies before m: its number, and that of the
// change of a retained message that it makes, 0 if it makes none.
func (m mark) covers(number, change uint64) bool {
	return number <= m.message || change > 0 && change <= m.change
}

func newTopics() *topics {
	return &topics{children: make(map[childKey]*node), groups: make(map[groupKey]*group)}
}

// add enters sub in place of old, which may be nil and must be one of the same
// filter and session. It calls enter, if set, while nobody looks. It reports
// false, and does nothing, if the filters would weigh more than limit.
func (t *topics) add(sub, old *subscription, limit int, enter func()) bool {
	share, filter := splitShare(sub.filter)
	n := weightOf(sub.filter)
	t.mu.Lock()
	defer t.mu.Unlock()
	if old == nil {
		if t.weight+n > limit {
			return false
		}
		t.weight += n
		t.count.Add(1)
	}
	if enter != nil {
		enter()
	}
	if old != nil {
		sub.before = old.before
	} else {
		sub.before = mark{t.offered.Load(), sub.since}
	}
	at := t.seek(filter)
	sub.node = at
	if share == "" {
		at.subs = put(at.subs, sub, old)
		return true
	}
	key := groupKey{share, filter}
	g := t.groups[key]
	if g == nil {
		g = &group{node: at, key: key}
		t.groups[key] = g
		at.groups = append(at.groups, g)
	}
	sub.group = g
	g.members = put(g.members, sub, old)
	return true
}

// put sets sub in place of old, or at the end.
func put(list []*subscription, sub, old *subscription) []*subscription {
	if old != nil {
		for i := range list {
			if list[i] == old {
				list[i] = sub
				return list
			}
		}
	}
	return append(list, sub)
}

// seek finds or makes the node of a filter.
func (t *topics) seek(filter string) *node {
	n := &t.root
	for level, rest, more := strings.Cut(filter, "/"); ; level, rest, more = strings.Cut(rest, "/") {
		n = t.child(n, level)
		if !more {
			return n
		}
	}
}

func (t *topics) child(n *node, level string) *node {
	at := &n.plus
	switch level {
	case "+":
	case "#":
		at = &n.hash
	default:
		key := childKey{n, level}
		c := t.children[key]
		if c == nil {
			level = strings.Clone(level) // not the whole filter
			c = &node{parent: n, level: level}
			t.children[childKey{n, level}] = c
			n.literals++
		}
		return c
	}
	if *at == nil {
		*at = &node{parent: n, level: level}
	}
	return *at
}

// remove takes sub out, and what nobody needs any more with it.
func (t *topics) remove(sub *subscription) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.weight -= weightOf(sub.filter)
	t.count.Add(-1)
	n := sub.node
	if g := sub.group; g != nil {
		g.members = without(g.members, sub)
		if len(g.members) == 0 {
			delete(t.groups, g.key)
			n.groups = without(n.groups, g)
		}
	} else {
		n.subs = without(n.subs, sub)
	}
	for n.parent != nil && n.plus == nil && n.hash == nil && n.literals+len(n.subs)+len(n.groups) == 0 {
		up := n.parent
		switch n {
		case up.plus:
			up.plus = nil
		case up.hash:
			up.hash = nil
		default:
			delete(t.children, childKey{up, n.level})
			up.literals--
		}
		n = up
	}
}

// without removes v from list, which keeps its order; an empty one is nil.
func without[T comparable](list []T, v T) []T {
	for i := range list {
		if list[i] == v {
			copy(list[i:], list[i+1:])
			var zero T
			list[len(list)-1] = zero
			list = list[:len(list)-1]
			break
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list
}

// found is what matches a topic; used again for each message.
type found struct {
	subs   []*subscription
	groups []*group
}

// match finds the subscriptions whose filters match topic.
func (t *topics) match(topic string, f *found) {
	f.subs, f.groups = f.subs[:0], f.groups[:0]
	t.mu.RLock()
	defer t.mu.RUnlock()
	t.walk(&t.root, topic, f)
}

func (t *topics) walk(n *node, rest string, f *found) {
	// Wildcards do not match a first level that begins with $. [MQTT-4.7.2-1]
	wild := n != &t.root || !strings.HasPrefix(rest, "$")
	if n.hash != nil && wild {
		f.take(n.hash)
	}
	level, rest, more := strings.Cut(rest, "/")
	if n.literals > 0 {
		if c := t.children[childKey{n, level}]; c != nil {
			t.step(c, rest, more, f)
		}
	}
	if n.plus != nil && wild {
		t.step(n.plus, rest, more, f)
	}
}

func (t *topics) step(n *node, rest string, more bool, f *found) {
	if more {
		t.walk(n, rest, f)
		return
	}
	f.take(n)
	if n.hash != nil {
		f.take(n.hash) // # includes its parent (4.7.1.2)
	}
}

func (f *found) take(n *node) {
	f.subs = append(f.subs, n.subs...)
	f.groups = append(f.groups, n.groups...)
}

// membersOf appends the members of g to buf.
func (t *topics) membersOf(g *group, buf []*subscription) []*subscription {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return append(buf, g.members...)
}

// matches reports whether filter, which holds no share name, matches topic.
func matches(filter, topic string) bool {
	if topic != "" && topic[0] == '$' && filter != "" && (filter[0] == '+' || filter[0] == '#') {
		return false // [MQTT-4.7.2-1]
	}
	for {
		level, rest, more := strings.Cut(filter, "/")
		if level == "#" {
			return true
		}
		name, left, deeper := strings.Cut(topic, "/")
		if level != "+" && level != name {
			return false
		}
		if !deeper {
			return !more || rest == "#" // # includes its parent (4.7.1.2)
		}
		if !more {
			return false
		}
		filter, topic = rest, left
	}
}

// literalOf is what every topic that filter matches begins with; whole says that
// the filter has no wildcard.
func literalOf(filter string) (prefix string, whole bool) {
	i := strings.IndexAny(filter, "+#")
	if i < 0 {
		return filter, true
	}
	if filter[i] == '#' && i > 0 {
		i-- // its parent has no slash
	}
	return filter[:i], false
}

const sharePrefix = "$share/"

func isShared(filter string) bool { return strings.HasPrefix(filter, sharePrefix) }

// splitShare parts a valid filter from its share name, which is empty for one
// that is not shared.
func splitShare(filter string) (share, plain string) {
	if !isShared(filter) {
		return "", filter
	}
	share, plain, _ = strings.Cut(filter[len(sharePrefix):], "/")
	return share, plain
}

// validShare reports whether filter, if it is shared, has a share name as it
// must be, and a filter after it. [MQTT-4.8.2-1,2]
func validShare(filter string) bool {
	if !isShared(filter) {
		return true
	}
	share, _, more := strings.Cut(filter[len(sharePrefix):], "/")
	return more && share != "" && !strings.ContainsAny(share, "+#")
}

// ValidFilter reports whether f is a topic filter: a wildcard fills its level, #
// is the last, there is at least one character, no U+0000, and all is UTF-8.
// [MQTT-4.7.1-1,2] [MQTT-4.7.3-1,2]
func ValidFilter(f string) bool {
	if f == "" || len(f) > 65535 || strings.IndexByte(f, 0) >= 0 || !utf8.ValidString(f) {
		return false
	}
	for level, rest, more := strings.Cut(f, "/"); ; level, rest, more = strings.Cut(rest, "/") {
		if len(level) > 1 && strings.ContainsAny(level, "+#") || level == "#" && more {
			return false
		}
		if !more {
			return true
		}
	}
}

// weightOf is what a filter costs, in about 256 bytes: its levels in the index,
// and its text.
func weightOf(filter string) int { return levelsOf(filter) + len(filter)/256 }

func levelsOf(s string) int { return strings.Count(s, "/") + 1 }
