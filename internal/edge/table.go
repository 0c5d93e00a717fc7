package edge

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/packetboat/packetboat/internal/config"
	"github.com/packetboat/packetboat/internal/uplink"
)

// Print writes the status for people.
func (s *Status) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(t, "%s\t%s\n", name, clean(fmt.Sprintf(format, args...)))
	}
	line("device", "%s, up %s, packetboat-edge %s", s.Device, spanOf(s.Now.Sub(s.Started)), s.Build.Version)
	if s.Ready {
		line("ready", "yes")
	} else {
		line("ready", "no: %s", strings.Join(s.NotReady, "; "))
	}
	line("link", "%s", s.linkLine())
	if s.Link.LastError != "" {
		line("last error", "%s ago: %s", spanOf(s.Now.Sub(s.Link.LastErrorAt)), s.Link.LastError)
	}
	line("sent", "%s, received %s, %d connects", sizeOf(s.Link.BytesSent), sizeOf(s.Link.BytesReceived), s.Link.Connects)
	if s.Link.Codec != nil {
		line("codec", "%s", s.Link.Codec.line())
	}
	line("accepted", "%s messages", count(s.Messages.Accepted))
	line("settled", "%s", count(s.Messages.Settled))
	line("waiting", "%s, and %s in flight", count(s.Messages.Queued), count(s.Messages.InFlight))
	line("lost", "%s", s.lostLine())
	if s.Messages.Dropped > 0 {
		line("dropped", "%s by rule since the start", count(uint64(s.Messages.Dropped)))
	}
	if !s.Messages.ConservationOK {
		line("CAUTION", "accepted is not settled + waiting + in flight + lost: please report this")
	}
	line("journal", "%s of %s in %s", sizeOf(s.Journal.Bytes), sizeOf(s.Journal.LimitBytes), s.Journal.Dir)
	if s.Journal.DiskError != "" {
		line("disk error", "%s", s.Journal.DiskError)
	}
	s.Sensors.print(line, s.Now)
	fmt.Fprintf(t, "\nLANE\tWAITING\tSIZE\tOLDEST\n")
	for _, l := range s.Lanes {
		oldest := "-"
		if l.Messages > 0 {
			oldest = spanOf(time.Duration(l.OldestSeconds * float64(time.Second)))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", l.Lane, count(uint64(max(0, l.Messages))), sizeOf(l.Bytes), oldest)
	}
	return t.Flush()
}

// print writes what is, and of what went wrong only what did.
func (s *SensorStatus) print(line func(name, format string, args ...any), now time.Time) {
	line("sensors", "%d connected, %s, %s, %s retained", s.Clients, plural(s.Sessions, "session"), plural(s.Subscriptions, "subscription"), count(uint64(max(0, s.Retained))))
	if s.Refused > 0 {
		line("refused", "%s%s", plural(s.Refused, "message"), byName(s.RefusedBy))
	}
	if len(s.Denied) > 0 {
		line("acl denied", "%s", strings.Trim(byName(s.Denied), " ()"))
	}
	if s.BadLogins > 0 {
		line("bad logins", "%s", count(uint64(s.BadLogins)))
	}
	if len(s.TurnedAway) > 0 {
		line("turned away", "%s", strings.Trim(byName(s.TurnedAway), " ()"))
	}
	if len(s.Limits) > 0 {
		line("limits hit", "%s", strings.Trim(byName(s.Limits), " ()"))
	}
	if len(s.Errors) > 0 {
		line("broke rules", "%s", strings.Trim(byName(s.Errors), " ()"))
	}
	if s.StateFailures > 0 {
		line("not saved", "%s of sessions", plural(s.StateFailures, "change"))
	}
	for _, c := range s.Certificates {
		if text := c.problem(now); text != "" {
			line("certificate", "%s", text)
		}
	}
}

// plural counts things.
func plural(n int64, what string) string {
	if n != 1 {
		what += "s"
	}
	return count(uint64(max(0, n))) + " " + what
}

// byName writes " (2 busy, 1 full)", or nothing.
func byName(m map[string]int64) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s %s", count(uint64(m[name])), name))
	}
	if parts == nil {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

func (s *Status) linkLine() string {
	text := string(s.Link.State)
	if !s.Link.Since.IsZero() {
		text += " for " + spanOf(s.Now.Sub(s.Link.Since))
	}
	if s.Link.Hub != "" {
		text += ", " + s.Link.Hub
	}
	if s.Link.State == uplink.Waiting && s.Link.RetryAt.After(s.Now) {
		text += ", next try in " + spanOf(s.Link.RetryAt.Sub(s.Now))
	}
	if s.Link.RoundTripSeconds > 0 {
		text += ", round trip " + time.Duration(s.Link.RoundTripSeconds*float64(time.Second)).Round(100*time.Microsecond).String()
	}
	return text
}

func (s *Status) lostLine() string {
	if s.Messages.Lost == 0 {
		return "0"
	}
	var parts []string
	for _, reason := range slices.Sorted(maps.Keys(s.Messages.LostBy)) {
		parts = append(parts, fmt.Sprintf("%s %s", count(s.Messages.LostBy[reason]), reason))
	}
	return fmt.Sprintf("%s (%s)", count(s.Messages.Lost), strings.Join(parts, ", "))
}

// clean keeps what came over the network, such as a hub's reason, from playing
// with the terminal or the table.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

// count writes a number with commas.
func count(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// sizeOf rounds a size for people.
func sizeOf(n int64) string {
	if n < 10<<10 {
		return config.Bytes(n).String()
	}
	f, unit := float64(n), 0
	for f >= 1024 && unit < 4 {
		f /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f%s", f, []string{"B", "KiB", "MiB", "GiB", "TiB"}[unit])
}

// spanOf rounds a span for people: two units at most.
func spanOf(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < 10*time.Second:
		d = d.Round(100 * time.Millisecond)
	case d < time.Hour:
		d = d.Round(time.Second)
	case d < 24*time.Hour:
		d = d.Round(time.Minute)
	default:
		d = d.Round(time.Hour)
	}
	return config.Duration(d).String()
}
