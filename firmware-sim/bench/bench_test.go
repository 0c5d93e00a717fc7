package bench

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sink acknowledges every PUBLISH of QoS 1 and 2 at once, and after so many closes the
// connection instead; 0: never.
func sink(t testing.TB, limit int64) (addr string, count *atomic.Int64) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	count = &atomic.Int64{}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				swallow(c, count, limit)
			})
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return ln.Addr().String(), count
}

func swallow(c net.Conn, count *atomic.Int64, limit int64) {
	r, w := bufio.NewReaderSize(c, 64<<10), bufio.NewWriterSize(c, 64<<10)
	body := make([]byte, 64<<10)
	for {
		first, err := r.ReadByte()
		if err != nil {
			return
		}
		size, err := binary.ReadUvarint(r)
		if err != nil || size > uint64(len(body)) {
			return
		}
		if _, err := io.ReadFull(r, body[:size]); err != nil {
			return
		}
		switch first & 0xF0 {
		case 0xE0:
			return
		case 0x10:
			_, _ = w.Write([]byte{0x20, 2, 0, 0})
		case 0x30:
			if n := count.Add(1); limit > 0 && n > limit {
				return
			}
			at, qos := 2+int(binary.BigEndian.Uint16(body)), first>>1&3
			if qos > 0 {
				_, _ = w.Write([]byte{0x30 + 0x10*qos, 2, body[at], body[at+1]}) // PUBACK or PUBREC
			}
		case 0x60:
			_, _ = w.Write([]byte{0x70, 2, body[0], body[1]})
		}
		if r.Buffered() == 0 && w.Flush() != nil {
			return
		}
	}
}

func TestLoadSendsAllAndMeasures(t *testing.T) {
	addr, count := sink(t, 0)
	for _, l := range []Load{
		{Broker: addr, QoS: 1, Connections: 3, Window: 50, Payload: 60, Messages: 10_001, Name: "a"},
		{Broker: addr, QoS: 1, Connections: 1, Window: 1, Payload: 0, Messages: 20, Rate: 10_000, Name: "b"},
		{Broker: addr, QoS: 0, Connections: 2, Window: 50, Payload: 60, Messages: 5000, Name: "c"},
		{Broker: addr, QoS: 2, Session: time.Hour, Connections: 150, Window: 50, Payload: 60, Messages: 5000, Name: "d"},
	} {
		count.Store(0)
		r, err := l.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if l.QoS == 0 {
			r.P50, r.P99, r.Max = max(r.P50, 1), max(r.P99, 1), max(r.Max, 1) // of the last message only, if at all
		}
		if int64(l.Messages) != count.Load() || r.Messages != count.Load() || r.PerSecond <= 0 || r.P50 <= 0 || r.P50 > r.P99 || r.P99 > r.Max || r.Max > r.Duration {
			t.Errorf("%d arrived: %+v", count.Load(), r)
		}
	}
}

func TestLoadFailsRatherThanMeasureSomethingElse(t *testing.T) {
	addr, _ := sink(t, 100)
	l := Load{Broker: addr, QoS: 1, Connections: 1, Window: 10, Messages: 150, Name: "a"}
	if r, err := l.Run(t.Context()); err == nil {
		t.Errorf("a connection that ended in between: %+v", r)
	}
	for _, bad := range []Load{{Broker: addr, Messages: 1}, {Broker: addr, QoS: 1, Connections: 2, Messages: 1, Name: "a"}, {Broker: addr, QoS: 3, Connections: 1, Messages: 1, Name: "a"}, {Broker: "127.0.0.1:1", Connections: 1, Messages: 1, Name: "a"}} {
		if _, err := bad.Run(t.Context()); err == nil {
			t.Errorf("%+v passes", bad)
		}
	}
	_, err := Load{Broker: "127.0.0.1:1", Connections: 2, Messages: 2, Name: "a"}.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "connecting a-") || strings.Contains(err.Error(), "\n") {
		t.Errorf("one cause in one line, not %q", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	l = Load{Broker: addr, QoS: 1, Connections: 1, Window: 10, Messages: 1000, Rate: 1, Name: "a"}
	if _, err := l.Run(ctx); err == nil {
		t.Error("a load that was told to end")
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{4, 1}, 2.5}, {[]float64{9, 1, 5}, 5}} {
		if got := median(c.in); got != c.want {
			t.Errorf("median of %v is %v", c.in, got)
		}
	}
}

