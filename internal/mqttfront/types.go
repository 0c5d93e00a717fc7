package mqttfront

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"

	"github.com/packetboat/packetboat/pkg/stream"
)

// Handler decides who may connect. The front calls it from the goroutine of
// the connection; many calls run at the same time.
type Handler interface {
	// Connect admits or refuses a client. It may block until ctx ends, which it
	// does after Options.ConnectTimeout or when the connection is gone. An
	// error that is a *Refusal is told to the client in its own words; any other
	// becomes ServerUnavailable and its text stays here. After a nil error the
	// front calls Session.Close exactly once.
	Connect(ctx context.Context, p *Peer) (Session, Welcome, error)
}

// WillHandler is a Handler that also takes wills whose connections are not there
// any more: after a restart, the wills of those clients that do not come back in
// time. Without it these are dropped, and counted.
type WillHandler interface {
	// Will takes a will as Session.Publish takes a message: without blocking, and
	// settle is called once. Wills of different clients come from one goroutine,
	// one after the other.
	Will(p *Publish, clientID, username string, settle Settle)
}

// UserHandler is a Handler that knows which users there are. Without it a client
// id stays with a user who left a session until that session expires.
type UserHandler interface {
	// UserExists reports whether somebody may still come as user; false only if
	// certainly nobody can. It may be called from any goroutine and must not block.
	UserExists(user string) bool
}

// Session is what a Handler made of one connection.
type Session interface {
	// Publish takes a message: from the connection's reader, in the order of
	// arrival, never two at a time. It must not block, and must see to it that
	// settle is called once. p and all it points to are valid until then.
	Publish(p *Publish, settle Settle)
	// Subscribe reports whether the client may subscribe to filter, which for a
	// shared subscription is what follows the share name. It may be called beside
	// Publish of the same session, not after Close.
	Subscribe(filter string) bool
	// Deliver reports whether the client may see a message of topic. It is asked
	// for each message that leaves for the client, from any goroutine, and must
	// be cheap; not after Close.
	Deliver(topic string) bool
	// Close says that the connection has ended and why. It is called once,
	// after the last Publish has returned; settles may still be due.
	Close(reason error)
}

// Peer is a client that asks to be let in.
type Peer struct {
	// ClientID is never empty: a client that brings none is given one, and
	// Assigned says so.
	ClientID string
	Assigned bool
	// Username is what the client says. A Handler sets it to the name that it
	// holds proven, "" if none is: that is whose the session and the will are. The
	// session of one user is never another's.
	Username string
	Password []byte
	// Version is the MQTT protocol level: 3 (MQTT 3.1), 4 (3.1.1) or 5.
	Version    byte
	CleanStart bool
	// KeepAlive in seconds; 0: none.
	KeepAlive uint16
	// User are the user properties of CONNECT.
	User []stream.Property
	// Will is the message to publish when the connection breaks, nil for none.
	// A Handler may set it to nil: then nothing is published.
	Will   *Publish
	Remote net.Addr
	// TLS is nil on a plain connection.
	TLS *tls.ConnectionState
	// Transport is "tcp", "tls", "ws" or "wss": a connection with a method
	// Transport() string says it itself.
	Transport string
	// Disconnect ends the connection: MQTT 5 clients are told code and reason.
	// It returns at once, may be called from any goroutine and more than once;
	// the first call decides. A Publish that is about to begin may still come
	// after it returned, but no more than one.
	Disconnect func(code byte, reason string)
}

// Welcome is what an admitted MQTT 5 client is told beyond the front's own.
type Welcome struct {
	// ReceiveMaximum is how many QoS 1 messages the client may have in flight,
	// at most Options.MaxInflightMessages (0 too).
	ReceiveMaximum uint16
	// MaximumPacketSize in bytes, at most Options.MaxPacketSize (0 too).
	MaximumPacketSize uint32
	// User become user properties of CONNACK.
	User []stream.Property
}

// Refusal is the error by which a Handler refuses a client. MQTT 3.1.1 clients
// are told the nearest of their five return codes.
type Refusal struct {
	// Code is a CONNACK reason code, 0x80 or above.
	Code            byte
	Reason          string
	ServerReference string
	User            []stream.Property
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("client refused with code 0x%02x: %s", r.Code, r.Reason)
}

// Publish is one message from a client.
type Publish struct {
	// Topic is a valid topic name, aliases resolved. It may begin with $, but is
	// not below $SYS or $share.
	Topic   string
	Payload []byte
	QoS     byte
	Retain  bool
	Dup     bool
	// Will marks the last will of a connection that broke.
	Will bool
	// Expiry is the message expiry interval in seconds, 0 for none.
	Expiry uint32
	// Properties is nil when the message has none worth keeping.
	Properties *stream.Properties
	// Save are changes that must become durable in the Store together with the
	// message: a Session that settles with a code below 0x80 promises that both
	// are, also when it keeps nothing of the message itself. It is nil without
	// Options.Store, and valid until settle.
	Save []Change
}

// Change is one write to a Store. A nil Value removes the key.
type Change struct {
	Key   string
	Value []byte
}

// Store keeps, beyond the life of the process, what a client's session may
// count on. Its methods may be called from any goroutine.
type Store interface {
	// Load yields every key, in no order, until yield returns false. It is
	// called once, before the first Save. key and value are the front's.
	Load(yield func(key string, value []byte) bool) error
	// Save applies changes in their order, after all earlier ones, all of them or
	// none. It copies them and never blocks. done is called once, from any
	// goroutine: when they are on flash, or with the reason why they are not. With
	// a nil done they may wait a moment for others (a tenth of a second).
	Save(changes []Change, done func(error))
}

// Settle answers for one message. It is called once, from any goroutine, for
// QoS 0 too, and does not block; a second call is counted and does nothing.
type Settle func(Result)

// Result is the fate of a message.
type Result struct {
	// Code is the PUBACK reason code. 0x80 and above is a refusal: an MQTT 5
	// client is told; a connection of an older version is closed.
	Code byte
	// User become user properties of an MQTT 5 PUBACK, if they fit.
	User []stream.Property
	// NoFanOut keeps the message from local subscribers and the retained store.
	NoFanOut bool
	// Withhold sends no acknowledgement and closes the connection, so that the
	// client sends the message again: for what cannot be promised now.
	Withhold bool
}
