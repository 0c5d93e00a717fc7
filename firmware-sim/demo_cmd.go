package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/packetboat/packetboat/firmware-sim/demo"
	"github.com/packetboat/packetboat/internal/cli"
)

func demoCommand() *cobra.Command {
	var o demo.Options
	c := &cobra.Command{
		Use: "demo", Short: "hub, bad link, edge and sensors; a cut, a kill -9, and the proof", Args: cli.NoArgs,
		Long: `demo runs a hub, a bad link and an edge, lets sensors speak, cuts the link, kills
the edge with -9, starts it again and restores the link. Then it compares the
receipts with the log, asks the hub's own verifier, shows that a missing record
would have been noticed, and writes a report with plots.

It exits with 1 when anything is missing or double.`,
		Example: `  go run ./firmware-sim demo
  packetboat-sim demo --data ../shared/data`,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := cli.Signals(c.Context())
			defer stop()
			o.Out = c.OutOrStdout()
			return demo.Run(ctx, o)
		},
	}
	fl := c.Flags()
	fl.StringVar(&o.Data, "data", "", "`folder` of recordings to replay instead of made-up sensors")
	fl.StringVar(&o.Bin, "bin", "", "`folder` of packetboat-edge and packetboat-hub; without: beside this program, or built")
	fl.StringVar(&o.Dir, "out", "out/demo", "`folder` for the report, receipts, logs and data")
	fl.Uint64Var(&o.Seed, "seed", 1, "`number` that decides every value and the link's losses")
	fl.DurationVar(&o.Pace, "pace", 6*time.Second, "`time` of each of the four acts")
	return c
}
