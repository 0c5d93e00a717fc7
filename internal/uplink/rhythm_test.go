package uplink

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/packetboat/packetboat/pkg/buffer"
	"github.com/packetboat/packetboat/pkg/stream"
)

// lively plays arrivals against a lane and gives, for each batch, how many
// messages it held and how long its first one waited. The lane is asked when a
// message arrives and when it asked to be.
func lively(arrivals []time.Duration, p BatchPolicy) (sizes []int, waits []time.Duration) {
	r := &rhythm{}
	r.forget(0)
	start := time.Now()
	waiting, oldest := int64(0), time.Duration(0)
	due := time.Duration(-1) // when the lane wants to be asked
	ask := func(now time.Duration) {
		r.look(waiting, start.Add(now))
		b := buffer.Backlog{Messages: waiting, OldestAppend: start.Add(oldest)}
		switch d := p.wait(b, start.Add(now), r); {
		case d < 0:
			due = -1
		case d == 0:
			sizes, waits = append(sizes, int(waiting)), append(waits, now-oldest)
			r.took(int(waiting))
			waiting, due = 0, -1
		default:
			due = now + d
		}
	}
	for _, at := range arrivals {
		for due >= 0 && due < at {
			ask(due)
		}
		if waiting == 0 {
			oldest = at
		}
		waiting++
		ask(at)
	}
	for due >= 0 {
		ask(due)
	}
	return sizes, waits
}

func every(n int, pause time.Duration) (at []time.Duration) {
	for i := range n {
		at = append(at, time.Duration(i)*pause)
	}
	return at
}

var second = BatchPolicy{Messages: 1000, Bytes: 1 << 20, Age: time.Second}

// A lane that is slower than its age limit sends at once, after a few messages
// that it learns from.
func TestRhythmOfASlowLane(t *testing.T) {
	sizes, waits := lively(every(50, 10*time.Second), second)
	if len(sizes) != 50 {
		t.Fatalf("%d batches of 50 messages", len(sizes))
	}
	for i, w := range waits {
		if i > 4 && w != 0 || w > second.Age {
			t.Errorf("message %d waited %v", i, w)
		}
	}
}

// One that is faster fills its age limit, and so costs no batch more.
func TestRhythmOfAFastLane(t *testing.T) {
	sizes, waits := lively(every(1000, 100*time.Millisecond), second)
	for i, n := range sizes[:len(sizes)-1] {
		if n < 10 || waits[i] != second.Age {
			t.Errorf("batch %d has %d messages after %v", i, n, waits[i])
		}
	}
}

// A burst leaves when it is over, whole.
func TestRhythmOfBursts(t *testing.T) {
	var at []time.Duration
	for i := range 40 {
		for j := range 50 {
			at = append(at, time.Duration(i)*10*time.Second+time.Duration(j)*700*time.Microsecond)
		}
	}
	sizes, waits := lively(at, second)
	if len(sizes) != 40 {
		t.Fatalf("%d batches of 40 bursts: %v", len(sizes), sizes)
	}
	early := 0
	for i := range sizes {
		if sizes[i] != 50 {
			t.Errorf("batch %d has %d messages", i, sizes[i])
		}
		if waits[i] < 100*time.Millisecond {
			early++
		}
	}
	if early < 30 {
		t.Errorf("%d of 40 bursts left when they were over: %v", early, waits)
	}
}

// A lane that was slow and becomes fast collects again soon, and one that was
// fast and becomes slow soon waits no longer than its fast pauses were.
func TestRhythmChanges(t *testing.T) {
	slow := every(400, 10*time.Second)
	at := slow
	for _, x := range every(2000, 50*time.Millisecond) {
		at = append(at, slow[len(slow)-1]+10*time.Second+x)
	}
	sizes, _ := lively(at, second)
	if n := len(sizes) - len(slow); n > 2000/20+40 {
		t.Errorf("2000 messages in %d batches after a slow time", n)
	}
	end := at[len(at)-1]
	for _, x := range slow[:50] {
		at = append(at, end+10*time.Second+x)
	}
	_, waits := lively(at, second)
	for i, w := range waits[len(waits)-40:] {
		if w > 64*time.Millisecond { // past the pauses of the fast time
			t.Errorf("message %d after a fast time waited %v", 10+i, w)
		}
	}
}

