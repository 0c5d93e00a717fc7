package conformance

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/packetboat/packetboat/internal/rig/rawmqtt"
)

// The short names of what every check uses.
type (
	props  = rawmqtt.Properties
	packet = rawmqtt.Packet
)

const (
	v4 = rawmqtt.V311
	v5 = rawmqtt.V5
)

var (
	num  = rawmqtt.Num
	str  = rawmqtt.Text
	user = rawmqtt.User
)

// T is one check: a server, a protocol version, and names of its own for topics
// and clients.
type T struct {
	*testing.T
	b       *broker
	v       byte
	prefix  string
	clients int
	always  []option // of every CONNECT
}

var checks atomic.Int64

func newT(t *testing.T, b *broker, version byte) *T {
	return &T{T: t, b: b, v: version, prefix: fmt.Sprintf("t%d", checks.Add(1))}
}

// own gives the check a server of its own.
func (t *T) own(more ...string) *T {
	t.Helper()
	t.b = newBroker(t.T, more...)
	return t
}

// topic is a topic, or filter, that no other check uses.
func (t *T) topic(s string) string { return t.prefix + "/" + s }

// id is a client identifier that no other check uses.
func (t *T) id(s string) string { return t.prefix + s }

// client is a connection, and what the check has read from it.
type client struct {
	*rawmqtt.Conn
	t      *T
	inbox  []*rawmqtt.Publish // read, not yet asked for
	others []packet           // likewise
	nextID uint16
	ack    *rawmqtt.Connack
	until  time.Duration // how long to wait for a packet
}

// dial opens a connection and says nothing.
func (t *T) dial() *client { t.Helper(); return t.dialAs(t.v) }

func (t *T) dialAs(version byte) *client {
	t.Helper()
	nc, err := net.Dial("tcp", t.b.addr)
	if err != nil {
		t.Fatal(err)
	}
	return t.speak(nc, version)
}

func (t *T) speak(nc net.Conn, version byte) *client {
	c := &client{Conn: rawmqtt.NewConn(nc, version), t: t, until: patience}
	t.clients++
	n := t.clients
	t.Cleanup(func() {
		c.Close()
		if t.Failed() {
			t.Logf("connection %d:\n%s", n, c.Trace())
		}
	})
	return c
}

// option changes a CONNECT.
type option func(*rawmqtt.Connect)

func as(id string) option          { return func(p *rawmqtt.Connect) { p.ClientID = id } }
func resume(p *rawmqtt.Connect)    { p.CleanStart = false }
func keepAlive(seconds int) option { return func(p *rawmqtt.Connect) { p.KeepAlive = uint16(seconds) } }
func will(w rawmqtt.Will) option   { return func(p *rawmqtt.Connect) { p.Will = &w } }
func with(x ...rawmqtt.Property) option {
	return func(p *rawmqtt.Connect) { p.Properties = append(p.Properties, x...) }
}

// lasting asks for a session that outlives the connection: seconds in MQTT 5, a
// session that is not clean before.
func (t *T) lasting(seconds uint32) option {
	if t.v == v5 {
		return with(num(rawmqtt.SessionExpiry, seconds))
	}
	return resume
}

// connectPacket is a CONNECT with clean start and an identifier of its own.
func (t *T) connectPacket(options ...option) *rawmqtt.Connect {
	p := &rawmqtt.Connect{CleanStart: true, ClientID: fmt.Sprintf("%sx%d", t.prefix, t.clients)}
	for _, o := range append(t.always, options...) {
		o(p)
	}
	return p
}

// connect connects and wants to be let in.
func (t *T) connect(options ...option) *client {
	t.Helper()
	c := t.dial()
	c.send(t.connectPacket(options...))
	if a := c.connack(); a.Code != 0 {
		t.Fatalf("CONNACK with code 0x%02x", a.Code)
	}
	return c
}

func (c *client) connack() *rawmqtt.Connack {
	c.t.Helper()
	c.ack = expect[*rawmqtt.Connack](c)
	return c.ack
}

func (c *client) send(p ...packet) {
	c.t.Helper()
	if err := c.Send(p...); err != nil {
		c.t.Fatal(err)
	}
}

// next reads a packet. Whatever a server must not send ends the check.
func (c *client) next() packet {
	c.t.Helper()
	p, err := c.Next(c.until)
	if err != nil {
		c.t.Fatalf("waiting for a packet: %v", err)
	}
	return p
}

