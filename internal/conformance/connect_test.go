package conformance

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/packetboat/packetboat/internal/rig/rawmqtt"
)

func firstPacket(t *T) {
	for _, p := range []packet{message(t.topic("a"), 1, "x"), &rawmqtt.Pingreq{}, &rawmqtt.Disconnect{},
		&rawmqtt.Subscribe{ID: 1, Filters: []rawmqtt.Filter{{Filter: t.topic("a")}}}, &rawmqtt.Ack{Kind: rawmqtt.PUBREL, ID: 1}} {
		c := t.dial()
		c.send(p)
		c.refused(malformed...)
	}
}

func secondConnect(t *T) {
	p := t.connectPacket()
	c := t.connect(as(p.ClientID))
	c.send(p)
	c.refused(0x82)
}

func protocolName(t *T) {
	for _, name := range []string{"hj", "MQTX", "mqtt", "MQTT5", "\xff"} {
		c := t.dial()
		c.send(t.connectPacket(func(p *rawmqtt.Connect) { p.ProtocolName = name }))
		t.notWelcome(c)
	}
}

// notWelcome wants the end, or a CONNACK that says no in any version's way, and
// then the end.
func (t *T) notWelcome(c *client) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 0, 64)
	for {
		n, err := c.Conn.Conn.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err != nil {
			if !strings.Contains(err.Error(), "timeout") {
				break
			}
			t.Fatal("the connection stays open")
		}
	}
	if len(b) == 0 {
		return
	}
	if len(b) < 4 || b[0] != 0x20 || b[3] == 0 {
		t.Fatalf("the answer is % x", b)
	}
	t.Logf("the answer is % x", b)
}

// A level that is not spoken: the answer has the form that the level has, if it
// is a known one.
func protocolLevel(t *T) {
	for _, level := range []byte{1, 2, 6, 7, 99, 255} {
		c := t.dial()
		c.send(t.connectPacket(func(p *rawmqtt.Connect) { p.Level = level }))
		t.notWelcome(c)
	}
}

// MQTT 3.1 is told in its own words that it is not spoken.
func mqtt31(t *T) {
	c := t.dialAs(rawmqtt.V31)
	c.send(t.connectPacket())
	if a := c.connack(); a.Code != 1 {
		t.Fatalf("CONNACK with code %d", a.Code)
	}
	c.ended()
}

func reservedConnectFlag(t *T) { t.connectFlags(0x03) }
func willQoSAlone(t *T)        { t.connectFlags(0x0A, 0x12, 0x1A) }
func willRetainAlone(t *T)     { t.connectFlags(0x22) }
func willQoS3(t *T)            { t.connectFlags(0x1E, 0x3E) }
func passwordAlone(t *T)       { t.connectFlags(0x42) }

// connectFlags sends CONNECTs with flags that cannot be; what the flags announce
// is there.
func (t *T) connectFlags(flags ...byte) {
	t.Helper()
	for _, f := range flags {
		p := t.connectPacket(func(p *rawmqtt.Connect) { p.Flags = &f })
		if f&4 != 0 {
			p.Will = &rawmqtt.Will{Topic: t.topic("w"), Payload: []byte("x")}
		}
		if f&0x40 != 0 {
			p.Password = []byte("x")
		}
		c := t.dial()
		c.send(p)
		c.refused(malformed...)
	}
}

// Flags that announce fields that are not there, and fields that no flag
// announces.
func connectFields(t *T) {
	name := "u"
	for what, p := range map[string]*rawmqtt.Connect{
		"will missing":     t.connectPacket(func(p *rawmqtt.Connect) { p.Flags = new(byte(0x06)) }),
		"name missing":     t.connectPacket(func(p *rawmqtt.Connect) { p.Flags = new(byte(0x82)) }),
		"password missing": t.connectPacket(func(p *rawmqtt.Connect) { p.Flags, p.Username = new(byte(0xC2)), &name }),
		"will unannounced": t.connectPacket(will(rawmqtt.Will{Topic: "w"}), func(p *rawmqtt.Connect) { p.Flags = new(byte(0x02)) }),
		"name unannounced": t.connectPacket(func(p *rawmqtt.Connect) { p.Flags, p.Username = new(byte(0x02)), &name }),
		"password too":     t.connectPacket(func(p *rawmqtt.Connect) { p.Flags, p.Username, p.Password = new(byte(0x82)), &name, []byte("p") }),
		"no identifier":    t.connectPacket(as(""), func(p *rawmqtt.Connect) { p.Cut = 2 }),
		"identifier cut":   t.connectPacket(as("abc"), func(p *rawmqtt.Connect) { p.Cut = 1 }),
		"bytes left":       t.connectPacket(func(p *rawmqtt.Connect) { p.Extra = []byte{0} }),
	} {
		t.Logf("%s", what)
		c := t.dial()
		c.send(p)
		c.refused(malformed...)
	}
}

