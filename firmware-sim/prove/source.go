package prove

import (
	"iter"

	"github.com/packetboat/packetboat/internal/rig/receipts"
	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

// FromLog makes records of what a reader of a commit log gives.
func FromLog(stored iter.Seq2[commitlog.Stored, error]) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for s, err := range stored {
			r := Record{ID: s.ID(), Seq: s.Seq, Topic: s.Topic, Hash: receipts.HashOf(s.Payload), Backfill: s.Flags&stream.Backfill != 0}
			if !yield(r, err) {
				return
			}
		}
	}
}

// Each yields the given records.
func Each(records []Record) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for _, r := range records {
			if !yield(r, nil) {
				return
			}
		}
	}
}
