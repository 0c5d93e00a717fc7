package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/packetboat/packetboat/internal/rig/hostile"
)

// row is what is known of one behaviour.
type row struct {
	hostile.Report
	passes int
	// alone is what it came to while nothing else was hostile, and seen the
	// counters that rose meanwhile.
	alone hostile.Report
	seen  series
	group string // the others that it was watched with
}

// add notes a pass. Called without mu.
func (s *soak) add(r hostile.Report) *row {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.rows[r.Behaviour]
	if x == nil {
		x = &row{}
		s.rows[r.Behaviour] = x
	}
	x.passes++
	x.Add(r)
	return x
}

// oneByOne runs each behaviour alone and looks which counters rise.
func (s *soak) oneByOne(ctx context.Context) error {
	var slow []attack
	for _, b := range s.behaviours {
		if b.slow && s.o.Short {
			slow = append(slow, b)
			continue
		}
		if err := s.watched(ctx, b); err != nil {
			return err
		}
	}
	if len(slow) > 0 {
		return s.watched(ctx, slow...)
	}
	return nil
}

// settle is how long the edge may take to count what a client that has gone did.
const settle = 5 * time.Second

// watched runs behaviours beside each other and nothing else.
func (s *soak) watched(ctx context.Context, some ...attack) error {
	legal := true
	for _, b := range some {
		legal = legal && b.legal
	}
	before, err := s.still(ctx, legal)
	if err != nil {
		return err
	}
	reports := make([]hostile.Report, len(some))
	var wg sync.WaitGroup
	for i, b := range some {
		wg.Go(func() { reports[i] = b.run(ctx, s.target()) })
	}
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	seen, err := s.rise(ctx, before, legal)
	if err != nil {
		return err
	}
	for i, b := range some {
		x := s.add(reports[i])
		s.mu.Lock()
		x.alone, x.seen = reports[i], seen
		if len(some) > 1 {
			x.group = fmt.Sprintf("with %d others", len(some)-1)
		}
		s.mu.Unlock()
		s.say("%-20s %s: %s | %s", b.name, b.breaks, reports[i].Summary(3), seen)
		if reports[i].Attempts == 0 {
			s.breaks("%s could not even begin: %s", b.name, reports[i].Summary(3))
		}
		if !seen.tells(b.name) {
			s.breaks("no counter says what %s did", b.name)
		}
	}
	return nil
}

// still reads the counters when they stand still: what somebody did before may
// still be on its way into them.
func (s *soak) still(ctx context.Context, legal bool) (now series, err error) {
	if now, err = read(ctx, s.world.http); err != nil {
		return nil, err
	}
	for end := time.Now().Add(settle); time.Now().Before(end); {
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return nil, err
		}
		last := now
		if now, err = read(ctx, s.world.http); err != nil {
			return nil, err
		}
		if moved(last, now, legal).sum() == 0 {
			break
		}
	}
	return now, nil
}

// rise waits a moment for the counters to rise and to stand still.
func (s *soak) rise(ctx context.Context, before series, legal bool) (seen series, err error) {
	last := -1.0
	for end := time.Now().Add(settle); time.Now().Before(end); {
		now, err := read(ctx, s.world.http)
		if err != nil {
			return nil, err
		}
		seen = moved(before, now, legal)
		n := seen.sum()
		if n > 0 && n == last {
			break
		}
		last = n
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return nil, err
		}
	}
	return seen, nil
}

// atOnce is how many behaviours that take no patience work at a time: more
// would only wait for the same processors.
const atOnce = 6

// together runs everything at once, and kills the edge every so often.
func (s *soak) together(ctx context.Context) error {
	s.say("all together for %s; the edge is killed every %s", s.o.Duration, s.o.KillEvery)
	limited, stop := context.WithTimeout(ctx, s.o.Duration)
	defer stop()
	places := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i, b := range s.behaviours {
		r := rand.New(rand.NewPCG(s.o.Seed, uint64(i)))
		wg.Go(func() {
			for limited.Err() == nil {
				s.pass(limited, b, places)
				if pause(limited, time.Duration(r.Int64N(int64(3*time.Second)))) != nil {
					return
				}
			}
		})
	}
	defer wg.Wait()
	for {
		err := pause(limited, s.o.KillEvery)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return nil // time is up
		}
		if err := s.world.killEdge(ctx); err != nil {
			s.breaks("the edge does not start again: %v", err)
			return fmt.Errorf("%w: the edge does not start again", ErrBroken)
		}
	}
}

// pass runs a behaviour once, when there is room for it.
func (s *soak) pass(ctx context.Context, b attack, places chan struct{}) {
	if !b.slow {
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
		case <-ctx.Done():
			return
		}
	}
	s.add(b.run(ctx, s.target()))
}

// drainWait bounds how long the backlog may take to reach the log.
const drainWait = 5 * time.Minute

// drain lets the sensors end and waits until the edge holds nothing back.
func (s *soak) drain(ctx context.Context) error {
	s.honest.silence()
	select {
	case <-s.honest.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for i, f := range s.honest.fleets {
		if x := f.Stats(); x.Acknowledged < x.Published {
			s.breaks("%s was not served at the end: %d messages are not acknowledged (%s)", name(i), x.Published-x.Acknowledged, x.LastError)
		}
	}
	for end := time.Now().Add(drainWait); ; {
		m, err := read(ctx, s.world.http)
		if err == nil && m["queued_messages"] == 0 && m["in_flight_messages"] == 0 {
			if m["conservation_ok"] != 1 {
				s.breaks("the edge says that accepted is not settled + queued + in flight + lost")
			}
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("the edge still holds %.0f messages after %s", m["queued_messages"], drainWait)
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// pause waits, and ends early with ctx.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), ctx.Err())
	}
}
