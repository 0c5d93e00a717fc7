package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
)

// The journal reaches its limit while the hub is away, and the edge is killed
// there: what it gave up is declared, and the edge, `packetboat-hub streams` and
// both verifiers tell the same numbers.
func TestEvictionIsDeclared(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.hub.stop()
	e := w.newEdge("edge", "edge-data")
	e.stop()
	w.write("edge.yaml", w.read("edge.yaml")+"buffer:\n  max_bytes: 16MiB\nlanes:\n  - name: bulk\n    filters: [steady-61-1/#, steady-61-2/#]\n")
	e.start()
	sim := w.sensors(e, 61, 20_000, "--window", "1000")
	eventually(t, "the journal gives messages up", func() bool { return e.lost() > 0 })
	e.kill()
	e.start()
	before := e.lost()
	eventually(t, "it goes on giving up", func() bool { return e.lost() > before })
	sim.stop() // its last acknowledgements come without a hub
	w.startHub()
	e.drained()

	accepted, settled, lost := e.accepted(), e.settled(), e.lost()
	if accepted != settled+lost {
		t.Errorf("accepted %.0f, settled %.0f, lost %.0f", accepted, settled, lost)
	}
	if in, gone := w.streams(); in != settled || gone["evicted"] != lost || len(gone) != 1 {
		t.Errorf("the hub has %.0f in the log and lost %v; the edge settled %.0f and lost %.0f", in, gone, settled, lost)
	}
	if out := w.audited(); !strings.Contains(out, fmt.Sprintf("evicted %.0f", lost)) {
		t.Errorf("the edge lost %.0f:\n%s", lost, out)
	}
	w.declared(lost)
}

// streams sums what packetboat-hub streams tells of the only device.
func (w *world) streams() (in float64, lost map[string]float64) {
	w.t.Helper()
	out, code := w.command("packetboat-hub", "streams", "--all", "--json", "--hub", "http://"+w.hubHTTP)
	var device struct {
		Streams []struct {
			In     struct{ Count float64 }
			LostBy map[string]float64 `json:"lost_by"`
		}
	}
	if err := json.Unmarshal([]byte(out), &device); err != nil || code != 0 {
		w.t.Fatalf("packetboat-hub streams exits with %d: %v\n%s", code, err, out)
	}
	lost = map[string]float64{}
	for _, s := range device.Streams {
		in += s.In.Count
		for reason, n := range s.LostBy {
			lost[reason] += n
		}
	}
	return in, lost
}

// declared holds the receipts against the log: nothing is missing but what was
// declared lost, and the verifier says how much of that it is sure of.
func (w *world) declared(lost float64) {
	w.t.Helper()
	out, code := w.command("packetboat-sim", "verify", "--json", "--receipts", w.receipts, "--hub", "http://"+w.hubHTTP)
	var r struct {
		Acknowledged, Undecidable float64
		Declared                  float64            `json:"declared_lost"`
		Numbers                   map[string]float64 `json:"lost_numbers"`
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 {
		w.t.Fatalf("packetboat-sim verify exits with %d: %v\n%s", code, err, out)
	}
	numbers := float64(0)
	for _, n := range r.Numbers {
		numbers += n
	}
	if r.Acknowledged == 0 || numbers != lost || r.Declared == 0 || r.Declared+r.Undecidable > lost {
		w.t.Errorf("lost %.0f, and packetboat-sim verify says: %+v", lost, r)
	}
	w.t.Logf("lost %.0f, declared for certain %.0f, undecidable %.0f", lost, r.Declared, r.Undecidable)
}

func (w *world) read(name string) string {
	w.t.Helper()
	b, err := os.ReadFile(w.path(name))
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}
