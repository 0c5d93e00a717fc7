// Package sensors carries a sensor's message from its PUBLISH to the buffer:
// user, lane, time, Append, and back as an acknowledgement.
//
// It promises that a message is acknowledged only after the buffer said that
// it is on flash, or when a rule says drop. While the disk refuses, nothing is
// acknowledged: the connection is closed, so that the sensor sends again. It
// stores nothing, starts no goroutine, and knows no link.
package sensors

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/packetboat/packetboat/internal/mqttfront"
	"github.com/packetboat/packetboat/pkg/buffer"
	"github.com/packetboat/packetboat/pkg/stream"
)

// Appender is the part of *buffer.Buffer that is used here.
type Appender interface {
	// Append copies msgs and never waits for the disk; done is called once
	// after the sync, unless Append returns an error.
	Append(lane stream.Lane, msgs []stream.Message, done func(first stream.Position, err error)) error
}

// Users tells who a sensor is.
type Users interface {
	Authenticate(username string, password []byte) bool
}

// Options say how Sensors behave.
type Options struct {
	// Lanes are tried in order, the first that matches wins. What matches none
	// goes to the normal lane at 1 ms.
	Lanes []LaneRule
	// Users checks names and passwords. When it is nil, a name means nothing.
	Users Users
	// AllowAnonymous lets sensors in that give no name; with Users nil,
	// everybody. Without it a sensor needs a name that Users knows.
	AllowAnonymous bool
	// Logger; nil discards.
	Logger *slog.Logger
}

// Sensors is the mqttfront.Handler of an edge. Its methods may be called from
// any goroutine.
type Sensors struct {
	buf   Appender
	o     Options
	log   *slog.Logger
	rules *rules
	clock clock
	n     counters
	// refusing is the last answer of the buffer, so that a change is logged
	// once and not for each message.
	refusing atomic.Uint32
}

