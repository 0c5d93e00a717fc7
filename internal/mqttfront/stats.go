package mqttfront

// Stats is what a Front has done since New, and what it holds now.
type Stats struct {
	// Now.
	Connections      int64 // sockets, those not yet authenticated included
	Clients          int64 // admitted and connected
	Sessions         int64 // of clients that are away, kept for their return
	InflightMessages int64
	InflightBytes    int64 // topic, payload and properties, and what the front adds
	Subscriptions    int64
	Retained         int64
	// Since New.
	Accepted       int64 // connections
	Connects       int64 // clients admitted
	TakeOvers      int64
	ConnectsFailed int64 // ended before the Handler was asked
	Refusals       map[byte]int64
	MessagesIn     int64
	BytesIn        int64 // of PUBLISH packets
	Acks           int64 // PUBACKs written
	AckWrites      int64 // writes that carried them
	AckFailures    int64 // writes that failed, each closed its connection
	Refused        int64 // messages settled with 0x80 or above
	Withheld       int64 // messages whose acknowledgement was withheld
	SettledTwice   int64 // calls of a Settle beyond the first
	Stalls         int64 // times a reader stopped because a bound was reached
	StallTimeouts  int64 // stalls that outlasted the client's patience
	ProtocolErrors map[string]int64
	Wills          int64
	FanOut         int64 // messages given to local subscribers
	FanOutDropped  map[string]int64
}
