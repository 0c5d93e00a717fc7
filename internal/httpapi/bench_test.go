package httpapi

import (
	"net/http/httptest"
	"testing"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/commitlog/logtest"
	"github.com/packetboat/packetboat/pkg/stream"
)

// BenchmarkRead reads a log over a real connection, server and client in one
// process: what verify against a running hub costs per record.
func BenchmarkRead(b *testing.B) {
	log := logtest.NewMem(1)
	epoch := stream.NewEpoch()
	const n = 20_000
	for first := 1; first < n; first += 1000 {
		fill(b, log, "truck-17", epoch, first, 1000)
	}
	srv := httptest.NewServer(New(Options{Log: log}))
	defer srv.Close()
	c, err := NewClient(srv.URL)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	b.ReportAllocs()
	read := 0
	for b.Loop() {
		for _, err := range c.Read(b.Context(), commitlog.Cursor{}, commitlog.Filter{}) {
			if err != nil {
				b.Fatal(err)
			}
			read++
		}
	}
	if read != b.N*n {
		b.Fatalf("%d records in %d rounds", read, b.N)
	}
	b.ReportMetric(float64(read)/b.Elapsed().Seconds(), "records/s")
}
