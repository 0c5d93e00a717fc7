package edge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/packetboat/packetboat/internal/obs"
)

// tellEvery is how often the service manager gets a line.
const tellEvery = 15 * time.Second

// observe adds what is known of the edge to its health and metrics.
func (e *Edge) observe() {
	// A buffer whose lock is never given back would hang here, and with it the
	// watchdog: that is what the watchdog is for.
	e.health.Alive("buffer", func() error { _ = e.buffer.Stats(); return nil })
	e.health.Ready("start", func() error {
		if e.front.Load() == nil {
			return errors.New("sensors cannot connect yet")
		}
		return nil
	})
	e.health.Ready("disk", func() error {
		if s := e.buffer.Stats(); s.DiskError != "" {
			return errors.New(s.DiskError)
		}
		return nil
	})
	e.health.Ready("buffer", func() error {
		switch s := e.buffer.Stats(); {
		case s.Full:
			return errors.New("full: a lane refuses new messages")
		case !s.ConservationOK:
			return errors.New("accepted is not settled + queued + in flight + lost")
		}
		return nil
	})
	if e.users != nil {
		e.health.Ready("users", e.users.Err)
	}
	if e.acl != nil {
		e.health.Ready("acl", e.acl.Err)
	}
	if e.tls != nil {
		e.health.Ready("sensors.tls", e.tls.Err)
	}
	e.register()
}

// handler serves metrics, health and the status.
func (e *Edge) handler() http.Handler {
	mux := obs.Mux(e.metrics, &e.health)
	mux.HandleFunc("GET /api/v1/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		_ = enc.Encode(e.Status()) // who asked has gone
	})
	return mux
}

// tell keeps the service manager informed until ctx ends.
func (e *Edge) tell(ctx context.Context, n *obs.Notify) error {
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		n.Watchdog(ctx, e.health.CheckAlive)
	}()
	defer func() { <-watched }()
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			s := e.buffer.Stats()
			n.Status(fmt.Sprintf("link %s, %d messages wait, %d accepted", e.uplink.Stats().State, s.Queued+s.InFlight, s.Accepted))
		}
	}
}
