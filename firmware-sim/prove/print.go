package prove

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// Print writes the report for people.
func (r *Report) Print(w io.Writer) error {
	var b bytes.Buffer
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(name string, n int64, note string) { fmt.Fprintf(t, "%s\t%d\t%s\n", name, n, note) }
	row("messages", r.Messages, fmt.Sprintf("with a receipt, to %d topics", r.Topics))
	row("acknowledged", r.Acknowledged, "")
	row("in the log", r.Records, fmt.Sprintf("to these topics; %d copies that the sensors' own resends explain", r.Copies))
	if q := r.QoS2; q.Messages > 0 {
		row("QoS 2", q.Messages, fmt.Sprintf("of them %d acknowledged, %d sent more than once, %d in several sessions", q.Acknowledged, q.Resent, q.InSeveralSessions))
	}
	if r.Other > 0 {
		row("other records", r.Other, "to topics without receipts, not judged")
	}
	if len(r.LostNumbers) > 0 {
		row("declared lost", r.Declared, "acknowledged, not in the log, and declared by the hub: "+r.lostNumbers())
	}
	row("missing", r.Missing, "acknowledged and not in the log")
	row("double", r.Double, "more often in the log than sent; with QoS 2, than sessions it was sent in")
	row("unexpected", r.Unexpected, "in the log and never sent")
	row("out of order", r.OutOfOrder, "")
	row("undecidable", r.Undecidable, "left open by equal payloads, or by what was declared lost")
	_ = t.Flush() // writes to memory
	for _, e := range r.Examples {
		fmt.Fprintf(&b, "  %s: %s: %s\n", e.Kind, e.Topic, e.Detail)
	}
	if r.Unfinished > 0 {
		fmt.Fprintf(&b, "%d runs of the simulator were killed: what they sent last has no receipt\n", r.Unfinished)
	}
	switch {
	case !r.OK():
		b.WriteString("BROKEN\n")
	case r.Undecidable > 0:
		fmt.Fprintf(&b, "nothing is broken; %d cases cannot be decided\n", r.Undecidable)
	case r.Declared > 0:
		b.WriteString("every acknowledged message is in the log exactly once, or declared lost\n")
	default:
		b.WriteString("every acknowledged message is in the log exactly once\n")
	}
	_, err := w.Write(b.Bytes())
	return err
}

// lostNumbers lists the declared losses by reason.
func (r *Report) lostNumbers() string {
	var all []string
	for _, reason := range slices.Sorted(maps.Keys(r.LostNumbers)) {
		all = append(all, fmt.Sprintf("%s %d", reason, r.LostNumbers[reason]))
	}
	return strings.Join(all, ", ")
}
