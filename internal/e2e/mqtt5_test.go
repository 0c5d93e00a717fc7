package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
)

// Messages whose expiry passes while the hub is away are declared lost, and the
// edge's status and the hub's streams say so; one without expiry, and one that
// has time, arrive.
func TestExpiredMessagesAreDeclared(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.newEdge("edge", "edge-data")
	w.hub.stop()
	sensor := e.mustConnect("sensor", nil, nil)
	for i := range 9 {
		seconds := []uint32{1, 3600, 0}[i%3]
		p := &paho.Publish{Topic: "pos", Payload: fmt.Append(nil, i), QoS: byte(1 + i%2), Properties: &paho.PublishProperties{}}
		if seconds > 0 {
			p.Properties.MessageExpiry = &seconds
		}
		sensor.publish(p)
	}
	ago(t, time.Now(), 1500*time.Millisecond)
	w.startHub()
	e.drained()
	if lost := e.status().Messages.LostBy; lost["expired"] != 3 || len(lost) != 1 {
		t.Errorf("the edge's status says lost: %v", lost)
	}
	if in, lost := w.streams(); in != 6 || lost["expired"] != 3 || len(lost) != 1 {
		t.Errorf("the hub has %.0f in the log and lost %v", in, lost)
	}
	for i, r := range w.records("pos") {
		if want := fmt.Sprint([]int{1, 2, 4, 5, 7, 8}[i]); r.Payload != want {
			t.Errorf("record %d is message %s, want %s", i, r.Payload, want)
		}
	}
	w.audited()
}

// What a sensor says about its message in MQTT 5 stands in the hub's log.
func TestPropertiesReachTheLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.newEdge("edge", "edge-data")
	text := byte(1)
	sensor := e.mustConnect("sensor", nil, nil)
	for qos := range byte(3) {
		sensor.publish(&paho.Publish{Topic: fmt.Sprint("gps/", qos), Payload: []byte(`{"lat":1}`), QoS: qos, Properties: &paho.PublishProperties{
			ContentType: "application/json", ResponseTopic: "answers/gps", CorrelationData: []byte{0, 1, 0xFF}, PayloadFormat: &text,
			User: paho.UserProperties{{Key: "unit", Value: "deg"}, {Key: "unit", Value: "°"}},
		}})
	}
	eventually(t, "all are in the log", func() bool { return e.settled() == 3 })
	for qos := range byte(3) {
		all := w.records(fmt.Sprint("gps/", qos))
		want := `[{gps/%d {"lat":1} %d {application/json answers/gps [0 1 255] [{unit deg} {unit °}] true}}]`
		if got := fmt.Sprint(all); got != fmt.Sprintf(want, qos, qos) {
			t.Errorf("QoS %d: %s", qos, got)
		}
	}
}
