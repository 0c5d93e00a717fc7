package e2e

import (
	"math/rand/v2"
	"testing"
	"time"
)

// kills is how often each process is killed: the issue of a race needs
// repetition, not luck.
const kills = 30

// The edge is killed again and again while sensors publish; nothing that was
// acknowledged is missing, nothing is double.
func TestKillEdge(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.newEdge("edge", "edge-data")
	sim := w.sensors(e, 1, 2000)
	for i := range kills {
		more(t, e, i)
		e.kill()
		e.start()
	}
	sim.stop()
	e.drained()
	w.proven()
}

// The hub is killed again and again while a batch is always on its way.
func TestKillHub(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.newEdge("edge", "edge-data")
	// So many that the hub is in a commit most of the time: with 2,000 messages/s
	// no kill met a hub that answered before its commit.
	sim := w.sensors(e, 4, 20_000)
	for range kills {
		before := e.settled()
		eventually(t, "something settles", func() bool { return e.settled() > before })
		pause()
		w.hub.kill()
		w.startHub()
	}
	sim.stop()
	e.drained()
	w.proven()
}

// Both die at once, as in a test bench that loses its mains.
func TestKillBoth(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.newEdge("edge", "edge-data")
	sim := w.sensors(e, 3, 2000)
	for i := range kills / 3 {
		more(t, e, i)
		e.kill()
		w.hub.kill()
		w.startHub()
		e.start()
	}
	sim.stop()
	e.drained()
	w.proven()
}

// more waits until an edge has accepted something since it started, then a
// little, so that the kill falls anywhere.
func more(t *testing.T, e *edge, round int) {
	t.Helper()
	before := e.accepted()
	eventually(t, "the edge accepts messages", func() bool { return e.accepted() > before })
	if round%2 == 0 {
		eventually(t, "something settles", func() bool { return e.settled() > 0 })
	}
	pause()
}

// pause moves the kill within the cycle of commits; nothing is asserted on it.
func pause() { <-time.After(time.Duration(rand.IntN(30_000)) * time.Microsecond) }
