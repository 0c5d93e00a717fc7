package prove

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/packetboat/packetboat/internal/rig/receipts"
	"github.com/packetboat/packetboat/pkg/stream"
)

// history is what sensors sent, what they were told, and what the log holds.
type history struct {
	receipts []receipts.Receipt
	log      []Record
	at       []int // by record: the index of the receipt it comes from
}

var device = stream.ID{Device: "truck", Epoch: stream.Epoch{1}, Lane: stream.Normal}

func (h *history) verify(t interface {
	Fatal(...any)
	Helper()
}, log []Record) *Report {
	t.Helper()
	r, err := Run(h.files(t), Each(log), Options{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// files writes the receipts and reads them back, as the programs do.
func (h *history) files(t interface{ Fatal(...any) }) []Receipts {
	dir, err := os.MkdirTemp("", "prove")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "receipts")
	w, err := receipts.Append(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range h.receipts {
		if err := w.Add(&h.receipts[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return []Receipts{{receipts.NewReader(bytes.NewReader(b), "receipts"), "receipts"}}
}

// random makes a history in which no promise is broken: sensors that send over
// several connections, an edge that takes a prefix of what each connection
// carried, acknowledges part of it, and begins an epoch whenever it restarts.
// Payloads are drawn from so many values; 0: all differ.
func random(t *rapid.T, values int) *history {
	h := &history{}
	seq := map[stream.ID]uint64{}
	id := device
	for c := range rapid.IntRange(1, 3).Draw(t, "sensors") {
		total := rapid.IntRange(1, 30).Draw(t, "messages")
		base := len(h.receipts)
		for n := range total {
			payload := fmt.Sprint(c, n)
			if values > 0 {
				payload = fmt.Sprint(rapid.IntRange(1, values).Draw(t, "value"))
			}
			h.receipts = append(h.receipts, receipts.Receipt{
				Client: fmt.Sprint("c", c), Topic: fmt.Sprint("t", c), N: uint64(n + 1), Hash: receipts.HashOf([]byte(payload)), QoS: 1, Sent: []uint32{},
			})
		}
		acked := 0
		for conn := uint32(1); acked < total && conn < 8; conn++ {
			sent := rapid.IntRange(0, total-acked).Draw(t, "sent")
			taken := rapid.IntRange(0, sent).Draw(t, "taken")
			told := rapid.IntRange(0, taken).Draw(t, "acknowledged")
			for i := range sent {
				at := base + acked + i
				r := &h.receipts[at]
				r.Sent, r.Tries, r.Acked = append(r.Sent, conn), r.Tries+1, i < told
				if i < taken {
					seq[id]++
					h.log, h.at = append(h.log, Record{ID: id, Seq: seq[id], Topic: r.Topic, Hash: r.Hash}), append(h.at, at)
				}
			}
			acked += told
			if rapid.Bool().Draw(t, "restart") {
				id.Epoch[1]++
			}
		}
	}
	return h
}

// lost is how many acknowledged messages have no record left in the log, when
// the records at the given places were removed.
func (h *history) lost(removed ...int) (n int64) {
	there := map[int]bool{}
	for i, at := range h.at {
		there[at] = there[at] || !slices.Contains(removed, i)
	}
	for i := range h.receipts {
		if h.receipts[i].Acked && !there[i] {
			n++
		}
	}
	return n
}

func TestCleanHistoriesPass(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := random(t, rapid.SampledFrom([]int{0, 0, 1, 2, 5}).Draw(t, "values"))
		r := h.verify(t, h.log)
		if !r.OK() {
			t.Fatalf("%+v", r)
		}
		if r.Records != int64(len(h.log)) || r.Messages != int64(len(h.receipts)) {
			t.Fatalf("counts %+v", r)
		}
	})
}

func TestSyntheticPayloadsLeaveNothingOpen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		if h := random(t, 0); h.verify(t, h.log).Undecidable != 0 {
			t.Fatalf("%+v", h.verify(t, h.log))
		}
	})
}

// Removing records: what is missing is told exactly where payloads differ, and
// bounded from both sides where they do not.
func TestRemovedRecords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SampledFrom([]int{0, 1, 2, 5}).Draw(t, "values")
		h := random(t, values)
		if len(h.log) == 0 {
			return
		}
		var removed []int
		for range rapid.IntRange(1, 3).Draw(t, "how many") {
			removed = append(removed, rapid.IntRange(0, len(h.log)-1).Draw(t, "which"))
		}
		var log []Record
		for i, r := range h.log {
			if !slices.Contains(removed, i) {
				log = append(log, r)
			}
		}
		lost, r := h.lost(removed...), h.verify(t, log)
		if r.Missing > lost || r.Missing+r.Undecidable < lost || values == 0 && (r.Missing != lost || r.Undecidable != 0) {
			t.Fatalf("%d messages are lost, the report says %+v", lost, r)
		}
		if r.Double+r.Unexpected+r.OutOfOrder != 0 {
			t.Fatalf("finds more than what was done: %+v", r)
		}
	})
}

