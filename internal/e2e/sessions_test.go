package e2e

import (
	"slices"
	"testing"

	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session/state"
)

// Sessions, subscriptions, what waits for them, retained messages and wills
// survive the end of the edge, in order and by kill -9. A will is published when
// its client does not come back to the edge that has started again.
func TestSessionsSurvive(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		end  func(*edge)
		will []string // empty: the client comes back
	}{
		"kill": {func(e *edge) { e.kill() }, []string{"cabin/lamp gone"}},
		"stop": {func(e *edge) { e.stop() }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			e := w.newEdge("edge", "edge-data")
			kept := state.NewInMemory()
			display := e.mustConnect("display", kept, nil)
			display.subscribe("cabin/#", 2)
			display.cut()
			eventually(t, "the display is away", func() bool { return e.status().Sensors.Clients == 0 })

			e.mustConnect("lamp", nil, func(c *paho.Connect) {
				c.WillMessage = &paho.WillMessage{Topic: "cabin/lamp", Payload: []byte("gone"), QoS: 1}
			})
			sensor := e.mustConnect("sensor", nil, nil)
			sensor.publish(&paho.Publish{Topic: "cabin/mode", Payload: []byte("eco"), QoS: 1, Retain: true})
			sensor.publish(&paho.Publish{Topic: "cabin/gone", Payload: []byte("soon"), QoS: 1, Retain: true})
			sensor.publish(&paho.Publish{Topic: "cabin/gone", QoS: 1, Retain: true}) // takes it back
			sensor.publish(&paho.Publish{Topic: "cabin/temperature", Payload: []byte("21"), QoS: 2})
			sensor.publish(&paho.Publish{Topic: "engine/temperature", Payload: []byte("90"), QoS: 2})
			// What waits for a subscriber that is away is on flash a moment after the
			// publisher's acknowledgement: a session, a subscription, a retained
			// message, a will, and four messages.
			eventually(t, "all of it is on flash", func() bool { return e.status().Journal.StateEntries == 8 })
			before := e.status().Sensors
			c.end(e)
			e.start()
			if c.will == nil {
				e.mustConnect("lamp", nil, nil)
			}

			if now := e.status().Sensors; now.Retained != before.Retained || now.Subscriptions != before.Subscriptions || before.Retained != 1 || before.Subscriptions != 1 {
				t.Errorf("before %+v, after %+v", before, now)
			}
			display = e.mustConnect("display", kept, nil)
			if !display.present {
				t.Error("the edge has forgotten the display's session")
			}
			display.sees(append([]string{"cabin/mode eco", "cabin/gone soon", "cabin/gone ", "cabin/temperature 21"}, c.will...)...)
			e.mustConnect("sensor", nil, nil).publish(&paho.Publish{Topic: "cabin/temperature", Payload: []byte("22"), QoS: 2})
			display.sees(append([]string{"cabin/mode eco", "cabin/gone soon", "cabin/gone ", "cabin/temperature 21", "cabin/temperature 22"}, c.will...)...)

			late := e.mustConnect("late", nil, nil)
			late.subscribe("cabin/+", 1)
			late.sees("cabin/mode eco")
			eventually(t, "nothing is remembered but the display and what is retained", func() bool { return e.status().Journal.StateEntries == 3 })
			e.drained()
			var wills []string
			for _, r := range w.records("cabin/lamp") {
				wills = append(wills, r.Topic+" "+r.Payload)
			}
			if !slices.Equal(wills, c.will) {
				t.Errorf("the log has the wills %q, want %q", wills, c.will)
			}
			w.audited()
		})
	}
}
