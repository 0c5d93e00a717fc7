// Package mqttfront is an MQTT server behind a small face: it takes PUBLISHes
// from clients, hands each to a Session, and acknowledges it when, and only
// when, the Session has settled it.
//
// It promises: PUBACKs leave in the order of their PUBLISHes, many in one
// write; an acknowledgement that cannot be written closes the connection; what
// is in flight is bounded per client and in total, in messages and bytes;
// nothing is refused silently; with FanOut, local subscribers see a message
// only after it was settled with success, and never slow anybody down.
//
// It does not store anything beyond the process: sessions, subscriptions and
// retained messages live in memory. QoS 2 is refused, in the words that the
// client's MQTT version has for it. It knows no buffer, no log and no device.
//
// The protocol engine is mochi-mqtt. A connection reads through a door (conn)
// that takes every PUBLISH out of the byte stream and handles it here; mochi
// sees what is left: CONNECT, SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT and
// the acknowledgements of subscribers.
package mqttfront
