package stream

// TimeQuality says how far a record's time can be trusted.
type TimeQuality uint8

// The qualities. The numbers stand on disk and on the link.
const (
	TimeUnknown TimeQuality = 0 // the clock was not known; Boot and Mono say when
	TimeLocal   TimeQuality = 1 // the edge's wall clock, believed to be set
	TimeFixed   TimeQuality = 2 // stamped with monotonic time, corrected later
)

// Flags tell how a record came into the log.
type Flags uint8

// The flags. The numbers stand in the log and on the link.
const (
	// Backfill marks a record that was sent after newer ones of its stream.
	Backfill Flags = 1 << 0
	// FIFO marks a batch of a lane that drains in strict order.
	FIFO Flags = 1 << 1
)

// Property is one MQTT user property.
type Property struct{ Key, Value string }

// Properties are the MQTT 5 properties of a message that are worth keeping.
type Properties struct {
	ContentType     string
	ResponseTopic   string
	CorrelationData []byte
	User            []Property
	// PayloadUTF8 is the payload format indicator.
	PayloadUTF8 bool
}

// IsZero reports whether nothing is set.
func (p *Properties) IsZero() bool {
	return p == nil || p.ContentType == "" && p.ResponseTopic == "" && len(p.CorrelationData) == 0 && len(p.User) == 0 && !p.PayloadUTF8
}

// Message is one MQTT application message as the edge accepted it.
type Message struct {
	Topic   string
	Payload []byte
	// Time is when the edge accepted it, µs since 1970 UTC, truncated to the
	// lane's resolution.
	Time    int64
	Quality TimeQuality
	// Boot and Mono (µs since that boot) are set while Quality is TimeUnknown.
	Boot   Epoch
	Mono   int64
	QoS    uint8
	Retain bool
	// Expiry is the MQTT message expiry interval in seconds, counted from when
	// the edge accepted the message; 0: none. It matters to the edge alone and
	// does not cross the link.
	Expiry uint32
	// Properties is nil for a message that has none.
	Properties *Properties
}

// Moment is one reading of a device's clocks. Mono counts on while the device
// sleeps and means nothing in another boot.
type Moment struct {
	Time    int64 // wall clock, µs since 1970 UTC
	Quality TimeQuality
	Boot    Epoch // random per boot; zero: not known
	Mono    int64 // µs since that boot
}

// Record is a message with its place in a stream.
type Record struct {
	Seq uint64
	Message
}

// Reason says why a sequence number was given up.
type Reason uint8

// The closed set of reasons. The numbers stand on disk, on the link and in the log.
const (
	Evicted      Reason = 1 // the buffer was full and the lane allows it
	Expired      Reason = 2 // older than the buffer's max_age, or message expiry
	Unreadable   Reason = 3 // a damaged frame, or a buffer that did not open
	RefusedByLog Reason = 4 // the log can never take it
	OtherLog     Reason = 5 // settled in another log; not in this one
	LogRestored  Reason = 6 // settled, then the log went back to a backup
	Stale        Reason = 7 // the log knew the epoch once and has forgotten it; stands only in the edge's ledger
	Quarantined  Reason = 8 // the hub could not decode it, also when sent self-contained
	Abandoned    Reason = 9 // declared lost by an operator
)

// Reasons lists every reason.
var Reasons = [...]Reason{Evicted, Expired, Unreadable, RefusedByLog, OtherLog, LogRestored, Stale, Quarantined, Abandoned}

var reasonNames = [...]string{"unknown", "evicted", "expired", "unreadable", "refused_by_log", "other_log", "log_restored", "stale", "quarantined", "abandoned"}

// Valid reports whether r is one of Reasons.
func (r Reason) Valid() bool { return r >= Evicted && r <= Abandoned }

func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return reasonNames[0]
}

// MarshalText writes the reason's name.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads a reason's name; one it does not know becomes 0.
func (r *Reason) UnmarshalText(b []byte) error {
	*r = 0
	for i, n := range reasonNames {
		if n == string(b) {
			*r = Reason(i)
		}
	}
	return nil
}

// Loss is a run of sequence numbers given up on purpose.
type Loss struct {
	Range
	Reason Reason
	// From and To bound the times of what was lost, µs since 1970 UTC, both
	// ends included; both are 0 where nobody knows.
	From, To int64
}

// Batch is a contiguous run of one stream's records, and what goes with it.
type Batch struct {
	ID ID
	// First is the number of Records[0]; Records[i].Seq is First+i. A batch
	// without records only declares losses and states Head and Floor.
	First   uint64
	Records []Record
	// Losses are declared lost; they do not overlap Records.
	Losses []Loss
	// Head is the highest number of the stream that is synced at the edge.
	Head uint64
	// Floor is the lowest number that the edge still has to answer for; Head+1
	// when there is none.
	Floor uint64
	// Oldest is the time of the oldest record that is not settled, µs; 0: none.
	Oldest int64
	Flags  Flags
}

// Last is the number of the last record; First-1 when there is none.
func (b *Batch) Last() uint64 { return b.First + uint64(len(b.Records)) - 1 }

// Held is what an edge still has to answer for in one stream: it is in
// CONNECT, and says which numbers the hub may wait for.
type Held struct {
	Epoch Epoch
	Lane  Lane
	// Ranges are the numbers of records that are stored and not settled, and
	// of losses that the hub does not know of yet. It may name more than that
	// (a number named here is waited for), never less.
	Ranges RangeSet
	// Head is the highest synced number.
	Head uint64
	// Current says that the epoch is the one in use.
	Current bool
	// Answered is the log that last answered for the epoch; zero: none did.
	Answered LogID
}

// LaneCoverage is what a log says of one lane of an epoch.
type LaneCoverage struct {
	Lane Lane
	// Settled holds every number that is in the log or declared lost.
	Settled RangeSet
	// Lost is the part of Settled that was declared lost.
	Lost RangeSet
}

// EpochCoverage is what a log says of an epoch that it knows. Without lanes it
// says only that it knows it.
type EpochCoverage struct {
	Epoch Epoch
	Lanes []LaneCoverage
}
