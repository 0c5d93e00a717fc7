package conformance

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// exempt5 are the clauses of MQTT 5 that no function checks, with the reason.
var exempt5 = map[string]string{
	"3.1.2-20": "a client's duty",
	"3.1.2-21": "a client's duty",
	"3.1.2-30": "a client's duty",
	"3.1.3-8":  "the edge refuses no client identifier",
	"3.2.2-4":  "a client's duty",
	"3.2.2-5":  "a client's duty",
	"3.2.2-9":  "QoS 2 is served, so no Maximum QoS is sent",
	"3.2.2-10": "QoS 2 is served",
	"3.2.2-11": "a client's duty",
	"3.2.2-12": "QoS 2 is served",
	"3.2.2-13": "retained messages are served",
	"3.2.2-14": "a client's duty",
	"3.2.2-15": "a client's duty",
	"3.2.2-17": "a client's duty",
	"3.2.2-18": "a client's duty",
	"3.2.2-21": "a client's duty",
	"3.3.2-10": "a client's duty",
	"3.3.4-8":  "a client's duty",
	"3.15.2-1": "the edge sends no AUTH",
	"3.15.2-2": "the edge sends no AUTH",
	"3.15.2-3": "the edge sends no AUTH",
	"4.5.0-2":  "a client's duty",
	"4.12.0-2": "the edge offers no enhanced authentication",
	"4.12.0-3": "a client's duty",
	"4.12.0-4": "the edge offers no enhanced authentication",
	"4.12.0-5": "the edge offers no enhanced authentication",
	"4.12.1-1": "a client's duty",
	"4.12.1-2": "the edge offers no enhanced authentication",
	"6.0.0-3":  "a client's duty",
}

// exempt311 are those of MQTT 3.1.1.
var exempt311 = map[string]string{
	"2.3.1-2":  "a client's duty",
	"2.3.1-3":  "a client's duty",
	"3.1.2-23": "a client's duty",
	"3.14.4-1": "a client's duty",
	"3.14.4-2": "a client's duty",
	"4.5.0-2":  "a client's duty",
	"4.8.0-2":  "no client can cause a transient error of the edge",
	"6.0.0-3":  "a client's duty",
	"7.0.0-1":  "the edge's own MQTT client, to the hub, is tested in internal/uplink",
	"7.1.2-1":  "a client's duty",
}

// The numbers of all clauses, in the order of the specifications: section, and
// how many it has.
const (
	all5 = `1.5.4:3 1.5.5:1 1.5.7:1 2.1.3:1 2.2.1:2-6 2.2.2:1 3.1.0:2 3.1.2:30 3.1.3:12 3.1.4:6 3.2.0:2 3.2.2:22 3.3.1:13 3.3.2:20
3.3.4:10 3.4.2:3 3.5.2:3 3.6.1:1 3.6.2:3 3.7.2:3 3.8.1:1 3.8.3:5 3.8.4:8 3.9.2:2 3.9.3:2 3.10.1:1 3.10.3:2 3.10.4:6 3.11.2:2 3.11.3:2
3.12.4:1 3.14.0:1 3.14.1:1 3.14.2:4 3.14.4:3 3.15.1:1 3.15.2:3 4.1.0:2 4.2:1 4.3.1:1 4.3.2:5 4.3.3:13 4.4.0:2 4.5.0:2 4.6.0:6 4.7.0:1
4.7.1:2 4.7.2:1 4.7.3:4 4.8.2:6 4.9.0:3 4.12.0:7 4.12.1:2 4.13.1:1 4.13.2:1 6.0.0:4`
	all311 = `1.5.3:3 2.2.2:2 2.3.1:7 3.1.0:2 3.1.2:24 3.1.3:11 3.1.4:5 3.2.0:1 3.2.2:6 3.3.1:12 3.3.2:3 3.3.4:1 3.3.5:2 3.6.1:1 3.8.1:1
3.8.3:4 3.8.4:6 3.9.3:2 3.10.1:1 3.10.3:2 3.10.4:6 3.12.4:1 3.14.1:1 3.14.4:3 4.1.0:2 4.2.0:1 4.3.1:1 4.3.2:2 4.3.3:2 4.4.0:1 4.5.0:2
4.6.0:6 4.7.1:3 4.7.2:1 4.7.3:4 4.8.0:2 6.0.0:4 7.0.0:2 7.1.1:1 7.1.2:1`
)

// numbers unfolds all5 or all311.
func numbers(t *testing.T, folded string) (ids []string) {
	t.Helper()
	for _, f := range strings.Fields(folded) {
		section, count, _ := strings.Cut(f, ":")
		first, last := 1, 0
		if strings.Contains(count, "-") {
			if _, err := fmt.Sscanf(count, "%d-%d", &first, &last); err != nil {
				t.Fatal(err)
			}
		} else if _, err := fmt.Sscan(count, &last); err != nil {
			t.Fatal(err)
		}
		for n := first; n <= last; n++ {
			ids = append(ids, fmt.Sprintf("%s-%d", section, n))
		}
	}
	return ids
}

// TestEveryClause wants every clause of both specifications in one of the tables,
// and none that does not exist.
func TestEveryClause(t *testing.T) {
	for _, spec := range []struct {
		name   string
		all    string
		checks []check
		exempt map[string]string
	}{{"MQTT 5", all5, clauses5, exempt5}, {"MQTT 3.1.1", all311, clauses311, exempt311}} {
		ids := numbers(t, spec.all)
		have := map[string]bool{}
		for _, c := range spec.checks {
			if have[c.id] {
				t.Errorf("%s: %s stands twice in the table", spec.name, c.id)
			}
			if !slices.Contains(ids, c.id) {
				t.Errorf("%s has no clause %s", spec.name, c.id)
			}
			have[c.id] = true
		}
		for id := range spec.exempt {
			if have[id] || !slices.Contains(ids, id) {
				t.Errorf("%s: %s is exempt, and checked or unknown", spec.name, id)
			}
			have[id] = true
		}
		for _, id := range ids {
			if !have[id] {
				t.Errorf("%s: nothing is said about %s", spec.name, id)
			}
		}
	}
}
