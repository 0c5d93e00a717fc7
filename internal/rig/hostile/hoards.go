package hostile

import (
	"context"
	"fmt"
	"sync"
)

// hoards take all there is of something.
var hoards = []Behaviour{
	{Name: "session-hoard", Breaks: "thousands of sessions that nobody comes back to", Legal: true, run: sessionHoard},
	{Name: "retained-hoard", Breaks: "tens of thousands of retained messages", Legal: true, run: retainedHoard},
	{Name: "crowd", Breaks: "more clients than there is room for, that stay", Legal: true, run: crowd},
	{Name: "will-hoard", Breaks: "hundreds of wills that wait for their delay", Legal: true, run: willHoard},
}

// hoard is how many sessions one pass leaves behind. Each pass takes other
// names, so that they add up.
const hoard = 2500

func sessionHoard(ctx context.Context, t *tally) {
	pass := t.random().Uint32() // the seed differs from pass to pass
	many(ctx, hoard, 32, func(i int) {
		t.attempt(1)
		c, err := t.enter(ctx, hello{id: fmt.Sprintf("%s-%d", t.id(i), pass), version: byte(4 + i%2), persistent: true})
		if err != nil {
			return
		}
		defer c.close()
		if err := c.send(ask(c.version, 1, 1, fmt.Sprintf("%s/hoard/%d/#", t.t.Topic, i))); err != nil {
			t.answer("writing: " + ending(err))
			return
		}
		c.listen(t.t.Patience, 1)
	})
}

func retainedHoard(ctx context.Context, t *tally) {
	pass := t.random().Uint32()
	many(ctx, 4, 4, func(i int) {
		c, err := t.enter(ctx, hello{id: t.id(i), version: 4, keepAlive: 60})
		if err != nil {
			return
		}
		defer c.close()
		for n := range 60 { // 4 × 60 × 100 topics
			var block []byte
			for j := range 100 {
				topic := fmt.Sprintf("%s/retained/%d/%d/%d/%d", t.t.Topic, pass, i, n, j)
				block = append(block, message(4, 3, topic, j+1, nil, make([]byte, 500))...)
			}
			t.attempt(100)
			if err := c.send(block); err != nil {
				t.answer("writing: " + ending(err))
				return
			}
			if !c.listen(5*t.t.Patience, 100) {
				return
			}
		}
	})
}

func willHoard(ctx context.Context, t *tally) {
	many(ctx, 2000, 32, func(i int) {
		t.attempt(1)
		h := hello{id: t.id(i), version: 5, persistent: true, willTopic: fmt.Sprintf("%s/will/%d", t.t.Topic, i), will: make([]byte, 2000),
			willProps: []byte{0x18, 0, 0, 0x0E, 0x10}} // delayed by an hour
		c, err := t.enter(ctx, h)
		if err != nil {
			return
		}
		c.reset() // no DISCONNECT: the will is due
	})
}

// crowd enters until nobody more is let in, and stays for a moment.
func crowd(ctx context.Context, t *tally) {
	var mu sync.Mutex
	var inside []*client
	many(ctx, 1200, 32, func(i int) {
		t.attempt(1)
		c, err := t.enter(ctx, hello{id: t.id(i), version: byte(4 + i%2), keepAlive: 60})
		if err != nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		inside = append(inside, c)
	})
	wait(ctx, t.t.Patience)
	for _, c := range inside {
		c.close()
	}
}
