package mqttfront

import (
	"maps"
	"sync"
	"sync/atomic"
)

// Stats is what a Front has done since New, and what it holds now.
type Stats struct {
	// Now.
	Connections      int64 // sockets, those not yet authenticated included
	Strangers        int64 // connections that are not let in yet
	Clients          int64 // admitted and connected
	Sessions         int64 // of clients, those that are away included
	InflightMessages int64 // QoS 1 and 2, not yet acknowledged
	InflightBytes    int64 // PUBLISH packets and what the front adds to each
	Unreleased       int64 // QoS 2 identifiers of all sessions
	Subscriptions    int64
	Retained         int64
	QueuedMessages   int64 // for local subscribers
	QueuedBytes      int64 // of them
	// Since New.
	Accepted       int64 // connections
	AcceptErrors   int64 // of listeners, each followed by a pause
	Connects       int64 // clients admitted
	TakeOvers      int64
	ConnectsFailed int64            // ended before the Handler was asked
	Refusals       map[byte]int64   // of CONNECT, by reason code
	MessagesIn     int64            // PUBLISHes taken
	BytesIn        int64            // of them
	Repeats        int64            // QoS 2 PUBLISHes that were there before
	Acks           int64            // PUBACKs, PUBRECs and PUBCOMPs written
	AckWrites      int64            // writes that carried them
	AckFailures    int64            // writes that failed; each closed its connection
	Refused        int64            // messages settled with 0x80 or above
	Withheld       int64            // messages whose acknowledgement was withheld
	SettledTwice   int64            // calls of a Settle beyond the first
	Stalls         int64            // times a reader stopped because a bound was reached
	StallTimeouts  int64            // stalls that outlasted the client's patience
	ProtocolErrors map[string]int64 // by kind
	Wills          int64            // published
	WillsDropped   int64            // after a restart, because nobody takes them
	StoreErrors    int64            // changes that the Store could not make durable
	LoadDropped    int64            // stored keys that could not be read or belonged to nothing
	Limits         map[string]int64 // hits of each limit, see LimitTable
	LinesKept      int64            // log lines not written because there were too many like them
	FanOut         int64            // messages given to local subscribers or retained
	FanOutDropped  map[string]int64 // by reason
}

// counters are behind Stats.
type counters struct {
	clients, accepted, acceptErrors, connects, takeOvers, connectsFailed atomic.Int64
	messagesIn, bytesIn, acks, ackWrites, ackFailures, refused, withheld atomic.Int64
	settledTwice, stalls, stallTimeouts, wills, fanOut                   atomic.Int64
	repeats, willsDropped, storeErrors, loadDropped, linesKept           atomic.Int64

	limits limitCounters

	mu       sync.Mutex
	refusals map[byte]int64   // guarded by mu
	kinds    map[string]int64 // guarded by mu
	dropped  map[string]int64 // guarded by mu
}

func (n *counters) refusal(code byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.refusals[code]++
}

func (n *counters) protocol(kind string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.kinds[kind]++
}

func (n *counters) fanDropped(reason string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dropped[reason]++
}

// Stats may be called at any time, from any goroutine.
func (f *Front) Stats() Stats {
	n := &f.n
	s := Stats{
		Clients: n.clients.Load(), Sessions: f.seats.sessions.Load(),
		InflightBytes: f.bytes.Load(), Subscriptions: f.local.subscriptions(), Retained: f.local.retained(),
		Accepted: n.accepted.Load(), AcceptErrors: n.acceptErrors.Load(), Connects: n.connects.Load(),
		TakeOvers: n.takeOvers.Load(), ConnectsFailed: n.connectsFailed.Load(),
		MessagesIn: n.messagesIn.Load(), BytesIn: n.bytesIn.Load(),
		Acks: n.acks.Load(), AckWrites: n.ackWrites.Load(), AckFailures: n.ackFailures.Load(),
		Refused: n.refused.Load(), Withheld: n.withheld.Load(), SettledTwice: n.settledTwice.Load(),
		Stalls: n.stalls.Load(), StallTimeouts: n.stallTimeouts.Load(),
		Wills: n.wills.Load(), FanOut: n.fanOut.Load(),
		Repeats: n.repeats.Load(), WillsDropped: n.willsDropped.Load(), StoreErrors: n.storeErrors.Load(),
		LoadDropped: n.loadDropped.Load(), LinesKept: n.linesKept.Load(), Limits: n.limits.all(),
	}
	s.QueuedMessages, s.QueuedBytes = f.local.queued()
	s.Unreleased = f.unreleased()
	strangers, _ := f.strangers.count()
	s.Strangers = int64(strangers)
	f.mu.Lock()
	s.Connections = int64(len(f.conns))
	for c := range f.conns {
		s.InflightMessages += c.messages.Load()
	}
	f.mu.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	s.Refusals, s.ProtocolErrors, s.FanOutDropped = maps.Clone(n.refusals), maps.Clone(n.kinds), maps.Clone(n.dropped)
	return s
}
