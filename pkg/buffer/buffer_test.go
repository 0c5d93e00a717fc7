package buffer

import (
	"bytes"
	"errors"
	"os"
	"reflect"
	"testing"

	"go.uber.org/goleak"

	"github.com/packetboat/packetboat/pkg/stream"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		childMain(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// What is appended comes out of Next, also after a reopen, with every field.
func TestAppendNextReopen(t *testing.T) {
	dir := t.TempDir()
	full := stream.Message{Topic: "a/b", Payload: []byte{0, 1, 255}, Time: -5, Quality: stream.TimeUnknown, Boot: stream.Epoch{9}, Mono: 77, QoS: 2, Retain: true,
		Properties: &stream.Properties{ContentType: "x/y", ResponseTopic: "r", CorrelationData: []byte{1}, User: []stream.Property{{Key: "k", Value: "v"}, {}}, PayloadUTF8: true}}
	empty := stream.Message{Quality: stream.TimeLocal}
	b, stop := started(t, Options{Dir: dir})
	at := put(t, b, stream.Normal, full, empty, message(1))
	if at.Seq != 1 || at.ID.Lane != stream.Normal || at.ID.Epoch.IsZero() {
		t.Fatalf("position %+v", at)
	}
	if at2 := put(t, b, stream.Normal, message(2)); at2.Seq != 4 || at2.ID != at.ID {
		t.Fatalf("position %+v", at2)
	}
	check := func(b *Buffer) stream.Batch {
		t.Helper()
		batch, ok := next(t, b, stream.Normal, Limit{})
		if !ok || batch.ID != at.ID || batch.First != 1 || len(batch.Records) != 4 || batch.Head != 4 || batch.Floor != 1 || batch.Oldest != -5 {
			t.Fatalf("batch %+v %v", batch, ok)
		}
		for i, want := range []stream.Message{full, empty, message(1), message(2)} {
			if got := batch.Records[i]; got.Seq != uint64(i+1) || !reflect.DeepEqual(got.Message, want) {
				t.Fatalf("record %d: %+v, want %+v", i, got, want)
			}
		}
		if w := b.Unsent(stream.Normal); w.Messages != 0 {
			t.Fatalf("unsent %+v", w)
		}
		if _, ok := next(t, b, stream.Normal, Limit{}); ok {
			t.Fatal("handed out twice")
		}
		return batch
	}
	check(b)
	b.RequeueAll()
	check(b)
	stop()
	b, _ = started(t, Options{Dir: dir})
	if held := b.Held(); len(held) != 4 || held[0].Ranges.String() != "1-4" || held[0].Current || !held[1].Current {
		t.Fatalf("held %+v", held)
	}
	batch := check(b)
	if err := b.Settle(batch.ID, settled(&batch)); err != nil {
		t.Fatal(err)
	}
	if s := b.Stats(); s.Settled != 4 || s.Accepted != 4 || !s.ConservationOK || s.Epochs != 1 || s.InFlight != 0 {
		t.Fatalf("stats %+v", s)
	}
	if at := put(t, b, stream.Normal, message(3)); at.Seq != 1 || at.ID.Epoch == batch.ID.Epoch {
		t.Fatalf("epoch goes on after a reopen: %+v", at)
	}
}

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	started(t, Options{Dir: dir})
	if _, err := Open(Options{Dir: dir}); !errors.Is(err, ErrLocked) {
		t.Fatal(err)
	}
}

func TestLargeMessages(t *testing.T) {
	b, _ := started(t, Options{Dir: t.TempDir()})
	big := stream.Message{Topic: "t", Payload: bytes.Repeat([]byte("x"), MaxMessageBytes-100), Quality: stream.TimeLocal, QoS: 1}
	var msgs []stream.Message
	for range 12 {
		msgs = append(msgs, big)
	}
	if at := put(t, b, stream.Bulk, msgs...); at.Seq != 1 {
		t.Fatalf("%+v", at)
	}
	n := 0
	for {
		batch, ok := next(t, b, stream.Bulk, Limit{Bytes: 600 << 10})
		if !ok {
			break
		}
		if n += len(batch.Records); len(batch.Records) > 2 {
			t.Fatalf("%d records in a batch of 600 KiB", len(batch.Records))
		}
	}
	if n != 12 {
		t.Fatalf("%d of 12", n)
	}
	big.Payload = make([]byte, MaxMessageBytes)
	if err := b.Append(stream.Bulk, []stream.Message{big}, nil); !errors.Is(err, ErrTooLarge) {
		t.Fatal(err)
	}
}
