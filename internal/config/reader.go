package config

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// origin is where a value comes from.
type origin struct {
	file         string
	line, column int
	env, flag    string
}

// reader lays sources over one struct and collects what is wrong.
type reader struct {
	src     Source
	errs    *Errors
	origins map[string]origin // by key; what set it last
	bad     map[string]bool   // keys that have a violation
}

func newReader(s Source) *reader {
	return &reader{src: s, errs: &Errors{}, origins: map[string]origin{}, bad: map[string]bool{}}
}

func (r *reader) add(at origin, key, message, hint string) {
	r.bad[key] = true
	source := at.env
	if at.flag != "" {
		source = at.flag
	}
	r.errs.add(Violation{File: at.file, Line: at.line, Column: at.column, Source: source, Key: key, Message: message, Hint: hint})
}

var yamlLine = regexp.MustCompile(`^yaml: (?:(?:line|while .* at line) (\d+)[^:]*: )?(.*)$`)

// parse gives the mapping of a YAML document, nil for an empty one.
func parse(data []byte) (*yaml.Node, *Violation) {
	dec := yaml.NewDecoder(strings.NewReader(string(data)))
	var doc, second yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if err.Error() == "EOF" {
			return nil, nil
		}
		return nil, syntaxError(err)
	}
	if err := dec.Decode(&second); err == nil {
		return nil, &Violation{Line: second.Line, Column: max(second.Column, 1), Message: "a second document begins here", Hint: "remove the line ---"}
	} else if err.Error() != "EOF" {
		return nil, syntaxError(err)
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil, nil
	}
	if root.Kind != yaml.MappingNode {
		return nil, &Violation{Line: root.Line, Column: root.Column, Message: "not a configuration: want keys with values", Hint: "write key: value lines"}
	}
	return root, nil
}

func syntaxError(err error) *Violation {
	text := strings.ReplaceAll(err.Error(), "\n", " ")
	v := &Violation{Message: strings.TrimPrefix(text, "yaml: ")}
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		v.Message = m[2]
		v.Line, _ = strconv.Atoi(m[1])
		// The parser leaves out the number of the first line; errors of the
		// encoding have none.
		if v.Line == 0 && !strings.Contains(text, "octet") && !strings.Contains(text, "control char") && !strings.Contains(text, "UTF") {
			v.Line = 1
		}
		v.Column = min(v.Line, 1)
	}
	v.Message = "not YAML: " + v.Message
	if strings.Contains(text, "found character that cannot start any token") {
		v.Hint = "indent with spaces, not tabs"
	}
	return v
}

// walk lays node over v. at tells the origin of a place in the document.
func (r *reader) walk(n *yaml.Node, v reflect.Value, path string, at func(line, column int) origin) {
	here := at(n.Line, n.Column)
	if path != "" {
		r.origins[path] = here
	}
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		r.add(here, path, "anchors and aliases are not read", "write the value out")
	case n.Style&yaml.TaggedStyle != 0:
		r.add(here, path, fmt.Sprintf("tag %.40s is not read", n.Tag), "remove it")
	case isGroup(v.Type()):
		r.group(n, v, path, at)
	case v.Kind() == reflect.Slice && !reflect.PointerTo(v.Type()).Implements(textType):
		r.list(n, v, path, at)
	case n.Kind != yaml.ScalarNode:
		r.add(here, path, fmt.Sprintf("is a %s, want %s", kindName(n), article(typeName(v.Type()))), "")
	case n.Tag == "!!null" && n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) == 0:
		r.add(here, path, "has no value", "give it one or remove the line")
	default:
		if message, hint := setScalar(v, n.Value); message != "" {
			r.add(here, path, message, hint)
		}
	}
}

