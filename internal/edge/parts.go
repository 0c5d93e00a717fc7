package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
)

// parts are the running pieces of the edge, in the order of their start. One
// goroutine, that of Run, starts and stops them.
type parts struct {
	log    *slog.Logger
	list   []*part
	failed chan *part // the first that ended before it was told to
}

type part struct {
	name   string
	cancel context.CancelCauseFunc
	done   chan struct{}
	err    error // valid once done is closed
}

func newParts(log *slog.Logger) *parts {
	return &parts{log: log, failed: make(chan *part, 1)}
}

// start runs a part until stop. Its context is its own: it does not end with
// the others'.
func (p *parts) start(name string, run func(context.Context) error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	x := &part{name: name, cancel: cancel, done: make(chan struct{})}
	p.list = append(p.list, x)
	go func() {
		x.err = run(ctx)
		if ctx.Err() == nil {
			if x.err == nil {
				x.err = errors.New("ended without a reason")
			}
			select {
			case p.failed <- x:
			default: // another one was first
			}
		}
		close(x.done)
	}()
}

// stop ends the parts, the last started first, each after the one before it has
// ended, and gives what went wrong.
func (p *parts) stop(reason error) error {
	var errs []error
	for i := len(p.list) - 1; i >= 0; i-- {
		x := p.list[i]
		p.log.Info("stopping", "part", x.name, "reason", reason)
		x.cancel(reason)
		<-x.done
		if x.err != nil && !errors.Is(x.err, context.Canceled) {
			errs = append(errs, fmt.Errorf("%s: %w", x.name, x.err))
		}
	}
	p.list = nil
	return errors.Join(errs...)
}
