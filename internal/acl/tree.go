package acl

import "strings"

// tree finds the rules that match a topic, level by level: the cost of an
// answer is that of the branches that match, not of the number of rules. It is
// immutable once its policy is in force.
type tree struct {
	root   node
	denies bool // some rule denies
}

// node stands for the levels of a filter up to it.
type node struct {
	next      map[string]*node // a level of its own text
	templates []template       // a level with %u or %c in it
	plus      *node            // +
	here      access           // of rules that end here
	below     access           // of rules that end here with #
}

type template struct {
	text string
	node *node
}

// add is called before the policy is in force.
func (t *tree) add(r rule) {
	t.denies = t.denies || r.access == deny
	n := &t.root
	for level := range strings.SplitSeq(r.filter, "/") {
		switch {
		case level == "#":
			n.below |= r.access
			return
		case level == "+":
			if n.plus == nil {
				n.plus = &node{}
			}
			n = n.plus
		case r.pattern && isTemplate(level):
			n = n.template(level)
		default:
			if n.next[level] == nil {
				if n.next == nil {
					n.next = map[string]*node{}
				}
				n.next[level] = &node{}
			}
			n = n.next[level]
		}
	}
	n.here |= r.access
}

func (n *node) template(level string) *node {
	for _, t := range n.templates {
		if t.text == level {
			return t.node
		}
	}
	n.templates = append(n.templates, template{level, &node{}})
	return n.templates[len(n.templates)-1].node
}

func isTemplate(level string) bool {
	return strings.Contains(level, "%u") || strings.Contains(level, "%c")
}

// of gathers what the rules say of a topic, until it is enough.
func (t *tree) of(v *View, topic string, enough access) access {
	if strings.HasPrefix(topic, "$") {
		// No wildcard matches the topics of the broker itself, and no name
		// leads there. [MQTT-4.7.2-1]
		level, rest, more := strings.Cut(topic, "/")
		if n := t.root.next[level]; n != nil {
			return n.of(v, rest, !more, enough)
		}
		return 0
	}
	return t.root.of(v, topic, false, enough)
}

// of gathers what the rules at n and below it say of the levels in rest; done:
// there are none left.
func (n *node) of(v *View, rest string, done bool, enough access) access {
	got := n.below // "a/#" matches "a"
	if done {
		return got | n.here
	}
	if got&enough != 0 {
		return got
	}
	level, rest, more := strings.Cut(rest, "/")
	if c := n.next[level]; c != nil {
		if got |= c.of(v, rest, !more, enough); got&enough != 0 {
			return got
		}
	}
	if n.plus != nil {
		if got |= n.plus.of(v, rest, !more, enough); got&enough != 0 {
			return got
		}
	}
	for i := range n.templates {
		t := &n.templates[i]
		switch v.fits(t.text, level) {
		case fits:
			got |= t.node.of(v, rest, !more, enough)
		case unfit:
			got |= t.node.denies()
		}
		if got&enough != 0 {
			return got
		}
	}
	return got
}

// denies is deny when any rule at n or below it is one.
func (n *node) denies() access {
	got := (n.here | n.below) & deny
	for _, c := range n.next {
		got |= c.denies()
	}
	for _, t := range n.templates {
		got |= t.node.denies()
	}
	if n.plus != nil {
		got |= n.plus.denies()
	}
	return got
}

// The ways in which a level fits a template.
const (
	differs = iota
	fits
	unfit // the name that should stand in it must not
)

// fits compares a level of a topic with one that has %u and %c in it.
func (v *View) fits(template, level string) int {
	for {
		i := strings.IndexByte(template, '%')
		if i < 0 || i+1 == len(template) {
			break
		}
		before, what := template[:i], template[i+1]
		name, ok := v.user, v.userOK
		switch what {
		case 'u':
		case 'c':
			name, ok = v.client, v.clientOK
		default:
			i++ // an ordinary %
			if len(level) < i || level[:i] != template[:i] {
				return differs
			}
			template, level = template[i:], level[i:]
			continue
		}
		switch {
		case name == "":
			return differs // who has no name is not in a rule about names
		case !strings.HasPrefix(level, before):
			return differs
		case !ok:
			return unfit
		case !strings.HasPrefix(level[i:], name):
			return differs
		}
		template, level = template[i+2:], level[i+len(name):]
	}
	if template == level {
		return fits
	}
	return differs
}
