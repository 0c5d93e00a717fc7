package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// edgeLimit is the largest stripped edge binary: what fits beside a vendor's
// image on small flash.
const edgeLimit = 20_000_000 // bytes

func cross(ctx context.Context, out io.Writer, _ []string) error {
	targets := [...]struct{ name, arch, arm string }{
		{"linux/arm v7", "arm", "7"}, {"linux/arm64", "arm64", ""}, {"linux/amd64", "amd64", ""},
	}
	fmt.Fprintf(out, "%-14s %-16s %12s\n", "target", "binary", "bytes")
	for _, t := range targets {
		for _, b := range binaries {
			to := filepath.Join("out", "cross", "linux-"+t.arch+t.arm, b[0])
			env := []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + t.arch, "GOARM=" + t.arm}
			if err := doEnv(ctx, out, env, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", to, b[1]); err != nil {
				return err
			}
			st, err := os.Stat(to)
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "%-14s %-16s %12d\n", t.name, b[0], st.Size())
			if b[0] == "packetboat-edge" && st.Size() > edgeLimit {
				return fmt.Errorf("%s for %s has %d bytes, more than %d", b[0], t.name, st.Size(), edgeLimit)
			}
		}
	}
	for _, arch := range []string{"amd64", "arm64"} {
		env := []string{"CGO_ENABLED=0", "GOOS=darwin", "GOARCH=" + arch}
		if err := doEnv(ctx, out, env, "go", "build", "./..."); err != nil {
			return err
		}
		if err := doEnv(ctx, out, env, "go", "vet", "./..."); err != nil {
			return err
		}
		fmt.Fprintf(out, "darwin/%s: everything compiles, tests included\n", arch)
	}
	return nil
}
