//go:build !linux

package sensors

import "github.com/packetboat/packetboat/pkg/stream"

func bootClock() (stream.Epoch, func() int64) { return processClock() }
