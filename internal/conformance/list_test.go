package conformance

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/packetboat/packetboat/internal/mqttfront"
)

var update = flag.Bool("update", false, "write docs/mqtt-clauses.md and the generated parts of docs/mqtt.md")

// TestClauseList keeps docs/mqtt-clauses.md as the tables say.
func TestClauseList(t *testing.T) {
	var b strings.Builder
	b.WriteString("# MQTT, clause by clause\n\nMade from the tables of `internal/conformance` by\n`go test ./internal/conformance -run 'TestClauseList|TestMQTTDocument' -update`. A function is run for each\nversion against the edge's binary with default settings. What follows each table\nare the clauses that nothing checks, and why.\n")
	for _, spec := range []struct {
		name   string
		all    string
		checks []check
		exempt map[string]string
	}{{"MQTT 5", all5, clauses5, exempt5}, {"MQTT 3.1.1", all311, clauses311, exempt311}} {
		fmt.Fprintf(&b, "\n## %s\n\n%d of %d clauses.\n\n| clause | what | function |\n|---|---|---|\n", spec.name, len(spec.checks), len(numbers(t, spec.all)))
		for _, c := range spec.checks {
			fmt.Fprintf(&b, "| MQTT-%s | %s | `%s` |\n", c.id, c.what, functionName(c.fn))
		}
		b.WriteString("\n| not checked | why |\n|---|---|\n")
		for _, id := range numbers(t, spec.all) {
			if why, ok := spec.exempt[id]; ok {
				fmt.Fprintf(&b, "| MQTT-%s | %s |\n", id, why)
			}
		}
	}
	b.WriteString("\n## Beyond the numbered clauses\n\n| version | what | function |\n|---|---|---|\n")
	for _, c := range more {
		fmt.Fprintf(&b, "| %s | %s | `%s` |\n", versionName(c.version), c.what, functionName(c.fn))
	}
	b.WriteString("\n## The hub's door\n\nThe functions that are run against the hub, which speaks MQTT 5 with devices only: ")
	for i, fn := range hubChecks {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "`%s`", functionName(fn))
	}
	b.WriteString(".\n")
	same(t, "mqtt-clauses.md", b.String())
}

// TestMQTTDocument keeps the generated parts of docs/mqtt.md as the code says:
// the limits and the numbers of clauses.
func TestMQTTDocument(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "mqtt.md")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := replace(t, string(b), "limits", limitTable())
	text = replace(t, text, "clauses", fmt.Sprintf("%d of the %d clauses of MQTT 5 and %d of the %d of MQTT 3.1.1 are checked, and %d things beyond them; the others are a client's duty or about what is not offered.\n",
		len(clauses5), len(numbers(t, all5)), len(clauses311), len(numbers(t, all311)), len(more)))
	same(t, "mqtt.md", text)
}

func limitTable() string {
	var b strings.Builder
	b.WriteString("| what is bounded | at | then | why | counted as |\n|---|---|---|---|---|\n")
	for _, l := range mqttfront.LimitTable() {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | `%s` |\n", l.Bounds, l.Default, l.Then, l.Why, l.Name)
	}
	return b.String()
}

// replace puts text between the two marks of a name.
func replace(t *testing.T, in, name, text string) string {
	t.Helper()
	from, to := "<!-- "+name+": generated -->\n", "<!-- end of "+name+" -->"
	before, rest, ok := strings.Cut(in, from)
	_, after, ok2 := strings.Cut(rest, to)
	if !ok || !ok2 {
		t.Fatalf("docs/mqtt.md has no place for %s", name)
	}
	return before + from + text + to + after
}

// same wants that a document has the text, or writes it.
func same(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("..", "..", "docs", name)
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(b) != text {
		t.Errorf("docs/%s is not what the code says; run: go test ./internal/conformance -run 'TestClauseList|TestMQTTDocument' -update", name)
	}
}
