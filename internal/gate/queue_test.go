package gate

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Addresses take turns and each keeps its order: the model is a list of lists.
func TestQueueAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := newQueue()
		type turn struct {
			addr   netip.Addr
			guests []time.Time
		}
		var model []turn
		size := 0
		start := time.Unix(0, 0)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if rapid.IntRange(0, 2).Draw(t, "step") > 0 {
				addr := netip.AddrFrom4([4]byte{10, 0, 0, rapid.Byte().Draw(t, "addr") % 4})
				start = start.Add(1)
				q.push(guest{addr: addr, since: start})
				size++
				i := slices.IndexFunc(model, func(x turn) bool { return x.addr == addr })
				if i < 0 {
					model = append(model, turn{addr, []time.Time{start}})
				} else {
					model[i].guests = append(model[i].guests, start)
				}
			} else {
				g, ok := q.pop()
				if ok != (size > 0) {
					t.Fatalf("pop: %v with %d there", ok, size)
				}
				if ok {
					first := model[0]
					if g.addr != first.addr || g.since != first.guests[0] {
						t.Fatalf("got %s %v, want %s %v", g.addr, g.since, first.addr, first.guests[0])
					}
					model = model[1:]
					if first.guests = first.guests[1:]; len(first.guests) > 0 {
						model = append(model, first)
					}
					size--
				}
			}
			if q.size != size || q.turns.Len() != len(model) || len(q.lines) != len(model) {
				t.Fatalf("size %d, %d turns, %d lines; want %d, %d", q.size, q.turns.Len(), len(q.lines), size, len(model))
			}
		}
	})
}

// In no stretch of time are more tokens given than burst and rate allow, and
// who waits as long as he is told gets one.
func TestBucket(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.Float64Range(0.1, 1000).Draw(t, "rate")
		burst := rapid.IntRange(1, 50).Draw(t, "burst")
		now := time.Unix(1000, 0)
		b := newBucket(rate, burst, now)
		var given []time.Time
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			wait := b.take(now)
			if wait == 0 {
				given = append(given, now)
			} else if rapid.Bool().Draw(t, "patient") {
				now = now.Add(wait + time.Microsecond) // the rounding of a float
				if again := b.take(now); again != 0 {
					t.Fatalf("waited %s and has to wait %s more", wait, again)
				}
				given = append(given, now)
			}
			now = now.Add(time.Duration(rapid.IntRange(0, int(time.Second)).Draw(t, "pause")))
		}
		for i := range given {
			for j := i; j < len(given); j++ {
				allowed := float64(burst) + rate*given[j].Sub(given[i]).Seconds() + 1e-6
				if float64(j-i+1) > allowed {
					t.Fatalf("%d tokens in %s, at most %f", j-i+1, given[j].Sub(given[i]), allowed)
				}
			}
		}
	})
	unbound := newBucket(0, 1, time.Now())
	for range 1000 {
		if unbound.take(time.Now()) != 0 {
			t.Fatal("no rate is a bound")
		}
	}
}
