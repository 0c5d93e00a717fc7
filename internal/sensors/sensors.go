// Package sensors carries a sensor's message from its PUBLISH to the buffer:
// user, ACL, lane, time, Commit, and back as an acknowledgement.
//
// It promises that a message is acknowledged only after the buffer said that
// it is on flash, together with what the sensor's session must remember of it,
// or when a rule says drop; that a topic the ACL does not allow is answered so,
// counted and logged, never dropped in silence; and that a refused message
// leaves nothing behind. While the disk refuses, nothing is acknowledged: the
// connection is closed, so that the sensor sends again. It starts no goroutine,
// and knows no link.
package sensors

import (
	"fmt"
	"log/slog"
	"sync"

	"github.com/packetboat/packetboat/internal/acl"
	"github.com/packetboat/packetboat/internal/mqttfront"
	"github.com/packetboat/packetboat/internal/pki"
	"github.com/packetboat/packetboat/pkg/buffer"
	"github.com/packetboat/packetboat/pkg/stream"
)

// Buffer is the part of *buffer.Buffer that is used here.
type Buffer interface {
	// Commit copies w and never waits for the disk; done is called once after the
	// sync, unless Commit returns an error. All of w is stored, or nothing.
	Commit(w buffer.Write, done func(first stream.Position, err error)) error
	// State yields what earlier writes stored.
	State(yield func(key string, value []byte) bool) error
}

// Users tells who a sensor is.
type Users interface {
	// Authenticate is asked again and again while the user is connected.
	Authenticate(username string, password []byte) bool
}

// Options say how Sensors behave.
type Options struct {
	// Lanes are tried in order, the first that matches wins. What matches none
	// goes to the normal lane at 1 ms.
	Lanes []LaneRule
	// Users checks names and passwords. When it is nil, a name that is given
	// proves nothing and is not looked at.
	Users Users
	// AllowAnonymous lets sensors in that prove no name. Without it a sensor
	// needs a name that Users knows, or a verified client certificate.
	AllowAnonymous bool
	// Trust gives what is believed of client certificates now; nil: there are
	// none.
	Trust func() *pki.Trust
	// ACL says who may publish and see what; nil allows everything.
	ACL *acl.List
	// Clock stamps messages; nil makes one.
	Clock *Clock
	// Logger; nil discards.
	Logger *slog.Logger
}

// Sensors is the mqttfront.Handler of an edge, its mqttfront.WillHandler and its
// mqttfront.UserHandler.
// Its methods may be called from any goroutine.
type Sensors struct {
	buf   Buffer
	o     Options
	log   *slog.Logger
	rules *rules
	clock *Clock
	n     counters
	// refusing is the last answer of the buffer to a message, unsaved that to a
	// change of a session alone.
	refusing, unsaved lastAnswer
	denials           throttle

	mu       sync.Mutex
	sessions map[*session]struct{} // guarded by mu; those that may have to end
}

var (
	_ mqttfront.WillHandler = (*Sensors)(nil)
	_ mqttfront.UserHandler = (*Sensors)(nil)
)

// New checks the rules and makes the Handler.
func New(buf Buffer, o Options) (*Sensors, error) {
	r, err := compile(o.Lanes)
	if err != nil {
		return nil, fmt.Errorf("lane rules: %w", err)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = NewClock()
	}
	return &Sensors{buf: buf, o: o, log: o.Logger, rules: r, clock: o.Clock, sessions: map[*session]struct{}{}}, nil
}
