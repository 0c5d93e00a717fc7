package prove

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/packetboat/packetboat/internal/rig/receipts"
	"github.com/packetboat/packetboat/pkg/commitlog"
	"github.com/packetboat/packetboat/pkg/stream"
)

// exactly makes a history of sensors with QoS 2 in which no promise is broken:
// an edge that takes what it does not have yet in the session, and that loses
// sessions where lossy.
func exactly(t *rapid.T, values int, lossy bool) *history {
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
				Client: fmt.Sprint("c", c), Topic: fmt.Sprint("t", c), N: uint64(n + 1), Hash: receipts.HashOf([]byte(payload)), QoS: 2, Sent: []uint32{},
			})
		}
		acked, session, held := 0, uint32(1), 0 // held: behind acked, of this session
		for conn := uint32(1); acked < total && conn < 8; conn++ {
			if conn > 1 && lossy && rapid.Bool().Draw(t, "loses the session") {
				session, held = session+1, 0
			}
			sent := rapid.IntRange(0, total-acked).Draw(t, "sent")
			taken := rapid.IntRange(0, sent).Draw(t, "taken")
			told := rapid.IntRange(0, min(taken, max(sent, held))).Draw(t, "acknowledged")
			for i := range sent {
				at := base + acked + i
				r := &h.receipts[at]
				r.Sent, r.Tries, r.Acked = append(r.Sent, conn), r.Tries+1, i < told
				if n := len(r.Sessions); n == 0 || r.Sessions[n-1] != session {
					r.Sessions = append(r.Sessions, session)
				}
				if i >= held && i < taken {
					seq[id]++
					h.log, h.at = append(h.log, Record{ID: id, Seq: seq[id], Topic: r.Topic, Hash: r.Hash}), append(h.at, at)
				}
			}
			held = max(held, taken) - told
			acked += told
			if rapid.Bool().Draw(t, "restart") {
				id.Epoch[1]++
			}
		}
	}
	return h
}

func TestCleanQoS2Passes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SampledFrom([]int{0, 0, 1, 2, 5}).Draw(t, "values")
		lossy := rapid.Bool().Draw(t, "lossy")
		h := exactly(t, values, lossy)
		r := h.verify(t, h.log)
		if !r.OK() || values == 0 && r.Undecidable != 0 || r.QoS2.Messages != r.Messages || r.QoS2.Acknowledged != r.Acknowledged {
			t.Fatalf("%+v", r)
		}
		if !lossy && (r.Copies != 0 || r.QoS2.InSeveralSessions != 0) {
			t.Fatalf("copies without a lost session: %+v", r)
		}
	})
}

// A QoS 2 record that is doubled, gone or swapped turns red, however often its
// message was sent.
func TestTamperedQoS2(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := exactly(t, 0, rapid.Bool().Draw(t, "lossy"))
		if len(h.log) == 0 {
			return
		}
		i := rapid.IntRange(0, len(h.log)-1).Draw(t, "which")
		again := h.log[i]
		again.Seq = 1000 // another number: not one record twice, but two
		if copies(h.at, h.at[i]) == len(h.receipts[h.at[i]].Sessions) {
			if r := h.verify(t, append(slices.Clone(h.log), again)); r.Double != 1 {
				t.Fatalf("doubled: %+v", r)
			}
		}
		r, lost := h.verify(t, slices.Delete(slices.Clone(h.log), i, i+1)), h.lost(i)
		if r.Missing != lost || r.OK() != (lost == 0) {
			t.Fatalf("removed: %+v", r)
		}
		if log := swapped(h, i); log != nil {
			if r := h.verify(t, log); r.OutOfOrder == 0 {
				t.Fatalf("swapped: %+v", r)
			}
		}
	})
}

func two(n uint64, payload string, acked bool, sessions []uint32, sent ...uint32) receipts.Receipt {
	r := one(n, payload, acked, sent...)
	r.QoS, r.Sessions = 2, sessions
	return r
}

