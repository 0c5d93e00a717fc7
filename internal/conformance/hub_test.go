package conformance

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/packetboat/packetboat/internal/rig/rawmqtt"
)

// hubChecks are the checks of the edge that hold at the hub's door, which speaks
// MQTT 5 with devices only.
var hubChecks = []func(*T){
	illFormedText, nullInText, reservedFlags, pubrelFlags, subscribeFlags, unsubscribeFlags, disconnectFlags, authFlags, notForClients, zeroID, badLength, badProperties, cutShort,
	firstPacket, secondConnect, protocolName, protocolLevel, reservedConnectFlag, willQoSAlone, willRetainAlone, willQoS3, connectFields, clientIDMissing,
	authMethodUnknown, authUninvited, takeover, keepAliveHolds5, serverKeepAlive, responseInformation, problemInformation, explanationsGiveWay, reasonCodes,
	qos3, dupWithQoS0, emptyTopic, responseWildcard, identifierFromClient, aliasZero, aliasTooHigh, packetTooLarge5,
	noFilters, noFiltersToUnsubscribe, reservedOptions, noLocalShared, disconnectCodes, pings, silence,
	hubCONNACK, hubVersions, hubClientIDs, hubOwnTopics, hubQoS2, hubRetain, hubSubscriptions, hubWill,
}

// TestHub runs them at the same time against one hub.
func TestHub(t *testing.T) {
	if mosquittoInstead() {
		t.Skip("mosquitto is no hub")
	}
	b := newHub(t)
	t.Run("group", func(t *testing.T) {
		for _, fn := range hubChecks {
			t.Run(functionName(fn), func(t *testing.T) {
				t.Parallel()
				x := newT(t, b, v5)
				x.always = []option{with(user("pb-version", "1"))} // what a device says first
				fn(x)
			})
		}
	})
}

// keepAliveHolds5 keeps a connection with PINGREQ alone.
func keepAliveHolds5(t *T) {
	c := t.connect(keepAlive(1))
	for range 3 {
		after(900 * time.Millisecond)
		c.ping()
	}
}

// packetTooLarge5 sends only the header: the hub takes nothing but batches.
func packetTooLarge5(t *T) {
	c := t.connect()
	if !c.ack.Properties.Has(rawmqtt.MaximumPacketSize) {
		t.Fatal("no Maximum Packet Size is announced")
	}
	c.sendBytes([]byte{0x32, 0xff, 0xff, 0xff, 0x7f})
	c.told(0x95)
}

func hubCONNACK(t *T) {
	c := t.connect(t.lasting(600))
	p := c.ack.Properties
	for id, want := range map[rawmqtt.PropertyID]uint32{rawmqtt.MaximumQoS: 1, rawmqtt.RetainAvailable: 0} {
		if !p.Has(id) || p.Num(id, 9) != want {
			t.Errorf("%s: CONNACK says %v", id, p)
		}
	}
	if p.Num(rawmqtt.ReceiveMaximum, 65535) == 65535 || p.Num(rawmqtt.TopicAliasMaximum, 0) == 0 {
		t.Errorf("CONNACK says %v", p)
	}
}

// Other versions are answered in their own words.
func hubVersions(t *T) {
	for _, version := range []byte{rawmqtt.V31, v4} {
		c := t.dialAs(version)
		c.send(t.connectPacket(func(p *rawmqtt.Connect) { p.ClientID = t.id("old") }))
		if a := c.connack(); a.Code != 1 {
			t.Errorf("level %d: CONNACK with code %d", version, a.Code)
		}
		c.ended()
	}
}

func hubClientIDs(t *T) {
	for _, id := range []string{"", "a/b", "a b", "ß", "0123456789012345678901234567890123456789012345678901234567890123456789"} {
		c := t.dial()
		c.send(t.connectPacket(as(id)))
		if a := c.connack(); a.Code < 0x80 {
			t.Errorf("client identifier %q is let in", id)
		}
		c.ended()
	}
}

// A device publishes below its own id alone.
func hubOwnTopics(t *T) {
	for i, topic := range []string{"a", "pb/1/other/up", "pb/1/up", "$SYS/a"} {
		c := t.connect(as(t.id(fmt.Sprint("dev", i))))
		p := message(topic, 1, "x")
		p.ID = 1
		c.send(p)
		c.rejected(p)
	}
}

func hubQoS2(t *T) {
	c := t.connect(as(t.id("dev")))
	c.send(&rawmqtt.Publish{Topic: "pb/1/" + t.id("dev") + "/up", QoS: 2, ID: 1})
	c.told(0x9B)
}

func hubRetain(t *T) {
	c := t.connect(as(t.id("dev")))
	c.send(&rawmqtt.Publish{Topic: "pb/1/" + t.id("dev") + "/up", QoS: 1, ID: 1, Retain: true})
	c.told(0x9A)
}

// A device may subscribe below its own id; every other filter is refused, those
// that would see others above all.
func hubSubscriptions(t *T) {
	id := t.id("dev")
	c := t.connect(as(id))
	c.subscribe("pb/1/"+id+"/down/#", 1)
	for _, f := range []string{"#", "+/#", "pb/#", "pb/1/#", "pb/1/+/down/#", "pb/1/other/down/#", "$SYS/#", "$share/g/#", "$share/g/pb/1/other/#"} {
		if codes := c.trySubscribe([]rawmqtt.Filter{{Filter: f, Options: 1}}); codes[0] < 0x80 {
			t.Errorf("%q is granted", f)
		}
	}
}

// A will is ignored: nothing is published in a device's name but its batches.
func hubWill(t *T) {
	c := t.connect(as(t.id("dev")), will(rawmqtt.Will{Topic: "pb/1/" + t.id("dev") + "/up", Payload: []byte("x"), QoS: 1}))
	c.drop()
	c = t.connect(as(t.id("dev")))
	c.ping()
}

// Two checks of a name in a table are one too many.
func TestHubChecksOnce(t *testing.T) {
	seen := map[uintptr]bool{}
	for _, fn := range hubChecks {
		p := reflect.ValueOf(fn).Pointer()
		if seen[p] {
			t.Errorf("%s stands twice in the table", functionName(fn))
		}
		seen[p] = true
	}
}
