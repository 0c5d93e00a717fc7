package local

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

// group makes entries of small records, per of each device, first being the
// number of the first.
func group(devices, per int, first uint64) []commitlog.Entry {
	var all []commitlog.Entry
	for d := range devices {
		id := stream.ID{Device: fmt.Sprintf("truck-%d", d), Epoch: stream.Epoch{1}, Lane: stream.Normal}
		e := commitlog.Entry{ID: id, Current: id.Epoch, Received: 1_700_000_000_000_000 + int64(first), Floor: first}
		rnd := rand.New(rand.NewPCG(uint64(d), first))
		for i := range per {
			n := first + uint64(i)
			x := rnd.Uint64() >> 40 // digits that nobody can guess
			e.Records = append(e.Records, stream.Record{Seq: n, Message: stream.Message{
				Topic: topics[i%len(topics)], Payload: fmt.Appendf(nil, "%d.%d", 20+x%50, x%100), Time: 1_700_000_000_000_000 + int64(n)*10_000 + int64(x%7)*1000, Quality: stream.TimeLocal, QoS: 1,
			}})
		}
		all = append(all, e)
	}
	return all
}

var topics = func() (all []string) {
	for i := range 40 {
		all = append(all, fmt.Sprintf("car/sensor/%d/value", i))
	}
	return all
}()

func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct{ devices, per int }{{1, 1}, {50, 200}, {10, 2000}, {500, 20}} {
		b.Run(fmt.Sprintf("records=%d/devices=%d", c.devices*c.per, c.devices), func(b *testing.B) {
			l, err := Open(Options{Dir: b.TempDir(), MinFree: -1})
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			o, err := l.Acquire(b.Context(), 0)
			if err != nil {
				b.Fatal(err)
			}
			g := group(c.devices, c.per, 1)
			step := uint64(c.per)
			for b.Loop() {
				if err := o.Append(b.Context(), g); err != nil {
					b.Fatal(err)
				}
				for i := range g {
					for j := range g[i].Records {
						g[i].Records[j].Seq += step
					}
				}
			}
			s := l.Stats()
			b.ReportMetric(float64(s.Records)/b.Elapsed().Seconds(), "records/s")
			b.ReportMetric(float64(s.StoredBytes)/float64(s.StoredRecords), "B/record")
		})
	}
}

// BenchmarkSync is what the disk allows: one small write and a sync each. Badger
// makes two syncs of a commit, one of its value log, though nothing is in it.
func BenchmarkSync(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "file"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, 600)
	for b.Loop() {
		if _, err := f.Write(buf); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	l, err := Open(Options{Dir: b.TempDir(), MinFree: -1})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	o, err := l.Acquire(b.Context(), 0)
	if err != nil {
		b.Fatal(err)
	}
	const groups, devices, per = 50, 50, 200
	for g := range groups {
		if err := o.Append(b.Context(), group(devices, per, uint64(g*per+1))); err != nil {
			b.Fatal(err)
		}
	}
	for name, f := range map[string]commitlog.Filter{
		"all":    {},
		"device": {Device: "truck-7"},
		"time":   {From: 1_700_000_000_000_000 + 4000*10_000, To: 1_700_000_000_000_000 + 4200*10_000},
	} {
		b.Run(name, func(b *testing.B) {
			n := 0
			for b.Loop() {
				for _, err := range l.Read(b.Context(), commitlog.Cursor{}, f) {
					if err != nil {
						b.Fatal(err)
					}
					n++
				}
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "records/s")
		})
	}
}
