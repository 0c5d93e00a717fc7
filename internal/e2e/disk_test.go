package e2e

import (
	"strings"
	"testing"
)

// An image of the edge's disk, taken while it had a backlog, comes back after
// the original went on: no number is used twice, nothing is double.
func TestRestoredImage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.hub.stop()
	e := w.newEdge("edge", "edge-data")
	sim := w.sensors(e, 11, 500)
	eventually(t, "a backlog", func() bool { return e.backlog() > 200 })
	e.kill()
	copyDir(t, e.data, w.path("image"))
	e.start()
	before := e.accepted()
	eventually(t, "the original goes on", func() bool { return e.accepted() > before+200 })
	w.startHub()
	sim.stop()
	e.drained()
	e.stop()
	w.proven()

	copyDir(t, w.path("image"), e.data)
	e.start()
	sim = w.sensors(e, 12, 500)
	before = e.accepted()
	eventually(t, "the restored edge takes messages", func() bool { return e.accepted() > before+200 })
	sim.stop()
	e.drained()
	w.proven()
}

// Two edges run from copies of one disk under one device id, and take the
// connection from each other.
func TestClonedDisk(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.hub.stop()
	a := w.newEdge("a", "a-data")
	simA := w.sensors(a, 21, 500)
	eventually(t, "a backlog", func() bool { return a.backlog() > 200 })
	a.kill()
	copyDir(t, a.data, w.path("b-data"))
	a.start()
	b := w.newEdge("b", "b-data")
	simB := w.sensors(b, 22, 500, "--receipts", w.path("receipts-b"))
	w.startHub()
	for _, e := range []*edge{a, b} {
		before := e.settled()
		eventually(t, e.name+" settles", func() bool { return e.settled() > before })
	}
	simA.stop()
	simB.stop()
	// One connection at a time: each drains while the other rests.
	b.stop()
	a.drained()
	a.stop()
	b.start()
	b.drained()
	w.proven()
	w.receipts = w.path("receipts-b")
	w.proven()
}

// The hub's log is wiped: what the edge still holds goes to the new log, what
// it settled in the old one is declared there as other_log, nothing waits for
// ever.
func TestWipedHub(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.newEdge("edge", "edge-data")
	sim := w.sensors(e, 31, 500)
	eventually(t, "something settles", func() bool { return e.settled() > 300 })
	w.hub.kill()
	before := e.accepted()
	eventually(t, "a backlog", func() bool { return e.accepted() > before+300 })
	removeAll(t, w.path("hub-data"))
	w.startHub()
	sim.stop()
	e.drained()
	if out := w.audited(); !strings.Contains(out, "other_log") {
		t.Errorf("no loss other_log in:\n%s", out)
	}
	_, lost := w.streams()
	w.declared(lost["other_log"])
}

// The hub's log comes back from a backup: what was settled since is declared
// log_restored, what the edge still holds arrives, nothing is double.
func TestHubLogFromBackup(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.newEdge("edge", "edge-data")
	sim := w.sensors(e, 41, 500)
	eventually(t, "something settles", func() bool { return e.settled() > 300 })
	w.hub.stop()
	copyDir(t, w.path("hub-data"), w.path("backup"))
	w.startHub()
	before := e.settled()
	eventually(t, "more settles", func() bool { return e.settled() > before+300 })
	w.hub.stop()
	copyDir(t, w.path("backup"), w.path("hub-data"))
	w.startHub()
	before = e.settled()
	eventually(t, "it goes on", func() bool { return e.settled() > before+100 })
	sim.stop()
	e.drained()
	if out := w.audited(); !strings.Contains(out, "log_restored") {
		t.Errorf("no loss log_restored in:\n%s", out)
	}
	_, lost := w.streams()
	w.declared(lost["log_restored"])
}
