// Package sensors carries a sensor's message from its PUBLISH to the buffer:
// user, lane, time, Append, and back as an acknowledgement.
//
// It promises that a message is acknowledged only after the buffer said that
// it is on flash. It stores nothing, and knows no link.
package sensors

import (
	"context"
	"log/slog"
	"time"

	"github.com/packetboat/packetboat/internal/mqttfront"
	"github.com/packetboat/packetboat/pkg/stream"
)

// Appender is the part of the buffer that is used here.
type Appender interface {
	// Append copies msgs and never waits for the disk; done is called once
	// after the sync, unless Append returns an error.
	Append(lane stream.Lane, msgs []stream.Message, done func(first stream.Position, err error)) error
}

// Users tells who a sensor is.
type Users interface {
	Authenticate(username string, password []byte) bool
}

// LaneRule says what becomes of the topics that match one of its filters.
type LaneRule struct {
	Lane stream.Lane
	// Drop acknowledges and counts the messages and keeps none. Lane is ignored.
	Drop    bool
	Filters []string
	// Resolution of the recorded times; 0: 1 ms.
	Resolution time.Duration
}

// Options say how Sensors behave.
type Options struct {
	// Lanes are tried in order, the first that matches wins. What matches none
	// goes to the normal lane at 1 ms.
	Lanes []LaneRule
	// Users may be nil: then nobody can give a name and password.
	Users Users
	// AllowAnonymous lets sensors in that give no name.
	AllowAnonymous bool
	// Logger; nil discards.
	Logger *slog.Logger
}

// Sensors is the mqttfront.Handler of an edge.
type Sensors struct{}

// New checks the rules and makes the Handler.
func New(buf Appender, o Options) (*Sensors, error) { panic("not yet") }

// Connect admits a sensor.
func (s *Sensors) Connect(ctx context.Context, p *mqttfront.Peer) (mqttfront.Session, mqttfront.Welcome, error) {
	panic("not yet")
}

// Stats is what Sensors have done since New.
type Stats struct {
	Accepted  map[stream.Lane]int64 // given to the buffer
	Dropped   int64                 // by a drop rule
	Full      int64                 // refused: the buffer is full
	Busy      int64                 // refused: too much waits for the disk
	Disk      int64                 // not acknowledged: the disk refuses
	BadLogins int64
	Anonymous int64
}

// Stats may be called at any time.
func (s *Sensors) Stats() Stats { panic("not yet") }
