package sensors

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/packetboat/packetboat/internal/acl"
	"github.com/packetboat/packetboat/internal/mqttfront"
	"github.com/packetboat/packetboat/pkg/buffer"
	"github.com/packetboat/packetboat/pkg/stream"
)

// edge is a front, sensors and a real buffer on a disk.
type edge struct {
	buf     *buffer.Buffer
	front   *mqttfront.Front
	sensors *Sensors
	addr    string
}

func startEdge(t testing.TB, o Options) *edge {
	t.Helper()
	dir, err := os.MkdirTemp("", "packetboat-sensors-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	e := &edge{}
	if e.buf, err = buffer.Open(buffer.Options{Dir: dir, MaxBytes: 64 << 20}); err != nil {
		t.Fatal(err)
	}
	if e.sensors, err = New(e.buf, o); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e.addr = l.Addr().String()
	e.front = mqttfront.New(e.sensors, mqttfront.Options{Listeners: []net.Listener{l}, FanOut: true})
	run := func(what string, f func(context.Context) error) func() {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- f(ctx) }()
		return func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	stopBuffer := run("buffer", e.buf.Run)
	stopFront := run("front", e.front.Run)
	t.Cleanup(func() {
		stopFront()
		stopBuffer()
		if err := e.buf.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// load publishes n QoS 1 messages over MQTT 3.1.1, at most window of them
// unacknowledged, and returns when the last is acknowledged.
func load(addr, id string, n, window int) error {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer nc.Close()
	connect := append([]byte{0x10, byte(12 + len(id)), 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 60, 0, byte(len(id))}, id...)
	if _, err := nc.Write(connect); err != nil {
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
	topic := "v/" + id + "/temp"
	one := append([]byte{0x32, byte(4 + len(topic) + 60), 0, byte(len(topic))}, topic...)
	at := len(one)
	one = append(one, make([]byte, 2+60)...)
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
		binary.BigEndian.PutUint32(one[at+2:], uint32(i))
		bw.Write(one)
	}
	bw.Flush()
	return <-acked
}

// What was acknowledged to sensors stands in the buffer, in each sensor's order.
func TestThroughTheBuffer(t *testing.T) {
	e := startEdge(t, Options{AllowAnonymous: true, Lanes: []LaneRule{{Lane: stream.Urgent, Filters: []string{"v/s0/#"}}, {Drop: true, Filters: []string{"v/s1/temp"}}}})
	const each, clients = 500, 4
	errs := make(chan error, clients)
	for i := range clients {
		go func() { errs <- load(e.addr, fmt.Sprint("s", i), each, 50) }()
	}
	for range clients {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	next := map[string]uint32{}
	lanes := map[stream.Lane]int{}
	for _, lane := range stream.Lanes {
		for {
			b, ok, err := e.buf.Next(lane, buffer.Limit{Messages: 100, Bytes: 1 << 20})
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			for i := range b.Records {
				r := &b.Records[i]
				lanes[lane]++
				if n := binary.BigEndian.Uint32(r.Payload); n != next[r.Topic] || r.QoS != 1 || time.Since(time.UnixMicro(r.Time)) > time.Hour {
					t.Fatalf("%s: message %d, want %d: %+v", r.Topic, n, next[r.Topic], r)
				}
				next[r.Topic]++
			}
		}
	}
	if lanes[stream.Urgent] != each || lanes[stream.Normal] != 2*each || lanes[stream.Bulk] != 0 || next["v/s2/temp"] != each {
		t.Errorf("lanes %v, topics %v", lanes, next)
	}
	if st := e.sensors.Stats(); st.Dropped != each || st.Accepted[stream.Urgent] != each || st.Accepted[stream.Normal] != 2*each {
		t.Errorf("%+v", st)
	}
	// The front counts acknowledgements after it has written them.
	for end := time.Now().Add(30 * time.Second); e.front.Stats().Acks < clients*each && time.Now().Before(end); {
		runtime.Gosched()
	}
	if st := e.front.Stats(); st.Acks != clients*each || st.MessagesIn != clients*each {
		t.Errorf("%+v", st)
	}
}

// BenchmarkSensors is the whole way from PUBLISH to PUBACK over a disk, the
// load generator on the same machine; nothing is uplinked. With an ACL it has
// 1,001 rules.
func BenchmarkSensors(b *testing.B) {
	var rules strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&rules, "topic write plant/%d/#\n", i)
	}
	rules.WriteString("pattern write v/%c/#\n")
	_, list := aclFile(b, rules.String())
	for _, x := range []struct {
		name string
		list *acl.List
	}{{"", nil}, {"/acl", list}} {
		for _, conns := range []int{1, 10} {
			b.Run(fmt.Sprintf("conns=%d%s", conns, x.name), func(b *testing.B) {
				benchmarkSensors(b, conns, Options{AllowAnonymous: true, ACL: x.list})
			})
		}
	}
}

func benchmarkSensors(b *testing.B, conns int, o Options) {
	e := startEdge(b, o)
	b.ReportAllocs()
	b.ResetTimer()
	errs := make(chan error, conns)
	for i := range conns {
		go func() { errs <- load(e.addr, fmt.Sprint("s", i), b.N/conns+1, 200) }()
	}
	for range conns {
		if err := <-errs; err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	st := e.front.Stats()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	b.ReportMetric(float64(st.Acks)/float64(st.AckWrites), "acks/write")
	b.ReportMetric(float64(b.N)/float64(max(1, e.buf.Stats().Commits)), "msg/commit")
	if e.sensors.Stats().Denied["publish"] > 0 {
		b.Fatal("denied")
	}
}
