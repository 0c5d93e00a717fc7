package linkbench

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"

	"github.com/packetboat/packetboat/pkg/stream"
)

// ErrDiffers says that what was decoded is not what was encoded.
var ErrDiffers = errors.New("decoded batch differs")

// same gives an error unless got is want as device's.
func same(want, got *stream.Batch) error {
	id := want.ID
	id.Device = device
	switch {
	case got.ID != id || got.First != want.First || got.Head != want.Head || got.Floor != want.Floor || got.Oldest != want.Oldest || got.Flags != want.Flags:
		return fmt.Errorf("%w: envelope of the batch at %d: got %v first %d head %d floor %d oldest %d flags %d", ErrDiffers, want.First, got.ID, got.First, got.Head, got.Floor, got.Oldest, got.Flags)
	case len(got.Losses) != 0:
		return fmt.Errorf("%w: the batch at %d declares losses", ErrDiffers, want.First)
	case len(got.Records) != len(want.Records):
		return fmt.Errorf("%w: the batch at %d has %d records of %d", ErrDiffers, want.First, len(got.Records), len(want.Records))
	}
	for i := range want.Records {
		if what := difference(&want.Records[i], &got.Records[i]); what != "" {
			return fmt.Errorf("%w: %s of record %d (%s)", ErrDiffers, what, want.Records[i].Seq, want.Records[i].Topic)
		}
	}
	return nil
}

// difference names what differs, "" if nothing does.
func difference(want, got *stream.Record) string {
	w, g := &want.Message, &got.Message
	switch {
	case want.Seq != got.Seq:
		return "number"
	case w.Topic != g.Topic:
		return "topic"
	case !bytes.Equal(w.Payload, g.Payload):
		return "payload"
	case w.Time != g.Time || w.Quality != g.Quality || w.Boot != g.Boot || w.Mono != g.Mono:
		return "time"
	case w.QoS != g.QoS || w.Retain != g.Retain || w.Expiry != g.Expiry:
		return "flags"
	case !(w.Properties.IsZero() && g.Properties.IsZero()) && !reflect.DeepEqual(w.Properties, g.Properties):
		return "properties"
	}
	return ""
}
