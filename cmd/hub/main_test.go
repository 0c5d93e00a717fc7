package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/eclipse/paho.golang/paho"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/packetboat/packetboat/internal/wire"
	"github.com/packetboat/packetboat/pkg/stream"
)

// patience bounds a hang; it judges no speed.
const patience = time.Minute

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"packetboat-hub": func() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) },
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			for _, name := range []string{"MQTT", "HTTP", "MQTT2", "HTTP2"} {
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
			"exits": exits, "ready": ready, "send": send, "occupy": occupy, "removeblock": removeBlock, "following": following,
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

// following ADDR waits until somebody reads records there.
func following(ts *testscript.TestScript, _ bool, args []string) {
	poll(ts, "http://"+args[0]+"/metrics", func(body string) bool { return strings.Contains(body, "packetboat_hub_http_readers 1") })
}

// poll asks until the answer is 200 and ok.
func poll(ts *testscript.TestScript, url string, ok func(string) bool) {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); time.Now().Before(end); <-tick.C {
		res, err := client.Get(url)
		if err != nil {
			continue
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err == nil && res.StatusCode == http.StatusOK && ok(string(body)) {
			return
		}
	}
	ts.Fatalf("%s never answers as expected", url)
}

// ready ADDR waits until /readyz says ok.
func ready(ts *testscript.TestScript, _ bool, args []string) {
	poll(ts, "http://"+args[0]+"/readyz", func(string) bool { return true })
}

// send ADDR DEVICE SECRETFILE|- FIRST N sends records FIRST… of a device, one batch of N,
// and waits for the acknowledgement. A refused connection fails.
func send(ts *testscript.TestScript, neg bool, args []string) {
	first, err := strconv.ParseUint(args[3], 10, 64)
	ts.Check(err)
	n, err := strconv.Atoi(args[4])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := net.Dial("tcp", args[0])
	ts.Check(err)
	c := paho.NewClient(paho.ClientConfig{Conn: conn, ClientID: args[1]})
	cp := &paho.Connect{ClientID: args[1], CleanStart: true, KeepAlive: 30, Properties: &paho.ConnectProperties{RequestProblemInfo: true}}
	cp.Properties.User.Add(wire.FormatVersion().Key, wire.FormatVersion().Value)
	if args[2] != "-" {
		secret := strings.TrimSpace(ts.ReadFile(args[2]))
		cp.Username, cp.UsernameFlag, cp.Password, cp.PasswordFlag = args[1], true, []byte(secret), true
	}
	_, err = c.Connect(ctx, cp)
	if neg {
		if err == nil {
			ts.Fatalf("the hub let %s in", args[1])
		}
		return
	}
	ts.Check(err)
	epoch := stream.Epoch{0: 1, 15: args[1][0]} // one per device
	b := stream.Batch{ID: stream.ID{Epoch: epoch, Lane: stream.Normal}, First: first, Head: first + uint64(n) - 1, Floor: first}
	for i := range n {
		seq := first + uint64(i)
		b.Records = append(b.Records, stream.Record{Seq: seq, Message: stream.Message{
			Topic: "car/speed", Payload: strconv.AppendUint(nil, seq, 10), Time: int64(1_700_000_000_000_000 + seq*1000), Quality: stream.TimeLocal, QoS: 1}})
	}
	packet, err := wire.NewEncoder(wire.EncoderOptions{}).Append(nil, &b)
	ts.Check(err)
	_, err = c.Publish(ctx, &paho.Publish{Topic: wire.UpTopic(args[1]), QoS: 1, Payload: packet})
	ts.Check(err)
	ts.Check(c.Disconnect(&paho.Disconnect{}))
	<-c.Done()
}

// occupy ADDR listens there until the script ends.
func occupy(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", args[0])
	ts.Check(err)
	ts.Defer(func() { l.Close() })
}

// removeBlock DATA takes the last block but one out of a stopped hub's log,
// behind its back: the block, and what indexes it (docs/format/log.md).
func removeBlock(ts *testscript.TestScript, _ bool, args []string) {
	db, err := badger.Open(badger.DefaultOptions(ts.MkAbs(args[0] + "/log/badger")).WithLogger(nil))
	ts.Check(err)
	defer func() { ts.Check(db.Close()) }()
	var place, last []byte // shard and offset
	var gone [][]byte
	ts.Check(db.View(func(tx *badger.Txn) error {
		it := tx.NewIterator(badger.IteratorOptions{})
		defer it.Close()
		for it.Seek([]byte("x")); it.ValidForPrefix([]byte("x")); it.Next() {
			place, last = last, it.Item().KeyCopy(nil)[1:]
		}
		for it.Rewind(); it.Valid(); it.Next() {
			k := it.Item().KeyCopy(nil)
			if bytes.HasPrefix(k[1:], place) && (k[0] == 'b' || k[0] == 'x') || k[0] == 'd' && bytes.HasSuffix(k, place[2:]) {
				gone = append(gone, k)
			}
		}
		return nil
	}))
	if len(gone) < 3 {
		ts.Fatalf("only %d keys belong to the block", len(gone))
	}
	ts.Check(db.Update(func(tx *badger.Txn) error {
		for _, k := range gone {
			if err := tx.Delete(k); err != nil {
				return err
			}
		}
		return nil
	}))
}

// The unit starts the program with arguments that it knows.
func TestUnit(t *testing.T) {
	unit, err := os.ReadFile("../../deploy/packetboat-hub.service")
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
		if !ok || seen[key] != "" && key != "SystemCallFilter" {
			t.Errorf("not a setting, or twice: %q", line)
		}
		seen[key] = value
	}
	if seen["Type"] != "notify" || seen["WatchdogSec"] == "" || seen["StateDirectory"] != "packetboat-hub" || seen["RestartPreventExitStatus"] != "2 5" {
		t.Errorf("unit: %v", seen)
	}
	args := strings.Fields(seen["ExecStart"])
	if len(args) < 2 || args[0] != "/usr/bin/packetboat-hub" {
		t.Fatalf("ExecStart %q", args)
	}
	var out strings.Builder
	if code := run(append(args[1:], "--help"), &out, io.Discard); code != 0 || !strings.Contains(out.String(), "--config") {
		t.Errorf("ExecStart's arguments: code %d", code)
	}
}
