package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/packetboat/packetboat/internal/cli"
	"github.com/packetboat/packetboat/internal/httpapi"
)

func statusCommand() *cobra.Command {
	var hubURL string
	var asJSON bool
	c := &cobra.Command{
		Use: "status", Short: "ask the running hub how it is", Args: cli.NoArgs,
		Long: `Ask the hub for its connections, whom it refused and why, how long its
certificates and revocation lists are good, and for devices that share an id.`,
		Example: `  packetboat-hub status
  packetboat-hub status --json | jq .gate.refused`,
	}
	c.Flags().StringVar(&hubURL, "hub", defaultHub, "address of the hub's API")
	c.Flags().BoolVar(&asJSON, "json", false, "print everything as JSON")
	c.RunE = func(c *cobra.Command, _ []string) error {
		ctx, stop := cli.Signals(c.Context())
		defer stop()
		client, err := newClient(hubURL)
		if err != nil {
			return err
		}
		defer client.Close()
		s, err := client.Status(ctx)
		if err != nil {
			return err
		}
		if asJSON {
			enc := json.NewEncoder(c.OutOrStdout())
			enc.SetIndent("", "  ")
			return enc.Encode(s)
		}
		return printStatus(c.OutOrStdout(), &s)
	}
	return c
}

func printStatus(w io.Writer, s *httpapi.Status) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(what, format string, args ...any) {
		fmt.Fprintf(tw, "%s\t%s\n", what, fmt.Sprintf(format, args...))
	}
	line("devices", "%d connected; %d connects, %d of them took over, %d expelled", s.Connected, s.Connects, s.Takeovers, s.Expelled)
	if c := &s.Codec; c.Sessions+c.Kept+c.Fresh+c.Resumed+c.SelfContained > 0 {
		line("codec", "%d sessions learn in %.1f MiB, %d are kept for devices that are away in %.1f MiB, of %.1f MiB",
			c.Sessions, mib(c.StateBytes), c.Kept, mib(c.KeptBytes), mib(c.TotalBytes))
		line("codec sessions", "%d began fresh, %d were resumed; dropped: %s; %d batches stood for themselves for want of room",
			c.Fresh, c.Resumed, nonZero(c.Dropped), c.SelfContained)
	}
	line("gate", "%d connections came, %d passed; %d wait, %d in a handshake; delayed %d by rate, %d by handshakes",
		s.Gate.Arrived, s.Gate.Accepted, s.Gate.Waiting, s.Gate.Handshaking, s.Gate.Delayed, s.Gate.FullHandshakes)
	line("closed before MQTT", "%s", nonZero(s.Gate.Refused))
	line("refused", "%s", nonZero(s.RefusedConnects))
	if t := s.TLS; t != nil {
		line("certificate", "until %s", t.NotAfter.Format(time.RFC3339))
		if t.ClientCANotAfter != nil {
			line("authorities of devices", "until %s", t.ClientCANotAfter.Format(time.RFC3339))
		}
		if t.Lists > 0 {
			next := "no date for the next"
			if t.NextUpdate != nil {
				next = "the next is due at " + t.NextUpdate.Format(time.RFC3339)
			}
			line("revocation lists", "%d, with %d certificates; %s", t.Lists, t.Revoked, next)
		}
	}
	for i := range s.Duplicates {
		line("one id twice", "%s", twice(&s.Duplicates[i]))
	}
	for _, p := range s.Problems {
		line("problem", "%s", p)
	}
	return tw.Flush()
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// twice is the line about two live devices with one id.
func twice(d *httpapi.Duplicate) string {
	return fmt.Sprintf("two live devices are %s: seen %d times, last at %s, from %s; give one of them another id and secret",
		d.Device, d.Count, d.Last.Format(time.RFC3339), strings.Join(d.Addresses, " and "))
}

// nonZero gives "revoked 2, tls 1", or "none".
func nonZero(counts map[string]int64) string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(counts)) {
		if counts[k] != 0 {
			all = append(all, fmt.Sprintf("%s %d", k, counts[k]))
		}
	}
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}
