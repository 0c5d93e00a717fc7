package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
)

const module = "github.com/packetboat/packetboat/"

// event is a line of go test -json.
type event struct {
	Action, Package, Test, Output string
	ImportPath                    string // build output names the package here
	Elapsed                       float64
}

// tally is what a test run comes to.
type tally struct {
	passed, failed int
	missing        int // of skips: programs are not installed
	skips          []string
	took           []timing            // of the packages that have ended
	output         map[string][]string // by package and test, kept until its end
}

// timing is how long the tests of a package took, in seconds.
type timing struct {
	pkg     string
	seconds float64
}

// slowest is how many packages the end of a test run names.
const slowest = 5

func test(ctx context.Context, out io.Writer, args []string) error {
	if len(args) == 0 {
		args = []string{"./..."}
	}
	return testIn(ctx, out, nil, append([]string{"-timeout", "10m"}, args...)...)
}

// notTested begins what a test says that skips because a program is not
// installed. A developer's machine may go without; CI installs them all.
const notTested = "NOT TESTED: "

// testIn runs go test with more in its environment. It fails when a test does,
// when none ran, and in CI when one misses its program.
func testIn(ctx context.Context, out io.Writer, env []string, args ...string) error {
	c := exec.CommandContext(ctx, "go", append([]string{"test", "-json"}, args...)...)
	c.Env = append(os.Environ(), env...)
	c.Stderr = out
	pipe, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	t := tally{output: map[string][]string{}}
	readErr := t.read(pipe, out)
	err = c.Wait()
	t.close(out)
	if err := errors.Join(readErr, err); err != nil {
		return err
	}
	if t.passed == 0 {
		return errors.New("no test ran")
	}
	if os.Getenv("CI") != "" && t.missing > 0 {
		return fmt.Errorf("%d tests miss a program that CI has to install (see %q above)", t.missing, notTested)
	}
	return nil
}

func (t *tally) read(r io.Reader, out io.Writer) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				fmt.Fprintf(out, "%s", line)
			} else {
				t.take(e, out)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (t *tally) take(e event, out io.Writer) {
	key := e.Package + " " + e.Test
	short := strings.TrimPrefix(e.Package, module)
	switch e.Action {
	case "output":
		t.output[key] = append(t.output[key], e.Output)
		return
	case "build-output":
		fmt.Fprint(out, e.Output)
		return
	case "pass", "fail", "skip":
	default:
		return
	}
	switch {
	case e.Test == "" && e.Action == "skip":
		fmt.Fprintf(out, "  --  %s: no test files\n", short)
	case e.Test == "":
		fmt.Fprintf(out, "%s  %s %.1fs\n", e.Action, short, e.Elapsed)
		t.took = append(t.took, timing{short, e.Elapsed})
		if e.Action == "fail" {
			t.unfinished(e.Package, out)
		}
	case e.Action == "pass":
		t.passed++
	case e.Action == "fail":
		t.failed++
		fmt.Fprintf(out, "FAIL  %s %s\n%s", short, e.Test, strings.Join(t.output[key], ""))
	case e.Action == "skip":
		why := reason(t.output[key])
		if strings.HasPrefix(why, notTested) {
			t.missing++
		}
		t.skips = append(t.skips, short+" "+e.Test+": "+why)
	}
	delete(t.output, key)
}

// unfinished prints what a failed package and its tests without an end have
// said: where a test hangs or panics, that is all there is.
func (t *tally) unfinished(pkg string, out io.Writer) {
	for _, key := range slices.Sorted(maps.Keys(t.output)) {
		if strings.HasPrefix(key, pkg+" ") {
			fmt.Fprint(out, strings.Join(t.output[key], ""))
			delete(t.output, key)
		}
	}
}

// reason finds what the test said when it skipped.
func reason(lines []string) string {
	for _, l := range lines {
		l = strings.TrimSpace(l)
		if strings.HasPrefix(l, "---") || strings.HasPrefix(l, "===") {
			continue
		}
		if _, said, ok := strings.Cut(l, ".go:"); ok {
			_, said, _ = strings.Cut(said, ": ")
			return said
		}
	}
	return "gave no reason"
}

func (t *tally) close(out io.Writer) {
	if len(t.skips) > 0 {
		fmt.Fprintf(out, "\nskipped, and why:\n")
		for _, s := range t.skips {
			fmt.Fprintf(out, "  %s\n", s)
		}
	}
	if len(t.took) > 1 {
		slices.SortFunc(t.took, func(a, b timing) int { return cmp.Compare(b.seconds, a.seconds) })
		fmt.Fprintf(out, "\nthe slowest packages:\n")
		for _, p := range t.took[:min(slowest, len(t.took))] {
			fmt.Fprintf(out, "  %7.1fs  %s\n", p.seconds, p.pkg)
		}
	}
	fmt.Fprintf(out, "\n%d passed, %d failed, %d skipped\n", t.passed, t.failed, len(t.skips))
	if os.Getenv("CI") != "" && len(t.skips) > 0 {
		fmt.Fprintln(out, "note: a skip in CI wants a look")
	}
}
