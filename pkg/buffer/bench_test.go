package buffer

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/packetboat/packetboat/pkg/stream"
)

// BenchmarkAppend stores 60-byte messages durably: each appender has a window
// of 200 messages that are not acknowledged, as an MQTT client would, and an
// uplink's part drains what is stored. The directory is a real one.
func BenchmarkAppend(b *testing.B) {
	for _, appenders := range []int{1, 10} {
		b.Run(fmt.Sprintf("appenders=%d", appenders), func(b *testing.B) { benchmarkAppend(b, appenders) })
	}
}

func benchmarkAppend(b *testing.B, appenders int) {
	buf, stop := started(b, Options{Dir: b.TempDir()})
	quit := make(chan struct{})
	var drained sync.WaitGroup
	drained.Go(func() {
		for {
			select {
			case <-quit:
				return
			case <-buf.Ready():
			}
			for {
				batch, ok, err := buf.Next(stream.Normal, Limit{Messages: 200})
				if err != nil || !ok {
					break
				}
				_ = buf.Settle(batch.ID, settled(&batch))
			}
		}
	})
	before := buf.Stats()
	b.ReportAllocs()
	b.ResetTimer()
	var all sync.WaitGroup
	for i := range appenders {
		n := b.N / appenders
		if i == 0 {
			n += b.N % appenders
		}
		all.Go(func() { appendWindowed(b, buf, n) })
	}
	all.Wait()
	b.StopTimer()
	s := buf.Stats()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
	b.ReportMetric(float64(s.BytesWritten-before.BytesWritten)/float64(s.BytesAppended-before.BytesAppended), "written/accepted")
	b.ReportMetric(float64(b.N)/float64(s.Commits-before.Commits), "msgs/commit")
	close(quit)
	drained.Wait()
	stop()
}

func appendWindowed(b *testing.B, buf *Buffer, n int) {
	window := make(chan struct{}, 200)
	done := func(_ stream.Position, err error) {
		if err != nil {
			b.Error(err)
		}
		<-window
	}
	m := []stream.Message{{Topic: "car/engine/rpm", Payload: make([]byte, 60), Quality: stream.TimeLocal, QoS: 1}}
	for i := range n {
		window <- struct{}{}
		m[0].Time = 1_700_000_000_000_000 + int64(i)
		if err := buf.Append(stream.Normal, m, done); err != nil {
			b.Error(err)
			return
		}
	}
	for range cap(window) {
		window <- struct{}{}
	}
}

// BenchmarkBacklog opens a journal that holds 256 MiB and reads it all, and
// reports what that needs of memory.
func BenchmarkBacklog(b *testing.B) {
	o := Options{Dir: b.TempDir()}
	buf, stop := started(b, o)
	msgs := make([]stream.Message, 500)
	for i := range msgs {
		msgs[i] = stream.Message{Topic: "car/engine/rpm", Payload: make([]byte, 60), Quality: stream.TimeLocal, QoS: 1}
	}
	stored := 0
	for ; buf.Stats().DiskBytes < 256<<20; stored += len(msgs) {
		put(b, buf, stream.Normal, msgs...)
	}
	stop()
	b.ResetTimer()
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		start := time.Now()
		buf, err := Open(o)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(time.Since(start).Microseconds())/1000, "ms/open")
		start = time.Now()
		n := 0
		for {
			batch, ok := next(b, buf, stream.Normal, Limit{Messages: 200})
			if !ok {
				break
			}
			n += len(batch.Records)
			if err := buf.Settle(batch.ID, settled(&batch)); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(n)/time.Since(start).Seconds(), "read_msgs/s")
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1024, "KiB_heap_held")
		if n != stored {
			b.Fatalf("%d of %d", n, stored)
		}
		buf.mu.Lock()
		buf.ops.reset() // forget the answers, to open the same again
		buf.mu.Unlock()
		if err := buf.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMap does what a front does for QoS 2: each message comes with the id
// it was received under, which is removed a little later; then it opens a
// journal whose map has 50,000 entries of 200 bytes.
func BenchmarkMap(b *testing.B) {
	b.Run("received", benchmarkReceived)
	b.Run("open", benchmarkOpenMap)
}

func benchmarkReceived(b *testing.B) {
	buf, stop := started(b, Options{Dir: b.TempDir()})
	window := make(chan struct{}, 200)
	done := func(_ stream.Position, err error) {
		if err != nil {
			b.Error(err)
		}
		<-window
	}
	m := []stream.Message{{Topic: "car/engine/rpm", Payload: make([]byte, 60), Quality: stream.TimeLocal, QoS: 2}}
	key := func(i int) string { return fmt.Sprintf("q/0123456789abcdef/%04x", i%65535) }
	before := buf.Stats()
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		window <- struct{}{}
		state := []Entry{{Key: key(i), Value: []byte{1}}}
		if i >= 100 {
			state = append(state, Entry{Key: key(i - 100)})
		}
		if err := buf.Commit(Write{Lane: stream.Normal, Msgs: m, State: state}, done); err != nil {
			b.Fatal(err)
		}
	}
	for range cap(window) {
		window <- struct{}{}
	}
	b.StopTimer()
	s := buf.Stats()
	b.ReportMetric(float64(s.BytesWritten-before.BytesWritten)/float64(b.N), "written_B/msg")
	stop()
}

func benchmarkOpenMap(b *testing.B) {
	o := Options{Dir: b.TempDir()}
	buf, stop := started(b, o)
	for i := range 500 {
		w := Write{}
		for j := range 100 {
			w.State = append(w.State, Entry{Key: fmt.Sprintf("m/0123456789abcdef/%016x", i*100+j), Value: make([]byte, 200)})
		}
		commitEntries(b, buf, w.State...)
		put(b, buf, stream.Normal, stream.Message{Topic: "t", Payload: make([]byte, 100<<10), QoS: 1})
	}
	stop()
	b.ResetTimer()
	for b.Loop() {
		start := time.Now()
		buf, err := Open(o)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(time.Since(start).Microseconds())/1000, "ms/open")
		if n := buf.Stats().Entries; n != 50_000 {
			b.Fatalf("%d entries", n)
		}
		start, n := time.Now(), 0
		if err := buf.State(func(string, []byte) bool { n++; return true }); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(time.Since(start).Microseconds())/1000, "ms/state")
		if err := buf.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