// A record doubled, changed, or swapped with the next one of its topic turns
// red, whatever the history, where payloads differ.
func TestTamperedRecords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := random(t, 0)
		if len(h.log) == 0 {
			return
		}
		i := rapid.IntRange(0, len(h.log)-1).Draw(t, "which")
		top := uint64(1000)
		again := h.log[i]
		again.Seq = top // another number: not one record twice, but two
		for name, log := range map[string][]Record{
			"same record twice": append(slices.Clone(h.log), h.log[i]),
			"foreign record":    append(slices.Clone(h.log), Record{ID: again.ID, Seq: top, Topic: again.Topic, Hash: 7}),
			"changed":           changed(h.log, i),
		} {
			if r := h.verify(t, log); r.OK() || len(r.Examples) == 0 {
				t.Fatalf("%s: %+v", name, r)
			}
		}
		if at := h.receipts[h.at[i]]; len(at.Sent) == copies(h.at, h.at[i]) { // one more than was sent
			if r := h.verify(t, append(slices.Clone(h.log), again)); r.Double != 1 {
				t.Fatalf("doubled: %+v", r)
			}
		}
		if log := swapped(h, i); log != nil {
			if r := h.verify(t, log); r.OutOfOrder == 0 {
				t.Fatalf("swapped: %+v", r)
			}
		}
	})
}

func copies(at []int, receipt int) (n int) {
	for _, a := range at {
		if a == receipt {
			n++
		}
	}
	return n
}

func changed(log []Record, i int) []Record {
	log = slices.Clone(log)
	log[i].Hash++
	return log
}

// swapped exchanges the content of record i and the next one of its stream and
// topic, if both were sent once: then only one order is right.
func swapped(h *history, i int) []Record {
	for j := i + 1; j < len(h.log); j++ {
		a, b := h.log[i], h.log[j]
		if a.Topic != b.Topic {
			continue
		}
		if a.ID != b.ID || h.receipts[h.at[i]].Tries != 1 || h.receipts[h.at[j]].Tries != 1 {
			return nil
		}
		log := slices.Clone(h.log)
		log[i].Hash, log[j].Hash = b.Hash, a.Hash
		return log
	}
	return nil
}

func one(n uint64, payload string, acked bool, sent ...uint32) receipts.Receipt {
	return receipts.Receipt{Client: "c", Topic: "t", N: n, Hash: receipts.HashOf([]byte(payload)), QoS: 1, Tries: len(sent), Acked: acked, Sent: sent}
}

func logOf(payloads ...string) (log []Record) {
	for i, p := range payloads {
		log = append(log, Record{ID: device, Seq: uint64(i + 1), Topic: "t", Hash: receipts.HashOf([]byte(p))})
	}
	return log
}

func TestCases(t *testing.T) {
	for name, c := range map[string]struct {
		receipts []receipts.Receipt
		log      []Record
		want     Report
	}{
		"resent window, both copies in": {
			[]receipts.Receipt{one(1, "a", true, 1, 2), one(2, "b", true, 1, 2), one(3, "c", true, 2)}, logOf("a", "b", "a", "b", "c"), Report{Copies: 2}},
		"copies in an order in which nobody sent them": {
			[]receipts.Receipt{one(1, "a", true, 1, 2), one(2, "b", true, 1, 2)}, logOf("a", "a", "b", "b"), Report{Copies: 2, OutOfOrder: 1}},
		"equal payloads, one message resent, two records": {
			[]receipts.Receipt{one(1, "x", true, 1, 2), one(2, "x", true, 2)}, logOf("x", "x"), Report{Undecidable: 1}},
		"equal payloads, all records there": {
			[]receipts.Receipt{one(1, "x", true, 1, 2), one(2, "x", true, 2)}, logOf("x", "x", "x"), Report{Copies: 1}},
		"equal payloads, sent once each, one gone": {
			[]receipts.Receipt{one(1, "x", true, 1), one(2, "x", true, 1), one(3, "x", true, 1)}, logOf("x", "x"), Report{Missing: 1}},
		"equal payloads far apart do not stand in for each other": {
			[]receipts.Receipt{one(1, "x", true, 1, 2), one(2, "y", true, 2), one(3, "x", true, 2)}, logOf("x", "x", "y"), Report{Missing: 1, Copies: 0}},
		"not acknowledged may be there or not": {
			[]receipts.Receipt{one(1, "a", false, 1), one(2, "b", false, 1), one(3, "c", false)}, logOf("a"), Report{}},
		"an unacknowledged equal makes it undecidable": {
			[]receipts.Receipt{one(1, "x", false, 1), one(2, "x", true, 1)}, logOf("x"), Report{Undecidable: 1}},
	} {
		h := &history{receipts: c.receipts}
		r := h.verify(t, c.log)
		got := Report{Missing: r.Missing, Double: r.Double, Unexpected: r.Unexpected, OutOfOrder: r.OutOfOrder, Undecidable: r.Undecidable, Copies: r.Copies}
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", name, got, c.want)
		}
	}
}

