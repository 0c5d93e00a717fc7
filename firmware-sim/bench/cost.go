package bench

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/packetboat/packetboat/firmware-sim/proc"
)

// usage is what an edge has used at one moment.
type usage struct {
	stored, written float64 // bytes of topic and payload; bytes written to the journal
	commits         float64
	device          float64 // bytes written to the whole device; <0: not known
	anonymous       float64 // bytes of memory; <0: not known
}

func (r *rig) usage(ctx context.Context, in *instance) (u usage, err error) {
	m, err := proc.Metrics(ctx, in.http)
	if err != nil {
		return u, err
	}
	return usage{
		stored: m["packetboat_edge_journal_appended_bytes_total"], written: m["packetboat_edge_journal_written_bytes_total"],
		commits: m["packetboat_edge_journal_commits_total"], device: deviceWritten(r.dir), anonymous: anonymous(in.PID()),
	}, nil
}

// cost is the median of what several runs used.
type cost struct {
	perByte, device, commits, memory []float64
}

func (c *cost) add(before, after usage, took time.Duration) {
	if stored := after.stored - before.stored; stored > 0 {
		c.perByte = append(c.perByte, (after.written-before.written)/stored)
		if before.device >= 0 && after.device >= 0 {
			c.device = append(c.device, (after.device-before.device)/stored)
		}
	}
	c.commits = append(c.commits, (after.commits-before.commits)/took.Seconds())
	if after.anonymous >= 0 {
		c.memory = append(c.memory, after.anonymous)
	}
}

func (c *cost) print(r *rig, when string) {
	known := func(values []float64, format string, scale float64) string {
		if len(values) == 0 {
			return "not known on this system"
		}
		return fmt.Sprintf(format, median(values)/scale)
	}
	r.printf("edge %s:\n", when)
	r.printf("  journal bytes written per byte of topic and payload  %s\n", known(c.perByte, "%.2f", 1))
	r.printf("  bytes on the device per byte, all programs included  %s\n", known(c.device, "%.2f", 1))
	r.printf("  commits/s (one sync each)                            %s\n", known(c.commits, "%.0f", 1))
	r.printf("  anonymous memory                                     %s\n\n", known(c.memory, "%.1f MB", 1e6))
}

// anonymous is the memory of a process that is not a file's.
func anonymous(pid int) float64 {
	kb, ok := field(fmt.Sprintf("/proc/%d/status", pid), "RssAnon:")
	if !ok {
		return -1
	}
	return kb * 1024
}

func cpuName() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown CPU"
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if name, value, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown CPU"
}

// field gives the number behind a word in a file of words and numbers.
func field(path, word string) (float64, bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == word {
			v, err := strconv.ParseFloat(f[1], 64)
			return v, err == nil
		}
	}
	return 0, false
}

func cutPort(addr string) (host, port string, err error) { return net.SplitHostPort(addr) }
