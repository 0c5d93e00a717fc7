package hub

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/packetboat/packetboat/internal/gate"
)

// What a wrong secret costs.
const (
	wrongDelay      = time.Second // and up to as much again
	wrongPerAddress = 16          // answers of one address that wait at a time
	wrongAtOnce     = 1024        // of all
)

// slowdown lets a client that gave a wrong secret wait for the answer. Secrets
// are 256 random bits: it is not guessing that this stops, but a device with an
// old secret, or a script, from keeping the hub, its log and its disk busy. Who
// gives the right secret never waits, whoever shares his address; beyond the
// bounds the answer comes at once, and its connection costs its place in
// accept.rate.
type slowdown struct {
	delayed, full atomic.Int64

	mu      sync.Mutex
	waiting map[netip.Addr]int // guarded by mu
	total   int                // guarded by mu
}

func newSlowdown() *slowdown { return &slowdown{waiting: map[netip.Addr]int{}} }

// wait holds an answer to from back, until ctx ends at the latest. This machine
// is not slowed down.
func (s *slowdown) wait(ctx context.Context, from net.Addr) {
	if fromLoopback(from) {
		return
	}
	a := gate.AddressOf(from)
	if !s.enter(a) {
		s.full.Add(1)
		return
	}
	defer s.leave(a)
	s.delayed.Add(1)
	t := time.NewTimer(wrongDelay + rand.N(wrongDelay))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (s *slowdown) enter(a netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.total >= wrongAtOnce || s.waiting[a] >= wrongPerAddress {
		return false
	}
	s.total++
	s.waiting[a]++
	return true
}

func (s *slowdown) leave(a netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	if s.waiting[a]--; s.waiting[a] == 0 {
		delete(s.waiting, a)
	}
}
