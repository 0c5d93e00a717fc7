package codec

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/packetboat/packetboat/pkg/stream"
)

// BenchmarkBlock compares what a block costs by both codecs, by its records: 15
// sensors whose values wander, as JSON.
func BenchmarkBlock(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	recs := make([]stream.Record, 20_000)
	values := [15]int{}
	for i := range recs {
		v := &values[i%15]
		*v += r.IntN(3) - 1
		recs[i].Seq = uint64(i + 1)
		recs[i].Message = stream.Message{
			Topic: fmt.Sprintf("car/engine/sensor_%d", i%15), QoS: 1, Time: 1_700_000_000_000_000 + int64(i)*1000,
			Payload: fmt.Appendf(nil, `{"ts":%d,"value":%d.%d}`, 1_700_000_000_000+int64(i), 100+*v/10, max(*v, -*v)%10),
		}
	}
	for _, n := range []int{1, 10, 32, 200, 2000} {
		for _, id := range []ID{Rows, Learning} {
			b.Run(fmt.Sprintf("records=%d/codec=%s", n, id), func(b *testing.B) {
				var body []byte
				bytes, at := 0, 0
				b.ReportAllocs()
				for b.Loop() {
					var err error
					if body, err = appendAlone(body[:0], id, recs[at:at+n], 0); err != nil {
						b.Fatal(err)
					}
					bytes += len(body)
					at = (at + n) % (len(recs) - n)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/record")
				b.ReportMetric(float64(bytes)/float64(b.N*n), "B/record")
			})
		}
	}
}
