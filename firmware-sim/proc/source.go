package proc

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// Build builds programs into dir from this module's source, which lies in root:
// by file name, the package. The hub is built for 64 bits where the caller is
// for 386: its log needs them, and the edge is what is looked at there.
func Build(ctx context.Context, root, dir string, programs map[string]string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("building the programs: %w", err)
	}
	for name, pkg := range programs {
		cmd := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(dir, name), pkg)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if pkg == "./cmd/hub" && runtime.GOARCH == "386" {
			cmd.Env = append(cmd.Env, "GOARCH=amd64")
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w\n%s", name, err, out)
		}
	}
	return nil
}

// LookAtSources opens every source file that programs are built from. Tests of
// programs do so while they run: the go command notes what a test opens, and
// else would call one passed, from its cache, that ran with programs of other
// sources.
func LookAtSources(root string) error {
	for _, dir := range []string{"cmd", "firmware-sim", "internal", "pkg", "proto", "go.mod"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			return f.Close()
		})
		if err != nil {
			return fmt.Errorf("looking at the sources: %w", err)
		}
	}
	return nil
}
