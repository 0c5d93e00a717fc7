package e2e

import (
	"testing"
	"time"

	"github.com/packetboat/packetboat/internal/rig/badlink"
)

// carLanes spread a car's messages over all lanes, which share a codec session;
// batches of the urgent one are nearly always in flight.
const carLanes = `lanes:
  - {name: urgent, filters: [+/+/fault, +/+/warning]}
  - {name: bulk, filters: [+/+/level, +/+/mode]}
`

// car starts the sensors of a car: 850 of them, 4,433 messages/s unless extra
// says otherwise.
func (w *world) car(e *edge, seed string, extra ...string) *process {
	w.t.Helper()
	args := append([]string{"sensors", "--broker", "tcp://" + e.mqtt, "--profile", "car", "--seed", seed, "--receipts", w.receipts}, extra...)
	return start(w.t, w.dir, "packetboat-sim@car-"+seed, args...)
}

// cost is what a car's messages took on the link.
type cost struct {
	perMessage float64
	edge       edgeCodec
	hub        hubCodec
}

const (
	breaks  = 12     // of the link in a run, two of each kind
	carload = 45_000 // messages of a run
)

// carRun sends a car's messages over a link that breaks so many times, and
// proves that all of them arrived exactly once. hub is configuration of the edge.
func carRun(t *testing.T, hub string, breaks int) (c cost) {
	w := newWorld(t)
	l := w.through(badlink.Conditions{Delay: 40 * time.Millisecond})
	w.hubMore["edge"] = "  keep_alive: 1s\n" + hub // a hub gives a black hole up after one and a half
	w.more["edge"] = carLanes
	e := w.newEdge("edge", "edge-data")
	sim := w.car(e, "1")
	r := chance(t)
	e.settles(0)
	for i, kind := range append(r.Perm(len(breakages)), r.Perm(len(breakages))...)[:breaks] {
		b, before := breakages[kind], e.codec()
		pauseOf(r, 500*time.Millisecond)
		b.cut(t, l, e)
		e.settles(before.Connects)
		if now := e.codec().Connects; now != before.Connects+1 {
			t.Errorf("break %d, %s: the edge was welcomed %.0f times since", i, b.name, now-before.Connects)
		}
	}
	eventually(t, "all messages of the run settle", func() bool { return e.settled() >= carload })
	sim.stop()
	e.drained()
	c.edge, c.hub = e.codec(), w.codec()
	c.perMessage = c.edge.Sent / e.settled()
	t.Logf("%.0f messages, %.2f bytes each on the link\nedge %+v\nhub  %+v", e.settled(), c.perMessage, c.edge, c.hub)
	if c.edge.Bad+c.edge.Lowered+c.edge.Distrusted+c.edge.Alone+c.hub.Bad+c.hub.Alone > 0 {
		t.Error("a batch was not decodable, or stood for itself")
	}
	w.proven()
	return c
}

// A link that breaks every second or so, in every way and with batches in
// flight, does not pay for learning again.
func TestBreakingLink(t *testing.T) {
	t.Parallel()
	var whole, resumed, forgetful cost
	t.Run("runs", func(t *testing.T) {
		t.Run("forgetful", func(t *testing.T) { t.Parallel(); forgetful = carRun(t, "  codec: {keep: 0s}\n", breaks) })
		t.Run("resumed", func(t *testing.T) { t.Parallel(); resumed = carRun(t, "", breaks) })
		t.Run("whole", func(t *testing.T) { t.Parallel(); whole = carRun(t, "", 0) })
	})
	for _, c := range []struct {
		name           string
		is             cost
		fresh, resumed float64
	}{{"whole", whole, 1, 0}, {"resumed", resumed, 1, breaks}, {"forgetful", forgetful, 1 + breaks, 0}} {
		if e, h := c.is.edge, c.is.hub; e.Fresh != c.fresh || h.Fresh != c.fresh || e.Resumed != c.resumed || h.Resumed != c.resumed {
			t.Errorf("%s: sessions fresh %.0f at the edge, %.0f at the hub, want %.0f; resumed %.0f, %.0f, want %.0f",
				c.name, e.Fresh, h.Fresh, c.fresh, e.Resumed, h.Resumed, c.resumed)
		}
	}
	// Sessions that are resumed cost what is sent again and the CONNECT packets.
	t.Logf("bytes per message: whole %.2f, resumed %.2f, forgetful %.2f", whole.perMessage, resumed.perMessage, forgetful.perMessage)
	if resumed.perMessage > 1.5*whole.perMessage || resumed.perMessage > 0.75*forgetful.perMessage {
		t.Error("resuming should stay within 1.5 times an uninterrupted run and below 0.75 times one that forgets")
	}
}
