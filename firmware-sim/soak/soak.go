package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/packetboat/packetboat/internal/rig/hostile"
)

// Options say how long, and within which limits.
type Options struct {
	Bin string // folder of packetboat-edge and -hub; "": beside this program, or built
	Dir string // for receipts, logs and data; what a soak made there before is removed
	// Duration of the second part, in which all behaviours work together and the
	// edge is killed. The first, in which each is watched alone, takes as long as
	// it takes: about two minutes, one when Short.
	Duration time.Duration
	// KillEvery is the time from one kill -9 of the edge to the next.
	KillEvery time.Duration
	// Memory is what the edge's process may have resident, in bytes.
	Memory int64
	// Pause is how long honest sensors may be without an acknowledgement.
	Pause time.Duration
	// Rate is how many messages a second the honest sensors send, together.
	Rate float64
	// Short asks each behaviour for less patience, and watches the slow ones
	// together.
	Short bool
	// Only names behaviours; nil: all.
	Only []string
	Seed uint64
	Out  io.Writer

	extra []attack // more of them, for tests
}

// attack is a behaviour, as the soak sees it.
type attack struct {
	name, breaks string
	legal, slow  bool
	run          func(ctx context.Context, t hostile.Target) hostile.Report
}

// ErrBroken says that a promise was found broken.
var ErrBroken = errors.New("a promise is broken")

// soak is one run.
type soak struct {
	o          Options
	began      time.Time
	world      *world
	honest     *honest
	behaviours []attack
	seen       observed // the watcher's, and after it has ended the verdict's

	mu     sync.Mutex
	broken []string        // guarded by mu: promises, in words, each once
	rows   map[string]*row // guarded by mu: by behaviour
	passes uint64          // guarded by mu
}

func (s *soak) say(format string, args ...any) {
	fmt.Fprintf(s.o.Out, "%6.1fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// breaks notes a broken promise, once.
func (s *soak) breaks(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.broken {
		if b == text {
			return
		}
	}
	s.broken = append(s.broken, text)
	fmt.Fprintf(s.o.Out, "%6.1fs  BROKEN: %s\n", time.Since(s.began).Seconds(), text)
}

// Run soaks. Its error is ErrBroken where a promise is, and another where the
// soak itself could not be done.
func Run(ctx context.Context, o Options) error {
	s, err := prepare(ctx, o)
	if err != nil {
		return err
	}
	return s.run(ctx)
}

// prepare starts the programs. Where it gives no error, run or world.end is due.
func prepare(ctx context.Context, o Options) (_ *soak, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	s := &soak{o: o, began: time.Now(), rows: map[string]*row{}}
	if s.world, err = build(ctx, o); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.world.end()
		}
	}()
	if err := s.world.start(ctx); err != nil {
		return nil, err
	}
	if s.behaviours, err = s.choose(); err != nil {
		return nil, err
	}
	s.honest, err = newHonest(s.world, o)
	return s, err
}

// run plays and judges, and ends what prepare started.
func (s *soak) run(ctx context.Context) error {
	defer s.world.end() // every path ends what was started
	s.say("%s; %d hostile behaviours", s.honest.what, len(s.behaviours))
	if err := s.play(ctx); err != nil {
		return err
	}
	return s.verdict(ctx)
}

func (o *Options) check() error {
	switch {
	case o.Duration < 0 || o.Duration > 48*time.Hour:
		return fmt.Errorf("a duration of %s: use 0s to 48h", o.Duration)
	case o.KillEvery < time.Second:
		return fmt.Errorf("a kill every %s: use 1s or more", o.KillEvery)
	case o.Memory <= 0 || o.Pause <= 0:
		return errors.New("the limits of memory and pause are above 0")
	case !(o.Rate > 0):
		return fmt.Errorf("%v messages/s: use more than 0", o.Rate)
	}
	return nil
}

// choose finds the behaviours that the edge can be met with.
func (s *soak) choose() ([]attack, error) {
	var all []attack
	for _, b := range hostile.Behaviours(s.target()) {
		all = append(all, attack{b.Name, b.Breaks, b.Legal, b.Slow, b.Run})
	}
	all = append(all, s.o.extra...)
	if s.o.Only == nil {
		return all, nil
	}
	var some []attack
	for _, name := range s.o.Only {
		found := false
		for _, b := range all {
			if b.name == name {
				some, found = append(some, b), true
			}
		}
		if !found {
			return nil, fmt.Errorf("no behaviour is called %q", name)
		}
	}
	return some, nil
}

// target is the edge as hostile clients see it: with the account of a sensor
// that fell into wrong hands, and, for what is hoarded, another seed each time.
func (s *soak) target() hostile.Target {
	s.mu.Lock()
	s.passes++
	seed := s.o.Seed<<32 + s.passes
	s.mu.Unlock()
	t := s.world.target()
	t.Seed, t.Patience = seed, 2*time.Second
	if s.o.Short {
		t.Patience = 300 * time.Millisecond
	}
	return t
}

// play lets the honest and the hostile meet: first each of these alone, so that
// what the counters say is its doing, then all together, over kills.
func (s *soak) play(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	watching, stopWatching := context.WithCancel(ctx)
	defer func() {
		stopWatching()
		wg.Wait()
		err = errors.Join(err, s.honest.close())
	}()
	s.honest.begin(ctx)
	defer s.honest.silence()
	wg.Go(func() { s.watch(watching, cancel) })
	if err := s.oneByOne(ctx); err != nil {
		return s.reason(err)
	}
	if err := s.together(ctx); err != nil {
		return s.reason(err)
	}
	s.say("the hostile have gone; the sensors end, and the edge sends what is still out there")
	return s.drain(ctx)
}

// reason finds out whether what did not work was for the edge having gone.
func (s *soak) reason(err error) error {
	if edge, _ := s.world.running(); s.world.died() {
		return fmt.Errorf("%w: the edge ended by itself: %w\n%s", ErrBroken, err, edge.Tail())
	}
	return err
}