func userNameMissing(t *T) {
	c := t.dial()
	c.send(t.connectPacket(func(p *rawmqtt.Connect) { p.Flags = new(byte(0x82)) }))
	c.refused(malformed...)
}

func userNameUnannounced(t *T) {
	c := t.dial()
	c.send(t.connectPacket(func(p *rawmqtt.Connect) { p.Flags, p.Username = new(byte(0x02)), new("u") }))
	c.refused(malformed...)
}

func passwordMissing(t *T) {
	c := t.dial()
	c.send(t.connectPacket(func(p *rawmqtt.Connect) { p.Flags, p.Username = new(byte(0xC2)), new("u") }))
	c.refused(malformed...)
}

func passwordUnannounced(t *T) {
	c := t.dial()
	c.send(t.connectPacket(func(p *rawmqtt.Connect) { p.Flags, p.Username, p.Password = new(byte(0x82)), new("u"), []byte("p") }))
	c.refused(malformed...)
}

func willMissing(t *T) {
	c := t.dial()
	c.send(t.connectPacket(func(p *rawmqtt.Connect) { p.Flags = new(byte(0x06)) }))
	c.refused(malformed...)
}

func clientIDMissing(t *T) {
	c := t.dial()
	c.send(t.connectPacket(as(""), func(p *rawmqtt.Connect) { p.Cut = 2 }))
	c.refused(malformed...)
}

// All fields at once, in their order, are understood.
func fieldOrder(t *T) {
	sub := t.connect()
	sub.subscribe(t.topic("w"), 1)
	name := "somebody"
	c := t.connect(as(t.id("all")), will(rawmqtt.Will{Topic: t.topic("w"), Payload: []byte("gone"), QoS: 1}), func(p *rawmqtt.Connect) {
		p.Username, p.Password = &name, []byte("\x00\xff")
	})
	c.drop()
	sub.want(t.topic("w"), "gone")
}

func clientIDAlphabet(t *T) {
	for _, id := range []string{"a", "0", "0123456789abcdefghijklm", "nopqrstuvwxyzABCDEFGHIJ", "KLMNOPQRSTUVWXYZ", strings.Repeat("Z", 23)} {
		t.connect(as(id)).leave()
	}
}

// Beyond what a server must take: long identifiers and any character.
func clientIDWide(t *T) {
	t.connect(as(t.prefix + strings.Repeat("x", 1000))).leave()
	t.connect(as(strings.Repeat("y", 65535-len(t.prefix)) + t.prefix)).leave()
	for b := byte(' '); b < 0x7F; b++ {
		t.connect(as(t.prefix + string(rune(b)))).leave()
	}
	t.connect(as(t.prefix + " /日本/+#$ß\ufeff")).leave()
}

func emptyClientID(t *T) {
	seen := map[string]bool{}
	for range 3 {
		c := t.connect(as(""))
		if t.v == v5 {
			id := c.ack.Properties.Text(rawmqtt.AssignedClientID) // the judge wants one
			if id == "" || seen[id] {
				t.Fatalf("assigned %q", id)
			}
			seen[id] = true
		}
		c.subscribe(t.topic("mine"), 0)
		c.publish(message(t.topic("mine"), 0, "x"))
		c.want(t.topic("mine"), "x") // two of them are not one session, or this came twice
		c.unsubscribe(t.topic("mine"))
	}
	if t.v == v5 { // an assigned identifier names a session
		c := t.connect(as(""), t.lasting(600))
		id := c.ack.Properties.Text(rawmqtt.AssignedClientID)
		c.leave()
		if c = t.connect(as(id), resume, t.lasting(0)); !c.ack.SessionPresent {
			t.Fatal("the session of an assigned identifier is not there")
		}
	}
}

// MQTT 3.1.1: no identifier and a session to keep is refused with 2.
func emptyClientIDWithSession(t *T) {
	c := t.dial()
	c.send(t.connectPacket(as(""), resume))
	if t.v == v5 {
		if a := c.connack(); a.Code != 0 {
			t.Fatalf("CONNACK with code 0x%02x", a.Code)
		}
		return
	}
	if a := c.connack(); a.Code != 2 || a.SessionPresent {
		t.Fatalf("CONNACK %+v, want code 2", a)
	}
	c.ended()
}