func TestCasesOfQoS2(t *testing.T) {
	s := func(n ...uint32) []uint32 { return n }
	for name, c := range map[string]struct {
		receipts []receipts.Receipt
		log      []Record
		want     Report
	}{
		"sent nine times, there once": {
			[]receipts.Receipt{two(1, "a", true, s(1), 1, 2, 3, 4, 5, 6, 7, 8, 9)}, logOf("a"), Report{}},
		"sent twice in a session, there twice": {
			[]receipts.Receipt{two(1, "a", true, s(1), 1, 2), two(2, "b", true, s(1), 2)}, logOf("a", "a", "b"), Report{Double: 1}},
		"sent twice with QoS 1, there twice": {
			[]receipts.Receipt{one(1, "a", true, 1, 2), one(2, "b", true, 2)}, logOf("a", "a", "b"), Report{Copies: 1}},
		"sent in two sessions, there twice": {
			[]receipts.Receipt{two(1, "a", true, s(1, 2), 1, 2), two(2, "b", true, s(2), 2)}, logOf("a", "a", "b"), Report{Copies: 1}},
		"sent in two sessions, there three times": {
			[]receipts.Receipt{two(1, "a", true, s(1, 2), 1, 2, 3), two(2, "b", true, s(2), 2)}, logOf("a", "a", "a", "b"), Report{Copies: 1, Double: 1}},
		"acknowledged and gone": {
			[]receipts.Receipt{two(1, "a", true, s(1), 1, 2), two(2, "b", true, s(1), 2)}, logOf("b"), Report{Missing: 1}},
		"not acknowledged and gone": {
			[]receipts.Receipt{two(1, "a", false, s(1), 1, 2), two(2, "b", true, s(1), 2)}, logOf("b"), Report{}},
		"swapped, although both were sent twice": {
			[]receipts.Receipt{two(1, "a", true, s(1), 1, 2), two(2, "b", true, s(1), 1, 2)}, logOf("b", "a"), Report{OutOfOrder: 1}},
		"equal payloads, one too many": {
			[]receipts.Receipt{two(1, "x", true, s(1), 1, 2), two(2, "x", true, s(1), 1, 2)}, logOf("x", "x", "x"), Report{Double: 1}},
		"equal payloads, one too few": {
			[]receipts.Receipt{two(1, "x", true, s(1), 1, 2), two(2, "x", true, s(1), 1, 2)}, logOf("x"), Report{Missing: 1}},
		"a topic with QoS 1 and 2: each in its own order": {
			[]receipts.Receipt{one(1, "a", true, 1), two(2, "b", true, s(1), 1), one(3, "c", true, 1), two(4, "d", true, s(1), 1)}, logOf("b", "d", "a", "c"), Report{}},
		"a topic with QoS 1 and 2: QoS 1 explains no copy of QoS 2": {
			[]receipts.Receipt{one(1, "a", true, 1, 2), two(2, "b", true, s(1), 1, 2)}, logOf("a", "b", "a", "b"), Report{Copies: 1, Double: 1}},
	} {
		h := &history{receipts: c.receipts}
		r := h.verify(t, c.log)
		got := Report{Missing: r.Missing, Double: r.Double, Unexpected: r.Unexpected, OutOfOrder: r.OutOfOrder, Undecidable: r.Undecidable, Copies: r.Copies}
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", name, got, c.want)
		}
	}
}

// declaring gives the coverage of a log from which the given places were lost.
func declaring(log []Record, lost ...int) func(string) (*commitlog.DeviceCoverage, error) {
	cov := &commitlog.DeviceCoverage{}
	states := map[stream.Epoch]*commitlog.EpochState{}
	for i, r := range log {
		e := states[r.ID.Epoch]
		if e == nil {
			e = &commitlog.EpochState{ID: r.ID.Epoch}
			states[r.ID.Epoch] = e
			cov.Epochs = append(cov.Epochs, e)
		}
		l, n := &e.Lanes[r.ID.Lane], stream.Range{First: r.Seq, Last: r.Seq}
		if slices.Contains(lost, i) {
			l.Lost.Add(n)
			l.LostBy[stream.Evicted]++
		} else {
			l.In.Add(n)
		}
	}
	return func(device string) (*commitlog.DeviceCoverage, error) {
		if device != "truck" {
			return nil, nil
		}
		return cov, nil
	}
}

