package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/packetboat/packetboat/firmware-sim/prove"
	"github.com/packetboat/packetboat/internal/rig/receipts"
	"github.com/packetboat/packetboat/pkg/commitlog"
)

// verdict is what the proof found.
type verdict struct {
	report    *prove.Report
	hubVerify string // the last line of packetboat-hub verify
	tampered  string // what became of a log with one record less
	perUp     float64
	perDown   float64
}

// proof compares receipts and log, asks the hub's own verifier, and checks that
// the comparison would have noticed.
func (d *demo) proof(ctx context.Context) error {
	d.say("comparing %d receipts with the log", d.fleet.Stats().Published)
	var copied []prove.Record // about 100 bytes each
	log := prove.FromLog(d.client.Read(ctx, commitlog.Cursor{}, commitlog.Filter{}))
	report, err := d.compare(keep(log, &copied))
	if err != nil {
		return err
	}
	v := &verdict{report: report}
	fmt.Fprintln(d.o.Out)
	if err := report.Print(d.o.Out); err != nil {
		return err
	}
	hubErr := d.askHub(ctx, v)
	tamperErr := d.tamper(v, copied)
	link := d.link.Stats()
	n := float64(max(report.Acknowledged, 1))
	v.perUp, v.perDown = float64(link.BytesUp)/n, float64(link.BytesDown)/n
	fmt.Fprintf(d.o.Out, "\nhub verify: %s\n", v.hubVerify)
	fmt.Fprintf(d.o.Out, "one record removed from a copy: %s\n", v.tampered)
	fmt.Fprintf(d.o.Out, "on the link: %.2f bytes per message up, %.2f down\n\n", v.perUp, v.perDown)
	fmt.Fprintf(d.o.Out, "acknowledged %d, missing %d, double %d", report.Acknowledged, report.Missing, report.Double)
	if report.Undecidable > 0 {
		fmt.Fprintf(d.o.Out, ", undecidable %d (sent again, with the payload of a neighbour)", report.Undecidable)
	}
	fmt.Fprintln(d.o.Out)
	if err := d.writeReport(v); err != nil {
		return err
	}
	fmt.Fprintf(d.o.Out, "report: %s\n", d.path("report.html"))
	switch {
	case !report.OK():
		return fmt.Errorf("%w: see the report", ErrBroken)
	case report.Acknowledged == 0:
		return errors.New("nothing was acknowledged, so nothing was shown")
	}
	return errors.Join(hubErr, tamperErr)
}

// compare proves the demo's receipts against the given records.
func (d *demo) compare(records iter.Seq2[prove.Record, error]) (*prove.Report, error) {
	f, err := os.Open(d.path("receipts"))
	if err != nil {
		return nil, fmt.Errorf("opening the receipts: %w", err)
	}
	defer f.Close()
	return prove.Run([]prove.Receipts{{Reader: receipts.NewReader(f, "receipts"), Name: "receipts"}}, records, prove.Options{Device: "demo-car"})
}

// keep copies what passes.
func keep(records iter.Seq2[prove.Record, error], into *[]prove.Record) iter.Seq2[prove.Record, error] {
	return func(yield func(prove.Record, error) bool) {
		for r, err := range records {
			if err == nil {
				*into = append(*into, r)
			}
			if !yield(r, err) {
				return
			}
		}
	}
}

// askHub runs the hub's own verifier against the running hub.
func (d *demo) askHub(ctx context.Context, v *verdict) error {
	out, err := exec.CommandContext(ctx, d.hubPath, "verify", "--hub", "http://"+d.hubHTTP).CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(bytes.ToValidUTF8(out, []byte("?")))), "\n")
	v.hubVerify = lines[len(lines)-1]
	if err != nil {
		return fmt.Errorf("%w: packetboat-hub verify: %w\n%s", ErrBroken, err, out)
	}
	return nil
}

// tries bounds the search for a record whose loss equal payloads do not hide.
const tries = 20

// tamper removes one record from the copy: the comparison must notice.
func (d *demo) tamper(v *verdict, copied []prove.Record) error {
	for i := range tries {
		at := (len(copied)/2 + i*len(copied)/tries) % max(len(copied), 1)
		if at >= len(copied) {
			break
		}
		report, err := d.compare(prove.Each(slices.Concat(copied[:at], copied[at+1:])))
		if err != nil {
			return err
		}
		if report.Missing == v.report.Missing+1 {
			v.tampered = fmt.Sprintf("noticed (record %d of %s: %d missing)", copied[at].Seq, copied[at].Topic, report.Missing)
			return nil
		}
		if report.Undecidable <= v.report.Undecidable && report.Copies >= v.report.Copies {
			break // neither a copy of a message, nor hidden by equal payloads: waved through
		}
	}
	v.tampered = "NOT NOTICED"
	return errors.New("the proof does not notice a record that was removed: it proves nothing")
}