// A refusal says that no session is present, and then the connection ends; what
// came behind CONNECT is not processed.
func refusedConnect(t *T) {
	sub := t.connect()
	sub.subscribe(t.topic("a"), 1)
	c := t.dial()
	p := t.connectPacket(as(""), resume)
	if t.v == v5 {
		p = t.connectPacket(with(str(rawmqtt.AuthMethod, "unheard of")))
	}
	c.send(p, message(t.topic("a"), 0, "from a stranger"))
	a := c.connack()
	if a.Code == 0 || a.SessionPresent || t.v == v5 && a.Code < 0x80 {
		t.Fatalf("CONNACK %+v", a)
	}
	c.ended()
	sub.nothing(t.connect())
}

func authMethodUnknown(t *T) {
	c := t.dial()
	c.send(t.connectPacket(with(str(rawmqtt.AuthMethod, "SCRAM-SHA-1"), str(rawmqtt.AuthData, "x"))))
	if a := c.connack(); a.Code != 0x8C && a.Code != 0x87 {
		t.Fatalf("CONNACK with code 0x%02x", a.Code)
	}
	c.ended()
}

// AUTH without a method in CONNECT is an error, of every code.
func authUninvited(t *T) {
	for _, p := range []packet{&rawmqtt.Auth{Code: 0x18, Properties: props{str(rawmqtt.AuthMethod, "x")}}, &rawmqtt.Auth{Code: 0x19, Properties: props{str(rawmqtt.AuthMethod, "x")}}, &rawmqtt.Auth{}} {
		c := t.connect()
		c.send(p)
		c.refused(0x82, 0x81, 0x8C, 0x87)
	}
}

// The first packet to come is CONNACK, the only one of its kind; packets sent
// with CONNECT are answered after it.
func connackFirst(t *T) {
	c := t.dial()
	c.send(t.connectPacket(), &rawmqtt.Pingreq{}, &rawmqtt.Subscribe{ID: 1, Filters: []rawmqtt.Filter{{Filter: t.topic("a"), Options: 1}}},
		&rawmqtt.Publish{Topic: t.topic("a"), QoS: 1, ID: 2, Payload: []byte("x")}, &rawmqtt.Pingreq{})
	if _, ok := c.next().(*rawmqtt.Connack); !ok {
		t.Fatal("the first packet is no CONNACK")
	}
	c.nextID = 2
	c.want(t.topic("a"), "x")
	for range 2 {
		expect[*rawmqtt.Pingresp](c)
	}
	c.ping() // the judge refuses a second CONNACK
}

// CONNACK says what there is: what it does not say has the default.
func connackProperties(t *T) {
	c := t.connect(keepAlive(30))
	p := c.ack.Properties
	if p.Num(rawmqtt.MaximumQoS, 2) != 2 {
		t.Error("QoS 2 is not served")
	}
	for _, id := range []rawmqtt.PropertyID{rawmqtt.RetainAvailable, rawmqtt.WildcardAvailable, rawmqtt.SubscriptionIDsAvail, rawmqtt.SharedAvailable} {
		if p.Num(id, 1) != 1 {
			t.Errorf("%s is 0", id)
		}
	}
	if p.Num(rawmqtt.ReceiveMaximum, 65535) < 10 || p.Num(rawmqtt.MaximumPacketSize, 1<<28) < 65536 {
		t.Errorf("too narrow: %v", p)
	}
	if p.Has(rawmqtt.SessionExpiry) && p.Num(rawmqtt.SessionExpiry, 0) != 0 {
		t.Error("a session that ends with its connection is said to last")
	}
	if p.Has(rawmqtt.ServerKeepAlive) && p.Num(rawmqtt.ServerKeepAlive, 0) == 0 {
		t.Error("Server Keep Alive is 0")
	}
}

func takeover(t *T) {
	id := t.id("same")
	for range 3 {
		old := t.connect(as(id))
		c := t.connect(as(id))
		old.told(0x8E)
		c.ping()
		c.leave()
	}
}

// Sessions that are taken over go on.
func takeoverResumes(t *T) {
	id := t.id("same")
	old := t.connect(as(id), t.lasting(600))
	old.subscribe(t.topic("a"), 1)
	c := t.connect(as(id), resume, t.lasting(600))
	if !c.ack.SessionPresent {
		t.Fatal("no session is present")
	}
	old.told(0x8E)
	c.publish(message(t.topic("a"), 1, "x"))
	c.want(t.topic("a"), "x")
}

