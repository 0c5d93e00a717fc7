package linkbench

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
)

// formats are the ways to print a report.
var formats = map[string]func(io.Writer, *Report) error{
	"text":     func(w io.Writer, r *Report) error { return printPage(w, r, plainText) },
	"markdown": func(w io.Writer, r *Report) error { return printPage(w, r, markdown) },
	"json": func(w io.Writer, r *Report) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	},
}

// grid is a table, and what has to be said of it.
type grid struct {
	head []string
	rows [][]string
	note string
}

// plainText sets a table in columns.
func plainText(w io.Writer, g grid) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, row := range append([][]string{g.head}, g.rows...) {
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s\n\n", g.note)
	return err
}

// markdown sets a table as README has it.
func markdown(w io.Writer, g grid) error {
	line := func(cells []string) string { return "| " + strings.Join(cells, " | ") + " |\n" }
	var b strings.Builder
	b.WriteString(line(g.head) + strings.Repeat("|---", len(g.head)) + "|\n")
	for _, row := range g.rows {
		cells := make([]string, len(row))
		for i := range row {
			cells[i] = strings.ReplaceAll(row[i], "|", `\|`)
		}
		b.WriteString(line(cells))
	}
	_, err := fmt.Fprintf(w, "%s\n%s\n\n", b.String(), g.note)
	return err
}

func printPage(w io.Writer, r *Report, table func(io.Writer, grid) error) error {
	for _, g := range []grid{r.bytes(), r.parts(), r.cost(), r.sources()} {
		if err := table(w, g); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "Every batch was decoded and compared byte for byte. Times and memory: %s", r.Machine)
	if r.PeakMemory > 0 {
		_, err = fmt.Fprintf(w, "; this process had %.0f MB at most, the messages included", float64(r.PeakMemory)/1e6)
	}
	if err == nil {
		_, err = fmt.Fprintln(w, ".")
	}
	if len(r.Passed) > 0 && err == nil {
		_, err = fmt.Fprintf(w, "Not recordings: %s.\n", strings.Join(r.Passed, ", "))
	}
	return err
}

// bytes is the table that matters: what a message costs on the link.
func (r *Report) bytes() grid {
	g := grid{head: []string{"bytes per message on the link", "messages", "plain MQTT"}}
	for _, m := range modes {
		g.head = append(g.head, m.name)
	}
	for i := range r.Results {
		s := &r.Results[i]
		row := []string{s.Name, grouped(s.Messages), digits(s.Plain)}
		for _, m := range modes {
			row = append(row, s.each(m.key, func(f *Figure) string { return digits(f.Bytes) }))
		}
		g.rows = append(g.rows, row)
	}
	g.note = fmt.Sprintf("Batches of %s messages. Every figure contains MQTT framing, protobuf envelope and check; times are kept at %s. "+
		"Plain MQTT: a PUBLISH of MQTT 5 with QoS 1 and the whole topic for each message. Self-contained: each batch decodes by itself. "+
		"A connection that goes on with a session costs %d bytes of CONNECT up and %d of CONNACK down besides, and over TLS 1.3 some %s up and %s down to begin; neither is in a figure.",
		sizeList(), r.Resolution, r.Connect, r.Connack, grouped((r.TLSUp+50)/100*100), grouped((r.TLSDown+50)/100*100))
	return g
}

// parts says of what the learning session's bytes consist, and what carries them.
func (r *Report) parts() grid {
	g := grid{head: []string{"learning session", "coder alone, B/message", "envelope, B/batch", "with TLS and TCP/IP, B/message", "plain MQTT so, B/message"}}
	for i := range r.Results {
		s := &r.Results[i]
		g.rows = append(g.rows, []string{s.Name,
			s.each("learning", func(f *Figure) string { return digits(f.Coder) }),
			s.each("learning", func(f *Figure) string { return strconv.FormatFloat(f.Envelope, 'f', 1, 64) }),
			s.each("learning", func(f *Figure) string { return digits(f.Carried) }),
			s.each("learning", func(f *Figure) string { return digits(f.PlainCarried) }),
		})
	}
	g.note = fmt.Sprintf("Envelope: MQTT framing, protobuf and check. Coder alone: the body less its check of %d bytes. TLS 1.3 adds %d bytes to each record of %d KiB, "+
		"TCP over IPv4 %d to each segment (%d without timestamps, 20 more over IPv6); plain MQTT is given as many messages in one write. "+
		"On the way back a batch costs a PUBACK of %d bytes, %d with TLS and TCP/IP.", check, tlsRecord, tlsContent>>10, tcpHeaders, tcpHeaders-12, puback, carried(puback))
	return g
}

// cost is what it costs the machines.
func (r *Report) cost() grid {
	g := grid{head: []string{fmt.Sprintf("batches of %d", timed), "topics", "rows, ns", "self-contained, ns", "learning, ns", "allocations", "state", "memory", "peak"}}
	for i := range r.Results {
		s := &r.Results[i]
		row := []string{s.Name, grouped(s.Topics)}
		for _, m := range []string{"rows", "self_contained", "learning"} {
			f := s.figure(m, timed)
			row = append(row, fmt.Sprintf("%.0f / %.0f", f.EncodeNS, f.DecodeNS))
		}
		f := s.figure("learning", timed)
		g.rows = append(g.rows, append(row, fmt.Sprintf("%.3f / %.3f", f.EncodeAllocs, f.DecodeAllocs),
			fmt.Sprintf("%s / %s", kilo(f.EncoderState), kilo(f.DecoderState)), fmt.Sprintf("%s / %s", kilo(f.EncoderMemory), kilo(f.DecoderMemory)), kilo(f.PeakMemory)))
	}
	g.note = "Each pair is encoding / decoding, per message, or edge / hub. Allocations, state and memory are those of the learning session: " +
		"state as the session counts it at most, memory what the heap gave back at the end when a side was let go, with its scratch space, peak what both had at the most."
	return g
}

// sources says where the telemetry is from.
func (r *Report) sources() grid {
	g := grid{head: []string{"recording", "source"}, note: "Where a recording has no arrival times they are modelled: what was sampled together comes as a burst " +
		"that begins 0.5 ms late on average, 20 to 200 µs between its messages; NMEA 0183 in turns of 2 s; seeded."}
	for i := range r.Results {
		source := r.Results[i].Source
		if source == "" {
			source = "not known"
		}
		g.rows = append(g.rows, []string{r.Results[i].Name, source})
	}
	return g
}

// each says something of a mode's figures, one for each size.
func (r *Result) each(mode string, say func(*Figure) string) string {
	var all []string
	for _, size := range sizes {
		if f := r.figure(mode, size); f != nil {
			all = append(all, say(f))
		}
	}
	return strings.Join(all, " / ")
}

func sizeList() string {
	var all []string
	for _, s := range sizes {
		all = append(all, grouped(s))
	}
	return strings.Join(all, " / ")
}

// digits prints three digits that matter.
func digits(v float64) string {
	switch {
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case v >= 1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'f', 3, 64)
}

// grouped prints 1234567 as 1,234,567.
func grouped(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func kilo(n int) string { return grouped((n+500)/1000) + " kB" }
