package uplink

import (
	"time"

	"github.com/packetboat/packetboat/pkg/buffer"
	"github.com/packetboat/packetboat/pkg/stream"
)

// shares decides whose turn it is: the highest lane that has a batch, but a
// lower one that was passed over too often goes first.
type shares [len(stream.Lanes) + 1]int // by lane: how often it was passed over

// patience is how often a lane lets a higher one pass: normal gets at least a
// ninth of the batches, bulk a seventeenth.
var patience = shares{stream.Urgent: 0, stream.Normal: 8, stream.Bulk: 16}

// pick takes one of the lanes that are due; false when none is.
func (s *shares) pick(due func(stream.Lane) bool) (lane stream.Lane, ok bool) {
	var waiting [len(s)]bool
	for i := len(stream.Lanes) - 1; i >= 0; i-- { // the highest wins
		l := stream.Lanes[i]
		waiting[l] = due(l)
		if waiting[l] {
			lane, ok = l, true
		}
	}
	for _, l := range stream.Lanes {
		if waiting[l] && l != lane && s[l] >= patience[l] {
			lane = l
			break
		}
	}
	for _, l := range stream.Lanes {
		if waiting[l] && l != lane {
			s[l]++
		} else {
			s[l] = 0
		}
	}
	return lane, ok
}

// wait is how long a lane with backlog b may still collect; 0: its batch is
// due, negative: there is nothing to wait for.
func (p BatchPolicy) wait(b buffer.Backlog, now time.Time) time.Duration {
	switch {
	case b.Messages == 0:
		return -1
	case p.Age < 0, b.Messages >= int64(p.Messages), b.Bytes >= int64(p.Bytes):
		return 0
	}
	return max(p.Age-now.Sub(b.OldestAppend), 0)
}
