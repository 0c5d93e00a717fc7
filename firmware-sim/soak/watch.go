package soak

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// service is how long somebody waited for something that should keep growing.
type service struct {
	count   int64
	since   time.Time // of the last growth
	longest time.Duration
}

// look notes a new count.
func (v *service) look(now time.Time, count int64) {
	if v.since.IsZero() {
		v.count, v.since = count, now
	}
	v.longest = max(v.longest, now.Sub(v.since))
	if count > v.count {
		v.count, v.since = count, now
	}
}

const (
	every    = 100 * time.Millisecond // between two looks
	progress = 10 * time.Second       // between two lines
)

// observed is what the watcher saw.
type observed struct {
	sensors  [sensors]service
	shown    service
	memory   int64 // the most that was resident
	readings int
}

// longest is the longest that one of the sensors waited.
func (o *observed) longest() (d time.Duration) {
	for i := range o.sensors {
		d = max(d, o.sensors[i].longest)
	}
	return d
}

// watch looks at the edge and the honest until ctx ends, and ends everything
// when the edge ends by itself.
func (s *soak) watch(ctx context.Context, cancel context.CancelCauseFunc) {
	ticks := time.NewTicker(every)
	defer ticks.Stop()
	o := &s.seen
	told := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticks.C:
			edge, kills := s.world.running()
			if ctx.Err() == nil && s.world.died() {
				cancel(fmt.Errorf("%w: the edge ended by itself\n%s", ErrBroken, edge.Tail()))
				return
			}
			var all, connected int64
			for i, f := range s.honest.fleets {
				x := f.Stats()
				o.sensors[i].look(now, x.Acknowledged)
				all, connected = all+x.Acknowledged, connected+int64(x.Connected)
				if o.sensors[i].longest > s.o.Pause {
					s.breaks("%s was not served for more than %s", name(i), s.o.Pause)
				}
			}
			o.shown.look(now, s.honest.shown.Load())
			rss, err := resident(edge.PID())
			if err == nil { // else it was just killed
				o.readings++
				o.memory = max(o.memory, rss)
			}
			if o.memory > s.o.Memory {
				s.breaks("the edge grew beyond its memory of %s", mega(s.o.Memory))
			}
			if o.shown.longest > s.o.Pause {
				s.breaks("the display was not served for more than %s", s.o.Pause)
			}
			if now.Sub(told) >= progress {
				told = now
				s.say("%d acknowledged to honest sensors, %d of %d connected, longest pause %s; display %d, longest pause %s; memory %s, at most %s; %d kills",
					all, connected, sensors, o.longest().Round(every), o.shown.count, o.shown.longest.Round(every), mega(rss), mega(o.memory), kills)
			}
		}
	}
}

func mega(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// resident is the memory of a process that is not on a disk or shared with one
// before it was touched: VmRSS, in bytes.
func resident(pid int) (int64, error) {
	if runtime.GOOS != "linux" {
		out, err := exec.Command("ps", "-o", "rss=", "-p", strconv.Itoa(pid)).Output()
		if err != nil {
			return 0, fmt.Errorf("asking ps: %w", err)
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
		return n << 10, err
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("reading the memory of the edge: %w", err)
	}
	_, b, _ = bytes.Cut(b, []byte("VmRSS:"))
	b, _, ok := bytes.Cut(b, []byte("kB"))
	if !ok {
		return 0, fmt.Errorf("process %d has no memory", pid)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n << 10, err
}
