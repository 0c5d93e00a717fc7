package acl

import "strings"

// View is what one client may do, now: it sees each change of its List. Its
// methods may be called from any goroutine and cost no allocation, but for
// Subscribe and the explanations. The zero View allows nothing.
type View struct {
	list             *List
	user, client     string
	userOK, clientOK bool // may stand for %u, %c
	all              bool // there is no list
}

// Version changes when answers may; it is 0 where none ever does.
func (v *View) Version() uint64 {
	if v.list == nil {
		return 0
	}
	return v.list.now.Load().version
}

// Publish reports whether the client may publish to topic.
func (v *View) Publish(topic string) bool { return v.can(write, topic) }

// Deliver reports whether the client may see a message of topic.
func (v *View) Deliver(topic string) bool { return v.can(read, topic) }

func (v *View) can(want access, topic string) bool {
	if v.list == nil {
		return v.all
	}
	p := v.list.now.Load()
	return v.decide(p, want, topic)
}

func (v *View) decide(p *policy, want access, topic string) bool {
	own := p.own(v.user)
	enough := want
	if own != nil && own.denies || p.everybody.denies {
		enough = deny // a grant proves nothing before all have been asked
	}
	got := p.everybody.of(v, topic, enough)
	if own != nil && got&enough == 0 {
		got |= own.of(v, topic, enough)
	}
	return got&want != 0 && got&deny == 0
}

// own gives the rules of a user's section, nil when there is none.
func (p *policy) own(user string) *tree {
	if user == "" {
		return p.anonymous
	}
	return p.users[user]
}

// Subscribe reports whether the client may see any topic that filter matches.
// filter is a valid topic filter without a share name.
func (v *View) Subscribe(filter string) bool {
	if v.list == nil {
		return v.all
	}
	_, ok := v.visible(v.list.now.Load(), filter)
	return ok
}

// Verdict is an answer and the rule behind it.
type Verdict struct {
	Allowed bool
	Line    int    // of the rule that decides; 0: no rule allows it
	Rule    string // its text: "user gps: topic write sensors/gps/#"
}

// ExplainPublish says whether Publish allows topic, and by which rule.
func (v *View) ExplainPublish(topic string) Verdict { return v.explain(write, topic) }

// ExplainDeliver says whether Deliver allows topic, and by which rule.
func (v *View) ExplainDeliver(topic string) Verdict { return v.explain(read, topic) }

// ExplainSubscribe says whether Subscribe allows filter: by the first rule that
// shows some topic of it, or by one that denies what others would show.
func (v *View) ExplainSubscribe(filter string) (d Verdict) {
	if v.list == nil {
		return Verdict{Allowed: v.all}
	}
	p := v.list.now.Load()
	for _, r := range p.rules {
		if r.access&read == 0 || !r.pattern && r.user != v.user {
			continue
		}
		var alone tree
		alone.add(r)
		topic, ok := v.seen(p, filter, &alone)
		switch {
		case ok:
			return Verdict{Allowed: true, Line: r.line, Rule: r.String()}
		case topic != "" && d.Line == 0:
			d = v.explain(read, topic)
		}
	}
	return d
}

// explain asks the rules one after the other.
func (v *View) explain(want access, topic string) (d Verdict) {
	if v.list == nil {
		return Verdict{Allowed: v.all}
	}
	for _, r := range v.list.now.Load().rules {
		if !r.pattern && r.user != v.user {
			continue
		}
		var alone tree
		alone.add(r)
		switch got := alone.of(v, topic, 0); {
		case got&deny != 0:
			return Verdict{Line: r.line, Rule: r.String()}
		case got&want != 0 && !d.Allowed:
			d = Verdict{Allowed: true, Line: r.line, Rule: r.String()}
		}
	}
	return d
}

// String gives the rule as it stands in the file, after whose it is.
func (r rule) String() string {
	var b strings.Builder
	switch {
	case r.pattern:
		b.WriteString("pattern ")
	case r.user == "":
		b.WriteString("without a name: topic ")
	default:
		b.WriteString("user " + r.user + ": topic ")
	}
	for name, a := range accessNames {
		if a == r.access {
			b.WriteString(name)
		}
	}
	return b.String() + " " + r.filter
}
