package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/packetboat/packetboat/firmware-sim/soak"
	"github.com/packetboat/packetboat/internal/cli"
)

func soakFrontCommand() *cobra.Command {
	o := soak.Options{}
	var minutes float64
	var memory int64
	c := &cobra.Command{
		Use: "soak-front", Short: "honest sensors beside hostile clients, over kills of the edge", Args: cli.NoArgs,
		Long: `soak-front runs a hub and an edge, lets honest sensors with receipts and an
on-board display work, and sets on the edge every way to break MQTT's rules that
internal/rig/hostile knows: first each alone, to see which counter tells of it,
then all together, while the edge is killed with -9 every so often. Then it
compares the receipts with the log and asks the hub's own verifier.

It exits with 1 when the edge ended by itself or grew beyond its memory, when
honest clients had no service for too long, when no counter told of a behaviour,
and when anything acknowledged is missing or double.`,
		Example: `  packetboat-sim soak-front --minutes 10
  packetboat-sim soak-front --minutes 1 --only slow-connect --only session-hoard`,
		RunE: func(c *cobra.Command, _ []string) error {
			if minutes <= 0 || o.KillEvery <= 0 {
				return usage(fmt.Errorf("--minutes %g and --kill-every %s prove nothing, both must be above 0", minutes, o.KillEvery))
			}
			ctx, stop := cli.Signals(c.Context())
			defer stop()
			o.Duration, o.Memory, o.Out = time.Duration(minutes*float64(time.Minute)), memory<<20, c.OutOrStdout()
			return soak.Run(ctx, o)
		},
	}
	fl := c.Flags()
	fl.Float64Var(&minutes, "minutes", 5, "`minutes` of all behaviours together, after each was seen alone")
	fl.DurationVar(&o.KillEvery, "kill-every", 20*time.Second, "`time` between two kills of the edge")
	fl.Int64Var(&memory, "memory", 256, "`MiB` that the edge may have resident")
	fl.DurationVar(&o.Pause, "pause", 30*time.Second, "longest `time` without service for the honest, kills included")
	fl.Float64Var(&o.Rate, "rate", 400, "`messages/s` of the honest sensors together")
	fl.BoolVar(&o.Short, "short", false, "less patience everywhere, to see that it works")
	fl.StringArrayVar(&o.Only, "only", nil, "only this `behaviour`; may be given several times")
	fl.StringVar(&o.Bin, "bin", "", "`folder` of packetboat-edge and packetboat-hub; without: beside this program, or built")
	fl.StringVar(&o.Dir, "out", "out/soak", "`folder` for receipts, logs and data")
	fl.Uint64Var(&o.Seed, "seed", 1, "`number` that decides what is random")
	return c
}
