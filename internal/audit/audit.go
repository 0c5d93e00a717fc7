package audit

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

// Options narrow an audit down.
type Options struct {
	// Device audits one device; "": all.
	Device string
	// Progress, if set, is called now and then with the number of records
	// read so far.
	Progress func(records int64)
}

// progressEvery is how many records lie between two calls of Progress.
const progressEvery = 100_000

// Run reads all of a log and judges it. An error says that the log could not be
// read; what is broken stands in the report.
//
// The log may be appended to, and retention may delete, while it is read. So
// it looks in this order: (1) coverage of every device, (2) the extent of the
// shards, (3) the records from floor up to that extent, (4) coverage again,
// (5) the extent again. Coverage changes together with the records, therefore
//   - what (1) says is in must be among the records of (3), unless (4) says that
//     it has expired;
//   - each record of (3) must be known to (4);
//   - what (4) calls expired must lie below a floor of (5).
//
// Numbers that were settled in between are not judged in the direction that
// would need a record; the next audit does.
//
// Memory goes with the number of ranges that a device's numbers fall into, not
// with the number of records.
func Run(ctx context.Context, log commitlog.Reader, o Options) (*Report, error) {
	a := &audit{log: log, o: o, streams: map[stream.ID]*tally{}, report: &Report{}}
	before, err := a.coverage(ctx)
	if err != nil {
		return nil, err
	}
	if a.report.Snapshot, err = log.Extent(ctx); err != nil {
		return nil, fmt.Errorf("ask how far the log goes: %w", err)
	}
	if err := a.read(ctx); err != nil {
		return nil, err
	}
	after, err := a.coverage(ctx)
	if err != nil {
		return nil, err
	}
	end, err := log.Extent(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask how far the log goes: %w", err)
	}
	a.floors = make(map[int]int64, len(end))
	for _, e := range end {
		a.floors[e.Shard] = e.Floor
	}
	a.judge(before, after)
	return a.report, nil
}

type audit struct {
	log     commitlog.Reader
	o       Options
	streams map[stream.ID]*tally
	floors  map[int]int64
	report  *Report
}

// tally is what the records say of one stream.
type tally struct {
	shard    int
	records  uint64
	have     stream.RangeSet
	places   []place
	doubles  stream.RangeSet
	double   uint64
	disorder stream.RangeSet
	late     uint64
	wrong    stream.RangeSet
	strayed  uint64
}

// place says that the numbers of a run stand at ascending offsets from first on.
type place struct {
	stream.Range
	first int64
}

func (a *audit) coverage(ctx context.Context) (map[string]*commitlog.DeviceCoverage, error) {
	all := map[string]*commitlog.DeviceCoverage{}
	add := func(device string) error {
		c, err := a.log.Coverage(ctx, device)
		if err != nil {
			return fmt.Errorf("ask for the coverage of %s: %w", device, err)
		}
		if c != nil {
			all[device] = c
		}
		return nil
	}
	if a.o.Device != "" {
		return all, add(a.o.Device)
	}
	for device, err := range a.log.Devices(ctx) {
		if err != nil {
			return nil, fmt.Errorf("list devices: %w", err)
		}
		if err := add(device); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// read tallies the records of the snapshot.
func (a *audit) read(ctx context.Context) error {
	ends := map[int]int64{}
	last := map[int]int64{}
	var from commitlog.Cursor
	for _, e := range a.report.Snapshot {
		ends[e.Shard] = e.Next
		last[e.Shard] = -1
		from.Set(e.Shard, e.Floor)
	}
	var n int64
	for s, err := range a.log.Read(ctx, from, commitlog.Filter{Device: a.o.Device}) {
		if err != nil {
			return fmt.Errorf("read the log: %w", err)
		}
		end, ok := ends[s.Shard]
		if !ok {
			return fmt.Errorf("read the log: a record of shard %d, which does not exist", s.Shard)
		}
		if s.Offset <= last[s.Shard] {
			return fmt.Errorf("read the log: shard %d gave offset %d after %d", s.Shard, s.Offset, last[s.Shard])
		}
		last[s.Shard] = s.Offset
		if s.Offset >= end {
			continue // came after the snapshot
		}
		a.tally(&s)
		if n++; a.o.Progress != nil && n%progressEvery == 0 {
			a.o.Progress(n)
		}
	}
	if a.o.Progress != nil {
		a.o.Progress(n)
	}
	return nil
}

func (a *audit) tally(s *commitlog.Stored) {
	id := s.ID()
	t := a.streams[id]
	if t == nil {
		t = &tally{shard: s.Shard}
		a.streams[id] = t
	}
	t.records++
	one := stream.Range{First: s.Seq, Last: s.Seq}
	if commitlog.ShardOf(s.Device, len(a.report.Snapshot)) != s.Shard {
		t.strayed++
		t.wrong.Add(one)
	}
	if t.have.Contains(s.Seq) {
		t.double++
		t.doubles.Add(one)
		return
	}
	if s.Seq < t.have.Max() && (s.Flags&stream.Backfill == 0 || s.Flags&stream.FIFO != 0) {
		t.late++
		t.disorder.Add(one)
	}
	t.have.Add(one)
	if n := len(t.places); n > 0 && t.places[n-1].Last+1 == s.Seq {
		t.places[n-1].Last = s.Seq
	} else {
		t.places = append(t.places, place{one, s.Offset})
	}
}

// above gives those of numbers whose records stand at or above a floor. A run
// that the floor cuts, because it moved meanwhile, counts as below.
func (t *tally) above(numbers *stream.RangeSet, floor int64) (all stream.RangeSet) {
	for _, p := range t.places {
		if p.first < floor {
			continue
		}
		for r := range numbers.Within(p.Range) {
			all.Add(r)
		}
	}
	return all
}

func (a *audit) judge(before, after map[string]*commitlog.DeviceCoverage) {
	byDevice := map[string][]stream.ID{}
	seen := map[stream.ID]bool{}
	add := func(id stream.ID) {
		if !seen[id] {
			seen[id] = true
			byDevice[id.Device] = append(byDevice[id.Device], id)
		}
	}
	for id := range a.streams {
		add(id)
	}
	for _, all := range []map[string]*commitlog.DeviceCoverage{before, after} {
		for device, c := range all {
			if _, ok := byDevice[device]; !ok {
				byDevice[device] = nil // one that only was heard of counts too
			}
			for _, e := range c.Epochs {
				for _, lane := range stream.Lanes {
					if !e.Lanes[lane].IsZero() {
						add(stream.ID{Device: device, Epoch: e.ID, Lane: lane})
					}
				}
			}
		}
	}
	for device, ids := range byDevice {
		d := DeviceReport{Device: device}
		slices.SortFunc(ids, func(x, y stream.ID) int {
			return cmp.Or(slices.Compare(x.Epoch[:], y.Epoch[:]), cmp.Compare(x.Lane, y.Lane))
		})
		a.device(&d.Counts, ids, before[device], after[device])
		a.report.Total.add(&d.Counts)
		a.report.Devices = append(a.report.Devices, d)
	}
	slices.SortFunc(a.report.Devices, func(x, y DeviceReport) int { return cmp.Compare(x.Device, y.Device) })
	slices.SortStableFunc(a.report.Findings, func(x, y Finding) int { return cmp.Compare(x.Device, y.Device) })
	a.report.OK = a.report.Total.OK()
}
