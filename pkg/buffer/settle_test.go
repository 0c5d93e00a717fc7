package buffer

import (
	"testing"

	"github.com/packetboat/packetboat/pkg/stream"
)

// Answers that would make more ranges than a snapshot can hold are not taken;
// the numbers come again, and everything ends settled.
func TestRangesAreBounded(t *testing.T) {
	b := openMem(t, newMemDir(), testOptions())
	var msgs []stream.Message
	for i := range 4000 {
		msgs = append(msgs, stream.Message{Topic: "t", Payload: []byte{byte(i)}, Quality: stream.TimeLocal})
	}
	if err := b.Append(stream.Normal, msgs, nil); err != nil {
		t.Fatal(err)
	}
	if err := b.commit(true); err != nil {
		t.Fatal(err)
	}
	answer := func(only func(uint64) bool) {
		for {
			batch, ok := next(t, b, stream.Normal, Limit{Messages: 1})
			if !ok || batch.First == 4000 {
				break
			}
			if only(batch.First) {
				if err := b.Settle(batch.ID, settled(&batch)); err != nil {
					t.Fatal(err)
				}
			}
			if n := b.state.fragments(); n > b.rangesMax {
				t.Fatalf("%d ranges", n)
			}
			if w := b.Unsent(stream.Normal); w.Messages == 0 {
				break
			}
		}
		b.RequeueAll()
	}
	even := 0
	answer(func(n uint64) bool { // one that is not taken comes at once again: answer each once
		if n%2 == 0 && int(n) > even {
			even = int(n)
			return true
		}
		return false
	})
	if n := b.state.fragments(); n != b.rangesMax {
		t.Fatalf("%d ranges, the limit is %d", n, b.rangesMax)
	}
	for b.Unsent(stream.Normal).Messages > 0 {
		batch, _ := next(t, b, stream.Normal, Limit{})
		if err := b.Settle(batch.ID, settled(&batch)); err != nil {
			t.Fatal(err)
		}
	}
	if s := b.Stats(); s.Settled != 4000 || !s.ConservationOK {
		t.Fatalf("%+v", s)
	}
}

// The ledger adopts the log's answer: what the log has is not lost, what it
// calls lost is.
func TestLedgerAdoptsTheAnswer(t *testing.T) {
	b := openMem(t, newMemDir(), testOptions())
	at := appendCommit(t, b, stream.Normal, 1)[0]
	for i := range 9 {
		appendCommit(t, b, stream.Normal, i+2)
	}
	b.mu.Lock()
	b.state.lose(at.ID.Epoch, stream.Normal, stream.Loss{Range: stream.Range{First: 1, Last: 4}, Reason: stream.Evicted, From: 1, To: 2})
	b.mu.Unlock()
	a := Answer{By: testLog, Settled: stream.NewRangeSet(stream.Range{First: 2, Last: 6}), Lost: stream.NewRangeSet(stream.Range{First: 3, Last: 5})}
	for range 2 { // twice is as once
		if err := b.Settle(at.ID, a); err != nil {
			t.Fatal(err)
		}
		s := b.Stats()
		if s.Settled != 2 || s.Lost[stream.Evicted] != 3 || s.Lost[stream.RefusedByLog] != 1 || s.Queued != 4 || !s.ConservationOK {
			t.Fatalf("%+v", s)
		}
		want := map[string]bool{"3-4 evicted true": true, "5 refused_by_log true": true, "1 evicted false": true}
		for _, l := range b.Losses() {
			text := l.Range.String() + " " + l.Reason.String() + map[bool]string{true: " true", false: " false"}[l.Declared]
			if !want[text] {
				t.Fatalf("ledger: %s", text)
			}
		}
		if held := b.Held(); held[1].Ranges.String() != "1,7-10" || held[1].Answered != testLog {
			t.Fatalf("%+v", held)
		}
	}
	batch, ok := next(t, b, stream.Normal, Limit{})
	if !ok || batch.First != 7 || len(batch.Losses) != 1 || batch.Losses[0].Range != (stream.Range{First: 1, Last: 1}) || batch.Floor != 1 {
		t.Fatalf("%+v", batch)
	}
	if err := b.GiveUp(at.ID.Epoch, stream.Stale); err != nil {
		t.Fatal(err)
	}
	if s := b.Stats(); s.Lost[stream.Stale] != 4 || s.Epochs != 1 || !s.ConservationOK || b.Held()[0].Epoch == at.ID.Epoch {
		t.Fatalf("%+v", s)
	}
}
