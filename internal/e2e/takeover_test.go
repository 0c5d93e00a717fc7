package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/packetboat/packetboat/internal/rig/badlink"
)

// twoHubs are hubs that one edge goes back and forth between.
type twoHubs struct {
	e     *edge
	hubs  [2]*world
	links [2]*badlink.Link
	at    int // where the edge is
}

// turn breaks the connection; the edge goes to the next hub of its list.
func (h *twoHubs) turn(t *testing.T) {
	t.Helper()
	before := h.e.codec().Connects
	cut(t, h.links[h.at], badlink.Reset)
	h.at = 1 - h.at
	cut(t, h.links[h.at], badlink.Up)
	eventually(t, "the other hub is there", func() bool { c := h.e.codec(); return c.Connects > before && c.Up == 1 })
}

// A device goes back and forth between two hubs, each with a log of its own,
// and each keeps what it learned: whether the hub stands at a number of bodies
// that the edge could go back to or not, it is another session's, and nothing
// is decoded with it.
func TestTakeoverAndBack(t *testing.T) {
	t.Parallel()
	a, b := newWorld(t), newWorld(t)
	h := &twoHubs{hubs: [2]*world{a, b}}
	for i, w := range h.hubs {
		h.links[i] = w.through(badlink.Conditions{Delay: 10 * time.Millisecond})
	}
	cut(t, h.links[1], badlink.Reset)
	a.otherHubs = []string{b.hubURL}
	a.more["edge"] = carLanes
	h.e = a.newEdge("edge", "edge-data")
	sim := a.car(h.e, "1", "--rate", "2000")
	b.receipts = a.receipts
	r := chance(t)
	h.e.settles(0)
	stood := [2]float64{}  // bodies at which each hub stood when the edge left, or some more
	within, beyond := 0, 0 // of what the edge can go back to
	for turn := range 10 {
		// By turns shorter than the session at the other hub, and longer.
		began := h.e.codec().Settled
		bodies := func() float64 { return h.e.codec().Settled - began }
		if there := stood[1-h.at]; there < 4 || turn%4 < 2 {
			eventually(t, "a longer session", func() bool { return bodies() > there+3 })
			within++
		} else {
			eventually(t, "a session", func() bool { return bodies() > 0 })
			beyond++
		}
		pauseOf(r, 50*time.Millisecond)
		stood[h.at] = bodies()
		h.turn(t)
	}
	h.e.settles(h.e.codec().Connects - 1)
	sim.stop()
	h.e.drained()
	is, there, other := h.e.codec(), h.hubs[h.at], h.hubs[1-h.at]
	t.Logf("sessions longer than the other hub's %d, shorter %d: edge %+v, hubs %+v and %+v", within, beyond, is, there.codec(), other.codec())
	if is.Fresh != is.Connects || is.Resumed != 0 || is.Bad != 0 || is.Distrusted != 0 {
		t.Errorf("edge %+v", is)
	}
	if !strings.Contains(h.e.said(), "the digest after") {
		t.Error("a hub never stood where the edge's other session could have gone back to")
	}
	// Each hub is told what the other one has when the edge comes.
	for range h.hubs {
		w := h.hubs[h.at]
		if c := w.codec(); c.Bad != 0 || c.Alone != 0 {
			t.Errorf("hub %+v", c)
		}
		_, lost := w.streams()
		if w.audited(); lost["other_log"] == 0 || len(lost) != 1 {
			t.Errorf("lost %v", lost)
		}
		w.declared(lost["other_log"])
		h.turn(t)
	}
}
