package e2e

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/packetboat/packetboat/internal/rig/badlink"
)

func removeAll(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

// through puts a bad link before the hub for edges started afterwards.
func (w *world) through(c badlink.Conditions) *badlink.Link {
	w.t.Helper()
	l, err := badlink.New(badlink.Options{Listen: "127.0.0.1:0", Target: w.hubMQTT, Conditions: c, Seed: 1})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("bad link: %v", err)
		}
	})
	w.hubURL = "tcp://" + l.Addr()
	return l
}

// The hub is gone in every way a network knows; the edge keeps accepting and
// resumes by itself.
func TestHubGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l := w.through(badlink.Conditions{})
	e := w.newEdge("edge", "edge-data")
	sim := w.sensors(e, 51, 300)
	for _, cut := range []badlink.Cut{badlink.Refuse, badlink.Reset, badlink.BlackHole} {
		before := e.settled()
		eventually(t, "something settles", func() bool { return e.settled() > before })
		if err := l.Cut(cut); err != nil {
			t.Fatal(err)
		}
		before = e.accepted()
		eventually(t, "sensors are served while the hub is gone", func() bool { return e.accepted() > before+300 })
		if err := l.Cut(badlink.Up); err != nil {
			t.Fatal(err)
		}
	}
	before := e.settled()
	eventually(t, "it settles again", func() bool { return e.settled() > before })
	sim.stop()
	e.drained()
	w.proven()
}

// Every recording goes through edge, bad link and hub, and both verifiers are
// clean. One of them runs in short mode.
func TestReplayRecordings(t *testing.T) {
	t.Parallel()
	files := []string{"ev-gps.csv", "obd.csv", "can.candump.log", "ship.nmea0183.log", "ship.n2k.csv", "iot-payloads.json"}
	if testing.Short() {
		files = files[5:]
	}
	for _, name := range files {
		t.Run(name, func(t *testing.T) {
			path, err := filepath.Abs(filepath.Join("..", "..", "..", "shared", "data", name))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(path); err != nil {
				t.Skipf("the recordings lie outside the repository, in ../shared/data: %v", err)
			}
			w := newWorld(t)
			w.through(badlink.Conditions{RateUp: 4 << 20, RateDown: 4 << 20})
			e := w.newEdge("edge", "edge-data")
			sim := start(t, w.dir, "packetboat-sim", "replay", path, "--speed", "max", "--broker", "tcp://"+e.mqtt, "--receipts", w.receipts)
			<-sim.done
			sim.wait(0)
			e.drained()
			w.proven()
		})
	}
}
