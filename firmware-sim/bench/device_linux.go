package bench

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// deviceWritten is how many bytes were written to the device under dir since
// the system started, by everybody; <0: the device does not say.
func deviceWritten(dir string) float64 {
	unix.Sync() // what is under way counts
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return -1
	}
	dev := uint64(st.Dev)
	b, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/stat", unix.Major(dev), unix.Minor(dev)))
	if err != nil {
		return -1
	}
	const sectorsWritten, sectorSize = 6, 512
	f := strings.Fields(string(b))
	if len(f) <= sectorsWritten {
		return -1
	}
	v, err := strconv.ParseFloat(f[sectorsWritten], 64)
	if err != nil {
		return -1
	}
	return v * sectorSize
}