func (r *reader) group(n *yaml.Node, v reflect.Value, path string, at func(line, column int) origin) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return // a group whose keys are all commented out
	}
	if n.Kind != yaml.MappingNode {
		r.add(at(n.Line, n.Column), path, fmt.Sprintf("is a %s, want a group of keys", kindName(n)), "")
		return
	}
	fields := fieldsOf(v.Type())
	first := map[string]int{} // key to the line where it stands first
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, value := n.Content[i], n.Content[i+1]
		here, full := at(k.Line, k.Column), join(path, printable(k.Value))
		at1 := slices.IndexFunc(fields, func(f field) bool { return f.name == k.Value })
		if k.Kind != yaml.ScalarNode || at1 < 0 {
			r.add(here, full, "unknown key", unknownHint(k.Value, fields))
			continue
		}
		if line, twice := first[k.Value]; twice {
			r.add(here, full, fmt.Sprintf("is given twice, first in line %d", line), "remove one of them")
			continue
		}
		first[k.Value] = k.Line
		r.walk(value, v.Field(fields[at1].index), full, at)
		// A missing or empty value has no place of its own worth pointing at.
		if value.Line == 0 {
			r.origins[full] = here
		}
	}
}

func unknownHint(name string, fields []field) string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	if hint := didYouMean(name, names); hint != "" {
		return hint
	}
	return "known here: " + strings.Join(names, ", ")
}

func (r *reader) list(n *yaml.Node, v reflect.Value, path string, at func(line, column int) origin) {
	if n.Kind != yaml.SequenceNode {
		hint := "write [a, b] or one \"- a\" line each"
		if n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
			hint = fmt.Sprintf("write [%.60s]", n.Value)
		}
		r.add(at(n.Line, n.Column), path, fmt.Sprintf("is %s, want a list", article(kindName(n))), hint)
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, e := range n.Content {
		r.walk(e, v.Index(i), fmt.Sprintf("%s[%d]", path, i), at)
	}
}

// set gives the key a value from the environment or a flag.
func (r *reader) set(v reflect.Value, key, value string, at origin) {
	keys := keysOf(v.Type(), "")
	i := slices.IndexFunc(keys, func(k keyPath) bool { return k.path == key })
	if i < 0 {
		panic("config: no key " + key)
	}
	target := v.FieldByIndex(keys[i].index)
	r.forget(key)
	r.origins[key] = at
	if target.Kind() != reflect.Slice || reflect.PointerTo(target.Type()).Implements(textType) {
		if message, hint := setScalar(target, value); message != "" {
			r.add(at, key, message, hint)
		}
		return
	}
	text := strings.TrimSpace(value)
	if !strings.HasPrefix(text, "[") && !isGroup(target.Type().Elem()) {
		r.setList(target, key, text, at)
		return
	}
	root := yaml.Node{}
	if err := yaml.Unmarshal([]byte(text), &root); err != nil || len(root.Content) != 1 {
		r.add(at, key, "is not a list in YAML flow style", "write [{name: urgent, filters: [alarm/#]}]")
		return
	}
	r.walk(root.Content[0], target, key, func(int, int) origin { return at })
}

// setList sets a list from values with commas between them.
func (r *reader) setList(target reflect.Value, key, text string, at origin) {
	parts := []string{}
	for p := range strings.SplitSeq(text, ",") {
		if p = strings.TrimSpace(p); p != "" {
			parts = append(parts, p)
		}
	}
	target.Set(reflect.MakeSlice(target.Type(), len(parts), len(parts)))
	for i, p := range parts {
		if message, hint := setScalar(target.Index(i), p); message != "" {
			r.add(at, fmt.Sprintf("%s[%d]", key, i), message, hint)
		}
	}
}

// forget drops what is known of a key whose value is replaced as a whole. Its
// violations stay: a broken file is broken also where a flag hides it.
func (r *reader) forget(key string) {
	for k := range r.origins {
		if k == key || strings.HasPrefix(k, key+"[") {
			delete(r.origins, k)
		}
	}
}

func kindName(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "group of keys"
	case n.Kind == yaml.SequenceNode:
		return "list"
	case n.Tag == "!!null":
		return "missing value"
	}
	return "single value"
}

func article(s string) string {
	if s == "true or false" || s == "text" {
		return s
	}
	return "a " + s
}

// printable keeps a key of a hostile file from breaking the report.
func printable(s string) string {
	if len(s) > 60 {
		s = s[:60] + "…"
	}
	if q := strconv.Quote(s); q != `"`+s+`"` {
		return q
	}
	return s
}
