package ingest

import (
	"bytes"
	"runtime"
	"sync"
	"testing"

	"github.com/packetboat/packetboat/internal/wire"
	"github.com/packetboat/packetboat/pkg/commitlog/logtest"
	"github.com/packetboat/packetboat/pkg/stream"
)

// FuzzSubmit lets a device that was admitted send anything as a batch, through
// the real decoder. Every packet is answered once, whatever it is, nothing of it
// stays pending, and ingest gives the log nothing that the log must refuse.
func FuzzSubmit(f *testing.F) {
	enc := wire.NewEncoder(wire.EncoderOptions{})
	batch := func(first uint64, n int) []byte {
		b := stream.Batch{ID: stream.ID{Epoch: stream.Epoch{1}, Lane: stream.Normal}, First: first, Head: first + uint64(n) - 1, Floor: first, Flags: stream.FIFO}
		for i := range n {
			b.Records = append(b.Records, stream.Record{Seq: first + uint64(i), Message: stream.Message{Topic: "a", Payload: []byte("1")}})
		}
		packet, err := enc.Append(nil, &b)
		if err != nil {
			f.Fatal(err)
		}
		return packet
	}
	one, two := batch(1, 3), batch(4, 2)
	f.Add(one, two, two)
	f.Add(one, one, bytes.Repeat([]byte{0xff}, 40))
	f.Add([]byte{}, one[:len(one)/2], one)
	log := &checked{Log: logtest.NewMem(1)}
	h := startHub(log, Options{PacketBytes: 64 << 10}, false)
	f.Cleanup(func() {
		if err := h.stop(); err != nil {
			f.Error(err)
		}
	})
	for h.Ready() != nil { // it acquires its shard
		runtime.Gosched()
	}
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		s, _, err := h.Connect(t.Context(), Hello{Device: "fuzz", Version: 1, Revoke: func(string) {}})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		var answers sync.WaitGroup
		for _, packet := range [][]byte{a, b, c} {
			answers.Add(1) // a second answer makes it negative, which panics
			s.Submit(packet, func(o Outcome) {
				if o.Code != Settled && o.Code != Refused && o.Code != Bad {
					t.Errorf("outcome %v", o)
				}
				answers.Done()
			})
		}
		answers.Wait()
		log.mu.Lock()
		defer log.mu.Unlock()
		for _, err := range log.mistakes {
			t.Fatalf("ingest appended what it must not: %v", err)
		}
		if _, used := h.budget.get(); used != 0 {
			t.Fatalf("%d bytes are pending at rest", used)
		}
	})
}
