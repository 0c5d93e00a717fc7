package local

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

// crashChild appends groups to two shards for ever and tells of each that was
// committed, and applies retention now and then. It ends by being killed.
func crashChild(dir string, out io.Writer) int {
	ctx := context.Background()
	l, err := Open(Options{Dir: dir, Shards: 2, MinFree: -1, Retention: Retention{MaxBytes: 20_000}})
	if err != nil {
		fmt.Fprintf(out, "error open: %v\n", err)
		return 1
	}
	l.dropAfter = 1
	fmt.Fprintf(out, "open %s\n", l.ID())
	fail := make(chan error, 3)
	lines := make(chan string)
	for shard := range 2 {
		go func() { fail <- crashAppend(ctx, l, shard, lines) }()
	}
	go func() {
		for {
			if err := l.Sweep(ctx); err != nil {
				fail <- err
				return
			}
		}
	}()
	for {
		select {
		case line := <-lines:
			fmt.Fprintln(out, line)
		case err := <-fail:
			fmt.Fprintf(out, "error %v\n", err)
			return 1
		}
	}
}

func crashAppend(ctx context.Context, l *Log, shard int, lines chan<- string) error {
	o, err := l.Acquire(ctx, shard)
	if err != nil {
		return err
	}
	rnd := rand.New(rand.NewPCG(uint64(os.Getpid()), uint64(shard)))
	for {
		var entries []commitlog.Entry
		for _, e := range group(8, 1+rnd.IntN(40), 1) {
			if commitlog.ShardOf(e.ID.Device, 2) != shard {
				continue
			}
			next := uint64(1)
			if c := o.Coverage(e.ID.Device); c != nil {
				s := c.Settled(e.ID)
				next = s.Max() + 1
			}
			for i := range e.Records {
				e.Records[i].Seq = next + uint64(i)
			}
			if rnd.IntN(4) == 0 { // some are lost instead
				e.Losses = []stream.Loss{{Range: stream.Range{First: next, Last: next + uint64(len(e.Records)) - 1}, Reason: stream.Evicted}}
				e.Records = nil
			}
			entries = append(entries, e)
		}
		if err := o.Append(ctx, entries); err != nil {
			return err
		}
		for i := range entries {
			e := &entries[i]
			c := o.Coverage(e.ID.Device)
			s := c.Settled(e.ID)
			b, err := json.Marshal(map[string]any{"device": e.ID.Device, "max": s.Max()})
			if err != nil {
				return err
			}
			lines <- string(b)
		}
	}
}

// Killed at any moment, the log opens again, holds all that was reported as
// committed, its coverage is what its records say, and it is no copy of itself.
func TestKill9(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	rnd := rand.New(rand.NewPCG(7, 7))
	acked := map[string]uint64{}
	id := ""
	var floors int64
	rounds := 12
	if testing.Short() {
		rounds = 4
	}
	for round := range rounds {
		opened := crashRound(t, dir, 1+rnd.IntN(150), acked)
		if id == "" {
			id = opened
		}
		if opened != id {
			t.Fatalf("round %d: the log %s has become %s", round, id, opened)
		}
		// by turns a reader looks first, and replays what the crash left
		l, err := Open(Options{Dir: dir, MinFree: -1, ReadOnly: round%2 == 1})
		if err != nil {
			t.Fatalf("round %d: open: %v", round, err)
		}
		floors = checkAgainstRecords(t, l, acked)
		if l.ID().String() != id {
			t.Fatalf("round %d: the log is %s, was %s", round, l.ID(), id)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if floors == 0 {
		t.Error("retention never ran, so this tested less than it says")
	}
	t.Logf("%d rounds, %d records below the floors", rounds, floors)
}

// crashRound lets a child run until it has reported n lines, and kills it.
func crashRound(t *testing.T, dir string, n int, acked map[string]uint64) (id string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "COMMITLOG_CRASH_DIR="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	killed := false
	scan := bufio.NewScanner(out)
	for scan.Scan() { // also what was reported before the kill took effect
		line := scan.Text()
		var x struct {
			Device string
			Max    uint64
		}
		switch {
		case len(line) > 5 && line[:5] == "open ":
			id = line[5:]
		case len(line) > 0 && line[0] == '{' && line[len(line)-1] == '}':
			if err := json.Unmarshal([]byte(line), &x); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			acked[x.Device] = max(acked[x.Device], x.Max)
		case !killed:
			t.Errorf("child: %s", line)
		}
		if n--; n <= 0 && !killed {
			killed = true
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait()
	if !killed {
		t.Fatal("the child ended by itself")
	}
	return id
}

// checkAgainstRecords compares coverage with the records and with what was
// acknowledged, and gives how many records retention has deleted.
func checkAgainstRecords(t *testing.T, l *Log, acked map[string]uint64) (floors int64) {
	t.Helper()
	in := map[string]*stream.RangeSet{}
	for s, err := range l.Read(t.Context(), commitlog.Cursor{}, commitlog.Filter{}) {
		if err != nil {
			t.Fatalf("read: %v", err)
		}
		if in[s.Device] == nil {
			in[s.Device] = &stream.RangeSet{}
		}
		if in[s.Device].Contains(s.Seq) {
			t.Fatalf("%s %d is there twice", s.Device, s.Seq)
		}
		in[s.Device].Add(stream.Range{First: s.Seq, Last: s.Seq})
	}
	for device, last := range acked {
		c, err := l.Coverage(t.Context(), device)
		if err != nil || c == nil {
			t.Fatalf("coverage of %s: %v %v", device, c, err)
		}
		lane := &c.Epochs[0].Lanes[stream.Normal]
		if settled := lane.Settled(); !settled.ContainsRange(stream.Range{First: 1, Last: last}) {
			t.Fatalf("%s: 1-%d was acknowledged, settled is %s", device, last, &settled)
		}
		have := in[device]
		if have == nil {
			have = &stream.RangeSet{}
		}
		want := lane.In.Clone()
		want.RemoveSet(&lane.Expired)
		if !have.Equal(&want) {
			t.Fatalf("%s: records %s, coverage says %s without %s", device, have, &lane.In, &lane.Expired)
		}
	}
	extent, err := l.Extent(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range extent {
		floors += e.Floor
	}
	return floors
}
