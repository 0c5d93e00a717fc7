package sensors

import (
	"encoding/hex"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/packetboat/packetboat/pkg/stream"
)

// bootClock names the boot as the kernel does, and counts from it, suspended
// time included: the edge may restart within a boot and its times still fit.
func bootClock() (stream.Epoch, func() int64) {
	var boot stream.Epoch
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return processClock()
	}
	id := strings.ReplaceAll(strings.TrimSpace(string(text)), "-", "")
	if n, err := hex.Decode(boot[:], []byte(id)); err != nil || n != len(boot) {
		return processClock()
	}
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return processClock()
	}
	return boot, func() int64 {
		var ts unix.Timespec
		_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // it did a moment ago
		return ts.Nano() / 1000
	}
}
