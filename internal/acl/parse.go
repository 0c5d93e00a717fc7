package acl

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// access is a set of what a rule says of a topic.
type access uint8

const (
	read  access = 1 << iota // a client may see messages of it
	write                    // a client may publish to it
	deny                     // neither, whatever other rules say
)

var accessNames = map[string]access{"read": read, "write": write, "readwrite": read | write, "deny": deny}

// rule is one line that grants or denies. It is immutable.
type rule struct {
	line    int
	access  access
	filter  string
	pattern bool   // for everybody, with %u and %c in it
	user    string // whose section it stands in; empty: nobody's
}

// policy is the content of a file. It is immutable but for version, which is
// set before it is in force.
type policy struct {
	version   uint64
	rules     []rule // in order of the file
	sections  []Section
	users     map[string]*tree
	anonymous *tree // clients without a name
	everybody *tree // the patterns
}

func (p *policy) equal(o *policy) bool {
	return slices.Equal(p.rules, o.rules) && slices.Equal(p.sections, o.sections)
}

// Violation is one thing that is wrong with an ACL.
type Violation struct {
	Line          int // from 1
	Message, Hint string
}

func (v *Violation) Error() string {
	text := fmt.Sprintf("line %d: %s", v.Line, v.Message)
	if v.Hint != "" {
		text += " (" + v.Hint + ")"
	}
	return text
}

// FileError is everything that is wrong with an ACL file.
type FileError struct {
	Path string
	All  []*Violation // in order of the file, never empty
}

func (e *FileError) Error() string {
	text := fmt.Sprintf("read the acl: %s: %v", e.Path, e.All[0])
	if n := len(e.All) - 1; n > 0 {
		text += fmt.Sprintf(", and %d more", n)
	}
	return text
}

// Lines gives "sensors.acl:3: …" for each violation.
func (e *FileError) Lines() []string {
	lines := make([]string, len(e.All))
	for i, v := range e.All {
		lines[i] = e.Path + ":" + strings.TrimPrefix(v.Error(), "line ")
	}
	return lines
}

// ExitCode is 2, the code for wrong arguments or configuration.
func (e *FileError) ExitCode() int { return 2 }

// Check says everything that is wrong with the text of an ACL: errors that are
// *Violation, at most 100.
func Check(text string) (all []error) {
	_, violations := parse(text)
	for _, v := range violations {
		all = append(all, v)
	}
	return all
}

const (
	maxViolations = 100 // a file that is no ACL at all would otherwise fill the screen
	maxLevels     = 128 // of a filter; twice what a sensor's topic may have by default
	maxFilter     = 65_535
	maxName       = 65_535
)

type parser struct {
	p    *policy
	bad  []*Violation
	line int
	user string // whose section the line stands in
}

func parse(text string) (*policy, []*Violation) {
	r := &parser{p: &policy{users: map[string]*tree{}, anonymous: &tree{}, everybody: &tree{}}}
	for line := range strings.Lines(strings.TrimPrefix(text, "\ufeff")) {
		r.line++
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			r.one(line)
		}
		if len(r.bad) == maxViolations {
			break
		}
	}
	for _, x := range r.p.rules {
		t := r.p.everybody
		if !x.pattern {
			t = r.p.anonymous
			if x.user != "" {
				t = r.p.users[x.user]
			}
		}
		t.add(x)
	}
	return r.p, r.bad
}

func (r *parser) add(hint, format string, args ...any) {
	r.bad = append(r.bad, &Violation{r.line, fmt.Sprintf(format, args...), hint})
}

func (r *parser) one(line string) {
	if !utf8.ValidString(line) || strings.ContainsRune(line, 0) {
		r.add("", "is not UTF-8 text")
		return
	}
	word, rest, _ := cut(line)
	switch word {
	case "user":
		r.section(rest)
	case "topic", "pattern":
		r.rule(word, rest)
	default:
		r.add("begin a line with topic, user, pattern or #", "%.40q is not a keyword", word)
	}
}

func (r *parser) section(name string) {
	switch {
	case name == "":
		r.add("write user NAME; rules for clients without a name stand before the first user", "user without a name")
		return
	case len(name) > maxName || strings.ContainsFunc(name, func(c rune) bool { return c < ' ' || c == 0x7f }):
		r.add("", "%.40q is not a user name", name)
		return
	}
	r.user = name
	if _, again := r.p.users[name]; !again {
		r.p.users[name] = &tree{}
		r.p.sections = append(r.p.sections, Section{name, r.line})
	}
}

func (r *parser) rule(word, rest string) {
	x := rule{line: r.line, access: read | write, filter: rest, pattern: word == "pattern"}
	first, filter, two := cut(rest)
	access, known := accessNames[first]
	switch {
	case rest == "":
		r.add("write "+word+" read sensors/#", "%s without a topic filter", word)
		return
	case two && !known:
		hint := "write read, write, readwrite or deny before the filter"
		if near := nearest(first); near != "" {
			hint = "did you mean " + near + "?"
		}
		r.add(hint, "%.40q is not an access", first)
		return
	case !two && known:
		r.add(fmt.Sprintf("a topic that is called %s: %s readwrite %s", first, word, first), "%s %s without a topic filter", word, first)
		return
	case two:
		x.access, x.filter = access, filter
	}
	if message, hint := checkFilter(x.filter, x.pattern); message != "" {
		r.add(hint, "%.80q is not a topic filter: %s", x.filter, message)
		return
	}
	if !x.pattern {
		x.user = r.user
	}
	r.p.rules = append(r.p.rules, x)
}

// cut splits at the first blanks.
func cut(s string) (first, rest string, two bool) {
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, "", false
	}
	return s[:i], strings.TrimLeft(s[i:], " \t"), true
}

// checkFilter says what is wrong with an MQTT topic filter. [MQTT-4.7.1]
func checkFilter(f string, pattern bool) (message, hint string) {
	if len(f) > maxFilter {
		return "it is too long", "MQTT knows 65,535 bytes"
	}
	levels := strings.Split(f, "/")
	if len(levels) > maxLevels {
		return fmt.Sprintf("it has more than %d levels", maxLevels), ""
	}
	for i, l := range levels {
		switch {
		case l != "#" && strings.Contains(l, "#"), l == "#" && i != len(levels)-1:
			return "# stands alone, as the last level", ""
		case l != "+" && strings.Contains(l, "+"):
			return "+ stands alone in its level", ""
		case !pattern && (strings.Contains(l, "%u") || strings.Contains(l, "%c")):
			return "topic takes %u and %c as they stand", "write pattern"
		}
	}
	return "", ""
}

// nearest is the access that word was probably meant to be, or "".
func nearest(word string) string {
	switch w := strings.ToLower(strings.Trim(word, ",:;'\"")); {
	case accessNames[w] != 0:
		return w
	case w == "rw", w == "all", w == "both", w == "allow":
		return "readwrite"
	case w == "r", w == "ro", strings.HasPrefix(w, "sub"), sameLetters(w, "read"):
		return "read"
	case w == "w", w == "wo", strings.HasPrefix(w, "pub"), sameLetters(w, "write"):
		return "write"
	case w == "none", w == "no", w == "denied", sameLetters(w, "deny"):
		return "deny"
	case sameLetters(w, "readwrite"), w == "read-write", w == "writeread":
		return "readwrite"
	}
	return ""
}

func sameLetters(a, b string) bool {
	x, y := []byte(a), []byte(b)
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(x, y)
}
