package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/packetboat/packetboat/internal/httpapi"
)

// fleet is a few cars, each behind an edge of its own with its own receipts.
type fleet struct {
	w        *world
	edges    []*edge
	sims     []*process
	receipts []string
}

// join starts an edge; hub is configuration of its own, indented.
func (f *fleet) join(device, hub string) *edge {
	f.w.t.Helper()
	f.w.hubMore[device] = hub
	f.w.more[device] = carLanes
	e := f.w.newDevice(device, device, device+"-data")
	eventually(f.w.t, device+" is connected", func() bool { return e.codec().Up == 1 })
	f.edges = append(f.edges, e)
	return e
}

// speak starts the car of an edge.
func (f *fleet) speak(e *edge) {
	f.w.t.Helper()
	f.w.receipts = f.w.path(fmt.Sprintf("receipts-%d", len(f.receipts)+1))
	f.receipts = append(f.receipts, f.w.receipts)
	f.sims = append(f.sims, f.w.car(e, fmt.Sprint(len(f.receipts)), "--rate", "1500"))
}

// rest ends the sensors and waits for their messages.
func (f *fleet) rest() {
	f.w.t.Helper()
	for _, s := range f.sims {
		s.stop()
	}
	f.sims = nil
	for _, e := range f.edges {
		e.drained()
	}
}

// proven runs both verifiers, the one of receipts with those of all cars.
func (f *fleet) proven() {
	f.w.t.Helper()
	args := []string{"verify", "--hub", "http://" + f.w.hubHTTP}
	for _, r := range f.receipts {
		args = append(args, "--receipts", r)
	}
	if out, code := f.w.command("packetboat-sim", args...); code != 0 {
		f.w.t.Errorf("packetboat-sim verify exits with %d:\n%s", code, out)
	} else {
		f.w.t.Logf("packetboat-sim verify:\n%s", out)
	}
	f.w.audited()
}

// sum adds up what the edges count.
func (f *fleet) sum(of func(edgeCodec) float64) (n float64) {
	for _, e := range f.edges {
		n += of(e.codec())
	}
	return n
}

// stateOf is what the sessions of these devices take, each by itself.
func stateOf(all map[string]*httpapi.DeviceCodec) (n float64) {
	for d := range maps.Values(all) {
		if d != nil {
			n += float64(d.StateBytes)
		}
	}
	return n
}

// A hub with room for one session serves all the same: a session that does not
// fit any more is given up without losing anything, devices without a session
// send what stands for itself, and the metrics account for every byte.
func TestHubWithoutRoom(t *testing.T) {
	t.Parallel()
	const total = 256 << 10 // of which one session takes 256 KiB at most
	w := newWorldWith(t, fmt.Sprintf("codec: {state_bytes: 256KiB, total_bytes: %dB}\n", total))
	f := &fleet{w: w}
	a, b := f.join("car-a", ""), f.join("car-b", "")
	if c := w.codec(); c.Sessions != 2 {
		t.Errorf("both were let learn, as nothing was learned yet: %+v", c)
	}
	f.speak(a)
	f.speak(b)
	eventually(t, "there is no room for two", func() bool { return w.codec().Dropped["no_room"] == 1 })
	learns, poor := a, b
	eventually(t, "one of them is told", func() bool {
		if a.codec().Lowered > 0 {
			learns, poor = b, a
		}
		return poor.codec().Lowered > 0
	})
	late := f.join("car-c", "")
	f.speak(late)
	for _, e := range []*edge{poor, late} {
		began := e.codec().Alone
		eventually(t, e.name+" sends what stands for itself", func() bool { return e.codec().Alone > began+5 })
	}
	f.rest()
	hub, devices := w.codec(), w.devices()
	t.Logf("hub %+v\n%s %+v\n%s %+v\n%s %+v", hub, learns.name, learns.codec(), poor.name, poor.codec(), late.name, late.codec())
	if len(devices) != 3 || hub.Sessions != 1 || hub.State != stateOf(devices) || hub.State != float64(devices[learns.name].StateBytes) ||
		hub.State == 0 || hub.State > total || hub.Kept+hub.KeptSize != 0 {
		t.Errorf("hub %+v, devices of it %v", hub, stateOf(devices))
	}
	if sum := f.sum(func(c edgeCodec) float64 { return c.Alone }); hub.Alone != sum || learns.codec().Alone != 0 {
		t.Errorf("batches that stand for themselves: %.0f at the hub, %.0f at the edges", hub.Alone, sum)
	}
	if fresh, bad := f.sum(func(c edgeCodec) float64 { return c.Fresh }), f.sum(func(c edgeCodec) float64 { return c.Bad }); hub.Fresh != fresh || fresh != 2 ||
		hub.Bad != bad || bad != poor.codec().Bad || bad == 0 || late.codec().Lowered != 0 {
		t.Errorf("edges: %.0f sessions, %.0f batches in vain; hub %+v", fresh, bad, hub)
	}
	if s := late.status().Link.Encoding.Codec; s != "learning, self-contained" {
		t.Errorf("status says %q", s)
	}

	// What is kept of a device that has gone makes room for one that is there.
	learns.stop()
	eventually(t, "the session is kept", func() bool { return w.codec().Kept == 1 })
	if c := w.codec(); c.KeptSize != hub.State || c.State != 0 || c.Sessions != 0 {
		t.Errorf("kept %+v, in use before %+v", c, hub)
	}
	late.kill()
	late.start()
	f.edges = slices.DeleteFunc(f.edges, func(e *edge) bool { return e == learns })
	f.sims = append(f.sims, w.sensors(late, 9, 1000, "--receipts", w.path("receipts-again")))
	f.receipts = append(f.receipts, w.path("receipts-again"))
	eventually(t, "it learns", func() bool { return late.codec().Fresh == 1 && w.codec().State > 0 })
	f.rest()
	if c, devices := w.codec(), w.devices(); c.State != stateOf(devices) || c.State+c.KeptSize > total || late.codec().Alone != 0 {
		t.Errorf("%+v, devices of it %v", c, stateOf(devices))
	}
	f.proven()
}

