package e2e

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/eclipse/paho.golang/paho"
)

// as gives a client a name and a password.
func as(name, password string) func(*paho.Connect) {
	return func(c *paho.Connect) {
		c.Username, c.UsernameFlag = name, true
		c.Password, c.PasswordFlag = []byte(password), true
	}
}

// addUser makes a user in sensors.users and gives its password.
func (w *world) addUser(name string) string {
	w.t.Helper()
	out, code := w.command("packetboat-edge", "user", "add", name, "--file", w.path("sensors.users"))
	if code != 0 {
		w.t.Fatalf("packetboat-edge user add exits with %d:\n%s", code, out)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return lines[len(lines)-1]
}

// try publishes and gives the reason code that came back.
func (c *mqttClient) try(topic string) byte {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := c.Publish(ctx, &paho.Publish{Topic: topic, Payload: []byte("x"), QoS: 1})
	if r == nil {
		c.t.Fatalf("publishing to %s: %v", topic, err)
	}
	return r.ReasonCode
}

// Who may publish what stands in files that a running edge follows; what is
// denied is told to the sensor, counted, and not in the log.
func TestUsersAndTopics(t *testing.T) {
	t.Parallel()
	const denied, notAuthorised = 0x87, 0x86
	w := newWorld(t)
	secret := w.addUser("gps")
	w.write("sensors.acl", "user gps\ntopic write gps/#\n")
	w.more["edge"] = "sensors:\n  users_file: " + w.path("sensors.users") + "\n  acl_file: " + w.path("sensors.acl") + "\n"
	e := w.newEdge("edge", "edge-data")

	if _, err := e.connect("thief", nil, as("gps", "guess")); err == nil {
		t.Error("a wrong password connects")
	}
	if _, err := e.connect("nobody", nil, nil); err == nil {
		t.Error("nobody connects")
	}
	gps := e.mustConnect("gps-1", nil, as("gps", secret))
	if a, b := gps.try("gps/pos"), gps.try("engine/rpm"); a >= 0x80 || b != denied {
		t.Errorf("reason codes %#x and %#x", a, b)
	}
	if s := e.status().Sensors; s.Denied["publish"] != 1 || s.BadLogins < 1 {
		t.Errorf("status: %+v", s)
	}
	if metric(e.http, "packetboat_edge_sensor_acl_denials_total") != 1 {
		t.Error("the metric does not say it")
	}
	if log := tail(e.log); !strings.Contains(log, "engine/rpm") {
		t.Errorf("the log does not say what was denied:\n%s", log)
	}

	w.write("sensors.acl", "user gps\ntopic write gps/#\ntopic write engine/#\n")
	eventually(t, "another topic is allowed on the same connection", func() bool { return gps.try("engine/rpm") < 0x80 })

	// Users come and go.
	other := w.addUser("engine")
	eventually(t, "a new user connects", func() bool {
		c, err := e.connect("engine-1", nil, as("engine", other))
		if err == nil {
			c.cut()
		}
		return err == nil
	})
	if out, code := w.command("packetboat-edge", "user", "remove", "gps", "--file", w.path("sensors.users")); code != 0 {
		t.Fatal(out)
	}
	select {
	case <-gps.Done():
	case <-contextOf(t).Done():
		t.Fatal("never: the connection of a user that was removed ends")
	}
	if _, err := e.connect("gps-1", nil, as("gps", secret)); err == nil {
		t.Error("a user that was removed connects")
	}
	e.drained()
	if n := len(w.records("gps/pos")); n != 1 {
		t.Errorf("%d records of what was allowed", n)
	}
	if n := len(w.records("engine/rpm")); n != 1 {
		t.Errorf("%d records of what was denied, then allowed", n)
	}
	w.audited()
}

// contextOf ends with the patience of a test.
func contextOf(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeoutCause(context.Background(), patience, errors.New("never"))
	t.Cleanup(cancel)
	return ctx
}
