package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
)

// Signals returns a context that ends with the first SIGINT or SIGTERM, its
// cause naming the signal. From then on signals have their usual effect again,
// so that a second one ends the process at once. stop releases what Signals
// took and waits for its goroutine.
func Signals(parent context.Context) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	got := make(chan os.Signal, 1)
	signal.Notify(got, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case s := <-got:
			signal.Stop(got)
			cancel(fmt.Errorf("signal: %s", s))
		case <-ctx.Done():
			signal.Stop(got)
		}
	}()
	return ctx, func() {
		cancel(context.Canceled)
		<-done
	}
}

// ListenError says why addr cannot be listened on, with exit code Listen.
func ListenError(key, addr string, err error) error {
	hint := fmt.Sprintf("set %s to an address of this machine", key)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		hint = fmt.Sprintf("another process has this port; stop it or set %s to another one", key)
	case errors.Is(err, syscall.EACCES):
		hint = fmt.Sprintf("ports below 1024 need a privilege; set %s to a higher one", key)
	}
	// The net package repeats operation and address; the cause is enough.
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return Fail(Listen, fmt.Errorf("listen on %s: %w", addr, err), hint)
}
