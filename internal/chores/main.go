// Command chores does the project's housekeeping: it is what the Makefile's
// targets call, so that each is one command and the same on Linux and macOS.
// It starts only the go command, what it built, the tools that go.mod and
// tools/go.mod pin and, for machines that are not this one, qemu. It changes
// nothing outside bin/, out/ and proto/ (a failing fuzz test leaves its input
// below testdata/), and its exit code is 0 only when everything passed.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
)

const usage = `usage: go run ./internal/chores CHORE [ARGUMENT...]

  build              the three binaries, into bin/
  test [PACKAGE...]  the tests (default ./...); ends by saying what was skipped and why
  lint               gofmt, vet, staticcheck, buf lint, tidy modules, current generated code
  proto              generate the code in proto/
  test-386 [FLAG...] the tests as 32-bit programs, on linux/amd64
  test-arm [FLAG...] the tests of the edge's packages, and the demo, on linux/arm and arm64 (qemu-user-static elsewhere)
  fuzz [NAME...]     every fuzz test for FUZZTIME (default 10s)
  cross              cross-compile for the edge's machines, print sizes; compile everything for macOS
  ci                 all that CI checks
`

// chore runs one task; out takes what the user reads.
type chore func(ctx context.Context, out io.Writer, args []string) error

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, out, errOut io.Writer) int {
	chores := map[string]chore{"build": build, "test": test, "test-386": test386, "test-arm": testARM, "fuzz": fuzz, "lint": lint, "proto": proto, "cross": cross, "ci": ci}
	if len(args) == 0 || chores[args[0]] == nil {
		fmt.Fprint(errOut, usage)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := chores[args[0]](ctx, out, args[1:]); err != nil {
		fmt.Fprintf(errOut, "%s: %v\n", args[0], err)
		return 1
	}
	return 0
}

// binaries are what the project ships, by name and package.
var binaries = [...][2]string{
	{"packetboat-edge", "./cmd/edge"},
	{"packetboat-hub", "./cmd/hub"},
	{"packetboat-sim", "./firmware-sim"},
}

func build(ctx context.Context, out io.Writer, _ []string) error {
	for _, b := range binaries {
		if err := do(ctx, out, "go", "build", "-trimpath", "-o", filepath.Join("bin", b[0]), b[1]); err != nil {
			return err
		}
		fmt.Fprintf(out, "bin/%s\n", b[0])
	}
	return nil
}

// tool runs a tool of tools/go.mod, so that a linter never moves the product's
// own dependencies.
func tool(args ...string) []string {
	return append([]string{"go", "tool", "-modfile=tools/go.mod"}, args...)
}

func lint(ctx context.Context, out io.Writer, _ []string) error {
	steps := []struct {
		name string
		do   func() error
	}{
		{"gofmt", func() error { return quiet(ctx, out, "gofmt", append([]string{"-l"}, goDirs()...)...) }},
		{"go vet", func() error { return do(ctx, out, "go", "vet", "./...") }},
		{"staticcheck", func() error { return do(ctx, out, tool("staticcheck", "./...")...) }},
		{"go mod tidy", func() error { return quiet(ctx, out, "go", "mod", "tidy", "-diff") }},
		{"buf lint", func() error { return do(ctx, out, tool("buf", "lint")...) }},
		{"generated code is current", func() error { return protoCurrent(ctx, out) }},
	}
	var failed []string
	for _, s := range steps {
		err := s.do()
		if err != nil {
			failed = append(failed, s.name)
			fmt.Fprintf(out, "FAIL  %s: %v\n", s.name, err)
			continue
		}
		fmt.Fprintf(out, "ok    %s\n", s.name)
	}
	if len(failed) > 0 {
		return fmt.Errorf("not clean: %s", strings.Join(failed, ", "))
	}
	return nil
}

// goDirs are the top-level folders with Go files in them.
func goDirs() []string { return []string{"cmd", "firmware-sim", "internal", "pkg", "proto"} }

func proto(ctx context.Context, out io.Writer, _ []string) error {
	return do(ctx, out, tool("buf", "generate")...)
}

// protoCurrent generates into a folder of its own and compares.
func protoCurrent(ctx context.Context, out io.Writer) error {
	dir, err := os.MkdirTemp("", "packetboat-proto")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := do(ctx, out, tool("buf", "generate", "-o", dir)...); err != nil {
		return err
	}
	have, err := filepath.Glob("proto/packetboat/v1/*.pb.go")
	if err != nil {
		return err
	}
	want, err := filepath.Glob(filepath.Join(dir, "proto/packetboat/v1/*.pb.go"))
	if err != nil {
		return err
	}
	if len(want) == 0 || len(have) != len(want) {
		return fmt.Errorf("%d generated files, want %d: run make proto", len(have), len(want))
	}
	for _, w := range want {
		a, err := os.ReadFile(w)
		if err != nil {
			return err
		}
		h := filepath.Join("proto/packetboat/v1", filepath.Base(w))
		b, err := os.ReadFile(h)
		if err != nil {
			return err
		}
		if !slices.Equal(a, b) {
			return fmt.Errorf("%s is not what its .proto says: run make proto", h)
		}
	}
	return nil
}

// do runs a command with its output on out.
func do(ctx context.Context, out io.Writer, args ...string) error {
	return doEnv(ctx, out, nil, args...)
}

func doEnv(ctx context.Context, out io.Writer, env []string, args ...string) error {
	c := exec.CommandContext(ctx, args[0], args[1:]...)
	c.Env = append(os.Environ(), env...)
	c.Stdout, c.Stderr = out, out
	if err := c.Run(); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(append(env, args...), " "), err)
	}
	return nil
}

// quiet runs a command whose standard output is empty when all is well; what it
// says of its progress goes to standard error, and to out only if it fails.
func quiet(ctx context.Context, out io.Writer, name string, args ...string) error {
	var said, progress bytes.Buffer
	c := exec.CommandContext(ctx, name, args...)
	c.Stdout, c.Stderr = &said, &progress
	err := c.Run()
	if err != nil {
		_, _ = progress.WriteTo(out)
	}
	if said.Len() > 0 {
		_, _ = said.WriteTo(out)
		err = errors.Join(err, errors.New("has something to say"))
	}
	return err
}