// New checks the rules and makes the Handler.
func New(buf Appender, o Options) (*Sensors, error) {
	r, err := compile(o.Lanes)
	if err != nil {
		return nil, fmt.Errorf("lane rules: %w", err)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Sensors{buf: buf, o: o, log: o.Logger, rules: r, clock: newClock()}, nil
}

// Connect admits a sensor, or returns a *mqttfront.Refusal.
func (s *Sensors) Connect(_ context.Context, p *mqttfront.Peer) (mqttfront.Session, mqttfront.Welcome, error) {
	switch {
	case s.o.Users == nil && s.o.AllowAnonymous:
		s.n.anonymous.Add(1)
	case p.Username == "" && s.o.AllowAnonymous:
		s.n.anonymous.Add(1)
	case p.Username == "":
		s.n.badLogins.Add(1)
		return nil, mqttfront.Welcome{}, &mqttfront.Refusal{Code: mqttfront.NotAuthorized, Reason: "this edge wants a user name and password"}
	case s.o.Users == nil || !s.o.Users.Authenticate(p.Username, p.Password):
		s.n.badLogins.Add(1)
		return nil, mqttfront.Welcome{}, &mqttfront.Refusal{Code: mqttfront.BadUsernameOrPassword, Reason: "bad user name or password"}
	}
	return &session{s: s}, mqttfront.Welcome{}, nil
}

// session is one sensor's connection.
type session struct {
	s *Sensors
	// What follows belongs to the goroutine that calls Publish.
	routes     map[string]*rule  // topics seen lately
	routeBytes int               // of them
	one        [1]stream.Message // what Append copies from
}

// The topics that a session remembers the rule of.
const (
	maxRoutes     = 1024
	maxRouteBytes = 64 << 10
)

func (c *session) route(topic string) *rule {
	if r, ok := c.routes[topic]; ok {
		return r
	}
	r := c.s.rules.find(topic)
	if len(topic) > maxRouteBytes/64 {
		return r
	}
	if c.routes == nil || len(c.routes) >= maxRoutes || c.routeBytes+len(topic) > maxRouteBytes {
		c.routes, c.routeBytes = make(map[string]*rule), 0
	}
	c.routes[topic] = r
	c.routeBytes += len(topic)
	return r
}

// Publish gives the message to the buffer.
func (c *session) Publish(p *mqttfront.Publish, settle mqttfront.Settle) {
	s, r := c.s, c.route(p.Topic)
	if r.drop {
		s.n.dropped.Add(1)
		settle(mqttfront.Result{})
		return
	}
	m := &c.one[0]
	*m = stream.Message{Topic: p.Topic, Payload: p.Payload, QoS: p.QoS, Retain: p.Retain, Properties: p.Properties}
	s.clock.stamp(m, r.resolution)
	lane := r.lane
	err := s.buf.Append(lane, c.one[:], func(_ stream.Position, err error) {
		if err == nil {
			s.n.accepted[lane].Add(1)
			s.answers(nil)
			settle(mqttfront.Result{})
			return
		}
		settle(s.failed(err))
	})
	if err != nil {
		settle(s.failed(err))
	}
	m.Payload, m.Properties = nil, nil
}

// Subscribe lets every admitted sensor see local messages.
func (c *session) Subscribe(string) bool { return true }

// Deliver lets every admitted sensor see local messages.
func (c *session) Deliver(string) bool { return true }

// Close has nothing to end: what is on its way to the flash stays there.
func (c *session) Close(error) {}

// The kinds of answer of the buffer.
const (
	answerTaken = iota
	answerFull
	answerBusy
	answerTooLarge
	answerDisk
)

var answerNames = [...]string{"taken", "full", "busy", "too_large", "disk"}

// failed maps an error of the buffer to what the sensor is told.
func (s *Sensors) failed(err error) mqttfront.Result {
	s.answers(err)
	switch kindOf(err) {
	case answerFull:
		s.n.full.Add(1)
		return mqttfront.Result{Code: mqttfront.QuotaExceeded}
	case answerBusy:
		s.n.busy.Add(1)
		return mqttfront.Result{Code: mqttfront.QuotaExceeded}
	case answerTooLarge:
		s.n.tooLarge.Add(1)
		return mqttfront.Result{Code: mqttfront.ImplementationSpecificError}
	}
	// The disk, or a buffer that is closing: the sensor has to keep it.
	s.n.disk.Add(1)
	return mqttfront.Result{Code: mqttfront.UnspecifiedError, Withhold: true}
}

func kindOf(err error) uint32 {
	switch {
	case err == nil:
		return answerTaken
	case errors.Is(err, buffer.ErrFull):
		return answerFull
	case errors.Is(err, buffer.ErrBusy):
		return answerBusy
	case errors.Is(err, buffer.ErrTooLarge):
		return answerTooLarge
	}
	return answerDisk
}

// answers logs when the buffer begins or ceases to refuse. ErrBusy is load, not
// news, and a message that is too large is the sensor's affair.
func (s *Sensors) answers(err error) {
	kind := kindOf(err)
	if kind == answerBusy || kind == answerTooLarge || s.refusing.Load() == kind {
		return
	}
	if s.refusing.Swap(kind) == kind {
		return
	}
	if err != nil {
		s.log.Error("buffer takes no messages", "reason", answerNames[kind], "error", err)
	} else {
		s.log.Info("buffer takes messages again")
	}
}

// counters are behind Stats.
type counters struct {
	accepted                                                  atomic4
	dropped, full, busy, tooLarge, disk, badLogins, anonymous atomic.Int64
}

type atomic4 [len(stream.Lanes) + 1]atomic.Int64 // by lane

// Stats is what Sensors have done since New.
type Stats struct {
	Accepted  map[stream.Lane]int64 // on flash
	Dropped   int64                 // by a drop rule
	Full      int64                 // refused: the buffer is full
	Busy      int64                 // refused: too much waits for the disk
	TooLarge  int64                 // refused: the buffer can never take it
	Disk      int64                 // not acknowledged: the disk refuses, or the buffer is closed
	BadLogins int64                 // connects without a valid name and password
	Anonymous int64                 // connects without a name that was looked at
}

// Stats may be called at any time.
func (s *Sensors) Stats() Stats {
	n := &s.n
	out := Stats{
		Accepted: make(map[stream.Lane]int64, len(stream.Lanes)),
		Dropped:  n.dropped.Load(), Full: n.full.Load(), Busy: n.busy.Load(), TooLarge: n.tooLarge.Load(),
		Disk: n.disk.Load(), BadLogins: n.badLogins.Load(), Anonymous: n.anonymous.Load(),
	}
	for _, l := range stream.Lanes {
		out.Accepted[l] = n.accepted[l].Load()
	}
	return out
}
