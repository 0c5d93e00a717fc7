package audit

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// kinds in the order in which a table shows them.
var kinds = []Kind{Double, Missing, Unknown, LostButThere, ExpiredButThere, Disorder, Misplaced, Contradiction}

// WriteTable writes the report for people: a line per device, what is broken,
// what could not be checked, and the verdict.
func (r *Report) WriteTable(w io.Writer) error {
	p := &printer{w: w}
	t := tabwriter.NewWriter(p, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "device\tstreams\trecords\tlost\tout there\texpired\tbroken\t")
	line := func(name string, c *Counts) {
		broken := uint64(0)
		for _, n := range c.Broken {
			broken += n
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t\n", name, c.Streams, c.Records, c.Lost, c.Out, c.Expired, broken)
	}
	for i := range r.Devices {
		line(r.Devices[i].Device, &r.Devices[i].Counts)
	}
	line(fmt.Sprintf("all %d", len(r.Devices)), &r.Total)
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	if len(r.Total.LostBy) > 0 {
		var by []string
		for _, reason := range slices.Sorted(maps.Keys(r.Total.LostBy)) {
			by = append(by, fmt.Sprintf("%s %d", reason, r.Total.LostBy[reason]))
		}
		fmt.Fprintf(p, "\nlost, declared: %s\n", strings.Join(by, ", "))
	}
	if n := r.Total.Expired; n > 0 {
		fmt.Fprintf(p, "\nnot checkable: %d records were deleted by retention\n", n)
	}
	if n := r.Total.Forgotten; n > 0 {
		fmt.Fprintf(p, "\nnot checkable: %d records are of epochs that coverage has let go of\n", n)
	}
	r.writeFindings(p)
	if p.err != nil {
		return fmt.Errorf("write the table: %w", p.err)
	}
	return nil
}

func (r *Report) writeFindings(p *printer) {
	for _, f := range r.Findings {
		fmt.Fprintf(p, "\n%s: %s/%s/%s: %d: %s", strings.ReplaceAll(string(f.Kind), "_", " "), f.Device, f.Epoch, f.Lane, f.Count, f.Numbers)
	}
	if len(r.Findings) > 0 {
		fmt.Fprintln(p)
	}
	if r.More > 0 {
		fmt.Fprintf(p, "and %d findings more\n", r.More)
	}
	if r.OK {
		fmt.Fprintf(p, "\nOK: every record is there once, in order, and coverage says what the records say\n")
		return
	}
	var all []string
	for _, k := range kinds {
		if n := r.Total.Broken[k]; n > 0 {
			all = append(all, fmt.Sprintf("%d %s", n, strings.ReplaceAll(string(k), "_", " ")))
		}
	}
	fmt.Fprintf(p, "\nBROKEN: %s\n", strings.Join(all, ", "))
}

// printer keeps the first error.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) Write(b []byte) (int, error) {
	if p.err != nil {
		return 0, p.err
	}
	n, err := p.w.Write(b)
	p.err = err
	return n, err
}
