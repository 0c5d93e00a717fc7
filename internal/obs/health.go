package obs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
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

// shutdownTime is how long requests may go on after the end was asked for.
const shutdownTime = 3 * time.Second

// Serve answers requests on l until ctx ends, then lets those that run finish
// for a short while, closes l and returns nil. It returns an error when the
// listener fails. The contexts of requests end with ctx, so that streams do.
func Serve(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve http on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	if err := s.Shutdown(end); err != nil {
		_ = s.Close() // who still talks is cut off
	}
	<-failed
	return nil
}
