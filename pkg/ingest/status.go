package ingest

import (
	"cmp"
	"slices"
	"time"

	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

// DeviceStatus is what the hub knows of one device from its own memory; what the
// log has of it is in the log's coverage.
type DeviceStatus struct {
	Device    string
	Shard     int
	Connected bool
	// Since is when it connected, or when its last connection ended.
	Since time.Time
	// LastBatch is when a batch of it was last settled; zero: not since it is
	// remembered.
	LastBatch time.Time
	// WindowMessages is the window of its session, InFlight how much of it is
	// in use.
	WindowMessages, InFlight int
	// PendingBytes is the memory of its batches on their way into the log.
	PendingBytes int64
	// Learns: the connected edge speaks the learning codec. CodecGranted is how
	// many bytes its session may keep, 0 with self-contained batches; CodecBytes
	// what it does.
	Learns                   bool
	CodecGranted, CodecBytes int64
	// Batches settled, Records appended and Duplicates trimmed since it is
	// remembered.
	Batches, Records, Duplicates int64
	// CompleteTo is the event time, µs since 1970 UTC, up to which everything
	// the device accepted is settled as far as it has told: the time of the
	// oldest record that is not, else of the newest record. 0: not known.
	CompleteTo int64
	// Out counts the numbers that are out there still, Absent those of them
	// that the connected edge does not hold.
	Out, Absent uint64
	// Origin is where it is connected from, or last was.
	Origin string
	// Twins tells of two live devices with its id.
	Twins Twins
	// Streams, while connected, are the epoch in use and others that are not
	// complete, newest epoch first, at most MaxStatusStreams.
	Streams []StreamStatus
}

// StreamStatus is one stream of a connected device.
type StreamStatus struct {
	Epoch   stream.Epoch
	Lane    stream.Lane
	Current bool
	// Head is the highest number told; of the numbers up to it In are in the
	// log, Lost declared lost and Out out there. Absent of those the edge does
	// not hold.
	Head, In, Lost, Out, Absent uint64
	// Oldest is the event time of the oldest record that is not settled, as the
	// edge last said, Newest of the newest in the log. µs, 0: none.
	Oldest, Newest int64
	FIFO           bool
}

// MaxStatusStreams bounds DeviceStatus.Streams.
const MaxStatusStreams = 64

// Devices lists the devices that are connected, and those seen last of the
// others, by name. It may be called from any goroutine; it is not meant for
// every second with ten thousand devices.
func (in *Ingest) Devices() []DeviceStatus {
	devices := in.devices.all(nil)
	list := make([]DeviceStatus, 0, len(devices))
	for _, d := range devices {
		list = append(list, d.status())
	}
	slices.SortFunc(list, func(a, b DeviceStatus) int { return cmp.Compare(a.Device, b.Device) })
	return list
}

func (d *device) status() DeviceStatus {
	d.mu.Lock()
	st := DeviceStatus{
		Device: d.name, Shard: d.shard.n, Since: d.seen.since, LastBatch: d.seen.lastBatch, PendingBytes: d.bytes,
		Batches: d.seen.batches, Records: d.seen.records, Duplicates: d.seen.duplicates,
		Origin: d.seen.origin, Twins: d.seen.twins,
	}
	s := d.session
	if s == nil {
		d.mu.Unlock()
		return st
	}
	st.Connected, st.WindowMessages, st.InFlight = true, s.window, s.inflight
	st.Learns, st.CodecGranted, st.CodecBytes = s.recv.learns, s.recv.granted.Load(), s.recv.bytes.Load()
	cov := d.cov.Clone() // what it points to does not change
	d.mu.Unlock()
	var newest, oldest int64
	for i := len(cov.Epochs) - 1; i >= 0; i-- {
		e := cov.Epochs[i]
		for _, l := range stream.Lanes {
			lane := &e.Lanes[l]
			if lane.IsZero() {
				continue
			}
			ss := streamStatus(e, l, cov.Current)
			ss.Absent = min(s.absent[streamKey{e.ID, l}], ss.Out)
			newest = max(newest, ss.Newest)
			if ss.Out > ss.Absent && ss.Oldest != 0 && (oldest == 0 || ss.Oldest < oldest) {
				oldest = ss.Oldest
			}
			st.Out += ss.Out
			st.Absent += ss.Absent
			if (ss.Current || ss.Out > 0) && len(st.Streams) < MaxStatusStreams {
				st.Streams = append(st.Streams, ss)
			}
		}
	}
	st.CompleteTo = newest
	if st.Out > st.Absent {
		st.CompleteTo = oldest
	}
	return st
}

func streamStatus(e *commitlog.EpochState, l stream.Lane, current stream.Epoch) StreamStatus {
	lane := &e.Lanes[l]
	ss := StreamStatus{
		Epoch: e.ID, Lane: l, Current: e.ID == current, Head: lane.Head,
		In: lane.In.Count(), Lost: lane.Lost.Count(), Oldest: lane.Oldest, Newest: lane.Newest, FIFO: lane.FIFO,
	}
	ss.Out = ss.Head - ss.In - ss.Lost
	return ss
}
