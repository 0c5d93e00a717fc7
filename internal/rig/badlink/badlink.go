// Package badlink is a TCP proxy that imitates a bad link: it limits the rate,
// delays, jitters, stalls as a lossy radio does, and cuts in three ways.
//
// It promises that the bytes of a connection arrive unchanged and in order, if
// they arrive; that rate and loss are shared by all connections of a direction,
// as on a real link; that memory is bounded per connection; and that Run leaves
// no goroutine behind. It imitates what TCP makes of a bad link, not the packets
// themselves: a lost packet is a stall, and nothing is ever reordered. Times are
// those of the operating system's timers, so they are never exact.
package badlink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Cut says what a link does with traffic.
type Cut string

// The cuts.
const (
	// Up is no cut at all.
	Up Cut = "up"
	// Refuse closes every connection and the listener: who dials is refused.
	Refuse Cut = "refuse"
	// Reset resets every connection, and each new one as soon as it is there.
	Reset Cut = "reset"
	// BlackHole accepts connections, and nothing flows, not even a close.
	// Existing connections freeze, and go on when the link is up again.
	BlackHole Cut = "blackhole"
)

// ParseCut reads the name of a Cut.
func ParseCut(s string) (Cut, error) {
	switch c := Cut(s); c {
	case Up, Refuse, Reset, BlackHole:
		return c, nil
	}
	return "", fmt.Errorf("%.40q is not a cut: use up, refuse, reset or blackhole", s)
}

// Conditions are what the link is like. The zero value is a perfect link.
type Conditions struct {
	// Cut is Up when empty.
	Cut Cut `json:"cut"`
	// RateUp and RateDown limit bytes per second towards the target and back;
	// 0: no limit.
	RateUp   int64 `json:"rate_up"`
	RateDown int64 `json:"rate_down"`
	// Delay is added to everything each way, and a random part of Jitter.
	Delay  time.Duration `json:"delay"`
	Jitter time.Duration `json:"jitter"`
	// Loss is the share, 0 to 1, of packets (1,400 bytes) that are lost: each
	// stops its direction for Stall, which is 200 ms when 0.
	Loss  float64       `json:"loss"`
	Stall time.Duration `json:"stall"`
}

// Options say where a link goes and how it starts.
type Options struct {
	// Listen is the address to listen on; port 0 takes a free one.
	Listen string
	// Target is the address that connections go to.
	Target string
	// Conditions are those at the start.
	Conditions Conditions
	// Schedule changes the conditions as time goes by, from Run's start.
	Schedule Schedule
	// Seed makes jitter and loss repeatable.
	Seed uint64
	// Logger is told of cuts and of targets that cannot be reached; nil: nobody.
	Logger *slog.Logger
}

// Stats are counters since the start. Bytes are counted when they leave the
// link, each way.
type Stats struct {
	BytesUp, BytesDown    int64 // towards the target, back
	Connections, Accepted int64 // open now, ever
	Unreachable           int64 // connections closed because the target could not be dialled
	Stalls                int64 // packets that were "lost"
}

// Link is a bad link. Its methods may be called from any goroutine, before and
// while Run runs.
type Link struct {
	o    Options
	addr string // where it listens, with the real port
	up   *direction
	down *direction

	bytesUp, bytesDown  atomic.Int64
	open, accepted      atomic.Int64
	unreachable, stalls atomic.Int64

	mu      sync.Mutex
	cond    Conditions         // guarded by mu
	changed chan struct{}      // guarded by mu; closed at the next change
	ln      net.Listener       // guarded by mu; nil while refusing
	conns   map[*conn]struct{} // guarded by mu
	closed  bool               // guarded by mu
}

// New listens on o.Listen. The link carries nothing until Run runs; Close
// releases the address of a link that never runs.
func New(o Options) (*Link, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if err := o.Conditions.check(); err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("listening for the link: %w", err)
	}
	l := &Link{o: o, addr: ln.Addr().String(), ln: ln, changed: make(chan struct{}), conns: map[*conn]struct{}{}}
	l.up = newDirection(o.Seed, &l.stalls)
	l.down = newDirection(o.Seed^0x9e3779b97f4a7c15, &l.stalls)
	l.cond = o.Conditions.filled()
	l.configure(l.cond)
	if l.cond.Cut == Refuse {
		l.ln = nil
		err = ln.Close()
	}
	return l, err
}

// Addr is the address to dial, also while the link refuses.
func (l *Link) Addr() string { return l.addr }

// Close releases the address of a link that is not running.
func (l *Link) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.ln == nil {
		return nil
	}
	ln := l.ln
	l.ln = nil
	return ln.Close()
}

