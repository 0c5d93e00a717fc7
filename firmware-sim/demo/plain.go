package demo

import (
	"sync/atomic"

	"github.com/packetboat/packetboat/firmware-sim/fleet"
	"github.com/packetboat/packetboat/internal/rig/recording"
)

// plain counts what the sensors' messages would have cost on the link as plain
// MQTT 5 with QoS 1: a PUBLISH each, sent once.
type plain struct {
	messages, bytes atomic.Int64
}

// count passes the messages of src on.
func (p *plain) count(src fleet.Source) fleet.Source {
	return func(yield func(recording.Message, error) bool) {
		for m, err := range src {
			if err == nil {
				p.messages.Add(1)
				p.bytes.Add(int64(recording.PublishSize(len(m.Topic), false, len(m.Payload))))
			}
			if !yield(m, err) {
				return
			}
		}
	}
}

// perMessage is the mean.
func (p *plain) perMessage() float64 {
	return float64(p.bytes.Load()) / float64(max(p.messages.Load(), 1))
}
