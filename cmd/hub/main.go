// Command packetboat-hub takes the batches of a fleet of edges and appends
// every message exactly once to its commit log; its other commands read what
// arrived, prove it, and look after the devices' secrets.
//
// It exits with 0 when it was stopped, 1 when it failed or a promise was found
// broken, 2 for wrong arguments or configuration, 3 when another process has
// the data directory, 4 when an address cannot be listened on, and 5 when an
// operator has to act first.
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
	c := cli.Root("packetboat-hub", "takes the batches of a fleet and appends every message exactly once",
		`packetboat-hub takes the batches of a fleet of packetboat-edge and appends every
message exactly once to its commit log.

Exit codes: 0 stopped, 1 failed or a promise found broken, 2 usage or
configuration, 3 data directory locked, 4 cannot listen, 5 an operator is needed.`,
		`  packetboat-hub run                         # log in ./packetboat-hub-data, loopback only
  packetboat-hub device add truck-17         # prints a secret, once
  packetboat-hub tail --follow --topic 'car/+/speed'
  packetboat-hub verify`)
	c.AddCommand(runCommand(), statusCommand(), tailCommand(), streamsCommand(), verifyCommand(),
		cli.Group("device", "who may connect", "  packetboat-hub device add truck-17 --config /etc/packetboat/hub.yaml > secret\n  packetboat-hub device list",
			deviceAdd(), deviceList(), deviceRemove()),
		cli.Group("config", "the configuration", "  packetboat-hub config check --config /etc/packetboat/hub.yaml\n  packetboat-hub config keys", configCheck(), configKeys()))
	cli.Version(c, obs.Version().String())
	return c
}