// expect reads until a packet of a type comes; messages are kept for receive.
func expect[P packet](c *client) P {
	c.t.Helper()
	for i, p := range c.others {
		if want, ok := p.(P); ok {
			c.others = slices.Delete(c.others, i, i+1)
			return want
		}
	}
	for {
		switch p := c.next().(type) {
		case P:
			return p
		case *rawmqtt.Publish:
			c.inbox = append(c.inbox, p)
		case *rawmqtt.Disconnect:
			c.t.Fatalf("DISCONNECT 0x%02x %q", p.Code, p.Properties.Text(rawmqtt.ReasonString))
		default:
			c.others = append(c.others, p)
		}
	}
}

// expectAck reads until an acknowledgement of a kind comes and wants its id.
func (c *client) expectAck(kind rawmqtt.Type, id uint16) *rawmqtt.Ack {
	c.t.Helper()
	p := expect[*rawmqtt.Ack](c)
	if p.Kind != kind || p.ID != id {
		c.t.Fatalf("got %s, want %s of %d", rawmqtt.Describe(p), kind, id)
	}
	return p
}

// pid is a packet identifier that was not used before.
func (c *client) pid() uint16 { c.nextID++; return c.nextID }

// message makes a PUBLISH.
func message(topic string, qos byte, payload string, p ...rawmqtt.Property) *rawmqtt.Publish {
	return &rawmqtt.Publish{Topic: topic, QoS: qos, Payload: []byte(payload), Properties: p}
}

func retained(p *rawmqtt.Publish) *rawmqtt.Publish { p.Retain = true; return p }

// publish sends a message and completes its exchange, which must succeed.
func (c *client) publish(p *rawmqtt.Publish) {
	c.t.Helper()
	if code := c.tryPublish(p); code >= 0x80 {
		c.t.Fatalf("%s was refused with 0x%02x", rawmqtt.Describe(p), code)
	}
}

func (c *client) tryPublish(p *rawmqtt.Publish) byte {
	c.t.Helper()
	if c.Version() < v5 {
		p.Properties = nil
	}
	if p.QoS > 0 && p.ID == 0 {
		p.ID = c.pid()
	}
	c.send(p)
	switch p.QoS {
	case 1:
		return c.expectAck(rawmqtt.PUBACK, p.ID).Code
	case 2:
		if code := c.expectAck(rawmqtt.PUBREC, p.ID).Code; code >= 0x80 {
			return code
		}
		c.send(&rawmqtt.Ack{Kind: rawmqtt.PUBREL, ID: p.ID})
		return c.expectAck(rawmqtt.PUBCOMP, p.ID).Code
	}
	return 0
}

// subscribe subscribes and wants the QoS asked for.
func (c *client) subscribe(filter string, options byte, p ...rawmqtt.Property) {
	c.t.Helper()
	if codes := c.trySubscribe([]rawmqtt.Filter{{Filter: filter, Options: options}}, p...); codes[0] != options&3 {
		c.t.Fatalf("SUBSCRIBE %q got 0x%02x", filter, codes[0])
	}
}

func (c *client) trySubscribe(f []rawmqtt.Filter, p ...rawmqtt.Property) []byte {
	c.t.Helper()
	s := &rawmqtt.Subscribe{ID: c.pid(), Filters: f, Properties: p}
	c.send(s)
	a := expect[*rawmqtt.Suback](c)
	if a.ID != s.ID {
		c.t.Fatalf("SUBACK of %d, want %d", a.ID, s.ID)
	}
	return a.Codes
}

func (c *client) unsubscribe(filters ...string) []byte {
	c.t.Helper()
	u := &rawmqtt.Unsubscribe{ID: c.pid(), Filters: filters}
	c.send(u)
	a := expect[*rawmqtt.Unsuback](c)
	if a.ID != u.ID {
		c.t.Fatalf("UNSUBACK of %d, want %d", a.ID, u.ID)
	}
	return a.Codes
}

// take reads the next message and does not answer it.
func (c *client) take() *rawmqtt.Publish {
	c.t.Helper()
	if len(c.inbox) > 0 {
		p := c.inbox[0]
		c.inbox = c.inbox[1:]
		return p
	}
	return expect[*rawmqtt.Publish](c)
}

// receive reads the next message and completes its exchange.
func (c *client) receive() *rawmqtt.Publish {
	c.t.Helper()
	p := c.take()
	c.answer(p)
	return p
}

func (c *client) answer(p *rawmqtt.Publish) {
	c.t.Helper()
	switch p.QoS {
	case 1:
		c.send(&rawmqtt.Ack{Kind: rawmqtt.PUBACK, ID: p.ID})
	case 2:
		c.send(&rawmqtt.Ack{Kind: rawmqtt.PUBREC, ID: p.ID})
		c.expectAck(rawmqtt.PUBREL, p.ID)
		c.send(&rawmqtt.Ack{Kind: rawmqtt.PUBCOMP, ID: p.ID})
	}
}

