package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv("CLI_TEST_DEAF") != "" {
		deaf()
	}
	goleak.VerifyTestMain(m)
}

// deaf is a program that does not stop when it is told to.
func deaf() {
	ctx, stop := Signals(context.Background())
	defer stop()
	fmt.Println("running")
	<-ctx.Done()
	fmt.Println(context.Cause(ctx))
	select {}
}

// A program that hangs in its stop is ended by the second signal.
func TestSecondSignalKills(t *testing.T) {
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), "CLI_TEST_DEAF=1")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Process.Kill() }()
	lines := bufio.NewScanner(out)
	for _, want := range []string{"running", "signal: interrupt"} {
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("it says %q, want %q", lines.Text(), want)
		}
		if err := c.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
	}
	err = c.Wait()
	if status, ok := c.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.Signaled() || status.Signal() != syscall.SIGINT {
		t.Errorf("it ended with %v", err)
	}
}

type many struct{}

func (many) Error() string   { return "many" }
func (many) Lines() []string { return []string{"one", "two\n\x1b[31m"} }
func (many) ExitCode() int   { return Usage }

func testRoot(err error) *cobra.Command {
	root := Root("prog", "short", "long", "  prog run")
	run := &cobra.Command{Use: "run", Short: "runs", Args: NoArgs, RunE: func(*cobra.Command, []string) error { return err }}
	run.Flags().Int("size", 1, "a size")
	add := &cobra.Command{Use: "add NAME", Short: "adds", Args: ExactArgs("NAME"), RunE: func(c *cobra.Command, a []string) error {
		_, err := fmt.Fprintln(c.OutOrStdout(), "added", a[0])
		return err
	}}
	root.AddCommand(run, Group("user", "users", "", add))
	return root
}

func TestRun(t *testing.T) {
	locked := Fail(Locked, errors.New("the directory is locked"), "stop the other one")
	for _, c := range []struct {
		args           string
		err            error
		code           int
		stdout, stderr string
	}{
		{"run", nil, OK, "", ""},
		{"run", errors.New("boom"), Failed, "", "prog: boom\n"},
		{"run", fmt.Errorf("open: %w", locked), Locked, "", "prog: open: the directory is locked\nhint: stop the other one\n"},
		{"run", fmt.Errorf("load: %w", many{}), Usage, "", "prog: one\nprog: two ?[31m\n"},
		{"run --size x", nil, Usage, "", "prog: invalid argument \"x\" for \"--size\" flag: strconv.ParseInt: parsing \"x\": invalid syntax\nhint: `prog run --help` lists the flags\n"},
		{"run x", nil, Usage, "", "prog: prog run takes no argument, got \"x\"\nhint: `prog run --help` shows what it takes\n"},
		{"rnu", nil, Usage, "", "prog: unknown command \"rnu\"\nhint: did you mean `prog run`?\n"},
		{"user ad", nil, Usage, "", "prog: unknown command \"ad\"\nhint: did you mean `prog user add`?\n"},
		{"user add", nil, Usage, "", "prog: prog user add wants NAME, got 0 arguments\nhint: `prog user add --help` shows an example\n"},
		{"user add x", nil, OK, "added x\n", ""},
	} {
		var stdout, stderr bytes.Buffer
		code := Run(testRoot(c.err), strings.Fields(c.args), &stdout, &stderr)
		if code != c.code || stdout.String() != c.stdout || stderr.String() != c.stderr {
			t.Errorf("%s: code %d, stdout %q, stderr %q", c.args, code, stdout.String(), stderr.String())
		}
	}
}

func TestHelpGoesToStdout(t *testing.T) {
	for _, args := range []string{"", "--help", "user", "run --help"} {
		var stdout, stderr bytes.Buffer
		if code := Run(testRoot(nil), strings.Fields(args), &stdout, &stderr); code != OK || stdout.Len() == 0 || stderr.Len() != 0 {
			t.Errorf("%q: code %d, %d bytes out, stderr %q", args, code, stdout.Len(), stderr.String())
		}
	}
}

func TestFirstSignalCancels(t *testing.T) {
	ctx, stop := Signals(context.Background())
	defer stop()
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ctx.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the signal did not end the context")
	}
	if got := context.Cause(ctx).Error(); got != "signal: terminated" {
		t.Errorf("cause %q", got)
	}
}

func TestListenError(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = net.Listen("tcp", l.Addr().String())
	err = ListenError("listen.mqtt", l.Addr().String(), err)
	if ExitCode(err) != Listen || err.Error() != "listen on "+l.Addr().String()+": bind: address already in use" {
		t.Errorf("code %d, %v", ExitCode(err), err)
	}
	var e *Error
	if !errors.As(err, &e) || !strings.Contains(e.Hint(), "set listen.mqtt") {
		t.Errorf("no hint: %v", e)
	}
	if Fail(Failed, nil, "x") != nil {
		t.Error("a nil error became one")
	}
}
