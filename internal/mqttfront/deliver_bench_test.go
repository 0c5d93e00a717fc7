package mqttfront

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"testing"
)

// BenchmarkDistribute gives one message to so many subscribers, whose writers
// take it at once; without sockets.
func BenchmarkDistribute(b *testing.B) {
	for _, subscribers := range []int{1, 10, 100} {
		for qos := range byte(2) {
			b.Run(fmt.Sprintf("subscribers=%d/qos=%d", subscribers, qos), func(b *testing.B) {
				o, _ := newOutbox(Options{})
				l := o.l
				f := l.f
				var all []*session
				for i := range subscribers {
					s := &session{f: f, id: fmt.Sprint(i)}
					s.initLocal()
					s.conn = &conn{session: quiet{}, f: f}
					s.conn.writer.Store(writerRunning) // the benchmark takes
					s.out.resume(4, 0, 0, 0)
					sub := &subscription{s: s, filter: "v/+/temp", qos: qos}
					if s.enter(sub) != qos {
						b.Fatal("not granted")
					}
					all = append(all, s)
				}
				d := &distributor{l: l}
				item := &fanItem{origin: "p", pub: Publish{Topic: "v/17/temp", Payload: make([]byte, 60), QoS: 1}}
				buf := make([]byte, 0, 4096)
				b.ReportAllocs()
				for b.Loop() {
					d.distribute(item)
					for _, s := range all {
						buf = s.out.take(buf[:0], 4096)
						if qos == 1 {
							if _, err := s.out.acked(typePuback, uint16(buf[13])<<8|uint16(buf[14]), 0); err != nil {
								b.Fatal(err)
							}
						}
					}
				}
			})
		}
	}
}

// BenchmarkFanOut publishes at full speed to subscribers over TCP, and reports
// how many messages reach them a second and how many are dropped.
func BenchmarkFanOut(b *testing.B) {
	for _, subscribers := range []int{1, 10} {
		b.Run(fmt.Sprintf("subscribers=%d", subscribers), func(b *testing.B) {
			h := newFake()
			s := start(b, h, Options{FanOut: true})
			s.handler = quietHandler{h}
			for i := range subscribers {
				nc, err := net.Dial("tcp", s.addr)
				if err != nil {
					b.Fatal(err)
				}
				defer nc.Close()
				r := bufio.NewReaderSize(nc, 64<<10)
				_, _ = nc.Write(connectPacket(connectOptions{id: fmt.Sprint("s", i), version: 4}))
				_, _ = nc.Write(packet(0x82, u16(1), str("v/#"), []byte{0}))
				if _, err := io.ReadFull(r, make([]byte, 4+5)); err != nil {
					b.Fatal(err)
				}
				go func() { _, _ = io.Copy(io.Discard, r) }()
			}
			b.ResetTimer()
			if err := load(s.addr, "lg", b.N, 200); err != nil {
				b.Fatal(err)
			}
			eventually(b, "all are handled", func() bool { return s.fan.bytes.Load() == 0 })
			dropped := int64(0)
			for _, n := range s.Stats().FanOutDropped {
				dropped += n
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
			b.ReportMetric(float64(dropped)/float64(b.N*subscribers), "dropped/msg")
		})
	}
}
