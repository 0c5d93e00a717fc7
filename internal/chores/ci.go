package main

import (
	"context"
	"fmt"
	"io"
	"time"
)

// ci is the list of what must hold before a change lands, in the order in
// which a failure is cheapest to find. What a user can call it calls as a user.
func ci(ctx context.Context, out io.Writer, _ []string) error {
	steps := [][]string{
		{"make", "build"},
		{"make", "test"},
		{"go", "run", "./internal/chores", "test", "-count=1", "-short", "-race", "./pkg/...", "./internal/mqttfront/...", "./internal/uplink/...", "./internal/sensors/..."},
		{"go", "run", "./internal/chores", "test-386", "-short"},
		{"make", "test-arm"},
		{"make", "fuzz", "FUZZTIME=3s"},
		{"make", "lint"},
		{"make", "cross"},
		{"make", "demo"},
		{"go", "run", "./firmware-sim", "soak-front", "--short", "--minutes", "0.3", "--kill-every", "6s"},
		{"go", "run", "./firmware-sim", "bench-edge", "--short"},
		{"go", "run", "./firmware-sim", "bench-link", "--short"},
	}
	for _, s := range steps {
		begun := time.Now()
		fmt.Fprintf(out, "\n=== %v\n", s)
		if err := do(ctx, out, s...); err != nil {
			return err
		}
		fmt.Fprintf(out, "=== %v: %s\n", s, time.Since(begun).Round(time.Second))
	}
	return nil
}
