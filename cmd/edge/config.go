package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/packetboat/packetboat/internal/cli"
	"github.com/packetboat/packetboat/internal/config"
	"github.com/packetboat/packetboat/internal/edge"
)

func checkCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "check", Short: "say everything that is wrong with a configuration", Args: cli.NoArgs,
		Long: `Read the configuration as run would, with its file, the environment and the
flags, and the files that it names: users, ACL, certificates and keys, revocation
lists, secrets. Say everything that is wrong at once. Nothing is started. The
exit code is 2 when anything is wrong, a certificate that is expired included;
run goes on without that one.`,
		Example: `  packetboat-edge config check --config edge.yaml
  packetboat-edge config check --device truck-17 --hub tcp://hub.example:1884`,
		RunE: func(c *cobra.Command, _ []string) error {
			conf, src := edge.Defaults(), source(c)
			if err := src.Load(&conf); err != nil {
				return err
			}
			for _, w := range conf.Warnings() {
				fmt.Fprintln(c.ErrOrStderr(), "warning:", w)
			}
			expired, expiring := conf.Certificates()
			for _, w := range expiring {
				fmt.Fprintln(c.ErrOrStderr(), "warning:", w)
			}
			if len(expired) > 0 {
				return cli.Fail(cli.Usage, errors.New(strings.Join(expired, "; ")), "renew it: the edge reads the new files by itself")
			}
			name := src.Path
			if name == "" {
				name = "the configuration"
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "%s is good: device %s, sensors at %s, hub %v\n", name, conf.Device, strings.Join(conf.Listen.Sensors(), ", "), conf.Hub.URLs)
			return err
		},
	}
	settingFlags(c)
	return c
}

func keysCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "keys", Short: "list every key with its default and environment variable", Args: cli.NoArgs,
		Example: "  packetboat-edge config keys\n  packetboat-edge config keys --json",
		RunE: func(c *cobra.Command, _ []string) error {
			conf := edge.Defaults()
			keys := config.Describe(&conf, edge.EnvPrefix)
			if asJSON, _ := c.Flags().GetBool("json"); asJSON {
				enc := json.NewEncoder(c.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(keys)
			}
			t := tabwriter.NewWriter(c.OutOrStdout(), 0, 4, 2, ' ', 0)
			fmt.Fprintln(t, "KEY\tTYPE\tDEFAULT\tENVIRONMENT\tMEANING")
			for _, k := range keys {
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", k.Name, k.Type, k.Default, k.Env, k.Doc)
			}
			return t.Flush()
		},
	}
	c.Flags().Bool("json", false, "print as JSON")
	return c
}
