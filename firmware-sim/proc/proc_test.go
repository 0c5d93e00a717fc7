package proc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

// The test binary is its own child: what it does stands in PROC_CHILD.
func TestMain(m *testing.M) {
	switch os.Getenv("PROC_CHILD") {
	case "":
		goleak.VerifyTestMain(m)
	case "fail":
		fmt.Println("out of luck")
		os.Exit(3)
	case "wait":
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		fmt.Println("waiting")
		<-c
	}
}

func child(t *testing.T, what string) *Process {
	t.Helper()
	t.Setenv("PROC_CHILD", what)
	p, err := Start(what, filepath.Join(t.TempDir(), "log"), os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

func TestStopAndKill(t *testing.T) {
	for _, end := range []func(*Process) error{(*Process).Stop, func(p *Process) error { p.Kill(); p.Kill(); return nil }} {
		p := child(t, "wait")
		if err := p.Await(t.Context(), func() bool { return strings.Contains(p.Tail(), "waiting") }); err != nil {
			t.Fatal(err)
		}
		if err := end(p); err != nil {
			t.Error(err)
		}
		<-p.Done()
		if err := syscall.Kill(p.PID(), 0); err == nil {
			t.Error("the process is still there")
		}
	}
	var none *Process
	none.Kill()
	if err := none.Stop(); err != nil {
		t.Error(err)
	}
}

func TestAwaitSaysWhyAProcessEnded(t *testing.T) {
	p := child(t, "fail")
	err := p.Await(t.Context(), func() bool { return false })
	if err == nil || !strings.Contains(err.Error(), "out of luck") || !strings.Contains(err.Error(), "exit status 3") {
		t.Error(err)
	}
	if err := p.Stop(); err == nil {
		t.Error("stop hides how it ended")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := child(t, "wait").Await(ctx, func() bool { return false }); err == nil {
		t.Error("waits although it was told not to")
	}
	if _, err := Start("none", filepath.Join(t.TempDir(), "log"), "/nowhere/program"); err == nil {
		t.Error("starts a program that is not there")
	}
}

func TestMetricsAndReady(t *testing.T) {
	ready := false
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/metrics":
			fmt.Fprint(w, "# HELP a x\na{lane=\"x\"} 1\na{lane=\"y\"} 2.5\nb 1e3\nbroken\nc NaNny\n")
		case ready:
			fmt.Fprint(w, "ok")
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer srv.Close()
	defer CloseIdle()
	addr := strings.TrimPrefix(srv.URL, "http://")
	m, err := Metrics(t.Context(), addr)
	if err != nil || m["a"] != 3.5 || m["b"] != 1000 || len(m) != 2 {
		t.Errorf("%v %v", m, err)
	}
	if Ready(t.Context(), addr) {
		t.Error("ready before it is")
	}
	ready = true
	if !Ready(t.Context(), addr) || !Dials(addr) {
		t.Error("not ready although it is")
	}
}

func TestFreePortsDiffer(t *testing.T) {
	addrs, err := FreePorts(20)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, a := range addrs {
		if _, _, err := net.SplitHostPort(a); err != nil || seen[a] {
			t.Errorf("%s: %v", a, err)
		}
		seen[a] = true
	}
}

func TestProgramsOfAFolder(t *testing.T) {
	edge, hub, err := Programs(t.Context(), "/opt/x", "")
	if err != nil || edge != "/opt/x/packetboat-edge" || hub != "/opt/x/packetboat-hub" {
		t.Error(edge, hub, err)
	}
}

func TestBuild(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module example.org/x\n", "x/main.go": "package main\n\nfunc main() { println(42) }\n"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := Build(t.Context(), dir, dir, map[string]string{"program": "./x"}); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), filepath.Join(dir, "program")).CombinedOutput(); err != nil || string(out) != "42\n" {
		t.Errorf("%q, %v", out, err)
	}
	if err := Build(t.Context(), dir, dir, map[string]string{"none": "./none"}); err == nil {
		t.Error("builds what is not there")
	}
	if err := LookAtSources(filepath.Join("..", "..")); err != nil {
		t.Error(err)
	}
	if err := LookAtSources(dir); err == nil {
		t.Error("sees sources where there are none")
	}
}

// Clients trust the certificate, for loopback, and it fits its files.
func TestCertificate(t *testing.T) {
	c, err := NewCertificate(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(c.File, c.Key)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"127.0.0.1", "localhost"} {
		client, server := net.Pipe()
		conf := c.Client.Clone()
		conf.ServerName = name
		done := make(chan error, 1)
		go func() {
			done <- tls.Server(server, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}).HandshakeContext(t.Context())
		}()
		if err := errors.Join(tls.Client(client, conf).HandshakeContext(t.Context()), <-done); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		client.Close()
		server.Close()
	}
	if _, err := NewCertificate(filepath.Join(t.TempDir(), "nowhere")); err == nil {
		t.Error("writes into a folder that is not there")
	}
}
