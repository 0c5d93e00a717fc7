// Command packetboat-sim makes up or replays sensors, imitates a bad link,
// proves that what was acknowledged is in the log, and measures.
//
// It exits with 0 when it is done or was stopped, 1 when it failed or a promise
// was found broken, 2 for wrong arguments, and 4 when an address cannot be
// listened on.
package main

import (
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/packetboat/packetboat/internal/cli"
	"github.com/packetboat/packetboat/internal/obs"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	return cli.Run(root(), args, stdout, stderr)
}

func root() *cobra.Command {
	c := cli.Root("packetboat-sim", "sensors, recordings, a bad link, and the proof",
		`packetboat-sim stands where vehicles, bad links and auditors stand: it publishes
as sensors do and keeps a receipt of every message, imitates a bad link, and
compares the receipts with the commit log.

Exit codes: 0 done, 1 failed or a promise found broken, 2 usage, 4 cannot listen.`,
		`  packetboat-sim sensors --profile car --receipts receipts --duration 1m
  packetboat-sim replay drive.csv can.log --speed 10 --receipts receipts
  packetboat-sim link --listen 127.0.0.1:2884 --to 127.0.0.1:1884 --rate 20000 --schedule 10s:blackhole,40s:up
  packetboat-sim verify --receipts receipts --hub http://127.0.0.1:8460
  packetboat-sim bench --broker tcp://127.0.0.1:1883`)
	c.AddCommand(sensorsCommand(), replayCommand(), linkCommand(), verifyCommand(), benchCommand(), benchEdgeCommand(), benchLinkCommand(), demoCommand(), soakFrontCommand())
	cli.Version(c, obs.Version().String())
	return c
}

// usage marks an error as one of arguments.
func usage(err error) error { return cli.Fail(cli.Usage, err, "") }
