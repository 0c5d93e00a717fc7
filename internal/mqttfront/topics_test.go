package mqttfront

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// naive is section 4.7 of the specification, word by word.
func naive(filter, topic []string) bool {
	if strings.HasPrefix(topic[0], "$") && (filter[0] == "+" || filter[0] == "#") {
		return false
	}
	var walk func(f, t []string) bool
	walk = func(f, t []string) bool {
		switch {
		case len(f) == 1 && f[0] == "#":
			return true // all below, and (with t empty) the parent
		case len(f) == 0 || len(t) == 0:
			return len(f) == len(t)
		case f[0] != "+" && f[0] != t[0]:
			return false
		}
		return walk(f[1:], t[1:])
	}
	return walk(filter, topic)
}

var levels = rapid.SampledFrom([]string{"", "a", "b", "$s", "ab"})

func drawTopic(t *rapid.T) string {
	return strings.Join(rapid.SliceOfN(levels, 1, 4).Draw(t, "topic"), "/")
}

func drawFilter(t *rapid.T) string {
	f := rapid.SliceOfN(rapid.OneOf(levels, rapid.Just("+")), 1, 4).Draw(t, "filter")
	if rapid.IntRange(0, 3).Draw(t, "hash") == 0 {
		f = append(f, "#")
		if rapid.Bool().Draw(t, "only") {
			f = f[len(f)-1:]
		}
	}
	return strings.Join(f, "/")
}

// Whatever is subscribed and unsubscribed, a topic finds exactly the filters
// that match it, and an index without subscriptions holds nothing.
func TestTopicsAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		index := newTopics()
		sessions := []*session{{id: "0"}, {id: "1"}, {id: "2"}}
		type key struct {
			s      int
			filter string
		}
		model := map[key]*subscription{}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			k := key{rapid.IntRange(0, 2).Draw(t, "session"), drawFilter(t)}
			if g := rapid.IntRange(0, 5).Draw(t, "group"); g < 2 {
				k.filter = fmt.Sprint("$share/g", g, "/", k.filter)
			}
			old := model[k]
			switch {
			case old != nil && rapid.Bool().Draw(t, "remove"):
				index.remove(old)
				delete(model, k)
			default:
				sub := &subscription{s: sessions[k.s], filter: k.filter}
				if !index.add(sub, old, 1000, nil) {
					t.Fatal("no room")
				}
				model[k] = sub
			}
			checkTopics(t, index, drawTopic(t), func(visit func(*subscription)) {
				for _, sub := range model {
					visit(sub)
				}
			})
		}
		for _, sub := range model {
			index.remove(sub)
		}
		if n := &index.root; len(index.children)+len(index.groups)+index.weight+n.literals != 0 || n.plus != nil || n.hash != nil || index.count.Load() != 0 {
			t.Fatalf("left behind: %d nodes, %d groups, weight %d", len(index.children), len(index.groups), index.weight)
		}
	})
}

func checkTopics(t *rapid.T, index *topics, topic string, all func(func(*subscription))) {
	var f found
	index.match(topic, &f)
	var got, want []string
	name := func(s *subscription) string { return s.s.id + " " + s.filter }
	for _, s := range f.subs {
		got = append(got, name(s))
	}
	for _, g := range f.groups {
		for _, s := range index.membersOf(g, nil) {
			got = append(got, name(s))
		}
	}
	n := 0
	all(func(s *subscription) {
		n++
		_, plain := splitShare(s.filter)
		hit := naive(strings.Split(plain, "/"), strings.Split(topic, "/"))
		if hit {
			want = append(want, name(s))
		}
		if matches(plain, topic) != hit {
			t.Fatalf("matches(%q, %q) is %v", plain, topic, !hit)
		}
		if prefix, whole := literalOf(plain); hit && !strings.HasPrefix(topic, prefix) || whole && prefix != plain {
			t.Fatalf("literalOf(%q) is %q", plain, prefix)
		}
	})
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("topic %q: got %q, want %q", topic, got, want)
	}
	if int(index.count.Load()) != n {
		t.Fatalf("%d subscriptions counted, there are %d", index.count.Load(), n)
	}
}

func TestValidFilter(t *testing.T) {
	for f, want := range map[string]bool{
		"#": true, "+": true, "/": true, "//": true, "a/#": true, "+/+/#": true, "/#": true, "a b/ü": true, "$SYS/#": true,
		"": false, "a#": false, "a/#/b": false, "#/": false, "a+": false, "+a/b": false, "a/+b": false, "##": false,
		"a\x00": false, "\xff": false, "\xed\xa0\x80": false,
	} {
		if ValidFilter(f) != want {
			t.Errorf("ValidFilter(%q) is %v", f, !want)
		}
	}
	for f, want := range map[string]bool{
		"a": true, "$share": true, "$SHARE/x": true, "$share/g/a": true, "$share/g//": true,
		"$share/": false, "$share/g": false, "$share//a": false, "$share/+/a": false, "$share/g#/a": false,
	} {
		if validShare(f) != want {
			t.Errorf("validShare(%q) is %v", f, !want)
		}
	}
}

// The bound on all levels holds, and what is removed makes room.
func TestTopicsLevels(t *testing.T) {
	index := newTopics()
	s := &session{}
	a, b := &subscription{s: s, filter: "a/b/c"}, &subscription{s: s, filter: "a/b"}
	if !index.add(a, nil, 5, nil) || !index.add(b, nil, 5, nil) {
		t.Fatal("five levels do not fit into five")
	}
	c := &subscription{s: s, filter: "c"}
	if index.add(c, nil, 5, nil) {
		t.Fatal("six levels fit into five")
	}
	if a2 := (&subscription{s: s, filter: "a/b/c"}); !index.add(a2, a, 5, nil) {
		t.Fatal("the same filter again takes room")
	}
	index.remove(b)
	if !index.add(c, nil, 5, nil) {
		t.Fatal("no room after a removal")
	}
}
