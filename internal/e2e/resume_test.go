package e2e

import (
	"testing"
	"time"

	"github.com/packetboat/packetboat/internal/rig/badlink"
	"github.com/packetboat/packetboat/pkg/codec"
)

// carLanes give a car two lanes, which share a codec session; batches of the
// urgent one are nearly always in flight.
const carLanes = "lanes:\n  - {name: urgent, filters: [+/+/fault, +/+/warning]}\n"

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
	breaks  = 11     // of the link in a run, two of each kind but of the slowest
	carload = 45_000 // messages of a run
)

// carRun sends a car's messages over a link that breaks so many times, and
// proves that all of them arrived exactly once. hub is configuration of the edge.
func carRun(t *testing.T, hub string, breaks int) (c cost) {
	w := newWorld(t)
	l := w.through(badlink.Conditions{Delay: 40 * time.Millisecond})
	w.hubMore["edge"] = "  keep_alive: 4s\n" + hub // a hub gives a black hole up after six
	w.more["edge"] = carLanes
	e := w.newEdge("edge", "edge-data")
	sim := w.car(e, "1")
	r := chance(t)
	e.settles(0)
	for _, kind := range append(r.Perm(len(breakages)), r.Perm(len(breakages)-1)...)[:breaks] {
		b, before := breakages[kind], e.codec()
		pauseOf(r, 500*time.Millisecond)
		b.cut(t, l, e)
		e.settles(before.Connects)
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

// counts wants both sides to have counted the same sessions: one that goes on
// over all connections, or a fresh one for each.
func (c *cost) counts(t *testing.T, breaks int, resumes bool) {
	t.Helper()
	e, h := c.edge, c.hub
	fresh, resumed := e.Connects, 0.0
	if resumes {
		fresh, resumed = 1, e.Connects-1
	}
	if e.Connects < float64(breaks+1) || e.Fresh > fresh || e.Resumed != resumed || resumes && h.Fresh != 1 {
		t.Errorf("want %.0f fresh sessions and %.0f resumed: edge %+v, hub %+v", fresh, resumed, e, h)
	}
	// A slow machine may break the link once more, before a welcome has arrived
	// or a first batch was decoded: then one side has counted and the other not.
	if e.Connects == float64(breaks+1) && h.Connects == e.Connects {
		if e.Fresh != fresh || h.Fresh != fresh || h.Resumed != resumed {
			t.Errorf("want %.0f fresh sessions and %.0f resumed: edge %+v, hub %+v", fresh, resumed, e, h)
		}
	} else {
		t.Logf("%d breaks of the test and more of the machine: edge welcomed %.0f times, hub welcomed %.0f", breaks, e.Connects, h.Connects)
	}
}

// A link that breaks every second or so, in every way and with batches in
// flight, does not pay for learning again.
func TestBreakingLink(t *testing.T) {
	t.Parallel()
	var whole, resumed, forgetful cost
	beside(t, map[string]func(*testing.T){
		"whole":     func(t *testing.T) { whole = carRun(t, "", 0) },
		"resumed":   func(t *testing.T) { resumed = carRun(t, "", breaks) },
		"forgetful": func(t *testing.T) { forgetful = carRun(t, "  codec: {keep: 0s}\n", breaks) },
	})
	if t.Failed() {
		return
	}
	whole.counts(t, 0, true)
	resumed.counts(t, breaks, true)
	forgetful.counts(t, breaks, false)
	// Sessions that are resumed cost what is sent again and the CONNECT packets.
	t.Logf("bytes per message: whole %.2f, resumed %.2f, forgetful %.2f", whole.perMessage, resumed.perMessage, forgetful.perMessage)
	if resumed.perMessage > 1.5*whole.perMessage || resumed.perMessage > 0.75*forgetful.perMessage {
		t.Error("resuming should stay within 1.5 times an uninterrupted run and below 0.75 times one that forgets")
	}
	// A car's 850 sensors fit the default with room.
	for _, c := range []cost{whole, resumed} {
		if limit := float64(codec.DefaultState); c.hub.State < limit/4 || c.hub.State > 0.9*limit {
			t.Errorf("a car's state takes %.0f bytes of %.0f", c.hub.State, limit)
		}
	}
}

// With the least memory there is, both sides forget most of a car in step, and
// find back to each other over breaks.
func TestLeastState(t *testing.T) {
	t.Parallel()
	c := carRun(t, "  codec: {state_bytes: 256KiB}\n", len(breakages))
	c.counts(t, len(breakages), true)
	if c.hub.State < 0.8*codec.MinState || c.hub.State > codec.MinState {
		t.Errorf("the state takes %.0f bytes of %d: it should be full", c.hub.State, codec.MinState)
	}
}

// A side that was killed has forgotten what it learned: the next session begins
// fresh, without a batch in vain.
func TestKilledSideForgets(t *testing.T) {
	t.Parallel()
	const kills = 3
	run := func(t *testing.T, kill func(*world, *edge) (before float64), counts func(*testing.T, *world, *edge)) (edgeCodec, hubCodec) {
		w := newWorld(t)
		w.through(badlink.Conditions{Delay: 40 * time.Millisecond})
		w.more["edge"] = carLanes
		e := w.newEdge("edge", "edge-data")
		sim := w.car(e, "1", "--rate", "2000")
		r := chance(t)
		e.settles(0)
		for range kills {
			flies(t, e)
			pauseOf(r, 30*time.Millisecond)
			e.settles(kill(w, e))
			counts(t, w, e)
		}
		sim.stop()
		e.drained()
		is, hub := e.codec(), w.codec()
		if is.Bad+is.Distrusted+is.Alone+hub.Bad+hub.Alone > 0 {
			t.Errorf("a batch was not decodable, or stood for itself: edge %+v, hub %+v", is, hub)
		}
		w.proven()
		return is, hub
	}
	beside(t, map[string]func(*testing.T){
		"edge": func(t *testing.T) {
			_, hub := run(t, func(_ *world, e *edge) float64 {
				e.kill()
				e.start()
				return 0
			}, func(t *testing.T, _ *world, e *edge) {
				if c := e.codec(); c.Fresh != 1 || c.Resumed != 0 {
					t.Errorf("an edge that was started again: %+v", c)
				}
			})
			if hub.Fresh != 1+kills || hub.Resumed != 0 || hub.Dropped["unwanted"] != kills {
				t.Errorf("the hub has seen %+v", hub)
			}
		},
		"hub": func(t *testing.T) {
			is, _ := run(t, func(w *world, e *edge) float64 {
				before := e.codec().Connects
				w.hub.kill()
				w.startHub()
				return before
			}, func(t *testing.T, w *world, _ *edge) {
				if c := w.codec(); c.Fresh != 1 || c.Resumed != 0 || len(c.Dropped) != 0 {
					t.Errorf("a hub that was started again: %+v", c)
				}
			})
			if is.Fresh != 1+kills || is.Resumed != 0 {
				t.Errorf("the edge has seen %+v", is)
			}
		},
	})
}
