package linkbench

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// machine says in words where the times were taken.
func machine() string {
	cpu, ok := procField("/proc/cpuinfo", "model name")
	if !ok {
		cpu = "unknown CPU"
	}
	return fmt.Sprintf("%s/%s, %d CPUs, %s, %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), cpu, runtime.Version())
}

// peak is the most memory this process had, 0 where the system does not say.
func peak() int64 {
	text, _ := procField("/proc/self/status", "VmHWM")
	kb, err := strconv.ParseInt(strings.TrimSuffix(text, " kB"), 10, 64)
	if err != nil {
		return 0
	}
	return kb << 10
}

// procField gives what stands behind "name:" in a file of Linux.
func procField(path, name string) (string, bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value), true
		}
	}
	return "", false
}
