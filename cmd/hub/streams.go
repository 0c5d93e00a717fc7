package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/packetboat/packetboat/internal/cli"
	"github.com/packetboat/packetboat/internal/httpapi"
)

func streamsCommand() *cobra.Command {
	var hubURL, device string
	var asJSON, all bool
	c := &cobra.Command{
		Use: "streams", Short: "show what is in, lost and still out there, per stream", Args: cli.NoArgs,
		Long: `Show, for each stream of each device, how many of its messages are in the log, how
many were declared lost and why, and how many are still out there. Streams that
are closed and complete, without a loss, are left out unless --all is given.`,
		Example: `  packetboat-hub streams
  packetboat-hub streams --device truck-17 --all
  packetboat-hub streams --json | jq '{device, complete_to}'`,
	}
	c.Flags().StringVar(&hubURL, "hub", defaultHub, "address of the hub's API")
	c.Flags().StringVar(&device, "device", "", "only this device")
	c.Flags().BoolVar(&asJSON, "json", false, "a JSON object per device and line, as the API gives it")
	c.Flags().BoolVar(&all, "all", false, "closed and complete streams too")
	c.RunE = func(c *cobra.Command, _ []string) error {
		ctx, stop := cli.Signals(c.Context())
		defer stop()
		client, err := newClient(hubURL)
		if err != nil {
			return err
		}
		defer client.Close()
		if asJSON {
			return streamsJSON(ctx, c.OutOrStdout(), client, device)
		}
		return streamsTable(ctx, c.OutOrStdout(), client, device, all)
	}
	return c
}

// deviceStreams yields the named device, or all there are.
func deviceStreams(ctx context.Context, client *httpapi.Client, device string) iter.Seq2[*httpapi.DeviceStreams, error] {
	return func(yield func(*httpapi.DeviceStreams, error) bool) {
		if device != "" {
			yield(client.Streams(ctx, device, 10))
			return
		}
		for id, err := range client.Devices(ctx) {
			if err != nil {
				yield(nil, err)
				return
			}
			d, err := client.Streams(ctx, id, 10)
			if !yield(d, err) || err != nil {
				return
			}
		}
	}
}

func streamsJSON(ctx context.Context, w io.Writer, client *httpapi.Client, device string) error {
	enc := json.NewEncoder(w)
	for d, err := range deviceStreams(ctx, client, device) {
		if err != nil {
			return err
		}
		if err := enc.Encode(d); err != nil {
			return err
		}
	}
	return nil
}

func streamsTable(ctx context.Context, w io.Writer, client *httpapi.Client, device string, all bool) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "DEVICE\tLINK\tEPOCH\tLANE\tSTATE\tIN\tLOST\tOUT THERE\tCOMPLETE TO")
	hidden := 0
	var notes []string
	for d, err := range deviceStreams(ctx, client, device) {
		if err != nil {
			return err
		}
		if d.Duplicate != nil {
			notes = append(notes, twice(d.Duplicate))
		}
		for i := range d.Streams {
			s := &d.Streams[i]
			if !all && s.Closed && s.OutThere.Count == 0 && s.Lost.Count == 0 {
				hidden++
				continue
			}
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", d.Device.Device, link(d), s.Epoch.String()[:8], s.Lane, state(s),
				in(s), lost(s), outThere(s), orDash(s.CompleteTo))
		}
		if len(d.Streams) == 0 {
			fmt.Fprintf(tw, "%s\t%s\t-\t-\t-\t0\t0\t0\t-\n", d.Device.Device, link(d))
		}
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, n := range notes {
		fmt.Fprintln(w, n)
	}
	if hidden > 0 {
		fmt.Fprintf(w, "%d closed and complete streams are not shown; --all shows them\n", hidden)
	}
	return nil
}

func link(d *httpapi.DeviceStreams) string {
	if d.Connected {
		return "up"
	}
	return "down"
}

func state(s *httpapi.Stream) string {
	text := "open"
	if s.Closed {
		text = "closed"
	}
	if s.FIFO {
		text += " fifo"
	}
	return text
}

func in(s *httpapi.Stream) string {
	text := strconv.FormatUint(s.In.Count, 10)
	if s.Expired.Count > 0 {
		text += fmt.Sprintf(" (%d expired)", s.Expired.Count)
	}
	return text
}

func lost(s *httpapi.Stream) string {
	if s.Lost.Count == 0 {
		return "0"
	}
	return fmt.Sprintf("%d (%s)", s.Lost.Count, counted(s.LostBy))
}

// counted gives "evicted 2, expired 1".
func counted(counts map[string]uint64) string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(counts)) {
		all = append(all, fmt.Sprintf("%s %d", k, counts[k]))
	}
	return strings.Join(all, ", ")
}

func outThere(s *httpapi.Stream) string {
	text := strconv.FormatUint(s.OutThere.Count, 10)
	if s.Absent > 0 {
		text += fmt.Sprintf(" (%d absent)", s.Absent)
	}
	return text
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
