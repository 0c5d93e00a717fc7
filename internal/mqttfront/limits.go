package mqttfront

import (
	"fmt"
	"sync/atomic"
)

// limit names one bound of the front; each hit of it is counted under the name
// that LimitTable gives it.
type limit int

// The limits, in the order of LimitTable.
const (
	limitClients limit = iota
	limitStrangers
	limitStrangerBytes
	limitConnectSize
	limitConnectTime
	limitPacketSize
	limitControlSize
	limitHelloBytes
	limitLingering
	limitKeepAlive
	limitReceiveMaximum
	limitInflight
	limitInflightTotal
	limitPartial
	limitPacketTime
	limitUnreleased
	limitUnreleasedBytes
	limitAlias
	limitAliasBytes
	limitTopicMemory
	limitWriteTime
	limitWriteQueue
	limitSessions
	limitSessionExpiry
	limitWaitingWills
	// Of the outbound half.
	limitSubscriptions
	limitFilter
	limitTopicLevels
	limitFilterLevels
	limitFanOutQueue
	limitQueuedMessages
	limitQueuedBytes
	limitRetained
	limitRetainedBytes
	limitPeerPacket
	numLimits
)

// limitCounters count the hits of each limit.
type limitCounters [numLimits]atomic.Int64

func (n *counters) limit(l limit) { n.limits[l].Add(1) }

func (l *limitCounters) all() map[string]int64 {
	out := make(map[string]int64, numLimits)
	for i, t := range limitTexts {
		out[t.name] = l[i].Load()
	}
	return out
}

// LimitInfo describes one limit.
type LimitInfo struct {
	Name    string // the key of Stats.Limits under which hits are counted
	Bounds  string // what is bounded
	Default string // its value, or how it follows from Options
	Then    string // what happens to the one who hits it
	Why     string
}

type limitText struct{ name, bounds, value, then, why string }

// LimitTable describes all limits.
func LimitTable() []LimitInfo {
	out := make([]LimitInfo, 0, numLimits)
	for _, t := range limitTexts {
		out = append(out, LimitInfo{Name: t.name, Bounds: t.bounds, Default: t.value, Then: t.then, Why: t.why})
	}
	return out
}

