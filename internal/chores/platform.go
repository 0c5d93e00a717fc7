package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// needsWide is what refuses to work on 32 bits, on purpose: a package whose
// tests open this log is a server's.
const needsWide = module + "pkg/commitlog/local"

// mostlyNarrow are packages in which single tests need the embedded log; all
// the others of them run.
var mostlyNarrow = map[string]string{module + "pkg/ingest": "TestManyDevicesOnDisk"}

// test386 runs the tests as 32-bit programs, on the machine itself: what a
// 32-bit ARM would trip over (sizes of int, alignment of atomics, address
// space) shows here without an emulator.
func test386(ctx context.Context, out io.Writer, args []string) error {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" && runtime.GOARCH != "386" {
		fmt.Fprintf(out, "skipped: %s/%s does not run 32-bit Linux programs; linux/amd64 does\n", runtime.GOOS, runtime.GOARCH)
		return nil
	}
	env := []string{"GOARCH=386", "CGO_ENABLED=0"}
	all, err := list(ctx, env, "./...")
	if err != nil {
		return err
	}
	var narrow, wide, skip []string
	for _, p := range all {
		deps, err := list(ctx, env, "-deps", "-test", p)
		switch {
		case err != nil:
			return err
		case !slices.Contains(deps, needsWide):
			narrow = append(narrow, p)
		case mostlyNarrow[p] != "":
			narrow, skip = append(narrow, p), append(skip, mostlyNarrow[p])
		default:
			wide = append(wide, p)
		}
	}
	fmt.Fprintf(out, "not run, the hub's embedded log refuses 32 bits on purpose: %s, and %s\n",
		strings.ReplaceAll(strings.Join(wide, " "), module, ""), strings.Join(skip, " "))
	flags := append([]string{"-timeout", "10m", "-skip", "^(" + strings.Join(skip, "|") + ")$"}, args...)
	return testIn(ctx, out, env, append(flags, narrow...)...)
}

// machine is one that edges run on.
type machine struct {
	name, arch, arm, qemu string
}

var machines = [...]machine{
	{"linux/arm v7", "arm", "7", "qemu-arm-static"},
	{"linux/arm64", "arm64", "", "qemu-aarch64-static"},
}

func (m *machine) env() []string {
	return []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + m.arch, "GOARM=" + m.arm}
}

// testARM runs the tests of what an edge is made of on the edge's machines, as
// they are or emulated, and then the demo with such an edge.
func testARM(ctx context.Context, out io.Writer, args []string) error {
	if runtime.GOOS != "linux" {
		fmt.Fprintf(out, "skipped: %s runs no programs of another Linux machine\n", runtime.GOOS)
		return nil
	}
	var errs []error
	for _, m := range machines {
		fmt.Fprintf(out, "\n--- %s\n", m.name)
		if err := m.test(ctx, out, args); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.name, err))
		}
	}
	return errors.Join(errs...)
}

func (m *machine) test(ctx context.Context, out io.Writer, args []string) error {
	deps, err := list(ctx, m.env(), "-deps", "./cmd/edge")
	if err != nil {
		return err
	}
	ours := slices.DeleteFunc(deps, func(p string) bool { return !strings.HasPrefix(p, module) })
	flags := []string{"-short", "-timeout", "8m", "-vet=off"} // lint has looked
	emulated := runtime.GOARCH != m.arch
	var qemu string
	if emulated {
		if qemu, err = exec.LookPath(m.qemu); err != nil {
			return fmt.Errorf("%s is not here: install qemu-user-static (Debian), or run this on an ARM machine", m.qemu)
		}
		dir, err := os.MkdirTemp("", "packetboat-arm")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		wrapper := filepath.Join(dir, "run")
		if err := os.WriteFile(wrapper, []byte(fmt.Sprintf(runner, qemu)), 0o700); err != nil {
			return err
		}
		// testscript copies the running program and starts the copy, which only a
		// kernel that knows the emulator can do.
		fmt.Fprintln(out, "not run under the emulator: TestScripts, which starts copies of itself; the demo below starts the real program")
		flags = append(flags, "-exec", wrapper, "-skip", "^TestScripts$")
	}
	if err := testIn(ctx, out, m.env(), slices.Concat(flags, args, ours)...); err != nil {
		return err
	}
	return m.demo(ctx, out, qemu)
}

// runner starts a test program under the emulator (%[1]s). The program sees as
// its own name a script that does the same again, so that a test which starts
// itself, to be killed, starts something that the machine can run.
const runner = `#!/bin/sh
bin=$1
shift
printf '#!/bin/sh\nexec %[1]s -0 "$0" "%%s" "$@"\n' "$bin" >"$bin.sh"
chmod 700 "$bin.sh"
exec %[1]s -0 "$bin.sh" "$bin" "$@"
`

// demo runs the demo with an edge built for m, and everything else for here.
func (m *machine) demo(ctx context.Context, out io.Writer, qemu string) error {
	dir, err := filepath.Abs(filepath.Join("out", "arm", m.arch+m.arm))
	if err != nil {
		return err
	}
	edge := filepath.Join(dir, "packetboat-edge")
	to := edge
	if qemu != "" {
		to = filepath.Join(dir, "edge")
	}
	if err := doEnv(ctx, out, m.env(), "go", "build", "-o", to, "./cmd/edge"); err != nil {
		return err
	}
	if qemu != "" {
		script := fmt.Sprintf("#!/bin/sh\nexec %s %q \"$@\"\n", qemu, to)
		if err := os.WriteFile(edge, []byte(script), 0o700); err != nil {
			return err
		}
	}
	for name, pkg := range map[string]string{"packetboat-hub": "./cmd/hub", "packetboat-sim": "./firmware-sim"} {
		if err := do(ctx, out, "go", "build", "-o", filepath.Join(dir, name), pkg); err != nil {
			return err
		}
	}
	return do(ctx, out, filepath.Join(dir, "packetboat-sim"), "demo", "--pace", "3s", "--bin", dir, "--out", filepath.Join(dir, "demo"))
}

// list asks the go command for packages.
func list(ctx context.Context, env []string, args ...string) ([]string, error) {
	c := exec.CommandContext(ctx, "go", append([]string{"list"}, args...)...)
	c.Env = append(os.Environ(), env...)
	c.Stderr = os.Stderr
	b, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("listing packages: %w", err)
	}
	return strings.Fields(string(b)), nil
}
