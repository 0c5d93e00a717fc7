package sensors

import (
	"crypto/tls"
	"sync/atomic"
	"time"

	"github.com/packetboat/packetboat/internal/acl"
	"github.com/packetboat/packetboat/internal/mqttfront"
	"github.com/packetboat/packetboat/internal/pki"
	"github.com/packetboat/packetboat/pkg/buffer"
	"github.com/packetboat/packetboat/pkg/stream"
)

// session is one sensor's connection.
type session struct {
	s            *Sensors
	user, client string
	view         acl.View
	by           proof                // what proved the user
	password     string               // that did; empty where something else did
	tls          *tls.ConnectionState // nil unless it came with a verified certificate
	checked      *pki.Trust           // what tls was checked with; Recheck only
	disconnect   func(code byte, reason string)
	quiet        atomic.Int64 // when its last line about a denial was written, ns of the process

	// What follows belongs to the goroutine that calls Publish.
	routes     map[string]route  // topics seen lately
	routeBytes int               // of them
	routesAt   uint64            // version of the view that they come from
	one        [1]stream.Message // what Commit copies from
	state      []buffer.Entry    // likewise
}

// route is what becomes of a topic.
type route struct {
	*rule
	allowed bool
}

// The topics that a session remembers the route of.
const (
	maxRoutes     = 1024
	maxRouteBytes = 64 << 10
)

func (c *session) route(topic string) route {
	if v := c.view.Version(); v != c.routesAt {
		c.routes, c.routeBytes, c.routesAt = nil, 0, v
	}
	if r, ok := c.routes[topic]; ok {
		return r
	}
	r := route{c.s.rules.find(topic), c.view.Publish(topic)}
	if len(topic) > maxRouteBytes/64 {
		return r
	}
	if c.routes == nil || len(c.routes) >= maxRoutes || c.routeBytes+len(topic) > maxRouteBytes {
		c.routes, c.routeBytes = make(map[string]route), 0
	}
	c.routes[topic] = r
	c.routeBytes += len(topic)
	return r
}

// Publish gives the message to the buffer, in one write with what the sensor's
// session must remember of it. A refusal stores neither, so that a QoS 2 message
// which is sent again is taken as a new one.
func (c *session) Publish(p *mqttfront.Publish, settle mqttfront.Settle) {
	s, to := c.s, c.route(p.Topic)
	if !to.allowed {
		n, what := &s.n.deniedPublishes, "publish"
		if p.Will {
			n, what = &s.n.deniedWills, "will"
		}
		s.denied(n, what, c, p.Topic)
		settle(mqttfront.Result{Code: mqttfront.NotAuthorized, NoFanOut: true})
		return
	}
	w := buffer.Write{State: c.entries(p.Save), Lazy: p.QoS == 0}
	n := &s.n.dropped
	if !to.drop {
		m := &c.one[0]
		*m = stream.Message{Topic: p.Topic, Payload: p.Payload, QoS: p.QoS, Retain: p.Retain, Expiry: p.Expiry, Properties: p.Properties}
		s.clock.stamp(m, to.resolution)
		w.Lane, w.Msgs, n = to.lane, c.one[:], &s.n.accepted[to.lane]
	} else if len(w.State) == 0 {
		n.Add(1)
		settle(mqttfront.Result{})
		return
	}
	err := s.buf.Commit(w, func(_ stream.Position, err error) {
		if err == nil {
			n.Add(1)
			s.answers(nil)
			settle(mqttfront.Result{})
			return
		}
		settle(s.failed(err))
	})
	if err != nil {
		settle(s.failed(err))
	}
	c.one[0].Payload, c.one[0].Properties = nil, nil
	clear(c.state)
}

// entries gives changes to the buffer; they are valid until the next call.
func (c *session) entries(changes []mqttfront.Change) []buffer.Entry {
	c.state = c.state[:0]
	for i := range changes {
		c.state = append(c.state, buffer.Entry(changes[i]))
	}
	return c.state
}

// Subscribe reports whether the sensor may see anything of filter.
func (c *session) Subscribe(filter string) bool {
	if c.view.Subscribe(filter) {
		return true
	}
	c.s.denied(&c.s.n.deniedSubscriptions, "subscribe", c, filter)
	return false
}

// Deliver reports whether the sensor may see a message of topic. A wide filter
// is no offence: what it does not let through is counted only.
func (c *session) Deliver(topic string) bool {
	if c.view.Deliver(topic) {
		return true
	}
	c.s.n.deniedDeliveries.Add(1)
	return false
}

// Close forgets the connection; what is on its way to the flash stays there.
func (c *session) Close(error) {
	c.s.mu.Lock()
	delete(c.s.sessions, c)
	c.s.mu.Unlock()
}

// Will takes the will of a sensor that did not come back after a restart. The
// ACL of now decides.
func (s *Sensors) Will(p *mqttfront.Publish, clientID, username string, settle mqttfront.Settle) {
	c := &session{s: s, user: username, client: clientID, view: s.o.ACL.For(username, clientID)}
	c.Publish(p, settle)
}

// denied counts what the ACL denies and writes a line about it: at most one a
// minute of a connection, and few of all.
func (s *Sensors) denied(n *atomic.Int64, what string, c *session, topic string) {
	total := n.Add(1)
	now := s.denials.elapsed()
	if last := c.quiet.Load(); last != 0 && now-last < int64(time.Minute) || !s.denials.allow(now) {
		return
	}
	c.quiet.Store(max(now, 1))
	if len(topic) > 256 {
		topic = topic[:256] + "…"
	}
	s.log.Warn("acl denies a sensor", "what", what, "client", c.client, "user", c.user, "topic", topic, "denied_so_far", total)
}