// without removes records.
func without(log []Record, places ...int) (left []Record) {
	for i, r := range log {
		if !slices.Contains(places, i) {
			left = append(left, r)
		}
	}
	return left
}

// What was declared lost is never called missing, and what was not is never
// called declared: whatever else is open, the sums hold from both sides.
func TestDeclaredLosses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SampledFrom([]int{0, 0, 0, 2}).Draw(t, "values")
		h := random(t, values)
		if rapid.Bool().Draw(t, "QoS 2") {
			h = exactly(t, values, rapid.Bool().Draw(t, "lossy"))
		}
		if len(h.log) == 0 {
			return
		}
		places := rapid.SliceOfNDistinct(rapid.IntRange(0, len(h.log)-1), 0, min(len(h.log), 6), func(i int) int { return i }).Draw(t, "gone")
		cut := rapid.IntRange(0, len(places)).Draw(t, "of them declared")
		r, err := Run(h.files(t), Each(without(h.log, places...)), Options{Device: "truck", Coverage: declaring(h.log, places[:cut]...)})
		if err != nil {
			t.Fatal(err)
		}
		silent := h.lost(places...) - h.lost(places[:cut]...) // at least so many promises are broken
		gone := h.lost(places...)
		if r.Missing+r.Undecidable < silent {
			t.Fatalf("%d messages are gone, %d promises are broken without a word: %+v", gone, silent, r)
		}
		if most := int64(cut); r.Declared > min(most, gone) || r.Missing > gone || values == 0 && r.Missing+r.Undecidable+r.Declared != gone {
			t.Fatalf("%d messages are gone, %d numbers declared: %+v", gone, cut, r)
		}
		if cut == len(places) && r.Missing > 0 {
			t.Fatalf("all is declared: %+v", r)
		}
		if r.Missing == 0 && slices.ContainsFunc(r.Examples, func(e Example) bool { return e.Kind == Missing }) {
			t.Fatalf("nothing is missing: %+v", r.Examples)
		}
	})
}