// Stats reads the counters.
func (l *Link) Stats() Stats {
	return Stats{
		BytesUp: l.bytesUp.Load(), BytesDown: l.bytesDown.Load(), Connections: l.open.Load(),
		Accepted: l.accepted.Load(), Unreachable: l.unreachable.Load(), Stalls: l.stalls.Load(),
	}
}

// Conditions tells what the link is like now.
func (l *Link) Conditions() Conditions {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cond
}

// Cut changes nothing but the cut.
func (l *Link) Cut(c Cut) error {
	return l.Change(func(cond *Conditions) { cond.Cut = c })
}

// Change lets f change the conditions, at once and for connections that exist
// too. An error says why they stay as they were; while the link refuses, the
// address may have been taken by someone else, and that is an error too.
func (l *Link) Change(f func(*Conditions)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := l.cond
	f(&next)
	if err := next.check(); err != nil {
		return err
	}
	next = next.filled()
	if next.Cut != Refuse && l.ln == nil && !l.closed {
		ln, err := net.Listen("tcp", l.addr)
		if err != nil {
			return fmt.Errorf("listening for the link again: %w", err)
		}
		l.ln = ln
	}
	if next.Cut == Refuse && l.ln != nil {
		_ = l.ln.Close() // nothing to do about it
		l.ln = nil
	}
	if next.Cut == Refuse || next.Cut == Reset {
		for c := range l.conns {
			c.reset()
		}
	}
	if next.Cut != l.cond.Cut {
		l.o.Logger.Info("link changed", "cut", string(next.Cut))
	}
	l.cond = next
	l.configure(next)
	close(l.changed)
	l.changed = make(chan struct{})
	return nil
}

func (l *Link) configure(c Conditions) {
	l.up.configure(c.RateUp, c)
	l.down.configure(c.RateDown, c)
}

// now reads the cut, the listener and the channel that closes at the next change.
func (l *Link) now() (Cut, net.Listener, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cond.Cut, l.ln, l.changed
}

// flowing waits until the link is not a black hole.
func (l *Link) flowing(ctx context.Context) error {
	for {
		cut, _, changed := l.now()
		if cut != BlackHole {
			return ctx.Err()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Run carries traffic until ctx ends, then resets what is open and returns nil.
// It is called once.
func (l *Link) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { l.followSchedule(ctx) })
	wg.Go(func() { // Accept ends when the listener is closed
		<-ctx.Done()
		_ = l.Close()
	})
	for ctx.Err() == nil {
		_, ln, changed := l.now()
		if ln == nil {
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		client, err := ln.Accept()
		switch {
		case err == nil:
			l.accepted.Add(1)
			wg.Go(func() { l.serve(ctx, client) })
		case errors.Is(err, net.ErrClosed):
		default:
			l.o.Logger.Warn("accepting a connection", "error", err)
			sleep(ctx, 50*time.Millisecond) // out of file descriptors: let some go
		}
	}
	return nil
}

func (l *Link) serve(ctx context.Context, client net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := &conn{client: client, cancel: cancel}
	defer c.close()
	if !l.admit(c) {
		c.reset()
		return
	}
	defer l.forget(c)
	if l.flowing(ctx) != nil {
		return
	}
	target, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", l.o.Target)
	if err != nil {
		l.unreachable.Add(1)
		if ctx.Err() == nil {
			l.o.Logger.Info("target not reachable", "target", l.o.Target, "error", err)
		}
		c.reset()
		return
	}
	c.setTarget(target)
	var wg sync.WaitGroup
	wg.Go(func() { l.carry(ctx, c, client, target, l.up, &l.bytesUp) })
	wg.Go(func() { l.carry(ctx, c, target, client, l.down, &l.bytesDown) })
	stop := context.AfterFunc(ctx, c.close) // reads and writes end with it
	wg.Wait()
	stop()
}

func (l *Link) admit(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cond.Cut == Reset || l.cond.Cut == Refuse || l.closed {
		return false
	}
	l.conns[c] = struct{}{}
	l.open.Add(1)
	return true
}

func (l *Link) forget(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
	l.open.Add(-1)
}

func (l *Link) followSchedule(ctx context.Context) {
	start := time.Now()
	for _, step := range l.o.Schedule {
		if !sleep(ctx, step.At-time.Since(start)) {
			return
		}
		if err := l.Change(step.Apply); err != nil {
			l.o.Logger.Warn("following the schedule", "step", step.Text, "error", err)
		}
	}
}

// sleep waits for d and reports whether ctx lasted that long.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// isEOF reports whether a read ended because the other side closed in order.
func isEOF(err error) bool { return errors.Is(err, io.EOF) }
