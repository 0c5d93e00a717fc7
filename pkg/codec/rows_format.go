package codec

// The first byte of the columns: the unit of all times, and a flag.
const (
	unitMicro  = 0
	unitMilli  = 1
	unitSecond = 2
	unitMask   = 3
	// mixedMeta says that every record has a meta byte, not all the same one.
	mixedMeta  = 1 << 2
	headUnused = 0xff &^ (unitMask | mixedMeta)
)

var units = [...]int64{unitMicro: 1, unitMilli: 1e3, unitSecond: 1e6}

// A record's meta byte.
const (
	metaQoS          = 3 << 0
	metaRetain       = 1 << 2
	metaQuality      = 3 << metaQualityShift
	metaQualityShift = 3
	metaBoot         = 1 << 5 // boot id and monotonic time follow in their column
	metaProps        = 1 << 6 // properties follow in their column
	metaUnused       = 1 << 7
)

// The first byte of a record's properties.
const (
	propUTF8        = 1 << 0
	propContentType = 1 << 1
	propResponse    = 1 << 2
	propCorrelation = 1 << 3
	propUser        = 1 << 4
	propUnused      = 0xff &^ (1<<5 - 1)
)

// Topic codes. A topic that is neither foreseen nor new is its number in the
// dictionary plus topicKnown.
const (
	topicForeseen = 0 // the topic that followed the record before's the last time
	topicNew      = 1 // the next of the dictionary
	topicKnown    = 2
)

// Bounds that keep a body's cost in proportion.
const (
	maxTopic      = 65535 // MQTT's own
	perProperty   = 32    // what a user property counts beside its text
	perRecord     = 64    // bytes of columns that a record may take beside content
	maxRatio      = 1000  // plain bytes for a byte of zstd, beyond ratioSlack
	ratioSlack    = 64 << 10
	minRecordSize = 3 // a topic code, a time, a size
)

// plainLimit is the most bytes that the columns of count records may take.
func plainLimit(l Limits, count int) int { return l.Bytes + perRecord*count + perRecord }

// ratioLimit is the most bytes that packed ones may become. Beyond what it says
// for a MiB other limits are lower, and 32 bits do not overflow.
func ratioLimit(packed int) int { return ratioSlack + maxRatio*min(packed, 1<<20) }
