package codec

import (
	"fmt"
	"testing"

	"github.com/packetboat/packetboat/pkg/stream"
)

// In the steady state a batch allocates what it hands out and nothing else: its
// records and their payloads. Copies of the state, one in many batches, apart.
func TestSteadyStateAllocates(t *testing.T) {
	const size = 200
	batches := make([][]stream.Record, 400)
	for k := range batches {
		for i := range size {
			n := k*size + i
			batches[k] = append(batches[k], stream.Record{Message: stream.Message{
				Topic: fmt.Sprintf("car/engine/sensor_%d", n%15), QoS: 1, Quality: 1, Time: 1_700_000_000_000_000 + int64(n)*5000,
				Payload: fmt.Appendf(nil, `{"ts":%d,"value":%d.%d}`, 1_700_000_000_000+int64(n)*5, 100+n/15%7, n/15%10),
			}})
		}
	}
	e, d := NewEncoder(DefaultState), NewDecoder(DefaultState)
	bodies := make([][]byte, len(batches))
	next := 0
	step := func() {
		bodies[next], _ = e.Append(bodies[next], batches[next], 0)
		e.Confirm(e.Position().Bodies)
		next++
	}
	for i := range bodies {
		bodies[i] = make([]byte, 0, 4096)
	}
	for range 200 {
		step()
	}
	if n := testing.AllocsPerRun(150, step); n > size/100 { // of which copies of the state are nearly all
		t.Errorf("encoding allocates %.1f times for %d records", n, size)
	}
	next = 0
	decode := func() {
		if _, err := d.Decode(bodies[next], 1, 0, Limits{}); err != nil {
			t.Fatal(err)
		}
		next++
	}
	for range 200 {
		decode()
	}
	if n := testing.AllocsPerRun(150, decode); n > size/100 {
		t.Errorf("decoding allocates %.1f times for %d records", n, size)
	}
}
