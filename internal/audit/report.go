package audit

import (
	"math"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

// Kind says which promise a finding breaks.
type Kind string

// The closed set of kinds.
const (
	// Double: a number has more than one record.
	Double Kind = "double"
	// Missing: coverage says that a number is in, but no record has it, and
	// it has not expired: a gap that is neither lost nor out there.
	Missing Kind = "missing"
	// Unknown: a record that coverage does not know of.
	Unknown Kind = "unknown"
	// LostButThere: a record whose number was declared lost.
	LostButThere Kind = "lost_but_there"
	// ExpiredButThere: a record that coverage calls expired, above the floor.
	ExpiredButThere Kind = "expired_but_there"
	// Disorder: a record after a later one of its stream that is not marked as
	// backfill, or in a lane that drains in strict order.
	Disorder Kind = "disorder"
	// Misplaced: a record in another shard than its device's.
	Misplaced Kind = "misplaced"
	// Contradiction: coverage contradicts itself.
	Contradiction Kind = "contradiction"
)

// Counts are numbers of one device or of all. The first block is what there is,
// the second what is wrong, the third what could not be checked.
type Counts struct {
	Streams int    `json:"streams"`
	Records uint64 `json:"records"`
	// Lost counts numbers declared lost, LostBy the same by reason.
	Lost   uint64            `json:"lost"`
	LostBy map[string]uint64 `json:"lost_by,omitempty"`
	// Out counts numbers that an edge told of and the log is still to get.
	Out uint64 `json:"out_there"`

	Broken map[Kind]uint64 `json:"broken,omitempty"`

	// Expired counts numbers whose records retention has deleted.
	Expired uint64 `json:"expired"`
	// Forgotten counts records of epochs that coverage has let go of.
	Forgotten uint64 `json:"forgotten"`
}

// OK reports whether nothing is broken.
func (c *Counts) OK() bool { return len(c.Broken) == 0 }

// plus adds up to the highest number: a device may tell of as many as it likes.
func plus(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}

func (c *Counts) broke(k Kind, n uint64) {
	if n == 0 {
		return
	}
	if c.Broken == nil {
		c.Broken = map[Kind]uint64{}
	}
	c.Broken[k] = plus(c.Broken[k], n)
}

func (c *Counts) lose(reason string, n uint64) {
	if n == 0 {
		return
	}
	if c.LostBy == nil {
		c.LostBy = map[string]uint64{}
	}
	c.LostBy[reason] = plus(c.LostBy[reason], n)
}

func (c *Counts) add(o *Counts) {
	c.Streams += o.Streams
	c.Records += o.Records
	c.Lost = plus(c.Lost, o.Lost)
	c.Out = plus(c.Out, o.Out)
	c.Expired += o.Expired
	c.Forgotten += o.Forgotten
	for r, n := range o.LostBy {
		c.lose(r, n)
	}
	for k, n := range o.Broken {
		c.broke(k, n)
	}
}

// Finding is one broken promise of one stream.
type Finding struct {
	Kind   Kind         `json:"kind"`
	Device string       `json:"device"`
	Epoch  stream.Epoch `json:"epoch"`
	Lane   stream.Lane  `json:"lane"`
	// Count is how many numbers it is about, Numbers the first of them as
	// ranges.
	Count   uint64 `json:"count"`
	Numbers string `json:"numbers"`
}

// MaxFindings is how many findings a report spells out. All are counted.
const MaxFindings = 1000

// maxRanges is how many ranges a finding names.
const maxRanges = 20

// DeviceReport is what was found of one device.
type DeviceReport struct {
	Device string `json:"device"`
	Counts
}

// Report is the outcome of an audit.
type Report struct {
	OK bool `json:"ok"`
	// Snapshot is the part of the log that was read: from floor up to next of
	// each shard.
	Snapshot []commitlog.ShardExtent `json:"snapshot"`
	Total    Counts                  `json:"total"`
	Devices  []DeviceReport          `json:"devices"`
	Findings []Finding               `json:"findings,omitempty"`
	// More counts the findings that are not spelled out.
	More int `json:"more_findings,omitempty"`
}

func (r *Report) find(k Kind, id stream.ID, count uint64, numbers *stream.RangeSet) {
	if count == 0 {
		return
	}
	if len(r.Findings) == MaxFindings {
		r.More++
		return
	}
	var first stream.RangeSet
	for i, x := range numbers.Ranges() {
		if i == maxRanges {
			break
		}
		first.Add(x)
	}
	text := first.String()
	if numbers.Len() > maxRanges {
		text += ",…"
	}
	r.Findings = append(r.Findings, Finding{Kind: k, Device: id.Device, Epoch: id.Epoch, Lane: id.Lane, Count: count, Numbers: text})
}
