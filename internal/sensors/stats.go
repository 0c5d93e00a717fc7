package sensors

import (
	"sync/atomic"

	"github.com/packetboat/packetboat/pkg/stream"
)

// counters are behind Stats.
type counters struct {
	accepted [len(stream.Lanes) + 1]atomic.Int64 // by lane
	refused  [len(answerNames)]atomic.Int64      // by kind of answer

	dropped, unsaved, badLogins, anonymous, certified                   atomic.Int64
	deniedPublishes, deniedSubscriptions, deniedDeliveries, deniedWills atomic.Int64
}

// Stats is what Sensors have done since New.
type Stats struct {
	Accepted map[stream.Lane]int64 // on flash
	Dropped  int64                 // by a drop rule
	// Refused counts messages that were not taken, by reason: full,
	// state_full (no room for what the session must remember), busy (too much
	// waits for the disk), too_large (the buffer can never take it), disk (not
	// acknowledged: the disk refuses, or the buffer is closed).
	Refused map[string]int64
	// Denied counts what the ACL denied: publish, subscribe, deliver (messages
	// that a wider subscription did not get) and will.
	Denied map[string]int64
	// Unsaved counts changes of sessions, retained messages and wills that the
	// buffer did not take: after a restart they are not there.
	Unsaved   int64
	BadLogins int64 // connects without a valid name and password
	Anonymous int64 // connects that proved no name
	Certified int64 // connects whose name a certificate proved
}

// Stats may be called at any time.
func (s *Sensors) Stats() Stats {
	n := &s.n
	out := Stats{
		Accepted: make(map[stream.Lane]int64, len(stream.Lanes)), Refused: make(map[string]int64, len(answerNames)),
		Dropped: n.dropped.Load(), Unsaved: n.unsaved.Load(), BadLogins: n.badLogins.Load(), Anonymous: n.anonymous.Load(), Certified: n.certified.Load(),
		Denied: map[string]int64{
			"publish": n.deniedPublishes.Load(), "subscribe": n.deniedSubscriptions.Load(), "deliver": n.deniedDeliveries.Load(), "will": n.deniedWills.Load(),
		},
	}
	for _, l := range stream.Lanes {
		out.Accepted[l] = n.accepted[l].Load()
	}
	for kind := answerFull; kind < len(answerNames); kind++ {
		out.Refused[answerNames[kind]] = n.refused[kind].Load()
	}
	return out
}