// Edges and hubs of different ages and tastes serve each other.
func TestMixedFleet(t *testing.T) {
	t.Parallel()
	beside(t, map[string]func(*testing.T){
		"learning hub": func(t *testing.T) { mixed(t, "", "learning", true) },
		"plain hub":    func(t *testing.T) { mixed(t, "codec: {state_bytes: 0B}\n", "learning, self-contained", false) },
	})
}

// mixed serves an edge that knows rows only and one that learns, by a hub that
// lets it or not; said is what status calls that.
func mixed(t *testing.T, config, said string, learns bool) {
	w := newWorldWith(t, config)
	f := &fleet{w: w}
	older, newer := f.join("car-older", "  codec: {name: rows}\n"), f.join("car-newer", "")
	for _, e := range f.edges {
		f.speak(e)
	}
	eventually(t, "both settle", func() bool { return older.settled() > 3000 && newer.settled() > 3000 })
	f.rest()
	hub, old, young, devices := w.codec(), older.codec(), newer.codec(), w.devices()
	t.Logf("hub %+v\nolder %.2f bytes per message %+v\nnewer %.2f %+v", hub, old.Sent/old.Messages, old, young.Sent/young.Messages, young)
	if s := older.status().Link.Encoding.Codec; s != "rows" || devices["car-older"].Name != "rows" {
		t.Errorf("the older edge uses %q, %+v", s, devices["car-older"])
	}
	if s := newer.status().Link.Encoding.Codec; s != said || devices["car-newer"].Name != "learning" {
		t.Errorf("the newer edge uses %q, %+v", s, devices["car-newer"])
	}
	want := hub.Fresh == 1 && hub.Sessions == 1 && hub.State > 0 && hub.Alone == 0
	if !learns {
		want = hub.Fresh == 0 && hub.Sessions == 0 && hub.State == 0 && hub.Alone > 0
	}
	if !want || young.Fresh != hub.Fresh || young.Alone != hub.Alone || hub.State != stateOf(devices) {
		t.Errorf("hub %+v, newer %+v", hub, young)
	}
	if old.Fresh+old.Alone+old.State+old.Bad+young.Bad+hub.Bad != 0 || old.Sent/old.Messages <= young.Sent/young.Messages {
		t.Errorf("older %+v, newer %+v", old, young)
	}

	// The older one is brought up to date, on the journal that it has.
	older.stop()
	w.write("car-older.yaml", strings.Replace(w.read("car-older.yaml"), "name: rows", "name: learning", 1))
	older.start()
	f.speak(older)
	eventually(t, "it settles", func() bool { return older.codec().Messages > 1000 })
	f.rest()
	if s := older.status().Link.Encoding.Codec; s != said {
		t.Errorf("brought up to date, it uses %q", s)
	}
	f.proven()
}
