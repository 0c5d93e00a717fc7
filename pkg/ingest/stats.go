package ingest

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

// Stats says what an Ingest has done since it was made and what it holds now.
// Maps have a key for every reason of their closed set.
type Stats struct {
	// Gauges.
	Shards       int // of the log
	Served       int // of them, owned and served now
	Sessions     int64
	Devices      int   // remembered, connected or not
	WindowBytes  int64 // granted to sessions
	PendingBytes int64 // memory of batches that are not answered, as estimated

	Connects  int64 // sessions opened
	Takeovers int64 // of them, in place of one that was open
	Twins     int64 // of them, that show two live devices with one id
	Busy      map[string]int64
	Revoked   map[string]int64

	Batches  int64 // answered Settled
	Refused  map[string]int64
	Bad      int64
	Overlaps int64 // batches that waited for one with the same numbers

	Records    int64 // appended
	Bytes      int64 // of topics, payloads and properties appended
	Losses     map[string]int64
	Duplicates int64 // numbers that were settled already and not appended again

	Appends       int64         // to the log, whatever their outcome
	AppendTime    time.Duration // spent in them
	Rejected      int64         // appends rejected
	NoSpace       int64         // of a log that is full
	Fenced        int64
	Unknown       int64 // of unknown outcome
	Recovered     int64 // batches of unknown outcome that coverage showed to be in
	Acquired      int64 // shards, times
	AcquireErrors int64

	Codec CodecStats

	StaleStreams int64 // held streams that this log has answered for and forgotten
	WentBack     int64 // times a device showed that the log went back unnoticed
	Incarnations int64 // taken because of that
}

// counters are behind Stats.
type counters struct {
	sessions, connects, takeovers atomic.Int64
	twins                         atomic.Int64
	busy                          [busyReasons]atomic.Int64
	revoked                       [revokeReasons]atomic.Int64
	refused                       [refuseReasons]atomic.Int64
	batches, bad, overlaps        atomic.Int64
	records, bytes, duplicates    atomic.Int64
	losses                        [len(stream.Reasons) + 1]atomic.Int64
	appends, appendNanos          atomic.Int64
	rejected, noSpace, fenced     atomic.Int64
	unknown, recovered            atomic.Int64
	acquired, acquireErrors       atomic.Int64
	stale, wentBack, incarnations atomic.Int64
}

// count notes an entry that is in the log.
func (c *counters) count(e *commitlog.Entry) {
	if len(e.Records) > 0 {
		c.records.Add(int64(len(e.Records)))
		n := 0
		for i := range e.Records {
			n += contentOf(&e.Records[i].Message)
		}
		c.bytes.Add(int64(n))
	}
	for i := range e.Losses {
		addUpTo(&c.losses[e.Losses[i].Reason], e.Losses[i].Count())
	}
}

// addUpTo adds to a counter, up to the highest value: a loss is as long as a
// device says.
func addUpTo(c *atomic.Int64, n uint64) {
	for {
		was := c.Load()
		if c.CompareAndSwap(was, was+int64(min(n, uint64(math.MaxInt64-was)))) {
			return
		}
	}
}

// Stats may be called from any goroutine. The figures are read one after the
// other, so they may differ by what happened meanwhile.
func (in *Ingest) Stats() Stats {
	c := &in.stats
	s := Stats{
		Shards: len(in.shards), Sessions: c.sessions.Load(),
		Connects: c.connects.Load(), Takeovers: c.takeovers.Load(), Twins: c.twins.Load(),
		Busy: load(c.busy[:], busyNames[:]), Revoked: load(c.revoked[:], revokeNames[:]), Refused: load(c.refused[:], refuseNames[:]),
		Batches: c.batches.Load(), Bad: c.bad.Load(), Overlaps: c.overlaps.Load(),
		Records: c.records.Load(), Bytes: c.bytes.Load(), Duplicates: c.duplicates.Load(),
		Losses:  map[string]int64{},
		Appends: c.appends.Load(), AppendTime: time.Duration(c.appendNanos.Load()),
		Rejected: c.rejected.Load(), NoSpace: c.noSpace.Load(), Fenced: c.fenced.Load(),
		Unknown: c.unknown.Load(), Recovered: c.recovered.Load(),
		Acquired: c.acquired.Load(), AcquireErrors: c.acquireErrors.Load(),
		StaleStreams: c.stale.Load(), WentBack: c.wentBack.Load(), Incarnations: c.incarnations.Load(),
	}
	for _, r := range stream.Reasons {
		s.Losses[r.String()] = c.losses[r].Load()
	}
	for _, sh := range in.shards {
		if sh.ownership() != nil {
			s.Served++
		}
	}
	s.Devices = in.devices.len()
	s.WindowBytes, s.PendingBytes = in.budget.get()
	s.Codec = in.keeper.get()
	return s
}

func load(from []atomic.Int64, names []string) map[string]int64 {
	m := make(map[string]int64, len(names))
	for i, n := range names {
		m[n] = from[i].Load()
	}
	return m
}
