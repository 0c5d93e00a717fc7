package commitlog

// The bounds of the package. What happens at each is said beside it.
const (
	// MaxEpochs is how many epochs of a device are remembered. Beyond it the
	// one first seen that is closed and complete is forgotten and counted;
	// incomplete ones always stay.
	MaxEpochs = 1000
	// MaxIncomplete: a device with so many epochs, none of which may be
	// forgotten, gets no new one; entries of it are rejected until an
	// operator declares the missing numbers lost.
	MaxIncomplete = 4 * MaxEpochs
	// MaxRanges is how many ranges the coverage of one lane of an epoch may
	// take (in, lost and expired together). An entry that would exceed it and
	// make the lane's coverage longer is rejected; one that closes gaps passes.
	// It keeps an encoded epoch below 1 MiB, unless nearly every range expired
	// on its own.
	MaxRanges = 16 << 10
	// MaxLosses is how many losses a lane of an epoch tells apart. Beyond it
	// those with the lowest numbers give up their reason and time range; their
	// numbers stay in LaneState.Lost and in the totals by reason.
	MaxLosses = 256
	// MaxShards is the highest number of shards a log can have.
	MaxShards = 4096

	// What every log takes in one group. More may be rejected (ErrTooLarge).
	MaxGroupEntries = 8 << 10
	MaxGroupRecords = 64 << 10
	MaxGroupBytes   = 4 << 20 // topics, payloads and properties together
)
