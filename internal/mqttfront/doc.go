// Package mqttfront is an MQTT server behind a small face: it takes PUBLISHes
// from clients, hands each to a Session, and acknowledges it when, and only
// when, the Session has settled it.
//
// It promises: acknowledgements leave in the order of their PUBLISHes, many in
// one write; one that cannot be written closes the connection; a QoS 2 message is
// taken once, over takeovers, crashes and power cuts, as long as its client keeps
// its session; with FanOut, local subscribers see a message only after it was
// settled with success (QoS 2: and released), and never slow anybody down; what
// is in memory is bounded, per client and in total, by the limits of one table
// (LimitTable), each with a counter; nothing is refused silently.
//
// With a Store, sessions, received identifiers, subscriptions, retained messages
// and wills survive a restart; without one they live in memory. The package knows
// no buffer, no log and no device.
//
// A connection is one goroutine that reads and handles packets, and a writer that
// runs while there is something to write. What belongs to a client id rather than
// a connection is a session. A client id has one seat; whoever owns it may begin
// and end the session there, so that connections of one client follow each other
// and never overlap.
//
// The codec is that of mochi-mqtt (its package packets) for all that comes once
// or seldom: CONNECT, SUBSCRIBE, UNSUBSCRIBE, DISCONNECT and their answers. What
// it decodes has passed a check of ours, for it takes what the specification
// forbids and panics on what is cut short. PUBLISH and the acknowledgements, which
// come by the hundred thousand, are read and written here. Every decoder is
// fuzzed. mochi's server engine and its index of topics are not used; mochi_test.go
// pins each reason, so that an upgrade that takes one away is noticed.
package mqttfront
