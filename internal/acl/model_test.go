package acl

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// line is a rule as the model sees it.
type line struct {
	user, access, filter string
	pattern              bool
}

func (l line) String() string {
	word := "topic"
	if l.pattern {
		word = "pattern"
	}
	return strings.TrimSpace(word+" "+l.access) + " " + l.filter
}

// naive is MQTT's matching, level by level.
func naive(filter, topic []string) bool {
	switch {
	case len(filter) > 0 && filter[0] == "#":
		return true
	case len(filter) == 0 || len(topic) == 0:
		return len(filter) == len(topic)
	}
	return (filter[0] == "+" || filter[0] == topic[0]) && naive(filter[1:], topic[1:])
}

func matches(filter, topic string) bool {
	if strings.HasPrefix(topic, "$") && (filter == "" || filter[0] != '$') {
		return false
	}
	return naive(strings.Split(filter, "/"), strings.Split(topic, "/"))
}

// model answers by asking every line.
func model(lines []line, user, client, want, topic string) bool {
	granted := false
	for _, l := range lines {
		if !l.pattern && l.user != user {
			continue
		}
		filter, named := l.filter, true
		if l.pattern && strings.ContainsRune(filter, '%') {
			if strings.HasPrefix(topic, "$") && filter[0] != '$' {
				continue
			}
			var levels []string
			for level := range strings.SplitSeq(filter, "/") {
				for _, x := range [][2]string{{"%u", user}, {"%c", client}} {
					what, name := x[0], x[1]
					switch {
					case !named || !strings.Contains(level, what):
					case name == "":
						named = false
					case strings.ContainsAny(name, "+#/"):
						// Only a rule that denies holds, and for all that might be meant.
						named = false
						prefix := strings.Join(append(levels, "#"), "/")
						if l.access == "deny" && matches(prefix, topic) && strings.Count(topic, "/") >= len(levels) {
							return false
						}
					}
				}
				levels = append(levels, strings.NewReplacer("%u", user, "%c", client).Replace(level))
			}
			filter = strings.Join(levels, "/")
		}
		if !named || !matches(filter, topic) {
			continue
		}
		switch l.access {
		case "deny":
			return false
		case want, "readwrite", "":
			granted = true
		}
	}
	return granted
}

// topics are all of up to n levels of an alphabet that has what rules name and
// a level that none does.
func topics(alphabet []string, n int) (all []string) {
	last := []string{""}
	for i := range n {
		var next []string
		for _, t := range last {
			for _, l := range alphabet {
				if i > 0 {
					l = t + "/" + l
				}
				next = append(next, l)
			}
		}
		for _, t := range next {
			if t != "" {
				all = append(all, t)
			}
		}
		last = next
	}
	return all
}

// What the trees say is what asking every line says, for topics and, by asking
// every topic there is, for filters; and the explanation agrees.
func TestAgainstModel(t *testing.T) {
	all := topics([]string{"a", "b", "", "u", "$x", "%u", "other"}, 4)
	names := rapid.SampledFrom([]string{"", "u", "a", "b"})
	clients := rapid.SampledFrom([]string{"a", "u", "b", "+", "#", "a/b", "%u"})
	filterOf := func(levels ...string) *rapid.Generator[string] {
		return rapid.Custom(func(t *rapid.T) string {
			f := rapid.SliceOfN(rapid.SampledFrom(levels), 0, 3).Draw(t, "levels")
			if len(f) == 0 || rapid.Bool().Draw(t, "hash") {
				f = append(f, "#")
			}
			if len(f) == 1 && f[0] == "" {
				f[0] = "+"
			}
			return strings.Join(f, "/")
		})
	}
	plain := filterOf("a", "b", "", "u", "$x", "+", "+")
	pattern := filterOf("a", "b", "+", "%u", "%c", "%u", "u")
	rapid.Check(t, func(t *rapid.T) {
		var lines []line
		var text strings.Builder
		user := ""
		for range rapid.IntRange(0, 8).Draw(t, "rules") {
			if rapid.IntRange(0, 3).Draw(t, "section") == 0 {
				if u := names.Draw(t, "user"); u != "" {
					user = u
					fmt.Fprintf(&text, "user %s\n", u)
				}
			}
			l := line{user: user, access: rapid.SampledFrom([]string{"read", "write", "readwrite", "", "deny", "read"}).Draw(t, "access"), pattern: rapid.Bool().Draw(t, "pattern")}
			if l.filter = plain.Draw(t, "filter"); l.pattern {
				l.filter = pattern.Draw(t, "filter")
			}
			lines = append(lines, l)
			fmt.Fprintln(&text, l)
		}
		list := listOf(&testing.T{}, text.String())
		who, client := names.Draw(t, "who"), clients.Draw(t, "client")
		v := list.as(who, client)
		var seen []string
		for i, topic := range all {
			for want, got := range map[string]bool{"read": v.Deliver(topic), "write": v.Publish(topic)} {
				if m := model(lines, who, client, want, topic); got != m {
					t.Fatalf("%s of %q as %q, %q: %v, the model says %v; rules\n%s", want, topic, who, client, got, m, text.String())
				}
				if want == "read" && got {
					seen = append(seen, topic)
				}
			}
			if i%17 == 0 && (v.ExplainDeliver(topic).Allowed != v.Deliver(topic) || v.ExplainPublish(topic).Allowed != v.Publish(topic)) {
				t.Fatalf("%q as %q, %q is explained otherwise; rules\n%s", topic, who, client, text.String())
			}
		}
		for range 5 {
			filter := plain.Draw(t, "subscription")
			want := false
			for _, topic := range seen {
				want = want || matches(filter, topic)
			}
			// With 4 levels of topics and 4 of filters all lengths that matter are there,
			// but "other" stands for one unnamed level only: that is enough.
			if got := v.Subscribe(filter); got != want {
				t.Fatalf("subscribe to %q as %q, %q: %v, want %v; rules\n%s", filter, who, client, got, want, text.String())
			}
			if v.ExplainSubscribe(filter).Allowed != want {
				t.Fatalf("subscribe to %q as %q, %q is explained otherwise; rules\n%s", filter, who, client, text.String())
			}
		}
	})
}

