package acl

import "strings"

// fresh is a level that no rule names and no topic has: a topic made of it
// stands for all that only wildcards match.
const fresh = "\x00"

// search looks for a topic that a filter matches and a client may see.
type search struct {
	v      *View
	p      *policy
	levels []string // of the topic so far
	deep   int      // the levels of the longest rule that denies, and one more
	denied string   // a topic that would be seen if no rule denied it
}

// visible gives a topic that filter matches and the client may see.
func (v *View) visible(p *policy, filter string) (topic string, ok bool) {
	if own := p.own(v.user); own != nil {
		if topic, ok = v.seen(p, filter, own); ok {
			return topic, true
		}
	}
	return v.seen(p, filter, p.everybody)
}

// seen gives a topic that filter matches and the client may see because of a
// grant in t. Without one topic is what only a rule with deny hides, or empty.
//
// Of the topics that the filter and a rule have in common, those of one length
// whose wildcards are all fresh stand for the rest: a rule that denies such a
// topic has a wildcard wherever it is fresh, and denies all of that length. All
// lengths beyond the longest denying rule are alike.
func (v *View) seen(p *policy, filter string, t *tree) (topic string, ok bool) {
	s := &search{v: v, p: p}
	for _, x := range []*tree{p.everybody, p.own(v.user)} {
		if x != nil && x.denies {
			s.deep = max(s.deep, x.root.depth()+1)
		}
	}
	if topic, ok = s.root(&t.root, filter); ok {
		return topic, true
	}
	return s.denied, false
}

// depth is the number of levels of the longest filter below n.
func (n *node) depth() (d int) {
	for _, c := range n.next {
		d = max(d, 1+c.depth())
	}
	for _, t := range n.templates {
		d = max(d, 1+t.node.depth())
	}
	if n.plus != nil {
		d = max(d, 1+n.plus.depth())
	}
	return d
}

// root begins the search: a wildcard in the first level matches no topic that
// begins with $.
func (s *search) root(n *node, filter string) (string, bool) {
	level, rest, more := strings.Cut(filter, "/")
	if strings.HasPrefix(level, "$") {
		if c := n.next[level]; c != nil {
			return s.down(c, level, rest, !more)
		}
		return "", false
	}
	return s.from(n, filter, false)
}

// from looks below n for a topic that the rest of the filter matches; done: the
// filter ends here.
func (s *search) from(n *node, filter string, done bool) (string, bool) {
	if done {
		if (n.here|n.below)&read != 0 {
			return s.try(s.levels)
		}
		return "", false
	}
	if filter == "#" {
		return s.under(n)
	}
	if n.below&read != 0 {
		if topic, ok := s.fill(filter); ok {
			return topic, true
		}
	}
	level, rest, more := strings.Cut(filter, "/")
	return s.each(n, level, func(c *node, text string) (string, bool) { return s.down(c, text, rest, !more) })
}

// under looks at everything from n on, n itself included.
func (s *search) under(n *node) (string, bool) {
	if (n.here|n.below)&read != 0 && len(s.levels) > 0 {
		if topic, ok := s.try(s.levels); ok {
			return topic, true
		}
	}
	if n.below&read != 0 {
		if topic, ok := s.stretch(s.levels); ok {
			return topic, true
		}
	}
	return s.each(n, "+", func(c *node, text string) (string, bool) { return s.down(c, text, "#", false) })
}

// each tries the children of n that have a level in common with that of a
// filter.
func (s *search) each(n *node, level string, try func(c *node, text string) (string, bool)) (string, bool) {
	first := len(s.levels) == 0
	for text, c := range n.next {
		if text != level && (level != "+" || first && strings.HasPrefix(text, "$")) {
			continue
		}
		if topic, ok := try(c, text); ok {
			return topic, true
		}
	}
	if n.plus != nil {
		text := level
		if level == "+" {
			text = fresh
		}
		if topic, ok := try(n.plus, text); ok {
			return topic, true
		}
	}
	for _, t := range n.templates {
		text, ok := s.v.expand(t.text)
		if !ok || text != level && level != "+" || first && strings.HasPrefix(text, "$") {
			continue
		}
		if topic, ok := try(t.node, text); ok {
			return topic, true
		}
	}
	return "", false
}

func (s *search) down(c *node, level, rest string, done bool) (string, bool) {
	s.levels = append(s.levels, level)
	topic, ok := s.from(c, rest, done)
	s.levels = s.levels[:len(s.levels)-1]
	return topic, ok
}

// fill makes topics of the levels so far and the rest of a filter.
func (s *search) fill(filter string) (string, bool) {
	levels := s.levels[:len(s.levels):len(s.levels)]
	for level := range strings.SplitSeq(filter, "/") {
		switch level {
		case "#":
			if len(levels) > 0 {
				if topic, ok := s.try(levels); ok {
					return topic, true
				}
			}
			return s.stretch(levels)
		case "+":
			level = fresh
		}
		levels = append(levels, level)
	}
	return s.try(levels)
}

// stretch makes longer and longer topics of levels, as long as it matters.
func (s *search) stretch(levels []string) (string, bool) {
	levels = levels[:len(levels):len(levels)]
	for {
		levels = append(levels, fresh)
		if topic, ok := s.try(levels); ok || len(levels) > s.deep {
			return topic, ok
		}
	}
}

// try asks for a topic.
func (s *search) try(levels []string) (string, bool) {
	topic := strings.Join(levels, "/")
	if topic == "" {
		return "", false // "/#" matches it, but no topic is empty [MQTT-4.7.3-1]
	}
	if s.v.decide(s.p, read, topic) {
		return topic, true
	}
	s.denied = topic
	return "", false
}

// expand puts the client's names into a template.
func (v *View) expand(template string) (string, bool) {
	var b strings.Builder
	for {
		i := strings.IndexByte(template, '%')
		if i < 0 || i+1 == len(template) {
			return b.String() + template, true
		}
		b.WriteString(template[:i])
		switch template[i+1] {
		case 'u':
			if !v.userOK {
				return "", false
			}
			b.WriteString(v.user)
		case 'c':
			if !v.clientOK {
				return "", false
			}
			b.WriteString(v.client)
		default:
			b.WriteByte('%')
			template = template[i+1:]
			continue
		}
		template = template[i+2:]
	}
}