// keepAliveEnds: silence for one and a half times the keep alive ends the
// connection as if the network had failed: the will is published.
func keepAliveEnds(t *T) {
	sub := t.connect()
	sub.subscribe(t.topic("w"), 1)
	c := t.connect(keepAlive(1), will(rawmqtt.Will{Topic: t.topic("w"), Payload: []byte("silent"), QoS: 1}))
	begin := time.Now()
	c.refused(0x8D)
	if d := time.Since(begin); d < 1400*time.Millisecond {
		t.Errorf("the connection ended after %v, before one and a half keep alives", d)
	}
	sub.want(t.topic("w"), "silent")
}

// Any packet counts as a sign of life.
func keepAliveHolds(t *T) {
	c := t.connect(keepAlive(1))
	for i := range 5 {
		after(900 * time.Millisecond)
		switch i % 3 {
		case 0:
			c.ping()
		case 1:
			c.publish(message(t.topic("a"), 0, "x"))
		default:
			c.publish(message(t.topic("a"), 1, "x"))
		}
	}
	c.ping()
	idle := t.connect(keepAlive(0)) // none
	after(2 * time.Second)
	idle.ping()
}

// What a client asks for and the server does not bound, counts.
func serverKeepAlive(t *T) {
	c := t.connect(keepAlive(2))
	if c.ack.Properties.Has(rawmqtt.ServerKeepAlive) {
		t.Fatalf("CONNACK bounds a keep alive of 2 s: %v", c.ack.Properties)
	}
	begin := time.Now()
	c.refused(0x8D)
	if d := time.Since(begin); d < 2900*time.Millisecond {
		t.Errorf("ended after %v", d)
	}
}

// The edge bounds a keep alive of MQTT 5 at a minute, and says so.
func serverKeepAliveBound(t *T) {
	for wish, want := range map[int]uint32{120: 60, 65535: 60, 60: 60, 0: 0} {
		if got := t.connect(keepAlive(wish)).ack.Properties.Num(rawmqtt.ServerKeepAlive, uint32(wish)); got != want {
			t.Errorf("for %d s the answer is %d", wish, got)
		}
	}
}

func responseInformation(t *T) {
	t.connect() // the judge wants none
	t.connect(with(num(rawmqtt.RequestResponseInfo, 1)))
	t.connect(with(num(rawmqtt.RequestResponseInfo, 0)))
}

// Whatever is refused to a client that wants no explanations gets none.
func problemInformation(t *T) { t.provoke(with(num(rawmqtt.RequestProblemInfo, 0))) }

// provoke gives the server many occasions to explain itself, and the judge as
// many to object to it.
func (t *T) provoke(o option) {
	t.Helper()
	for _, p := range []packet{
		&rawmqtt.Subscribe{ID: 1, Filters: []rawmqtt.Filter{{Filter: "a/#/b"}, {Filter: t.topic("a")}}},
		&rawmqtt.Subscribe{ID: 1, Filters: []rawmqtt.Filter{{Filter: "$share/x"}}},
		&rawmqtt.Subscribe{ID: 1, Filters: []rawmqtt.Filter{{Filter: t.topic("a")}}},
		&rawmqtt.Unsubscribe{ID: 2, Filters: []string{t.topic("a"), "a/#/b"}},
		&rawmqtt.Publish{Topic: t.topic("nobody"), QoS: 1, ID: 3}, &rawmqtt.Publish{Topic: t.topic("nobody"), QoS: 2, ID: 4},
		&rawmqtt.Publish{Topic: "$SYS/x", QoS: 1, ID: 3}, &rawmqtt.Publish{Topic: "$SYS/x", QoS: 2, ID: 4},
		ack(rawmqtt.PUBREL, 77), ack(rawmqtt.PUBREC, 78), &rawmqtt.Auth{Code: 0x18}, rawmqtt.Raw{0x36, 3, 0, 1, 'a'}, &rawmqtt.Publish{Topic: "a/#"},
	} {
		id := fmt.Sprintf("%sp%d", t.prefix, t.clients)
		t.connect(as(id), t.lasting(60)).leave() // the judge lets a session that is there resume anything
		c := t.connect(as(id), resume, o)
		c.send(p, &rawmqtt.Pingreq{})
		for {
			got, err := c.Next(c.until)
			if errors.Is(err, rawmqtt.ErrClosed) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := got.(*rawmqtt.Pingresp); ok {
				break
			}
		}
	}
}