// FuzzParse: whatever a file holds, it is refused with lines and reasons, or
// answers every question, the same way by its trees and rule by rule.
func FuzzParse(f *testing.F) {
	f.Add(sample, "gps", "c7", "mail/c7/x", "mail/+/#")
	f.Add("pattern deny %u/%c%%\npattern read x%u%c/+\n", "a", "b", "xab/1", "#")
	f.Add("topic read $SYS/#\ntopic #\n", "", "c", "$SYS/a", "$SYS/+")
	f.Fuzz(func(t *testing.T, text, user, client, topic, filter string) {
		p, bad := parse(text)
		for _, v := range bad {
			if v.Line < 1 || v.Line > strings.Count(text, "\n")+1 || v.Message == "" {
				t.Fatalf("%+v", v)
			}
		}
		if len(bad) > 0 || topic == "" || strings.ContainsAny(topic, "+#\x00") {
			return
		}
		l := &List{}
		l.now.Store(p)
		v := l.as(user, client)
		if v.Publish(topic) != v.ExplainPublish(topic).Allowed || v.Deliver(topic) != v.ExplainDeliver(topic).Allowed {
			t.Fatalf("%q as %q, %q is explained otherwise", topic, user, client)
		}
		if message, _ := checkFilter(filter, true); filter == "" || message != "" || strings.ContainsRune(filter, 0) {
			return
		}
		if v.Subscribe(filter) != v.ExplainSubscribe(filter).Allowed {
			t.Fatalf("subscription to %q as %q, %q is explained otherwise", filter, user, client)
		}
		// Who may see a topic may subscribe to what matches it.
		if v.Deliver(topic) && matches(filter, topic) && !v.Subscribe(filter) {
			t.Fatalf("%q as %q, %q may be seen and not subscribed to by %q", topic, user, client, filter)
		}
	})
}

// thousand is an ACL with a thousand rules, most of one user's.
func thousand() string {
	var b strings.Builder
	b.WriteString("user gps\n")
	for i := range 900 {
		fmt.Fprintf(&b, "topic write plant/%d/machine/%d/#\n", i%30, i)
	}
	for i := range 90 {
		fmt.Fprintf(&b, "pattern write status/%%u/%%c/%d\n", i)
	}
	b.WriteString("topic deny plant/+/machine/+/secret\ntopic write sensors/gps/#\n")
	return b.String()
}

// An answer allocates nothing, whatever its rules.
func TestAnswersAllocateNothing(t *testing.T) {
	l := listOf(t, thousand())
	v := l.as("gps", "c7")
	for _, topic := range []string{"sensors/gps/pos", "status/gps/c7/80", "plant/3/machine/33/x/y", "plant/3/machine/33/secret", "no/such"} {
		if n := testing.AllocsPerRun(100, func() { _, _ = v.Publish(topic), v.Deliver(topic) }); n != 0 {
			t.Errorf("%s: %v allocations", topic, n)
		}
	}
}

func BenchmarkPublish(b *testing.B) {
	few := "user gps\ntopic write sensors/gps/#\ntopic read cmd/#\n"
	for _, x := range []struct{ name, text, topic string }{
		{"rules=2", few, "sensors/gps/pos/lat"}, {"rules=1000", thousand(), "sensors/gps/pos/lat"},
		{"rules=1000/deep", thousand(), "plant/3/machine/33/x"}, {"rules=1000/pattern", thousand(), "status/gps/c7/80"}, {"rules=1000/denied", thousand(), "no/such/topic"},
	} {
		b.Run(x.name, func(b *testing.B) {
			l := listOf(b, x.text)
			v := l.as("gps", "c7")
			b.ReportAllocs()
			for b.Loop() {
				v.Publish(x.topic)
			}
		})
	}
}

func BenchmarkSubscribe(b *testing.B) {
	l := listOf(b, thousand()+"topic read plant/#\ntopic deny plant/#\n")
	v := l.as("gps", "c7")
	for b.Loop() {
		v.Subscribe("+/+/#")
	}
}
