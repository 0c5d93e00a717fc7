package mqttfront

import (
	"context"
	"log/slog"
	"net"
	"time"
)

// Options say how a Front behaves. The zero value of a field means its default.
type Options struct {
	// Listeners are owned by the front from New on. Those made by tls.Listen or
	// tls.NewListener give Peer.TLS.
	Listeners []net.Listener
	// MinVersion is the lowest MQTT protocol level let in; default 4. 4 lets
	// MQTT 3.1 (level 3) in too.
	MinVersion byte
	// FanOut gives settled messages to local subscribers and keeps retained
	// ones. Without it every SUBSCRIBE is granted as the Session says, and
	// delivers nothing.
	FanOut bool
	// MaxPacketSize in bytes, header included; default 256 KiB.
	MaxPacketSize uint32
	// MaxClients connected; default 1,000.
	MaxClients int
	// ConnectTimeout bounds TLS handshake and CONNECT, and then, again,
	// Handler.Connect; default 10 s.
	ConnectTimeout time.Duration
	// WriteTimeout bounds each write to a client; default 10 s.
	WriteTimeout time.Duration
	// MaxInflightMessages bounds the QoS 1 messages of a client that are not
	// acknowledged; default 2,048, at most 65,535.
	MaxInflightMessages int
	// MaxInflightBytes bounds what a client has in flight; default 1 MiB. A
	// client whose Welcome gives both values may have their product.
	MaxInflightBytes int
	// MaxTotalBytes bounds what all clients have in flight; default 64 MiB.
	MaxTotalBytes int64
	// Logger; nil discards.
	Logger *slog.Logger
}

// Front is the server. Make it with New, start it with Run.
type Front struct{}

// New makes a Front that asks h. It owns o.Listeners from now on: Run closes
// them when it ends.
func New(h Handler, o Options) *Front { panic("not yet") }

// Run serves until ctx ends or a listener breaks, and returns when every
// connection has been closed and every goroutine has ended.
func (f *Front) Run(ctx context.Context) error { panic("not yet") }

// Stats may be called at any time, from any goroutine.
func (f *Front) Stats() Stats { panic("not yet") }

// Clients is the number of clients that are admitted and connected.
func (f *Front) Clients() int { panic("not yet") }
