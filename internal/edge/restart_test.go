package edge

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/eclipse/paho.golang/paho"
)

// Sessions, subscriptions, what waits for a subscriber, retained messages and
// the wills of those who do not come back are there after a restart; what the ACL
// of now does not allow is not.
func TestStateSurvivesARestart(t *testing.T) {
	c := testConfig(t)
	c.Sensors.ACLFile = write(t, filepath.Join(t.TempDir(), "acl"), "topic readwrite #\n")
	r := begin(t, c)
	in := func(id string, change func(*paho.Connect)) *client {
		t.Helper()
		conn, err := dial("mqtt", r.MQTT, nil)
		if err != nil {
			t.Fatal(err)
		}
		x, err := connectOn(t, conn, id, change)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	hour := uint32(3600)
	stays := func(cp *paho.Connect) {
		cp.CleanStart, cp.Properties = false, &paho.ConnectProperties{SessionExpiryInterval: &hour}
	}
	display := in("display", stays)
	for _, filter := range []string{"a/#", "gone/#"} {
		if code := display.subscribe(t, filter); code != 1 {
			t.Fatalf("subscribe: 0x%02x", code)
		}
	}
	if err := display.Disconnect(&paho.Disconnect{}); err != nil {
		t.Fatal(err)
	}
	<-display.Done()
	delay := uint32(1)
	for _, id := range []string{"allowed", "denied"} {
		in(id, func(cp *paho.Connect) {
			stays(cp)
			cp.WillMessage = &paho.WillMessage{Topic: "gone/" + id, Payload: []byte("will"), QoS: 1}
			cp.WillProperties = &paho.WillProperties{WillDelayInterval: &delay}
		})
	}
	gps := in("gps", nil)
	if code := gps.send(t, "a/1", "waits"); code != 0 {
		t.Fatalf("publish: 0x%02x", code)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := gps.Publish(ctx, &paho.Publish{Topic: "kept/x", QoS: 1, Retain: true, Payload: []byte("retained")}); err != nil {
		t.Fatal(err)
	}
	if s := r.status(t); s.Sensors.Sessions < 4 || s.Sensors.Subscriptions != 2 || s.Sensors.Retained != 1 || s.Journal.StateEntries == 0 || s.Journal.StateBytes == 0 {
		t.Errorf("before: %+v, %+v", s.Sensors, s.Journal)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}

	write(t, c.Sensors.ACLFile, "topic readwrite #\ntopic deny gone/denied\n")
	r = begin(t, c)
	r.eventually(t, "the state is loaded", func(s *Status) bool {
		return s.Sensors.Subscriptions == 2 && s.Sensors.Retained == 1 && s.Sensors.StateFailures == 0
	})
	display = in("display", stays)
	await(t, "the display gets what waited, and the will", func() bool { return display.received() == "a/1=waits gone/allowed=will" })
	fresh := in("fresh", nil)
	if code := fresh.subscribe(t, "kept/#"); code != 1 {
		t.Fatalf("subscribe: 0x%02x", code)
	}
	await(t, "the retained message", func() bool { return fresh.received() == "kept/x=retained" })
	s := r.eventually(t, "both wills are decided", func(s *Status) bool { return s.Sensors.Denied["will"]+s.Sensors.Denied["publish"] == 1 })
	if s.Messages.Accepted != 3 {
		t.Errorf("%+v", s.Messages)
	}
}
