package hub

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"
)

// A device that connects in a loop gets a few lines, says how many there were
// more, and takes none from others; who makes up ids gets no more than a bound.
func TestComings(t *testing.T) {
	var c comings
	now := time.Now()
	for i := range 25 {
		if level, left := c.level("loop", now); (level == slog.LevelInfo) != (i < comingsLines) || left != 0 {
			t.Errorf("line %d: %s, %d left out", i, level, left)
		}
	}
	if level, _ := c.level("other", now); level != slog.LevelInfo {
		t.Error("one device takes another's lines")
	}
	now = now.Add(comingsEvery)
	for _, want := range []int{25 - comingsLines, 0} { // told once
		if level, left := c.level("loop", now); level != slog.LevelInfo || left != want {
			t.Errorf("a minute later: %s, %d left out, want %d", level, left, want)
		}
	}
	for i := range 2 * comingsDevices {
		level, _ := c.level(fmt.Sprint("made-up-", i), now)
		if (level == slog.LevelInfo) != (i < comingsDevices-1) {
			t.Fatalf("device %d: %s", i, level)
		}
	}
	if len(c.lines) != comingsDevices {
		t.Errorf("%d devices are remembered", len(c.lines))
	}
}

// The lines of a device that comes and goes in a loop are bounded in the log
// itself; each connection is counted all the same.
func TestLoopingDeviceDoesNotFillTheLog(t *testing.T) {
	const connects = 30
	var out syncBuffer
	h := runHubWith(t, testConfig(t.TempDir()), slog.New(slog.NewTextHandler(&out, nil)))
	for range connects {
		d, _ := mustDial(t, h.mqttAddr(), hello{id: "loop"})
		d.bye()
	}
	if n := h.ingest.Stats().Connects; n != connects {
		t.Errorf("%d connects are counted", n)
	}
	h.stop()
	n := strings.Count(out.String(), `msg="device connected"`) + strings.Count(out.String(), `msg="device disconnected"`)
	// A minute may end meanwhile, on a slow machine.
	if n < comingsLines || n > 2*comingsLines {
		t.Errorf("%d lines for %d connections:\n%s", n, connects, out.String())
	}
}

// What a stranger does wrong again and again is one line of the log; the metrics
// say how many there were more.
func TestLinesLeftOutAreCounted(t *testing.T) {
	h := runHub(t, testConfig(t.TempDir()))
	for range 3 {
		c, err := net.Dial("tcp", h.mqttAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, c) // until the hub closes it
		_ = c.Close()
	}
	await(t, "the lines to be counted", func() bool {
		_, text := get(t, "http://"+h.HTTPAddr().String()+"/metrics")
		return strings.Contains(text, "\npacketboat_hub_mqtt_log_lines_left_out_total 2\n")
	})
}