func TestCasesOfLosses(t *testing.T) {
	sent := []receipts.Receipt{one(1, "a", true, 1), one(2, "b", true, 1), one(3, "c", true, 1), one(4, "d", true, 1), one(5, "e", true, 1)}
	all := logOf("a", "b", "c", "d", "e")
	foreign := Record{ID: device, Seq: 9, Topic: "strange", Hash: 1}
	urgent := foreign
	urgent.ID.Lane = stream.Urgent
	expired := func(string) (*commitlog.DeviceCoverage, error) {
		e := &commitlog.EpochState{ID: device.Epoch}
		e.Lanes[stream.Normal].In = stream.NewRangeSet(stream.Range{First: 1, Last: 5})
		e.Lanes[stream.Normal].Expired = stream.NewRangeSet(stream.Range{First: 1, Last: 2})
		return &commitlog.DeviceCoverage{Epochs: []*commitlog.EpochState{e}}, nil
	}
	// Of a, b and c the second is gone without a word; lost is the number of d,
	// which was never promised, and whatever else is said.
	abc, unpromised := logOf("a", "b", "c"), append(slices.Clone(sent[:3]), one(4, "d", false, 1))
	bulk, fresh := device, device
	bulk.Lane, fresh.Epoch[1] = stream.Bulk, 7
	for name, c := range map[string]struct {
		receipts []receipts.Receipt
		log      []Record
		coverage func(string) (*commitlog.DeviceCoverage, error)
		want     Report
	}{
		"two declared": {sent, without(all, 1, 2), declaring(all, 1, 2), Report{Declared: 2}},
		"two gone, one declared beside them": {
			sent, without(all, 1, 2), declaring(all, 1), Report{Missing: 1, Declared: 1}},
		"gone where nothing was declared": {
			sent, without(all, 1, 3), declaring(all, 3), Report{Missing: 1, Declared: 1}},
		"the number of another place": {
			append(slices.Clone(sent), one(6, "f", false, 1)), without(all, 1, 4), declaring(all, 4), Report{Missing: 1, Undecidable: 1}},
		"an unacknowledged message may have had the number": {
			[]receipts.Receipt{one(1, "a", true, 1), one(2, "b", true, 1), one(3, "c", false, 1), one(4, "d", true, 1), one(5, "e", true, 1)},
			without(all, 1, 2), declaring(all, 1), Report{Undecidable: 1}},
		"a second send may have had the number": {
			[]receipts.Receipt{one(1, "a", true, 1), one(2, "b", true, 1, 2), one(3, "c", true, 2), one(4, "d", true, 2), one(5, "e", true, 2)},
			without(all, 1), declaring(all, 1), Report{Undecidable: 1}},
		"a second send of QoS 2 has none": {
			[]receipts.Receipt{two(1, "a", true, []uint32{1}, 1), two(2, "b", true, []uint32{1}, 1, 2), two(3, "c", true, []uint32{1}, 2), two(4, "d", true, []uint32{1}, 2), two(5, "e", true, []uint32{1}, 2)},
			without(all, 1), declaring(all, 1), Report{Declared: 1}},
		"sensors without receipts in the lane": {
			sent, append(without(all, 1), foreign), declaring(all, 1), Report{Undecidable: 1}},
		"sensors without receipts in another lane": {
			sent, append(without(all, 1), urgent), declaring(all, 1), Report{Declared: 1}},
		"more numbers than messages": {
			sent[:4], without(all, 1, 4), declaring(all, 1, 4), Report{Undecidable: 1}},
		"all is lost":             {sent, nil, declaring(all, 0, 1, 2, 3, 4), Report{Declared: 5}},
		"all is lost but for one": {sent, nil, declaring(all, 0, 1, 2, 3), Report{Declared: 4, Missing: 1}},
		"nobody can be asked":     {sent, without(all, 1), nil, Report{Missing: 1}},
		"a number of another lane is lost too": {
			unpromised, without(abc, 1), declaring(append(logOf("a", "b", "c", "d"), Record{ID: bulk, Seq: 1}), 3, 4), Report{Missing: 1}},
		"lost in another epoch than the records beside it": {
			unpromised, without(abc, 1), declaring(append(logOf("a", "b", "c"), Record{ID: fresh, Seq: 1}), 3), Report{Missing: 1}},
		"lost in the epoch between": {
			sent[:3], append(logOf("a"), Record{ID: stream.ID{Device: "truck", Epoch: stream.Epoch{1, 9}, Lane: stream.Normal}, Seq: 1, Topic: "t", Hash: receipts.HashOf([]byte("c"))}),
			declaring(append(logOf("a"), Record{ID: fresh, Seq: 1}), 1), Report{Declared: 1}},
		"deleted by retention": {sent, without(all, 0, 1), expired, Report{Declared: 2}},
		"more than retention deleted": {
			sent, without(all, 0, 1, 3), expired, Report{Declared: 2, Missing: 1}},
	} {
		h := &history{receipts: c.receipts}
		r, err := Run(h.files(t), Each(c.log), Options{Device: "truck", Coverage: c.coverage})
		if err != nil {
			t.Fatal(err)
		}
		got := Report{Missing: r.Missing, Declared: r.Declared, Undecidable: r.Undecidable}
		if fmt.Sprint(got) != fmt.Sprint(c.want) || r.Double+r.Unexpected+r.OutOfOrder != 0 {
			t.Errorf("%s:\n got %+v\nwant %+v", name, r, c.want)
		}
		var b strings.Builder
		if err := r.Print(&b); err != nil || (r.Declared > 0) != strings.Contains(b.String(), "declared lost") && r.Missing+r.Undecidable == 0 {
			t.Errorf("%s: %v\n%s", name, err, b.String())
		}
	}
}
