package mqttfront

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Whatever becomes of the messages, and in whatever order they are settled: in
// the end memory and Store have the same, which is the newest that was taken of
// each topic; and nothing is charged for more.
func TestKeptAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := newKept(3, 1<<20, 64)
		now := time.Now()
		model, store := map[string]string{}, map[string]string{}
		type change struct {
			p         *Publish
			changes   bool
			committed bool
			fate      int // 0: taken; 1: refused; 2: taken, but not for subscribers
		}
		var open []*change
		put := func(topic, payload string) {
			if payload == "" {
				delete(store, topic)
			} else {
				store[topic] = payload
			}
		}
		correct := func(topic string) {
			k.correct(topic, func(l *letter) {
				if l == nil {
					put(topic, "")
				} else {
					put(topic, string(l.payload))
				}
			})
		}
		n := 0
		commit := func() {
			for _, c := range open {
				if c.committed {
					continue
				}
				c.committed = true
				if c.changes && c.fate != 1 {
					put(c.p.Topic, string(c.p.Payload))
				}
				if c.changes && c.fate == 0 {
					if model[c.p.Topic] = string(c.p.Payload); len(c.p.Payload) == 0 {
						delete(model, c.p.Topic)
					}
				}
				return
			}
		}
		conclude := func(i int) {
			c := open[i]
			open = slices.Delete(open, i, i+1)
			wrong := false
			if c.fate == 0 {
				_, wrong = k.settled(c.p)
			} else {
				wrong = k.failed(c.p, c.fate == 2)
			}
			if wrong {
				correct(c.p.Topic)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"begin": func(t *rapid.T) {
				n++
				p := &Publish{Topic: rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "topic"), Retain: true}
				var lt *letter
				if rapid.IntRange(0, 3).Draw(t, "clear") > 0 {
					p.Payload = []byte(fmt.Sprint(n, strings.Repeat("x", rapid.IntRange(0, 50).Draw(t, "size"))))
					lt = newLetter("o", p, now)
				}
				changes, hit := k.begin(p, lt)
				k.handed(p.Topic)
				if hit != limitNone && (hit != limitRetained || len(k.topics) < 3) {
					t.Fatalf("limit %d with %d topics", hit, len(k.topics))
				}
				open = append(open, &change{p: p, changes: changes, fate: rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(t, "fate")})
			},
			"commit": func(*rapid.T) { commit() },
			"settle": func(t *rapid.T) {
				i := rapid.IntRange(0, 10).Draw(t, "which")
				if i < len(open) && open[i].committed {
					conclude(i)
				}
			},
			"": func(t *rapid.T) {
				var sum int64
				for i, x := range k.order {
					sum += x.charged
					if i > 0 && k.order[i-1].name >= x.name || k.topics[x.name] != x {
						t.Fatal("the order is broken")
					}
				}
				if sum != k.bytes || len(k.order) != len(k.topics) || len(k.topics) > 3 {
					t.Fatalf("%d bytes charged, %d counted, %d topics", sum, k.bytes, len(k.topics))
				}
			},
		})
		for len(open) > 0 {
			commit()
			for i := len(open) - 1; i >= 0; i-- {
				if open[i].committed {
					conclude(i)
				}
			}
		}
		memory, bytes := map[string]string{}, int64(0)
		for name, x := range k.topics {
			memory[name] = string(x.letter.payload)
			bytes += keptSize(x.letter)
		}
		if fmt.Sprint(memory) != fmt.Sprint(store) || fmt.Sprint(memory) != fmt.Sprint(model) || bytes != k.bytes || k.count() != len(model) || len(k.intents) != 0 {
			t.Fatalf("memory %v, store %v, want %v; %d bytes of %d", memory, store, model, k.bytes, bytes)
		}
	})
}

// A subscription gets each retained message that it asked for once, those that
// match and no others, and none that came after it.
func TestKeptNext(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := newKept(1000, 1<<20, 64)
		now := time.Now()
		set := func(topic string) {
			p := &Publish{Topic: topic, Payload: []byte("x"), Retain: true}
			k.begin(p, newLetter("", p, now))
			k.handed(topic)
			k.settled(p)
		}
		want := map[string]bool{}
		filter := drawFilter(t)
		for range rapid.IntRange(0, 20).Draw(t, "before") {
			topic := drawTopic(t)
			set(topic)
			if naive(strings.Split(filter, "/"), strings.Split(topic, "/")) {
				want[topic] = true
			}
		}
		w := &replayWork{sub: &subscription{filter: filter, since: k.applied.Load()}}
		got := map[string]bool{}
		for range 1000 {
			if rapid.IntRange(0, 5).Draw(t, "change") == 0 {
				topic := drawTopic(t)
				set(topic)
				if !got[topic] {
					delete(want, topic) // it comes as a new one
				}
			}
			budget := rapid.IntRange(1, 5).Draw(t, "budget")
			l, end := k.next(w, &budget)
			if end {
				break
			}
			if l == nil {
				continue
			}
			if got[l.topic] {
				t.Fatalf("%q twice", l.topic)
			}
			got[l.topic] = true
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("filter %q: got %v, want %v", filter, got, want)
		}
	})
}

func TestKeptExpires(t *testing.T) {
	k := newKept(10, 1<<20, 64)
	now := time.Now()
	for i, expiry := range []uint32{0, 1, 5} {
		p := &Publish{Topic: fmt.Sprint(i), Payload: []byte("x"), Retain: true, Expiry: expiry}
		k.begin(p, newLetter("", p, now))
		k.handed(p.Topic)
		k.settled(p)
	}
	var gone []string
	note := func(topic string) { gone = append(gone, topic) }
	k.expire(now.Add(900*time.Millisecond), note)
	k.expire(now.Add(time.Second), note)
	p := &Publish{Topic: "2", Payload: []byte("y"), Retain: true}
	k.begin(p, newLetter("", p, now))
	k.handed(p.Topic)
	k.expire(now.Add(time.Hour), note) // but another one is on its way
	if !slices.Equal(gone, []string{"1"}) || k.count() != 2 {
		t.Errorf("gone %q, %d are left", gone, k.count())
	}
	if k.failed(p, false) {
		t.Error("nothing is to be corrected")
	}
	k.expire(now.Add(time.Hour), note)
	if !slices.Equal(gone, []string{"1", "2"}) || k.count() != 1 || k.expiring != 0 {
		t.Errorf("gone %q, %d are left, %d expire", gone, k.count(), k.expiring)
	}
}
