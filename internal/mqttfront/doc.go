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
// The packets of clients are decoded here, and every decoder is fuzzed, CONNECT
// and PUBLISH against that of mochi-mqtt.
package mqttfront
