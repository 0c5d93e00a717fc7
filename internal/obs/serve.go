package obs

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// shutdownTime is how long requests may go on after the end was asked for.
const shutdownTime = 3 * time.Second

// maxConnections bounds what a Serve has open; who comes then waits.
const maxConnections = 256

// Serve answers requests on l until ctx ends, then lets those that run finish
// for a short while, closes l and returns nil. It returns an error when the
// listener fails. The contexts of requests end with ctx, so that streams do. At
// most 256 connections are open at once.
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
	go func() {
		failed <- s.Serve(&limited{Listener: l, slots: make(chan struct{}, maxConnections), closed: make(chan struct{})})
	}()
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

// limited accepts a connection only when a slot is free.
type limited struct {
	net.Listener
	slots  chan struct{}
	once   sync.Once
	closed chan struct{}
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &slotted{Conn: c, l: l}, nil
}

func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// slotted gives its slot back when it is closed.
type slotted struct {
	net.Conn
	l    *limited
	once sync.Once
}

func (c *slotted) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { <-c.l.slots })
	return err
}
