package main

import (
	"errors"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/packetboat/packetboat/firmware-sim/linkbench"
	"github.com/packetboat/packetboat/internal/cli"
)

func benchLinkCommand() *cobra.Command {
	var o linkbench.Options
	var asMarkdown, asJSON, quiet bool
	c := &cobra.Command{
		Use: "bench-link", Short: "bytes per message on the link, beside plain MQTT", Args: cli.NoArgs,
		Long: `bench-link sends telemetry through the link's encoder and decoder and says what a
message costs: bytes as plain MQTT, as rows under zstd, self-contained, in a
learning session, and in one whose connection ends every 2,000 messages, with
and without resume, in batches of 20, 200 and 2,000 messages; nanoseconds and
allocations; state and memory. Every figure contains MQTT framing, envelope and
check. Every batch is decoded and compared byte for byte.

Without --data the telemetry is that of the simulator's own car and ship; with it
every recording in the folder, as 'packetboat-sim replay' reads them. A CSV that is
not known is measured as JSON per signal, as JSON per row, as bare values, and
as JSON that is stamped when it is sent.

It exits with 1 when a batch differs; with --short also when the own car or ship
costs more than a bound.`,
		Example: `  packetboat-sim bench-link
  packetboat-sim bench-link --data ../shared/data --only EV
  packetboat-sim bench-link --data ../shared/data --rounds 5 --markdown > figures.md
  packetboat-sim bench-link --json | jq '.recordings[].figures[] | select(.mode == "learning")'`,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := cli.Signals(c.Context())
			defer stop()
			o.Out, o.Notes, o.Format = c.OutOrStdout(), c.ErrOrStderr(), "text"
			switch {
			case asMarkdown && asJSON:
				return usage(errors.New("--markdown and --json: use one of them"))
			case asMarkdown:
				o.Format = "markdown"
			case asJSON:
				o.Format = "json"
			}
			if quiet {
				o.Notes = io.Discard
			}
			if o.Short && (o.Data != "" || o.Only != "" || c.Flags().Changed("messages") || c.Flags().Changed("resolution")) {
				return usage(errors.New("--short measures what its bounds are for: not with --data, --only, --messages or --resolution"))
			}
			if o.Rounds < 1 || o.Messages < 0 || o.Resolution < time.Microsecond {
				return usage(errors.New("want at least one round, no negative number of messages, and a resolution of 1us or more"))
			}
			err := linkbench.Run(ctx, o)
			if errors.Is(err, linkbench.ErrNone) {
				return cli.Fail(cli.Usage, err, "a folder holds CSV, candump -L, NMEA 0183, NMEA 2000 as text, JSON arrays or NDJSON; without --data the simulator's own car and ship are measured")
			}
			return err
		},
	}
	fl := c.Flags()
	fl.StringVar(&o.Data, "data", "", "`folder` of recordings; without: the simulator's own car and ship")
	fl.StringVar(&o.Only, "only", "", "measure only what has this `text` in its name")
	fl.IntVar(&o.Rounds, "rounds", 3, "`rounds` of every time that is shown; the shortest counts")
	fl.IntVar(&o.Messages, "messages", 0, "`messages` of a recording at most; 0: 1,000,000, and 200,000 of a made-up device")
	fl.DurationVar(&o.Resolution, "resolution", time.Millisecond, "`time` to which a lane keeps times, as the edge's lanes.resolution")
	fl.BoolVar(&o.Short, "short", false, "20,000 messages of each made-up device, held against bounds")
	fl.BoolVar(&asMarkdown, "markdown", false, "print the tables as README has them")
	fl.BoolVar(&asJSON, "json", false, "print all figures as JSON")
	fl.BoolVarP(&quiet, "quiet", "q", false, "do not say what is being measured")
	return c
}
