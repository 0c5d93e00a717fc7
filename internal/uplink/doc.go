// Package uplink carries what the edge's buffer holds to a hub, over MQTT 5,
// and tells the buffer what the hub answered.
//
// It promises that a batch counts as settled only when the hub said so in this
// very connection's PUBACK or welcome; that whatever a connection leaves
// unanswered goes back to the buffer; that each lane is sent in order; and that
// it never gives up: hubs that are gone, hang, refuse or redirect are tried
// again with jittered back-off. It does not store anything itself, and stopping
// it keeps the backlog.
package uplink
