package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// fuzzTest is one Fuzz function of the tree.
type fuzzTest struct {
	dir  string // below the module, with slashes
	name string
}

func (t fuzzTest) String() string { return t.dir + "." + t.name }

// fuzzTests finds all fuzz functions below root, in order. It reads the sources
// itself: those for another machine count too.
func fuzzTests(root string) (all []fuzzTest, err error) {
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if p != root && (strings.HasPrefix(d.Name(), ".") || slices.Contains([]string{"testdata", "tools", "out", "bin"}, d.Name())) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(p))
		if err != nil {
			return err
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, "Fuzz") {
				all = append(all, fuzzTest{filepath.ToSlash(dir), fn.Name.Name})
			}
		}
		return nil
	})
	slices.SortFunc(all, func(a, b fuzzTest) int { return strings.Compare(a.String(), b.String()) })
	return all, err
}

// fuzzBuild is what a fuzz test may take beyond its fuzzing: it is built with
// instruments, and runs its whole corpus first.
const fuzzBuild = 2 * time.Minute

// fuzz runs every fuzz test, or those whose names contain an argument, for
// FUZZTIME each.
func fuzz(ctx context.Context, out io.Writer, args []string) error {
	each := 10 * time.Second
	if v := os.Getenv("FUZZTIME"); v != "" {
		var err error
		if each, err = time.ParseDuration(v); err != nil || each <= 0 {
			return fmt.Errorf("FUZZTIME=%s: want a duration, as 10s or 5m", v)
		}
	}
	all, err := fuzzTests(".")
	if err != nil {
		return err
	}
	if len(args) > 0 {
		all = slices.DeleteFunc(all, func(t fuzzTest) bool {
			return !slices.ContainsFunc(args, func(a string) bool { return strings.Contains(t.String(), a) })
		})
	}
	if len(all) == 0 {
		return errors.New("no such fuzz test")
	}
	var failed []string
	for _, t := range all {
		begun := time.Now()
		if err := t.run(ctx, out, each); err != nil {
			failed = append(failed, t.String())
			fmt.Fprintf(out, "FAIL  %s: %v\n", t, err)
			continue
		}
		fmt.Fprintf(out, "ok    %s %.1fs\n", t, time.Since(begun).Seconds())
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("%d of %d fuzz tests fail: %s", len(failed), len(all), strings.Join(failed, ", "))
	}
	fmt.Fprintf(out, "%d fuzz tests, %s each\n", len(all), each)
	return nil
}

func (t fuzzTest) run(ctx context.Context, out io.Writer, each time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, each+fuzzBuild)
	defer cancel()
	var said bytes.Buffer
	c := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", each.String(), "-fuzzminimizetime", "100x", "./"+t.dir)
	c.Stdout, c.Stderr = &said, &said
	err := c.Run()
	if err == nil || timeIsUp(said.String()) && ctx.Err() == nil {
		return nil
	}
	_, _ = said.WriteTo(out)
	return err
}

// timeIsUp recognises the one failure of the go command's own: at the end of
// the time it now and then reports its own deadline as the test's failure,
// without an input that fails.
func timeIsUp(said string) bool {
	return strings.Contains(said, "context deadline exceeded") && !strings.Contains(said, "Failing input written") && !strings.Contains(said, "panic:")
}