// want reads the next message and wants topic and payload.
func (c *client) want(topic, payload string) *rawmqtt.Publish {
	c.t.Helper()
	p := c.receive()
	if got := c.Topic(p); got != topic || string(p.Payload) != payload {
		c.t.Fatalf("got %s, want %q %q", rawmqtt.Describe(p), topic, payload)
	}
	return p
}

// nothing wants that no message is on its way to c: one that pub publishes now
// is the next to come.
func (c *client) nothing(pub *client) {
	c.t.Helper()
	end := c.end(pub)
	c.want(end, "end")
	c.unsubscribe(end)
}

// through waits until all that c published has gone to its subscribers: a
// subscription that is made now sees none of it as a message that comes.
func (c *client) through() {
	c.t.Helper()
	c.nothing(c)
}

// end has pub publish what comes behind all that is on its way to c, on a topic
// that no filter of a check matches but one of all topics.
func (c *client) end(pub *client) string {
	c.t.Helper()
	end := fmt.Sprintf("end/%s/%d", c.t.prefix, c.pid())
	c.subscribe(end, 1)
	pub.publish(message(end, 1, "end"))
	return end
}

// ping wants an answer: the connection lives, and all before it was handled.
func (c *client) ping() {
	c.t.Helper()
	c.send(&rawmqtt.Pingreq{})
	expect[*rawmqtt.Pingresp](c)
}

// leave sends DISCONNECT and waits for the end of the connection.
func (c *client) leave(p ...rawmqtt.Property) {
	c.t.Helper()
	c.send(&rawmqtt.Disconnect{Properties: p})
	c.ended()
}

// drop breaks the connection without DISCONNECT.
func (c *client) drop() { c.Close() }

// ended wants the end of the connection without another packet but messages.
func (c *client) ended() {
	c.t.Helper()
	for {
		p, err := c.Next(c.until)
		switch {
		case errors.Is(err, rawmqtt.ErrClosed):
			return
		case err != nil:
			c.t.Fatalf("waiting for the end: %v", err)
		}
		if _, ok := p.(*rawmqtt.Publish); !ok {
			c.t.Fatalf("got %s, want the end", rawmqtt.Describe(p))
		}
	}
}

// refused wants that the server ends the connection. MQTT 5: with DISCONNECT, or
// CONNACK when CONNECT was not answered yet, and one of codes; a bare close is
// allowed as well, for the packet is only a SHOULD. MQTT 3.1.1: with nothing.
func (c *client) refused(codes ...byte) {
	c.t.Helper()
	for {
		p, err := c.Next(c.until)
		switch {
		case errors.Is(err, rawmqtt.ErrClosed):
			return
		case err != nil:
			c.t.Fatalf("waiting for the end: %v", err)
		}
		switch p := p.(type) {
		case *rawmqtt.Disconnect:
			c.oneOf("DISCONNECT", p.Code, codes)
			c.ended()
			return
		case *rawmqtt.Connack:
			if c.Version() < v5 {
				c.t.Fatalf("got CONNACK %d, want the end [MQTT-3.1.4-1]", p.Code)
			}
			c.oneOf("CONNACK", p.Code, codes)
			c.ended()
			return
		case *rawmqtt.Publish:
		case *rawmqtt.Ack, *rawmqtt.Suback, *rawmqtt.Unsuback:
			c.t.Fatalf("got %s, want the end", rawmqtt.Describe(p))
		}
	}
}

// told wants DISCONNECT with one of codes; before MQTT 5 just the end.
func (c *client) told(codes ...byte) {
	c.t.Helper()
	if c.Version() < v5 {
		c.refused()
		return
	}
	for {
		p, err := c.Next(c.until)
		if err != nil {
			c.t.Fatalf("waiting for DISCONNECT: %v", err)
		}
		if d, ok := p.(*rawmqtt.Disconnect); ok {
			c.oneOf("DISCONNECT", d.Code, codes)
			c.ended()
			return
		}
	}
}

func (c *client) oneOf(what string, code byte, codes []byte) {
	c.t.Helper()
	if len(codes) > 0 && !slices.Contains(codes, code) {
		c.t.Fatalf("%s with code 0x%02x, want one of % x", what, code, codes)
	}
}

// after lets d pass: a few clauses are about seconds, and the server is real.
func after(d time.Duration) { <-time.After(d) }
