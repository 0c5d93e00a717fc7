package e2e

import (
	"encoding/json"
	"testing"
)

// The edge is killed again and again while sensors publish with QoS 2 in
// sessions that last: every acknowledged message is in the log once, however
// often it was sent, and no session is lost.
func TestKillEdgeQoS2(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.newEdge("edge", "edge-data")
	sims := []*process{
		w.sensors(e, 71, 1500, "--qos", "2", "--mqtt", "5"),
		w.sensors(e, 72, 1500, "--qos", "2", "--receipts", w.path("receipts-311")),
		w.sensors(e, 73, 600, "--qos", "0,1,2", "--receipts", w.path("receipts-mixed")),
	}
	for i := range kills {
		more(t, e, i)
		e.kill()
		e.start()
	}
	for _, sim := range sims {
		sim.stop()
	}
	e.drained()
	again := float64(0)
	for _, name := range []string{w.receipts, w.path("receipts-311"), w.path("receipts-mixed")} {
		w.receipts = name
		w.proven()
		again += w.exactlyOnce()
	}
	if again == 0 {
		t.Error("no QoS 2 message was sent again: the kills showed nothing")
	}
	t.Logf("%.0f QoS 2 messages were sent again", again)
}

// exactlyOnce wants no copy of a QoS 2 message and no session lost, and gives
// how many messages were sent again all the same.
func (w *world) exactlyOnce() (resent float64) {
	w.t.Helper()
	out, code := w.command("packetboat-sim", "verify", "--strict", "--json", "--receipts", w.receipts, "--hub", "http://"+w.hubHTTP)
	var r struct {
		Double float64
		QoS2   struct {
			Acknowledged, Resent float64
			InSeveralSessions    float64 `json:"in_several_sessions"`
		}
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 {
		w.t.Fatalf("packetboat-sim verify exits with %d: %v\n%s", code, err, out)
	}
	if r.Double != 0 || r.QoS2.Acknowledged == 0 || r.QoS2.InSeveralSessions != 0 {
		w.t.Errorf("%+v", r)
	}
	return r.QoS2.Resent
}
