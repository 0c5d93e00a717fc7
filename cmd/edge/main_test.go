package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/packetboat/packetboat/internal/edge"
)

// patience bounds a hang; it judges no speed.
const patience = 60 * time.Second

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"packetboat-edge": func() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) },
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			for _, name := range []string{"MQTT", "HTTP", "HUB"} {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					return err
				}
				e.Setenv(name, l.Addr().String())
				if err := l.Close(); err != nil {
					return err
				}
			}
			deploy, err := filepath.Abs("../../deploy")
			e.Setenv("DEPLOY", deploy)
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "ready": ready, "publish": publish, "occupy": occupy,
		},
	})
}

// exits CODE COMMAND… runs a command and wants an exit code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// ready ADDR waits until /readyz says ok.
func ready(ts *testscript.TestScript, _ bool, args []string) {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); time.Now().Before(end); <-tick.C {
		if resp, err := client.Get("http://" + args[0] + "/readyz"); err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
	}
	ts.Fatalf("the edge at %s is never ready", args[0])
}

// publish ADDR TOPIC N publishes N messages with QoS 1 and waits for their
// acknowledgements.
func publish(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[2])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := net.Dial("tcp", args[0])
	ts.Check(err)
	c := paho.NewClient(paho.ClientConfig{Conn: conn, ClientID: "sensor"})
	_, err = c.Connect(ctx, &paho.Connect{ClientID: "sensor", CleanStart: true, KeepAlive: 30})
	ts.Check(err)
	for i := range n {
		_, err := c.Publish(ctx, &paho.Publish{Topic: args[1], QoS: 1, Payload: []byte(strconv.Itoa(i))})
		ts.Check(err)
	}
	ts.Check(c.Disconnect(&paho.Disconnect{}))
	<-c.Done()
}

// occupy ADDR listens there until the script ends.
func occupy(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", args[0])
	ts.Check(err)
	ts.Defer(func() { l.Close() })
}

// The unit starts the program with arguments that it knows.
func TestUnit(t *testing.T) {
	unit, err := os.ReadFile("../../deploy/packetboat-edge.service")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for line := range strings.Lines(string(unit)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == '[' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			t.Errorf("not a setting: %q", line)
		}
		if seen[key] != "" && key != "SystemCallFilter" {
			t.Errorf("%s stands twice", key)
		}
		seen[key] = value
	}
	if seen["Type"] != "notify" || seen["WatchdogSec"] == "" || seen["StateDirectory"] != "packetboat-edge" || seen["RestartPreventExitStatus"] != "2" {
		t.Errorf("unit: %v", seen)
	}
	args := strings.Fields(seen["ExecStart"])
	if len(args) < 2 || args[0] != "/usr/bin/packetboat-edge" {
		t.Fatalf("ExecStart %q", args)
	}
	var out strings.Builder
	if code := run(append(args[1:], "--help"), &out, io.Discard); code != 0 || !strings.Contains(out.String(), "--config") {
		t.Errorf("ExecStart's arguments: code %d", code)
	}
}

func TestMemoryBoundGivesWay(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	conf := edge.Defaults()
	boundMemory(func(string) string { return "77MiB" }, &conf)
	if got := debug.SetMemoryLimit(-1); got != before {
		t.Errorf("GOMEMLIMIT is ignored: %d", got)
	}
	boundMemory(func(string) string { return "" }, &conf)
	if got := debug.SetMemoryLimit(-1); got != 32<<20+2*(32<<20+16<<20+32<<20+1000*20<<10+3*2<<20) {
		t.Errorf("limit %d", got)
	}
}
