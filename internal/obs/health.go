package obs

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
)

// Health is what a program says of itself: whether it is alive (if not, it
// should be restarted) and whether it is ready (if not, it should be left
// alone). The zero value is alive and ready; methods are safe for concurrent
// use.
type Health struct {
	mu    sync.Mutex
	alive []check // guarded by mu
	ready []check // guarded by mu
}

type check struct {
	name string
	ask  func() error
}

// Alive adds a condition for being alive. ask is called from any goroutine and
// must not block.
func (h *Health) Alive(name string, ask func() error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.alive = append(h.alive, check{name, ask})
}

// Ready adds a condition for being ready. ask is called from any goroutine and
// must not block.
func (h *Health) Ready(name string, ask func() error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ready = append(h.ready, check{name, ask})
}

// CheckAlive gives everything that keeps the program from being alive.
func (h *Health) CheckAlive() error { return h.run(&h.alive) }

// CheckReady gives everything that keeps the program from being ready.
func (h *Health) CheckReady() error { return errors.Join(h.run(&h.alive), h.run(&h.ready)) }

func (h *Health) run(list *[]check) error {
	h.mu.Lock()
	checks := *list
	h.mu.Unlock()
	var errs []error
	for _, c := range checks {
		if err := c.ask(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.name, err))
		}
	}
	return errors.Join(errs...)
}

// Mux serves /metrics, /healthz and /readyz. The last two answer 200 "ok", or
// 503 with one line per reason.
func Mux(m *Metrics, h *Health) *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", m.Handler())
	mux.HandleFunc("GET /healthz", answer(h.CheckAlive))
	mux.HandleFunc("GET /readyz", answer(h.CheckReady))
	return mux
}

func answer(ask func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		text := "ok"
		if err := ask(); err != nil {
			text = err.Error()
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprintln(w, strings.TrimSpace(text))
	}
}