// Whatever arrives, no batch waits longer than the age limit, none is empty,
// and all messages leave.
func TestRhythmKeepsTheLimit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := BatchPolicy{Messages: rapid.IntRange(1, 50).Draw(t, "messages"), Bytes: 1 << 20, Age: time.Duration(rapid.Int64Range(1, int64(10*time.Second)).Draw(t, "age"))}
		pauses := rapid.SliceOfN(rapid.OneOf(rapid.Int64Range(0, int64(time.Millisecond)), rapid.Int64Range(0, int64(time.Second)), rapid.Int64Range(0, int64(48*time.Hour))), 1, 300).Draw(t, "pauses")
		var at []time.Duration
		now := time.Duration(0)
		for _, d := range pauses {
			now += time.Duration(d)
			at = append(at, now)
		}
		sizes, waits := lively(at, p)
		sum := 0
		for i, n := range sizes {
			if sum += n; n < 1 || n > p.Messages || waits[i] > p.Age {
				t.Fatalf("batch %d: %d messages after %v", i, n, waits[i])
			}
		}
		if sum != len(at) {
			t.Fatalf("%d of %d messages left", sum, len(at))
		}
	})
}

// What comes back to the buffer is no arrival, and what is not known is waited for.
func TestRhythmForgets(t *testing.T) {
	r, now := &rhythm{}, time.Now()
	r.forget(5)
	r.look(5, now)
	if d := r.wait(now, time.Second); d != time.Second {
		t.Errorf("with nothing known: %v", d)
	}
	for i := range 20 {
		r.look(int64(6+i), now.Add(time.Duration(i)*time.Hour))
	}
	now = now.Add(19 * time.Hour)
	if d := r.wait(now, time.Second); d != 0 {
		t.Errorf("an hour from the next message: %v", d)
	}
	total := r.total
	r.forget(100)
	r.look(100, now.Add(time.Hour))
	if r.look(101, now.Add(2*time.Hour)); r.total != total {
		t.Error("the pause of a link that was down is counted")
	}
	for b := range rhythmBuckets {
		if d := edgeOf(b); bucketOf(d) != b || b < rhythmBuckets-1 && bucketOf(d+1) != b+1 {
			t.Errorf("bucket %d ends at %v", b, d)
		}
	}
	if bucketOf(0) != 0 || bucketOf(-time.Hour) != 0 || bucketOf(1<<62) != rhythmBuckets-1 {
		t.Error("pauses at the ends")
	}
}

// The manual says the batch policies as they are.
func TestDocumentedPolicies(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "operations", "edge.md"))
	if err != nil {
		t.Fatal(err)
	}
	for lane, p := range defaults {
		messages, age := fmt.Sprint(p.Messages), "at once"
		if n := len(messages); n > 3 {
			messages = messages[:n-3] + "," + messages[n-3:]
		}
		if p.Age > 0 {
			age = fmt.Sprintf("%.0f s", p.Age.Seconds())
		}
		if want := fmt.Sprintf("| `%s` | %s | %dKiB | %s |", lane, messages, p.Bytes>>10, age); !strings.Contains(string(text), want) {
			t.Errorf("not in the manual: %s", want)
		}
	}
}

// A message of a lane that knows its next one to be far off leaves without
// waiting for its age limit; one of a lane that knows nothing waits.
func TestRhythmOnTheLink(t *testing.T) {
	h, b := newHub(t), openBuffer(t)
	o := quick(h.url())
	for _, lane := range stream.Lanes {
		o.Lanes[lane] = BatchPolicy{Messages: 20, Bytes: 4096, Age: time.Hour}
	}
	u := New(b, o)
	for range 20 {
		u.rhythms[stream.Normal].add(48 * time.Hour)
	}
	runUntilEnd(t, u.Run)
	eventually(t, "connection", func() bool { return u.Stats().State == Up })
	accept(t, b, stream.Bulk, 0, 1)
	for i := range 3 {
		accept(t, b, stream.Normal, 10+i, 1)
		settledOf(t, h, i+1)
	}
	if s := b.Stats(); s.Lanes[stream.Bulk].Messages != 1 {
		t.Errorf("bulk: %+v", s.Lanes[stream.Bulk])
	}
}

// settledOf waits until the hub has n messages.
func settledOf(t *testing.T, h *testHub, n int) {
	t.Helper()
	eventually(t, "delivery", func() bool { in, _ := h.count(); return in == n })
}
