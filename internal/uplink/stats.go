package uplink

import (
	"context"
	"log/slog"
	"time"

	"github.com/packetboat/packetboat/pkg/stream"
)

// State is what the link is doing.
type State string

// The states.
const (
	Down       State = "down"       // not running, or stopped
	Connecting State = "connecting" // dialling, or waiting for the hub's welcome
	Up         State = "up"         // connected
	Waiting    State = "waiting"    // the last try failed or the hub asked to wait
)

// Stats is a moment of the uplink. Counters count since New.
type Stats struct {
	State State
	Since time.Time // when State began
	Hub   string    // the URL in use or tried last
	Log   stream.LogID
	// LastError is one line for the operator, with a remedy where there is one;
	// it stays after the link has come back.
	LastError   string
	LastErrorAt time.Time
	RetryAt     time.Time // while Waiting

	Connects        int64 // welcomes received
	ConnectFailures int64
	ConnectionsLost int64
	Redirects       int64
	BatchesSent     int64
	BatchesSettled  int64
	BatchesRefused  int64 // 0x97
	BatchesBad      int64 // 0x99
	MessagesSent    int64
	MessagesSettled int64
	MessagesResent  int64 // sent, and not settled by the answer to it
	LossesDeclared  int64 // loss records sent
	Quarantined     int64 // messages that the hub cannot decode
	TooLarge        int64 // messages larger than the hub's packet limit
	EpochsStale     int64 // epochs given up because their log forgot them
	BytesSent       int64 // on the connection, below TLS and above TCP
	BytesReceived   int64
	// PayloadBytes are the batches' own, without MQTT, BodyBytes those of their
	// encoded records alone.
	PayloadBytes, BodyBytes int64

	Codec                string // how batches are encoded now; "" before the first connection
	SessionsFresh        int64  // codec sessions begun
	SessionsResumed      int64  // codec sessions that went on over a new connection
	BatchesSelfContained int64  // each a codec session of its own, because the hub keeps none
	GrantsLowered        int64  // times the hub gave a codec session up
	CodecDistrusted      int64  // times the codec was given up for a while
	CodecStateBytes      int    // memory of the codec session

	InFlightBatches int
	InFlightBytes   int
	WindowBatches   int           // the hub's Receive Maximum
	PacketLimit     int           // the hub's Maximum Packet Size
	LastAck         time.Time     // of the last PUBACK
	LastRoundTrip   time.Duration // PUBLISH to PUBACK of the last one
}

// Stats is how the uplink stands. It may be called at any time.
func (u *Uplink) Stats() Stats {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.stats
	s.BytesSent, s.BytesReceived = u.bytesOut.Load(), u.bytesIn.Load()
	return s
}

func (u *Uplink) count(f func(*Stats)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f(&u.stats)
}

// become changes the state; an empty hub leaves the last one named.
func (u *Uplink) become(state State, hub string) {
	u.count(func(s *Stats) {
		s.State, s.Since, s.RetryAt = state, time.Now(), time.Time{}
		if hub != "" {
			s.Hub = hub
		}
	})
}

// observe copies what the link knows.
func (u *Uplink) observe(l *link) {
	u.count(func(s *Stats) {
		s.Log, s.WindowBatches, s.PacketLimit = l.welcome.log, l.welcome.window, l.welcome.packet
		s.InFlightBatches, s.InFlightBytes = len(l.flights), l.bytes
		s.CodecStateBytes = 0
		if x := l.encoder.Session(); x != nil {
			s.CodecStateBytes = x.StateBytes()
		}
	})
}

// note keeps an error for the operator, and logs it unless it is the same again.
func (u *Uplink) note(what string) {
	var again bool
	u.count(func(s *Stats) {
		again = s.LastError == what
		s.LastError, s.LastErrorAt = what, time.Now()
	})
	level := slog.LevelWarn
	if again {
		level = slog.LevelDebug
	}
	u.o.Logger.Log(context.Background(), level, "link in trouble", "error", what)
}
