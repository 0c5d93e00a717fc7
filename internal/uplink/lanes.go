package uplink

import "github.com/packetboat/packetboat/pkg/stream"

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
