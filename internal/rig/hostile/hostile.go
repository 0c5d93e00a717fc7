package hostile

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// Dial opens a plain TCP connection to a listener, whatever is spoken there.
type Dial func(ctx context.Context) (net.Conn, error)

// Target is the server under attack.
type Target struct {
	// Dial reaches the MQTT listener. DialTLS and DialWebSocket reach the others;
	// the behaviours that need one that is nil are not in Behaviours.
	Dial, DialTLS, DialWebSocket Dial
	// Username and Password let a client in; without, it brings none.
	Username, Password string
	// Topic begins the topics that are published to; "hostile" when empty.
	Topic string
	// Patience is how long a client waits for an answer before it calls the
	// server silent; 2 s when 0.
	Patience time.Duration
	// Seed decides what is random, and the names of what is hoarded.
	Seed uint64
}

// Behaviour is one way to break the rules.
type Behaviour struct {
	Name string
	// Breaks says which rule, in a few words.
	Breaks string
	// Legal says that MQTT allows each packet and only the amount is an attack.
	Legal bool
	// Slow says that the time it takes is the attack: up to 20 s.
	Slow bool
	// run does it once.
	run func(ctx context.Context, t *tally)
	// needs chooses the listener; nil: that for MQTT.
	needs func(t *Target) Dial
}

// Report is what one run of a behaviour came to.
type Report struct {
	Behaviour   string
	Attempts    int // times the rule was broken
	Connections int
	Bytes       int64 // sent
	// Answers counts what the server did: packets with their reason code, or how
	// the connection ended.
	Answers map[string]int
	Took    time.Duration
}

// Add adds another report of the same behaviour.
func (r *Report) Add(o Report) {
	if r.Answers == nil {
		r.Answers = map[string]int{}
	}
	r.Behaviour = o.Behaviour
	r.Attempts += o.Attempts
	r.Connections += o.Connections
	r.Bytes += o.Bytes
	r.Took += o.Took
	for k, n := range o.Answers {
		r.Answers[k] += n
	}
}

// Summary names the most frequent answers, n of them.
func (r *Report) Summary(n int) string {
	type answer struct {
		what string
		n    int
	}
	var all []answer
	for what, n := range r.Answers {
		all = append(all, answer{what, n})
	}
	slices.SortFunc(all, func(a, b answer) int {
		if a.n != b.n {
			return b.n - a.n
		}
		return strings.Compare(a.what, b.what)
	})
	var parts []string
	for i, a := range all {
		if i == n {
			parts = append(parts, "…")
			break
		}
		parts = append(parts, fmt.Sprintf("%s ×%d", a.what, a.n))
	}
	return strings.Join(parts, ", ")
}

// Run does the behaviour once. It returns soon after ctx ends, with every
// connection closed.
func (b *Behaviour) Run(ctx context.Context, target Target) Report {
	if target.Topic == "" {
		target.Topic = "hostile"
	}
	if target.Patience <= 0 {
		target.Patience = 2 * time.Second
	}
	t := &tally{t: &target, r: Report{Behaviour: b.Name, Answers: map[string]int{}}}
	begun := time.Now()
	b.run(ctx, t)
	t.r.Took = time.Since(begun)
	return t.r
}

// Behaviours are all that the target can be met with, in a fixed order.
func Behaviours(target Target) []Behaviour {
	all := slices.Concat(slow, connects, publishes, acknowledgements, subscriptions, rubbish, hoards, doors)
	return slices.DeleteFunc(all, func(b Behaviour) bool { return b.needs != nil && b.needs(&target) == nil })
}

// random is the chance of one behaviour.
func (t *tally) random() *rand.Rand {
	h := uint64(14695981039346656037)
	for _, c := range []byte(t.r.Behaviour) {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return rand.New(rand.NewPCG(t.t.Seed, h))
}

// many runs n of f, at most width at a time, and waits for them.
func many(ctx context.Context, n, width int, f func(i int)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(n, width) {
		wg.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		select {
		case next <- i:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(next)
	wg.Wait()
}

// wait pauses and reports whether ctx still runs.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// id gives a client id of this behaviour.
func (t *tally) id(i int) string { return fmt.Sprintf("hostile-%s-%d", t.r.Behaviour, i) }

// each is a behaviour that enters once per case, sends it and listens, in both
// versions of MQTT.
func each(cases func(t *tally, version byte) [][]byte) func(ctx context.Context, t *tally) {
	return func(ctx context.Context, t *tally) {
		for _, version := range []byte{4, 5} {
			list := cases(t, version)
			many(ctx, len(list), 8, func(i int) {
				c, err := t.enter(ctx, hello{id: t.id(int(version)*1000 + i), version: version, keepAlive: 30})
				if err != nil {
					return
				}
				defer c.close()
				t.attempt(1)
				if err := c.send(list[i]); err != nil {
					t.answer(ending(err))
				}
				c.hear()
			})
		}
	}
}
