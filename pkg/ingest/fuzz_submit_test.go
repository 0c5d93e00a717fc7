package ingest

import (
	"bytes"
	"math"
	"runtime"
	"sync"
	"testing"

	"github.com/packetboat/packetboat/internal/wire"
	"github.com/packetboat/packetboat/pkg/codec"
	"github.com/packetboat/packetboat/pkg/commitlog/logtest"
	"github.com/packetboat/packetboat/pkg/stream"
)

// FuzzSubmit lets a device that was admitted send anything as a batch, through
// the real decoder, going on with what a connection before it has left. Every
// packet is answered once, whatever it is, nothing of it stays pending, ingest
// gives the log nothing that the log must refuse, and what codec sessions keep is
// counted to the byte.
func FuzzSubmit(f *testing.F) {
	batch := func(enc *wire.Encoder, first uint64, n int) []byte {
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
	rows := wire.NewEncoder(wire.EncoderOptions{})
	one, two := batch(rows, 1, 3), batch(rows, 4, 2)
	f.Add(one, two, two)
	learning := wire.NewEncoder(wire.EncoderOptions{Codec: codec.Learning, State: codec.MinState})
	f.Add(batch(learning, 1, 3), batch(learning, 4, 2), batch(learning, 6, 1))
	f.Add(batch(learning, 7, 1), two, batch(learning, 8, 9))
	alone := wire.NewEncoder(wire.EncoderOptions{Codec: codec.Learning})
	f.Add(batch(alone, 1, 3), one, batch(alone, 4, 2))
	f.Add(one, one, bytes.Repeat([]byte{0xff}, 40))
	f.Add([]byte{}, one[:len(one)/2], one)
	log := &checked{Log: logtest.NewMem(1)}
	h := startHub(log, Options{PacketBytes: 64 << 10, CodecState: codec.MinState, CodecTotal: codec.MinState}, false)
	f.Cleanup(func() {
		if err := h.stop(); err != nil {
			f.Error(err)
		}
	})
	for h.Ready() != nil { // it acquires its shard
		runtime.Gosched()
	}
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		s, _, err := h.Connect(t.Context(), Hello{Device: "fuzz", Version: 1, Codec: CodecOffer{codec.Learning, true, 0, math.MaxUint64}, Revoke: func(string) {}})
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
		if err := exact(h.Ingest); err != nil {
			t.Fatal(err)
		}
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
