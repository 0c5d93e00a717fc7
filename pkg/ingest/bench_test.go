package ingest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/packetboat/packetboat/internal/wire"
	"github.com/packetboat/packetboat/pkg/commitlog/logtest"
	"github.com/packetboat/packetboat/pkg/stream"
)

// BenchmarkSubmit measures the way of a batch of 100 messages of 60 bytes from
// Submit to its answer, over the log in memory: devices at once, with the link's
// codec (encoding it is part of the time) and without any.
func BenchmarkSubmit(b *testing.B) {
	for _, devices := range []int{1, 100} {
		for _, real := range []bool{false, true} {
			b.Run(fmt.Sprintf("devices=%d/codec=%v", devices, real), func(b *testing.B) {
				benchSubmit(b, devices, real)
			})
		}
	}
}

func benchSubmit(b *testing.B, devices int, real bool) {
	const perBatch = 100
	mem := logtest.NewMem(4)
	h := startHub(mem, Options{}, !real)
	defer func() { _ = h.stop() }()
	for h.Ready() != nil {
		pause(time.Millisecond)
	}
	payload := make([]byte, 60)
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for d := range devices {
		e := newSimEdge(fmt.Sprint("d", d), false)
		e.codec.real = real
		conn, err := e.dial(h.Ingest, e.hello())
		if err != nil {
			b.Fatal(err)
		}
		n := b.N / devices
		if d < b.N%devices {
			n++
		}
		wg.Go(func() {
			defer conn.session.Close()
			conn.enc = e.codec.goOn(conn.welcome.Codec)
			window := make(chan struct{}, conn.welcome.WindowMessages)
			id, first := stream.ID{Epoch: e.mem.epochs[0].id, Lane: stream.Normal}, uint64(1)
			for range n {
				batch := stream.Batch{ID: id, First: first, Records: make([]stream.Record, perBatch), Head: first + perBatch - 1, Floor: first}
				for i := range batch.Records {
					batch.Records[i] = stream.Record{Seq: first + uint64(i), Message: stream.Message{Topic: "signal/7", Payload: payload, Time: int64(first) + int64(i), Quality: stream.TimeLocal, QoS: 1}}
				}
				first += perBatch
				packet, err := conn.enc.Append(nil, &batch)
				if err != nil {
					b.Error(err)
					return
				}
				window <- struct{}{}
				conn.session.Submit(packet, func(o Outcome) {
					if o.Code != Settled {
						b.Errorf("outcome %v", o.Code)
					}
					<-window
				})
			}
			for range cap(window) {
				window <- struct{}{}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	st := h.Stats()
	if st.Records != int64(b.N)*perBatch {
		b.Fatalf("%d records for %d batches", st.Records, b.N)
	}
	b.ReportMetric(float64(st.Records)/b.Elapsed().Seconds(), "msgs/s")
	b.ReportMetric(float64(st.Batches)/float64(max(st.Appends, 1)), "batches/append")
}

var _ encoder = (*wire.Encoder)(nil)
