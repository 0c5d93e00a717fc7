package mqttfront

import "sync/atomic"

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
	limitClientID
	limitPacketSize
	limitControlSize
	limitKeepAlive
	limitReceiveMaximum
	limitInflight
	limitInflightTotal
	limitPartial
	limitUnreleased
	limitAlias
	limitAliasBytes
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
