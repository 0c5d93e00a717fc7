package buffer

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/packetboat/packetboat/pkg/stream"
)

const childEnv = "PACKETBOAT_BUFFER_TEST_CHILD"

// childMain appends, drains and settles until it is killed. It writes a line
// after each acknowledgement, and one before each settle.
func childMain(dir string) {
	b, err := Open(killOptions(dir))
	if err != nil {
		fmt.Println("E", err)
		os.Exit(1)
	}
	go func() { _ = b.Run(context.Background()) }()
	lines := make(chan string, 10_000)
	window := make(chan struct{}, 100)
	go func() {
		for i := 0; ; i++ {
			lane := stream.Lanes[i%3]
			text := fmt.Sprintf("%d-%d", os.Getpid(), i)
			window <- struct{}{}
			m := stream.Message{Topic: "t", Payload: []byte(text), Quality: stream.TimeLocal, QoS: 1}
			if err := b.Append(lane, []stream.Message{m}, func(p stream.Position, err error) {
				if err != nil {
					lines <- "E " + err.Error()
				}
				lines <- fmt.Sprintf("A %s %d %d %s", p.ID.Epoch, p.ID.Lane, p.Seq, text)
				<-window
			}); err != nil {
				lines <- "E " + err.Error()
			}
		}
	}()
	if err := b.State(func(key string, value []byte) bool { fmt.Printf("M %s %s\n", key, value); return true }); err != nil {
		fmt.Println("E", err)
	}
	fmt.Println("M end")
	go func() { // entries: one Write after another, each replaces, adds and removes
		for i := 0; ; i++ {
			text, done := fmt.Sprintf("%d-%d", os.Getpid(), i), make(chan error)
			w := Write{State: []Entry{{Key: "last", Value: []byte(text)}, {Key: fmt.Sprintf("ring/%d", i%200), Value: []byte(text)}, {Key: fmt.Sprintf("ring/%d", (i+100)%200)}}, Lazy: i%5 == 0}
			fmt.Println("T " + text) // in the pipe before it is written
			if err := b.Commit(w, func(_ stream.Position, err error) { done <- err }); err != nil {
				lines <- "E " + err.Error()
			} else if err := <-done; err != nil {
				lines <- "E " + err.Error()
			}
			fmt.Println("D " + text)
		}
	}()
	go func() {
		for range b.Ready() {
			for _, lane := range stream.Lanes[:2] { // bulk stays
				batch, ok, err := b.Next(lane, Limit{Messages: 50})
				if err != nil {
					lines <- "E " + err.Error()
				}
				if ok {
					fmt.Printf("S %s %d %d %d\n", batch.ID.Epoch, lane, batch.First, batch.Last()) // in the pipe before it is settled
					_ = b.Settle(batch.ID, settled(&batch))
				}
			}
		}
	}()
	for line := range lines {
		if _, err := os.Stdout.WriteString(line + "\n"); err != nil {
			os.Exit(1)
		}
	}
}

func killOptions(dir string) Options {
	return Options{Dir: dir, SegmentBytes: 512 << 10, MaxBytes: 128 << 20}
}

// A process is killed with -9 at some acknowledgement, 30 times on the same
// directory. All that it acknowledged and did not settle is there at the end,
// once, under its number.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	ring := ringModel{sure: map[string]string{}, seen: map[string]string{}}
	acked, sent := map[stream.Position]string{}, map[stream.Position]bool{}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 30 {
		runChild(t, dir, 1+rng.IntN(3000), acked, sent, &ring)
	}
	b, _ := started(t, killOptions(dir))
	if s := b.Stats(); s.Recovery.Unreadable != 0 || !s.ConservationOK {
		t.Fatalf("%+v", s)
	}
	out, lost := drainAll(t, b)
	if len(lost) != 0 {
		t.Fatalf("%d lost", len(lost))
	}
	missing := 0
	for p, text := range acked {
		if got, ok := out[p]; ok && got != text {
			t.Fatalf("%v: %q, acknowledged was %q", p, got, text)
		} else if !ok && !sent[p] {
			missing++
		}
	}
	ring.seen = stateOf(t, b)
	ring.line(t, "M end")
	if ring.writes < 30 {
		t.Fatalf("only %d Writes of entries", ring.writes)
	}
	if missing > 0 || len(acked) < 100 {
		t.Fatalf("%d of %d acknowledged messages are missing", missing, len(acked))
	}
}

func runChild(t *testing.T, dir string, lines int, acked map[stream.Position]string, sent map[stream.Position]bool, ring *ringModel) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewScanner(pipe)
	for n := 0; in.Scan(); n++ { // after the kill, what is in the pipe still counts
		var kind, epoch, text string
		var lane stream.Lane
		var first, last uint64
		line := in.Text()
		switch {
		case strings.ContainsRune("MTD", rune(line[0])):
			ring.line(t, line)
			continue
		case line[0] == 'A':
			_, err = fmt.Sscan(line, &kind, &epoch, &lane, &first, &text)
		case line[0] == 'S':
			_, err = fmt.Sscan(line, &kind, &epoch, &lane, &first, &last)
		default:
			t.Errorf("child: %s", line)
		}
		e, bad := stream.ParseEpoch(epoch)
		if err != nil || bad != nil {
			continue // cut off by the kill
		}
		p := stream.Position{ID: stream.ID{Epoch: e, Lane: lane}, Seq: first}
		if kind == "A" {
			if was, ok := acked[p]; ok && was != text {
				t.Fatalf("%v was given to %q and %q", p, was, text)
			}
			acked[p] = text
		}
		for ; kind == "S" && p.Seq <= last; p.Seq++ {
			sent[p] = true
		}
		if n == lines {
			_ = cmd.Process.Kill()
		}
	}
	_ = cmd.Wait()
}

// ringModel is the map of a process that is killed: what its last acknowledged
// Write left, or the one after that.
type ringModel struct {
	sure, may map[string]string
	seen      map[string]string
	writes    int
}

func (r *ringModel) line(t *testing.T, line string) {
	t.Helper()
	var text string
	switch f := strings.Fields(line); {
	case line == "M end":
		if r.may == nil {
			r.may = r.sure
		}
		if !maps.Equal(r.seen, r.sure) && !maps.Equal(r.seen, r.may) {
			t.Fatalf("after the kill the map is %v, acknowledged was %v", shown(r.seen), shown(r.sure))
		}
		r.sure, r.may, r.seen = r.seen, nil, map[string]string{}
	case f[0] == "M" && len(f) == 3:
		r.seen[f[1]] = f[2]
	case f[0] == "T" && len(f) == 2:
		text = f[1]
		i := 0
		if _, err := fmt.Sscanf(text[strings.IndexByte(text, '-'):], "-%d", &i); err != nil {
			return
		}
		r.may = applied(r.sure, []Entry{{Key: "last", Value: []byte(text)}, {Key: fmt.Sprintf("ring/%d", i%200), Value: []byte(text)}, {Key: fmt.Sprintf("ring/%d", (i+100)%200)}})
	case f[0] == "D" && r.may != nil && len(f) == 2 && r.may["last"] == f[1]:
		r.sure, r.may = r.may, nil
		r.writes++
	}
}