func TestTable(t *testing.T) {
	var b strings.Builder
	r := &rig{o: EdgeOptions{Out: &b, Rounds: 1}}
	r.table([]*target{
		{name: "edge", rates: map[int][]float64{1: {200}, 10: {900}}},
		{name: "other", rates: map[int][]float64{1: {100}, 10: {300}}},
	})
	if !strings.Contains(b.String(), "2.0 x") || !strings.Contains(b.String(), "3.0 x") {
		t.Error(b.String())
	}
	(&cost{}).print(r, "never")
	if !strings.Contains(b.String(), "not known on this system") {
		t.Error(b.String())
	}
}

func TestFrontTable(t *testing.T) {
	var b strings.Builder
	r := &rig{o: EdgeOptions{Out: &b, Rounds: 1}}
	v := &rival{name: "edge", rates: make([][]float64, len(rows)), seen: make([][]float64, len(rows)), idle: []float64{12_300, 12_500}}
	for n := range rows {
		v.rates[n] = []float64{200, 100, 400}
		v.seen[n] = []float64{0.5}
	}
	v.rates[2] = []float64{50}
	r.frontTable([]*rival{v, {name: "silent", rates: v.rates, seen: v.seen}})
	for _, want := range []string{"(0.25 x)", " 12.4", "50%", "not known on this system", "QoS 1, ACL file of 100 lines"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	if n := strings.Count(hundredLines(), "\n"); n != 100 {
		t.Errorf("an ACL file of %d lines", n)
	}
}

// broker answers one subscriber with the given bytes and gives what it says.
func broker(t *testing.T, answer []byte) (addr string, said <-chan []byte) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	out := make(chan []byte, 1)
	go func() {
		defer close(out)
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		hello := make([]byte, 14+2+2+6)
		if _, err := io.ReadFull(c, hello); err != nil {
			return
		}
		_, _ = c.Write(answer)
		rest := make([]byte, 4)
		n, _ := io.ReadFull(c, rest)
		out <- append(hello, rest[:n]...)
	}()
	t.Cleanup(func() { ln.Close(); <-out })
	return ln.Addr().String(), out
}

func TestSubscriber(t *testing.T) {
	good := []byte{0x20, 2, 0, 0, 0x90, 3, 0, 1, 1}
	messages := append([]byte{0x30, 4, 0, 1, 'a', 'x', 0xD0, 0}, 0x32, 6, 0, 1, 'a', 0x12, 0x34, 'y')
	addr, said := broker(t, append(good, messages...))
	s, err := subscribe(addr, "ab", "#", 1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.run(ctx) }()
	want := "\x10\x0e\x00\x04MQTT\x04\x02\x00\x00\x00\x02ab" + "\x82\x06\x00\x01\x00\x01#\x01" + "\x40\x02\x12\x34"
	if got := string(<-said); got != want {
		t.Errorf("said %q, want %q", got, want)
	}
	cancel()
	<-done
	if s.got.Load() != 2 {
		t.Errorf("%d messages", s.got.Load())
	}
	for name, answer := range map[string][]byte{
		"refused": {0x20, 2, 0, 5, 0x90, 3, 0, 1, 1}, "subscription refused": {0x20, 2, 0, 0, 0x90, 3, 0, 1, 0x80}, "another order": {0x90, 3, 0, 1, 1, 0x20, 2, 0, 0},
	} {
		addr, said := broker(t, answer)
		if s, err := subscribe(addr, "ab", "#", 1); err == nil {
			t.Errorf("%s: subscribed", name)
			s.conn.Close()
		}
		<-said
	}
}

// The generator alone, against a sink in this process.
func BenchmarkLoad(b *testing.B) {
	addr, _ := sink(b, 0)
	l := Load{Broker: addr, QoS: 1, Connections: 10, Window: 200, Payload: 60, Messages: max(b.N, 10), Name: "a"}
	r, err := l.Run(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(r.PerSecond, "messages/s")
}
