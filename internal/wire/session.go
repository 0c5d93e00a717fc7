package wire

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/packetboat/packetboat/pkg/codec"
	"github.com/packetboat/packetboat/pkg/stream"
)

// session is what both ends of a connection know of the batches that went over
// it, so that the next can leave it out. Encoder and decoder keep one each and
// change it in the same way; it is a value, so that a step can be undone.
type session struct {
	begun bool
	lane  stream.Lane // of the last batch
	codec codec.ID    // of the last body
	epoch stream.Epoch
	lanes [len(stream.Lanes) + 1]laneSession
}

// laneSession is a session's part for one lane.
type laneSession struct {
	epoch stream.Epoch // of the lane's last batch; zero: none yet
	next  uint64       // one more than the last record's number
	flags stream.Flags
	// marks are the last batches with records, oldest overwritten first: the
	// floor usually is where one of them begins.
	marks [markCount]mark
	at    int
}

const markCount = 32

// mark is where a batch begins and the time of its first record.
type mark struct {
	first uint64
	time  int64
}

// resumed is what is known at the first batch of a connection that goes on with
// a codec's session.
func resumed() session { return session{begun: true, codec: codec.Learning} }

// epochOf is the epoch that is foreseen for lane.
func (s *session) epochOf(lane stream.Lane) stream.Epoch {
	if l := &s.lanes[lane]; !l.epoch.IsZero() {
		return l.epoch
	}
	return s.epoch
}

// firstOf is the first number that is foreseen for a batch of epoch in lane.
func (s *session) firstOf(lane stream.Lane, epoch stream.Epoch) uint64 {
	if l := &s.lanes[lane]; l.epoch == epoch && l.next > 0 {
		return l.next
	}
	return 1
}

// oldestOf is the time that is foreseen for the oldest unsettled record of b,
// as far as b is known: that of the record at the floor, if a batch began there.
func (s *session) oldestOf(b *stream.Batch) int64 {
	if len(b.Records) > 0 && b.First == b.Floor {
		return b.Records[0].Time
	}
	if l := &s.lanes[b.ID.Lane]; l.epoch == b.ID.Epoch && b.Floor > 0 {
		for i := 1; i <= markCount; i++ { // the newest first
			if m := &l.marks[(l.at-i+markCount)%markCount]; m.first == b.Floor {
				return m.time
			}
		}
	}
	return 0
}

// advance takes note of b, which went over the connection.
func (s *session) advance(b *stream.Batch, c codec.ID) {
	s.begun, s.lane, s.epoch = true, b.ID.Lane, b.ID.Epoch
	l := &s.lanes[b.ID.Lane]
	if l.epoch != b.ID.Epoch {
		*l = laneSession{epoch: b.ID.Epoch}
	}
	l.flags = b.Flags
	if len(b.Records) == 0 {
		return
	}
	s.codec = c
	l.next = b.Last() + 1
	l.marks[l.at] = mark{b.First, b.Records[0].Time}
	l.at = (l.at + 1) % markCount
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seed begins the check of a learned body: it makes sure that both ends mean
// the same records, not only the same bytes.
func seed(id stream.ID, first uint64) uint32 {
	var b [25]byte
	copy(b[:16], id.Epoch[:])
	b[16] = byte(id.Lane)
	binary.LittleEndian.PutUint64(b[17:], first)
	return crc32.Checksum(b[:], castagnoli)
}

// seedRows begins the check of a body of rows, which does not say its count.
func seedRows(id stream.ID, first uint64, count int) uint32 {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(count))
	return crc32.Update(seed(id, first), castagnoli, b[:])
}

// checkBatch says what is wrong with the numbers of b, which has count records
// even if they are not there yet; "" if nothing is.
func checkBatch(b *stream.Batch, count int) string {
	const top = ^uint64(0)
	n := uint64(count)
	last := b.First + n - 1
	switch {
	case !b.ID.Lane.Valid():
		return "no lane"
	case b.ID.Epoch.IsZero():
		return "no epoch"
	case count > MaxRecords || len(b.Losses) > MaxLosses:
		return "too many records or losses"
	case b.Head == top || b.First == top || b.Floor > b.Head+1:
		return "head or floor out of range"
	case count > 0 && (b.First == 0 || b.First > top-n || last > b.Head):
		return "records outside the stream"
	}
	end := uint64(0) // of the losses so far
	for i := range b.Losses {
		l := &b.Losses[i]
		switch {
		case l.First <= end || l.Last < l.First || l.Last == top:
			return "losses that do not ascend"
		case count > 0 && l.First <= last && l.Last >= b.First:
			return "a loss among the records"
		case l.Last > b.Head:
			return "a loss above the head"
		}
		end = l.Last
	}
	return ""
}
