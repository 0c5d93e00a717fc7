package buffer

import "time"

// Stats is a picture of the buffer. Counters live as long as the journal, but
// for those that say otherwise.
type Stats struct {
	// Accepted messages were given a number; Settled are in a log; Lost counts
	// what was given up, by stream.Reason (index 0 is unused). Queued wait,
	// InFlight were handed out by Next. Accepted is the sum of the others.
	Accepted, Settled, Queued, InFlight uint64
	Lost                                [10]uint64
	// BytesAccepted is the encoded size of what was accepted.
	BytesAccepted uint64
	// Lanes holds each lane's backlog, in flight included, by stream.Lane.
	Lanes [4]LaneStats
	// Epochs is how many epochs are held, the current one included.
	Epochs int
	// Segments counts journal files, Spares those that are ready to be written;
	// DiskBytes is the size of all, DiskLimit what it may be.
	Segments, Spares     int
	DiskBytes, DiskLimit int64
	// Since Open: group commits, fdatasync calls, bytes written to segments
	// (padding, state and moved records included), bytes written to prepare
	// spares, topic and payload bytes appended, records moved to free a segment.
	Commits, Syncs, BytesWritten, BytesPrepared, BytesAppended, Moved uint64
	// Full: Append refuses with ErrFull. DiskError is the last refusal of the
	// disk, empty once a commit succeeded again; DiskErrors counts since Open.
	Full       bool
	DiskError  string
	DiskErrors uint64
	// Entries of the map, and what they count of StateLimit. Since Open:
	// StateDropped entries could not be read any more, StateMoved ones were
	// written once more to free a segment.
	Entries                int
	StateBytes, StateLimit int64
	StateDropped           uint64
	StateMoved             uint64
	// Expired messages were given up since Open because their time had passed.
	Expired uint64
	// Recovery says what Open found.
	Recovery Recovery
	// ConservationOK: Accepted = Settled + Queued + InFlight + Lost, with what
	// waits recounted from the ranges.
	ConservationOK bool
}

// LaneStats is one lane's share of Stats.
type LaneStats struct {
	Messages, Bytes int64
	// Oldest bounds the time stamp of the oldest message from below; zero: none.
	Oldest time.Time
}

// Recovery is what Open found.
type Recovery struct {
	// Fresh: there was no journal.
	Fresh bool
	// Frames were read, Damaged ones skipped; Unreadable numbers became losses.
	// Torn commits of several frames, never acknowledged, ended a segment early.
	Frames, Damaged, Torn int
	Unreadable            uint64
	// Snapshots that did not validate and were passed by.
	BadSnapshots int
	Took         time.Duration
}
