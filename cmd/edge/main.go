// Command packetboat-edge runs on a vehicle: it takes the messages of sensors
// over MQTT, keeps them on flash, and sends them to a hub when there is a link.
//
// Here are commands and flags; what they do is in internal/edge.
package main

import (
	"io"
	"os"

	"github.com/packetboat/packetboat/internal/cli"
	"github.com/packetboat/packetboat/internal/obs"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

const long = `packetboat-edge takes the messages of sensors over MQTT, puts them on flash
before it says thank you, and carries them to a hub over whatever link there is.

Exit codes: 0 stopped as asked, also with a backlog; 1 failed; 2 wrong arguments
or configuration; 3 the data directory is locked; 4 cannot listen; 5 somebody
has to repair something first.`

const example = `  packetboat-edge run --device truck-17 --hub tcp://hub.example:1884
  packetboat-edge run --config /etc/packetboat/edge.yaml
  packetboat-edge status
  packetboat-edge config check --config edge.yaml`

func run(args []string, stdout, stderr io.Writer) int {
	root := cli.Root("packetboat-edge", "store-and-forward agent for telemetry", long, example)
	root.AddCommand(
		runCommand(stderr),
		statusCommand(),
		cli.Group("config", "check and explain the configuration",
			"  packetboat-edge config check --config edge.yaml\n  packetboat-edge config keys", checkCommand(), keysCommand()),
		cli.Group("user", "the names and passwords of sensors",
			"  packetboat-edge user add gps --config /etc/packetboat/edge.yaml\n  packetboat-edge user list --file sensors.users", userAddCommand(), userRemoveCommand(), userListCommand()),
		cli.Group("acl", "which topics sensors may publish to and see",
			"  packetboat-edge acl check --file sensors.acl\n  packetboat-edge acl check --config edge.yaml --user gps --client gps-1 --publish sensors/gps/pos", aclCheckCommand()),
	)
	cli.Version(root, obs.Version().String())
	return cli.Run(root, args, stdout, stderr)
}
