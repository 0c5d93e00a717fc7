package edge

import (
	"fmt"
	"time"

	"github.com/packetboat/packetboat/internal/sensors"
	"github.com/packetboat/packetboat/internal/uplink"
	"github.com/packetboat/packetboat/pkg/buffer"
	"github.com/packetboat/packetboat/pkg/stream"
)

// LaneName is the name of a lane, or Drop.
type LaneName string

// Drop is the rule that keeps nothing of what it matches.
const Drop LaneName = "drop"

// UnmarshalText reads urgent, normal, bulk or drop.
func (n *LaneName) UnmarshalText(b []byte) error {
	if LaneName(b) != Drop {
		if _, err := stream.ParseLane(string(b)); err != nil {
			return fmt.Errorf("%.40q is not a lane: write urgent, normal, bulk or drop", b)
		}
	}
	*n = LaneName(b)
	return nil
}

// lane gives the lane of a valid name other than Drop.
func (n LaneName) lane() stream.Lane {
	l, _ := stream.ParseLane(string(n))
	return l
}

// Overflow says what a lane does when the buffer is full.
type Overflow string

// The ways to overflow. "" is EvictOldest.
const (
	EvictOldest Overflow = "evict-oldest"
	RefuseNew   Overflow = "refuse-new"
)

// UnmarshalText reads evict-oldest or refuse-new.
func (o *Overflow) UnmarshalText(b []byte) error {
	switch Overflow(b) {
	case EvictOldest, RefuseNew:
		*o = Overflow(b)
		return nil
	}
	return fmt.Errorf("%.40q is not a way to overflow: write evict-oldest or refuse-new", b)
}

// Drain says in which order a lane is sent.
type Drain string

// FIFO sends the oldest first. "" is FIFO.
const FIFO Drain = "fifo"

// UnmarshalText reads fifo.
func (d *Drain) UnmarshalText(b []byte) error {
	switch string(b) {
	case string(FIFO):
		*d = FIFO
		return nil
	case "live-first":
		return fmt.Errorf("live-first is not supported by this version: write fifo")
	}
	return fmt.Errorf("%.40q is not an order of sending: write fifo", b)
}

// rules gives the lanes as the sensors' side reads them.
func (c *Config) rules() (rules []sensors.LaneRule) {
	for _, l := range c.Lanes {
		r := sensors.LaneRule{Filters: l.Filters, Resolution: time.Duration(l.Resolution)}
		if l.Name == Drop {
			r.Drop = true
		} else {
			r.Lane = l.Name.lane()
		}
		rules = append(rules, r)
	}
	return rules
}

// overflows gives the lanes as the buffer reads them.
func (c *Config) overflows() map[stream.Lane]buffer.LaneOptions {
	m := map[stream.Lane]buffer.LaneOptions{}
	for _, l := range c.Lanes {
		if l.Overflow == RefuseNew {
			m[l.Name.lane()] = buffer.LaneOptions{Overflow: buffer.RefuseNew}
		}
	}
	return m
}

// batches gives the lanes as the uplink reads them.
func (c *Config) batches() map[stream.Lane]uplink.BatchPolicy {
	m := map[stream.Lane]uplink.BatchPolicy{}
	for _, l := range c.Lanes {
		if l.Batch != (Batch{}) {
			m[l.Name.lane()] = uplink.BatchPolicy{Messages: l.Batch.Messages, Bytes: int(l.Batch.Bytes), Age: time.Duration(l.Batch.Age)}
		}
	}
	return m
}
