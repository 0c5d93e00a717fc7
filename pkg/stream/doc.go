// Package stream holds the words of Packetboat as plain types: messages,
// records, streams, sequence ranges, losses and the names of logs.
//
// Every other package speaks in these types; this one imports only the
// standard library, starts no goroutine and does no I/O. Values are not safe
// for concurrent mutation; sharing them read-only is.
package stream
