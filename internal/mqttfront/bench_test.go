package mqttfront

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"
)

// load publishes n QoS 1 messages of 60 bytes over MQTT 3.1.1, at most window
// of them unacknowledged.
func load(addr, id string, n, window int) error {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer nc.Close()
	if _, err := nc.Write(connectPacket(connectOptions{id: id, version: 4, keepAlive: 60})); err != nil {
		return err
	}
	br := bufio.NewReaderSize(nc, 16<<10)
	if _, err := io.ReadFull(br, make([]byte, 4)); err != nil {
		return err
	}
	free := make(chan struct{}, window)
	acked := make(chan error, 1)
	go func() {
		a := make([]byte, 4)
		for i := range n {
			if _, err := io.ReadFull(br, a); err != nil {
				acked <- err
				return
			}
			if got := int(binary.BigEndian.Uint16(a[2:])); a[0] != 0x40 || got != i%60000+1 {
				acked <- fmt.Errorf("message %d acknowledged as % x", i, a)
				return
			}
			<-free
		}
		acked <- nil
	}()
	payload := make([]byte, 60)
	one := packet(0x32, str("v/"+id+"/temp"), []byte{0, 0}, payload)
	at := 4 + len("v/"+id+"/temp")
	bw := bufio.NewWriterSize(nc, 64<<10)
	for i := range n {
		select {
		case free <- struct{}{}:
		default:
			bw.Flush()
			select {
			case free <- struct{}{}:
			case err := <-acked:
				return err
			}
		}
		binary.BigEndian.PutUint16(one[at:], uint16(i%60000+1))
		bw.Write(one)
	}
	bw.Flush()
	return <-acked
}

// BenchmarkFront drives the front alone: the handler settles in groups from
// another goroutine, as a committer does, but without a disk.
func BenchmarkFront(b *testing.B) {
	for _, conns := range []int{1, 10} {
		b.Run(fmt.Sprintf("conns=%d", conns), func(b *testing.B) {
			settles := make(chan Settle, 8192)
			h := newFake()
			h.publish = func(_ *fakeSession, _ *Publish, settle Settle) { settles <- settle }
			s := start(b, h, Options{FanOut: true})
			s.Front.handler = quietHandler{h}
			var committer sync.WaitGroup
			committer.Go(func() {
				group := make([]Settle, 0, 2000)
				for first := range settles {
					group = append(group[:0], first)
					for more := true; more && len(group) < cap(group); {
						select {
						case s, ok := <-settles:
							if more = ok; ok {
								group = append(group, s)
							}
						default:
							more = false
						}
					}
					for _, settle := range group {
						settle(Result{})
					}
				}
			})
			b.ReportAllocs()
			b.ResetTimer()
			errs := make(chan error, conns)
			for i := range conns {
				go func() { errs <- load(s.addr, fmt.Sprintf("lg%d", i), b.N/conns+1, 200) }()
			}
			for range conns {
				if err := <-errs; err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			st := s.Stats()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
			b.ReportMetric(float64(st.Acks)/float64(st.AckWrites), "acks/write")
			if err := s.stop(); err != nil {
				b.Fatal(err)
			}
			close(settles)
			committer.Wait()
		})
	}
}

// quietHandler records nothing.
type quietHandler struct{ *fakeHandler }

func (h quietHandler) Connect(context.Context, *Peer) (Session, Welcome, error) {
	return quietSession{h.fakeHandler}, Welcome{}, nil
}

type quietSession struct{ h *fakeHandler }

func (s quietSession) Publish(p *Publish, settle Settle) { s.h.publish(nil, p, settle) }
func (s quietSession) Subscribe(string) bool             { return true }
func (s quietSession) Deliver(string) bool               { return true }
func (s quietSession) Close(error)                       {}

// BenchmarkIdleConnection prints what a client that is let in and silent costs
// the front in memory, with its own end of the socket: one that has done nothing
// yet, and one with a session, a subscription and a burst of messages behind it.
func BenchmarkIdleConnection(b *testing.B) {
	for _, used := range []bool{false, true} {
		name := "fresh"
		if used {
			name = "used"
		}
		b.Run(name, func(b *testing.B) {
			h := newFake()
			s := start(b, h, Options{MaxClients: b.N + 1, MaxSessions: b.N + 1, FanOut: true, MaxInflightMessages: 65535})
			s.handler = quietHandler{h}
			before := memory()
			for i := range b.N {
				if err := idleClient(b, s.addr, fmt.Sprint(i), used); err != nil {
					b.Fatal(err)
				}
			}
			s.trimIdle(time.Now().Add(2 * idleAfter))
			eventually(b, "all have shrunk", func() bool { return s.shrunk() })
			after := memory()
			b.ReportMetric(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc))/float64(b.N), "heap-B/conn")
			b.ReportMetric(float64(int64(after.StackInuse)-int64(before.StackInuse))/float64(b.N), "stack-B/conn")
		})
	}
}

func memory() (m runtime.MemStats) {
	for range 3 { // stacks shrink at each
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return m
}

// shrunk reports whether no connection is about to shrink.
func (f *Front) shrunk() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		if c.trim.Load() || c.writer.Load() != writerIdle {
			return false
		}
	}
	return true
}

func idleClient(b *testing.B, addr, id string, used bool) error {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	b.Cleanup(func() { nc.Close() })
	o := connectOptions{id: id, version: 4, persist: used}
	if _, err := nc.Write(connectPacket(o)); err != nil {
		return err
	}
	expect := 4
	if used {
		var p []byte
		for i := range 1000 {
			p = append(p, packet(0x32, str("v/"+id+"/temp"), u16(i+1), make([]byte, 60))...)
		}
		p = append(p, packet(0x82, u16(1), str("to/"+id), []byte{1})...)
		if _, err := nc.Write(p); err != nil {
			return err
		}
		expect += 4000 + 5
	}
	_, err = io.CopyN(io.Discard, nc, int64(expect))
	return err
}
