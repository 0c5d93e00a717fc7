package codec

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/packetboat/packetboat/pkg/stream"
)

// randoms are messages that nothing can be learned from.
var randoms = []struct {
	name string
	more int // bytes for each message, beyond the bound
	of   func(r *rand.Rand) stream.Record
}{
	{"bytes of 8", 0, func(r *rand.Rand) stream.Record { return message("t", noise(r, 8)) }},
	{"bytes of 64", 0, func(r *rand.Rand) stream.Record { return message("t", noise(r, 64)) }},
	{"bytes of 1 to 40", 0, func(r *rand.Rand) stream.Record { return message("t", noise(r, 1+r.IntN(40))) }},
	{"bytes of 1 to 2000", 0, func(r *rand.Rand) stream.Record { return message("t", noise(r, 1+r.IntN(2000))) }},
	{"bytes of 1 kB", 0, func(r *rand.Rand) stream.Record { return message("t", noise(r, 1<<10)) }},
	{"bytes of 20 kB", 0, func(r *rand.Rand) stream.Record { return message("t", noise(r, 20<<10)) }},
	{"bytes in 50 topics", 0, func(r *rand.Rand) stream.Record { return message(fmt.Sprint(r.IntN(50)), noise(r, 100)) }},
	{"letters of 1 kB", 0, func(r *rand.Rand) stream.Record { return message("t", letters(r, 1<<10)) }},
	{"letters of 20 kB", 0, func(r *rand.Rand) stream.Record { return message("t", letters(r, 20<<10)) }},
	{"letters of 1 to 40", 0, func(r *rand.Rand) stream.Record { return message("t", letters(r, 1+r.IntN(40))) }},
	{"text of 100", 0, func(r *rand.Rand) stream.Record { return message("t", runes(r, 33)) }},
	{"text of 10 kB", 0, func(r *rand.Rand) stream.Record { return message("t", runes(r, 3300)) }},
	{"topics of bytes", 0, func(r *rand.Rand) stream.Record { return message(string(noise(r, 20)), nil) }},
	{"topics of 1 kB", 0, func(r *rand.Rand) stream.Record { return message(string(noise(r, 1000)), nil) }},
	{"topics of letters", 0, func(r *rand.Rand) stream.Record { return message(string(letters(r, 30)), nil) }},
	{"topics of 20 kB", 0, func(r *rand.Rand) stream.Record { return message(string(noise(r, 20_000)), nil) }},
	{"times", 1, func(r *rand.Rand) stream.Record { m := message("t", nil); m.Time = int64(r.Uint64()); return m }},
	{"times and topics", 0, func(r *rand.Rand) stream.Record {
		m := message(fmt.Sprint(r.IntN(300)), nil)
		m.Time = int64(r.Uint64())
		return m
	}},
	{"integers", 0, func(r *rand.Rand) stream.Record { return message("t", fmt.Append(nil, r.Int64())) }},
	{"digits of 1 to 60", 0, func(r *rand.Rand) stream.Record { return message("t", digitsOf(r, 1+r.IntN(60))) }},
	{"digits of 3 kB", 0, func(r *rand.Rand) stream.Record { return message("t", digitsOf(r, 3000)) }},
	{"hex of 1 kB", 0, func(r *rand.Rand) stream.Record { return message("t", fmt.Appendf(nil, "%x", noise(r, 512))) }},
	{"properties", 0, func(r *rand.Rand) stream.Record {
		m := message("t", nil)
		m.Properties = &stream.Properties{CorrelationData: noise(r, 300)}
		return m
	}},
	{"properties of 10 kB", 0, func(r *rand.Rand) stream.Record {
		m := message("t", nil)
		m.Properties = &stream.Properties{CorrelationData: noise(r, 10_000)}
		return m
	}},
	{"everything", 18, func(r *rand.Rand) stream.Record {
		m := message(string(noise(r, r.IntN(30))), noise(r, r.IntN(300)))
		m.Time, m.Mono, m.QoS, m.Retain, m.Quality = int64(r.Uint64()), int64(r.Uint64()), uint8(r.IntN(3)), r.IntN(2) == 0, stream.TimeQuality(r.IntN(4))
		copy(m.Boot[:], noise(r, 16))
		m.Properties = &stream.Properties{ContentType: string(noise(r, r.IntN(9))), User: []stream.Property{{Key: string(noise(r, 4)), Value: string(noise(r, r.IntN(50)))}}}
		return m
	}},
}

func noise(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func letters(r *rand.Rand, n int) []byte {
	b := noise(r, n)
	for i := range b {
		b[i] = ' ' + b[i]%95
	}
	return b
}

func digitsOf(r *rand.Rand, n int) []byte {
	b := noise(r, n)
	for i := range b {
		b[i] = '0' + b[i]%10
	}
	return b
}

func runes(r *rand.Rand, n int) (b []byte) {
	for range n {
		b = append(b, string(rune(0x800+r.IntN(0xc000)))...)
	}
	return b
}

// rawSize is what records take without any model: topic, payload, properties as
// they stand in a row, and 8 bytes of time; boot and monotonic time where set.
func rawSize(recs []stream.Record) (n int) {
	for i := range recs {
		r := &recs[i]
		n += len(r.Topic) + len(r.Payload) + 8
		if r.Properties != nil {
			n += len(appendProperties(nil, r.Properties))
		}
		if metaOf(r)&metaBoot != 0 {
			n += 24
		}
	}
	return n
}

// What no model fits costs 2 % and 16 bytes at most; more where times are random,
// too, or everything about a message is, and 64 bytes once when noise ends a calm
// in which all was as foreseen.
func TestExpansion(t *testing.T) {
	counts := []int{1, 20, 200}
	if testing.Short() { // under an emulator
		counts = counts[:2]
	}
	for _, c := range randoms {
		t.Run(c.name, func(t *testing.T) {
			for _, count := range counts {
				for _, calm := range []int{0, 100} {
					r := rand.New(rand.NewPCG(1, 1))
					e := NewEncoder(DefaultState)
					if calm > 0 {
						appendTo(t, e, calm, func() stream.Record {
							m := c.of(rand.New(rand.NewPCG(2, 2)))
							m.Payload = m.Payload[:min(len(m.Payload), 200)]
							return m
						})
					}
					all, content := 0, 0
					for range 2 {
						size, body, n := appendTo(t, e, count, func() stream.Record { return c.of(r) })
						bound := size + size/50 + 16 + c.more*n
						if calm > 0 && content == 0 {
							bound += 64
						}
						if body > bound {
							t.Errorf("%d messages of %d bytes after %d: a body of %d bytes, %d allowed", n, size, calm, body, bound)
						}
						all, content = all+body, content+size
					}
					t.Logf("%d messages a body after %d: %+.1f %%", count, calm, float64(all)/float64(content)*100-100)
				}
			}
		})
	}
}

// appendTo encodes some messages, but not much more than a batch holds; it gives
// their size, that of the body, and how many there are.
func appendTo(t *testing.T, e *Encoder, count int, next func() stream.Record) (size, body, n int) {
	var recs []stream.Record
	for len(recs) < count && size < 20_000 {
		recs = append(recs, next())
		size += rawSize(recs[len(recs)-1:])
	}
	b, err := e.Append(nil, recs, 0)
	if err != nil {
		t.Fatal(err)
	}
	return size, len(b), len(recs)
}
