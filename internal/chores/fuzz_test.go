package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// named finds the fuzz tests that a document names, each as the last cell of a
// row of a table: `internal/wire.FuzzText`.
func named(document string) (all []string) {
	for line := range strings.Lines(document) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) < 3 || cells[0] != "" {
			continue
		}
		for _, m := range regexp.MustCompile("`([a-z0-9/-]+\\.Fuzz[A-Za-z0-9]*)`").FindAllStringSubmatch(cells[len(cells)-2], -1) {
			all = append(all, m[1])
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// The inventory of decoders names fuzz tests that exist, and no fuzz test is
// left out of it.
func TestFuzzInventory(t *testing.T) {
	root := filepath.Join("..", "..")
	text, err := os.ReadFile(filepath.Join(root, "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	tests, err := fuzzTests(root)
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, f := range tests {
		have = append(have, f.String())
	}
	want := named(string(text))
	if len(want) == 0 {
		t.Fatal("docs/security.md names no fuzz test")
	}
	for _, n := range want {
		if !slices.Contains(have, n) {
			t.Errorf("docs/security.md names %s, which does not exist", n)
		}
	}
	for _, n := range have {
		if !slices.Contains(want, n) {
			t.Errorf("%s is not in the table of docs/security.md", n)
		}
	}
}

func TestFuzzTestsAreFound(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a/x_test.go":          "package a\nfunc FuzzB(f int) {}\nfunc FuzzA(f int) {}\nfunc TestFuzz() {}\nfunc (t T) FuzzMethod() {}\n",
		"a/x.go":               "package a\nfunc FuzzNot() {}\n",
		"a/testdata/x_test.go": "package a\nfunc FuzzNot() {}\n",
		"b/arm_test.go":        "//go:build arm\n\npackage b\nfunc FuzzC() {}\n",
	} {
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	all, err := fuzzTests(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range all {
		got = append(got, f.String())
	}
	if want := []string{"a.FuzzA", "a.FuzzB", "b.FuzzC"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := named("| x | y | `a.FuzzA`, `b.FuzzC` |\ntext `a.FuzzB`\n| `a.FuzzNo` | in the wrong column |\n"); !slices.Equal(got, []string{"a.FuzzA", "b.FuzzC"}) {
		t.Errorf("named %v", got)
	}
}

// Only the go command's own deadline passes for success.
func TestTimeIsUp(t *testing.T) {
	for said, want := range map[string]bool{
		"--- FAIL: FuzzX (10.01s)\n    context deadline exceeded\nFAIL\n":                          true,
		"context deadline exceeded\nFailing input written to testdata/fuzz/FuzzX/1\n":              false,
		"panic: oh\ncontext deadline exceeded\n":                                                   false,
		"--- FAIL: FuzzX (0.01s)\n    x_test.go:9: wrong\n    Failing input written to testdata\n": false,
	} {
		if timeIsUp(said) != want {
			t.Errorf("%q: %v", said, !want)
		}
	}
}