var limitTexts = [numLimits]limitText{
	limitClients: {"clients", "clients connected", "MaxClients, 1,000",
		"CONNACK 0x89", "each costs up to 20 kB and a file descriptor"},
	limitStrangers: {"strangers", "connections that are not let in yet", "MaxClients/4 + 16",
		"the one that is silent for the longest is closed", "silence must not keep clients out"},
	limitStrangerBytes: {"stranger_bytes", "CONNECTs under way beyond 32 KiB each, all together", bytesText(maxStrangerBytes),
		"closed", "nobody has shown who he is yet"},
	limitConnectSize: {"connect_size", "a CONNECT", bytesText(maxConnect),
		"closed", "room for a will, a password and what a device says of itself, no more"},
	limitConnectTime: {"connect_time", "time from accept to CONNECT", "ConnectTimeout, 10 s",
		"closed", "an open socket that says nothing is worth nothing"},
	limitHelloBytes: {"hello_bytes", "client ids and user names beyond 256 bytes and wills beyond 1 KiB each, all together", bytesText(maxHelloBytes),
		"CONNACK 0x97", "they are in memory as long as the client is connected, the id as long as the session"},
	limitLingering: {"lingering", "connections that are over and wait, for up to 3 s, for the client to close", "MaxClients/4 + 16",
		"closed at once", "waiting is a courtesy: the reason arrives"},
	limitPacketSize: {"packet_size", "a PUBLISH", "MaxPacketSize, 256 KiB",
		"DISCONNECT 0x95", "it is in memory whole until it is on flash"},
	limitControlSize: {"control_size", "any other packet", bytesText(maxControl),
		"DISCONNECT 0x95", "256 filters fit"},
	limitKeepAlive: {"keep_alive", "silence of a client, and what it may ask for", "1.5 times its keep alive; MaxKeepAlive, no bound",
		"DISCONNECT 0x8D; Server Keep Alive", "a client that is gone must be noticed"},
	limitReceiveMaximum: {"receive_maximum", "QoS 1 and 2 messages of an MQTT 5 client in flight", "MaxInflightMessages, 2,048",
		"DISCONNECT 0x93", "the client was told"},
	limitInflight: {"inflight", "messages, SUBSCRIBEs and UNSUBSCRIBEs of a client that are not acknowledged, and their bytes", "MaxInflightMessages, 2,048; MaxInflightBytes, 4 MiB",
		"it is not read; after half its keep alive DISCONNECT 0x97", "one client must not take the memory of all; what is written to flash goes at the pace of the flash"},
	limitInflightTotal: {"inflight_total", "bytes in flight of all clients", "MaxTotalBytes, 64 MiB",
		"as inflight; each client may have one message", "memory"},
	limitPartial: {"partial", "packets of clients that have not come whole, beyond 32 KiB each, all together", "MaxTotalBytes/2, at least 4 packets",
		"the one that is under way for the longest: DISCONNECT 0x97", "half a packet costs its sender nothing"},
	limitPacketTime: {"packet_time", "time that a packet of a client is under way", fmt.Sprintf("1.5 times its keep alive, without one %.0f s; and 1 s for each %d bytes that have come", packetTime.Seconds(), packetPace),
		"DISCONNECT 0x8D, 0x97", "a byte now and then is no sign of life, and a slow link is no fault"},
	limitUnreleased: {"unreleased", "QoS 2 messages of a session that are not released", "2 x MaxInflightMessages",
		"PUBREC 0x97", "each is a key on flash"},
	limitUnreleasedBytes: {"unreleased_bytes", "QoS 2 messages that are not released and that local subscribers wait for, of all sessions", "MaxQueuedBytes, 16 MiB",
		"PUBREC 0x97", "they are in memory until they are released"},
	limitAlias: {"alias", "topic aliases of a connection", fmt.Sprint(maxAliases),
		"DISCONNECT 0x94", "the client was told"},
	limitAliasBytes: {"alias_bytes", "topics behind the aliases of a connection", bytesText(maxTopicBytes),
		"DISCONNECT 0x97", "memory"},
	limitTopicMemory: {"topic_memory", "topics that connections remember, and those behind their aliases, beyond " + bytesText(plainTopics) + " each, all together", bytesText(maxTopicMemory),
		"not remembered; behind a new alias DISCONNECT 0x97", "memory; remembering them is for speed"},
	limitWriteTime: {"write_time", "time for one write to a client", "WriteTimeout, 10 s",
		"closed", "a client that does not read keeps its answers in memory"},
	limitWriteQueue: {"write_queue", "answers that a client does not read", bytesText(maxOut),
		"closed", "memory"},
	limitSessions: {"sessions", "sessions of clients, those away included", "MaxSessions, MaxClients + 1,000",
		"of the user who has most that are away, the one that is away for the longest ends; all are here: CONNACK 0x97 for clients that want theirs kept", "each is kept on flash, and nobody may keep others out"},
	limitSessionExpiry: {"session_expiry", "time that a session outlives its connection", "MaxSessionExpiry, 24 h",
		"CONNACK says what the client gets", "what nobody fetches has to end"},
	limitWaitingWills: {"waiting_wills", "wills whose delay runs", fmt.Sprintf("%d, and %s of them", maxWaitingWills, bytesText(maxWaitingWillBytes)),
		"published without delay", "memory"},
	limitSubscriptions: {"subscriptions", "subscriptions of a client", "MaxSubscriptions, 256",
		"SUBACK 0x97", "each is in the index and on flash"},
	limitFilter: {"filter", "the filters of a client, in bytes", bytesText(maxFilterBytes),
		"SUBACK 0x97", "they are in the index and on flash"},
	limitTopicLevels: {"topic_levels", "levels of a filter, and of a topic that is retained", "MaxTopicLevels, 64",
		"SUBACK 0x97; not retained", "each level is a node of the index"},
	limitFilterLevels: {"filter_levels", "levels of all filters, and 1 for each 256 bytes of them", "65,536",
		"SUBACK 0x97", "a level costs 256 bytes"},
	limitFanOutQueue: {"fan_out_queue", "messages on their way to local subscribers", bytesText(fanBytes) + " of them, 256 bytes each included",
		"dropped for local subscribers", "publishers do not wait for subscribers"},
	limitQueuedMessages: {"queued_messages", "messages that wait for one subscriber", "QoS 1 and 2: MaxQueuedMessages, 1,000; QoS 0: " + bytesText(maxPlainBytes),
		"dropped for it: QoS 1 and 2 the oldest, QoS 0 the newest", "who does not fetch must not cost the others"},
	limitQueuedBytes: {"queued_bytes", "messages that wait for all subscribers", "MaxQueuedBytes, 16 MiB",
		"dropped for those that have most, the oldest first", "memory and flash"},
	limitRetained: {"retained", "retained messages", "MaxRetained, 10,000",
		"not retained", "memory and flash"},
	limitRetainedBytes: {"retained_bytes", "memory of retained messages", "MaxRetainedBytes, 32 MiB",
		"not retained", "memory and flash"},
	limitPeerPacket: {"peer_packet", "a packet to a client", "its Maximum Packet Size",
		"not sent to it", "the client said so"},
}

func bytesText(n int) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}
