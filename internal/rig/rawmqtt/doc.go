// Package rawmqtt is an MQTT client for tests that can say anything: every
// packet of MQTT 3.1.1 and 5 with every field at will, right or wrong, and raw
// bytes.
//
// It promises to judge what comes back: the decoder accepts a packet only as the
// specification allows a server to send it, and a Judge follows a connection
// and names the clause that a packet breaks in its place. Encoding, decoding and
// judging are pure; Conn puts a socket, TLS or a WebSocket around them. It
// shares no code with the servers of this project, because it judges them. It
// keeps no session, answers nothing by itself and never sends again: that is
// for whoever uses it.
package rawmqtt
