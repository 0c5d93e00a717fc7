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
	"github.com/packetboat/packetboat/pkg/stream"
)

// verdict is what the proof found.
type verdict struct {
	report    *prove.Report
	hubVerify string  // the last line of packetboat-hub verify
	tampered  string  // what became of a log with one record less
	doubled   string  // and of one with a QoS 2 record more
	perUp     float64 // bytes on the link per message
	perDown   float64
	plain     float64 // what plain MQTT would have sent up
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
	tamperErr := errors.Join(d.tamper(v, copied), d.double(v, copied))
	link := d.link.Stats()
	n := float64(max(report.Acknowledged, 1))
	v.perUp, v.perDown, v.plain = float64(link.BytesUp)/n, float64(link.BytesDown)/n, d.plain.perMessage()
	fmt.Fprintf(d.o.Out, "\nhub verify: %s\n", v.hubVerify)
	fmt.Fprintf(d.o.Out, "one record removed from a copy: %s\n", v.tampered)
	fmt.Fprintf(d.o.Out, "one QoS 2 record doubled in a copy: %s\n", v.doubled)
	fmt.Fprintf(d.o.Out, "on the link: %.2f bytes per message up, %.2f down, all connections and what was sent again included; plain MQTT: %.2f up, each message sent once (%.1f times as much)\n\n",
		v.perUp, v.perDown, v.plain, v.plain/max(v.perUp, 0.01))
	fmt.Fprintf(d.o.Out, "acknowledged %d, missing %d, double %d", report.Acknowledged, report.Missing, report.Double)
	if report.Undecidable > 0 {
		fmt.Fprintf(d.o.Out, ", undecidable %d (sent again, with the payload of a neighbour)", report.Undecidable)
	}
	fmt.Fprintln(d.o.Out)
	if q := report.QoS2; report.OK() && q.Messages > 0 {
		fmt.Fprintf(d.o.Out, "QoS 2: %d acknowledged, %d sent more than once, each in the log exactly once%s\n", q.Acknowledged, q.Resent, several(q))
	}
	if err := d.writeReport(v); err != nil {
		return err
	}
	fmt.Fprintf(d.o.Out, "report: %s\n", d.path("report.html"))
	switch {
	case !report.OK():
		return fmt.Errorf("%w: see the report", ErrBroken)
	case report.Acknowledged == 0 || report.QoS2.Acknowledged == 0:
		return errors.New("nothing was acknowledged, or nothing with QoS 2, so nothing was shown")
	case report.QoS2.InSeveralSessions > 0:
		return fmt.Errorf("%w: the edge forgot sessions of QoS 2 sensors", ErrBroken)
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

// several says what a QoS 2 message was excused for.
func several(q prove.QoS2) string {
	if q.InSeveralSessions == 0 {
		return ""
	}
	return fmt.Sprintf(", but for %d that were sent in several sessions, because the edge had forgotten one", q.InSeveralSessions)
}

// double puts one record of a message that was sent once, in QoS 2's sense, into
// the copy again, under another number: the comparison must notice.
func (d *demo) double(v *verdict, copied []prove.Record) error {
	exact, err := d.exactTopics()
	if err != nil {
		return err
	}
	top := map[stream.ID]uint64{}
	for _, r := range copied {
		top[r.ID] = max(top[r.ID], r.Seq)
	}
	for i := range tries {
		at := (len(copied)/2 + i*len(copied)/tries) % max(len(copied), 1)
		for at < len(copied) && !exact[copied[at].Topic] {
			at++
		}
		if at >= len(copied) {
			continue
		}
		again := copied[at]
		again.Seq = top[again.ID] + 1
		report, err := d.compare(prove.Each(slices.Concat(copied, []prove.Record{again})))
		if err != nil {
			return err
		}
		if report.Double == v.report.Double+1 {
			v.doubled = fmt.Sprintf("noticed (record %d of %s: %d double)", copied[at].Seq, copied[at].Topic, report.Double)
			return nil
		}
	}
	v.doubled = "NOT NOTICED"
	return errors.New("the proof does not notice a QoS 2 record that was doubled: it proves nothing")
}

// exactTopics gives the topics of QoS 2 messages.
func (d *demo) exactTopics() (map[string]bool, error) {
	f, err := os.Open(d.path("receipts"))
	if err != nil {
		return nil, fmt.Errorf("opening the receipts: %w", err)
	}
	defer f.Close()
	topics := map[string]bool{}
	r := receipts.NewReader(f, "receipts")
	for r.Next() {
		if c := r.Receipt(); c.QoS == 2 {
			topics[c.Topic] = true
		}
	}
	return topics, r.Err()
}

// tries bounds the search for a record that equal payloads do not hide.
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