func TestOrderOfALog(t *testing.T) {
	h := &history{receipts: []receipts.Receipt{one(1, "a", true, 1), one(2, "b", true, 1), one(3, "c", true, 2)}}
	log := logOf("a", "b", "c")
	late := []Record{log[1], log[2], log[0]}
	if r := h.verify(t, late); r.OutOfOrder == 0 {
		t.Errorf("an earlier record behind: %+v", r)
	}
	late[2].Backfill = true
	if r := h.verify(t, late); !r.OK() {
		t.Errorf("marked as backfill: %+v", r)
	}
	// A newer epoch's records went first: the older epoch is still the earlier one.
	log[2].ID.Epoch, log[2].Seq = stream.Epoch{9}, 1
	log[0].Backfill, log[1].Backfill = true, true
	if r := h.verify(t, []Record{log[2], log[0], log[1]}); !r.OK() {
		t.Errorf("epochs in another order: %+v", r)
	}
}

func TestSeveralClientsAndFiles(t *testing.T) {
	other := one(1, "z", true, 1)
	other.Client = "d"
	both := one(2, "x", true, 1)
	both.Client = "d"
	h := &history{receipts: []receipts.Receipt{one(1, "a", true, 1), one(2, "x", true, 1), one(3, "b", true, 1), other, both}}
	if r := h.verify(t, logOf("z", "a", "x", "x", "b")); !r.OK() || r.Undecidable != 0 {
		t.Errorf("%+v", r)
	}
	if r := h.verify(t, logOf("z", "a", "x", "b")); r.Missing != 1 {
		t.Errorf("one of two equal ones: %+v", r)
	}
	if r := h.verify(t, logOf("b", "z", "a", "x", "x")); r.OutOfOrder != 1 {
		t.Errorf("order within a client: %+v", r)
	}
	g := &history{receipts: []receipts.Receipt{one(1, "q", true, 1)}} // the same client, another file
	r, err := Run(append(h.files(t), g.files(t)...), Each(logOf("z", "q", "a", "x", "x", "b")), Options{})
	if err != nil || !r.OK() {
		t.Errorf("%+v %v", r, err)
	}
}

func TestDevices(t *testing.T) {
	h := &history{receipts: []receipts.Receipt{one(1, "a", true, 1)}}
	log := append(logOf("a"), Record{ID: stream.ID{Device: "other", Lane: 1}, Seq: 1, Topic: "t", Hash: 3}, Record{ID: stream.ID{Device: "other", Lane: 1}, Seq: 2, Topic: "elsewhere", Hash: 3})
	if _, err := Run(h.files(t), Each(log), Options{}); !errors.Is(err, ErrManyDevices) {
		t.Error(err)
	}
	if r, err := Run(h.files(t), Each(log), Options{Device: "truck"}); err != nil || !r.OK() || r.Other != 0 {
		t.Errorf("%+v %v", r, err)
	}
}

// A simulator that was killed has no receipts of what it sent last: such
// records are counted as undecidable at the end of a topic, and nowhere else.
func TestKilledSimulator(t *testing.T) {
	text := `{"packetboat_receipts":1}` + "\n" + fmt.Sprintf(`{"client":"c","topic":"t","n":1,"hash":"%s","tries":1,"acked":true,"sent":[1]}`, receipts.HashOf([]byte("a"))) + "\n"
	verify := func(log []Record) *Report {
		r, err := Run([]Receipts{{receipts.NewReader(bytes.NewReader([]byte(text)), "f"), "f"}}, Each(log), Options{})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := verify(logOf("a", "b", "c")); !r.OK() || r.Undecidable != 2 || r.Unfinished != 1 {
		t.Errorf("%+v", r)
	}
	if r := verify(logOf("b", "a")); r.Unexpected != 1 {
		t.Errorf("%+v", r)
	}
}
