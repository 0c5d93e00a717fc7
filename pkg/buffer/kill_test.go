package buffer

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
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
	acked, sent := map[stream.Position]string{}, map[stream.Position]bool{}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 30 {
		runChild(t, dir, 1+rng.IntN(3000), acked, sent)
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
	if missing > 0 || len(acked) < 100 {
		t.Fatalf("%d of %d acknowledged messages are missing", missing, len(acked))
	}
}

func runChild(t *testing.T, dir string, lines int, acked map[stream.Position]string, sent map[stream.Position]bool) {
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
