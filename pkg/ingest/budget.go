package ingest

import "sync"

// budget bounds the memory of all devices: windows are granted from one part,
// admitted batches take from the other.
type budget struct {
	windows, pending int64 // the bounds

	mu      sync.Mutex
	granted int64 // guarded by mu
	used    int64 // guarded by mu
}

// scarce: a window is at most this part of what is left, so that windows shrink
// before they run out.
const scarce = 64

// grant gives a window of so many messages, 0 when none can be had.
func (b *budget) grant(o *Options) int {
	packet := int64(o.PacketBytes)
	b.mu.Lock()
	defer b.mu.Unlock()
	left := b.windows - b.granted
	if left < int64(o.MinWindow)*packet {
		return 0
	}
	n := max(min(int64(o.WindowMessages), left/scarce/packet), int64(o.MinWindow))
	b.granted += n * packet
	return int(n)
}

func (b *budget) giveBack(bytes int64) {
	b.mu.Lock()
	b.granted -= bytes
	b.mu.Unlock()
}

// take reserves memory for a batch. The first one always fits.
func (b *budget) take(bytes int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used > 0 && b.used+bytes > b.pending {
		return false
	}
	b.used += bytes
	return true
}

// force takes memory also beyond the bound: for the little that Connect commits.
func (b *budget) force(bytes int64) {
	b.mu.Lock()
	b.used += bytes
	b.mu.Unlock()
}

func (b *budget) release(bytes int64) {
	b.mu.Lock()
	b.used -= bytes
	b.mu.Unlock()
}

func (b *budget) get() (granted, used int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.granted, b.used
}
