package soak

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"text/tabwriter"

	"github.com/packetboat/packetboat/firmware-sim/prove"
	"github.com/packetboat/packetboat/internal/rig/receipts"
	"github.com/packetboat/packetboat/pkg/commitlog"
)

// verdict proves, prints, and says whether everything was kept.
func (s *soak) verdict(ctx context.Context) error {
	if err := s.table(); err != nil {
		return err
	}
	report, err := s.compare(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(s.o.Out)
	if err := report.Print(s.o.Out); err != nil {
		return err
	}
	if !report.OK() {
		s.breaks("receipts and log differ")
	}
	if err := s.askHub(ctx); err != nil {
		return err
	}
	s.judge(report)
	edge, kills := s.world.running()
	if err := edge.Stop(); err != nil {
		s.breaks("the edge does not stop in order: %v", err)
	}
	s.readLog()
	o := &s.seen
	fmt.Fprintf(s.o.Out, "\nover %d kills: longest pause of an honest sensor %s, of the display %s; the edge had at most %s of %s; acknowledged %d, missing %d, double %d\n",
		kills, o.longest().Round(every), o.shown.longest.Round(every), mega(o.memory), mega(s.o.Memory), report.Acknowledged, report.Missing, report.Double)
	if len(s.broken) > 0 {
		return fmt.Errorf("%w: %s", ErrBroken, strings.Join(s.broken, "; "))
	}
	fmt.Fprintln(s.o.Out, "no promise was broken")
	return nil
}

// judge looks for what would make the run worth nothing.
func (s *soak) judge(r *prove.Report) {
	o := &s.seen
	if r.QoS2.Acknowledged == 0 || r.QoS2.Acknowledged == r.Acknowledged || o.shown.count == 0 {
		s.breaks("nothing was acknowledged to honest sensors with QoS 1, or with QoS 2, or nothing was shown")
	}
	if n := r.QoS2.InSeveralSessions; n > 0 { // else copies of them would be excused
		s.breaks("the edge forgot sessions of honest sensors: %d messages were sent in several", n)
	}
	if r.Undecidable > 0 {
		s.breaks("%d messages cannot be decided, although no two payloads are equal", r.Undecidable)
	}
	if o.readings == 0 {
		s.breaks("the memory of the edge was never read")
	}
}

// readLog looks for what the edge should never say.
func (s *soak) readLog() {
	b, err := os.ReadFile(s.world.path("edge.log"))
	if err != nil {
		s.breaks("the edge's log cannot be read: %v", err)
		return
	}
	for _, bad := range []string{"panic", "DATA RACE", "fatal error"} {
		if at := bytes.Index(b, []byte(bad)); at >= 0 {
			line, _, _ := strings.Cut(string(b[at:]), "\n")
			s.breaks("the edge's log says: %.200s", line)
		}
	}
	for _, secret := range []string{s.world.honestPassword, s.world.strangerPassword} {
		if bytes.Contains(b, []byte(secret)) {
			s.breaks("the edge's log holds a password")
		}
	}
}

// table says what became of each behaviour.
func (s *soak) table() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintln(s.o.Out)
	t := tabwriter.NewWriter(s.o.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "behaviour\tpasses\tattempts\twhat the edge did\tcounters, from one pass alone\n")
	for _, b := range s.behaviours {
		x := s.rows[b.name]
		if x == nil {
			continue
		}
		counters := x.seen.String()
		if x.group != "" {
			counters += " (" + x.group + ")"
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%s\t%s\n", b.name, x.passes, x.Attempts, x.Summary(4), counters)
	}
	return t.Flush()
}

// compare holds the receipts against the hub's log.
func (s *soak) compare(ctx context.Context) (*prove.Report, error) {
	f, err := os.Open(s.world.path("receipts"))
	if err != nil {
		return nil, fmt.Errorf("opening the receipts: %w", err)
	}
	defer f.Close()
	log := prove.FromLog(s.world.client.Read(ctx, commitlog.Cursor{}, commitlog.Filter{}))
	return prove.Run([]prove.Receipts{{Reader: receipts.NewReader(f, "receipts"), Name: "receipts"}}, log, prove.Options{Device: device})
}

// askHub runs the hub's own verifier.
func (s *soak) askHub(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, s.world.hubPath, "verify", "--hub", "http://"+s.world.hubHTTP).CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	fmt.Fprintf(s.o.Out, "\nhub verify: %s\n", lines[len(lines)-1])
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exit) && exit.ExitCode() == 1:
		s.breaks("packetboat-hub verify: %s", lines[len(lines)-1])
		return nil
	}
	return fmt.Errorf("running packetboat-hub verify: %w\n%s", err, out)
}
