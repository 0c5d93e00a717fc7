// Package conformance checks the edge's MQTT door, as a real binary with default
// settings, and what the hub's door claims, against the OASIS specifications of MQTT 3.1.1 and 5, clause by
// clause, and with real clients.
//
// It holds tests only. They promise that every clause of both specifications is
// either checked by a function of the table in clauses_test.go or stands in
// exempt_test.go with the reason; docs/mqtt-clauses.md is made from the two. They
// judge what a client can see, not how fast it comes; what an acknowledgement
// promises after a crash is proved elsewhere (internal/e2e).
//
// The binaries are built from this tree. These variables choose another server:
//
//	PACKETBOAT_CONFORMANCE_EDGE=path     an edge binary that exists
//	PACKETBOAT_CONFORMANCE_HUB=path      a hub binary that exists
//	PACKETBOAT_CONFORMANCE_MOSQUITTO=1   mosquitto instead, to check the checks
package conformance
