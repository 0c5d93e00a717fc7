package prove

import (
	"fmt"

	"github.com/packetboat/packetboat/internal/rig/receipts"
)

// Kind is what is wrong.
type Kind string

// The kinds.
const (
	Missing    Kind = "missing"      // acknowledged, and not in the log
	Double     Kind = "double"       // in the log more often than it was sent
	Unexpected Kind = "unexpected"   // in the log, and never sent by who has the receipts
	OutOfOrder Kind = "out of order" // in the log behind a message that was sent after it
	Undecided  Kind = "undecidable"  // equal payloads leave open whether it is there
)

// Example is one case.
type Example struct {
	Kind   Kind   `json:"kind"`
	Topic  string `json:"topic"`
	Detail string `json:"detail"`
}

// Report is the result.
type Report struct {
	Messages     int64 `json:"messages"`     // with a receipt
	Acknowledged int64 `json:"acknowledged"` // of these
	Topics       int   `json:"topics"`
	Records      int64 `json:"records"` // in the log, to these topics
	Other        int64 `json:"other"`   // in the log, to topics without receipts
	Copies       int64 `json:"copies"`  // records beyond the first of a message, which the sensor's own resends explain
	QoS2         QoS2  `json:"qos2"`

	// Declared counts acknowledged messages that are not in the log and certainly
	// declared lost; LostNumbers, by reason, the sequence numbers that the hub
	// declares lost or says to have deleted, in the streams of these topics.
	Declared    int64             `json:"declared_lost"`
	LostNumbers map[string]uint64 `json:"lost_numbers,omitempty"`

	Missing     int64 `json:"missing"`
	Double      int64 `json:"double"`
	Unexpected  int64 `json:"unexpected"`
	OutOfOrder  int64 `json:"out_of_order"`
	Undecidable int64 `json:"undecidable"`

	// Unfinished counts runs whose simulator was killed: what it sent last has
	// no receipt, so that a record of it looks unexpected.
	Unfinished int       `json:"unfinished_runs"`
	Examples   []Example `json:"examples,omitempty"`

	perKind map[Kind]int
	limit   int
}

// QoS2 counts the messages for which the sensor's resends excuse no copy.
type QoS2 struct {
	Messages          int64 `json:"messages"`
	Acknowledged      int64 `json:"acknowledged"`
	Resent            int64 `json:"resent"`              // sent more than once, in whatever session
	InSeveralSessions int64 `json:"in_several_sessions"` // the edge had forgotten one
}

// OK says that no promise was found broken.
func (r *Report) OK() bool {
	return r.Missing == 0 && r.Double == 0 && r.Unexpected == 0 && r.OutOfOrder == 0
}

func (r *Report) example(k Kind, topic, format string, args ...any) {
	if r.perKind[k]++; r.perKind[k] <= r.limit {
		r.Examples = append(r.Examples, Example{k, topic, fmt.Sprintf(format, args...)})
	}
}

// tally counts a receipt.
func (r *Report) tally(c *receipts.Receipt) {
	r.Messages++
	if c.Acked {
		r.Acknowledged++
	}
	if c.QoS < 2 {
		return
	}
	r.QoS2.Messages++
	if c.Acked {
		r.QoS2.Acknowledged++
	}
	if c.Tries > 1 {
		r.QoS2.Resent++
	}
	if len(c.Sessions) > 1 {
		r.QoS2.InSeveralSessions++
	}
}
