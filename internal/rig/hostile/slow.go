package hostile

import (
	"context"
	"fmt"
	"time"
)

// slow is what takes its time.
var slow = []Behaviour{
	{Name: "half-packets", Breaks: "packets cut anywhere, and then the end of the connection", run: halfPackets},
	{Name: "slow-connect", Breaks: "CONNECT with one byte a second", Slow: true, run: slowConnect},
	{Name: "slow-publish", Breaks: "a PUBLISH that never ends, and no ping [MQTT-3.1.2-22]", Slow: true, run: slowPublish},
	{Name: "silence", Breaks: "connections that say nothing", Slow: true, run: silence},
}

func halfPackets(ctx context.Context, t *tally) {
	h := hello{id: t.id(0), version: 5, user: t.t.Username, pass: t.t.Password}
	whole := h.packet()
	many(ctx, len(whole)-1, 8, func(i int) {
		c, err := t.open(ctx, t.t.Dial)
		if err != nil {
			return
		}
		defer c.close()
		t.attempt(1)
		_ = c.send(whole[:i+1]) // it is about the end
		if i%2 == 0 {
			c.reset()
		}
	})
	p := message(5, 2, t.t.Topic+"/half", 1, nil, make([]byte, 40))
	many(ctx, len(p)-1, 8, func(i int) {
		c, err := t.enter(ctx, hello{id: t.id(i), version: 5})
		if err != nil {
			return
		}
		defer c.close()
		t.attempt(1)
		_ = c.send(p[:i+1])
		if i%2 == 0 {
			c.reset()
		}
	})
}

// slowMost bounds a slow connection, in case the server has all the time.
const slowMost = 20 * time.Second

func slowConnect(ctx context.Context, t *tally) {
	ctx, cancel := context.WithTimeout(ctx, slowMost)
	defer cancel()
	many(ctx, 20, 20, func(i int) {
		c, err := t.open(ctx, t.t.Dial)
		if err != nil {
			return
		}
		defer c.close()
		t.attempt(1)
		h := hello{id: t.id(i), version: byte(4 + i%2), user: t.t.Username, pass: t.t.Password}
		begun := time.Now()
		for _, b := range h.packet() {
			if err := c.send([]byte{b}); err != nil {
				t.answer(c.closed(ctx, begun))
				return
			}
			if !c.listenQuietly(time.Second) {
				t.answer(c.closed(ctx, begun))
				return
			}
		}
		t.answer("still open")
	})
}

// closed says who ended the connection, and when.
func (c *client) closed(ctx context.Context, begun time.Time) string {
	if after := time.Since(begun).Seconds(); ctx.Err() == nil {
		return fmt.Sprintf("closed after %.0f s", after)
	}
	return "still open"
}

// listenQuietly waits d and reports whether the connection still stands.
func (c *client) listenQuietly(d time.Duration) bool {
	_, _, err := c.read(16, d)
	return err == nil || ending(err) == "silence"
}

func slowPublish(ctx context.Context, t *tally) {
	ctx, cancel := context.WithTimeout(ctx, slowMost)
	defer cancel()
	many(ctx, 8, 8, func(i int) {
		c, err := t.enter(ctx, hello{id: t.id(i), version: byte(4 + i%2), keepAlive: 2})
		if err != nil {
			return
		}
		defer c.close()
		t.attempt(1)
		p := message(c.version, 2, t.t.Topic+"/slow", 1, nil, make([]byte, 200))
		if err := c.send(p[:20]); err != nil {
			t.answer(ending(err))
			return
		}
		begun := time.Now()
		for _, b := range p[20:] {
			if i%2 == 0 { // trickles; the others fall silent
				if err := c.send([]byte{b}); err != nil {
					t.answer(c.closed(ctx, begun))
					return
				}
			}
			if !c.listenQuietly(time.Second) {
				t.answer(c.closed(ctx, begun))
				return
			}
		}
		t.answer("still open")
	})
}

func silence(ctx context.Context, t *tally) {
	ctx, cancel := context.WithTimeout(ctx, slowMost)
	defer cancel()
	many(ctx, 200, 200, func(int) {
		c, err := t.open(ctx, t.t.Dial)
		if err != nil {
			return
		}
		defer c.close()
		t.attempt(1)
		c.listen(slowMost, 10)
	})
}
